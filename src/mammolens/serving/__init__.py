"""A bundle put to use, on ONNX Runtime. Knows no training framework."""
