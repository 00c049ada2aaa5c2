"""Synthetic mammograms, drawn from seeds alone."""
