"""The page: someone drops a mammogram and reads an answer. Knows nothing of learning.

`server.serve` starts it; `page.py` is the story from top to bottom; the rest are its rooms.
"""
