"""Ports for servers that are started by their number."""

from __future__ import annotations

import random
import socket

LOWEST, HIGHEST = 18_000, 32_000  # below those that Linux and others give to whoever asks for any


def free_port() -> int:
    """A port of the loopback that nobody listens at, and that no program gets by asking for any before it is used."""
    chance = random.SystemRandom()  # tests in other processes choose at the same time
    for _ in range(100):
        port = chance.randint(LOWEST, HIGHEST)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no port from {LOWEST} to {HIGHEST} is free")
