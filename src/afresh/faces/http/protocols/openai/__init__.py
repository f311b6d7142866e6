"""OpenAI's API, for the runs of a server."""

PATHS = ("/v1/chat/", "/v1/completions", "/v1/models", "/v1/images/", "/v1/audio/", "/v1/embeddings")
PROTOCOL = "dialect:PROTOCOL"
