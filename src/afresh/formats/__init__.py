"""Public weights in, exports out: Hugging Face folders, GGUF files, and one plain file of our own."""
