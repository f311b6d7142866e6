"""OpenAI's Responses API, for the runs of a server."""

PATHS = ("/v1/responses",)
PROTOCOL = "responses:PROTOCOL"
