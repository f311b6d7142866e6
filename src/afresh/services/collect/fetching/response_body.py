"""The content of an answer, decompressed piece by piece, so that no more than a limit is ever held."""

from __future__ import annotations

import zlib

from afresh.services.collect.fetching.refused import RefusedAddress

ENCODINGS = "gzip, deflate"  # that are asked for: zlib can stop in the midst of what it decompresses
MB = 1 << 20
GZIP = b"\x1f\x8b"


class Body:
    """The pieces of a content. Raises Refused as soon as they are more than `limit` bytes when they are decompressed,
    or if they are encoded in another way."""

    def __init__(self, encoding: str, limit: int) -> None:
        self.encoding, self.limit = encoding.strip().lower() or "identity", limit
        if self.encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise RefusedAddress("encoding", f"encoded as {self.encoding[:40]!r}, although {ENCODINGS} was asked for")
        self.pieces: list[bytes] = []
        self.size = 0
        self.inflate: zlib._Decompress | None = None
        self.ended = self.encoding == "identity"

    def add(self, data: bytes) -> None:
        if self.encoding == "identity":
            self._keep(data, "")
            return
        try:
            while data:
                self.inflate = self.inflate or zlib.decompressobj(self._window(data))
                self._keep(self.inflate.decompress(data, self.limit - self.size + 1), " when it is decompressed")
                data, self.ended = self.inflate.unconsumed_tail, self.inflate.eof
                if self.ended:  # another member may follow; what is not a member is padding
                    data = self.inflate.unused_data if self.inflate.unused_data.startswith(GZIP) else b""
                    self.inflate = None if data else self.inflate
        except zlib.error:
            raise RefusedAddress(
                "encoding", f"it says that it is {self.encoding}, but cannot be decompressed"
            ) from None

    def _window(self, data: bytes) -> int:
        """What zlib is to expect. Some servers send deflate without the header of zlib."""
        if self.encoding != "deflate":
            return 31
        return 15 if len(data) < 2 or (data[0] & 15 == 8 and int.from_bytes(data[:2]) % 31 == 0) else -15

    def _keep(self, data: bytes, when: str) -> None:
        self.size += len(data)
        self.pieces.append(data)
        if self.size > self.limit:
            raise RefusedAddress("size", f"more than the {self.limit / MB:,g} MB of the option max_file_mb{when}")

    def start(self) -> bytes:
        """What was read, at most `limit` bytes."""
        return b"".join(self.pieces)[: self.limit]

    def whole(self) -> bytes:
        """All of it. Raises Refused if what is compressed was cut off."""
        if not self.ended and self.inflate is not None:
            raise RefusedAddress("encoding", "what is compressed was cut off")
        return b"".join(self.pieces)


def gunzipped(content: bytes, limit: int) -> bytes:
    """The content of a file that may be compressed by gzip. Raises Refused if it is more than `limit` bytes."""
    if not content.startswith(GZIP):
        return content
    body = Body("gzip", limit)
    body.add(content)
    return body.whole()
