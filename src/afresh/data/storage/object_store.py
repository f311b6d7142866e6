"""Files at an address of a store that fsspec reaches: s3://, gs://, https://, memory://, file://. Every failure is a
UserError that says what to do.

Of runs, single files are written, read and removed by their names: nothing relies on a listing, which may be stale. Of
data, files are listed once, with their sizes and tags, and each is compared with these when it is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from afresh.core.errors import UserError

ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,3}([^/].*)", re.IGNORECASE)  # a Path keeps one slash
EXTRAS = {"http": "aiohttp", "https": "aiohttp", "hf": "huggingface_hub", "s3": "s3fs", "s3a": "s3fs"}
EXTRAS |= {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
KINDS_ALONE = {f"{kind}:" for kind in EXTRAS}
NOT_STORED = "store_failed"  # the code of the errors
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")  # numbers in an address, as in shard-{000..099}.parquet
MOST_FILES = 100_000  # of an address
SECONDS = 30.0  # without a connection, or without a byte of an answer
ATTEMPTS = 3  # at what a store does not answer
SLOWEST = 100_000.0  # bytes a second of a file
TAGS = ("ETag", "etag", "md5Hash", "blob_id", "Content-MD5", "Last-Modified", "LastModified", "mtime", "created")
TOO_LONG = 64 << 20  # bytes of a file that is read into memory


def is_address(path: str | Path) -> bool:
    """Whether this is the address of a store, and no path; also one that lacks all but its kind, as s3://, which
    `address_of` refuses."""
    text = str(path)
    return ADDRESS.fullmatch(text) is not None or text.rstrip("/").lower() in KINDS_ALONE


def address_of(path: str | Path) -> str:
    """The address with both of its slashes, and none at its end."""
    found = ADDRESS.fullmatch(str(path))
    if found is None:
        raise UserError(f"{path} is not an address of a store. Give one as s3://BUCKET/NAME.", NOT_STORED)
    scheme = found[1].lower()
    return f"{scheme}://{'/' if scheme in ('file', 'local') else ''}{found[2].rstrip('/')}"


@dataclass(frozen=True)
class StoredFile:
    """A file of a store: its address, its name below the address that was asked for, its size in bytes, and a tag that
    another content has another of, such as an ETag or a time; empty if the store has none."""

    address: str
    name: str
    size: int
    tag: str


def files_at(address: str | Path) -> list[StoredFile]:
    """The files at an address, by name: one, those of numbers {000..099}, or all below a folder of a store that can be
    listed. Raises UserError if there are none, or if the store does not answer."""
    address = address_of(address)
    store = ObjectStore(address)
    found = [file for one in numbered(address) for file in store.files_at(one)]
    if not found:
        raise UserError(f"No file at {address}. Is the address right?", NOT_STORED, address=address)
    return sorted(found, key=lambda file: file.name)


def numbered(address: str) -> list[str]:
    """The addresses that one with numbers {000..099} stands for. Raises UserError for too many."""
    found = RANGE.search(address)
    if found is None:
        return [address]
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < MOST_FILES:
        raise UserError(f"{found[0]} in {address} are no numbers from a smaller to a larger one, or too many.")
    width = len(found[1]) if found[1].startswith("0") else 0
    return [f"{address[: found.start()]}{n:0{width}d}{address[found.end() :]}" for n in range(first, last + 1)]


class ObjectStore:
    """The files below an address. Raises UserError if no library for such addresses is installed."""

    def __init__(self, address: str) -> None:
        self.address = address_of(address)
        scheme = self.address.partition(":")[0]
        try:
            from fsspec.core import url_to_fs

            # Folders are made on a disk alone: elsewhere that would make a bucket.
            options: dict[str, Any] = {"use_listings_cache": False}
            if scheme in ("file", "local"):
                options = {"auto_mkdir": True}
            elif scheme in ("s3", "s3a"):  # whose own retries would multiply those of s3fs
                config = {"connect_timeout": SECONDS, "read_timeout": SECONDS, "retries": {"total_max_attempts": 1}}
                options |= {"config_kwargs": config}
            elif scheme in ("http", "https"):
                from aiohttp import ClientTimeout

                options = {"client_kwargs": {"timeout": ClientTimeout(None, sock_connect=SECONDS, sock_read=SECONDS)}}
            self.files, self.root = url_to_fs(self.address, skip_instance_cache=True, **options)
            if scheme in ("s3", "s3a"):
                self.files.retries = ATTEMPTS
        except ImportError as e:
            needed = EXTRAS.get(scheme, "a package of fsspec for it")
            hint = "pip install 'afresh[store]'" if needed in ("s3fs", "aiohttp") else f"pip install {needed}"
            raise UserError(f"{self.address} cannot be read without {needed}: {hint}", NOT_STORED) from e
        except ValueError as e:
            raise UserError(
                f"{self.address}: there is no store of the kind {scheme}:// ({e}). Known are s3://, gs://, az://, "
                "file:// and what else fsspec has.",
                NOT_STORED,
            ) from e

    def path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _bound(self, size: int) -> dict[str, float]:
        """The seconds for a file of so many bytes, as fsspec takes them. Its libraries have no bound of their own for
        what they send: botocore waits for ever for a store to say that it may go on."""
        from fsspec.asyn import AsyncFileSystem

        bounded = isinstance(self.files, AsyncFileSystem)
        return {"timeout": 2 * ATTEMPTS * SECONDS + size / SLOWEST} if bounded else {}

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None without one. Raises UserError if the store does not answer."""
        with self._failures(f"{name} could not be read"):
            try:
                with self.files.open(self.path(name), "rb") as stream:
                    content: bytes = stream.read(TOO_LONG + 1)
            except FileNotFoundError:
                return None
        if len(content) > TOO_LONG:
            raise UserError(f"{self.address}/{name} has more than {TOO_LONG:,} bytes: it is nothing of afresh.")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, or put it in place of another. Raises UserError if the store does not take it."""
        with self._failures(f"{name} could not be written"):
            self.files.pipe_file(self.path(name), content, **self._bound(len(content)))

    def upload(self, file: Path, name: str) -> None:
        """Copy a file there. Raises UserError if the store does not take all of it."""
        with self._failures(f"{name} could not be uploaded"):
            self.files.put_file(str(file), self.path(name), **self._bound(file.stat().st_size))
        self.check_arrived(name, file.stat().st_size)

    def check_arrived(self, name: str, here: int) -> None:
        """Raises UserError unless a file there has so many bytes."""
        with self._failures(f"{name} could not be uploaded"):
            if (there := self.files.info(self.path(name))["size"]) != here:
                raise OSError(f"{there:,} of {here:,} bytes arrived")

    def download(self, name: str, file: Path, size: int) -> bool:
        """Copy a file of so many bytes from there. Whether there is one. Raises UserError if the store does not answer,
        or has more bytes."""
        with self._failures(f"{name} could not be downloaded"):
            try:
                self._copy(self.path(name), file, size)
            except FileNotFoundError:
                return False
        return True

    def _copy(self, place: str, file: Path, size: int) -> None:
        """Copy a file to this machine, up to its size. Raises OSError if it is larger, and what the library raises."""
        from fsspec.callbacks import Callback

        def check(stated: int | None, arrived: int) -> None:
            if max(stated or 0, arrived) > size:
                raise OSError(f"it is larger than the {size:,} bytes that are known of it")

        file.parent.mkdir(parents=True, exist_ok=True)
        self.files.get_file(place, str(file), callback=Callback(hooks={"size": check}), **self._bound(size))

    def files_at(self, address: str) -> list[StoredFile]:
        """The file at an address of this store, or those below it. Raises UserError if the store does not answer."""
        from fsspec.core import strip_protocol

        place = strip_protocol(address)
        with self._failures(f"{address} could not be looked at"):
            entry = self.files.info(place, **self._bound(0))
            if entry.get("type") != "directory":
                return [self._file(address, place.rstrip("/").rpartition("/")[2].partition("?")[0], entry)]
            entries = self.files.find(place, detail=True)
            return [
                self._file(self.files.unstrip_protocol(path), path[len(place) :].lstrip("/"), entry)
                for path, entry in entries.items()
            ]

    def _file(self, address: str, name: str, entry: dict[str, Any]) -> StoredFile:
        if entry.get("size") is None:
            raise OSError(
                f"the store does not say how many bytes {name or address} has, so a partial read would go unnoticed"
            )
        tag = next((entry[t] for t in TAGS if entry.get(t)), "")
        # Some stores give times of two types.
        return StoredFile(address, name, int(entry["size"]), str(tag.timestamp() if isinstance(tag, datetime) else tag))

    def fetch(self, file: StoredFile, path: Path) -> None:
        """Copy a file that was looked at before. Raises UserError if not all of it arrives, or it is another now."""
        from fsspec.core import strip_protocol

        with self._failures(f"{file.name} could not be fetched"):
            self._copy(strip_protocol(file.address), path, file.size)
        if (size := path.stat().st_size) != file.size:
            raise UserError(
                f"{file.address}: {size:,} of {file.size:,} bytes arrived. Try again; if it happens again, the file "
                "has changed: train a new run.",
                NOT_STORED,
                address=file.address,
            )
        if [(now.size, now.tag) for now in self.files_at(file.address)] != [(file.size, file.tag)]:
            raise UserError(
                f"{file.address} is not the file that was found there before: it was changed meanwhile. Restore it, or "
                "train a new run.",
                "data_changed",
                address=file.address,
            )

    def remove(self, name: str) -> None:
        """Remove a file that nothing names any more. What cannot be removed stays, and is never read."""
        with suppress(Exception):
            self.files.rm_file(self.path(name))

    @contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        """Libraries of stores raise errors of many kinds."""
        try:
            yield
        except UserError:
            raise
        except Exception as e:
            raise UserError(
                f"{self.address}: {what}: {' '.join(str(e).split()) or type(e).__name__}. {advice(e)}",
                NOT_STORED,
                address=self.address,
            ) from e


def advice(error: Exception) -> str:
    """What to do about an error of a store."""
    kinds = {type(e).__name__ for e in chain_of(error)}
    words = " ".join(f"{type(e).__name__} {e}" for e in chain_of(error)).lower()
    if "nocredentialserror" in words or "unable to locate credentials" in words or "partialcredentials" in words:
        return "No credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
    if any("timeout" in kind.lower() for kind in kinds) or "timed out" in words or "timeout on" in words:
        return (
            f"Nothing answered within {SECONDS:g} seconds: is the address right (of another store than AWS: "
            "AWS_ENDPOINT_URL), and does the network let it through? Try again, or copy the files to this machine."
        )
    if "PermissionError" in kinds or any(w in words for w in ("access denied", "accessdenied", "forbidden", "403")):
        return "The store does not allow it: do the credentials permit to read and to write there?"
    if "nosuchbucket" in words or "bucket does not exist" in words:
        return "Make the bucket first, or correct its name."
    if "FileNotFoundError" in kinds:
        return "Nothing is there under this name: was it removed, or is the address mistyped?"
    if any(w in words for w in ("invalidaccesskeyid", "signaturedoesnotmatch", "expiredtoken")):
        return "The credentials are not valid: renew them."
    return "Is the address right, and the store reachable? Try again."


def chain_of(error: BaseException) -> Iterator[Any]:
    """An error and those that caused it."""
    current: BaseException | None = error
    for _ in range(10):
        if current is None:
            return
        yield current
        current = current.__cause__ or current.__context__
