"""Reading public weights and writing exports: Hugging Face folders, GGUF, ONNX, diffusers, PEFT, safetensors."""
