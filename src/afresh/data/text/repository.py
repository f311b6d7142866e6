"""Context for completion from other files of a repository: snippets that share words with the text at the cursor."""

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

LINES = 20  # of a snippet (Zhang et al. 2023, RepoCoder, section 3)
NEAR = 40  # lines before and after the cursor whose words are the query
MAX_FILES, MAX_MB = 5_000, 1
K1, B = 1.2, 0.75  # of BM25
WORD = re.compile(r"[^\W\d]\w+")
IMPORT = re.compile(r"^\s*(?:import|from|#\s*include|use|require|using)\b.*$|\brequire\(.*$", re.MULTILINE)
# What a line comment begins with; // in languages that are not listed.
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
    """Some lines of a file. `name` is the file's path relative to the repository."""

    name: str
    text: str

    def words(self) -> Counter[str]:
        """Words of the lines and of the file's path, which imports of the file contain."""
        return Counter(words(self.text) + words(str(PurePosixPath(self.name).with_suffix("")).replace("/", " ")))


def words(text: str) -> list[str]:
    """Identifiers and keywords."""
    return WORD.findall(text)


def snippets_of(files: Mapping[str, str], size: int = LINES) -> list[Snippet]:
    """Every file divided into snippets of `size` lines that do not overlap, without blank ones."""
    out = []
    for name, text in files.items():
        lines = text.splitlines()
        parts = ("\n".join(lines[i : i + size]) for i in range(0, len(lines), size))
        out += [Snippet(name, part) for part in parts if part.strip()]
    return out


def rank_snippets(snippets: Sequence[Snippet], query: Sequence[str]) -> list[tuple[float, Snippet]]:
    """(score, snippet) of snippets that share a word with the query, best first, by Okapi BM25 (Robertson and Zaragoza
    2009, eq. 3.15).

    The inverse document frequency is ln(1 + (N - n + 1/2) / (n + 1/2)), which is never negative. Ties keep their order.
    """
    counts = [s.words() for s in snippets]
    lengths = [c.total() for c in counts]
    mean = sum(lengths) / len(lengths) if lengths else 1.0
    wanted = set(query)
    frequency = Counter(w for c in counts for w in wanted & c.keys())
    weight = {w: math.log(1 + (len(snippets) - n + 0.5) / (n + 0.5)) for w, n in frequency.items()}
    out = []
    for snippet, count, length in zip(snippets, counts, lengths, strict=True):
        norm = K1 * (1 - B + B * length / mean)
        score = sum(weight[w] * count[w] * (K1 + 1) / (count[w] + norm) for w in wanted & count.keys())
        if score > 0:
            out.append((score, snippet))
    return sorted(out, key=lambda pair: -pair[0])


def query_at(prefix: str, suffix: str) -> list[str]:
    """Words of the lines around a cursor and of the file's imports."""
    before, after = prefix.split("\n")[-NEAR:], suffix.split("\n")[:NEAR]
    imports = " ".join(IMPORT.findall(prefix + suffix))
    return words("\n".join([*before, *after])) + words(imports)


def as_comment(snippet: Snippet, name: str) -> str:
    """A snippet as comment lines in the language of the file `name`, below a line with the snippet's own file."""
    mark = COMMENT_OF.get(language_of(name) or "", "//")
    lines = [snippet.name, *snippet.text.split("\n")]
    return "".join(f"{mark} {line}".rstrip() + "\n" for line in lines)


def read_repository(root: Path, without: Path | None = None) -> tuple[dict[str, str], list[str]]:
    """Source files of a folder by relative name, except the file `without`, and notes.

    Vendored, generated and hidden files and files larger than MAX_MB are left out. Raises UserError if `root` is not a
    folder.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder. Give the folder of the repository, or files with `context`.")
    every, _ = walk(root, exclusion_reason)
    notes = []
    if len(every) > MAX_FILES:
        notes.append(f"{root} has {len(every):,} source files: only the first {MAX_FILES:,} are searched")
    excluded = None if without is None else without.resolve()
    files = {}
    for file in every[:MAX_FILES]:
        if file.path.resolve() != excluded and (text := _text(file)) is not None:
            files[file.name] = text
    return files, notes


def read_files(paths: Sequence[Path]) -> dict[str, str]:
    """The texts of files by name. Raises UserError for a file that cannot be read as text."""
    files = {}
    for path in paths:
        try:
            files[path.name if path.is_absolute() else path.as_posix()] = decode_text(
                read_bytes(DataFile(path, path.name, path.stat().st_size), MAX_MB)
            )
        except (OSError, FileError) as error:
            raise UserError(f"The context file {path} cannot be used: {error}. Give files of source code.") from None
    return files


def _text(file: DataFile) -> str | None:
    try:
        return decode_text(read_bytes(file, MAX_MB))
    except FileError:
        return None
