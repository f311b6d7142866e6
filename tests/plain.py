"""Messages for people: no words of libraries in them."""

from __future__ import annotations

import re

FOREIGN = re.compile(
    r"Input (should|is)|[Pp]ydantic|Value error|Field required|Extra inputs|Unexpected keyword|\[Errno|Traceback"
)


def assert_plain(message: str) -> None:
    """Fails if a message quotes words of pydantic or of Python that only programmers know."""
    assert not FOREIGN.search(message), message
