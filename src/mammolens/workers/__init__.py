"""Processes that do for this one what is not safe to do here: with limits, one question at a time."""
