"""Reading images: files, arrays and pairs."""
