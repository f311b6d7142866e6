"""Fetch a file over HTTPS into a file, with bounds; a fetch that was interrupted goes on where it ended.

Addresses are those of `collect.fetching.addresses`: public ones, or of networks that are allowed by name. Each is
looked up once and connected to as it was checked. Plain HTTP is for this machine alone, and no redirect leads from the
network to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import ipaddress
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from afresh import __version__
from afresh.core import UserError, events
from afresh.core.safe_json import parse_json
from afresh.data.preferences import preferences
from afresh.data.storage.files import CANNOT_WRITE, free_bytes
from afresh.data.storage.lock import open_locked
from afresh.services.bundles.open import DAMAGED, NOT_A_BUNDLE, UNSIGNED, damaged
from afresh.services.collect.fetching.addresses import canonical, host, look_up, meant, networks, public
from afresh.services.collect.fetching.host_queues import (
    AGAIN,
    REDIRECTING,
    REDIRECTS,
    answered,
    certificates,
    running_loop,
)
from afresh.services.collect.fetching.refused import RefusedAddress

TRIES = 4
HEAD = 60.0  # seconds until the heads of an answer and of all redirects before it have arrived
PACE, WINDOW = 1 << 10, 60.0  # bytes a second that an answer has at least, counted in windows of so many seconds
PAUSE = 0.5  # seconds before the second try, doubled for each further one
KEPT = 7 * 24 * 3600.0  # seconds for which a part of a file is kept
# Codes of errors.
SPOILT = (DAMAGED, UNSIGNED, NOT_A_BUNDLE, "not_a_run", "damaged", "changed", "too_large", "encoding")
LARGEST = 1 << 38  # bytes of a file whose size is not known before


@dataclass(frozen=True)
class Wanted:
    """An address, and what is known of the file there: its size and SHA-256, and the most bytes that it may have.
    local: whether it may be on this machine."""

    url: str
    local: bool
    most: int = LARGEST
    size: int | None = None
    sha256: str | None = None


class _Interrupted(Exception):
    """An answer that ended too early, after which it is asked for the rest."""


@contextlib.contextmanager
def fetched(wanted: Wanted) -> Iterator[Path]:
    """The path of a file with the content at an address, which is removed when the block has ended. It stays, to go on
    with or to be used again, after an error that says nothing against the content itself (`SPOILT`).

    Raises UserError if the address may not be asked, if the server refuses, if the content is larger than it may be, if
    it is not the one that is known, and if it cannot be written.
    """
    url = _checked_url(wanted.url)
    folder = preferences().cache_folder / "fetched"
    # A signed link has another query each time; what is known of the content is the better name.
    name = wanted.sha256 or hashlib.sha256(url.partition("?")[0].encode()).hexdigest()
    part = folder / f"{name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _forget_old(folder)
        lock = open_locked(part, os.O_NOFOLLOW, 0o600)
    except BlockingIOError:
        raise UserError(f"Another process is fetching {shown(url)}. Wait until it has ended.", "in_use") from None
    except OSError as error:
        raise _unwritable(folder, error) from error
    keep = False
    with os.fdopen(lock, "r+b") as stream:
        try:
            try:
                # Connections are not kept: one is of the name that its certificate is of, not of its address.
                transport = httpx.AsyncHTTPTransport(
                    verify=certificates(), trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
                )
                with running_loop(transport.aclose) as loop:
                    asyncio.run_coroutine_threadsafe(_fetch(wanted, url, stream, part, transport), loop).result()
            except OSError as error:
                raise _unwritable(folder, error) from error
            yield part
        except UserError as error:
            keep = error.code not in SPOILT
            raise
        except KeyboardInterrupt:
            keep = True
            raise
        finally:
            if not keep or not stream.seek(0, os.SEEK_END):
                _remove(part)


def content_of(wanted: Wanted) -> bytes:
    """A small file at an address. Raises UserError as `fetched` does."""
    with fetched(wanted) as path:
        return path.read_bytes()


def shown(url: str) -> str:
    """An address without its query, which may be a secret."""
    return url.partition("?")[0]


def is_local(url: str) -> bool:
    """Whether an address is of this machine by its own words: localhost, or a number."""
    name = host(_checked_url(url)).strip("[]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost"


def _checked_url(url: str, base: str = "") -> str:
    with _refusing(url):
        return canonical(url, base)


@contextlib.contextmanager
def _refusing(url: str) -> Iterator[None]:
    """Why an address is refused within the block becomes a UserError, with the rule as its code."""
    try:
        yield
    except RefusedAddress as error:
        raise UserError(f"{shown(url)} cannot be fetched: {error.reason}.", error.rule) from None


# --------------------------------------------------------------------------- one file


async def _fetch(
    wanted: Wanted, url: str, stream: io.BufferedRandom, part: Path, transport: httpx.AsyncHTTPTransport
) -> None:
    """Write the content at an address to the end of what is there already, if it is still the same."""
    facts = part.with_suffix(".json")
    problem = ""
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(PAUSE * 2 ** (attempt - 1))
        here = stream.seek(0, os.SEEK_END)
        known = _known(facts) if here else None
        if here and (known is None or (wanted.size is not None and here > wanted.size)):
            stream.truncate(0)
            here, known = 0, None
        try:
            async with (
                asyncio.timeout(HEAD) as deadline,
                _answer(transport, url, wanted.local, here, known) as (last, answer),
            ):
                await _take(answer, shown(last), deadline, wanted, stream, here, known, facts)
            return
        except TimeoutError:
            problem = "the server sends too slowly"
        except (httpx.TransportError, _Interrupted) as error:
            problem = str(error) or type(error).__name__
        stream.flush()
    raise UserError(
        f"{shown(url)} could not be fetched as a whole: {problem}. What has arrived is kept: the same command goes on "
        "with it.",
        "connection",
    )


async def _take(
    answer: httpx.Response,
    where: str,
    deadline: asyncio.Timeout,
    wanted: Wanted,
    stream: io.BufferedRandom,
    here: int,
    known: str | None,
    facts: Path,
) -> None:
    """Write what is answered. Raises UserError, httpx.TransportError and _Interrupted."""
    status, stated = answer.status_code, _number(answer.headers.get("content-length", ""))
    if status in AGAIN:
        raise _Interrupted(f"the server answered {status}")
    if status == 416 and known is not None and answer.headers.get("content-range", "") == f"bytes */{here}":
        _check(stream, wanted, where)
        return
    if status == 416:
        stream.truncate(0)
        raise _Interrupted("the server has another file than before")
    if status not in (200, 206):
        expired = " If it is a link that was given to you, it may have expired: ask for a new one."
        raise UserError(
            f"{where} cannot be fetched: the server answered {status}."
            f"{expired if status in (401, 403, 404, 410) else ''}",
            "status",
            status=status,
        )
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise UserError(f"{where} cannot be fetched: the server compresses it, unasked.", "encoding")
    if status == 206 and not answer.headers.get("content-range", "").startswith(f"bytes {here}-"):
        stream.truncate(0)
        raise _Interrupted("the server answered another part than was asked for")
    if status == 200:
        stream.truncate(0)
        stream.seek(here := 0)
        _keep_facts(facts, answer)
    total = None if stated is None else here + stated
    _check_size(total, wanted, where)
    if total is not None and total - here > (free := free_bytes(facts.parent)):
        raise UserError(
            f"{where} has {total:,} bytes, and {free:,} are free in {facts.parent}. Make room there, or choose another "
            "place by AFRESH_CACHE_FOLDER.",
            CANNOT_WRITE,
        )
    in_window, done, clock = 0, here, asyncio.get_running_loop().time
    deadline.reschedule(clock() + WINDOW)
    async for piece in answer.aiter_raw():  # as it arrives: what comes before an end that is too early counts
        done += len(piece)
        _check_size(done, wanted, where, whole=False)
        stream.write(piece)
        in_window += len(piece)
        if in_window >= PACE * WINDOW:
            deadline.reschedule(clock() + WINDOW)
            in_window = 0
        if total is not None and total > 1 << 26:
            events.advance(f"fetched: {done:,} of {total:,} bytes", "fetching", done, total)
    stream.flush()
    if total is not None and done < total:
        raise _Interrupted(f"the connection ended after {done:,} of {total:,} bytes")
    _check(stream, wanted, where)


def _check_size(size: int | None, wanted: Wanted, where: str, whole: bool = True) -> None:
    """Raises UserError if so many bytes, or a part of so many, are more than it may have."""
    if size is None:
        return
    if size > wanted.most:
        raise UserError(f"{where} has more than the {wanted.most:,} bytes that are fetched.", "too_large")
    if wanted.size is not None and (size > wanted.size or (whole and size != wanted.size)):
        raise UserError(f"{where} has not the {wanted.size:,} bytes that its catalogue states.", "changed")


def _check(stream: io.BufferedRandom, wanted: Wanted, where: str) -> None:
    """Raises UserError if a whole file is not the one that is known."""
    _check_size(stream.seek(0, os.SEEK_END), wanted, where)
    if wanted.sha256 is None:
        return
    stream.seek(0)
    if hashlib.file_digest(stream, "sha256").hexdigest() != wanted.sha256:
        raise damaged(where, "its SHA-256 is not the one that its catalogue states")


# --------------------------------------------------------------------------- one answer


@contextlib.asynccontextmanager
async def _answer(
    transport: httpx.AsyncHTTPTransport, url: str, local: bool, here: int, known: str | None
) -> AsyncIterator[tuple[str, httpx.Response]]:
    """What is answered for an address, after redirects, each of which is checked as the first address was; and for
    which address that is."""
    headers = {"User-Agent": f"afresh/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
    if here and known is not None:
        headers |= {"Range": f"bytes={here}-", "If-Range": known}
    for _ in range(REDIRECTS + 1):
        async with answered(transport, url, await addresses_of(url, local), headers) as answer:
            if answer.status_code not in REDIRECTING or "location" not in answer.headers:
                yield url, answer
                return
        url = _checked_url(answer.headers["location"], url)
    raise UserError(f"{shown(url)} cannot be fetched: it redirects more than {REDIRECTS} times.", "redirect")


async def addresses_of(url: str, local: bool) -> list[str]:
    """The addresses of the network that an address may be fetched from. Raises UserError if there are none."""
    name = host(url)
    with _refusing(url):
        try:
            listed = await look_up(name)
        except OSError as error:
            raise RefusedAddress("host", f"{name} has no address in the network ({error.strerror})") from None
        here = [a for a in listed if all(ip.is_loopback for ip in meant(ipaddress.ip_address(a.partition("%")[0])))]
        if here and local and len(here) == len(listed):
            return here
        if here:
            raise RefusedAddress("private_address", "it is on this machine, and what led to it is not")
        if httpx.URL(url).scheme != "https":
            reason = "http is not encrypted, and only for this machine. Give an address that begins with https://"
            raise RefusedAddress("not_encrypted", reason)
        return public(name, listed, networks(preferences().private_networks))


# --------------------------------------------------------------------------- parts that are kept


def _known(facts: Path) -> str | None:
    """How the server names the state of the file of which a part is here (RFC 9110, 13.1.5); None if it does not."""
    try:
        found = parse_json(facts.read_bytes())["validator"] or None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) and found.isascii() and found.isprintable() else None


def _keep_facts(facts: Path, answer: httpx.Response) -> None:
    strong = answer.headers.get("etag", "")
    named = "" if strong.startswith("W/") else strong
    facts.write_text(json.dumps({"validator": named or answer.headers.get("last-modified", "")}))


def _forget_old(folder: Path) -> None:
    """Remove parts without recent data."""
    for part in folder.glob("*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > KEPT:
                _remove(part)


def _remove(part: Path) -> None:
    for path in (part, part.with_suffix(".json")):
        with contextlib.suppress(OSError):
            path.unlink()


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"What is fetched cannot be written to {folder}: {error.strerror or error}; {free_bytes(folder):,} bytes are "
        "free. Make room there, or choose another place by AFRESH_CACHE_FOLDER.",
        CANNOT_WRITE,
    )
