"""The answers of servers in a web archive, as if they were fetched now."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator

import httpx
from fastwarc.stream_io import BrotliReader, ChunkedReader, ZstdReader
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from afresh.data.files import FileError
from afresh.data.limits import parsing
from afresh.services.collect.fetching.addresses import canonical
from afresh.services.collect.fetching.fetcher import FetchedPage, found, headers_of, obeying
from afresh.services.collect.fetching.refused import RefusedAddress, as_refused
from afresh.services.collect.fetching.response_body import GZIP, MB, Body
from afresh.services.collect.record import Found, Rejection

CHUNK = re.compile(rb"[0-9A-Fa-f]{1,8}\r\n")  # the size of a chunk of HTTP
READERS = {"br": BrotliReader, "zstd": ZstdReader}


def answers(place: str, limit: int, overridden: Collection[str], group: bool) -> Iterator[Found | Rejection]:
    """Every answer in an archive that is a page and may be trained on; others are listed. `limit`: bytes of one."""
    where = place
    try:
        for record in ArchiveIterator(place, record_types=WarcRecordType.response, parse_http=True, fsspec_args=False):
            where = str(record.headers.get("WARC-Target-URI", place)).strip("<>")
            if where.startswith("dns:"):
                continue
            yield _answer(place, where, record, limit, overridden, group)
    except Exception as error:  # as a record that is cut off, or a header without end
        reason = f"the archive cannot be read further than {where[:200]}: {error}"
        yield Rejection(place, place, "find", "archive", reason)


def _answer(
    place: str, where: str, record: WarcRecord, limit: int, overridden: Collection[str], group: bool
) -> Found | Rejection:
    try:
        with parsing("answer"):
            page = obeying(_page(where, record, limit), overridden)
            return found(where, page, group, record.record_date.isoformat() if record.record_date else "")
    except FileError as error:
        refused = as_refused(error)
        return Rejection(place, where[:2_000], "find", refused.rule, refused.reason)


def _page(where: str, record: WarcRecord, limit: int) -> FetchedPage:
    if record.http_headers is None:
        raise RefusedAddress("status", "no answer of HTTP")
    if record.http_headers.status_code != 200:
        raise RefusedAddress("status", f"the server had answered {record.http_headers.status_code}")
    headers = headers_of((str(name), str(value)) for name, value in record.http_headers)
    stated = record.content_length
    raw = record.reader.read(limit + 1)
    if len(raw) > limit:
        raise RefusedAddress("size", f"more than the {limit / MB:,g} MB of the option max_file_mb")
    if len(raw) < stated:
        raise RefusedAddress("archive", f"cut off: {len(raw):,} of {stated:,} bytes")
    return FetchedPage(canonical(where), headers, _decoded(raw, headers, limit))


def _decoded(raw: bytes, headers: httpx.Headers, limit: int) -> bytes:
    """The content without the encodings of HTTP, which some archives state although they have undone them."""
    try:
        if "chunked" in headers.get("transfer-encoding", "").lower() and CHUNK.match(raw):
            raw = ChunkedReader(io.BytesIO(raw)).read(limit + 1)
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding in READERS:
            content = READERS[encoding](io.BytesIO(raw)).read(limit + 1)
            if len(content) > limit:
                raise RefusedAddress(
                    "size", f"more than the {limit / MB:,g} MB of the option max_file_mb when decompressed"
                )
            return bytes(content)
    except OSError as error:
        raise RefusedAddress("encoding", f"it cannot be decoded: {error}") from None
    if encoding in ("gzip", "x-gzip") and not raw.startswith(GZIP):
        return raw
    body = Body(encoding, limit)
    body.add(raw)
    return body.whole()
