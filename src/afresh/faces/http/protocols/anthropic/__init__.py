"""Anthropic's API, for the runs of a server."""

PATHS = ("/v1/messages",)
PROTOCOL = "messages:PROTOCOL"
