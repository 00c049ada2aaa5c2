"""The data doctor: what is wrong with a data set, before anything learns from it."""
