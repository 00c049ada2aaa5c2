"""Networks and their training. Keras lives here alone."""
