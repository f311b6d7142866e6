"""The endpoint of llama.cpp's server that editors ask for text at a cursor, for the runs of a server."""

PATHS = ("/infill",)
PROTOCOL = "infill:PROTOCOL"
