"""OpenAI's Responses API, for the runs of a server."""
