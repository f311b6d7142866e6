"""Only words that name a file become paths; what is looked for, or a class, may bear the name of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from afresh.engine.alignment.rewards.reward_paths import anchored, files_in


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("r.py", "cat.png", "tests.py", "taste/model.json", "novel/model.json", "runs/x", "3/x", "a:b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "word",
    [
        "length:min=5",
        "contains:runs",
        "contains:cat.png",
        "matches:runs",
        "class:3",
        "class:r.py",
        "novel",
        "runs",  # no reward model
        "near:gone.png",
        "gone.py:f",
        "json.decoder:loads",
        "'!sh r.py'",
    ],
)
def test_words_that_name_no_file_stay_as_they_are(here: Path, word: str) -> None:
    assert anchored(word) == word and files_in(word) == []


@pytest.mark.parametrize(
    ("word", "path", "rest"),
    [
        ("near:cat.png", "cat.png", "near:{}"),
        ("near:a:b.png", "a:b.png", "near:{}"),
        ("r.py:f", "r.py", "{}:f"),
        ("passes:tests.py", "tests.py", "passes:{}"),
        ("class:3@runs", "runs", "class:3@{}"),
        ("taste", "taste", "{}"),
    ],
)
def test_files_become_whole_paths(here: Path, word: str, path: str, rest: str) -> None:
    assert anchored(word) == "1.0*'" + rest.format(here / path) + "'" or anchored(word) == rest.format(here / path)
    assert [p.resolve() for p in files_in(word)] == [here / path]


def test_signs_and_weights_of_a_sum_are_kept(here: Path) -> None:
    assert anchored("-2*r.py:f + near:cat.png") == f"- 2.0*'{here}/r.py:f' + 1.0*'near:{here}/cat.png'"
