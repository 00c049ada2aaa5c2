"""The service: answers over HTTP, for other programs. FastAPI lives here alone."""
