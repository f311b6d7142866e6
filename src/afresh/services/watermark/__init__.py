"""The imperceptible marks of generated tokens and images: how they are put there, and the exact tests for them."""
