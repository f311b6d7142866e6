"""The imperceptible mark of generated tokens: how it is put into them, and the exact test for it."""
