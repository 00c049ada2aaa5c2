"""Which images there are, what is known of them, and who is judged on what."""
