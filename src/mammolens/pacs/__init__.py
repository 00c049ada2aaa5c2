"""Beside a PACS: what is fetched from one. dicomweb-client lives here alone."""
