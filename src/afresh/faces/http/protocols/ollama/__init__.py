"""Ollama's API, for the runs of a server that write texts."""

PATHS = ("/api/",)
PROTOCOL = "dialect:PROTOCOL"
