"""Copies of mammograms that do not say whose they are."""
