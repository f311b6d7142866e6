"""Files and programs in the words of a reward: made absolute, so that a run can be resumed from any folder, or refused,
where the words come from somebody else."""

from __future__ import annotations

from pathlib import Path

from afresh.alignment.rewards.classifier_reward import CLASS_PREFIX
from afresh.alignment.rewards.reward_expression import builtin_names, parse
from afresh.alignment.rewards.surrogate_reward import NAME as SURROGATE
from afresh.alignment.rewards.surrogate_reward import split_file
from afresh.core import UserError
from afresh.domains.code.unit_test_reward import PREFIX as TESTS_PREFIX

EXPRESSIONS = "matches"  # the built-in reward whose argument is a regular expression
FILE_PREFIXES = ("near:", TESTS_PREFIX, f"{SURROGATE}:")  # of built-in rewards whose argument is a file


def anchored(text: str) -> str:
    """The words of a reward with absolute paths."""
    terms = parse(text)
    words = [absolute(t.word) for t in terms]
    if words == [t.word for t in terms]:
        return text
    out = ""
    for term, word in zip(terms, words, strict=True):
        quote = "'" if "'" not in word else '"'
        sign = "-" if term.weight < 0 else "+" if out else ""
        out += f" {sign} {abs(term.weight)!r}*{quote}{word}{quote}"
    return out.strip()


def programs_in(text: str) -> list[str]:
    """The words of a reward that name code which building the reward would execute: '!program', FILE.py:function and
    module:function. A word that is none of the other forms counts as such, whether or not it exists."""
    return [t.word for t in parse(text) if t.word.startswith("!") or not is_data(t.word)]


def is_data(word: str) -> bool:
    """Whether a word is a built-in reward, a class, or the folder of a reward model."""
    builtin = word.partition(":")[0] in builtin_names() or word.startswith(CLASS_PREFIX)
    return builtin or (Path(word) / "model.json").is_file()


def check_words(text: str) -> None:
    """Raises UserError for a reward that is more than words: a program, a function, a file or folder, and a regular
    expression, which can take for ever. What remains are built-in rewards and class:LABEL."""
    for term in parse(text):
        name, _, argument = term.word.partition(":")
        builtin = name in builtin_names() and f"{name}:" not in FILE_PREFIXES and name != EXPRESSIONS
        if not builtin and not (term.word.startswith(CLASS_PREFIX) and "@" not in argument):
            raise UserError(
                "Rewards are given only in words here, without programs, functions, files and regular expressions: a "
                f"built-in reward such as length or brightness, or class:LABEL. Given: {term.word!r}.",
                "reward_not_words",
                word=term.word,
            )


def files_in(text: str) -> list[Path]:
    """The files and folders that the words of a reward name."""
    words = (divided(t.word) for t in parse(text))
    return [Path(path) for _, path, _ in words if path]


def absolute(word: str) -> str:
    before, path, after = divided(word)
    return f"{before}{Path(path).resolve()}{after}" if path else word


def divided(word: str) -> tuple[str, str, str]:
    """(before, path, after) of a word that names an existing file or folder: FILE.py:function, near:FILE, passes:FILE,
    surrogate:FILE:COLUMN, class:LABEL@PATH, or the FOLDER of a reward model.

    For all other words the path is empty: the text of contains:TEXT or the name of a class may equal that of a file.
    """
    without_path = (word, "", "")
    if word.startswith("!"):
        return without_path
    if word.startswith(FILE_PREFIXES):
        name, colon, argument = word.partition(":")
        parts = (name + colon, *(split_file(argument) if name == SURROGATE else (argument, "")))
    elif word.startswith(CLASS_PREFIX):
        label, at, path = word.partition("@")
        parts = (label + at, path, "")
    elif word.partition(":")[0] in builtin_names():
        return without_path
    elif word.rpartition(":")[0].endswith(".py"):
        source, colon, function = word.rpartition(":")
        parts = ("", str(Path(source).expanduser()), colon + function)
    else:
        return ("", word, "") if (Path(word) / "model.json").is_file() else without_path
    return parts if parts[1] and Path(parts[1]).exists() else without_path
