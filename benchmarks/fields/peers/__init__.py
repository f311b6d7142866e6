"""Contenders of other makers: `python -m benchmarks.fields.peers.NAME FOLDER`."""
