"""Beside a PACS: mammograms come in by C-STORE, results go out by C-STORE or STOW-RS. Its protocols live here alone."""
