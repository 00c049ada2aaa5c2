"""From predictions and a manifest to an honest report."""
