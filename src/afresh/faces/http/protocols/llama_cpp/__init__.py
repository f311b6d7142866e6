"""What llama.cpp's server answers, for the runs of a server that write texts."""

PATHS = ("/infill", "/completion", "/tokenize", "/detokenize", "/props")
PROTOCOL = "infill:PROTOCOL"
