"""Git repositories: the files of a commit, from the repository on this machine or from an address.

Files come out of git's own store and never from a working tree, so that no filter, hook or submodule of another user
is run, and files that are not committed are not there.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from afresh.core import UserError
from afresh.core.plural import counted
from afresh.data.files import MB, FileError, decode_text, is_hidden
from afresh.data.limits import LimitExceeded, Limits, Meter
from afresh.data.text.languages import exclusion_reason, language_of
from afresh.services.collect.extract.documents import EXTRACTORS, PLAIN
from afresh.services.collect.licences import is_licence, licence_in_head, licence_of_text, nearest
from afresh.services.collect.record import UNKNOWN, About, Found, Rejection, moment
from afresh.services.collect.sources import Fetched, Options, Source, Unavailable

HOSTS = frozenset({"github.com", "gitlab.com", "codeberg.org", "bitbucket.org", "git.sr.ht"})
SAFE = (  # nothing that a repository brings is run; of a connection, bytes a second, and for how many seconds
    "core.hooksPath=/dev/null core.fsmonitor=false protocol.allow=never protocol.https.allow=always "
    "protocol.ssh.allow=always submodule.recurse=false fetch.recurseSubmodules=false fetch.unpackLimit=1 "
    "http.lowSpeedLimit=1000 http.lowSpeedTime=30 gc.auto=0"
)
TIMEOUT = 3600  # seconds of one command
BARE = ("HEAD", "objects", "refs")  # what a repository without a working tree has in its place
LISTING = 300  # seconds of the processor in which the files of a commit are listed: its folders may be as many as 10^10
MOST_FILES, MOST_NAMES = 2_000_000, 512 * MB  # of a commit, and bytes of their names
MOST_EQUAL = 100  # files of one content that are read: trees can name one as often as they like
HEAD = 1 << 16  # bytes of a commit that are looked at
BLOCK = 1 << 20  # bytes that are read at a time
MISSING = "its content is not in the repository, or is damaged"
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class RepositoryOptions(Options):
    """Which commit is read, and what of it."""

    commit: str = Field("HEAD", pattern=r"^[\w][\w./-]*$", description="a commit, a branch or a tag")
    max_file_mb: int = Field(default=1, ge=1, le=512, description="larger files are data")
    max_fetch_mb: int = Field(default=2048, ge=1, le=1 << 20, description="of a repository at an address")


@dataclass(frozen=True)
class Tree:
    """A commit: its repository's folder, its id, when it was made, and the repository's name."""

    git: Path
    commit: str
    time: str
    name: str


def is_address(place: str) -> bool:
    """Whether a place is the address of a repository rather than of a page."""
    if place.startswith(("git+https://", "ssh://", "git+ssh://")) or re.match(r"[\w.-]+@[\w.-]+:", place):
        return True
    parts = urlsplit(place)
    names = [n for n in parts.path.split("/") if n]
    return parts.scheme == "https" and (parts.path.endswith(".git") or (parts.hostname in HOSTS and len(names) == 2))


def accepts(place: str) -> bool:
    path = Path(place)
    if is_address(place) and "https" in urlsplit(place).scheme and "@" in urlsplit(place).netloc:
        raise UserError(
            f"{without_password(place)} is given with a password, which the data set would keep. Leave it out: git "
            "asks your own credential helper."
        )
    return is_address(place) or (path / ".git").exists() or all((path / n).exists() for n in BARE)


def command(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """A command of git and its environment, which never asks for a password and fetches nothing unasked.

    Raises UserError if git is not installed.
    """
    program = shutil.which("git")
    if program is None:
        raise UserError("Repositories are read by git, which is not installed. Install it, then repeat the command.")
    settings = [part for setting in SAFE.split() for part in ("-c", setting)]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "LC_ALL": "C",
    }
    return [program, *settings, *arguments], environment


@contextmanager
def running_git(folder: Path, *arguments: str, seconds: int = TIMEOUT) -> Iterator[subprocess.Popen[bytes]]:
    """A process of git, which ends after so many seconds of the processor, and with the block."""
    given, environment = command(*arguments)
    given = ["sh", "-c", f'ulimit -S -t {seconds} && exec "$@"', "sh", *given]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    process = subprocess.Popen(given, cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=null)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run_git(folder: Path, *arguments: str, stdin: bytes | None = None, max_mb: int = 0) -> bytes:
    """What git writes. `max_mb`: the largest file that it may write; 0 for any. Raises UserError with its own words if
    it fails."""
    given, environment = command(*arguments)
    if max_mb:
        blocks = max_mb * MB // 512
        given = ["sh", "-c", f'ulimit -f {blocks} && exec "$@"', "sh", *given]
    try:
        done = subprocess.run(
            given, cwd=folder, env=environment, input=stdin or b"", capture_output=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"git {arguments[0]} took more than {TIMEOUT:,} seconds. Repeat it, or clone it and give the folder.", "git"
        ) from None
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise UserError(
            f"git {arguments[0]} failed: {words[-1] if words else f'status {done.returncode}'}. Look at the address or "
            "folder, and at the option commit of the source, which names a branch, a tag or a commit.",
            "git",
        )
    return done.stdout


@contextmanager
def tree_of(place: str, options: RepositoryOptions, fetched: Fetched) -> Iterator[Tree]:
    """The commit that is read; of a repository at an address it is fetched once, without what was before it."""
    if not is_address(place):
        folder = Path(place).resolve()
        found = run_git(folder, "rev-parse", "--verify", "--end-of-options", f"{options.commit}^{{commit}}")
        yield _tree(folder, found.decode().strip(), _name(folder))
        return
    address = place.removeprefix("git+")
    with tempfile.TemporaryDirectory(prefix="afresh-git-") as made:
        folder = Path(made)
        run_git(folder, "init", "--quiet", "--bare", "--template=", ".")
        kept = fetched.get(f"{address} {options.commit}")
        if kept is None:
            commit, pack = fetch(folder, address, options)
            fetched.put(f"{address} {options.commit}", pack, {"commit": commit})
        else:
            commit = str(kept[1]["commit"])
            run_git(folder, "index-pack", "--stdin", "--fix-thin", stdin=kept[0])
        (folder / "shallow").write_text(f"{commit}\n")
        yield _tree(folder, commit, without_password(address))


def fetch(folder: Path, address: str, options: RepositoryOptions) -> tuple[str, bytes]:
    """Fetch one commit into a bare repository; returns its id and the file that git packed it into.

    Raises Unavailable, so that the source is tried again, if it cannot be fetched.
    """
    flags = ("--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--keep")
    try:
        wanted = f"+{options.commit}:refs/heads/fetched"
        run_git(folder, "fetch", *flags, "--", address, wanted, max_mb=options.max_fetch_mb)
        commit = run_git(folder, "rev-parse", "--verify", "refs/heads/fetched^{commit}").decode().strip()
    except UserError as error:
        raise Unavailable(
            f"{without_password(address)} cannot be fetched, or has more than {options.max_fetch_mb:,} MB: {error}",
            "not_fetched",
        ) from None
    (pack,) = (folder / "objects" / "pack").glob("*.pack")
    return commit, pack.read_bytes()


def _tree(folder: Path, commit: str, name: str) -> Tree:
    if not COMMIT.fullmatch(commit):
        raise UserError(f"{folder} has no commit that can be read. Commit its files first.", "git")
    with running_git(folder, "cat-file", "commit", commit) as process:
        assert process.stdout is not None
        head = process.stdout.read(HEAD).split(b"\n\n")[0].decode("utf-8", "replace")
    when = re.search(r"^committer .*> (-?\d{1,18}) [+-]\d+$", head, re.MULTILINE)
    return Tree(folder, commit, moment(int(when[1])) if when else "", name)


def _name(folder: Path) -> str:
    """The address that a repository was cloned from, or else the name of its folder."""
    try:
        origin = run_git(folder, "config", "--get", "remote.origin.url").decode("utf-8", "backslashreplace")
        return without_password(origin.strip())
    except (UserError, ValueError):  # there is none, or it is not an address
        return folder.name


def without_password(address: str) -> str:
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.scheme else address


# --------------------------------------------------------------------------- files


@dataclass(frozen=True)
class TreeEntry:
    """A file of a commit. blob: the id of its content. size: None of a submodule, and of content that is missing."""

    name: str
    mode: str
    blob: str
    size: int | None


def entries(tree: Tree) -> tuple[list[TreeEntry], str]:
    """What a commit holds, by name, submodules too; and why others are left out, if there are too many or they cannot
    be listed."""
    out: list[TreeEntry] = []
    meter = Meter(Limits(bytes=MOST_NAMES, items=MOST_FILES))
    arguments = ("ls-tree", "-r", "-z", "--long", "--full-tree", tree.commit)
    with running_git(tree.git, *arguments, seconds=LISTING) as process:
        assert process.stdout is not None
        rest, problem = b"", ""
        try:
            while block := process.stdout.read1(BLOCK):  # type: ignore[attr-defined]  # it is buffered
                *lines, rest = (rest + block).split(b"\0")
                meter.add(bytes=len(block), items=len(lines))
                out += map(_entry, lines)
        except LimitExceeded as error:
            problem = str(error)
        else:
            code = process.wait()
            late = f"its folders cannot be listed in {LISTING:,} seconds"
            problem = late if code == -signal.SIGXCPU else f"git ls-tree failed with status {code}" if code else ""
    return sorted(out, key=lambda e: e.name), problem


def _entry(line: bytes) -> TreeEntry:
    about, _, name = line.partition(b"\t")
    mode, _, blob, size = about.decode().split()
    return TreeEntry(name.decode("utf-8", "backslashreplace"), mode, blob, int(size) if size.isdecimal() else None)


def reason_against(entry: TreeEntry, options: RepositoryOptions) -> str | None:
    """Why a file is left out, or None."""
    path = PurePosixPath(entry.name)
    if entry.mode == "160000":
        return "a submodule: give its own address"
    if entry.mode == "120000":
        return "symbolic link"
    if is_hidden(entry.name):
        return "hidden (its name begins with a dot)"
    for folder in path.parents[:-1]:
        if (reason := exclusion_reason(folder.as_posix(), True)) is not None:
            return reason
    text = path.suffix.lower() in EXTRACTORS and language_of(entry.name) is None
    if not text and (reason := exclusion_reason(entry.name, False)) is not None:
        return reason
    if is_licence(entry.name):
        return "licence file"
    if entry.size is None:
        return MISSING
    if entry.size > options.max_file_mb * MB:
        return f"{entry.size / MB:,.1f} MB, but at most {options.max_file_mb:,} MB are read: set `max_file_mb`"
    return "empty file (0 bytes)" if entry.size == 0 else None


class Contents:
    """Contents by their ids, from a process of git, which is started again if damage ends it."""

    def __init__(self, tree: Tree) -> None:
        self.tree, self.process = tree, ExitStack()
        self.running: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        self.process.close()

    def get(self, blob: str) -> bytes | None:
        """The content of this id; None if the repository lacks it, or if it is damaged."""
        if self.running is None:
            self.running = self.process.enter_context(running_git(self.tree.git, "cat-file", "--batch"))
        assert self.running.stdin is not None and self.running.stdout is not None
        try:
            self.running.stdin.write(f"{blob}\n".encode())
            self.running.stdin.flush()
            head = self.running.stdout.readline().split()
            if len(head) == 2:  # its id, and that it is missing
                return None
            size = int(head[2])
            found = self.running.stdout.read(size + 1)  # with a line end
            if len(found) == size + 1:
                return found[:-1]
        except (OSError, LookupError, ValueError):
            pass
        self.process.close()
        self.running = None
        return None


def find(place: str, options: RepositoryOptions, fetched: Fetched) -> Iterator[Found | Rejection]:
    """The source files and texts of a commit by their names, each with its licence."""
    with tree_of(place, options, fetched) as tree, closing(Contents(tree)) as contents:
        every, problem = entries(tree)
        licences = _licences(every, contents)
        times: Counter[str] = Counter()
        for entry in every:
            reason = reason_against(entry, options)
            if reason is None:
                times[entry.blob] += 1
                if times[entry.blob] > MOST_EQUAL:
                    reason = f"the content of {MOST_EQUAL:,} other files"
            found = contents.get(entry.blob) if reason is None else None
            if found is None:
                yield Rejection(place, entry.name, "find", "repository", reason or MISSING)
                continue
            licence, stated = _licence(entry, found, licences)
            about = About(
                licence=licence, licence_from=stated, time=tree.time, group=tree.name, extra={"commit": tree.commit}
            )
            if PurePosixPath(entry.name).suffix.lower() in PLAIN or language_of(entry.name) is None:
                yield Found(entry.name, found, entry.name, about=about)
                continue
            try:  # a web page among programs is part of them, and so is a Makefile
                yield Found(entry.name, decode_text(found), about=about, kind="code")
            except FileError as error:
                yield Rejection(place, entry.name, "find", "repository", str(error))
        if problem:
            yield Rejection(place, tree.name, "find", "repository", f"not all files of the commit are read: {problem}")


def _licences(every: list[TreeEntry], contents: Contents) -> Mapping[str, str]:
    """The licences of folders. Where several files say different things, the choice is left to the user."""
    found: dict[str, list[str]] = {}
    known: dict[str, str] = {}
    for entry in every:
        if is_licence(entry.name) and entry.mode.startswith("100") and entry.size is not None and entry.size <= MB:
            if entry.blob not in known:
                text = (contents.get(entry.blob) or b"").decode("utf-8", "replace")
                known[entry.blob] = licence_of_text(text)
            licence = known[entry.blob]
            folder = str(PurePosixPath(entry.name).parent)
            if licence != UNKNOWN:
                found.setdefault("" if folder == "." else folder, []).append(licence)
    return {folder: " OR ".join(dict.fromkeys(all_)) for folder, all_ in found.items()}


def _licence(entry: TreeEntry, found: bytes, licences: Mapping[str, str]) -> tuple[str, str]:
    """The licence of a file, and who says so."""
    stated = licence_in_head(found)
    if stated != UNKNOWN:
        return stated, "SPDX-License-Identifier in the file"
    licence, folder = nearest(entry.name, licences)
    where = f"the folder {folder}" if folder else "the repository"
    return licence, "" if licence == UNKNOWN else f"the licence file of {where}"


def describe(place: str, options: RepositoryOptions) -> list[str]:
    if is_address(place):
        return [f"{place}: the commit {options.commit} would be fetched"]
    with tree_of(place, options, None) as tree:  # type: ignore[arg-type]  # nothing is fetched
        every, _ = entries(tree)
        read = [e for e in every if reason_against(e, options) is None]
        size = sum(e.size or 0 for e in read)
        return [
            f"{place}: {counted(len(read), 'file')}, {size:,} bytes, of commit {tree.commit[:12]}; "
            f"{counted(len(every) - len(read), 'file')} left out"
        ]


ABOUT = "a git repository: its folder, or its address (git+https://..., https://HOST/NAME.git)"
SOURCE = Source("repository", ABOUT, accepts, find, describe, RepositoryOptions)
