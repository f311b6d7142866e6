"""OpenAI's API, for the runs of a server."""
