"""Source files: their language by name, which of them nobody wrote, and whether a text is a program."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable
from pathlib import PurePosixPath

PROGRAMS = {
    "ada": ".adb .ads",
    "assembly": ".asm .s",
    "c": ".c .h",
    "clojure": ".clj .cljs .cljc",
    "cpp": ".cc .cpp .cxx .hh .hpp .hxx",
    "csharp": ".cs",
    "cuda": ".cu .cuh",
    "d": ".d",
    "dart": ".dart",
    "elixir": ".ex .exs",
    "elm": ".elm",
    "erlang": ".erl .hrl",
    "fortran": ".f .f90 .f95 .f03 .for",
    "fsharp": ".fs .fsx",
    "gdscript": ".gd",
    "glsl": ".glsl .vert .frag .comp",
    "go": ".go",
    "groovy": ".groovy .gradle",
    "haskell": ".hs .lhs",
    "java": ".java",
    "javascript": ".js .mjs .cjs .jsx",
    "julia": ".jl",
    "kotlin": ".kt .kts",
    "lean": ".lean",
    "lisp": ".lisp .el .cl .scm .rkt",
    "lua": ".lua",
    "nim": ".nim",
    "objective-c": ".m .mm",
    "ocaml": ".ml .mli",
    "pascal": ".pas .pp",
    "perl": ".pl .pm",
    "php": ".php",
    "powershell": ".ps1 .psm1",
    "prolog": ".pro",
    "python": ".py .pyi .pyw",
    "r": ".r",
    "ruby": ".rb .rake",
    "rust": ".rs",
    "scala": ".scala .sc",
    "shell": ".sh .bash .zsh .fish",
    "solidity": ".sol",
    "sql": ".sql",
    "swift": ".swift",
    "tcl": ".tcl",
    "typescript": ".ts .tsx .mts .cts",
    "verilog": ".v .sv .svh",
    "vhdl": ".vhd .vhdl",
    "zig": ".zig",
}
# Read beside programs, but a folder of nothing else is not called code.
MARKUP = {
    "cmake": ".cmake",
    "css": ".css .scss .sass .less",
    "graphql": ".graphql .gql",
    "html": ".html .htm .vue .svelte",
    "ini": ".ini .cfg",
    "json": ".json",
    "latex": ".tex .sty .bib",
    "nix": ".nix",
    "protobuf": ".proto",
    "terraform": ".tf",
    "toml": ".toml",
    "xml": ".xml .xsd .xsl .svg",
    "yaml": ".yaml .yml",
}
NAMES = {
    "makefile": "make",
    "gnumakefile": "make",
    "dockerfile": "dockerfile",
    "cmakelists.txt": "cmake",
    "rakefile": "ruby",
    "gemfile": "ruby",
    "justfile": "make",
}
BY_SUFFIX = {
    s: language for table in (PROGRAMS, MARKUP) for language, suffixes in table.items() for s in suffixes.split()
}
SUFFIX_OF = {language: suffixes.split()[0] for t in (PROGRAMS, MARKUP) for language, suffixes in t.items()}
LANGUAGES = frozenset(BY_SUFFIX.values()) | frozenset(NAMES.values())

VENDORED = frozenset(
    {"node_modules", "__pycache__", "site-packages", "dist-packages", "bower_components", "vendor", "third_party"}
)
LOCKS = frozenset(
    {"package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "bun.lock", "cargo.lock", "poetry.lock"}
    | {"uv.lock", "pdm.lock", "pipfile.lock", "composer.lock", "gemfile.lock", "flake.lock", "go.sum", "mix.lock"}
)
LICENCE = re.compile(r"(licen[sc]e|copying|unlicense|notice|copyright|patents)([-_.].*)?", re.IGNORECASE)
LICENCE_SUFFIXES = frozenset({"", ".txt", ".md", ".rst", ".html", ".mit", ".apache", ".bsd", ".gpl", ".lesser"})

HEAD = 2_000  # characters of a file in which it says that it was generated
GENERATED = re.compile(
    r"@generated\b|do not edit\b|do not modify (this|by hand)"
    r"|\b(this|the) (file|module|code) (is|was|has been) (auto-?matically |auto-?)?(generated|produced)\b"
    r"|\b(is|was) (auto-?generated|automatically generated)\b",
    re.IGNORECASE,
)
GENERATED_COMMENT = re.compile(
    r"^\s*(#|//|/\*|\*|--|;|%|<!--|\"\"\"|''').{0,40}\b(auto-?)?generated (automatically )?(by|from|with)\b",
    re.IGNORECASE | re.MULTILINE,
)
LONG_LINE = 5_000  # characters: nobody types such a line
MEAN_LINE = 300


def language_of(name: str) -> str | None:
    """By the file's name, or None."""
    path = PurePosixPath(name.lower())
    return NAMES.get(path.name) or BY_SUFFIX.get(path.suffix)


