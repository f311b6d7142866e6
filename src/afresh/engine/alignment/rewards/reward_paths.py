"""Files and programs in the words of a reward: made absolute, so that a run can be resumed from any folder, or refused,
where the words come from someone else."""

from __future__ import annotations

from pathlib import Path

from afresh.core import UserError, registry
from afresh.engine.alignment.rewards.classifier_reward import CLASS_PREFIX
from afresh.engine.alignment.rewards.reward import Builtin
from afresh.engine.alignment.rewards.reward_expression import builtin_names, parse


def builtins_named(word: str) -> list[Builtin]:
    """The built-in rewards of the name before the colon, of all kinds of items."""
    name = word.partition(":")[0]
    return [table[name] for table in registry.rewards().values() if name in table]


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
    module:function. A word that is not one of the other forms counts as such, whether or not it exists."""
    return [t.word for t in parse(text) if t.word.startswith("!") or not is_data(t.word)]


def is_data(word: str) -> bool:
    """Whether a word is a built-in reward, a class, or the folder of a reward model."""
    builtin = word.partition(":")[0] in builtin_names() or word.startswith(CLASS_PREFIX)
    return builtin or (Path(word) / "model.json").is_file()


def check_words(text: str) -> None:
    """Raises UserError for a reward that is more than words: a program, a function, a file or folder, and a regular
    expression, which can take for ever. What remains are built-in rewards and class:LABEL."""
    for term in parse(text):
        argument = term.word.partition(":")[2]
        builtins = builtins_named(term.word)
        only_words = bool(builtins) and not any(b.file or b.endless for b in builtins)
        if not only_words and not (term.word.startswith(CLASS_PREFIX) and "@" not in argument):
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
    name, colon, argument = word.partition(":")
    builtins = builtins_named(word)
    if colon and (divide := next((b.file for b in builtins if b.file), None)) is not None:
        parts = (name + colon, *divide(argument))
    elif word.startswith(CLASS_PREFIX):
        label, at, path = word.partition("@")
        parts = (label + at, path, "")
    elif builtins:
        return without_path
    elif word.rpartition(":")[0].endswith(".py"):
        source, colon, function = word.rpartition(":")
        parts = ("", str(Path(source).expanduser()), colon + function)
    else:
        return ("", word, "") if (Path(word) / "model.json").is_file() else without_path
    return parts if parts[1] and Path(parts[1]).exists() else without_path
