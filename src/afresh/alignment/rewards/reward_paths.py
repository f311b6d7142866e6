"""The files that a reward's words name: made whole paths, so that a run can go on from any folder."""

from __future__ import annotations

from pathlib import Path

from afresh.alignment.rewards.build import builtin_names, parse
from afresh.alignment.rewards.classifier_reward import MARK as CLASS
from afresh.alignment.rewards.unit_test_reward import MARK as TESTS

NEAR = "near:"  # the one built-in reward that names a file


def anchored(text: str) -> str:
    """A reward with the files that it names as whole paths."""
    terms = parse(text)
    words = [whole(t.word) for t in terms]
    if words == [t.word for t in terms]:
        return text
    out = ""
    for term, word in zip(terms, words, strict=True):
        quote = "'" if "'" not in word else '"'
        sign = "-" if term.weight < 0 else "+" if out else ""
        out += f" {sign} {abs(term.weight)!r}*{quote}{word}{quote}"
    return out.strip()


def files_in(text: str) -> list[Path]:
    """The files and folders that a reward is made of."""
    found = (divided(t.word) for t in parse(text))
    return [Path(path) for _, path, _ in found if path]


def whole(word: str) -> str:
    before, path, behind = divided(word)
    return f"{before}{Path(path).resolve()}{behind}" if path else word


def divided(word: str) -> tuple[str, str, str]:
    """(before, path, behind) of a word that names something that exists: FILE.py:function, near:FILE, passes:FILE,
    class:LABEL@PATH, the FOLDER of a reward model. The path is empty of every other word: what contains:TEXT looks for,
    and a class, may bear the name of a file."""
    nothing = (word, "", "")
    if word.startswith("!"):
        return nothing
    if word.startswith((NEAR, TESTS)):
        mark = NEAR if word.startswith(NEAR) else TESTS
        found = (mark, word[len(mark) :], "")
    elif word.startswith(CLASS):
        label, at, path = word.partition("@")
        found = (label + at, path, "")
    elif word.partition(":")[0] in builtin_names():
        return nothing
    elif word.rpartition(":")[0].endswith(".py"):
        source, colon, function = word.rpartition(":")
        found = ("", str(Path(source).expanduser()), colon + function)
    else:
        return ("", word, "") if (Path(word) / "model.json").is_file() else nothing
    return found if found[1] and Path(found[1]).exists() else nothing