def why_not_source(name: str, folder: bool) -> str | None:
    """Why a file or folder is not the project's own source, by its name."""
    path = PurePosixPath(name)
    lower = path.name.lower()
    if folder:
        return "not this project's own code (vendored or built)" if lower in VENDORED else None
    if path.suffix.lower() in LICENCE_SUFFIXES and LICENCE.fullmatch(path.name):
        return "licence file"
    if lower in LOCKS:
        return "lock file: written by a package manager"
    if re.search(r"[.-]min\.(js|css|mjs)$", lower):
        return "minified"
    if re.search(r"(_pb2(_grpc)?\.pyi?|\.pb\.(go|cc|h)|\.g\.dart|\.designer\.cs|_generated\.\w+)$", lower):
        return "generated (by its name)"
    return None if language_of(name) else f"not source code that is known ({path.suffix or 'no suffix'})"


def why_not_written(text: str) -> str | None:
    """Why a file was written by no person, by its content."""
    if not text.strip():
        return "nothing but white space"
    head = text[:HEAD]
    found = GENERATED.search(head) or GENERATED_COMMENT.search(head)
    if found:
        return f"generated: it says {' '.join(found.group().split())[-60:]!r}"
    lines = text.split("\n")
    longest = max(map(len, lines))
    if longest > LONG_LINE:
        return f"minified or data: a line of {longest:,} characters"
    if len(text) > 10 * MEAN_LINE and len(text) / len(lines) > MEAN_LINE:
        return f"minified or data: {len(text) / len(lines):,.0f} characters a line"
    return None


# --------------------------------------------------------------------------- validity


def parses_python(text: str) -> bool:
    """Whether Python's own parser takes the text; the last top-level statement may be cut off.

    A sample ends where the number of tokens ends, in the middle of a statement. So a text that does not parse is
    tried once more without its last top-level statement; something must be left.
    """
    if _parses(text):
        return True
    starts = [m.start() for m in re.finditer(r"^[^\s#)\]}]", text, re.MULTILINE)]
    while starts:
        cut = starts.pop()
        if not text.startswith(("@", "else", "elif", "except", "finally", "case"), cut) or not starts:
            break
    else:
        return False
    while starts and text.startswith("@", starts[-1]):  # decorators of the statement that is cut off
        cut = starts.pop()
    return bool(text[:cut].strip()) and _parses(text[:cut])


def _parses(text: str) -> bool:
    """False for a text that only white space or comments make up."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes, "is" with a literal
            return bool(ast.parse(text).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def parses_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


PARSERS: dict[str, Callable[[str], bool]] = {"python": parses_python, "json": parses_json}


def checker(languages: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a text is a program in one of the languages.

    Only Python and JSON have a parser here: in any other language a text counts when it is not empty, so with
    such a language among them the check says little.
    """
    if not languages or any(language not in PARSERS for language in languages):
        return lambda text: bool(text.strip())
    return lambda text: any(PARSERS[language](text) for language in languages)
