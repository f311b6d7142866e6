"""What else of a repository helps at a cursor: pieces of its other files that share words with the place."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from afresh.core import UserError
from afresh.data.files import DataFile, FileError, decode_text, read_bytes, walk
from afresh.data.text.languages import exclusion_reason, language_of

LINES = 20  # of a piece (Zhang et al. 2023, RepoCoder, section 3)
NEAR = 40  # lines around the cursor whose words are looked for
MOST_FILES, MOST_MB = 5_000, 1
K1, B = 1.2, 0.75  # of BM25
WORD = re.compile(r"[^\W\d]\w+")
IMPORT = re.compile(r"^\s*(?:import|from|#\s*include|use|require|using)\b.*$|\brequire\(.*$", re.MULTILINE)
# How a line of comment begins; // in all languages that are not named.
COMMENTS = {
    "#": "cmake dockerfile elixir gdscript graphql julia make nim nix perl powershell python r ruby shell terraform "
    "toml yaml",
    "--": "ada elm haskell lean lua sql vhdl",
    ";": "assembly clojure ini lisp",
    "%": "erlang latex prolog",
    "!": "fortran",
}
COMMENT_OF = {language: mark for mark, languages in COMMENTS.items() for language in languages.split()}


@dataclass(frozen=True)
class Snippet:
    """Some lines of a file, by its name relative to the repository."""

    name: str
    text: str

    def words(self) -> Counter[str]:
        """Words of the lines and of the file's path, by which an import names it."""
        return Counter(words(self.text) + words(str(PurePosixPath(self.name).with_suffix("")).replace("/", " ")))


def words(text: str) -> list[str]:
    """Identifiers and keywords, whole."""
    return WORD.findall(text)


def snippets_of(files: Mapping[str, str], size: int = LINES) -> list[Snippet]:
    """Every file in pieces of `size` lines that do not overlap; blank ones left out."""
    out = []
    for name, text in files.items():
        lines = text.splitlines()
        found = ("\n".join(lines[i : i + size]) for i in range(0, len(lines), size))
        out += [Snippet(name, part) for part in found if part.strip()]
    return out


def rank_snippets(pieces: Sequence[Snippet], query: Sequence[str]) -> list[tuple[float, Snippet]]:
    """Pieces that share a word with the query, best first, by Okapi BM25 (Robertson and Zaragoza 2009, eq. 3.15).

    The inverse frequency is ln(1 + (N - n + 1/2) / (n + 1/2)), which is never negative. Ties keep their order.
    """
    counted = [p.words() for p in pieces]
    lengths = [c.total() for c in counted]
    mean = sum(lengths) / len(lengths) if lengths else 1.0
    asked = set(query)
    holding = Counter(w for c in counted for w in asked & c.keys())
    weight = {w: math.log(1 + (len(pieces) - n + 0.5) / (n + 0.5)) for w, n in holding.items()}
    out = []
    for piece, count, length in zip(pieces, counted, lengths, strict=True):
        norm = K1 * (1 - B + B * length / mean)
        score = sum(weight[w] * count[w] * (K1 + 1) / (count[w] + norm) for w in asked & count.keys())
        if score > 0:
            out.append((score, piece))
    return sorted(out, key=lambda pair: -pair[0])


def query_at(prefix: str, suffix: str) -> list[str]:
    """Words of the lines around a cursor and of what the file imports."""
    before, after = prefix.split("\n")[-NEAR:], suffix.split("\n")[:NEAR]
    imports = " ".join(IMPORT.findall(prefix + suffix))
    return words("\n".join([*before, *after])) + words(imports)


def as_comment(piece: Snippet, name: str) -> str:
    """A piece as lines of comment in the language of the file `name`, under a line with its own name."""
    mark = COMMENT_OF.get(language_of(name) or "", "//")
    lines = [piece.name, *piece.text.split("\n")]
    return "".join(f"{mark} {line}".rstrip() + "\n" for line in lines)


def read_repository(root: Path, without: Path | None = None) -> tuple[dict[str, str], list[str]]:
    """Source files of a folder by relative name, but for the one that is worked on, and notes.

    Vendored, generated and hidden files and those above MOST_MB are left out. Raises UserError when `root` is no
    folder.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no folder. Give the folder of the repository, or files, `context`.")
    found, _ = walk(root, exclusion_reason)
    notes = []
    if len(found) > MOST_FILES:
        notes.append(f"{root} has {len(found):,} source files: the first {MOST_FILES:,} are looked at")
    mine = None if without is None else without.resolve()
    files = {}
    for file in found[:MOST_FILES]:
        if file.path.resolve() != mine and (text := _text(file)) is not None:
            files[file.name] = text
    return files, notes


def read_files(paths: Sequence[Path]) -> dict[str, str]:
    """Named files. Raises UserError for one that cannot be read as text."""
    files = {}
    for path in paths:
        try:
            files[path.name if path.is_absolute() else path.as_posix()] = decode_text(
                read_bytes(DataFile(path, path.name, path.stat().st_size), MOST_MB)
            )
        except (OSError, FileError) as error:
            raise UserError(f"The file {path}: {error}. Give files of source code.") from None
    return files


def _text(file: DataFile) -> str | None:
    try:
        return decode_text(read_bytes(file, MOST_MB))
    except FileError:
        return None
