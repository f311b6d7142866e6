"""Completing at a cursor: the place, what fits into the context, where a completion ends, and that a model trained so
uses what is after the cursor."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afresh.core import Cond, Item, UserError
from afresh.data.text.documents import DocumentEncoder
from afresh.data.text.fim import MARKS
from afresh.domains.code.metrics import completer_of
from afresh.domains.code.modality import MODALITY, CodeOptions
from afresh.engine.sampling.constrained import structure
from afresh.engine.sampling.request import Request
from afresh.faces.cli import run as command
from afresh.runs.data import run_data
from afresh.runs.run import Run
from afresh.verbs.cursor import (
    Completion,
    Hole,
    complete_hole,
    complete_many,
    condition_of,
    fit,
    padded,
    split_at,
    trim,
)
from afresh.verbs.measuring import RunEvidence
from tests.faces.cli.conftest import parsed

# --------------------------------------------------------------------------- the cursor


def test_a_cursor_splits_a_text_in_two() -> None:
    text = "ab\r\ncdé\n"
    assert split_at(text, 1, 1) == ("", text)
    assert split_at(text, 1, 3) == ("ab", "\r\ncdé\n")
    assert split_at(text, 2, 4) == ("ab\r\ncdé", "\n")
    assert split_at(text, 3, 1) == (text, "")
    assert split_at("", 1, 1) == ("", "")


@pytest.mark.parametrize(("line", "column", "said"), [
    (0, 1, "No line 0. Lines are numbered from 1 to 3"), (4, 1, "from 1 to 3"), (1, 0, "No column 0 in line 1"),
    (1, 4, "columns are from 1 to 3"), (3, 2, "columns are from 1 to 1"),
])  # fmt: skip
def test_a_place_that_is_not_there(line: int, column: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        split_at("ab\r\ncd\n", line, column)


# --------------------------------------------------------------------------- where a completion ends


@pytest.mark.parametrize(
    ("text", "suffix", "ended", "expected"),
    [
        ("a + b", ")\n", True, ("a + b", False)),
        ("bar()", ")\n", True, ("bar()", False)),  # a bracket may be meant
        ("a + b\n    return total\n    more", "\n    return total\n", True, ("a + b", True)),
        ("a)\n)\nreturn total\nx", ")\n)\nreturn total\n", False, ("a", True)),
        ("x = compute(1)", "compute(1)\n", True, ("x = ", True)),  # the end repeats what follows
        ("one\ntwo\nthr", "\nother = 1\n", False, ("one\ntwo", False)),  # only too long
        ("one two thr", "\nother = 1\n", False, ("one two thr", False)),
        ("return total\nx", "\nreturn total\n", True, ("", True)),
        ("", "", True, ("", False)),
    ],
)
def test_a_completion_stops_where_the_suffix_begins(
    text: str, suffix: str, ended: bool, expected: tuple[str, bool]
) -> None:
    assert trim(Completion(text, ended, False), suffix) == Completion(expected[0], ended, expected[1])


# --------------------------------------------------------------------------- what fits

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def encoder(rate: float = 0.5) -> DocumentEncoder:
    made = MODALITY.fit([Item(LETTERS + "#\n. /", "a.py")], CodeOptions(context=64, fim_rate=rate))
    assert made.tokenizer.kind == "chars"
    return made


def shown(made: DocumentEncoder, ids: np.ndarray) -> str:
    names = {made.tokenizer.special[m]: f"<{m[4]}>" for m in MARKS if m in made.tokenizer.special}
    return "".join(names.get(i) or made.tokenizer.decode([i]) for i in ids.tolist())


def test_the_nearest_text_is_kept_and_the_rest_is_said() -> None:
    made = encoder()
    prompt = fit(made, Hole(LETTERS, LETTERS), 34)  # 30 for text: a third after the cursor
    assert shown(made, prompt.ids) == f"<p><s>{LETTERS[:10]}<m>{LETTERS[-20:]}"
    assert (prompt.prefix, prompt.suffix) == ((20, 26), (10, 26)) and len(prompt.ids) == 33
    assert prompt.notes() == [
        "The text before the cursor has 26 tokens; the model sees the last 20.",
        "The text after the cursor has 26 tokens; the model sees the first 10.",
    ]
    prompt = fit(made, Hole("abc", LETTERS), 24)  # what one side does not need is the other's
    assert shown(made, prompt.ids) == f"<p><s>{LETTERS[:17]}<m>abc"
    assert shown(made, fit(made, Hole(LETTERS, "x"), 24).ids) == f"<p><s>x<m>{LETTERS[-19:]}"
    assert fit(made, Hole("abc", "x"), 60).notes() == []


def test_others_models_see_the_prefix_first_and_plain_ones_only_it() -> None:
    made = replace(encoder(), fim_rate=0.0)  # marks, but not trained here
    assert shown(made, fit(made, Hole("abc", "xyz"), 40).ids) == "<p>abc<s>xyz<m>"
    plain = encoder(0.0)
    prompt = fit(plain, Hole(LETTERS, "xyz"), 11)
    assert shown(plain, prompt.ids) == LETTERS[-10:] and prompt.suffix == (0, 0)


def test_other_files_come_first_as_comments_if_there_is_room() -> None:
    made = encoder()
    others = {"near.py": "thing", "far.py": "other", "long.py": "thing " * 20}
    prompt = fit(made, Hole("thing", "x", "a.py", others), 40)
    assert shown(made, prompt.ids) == "<p><s>x<m># near.py\n# thing\nthing" and prompt.others == ("near.py",)
    assert fit(made, Hole("thing", "x", "a.py", others), 14).others == ()
    two = {"less.py": "thing and more of other", "best.py": "thing thing thing"}
    assert fit(made, Hole("thing", "x", "c.py", two), 100).others == ("less.py", "best.py"), "the best is the nearest"


def test_other_files_that_were_given_have_a_quarter_at_least() -> None:
    made = encoder()
    prompt = fit(made, Hole("x " * 90 + "thing", "x " * 90, "a.py", {"near.py": "thing"}), 100)
    assert prompt.others == ("near.py",) and len(prompt.ids) == 99 and prompt.prefix[0] < prompt.prefix[1]
    assert shown(made, prompt.ids).partition("<m>")[2].startswith("# near.py\n# thing\n x x ")
    assert not [n for n in prompt.notes() if "other files" in n]
    lines = "\n".join(f"thing {i}" for i in range(20))  # in shorter pieces than where there is room
    assert fit(made, Hole("x " * 90 + "thing", "", "a.py", {"n.py": lines}), 300).others == ("n.py",)
    prompt = fit(made, Hole("x " * 90 + "thing", "", "a.py", {"near.py": "thing " * 20, "far.py": "no"}), 40)
    assert prompt.others == () and "Nothing of the other files (2) is shown" in prompt.notes()[-1]


def test_prompts_of_different_lengths() -> None:
    known, mask = padded([np.array([3, 4, 5], dtype=np.int32), np.array([6], dtype=np.int32)])
    assert known[mask].tolist() == [3, 4, 5, 6] and mask.tolist() == [[True] * 3, [True, False, False]]


# --------------------------------------------------------------------------- a model that was trained so


WORDS = ["".join(w) for w in product("wxyz", repeat=3)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """On files whose first line is told by their last: a middle there cannot be known from what is before it."""
    root = tmp_path_factory.mktemp("echo")
    (root / "data").mkdir()
    for i, word in enumerate(WORDS):
        (root / "data" / f"{i}.py").write_text(f"a = {word}\nb = {word}\n")
    small = {"layers": 2, "width": 64, "heads": 2, "kv_heads": 2}
    argv = ["train", str(root / "data"), "--steps", "150", "--out", str(root / "run"), "--no-measure"]
    argv += ["--data", "context=24", "--data", "fim_rate=0.9", "--set", "train.batch=32", "--set", "train.lr=0.005"]
    assert command([*argv, *(x for k, v in small.items() for x in ("--set", f"family.{k}={v}"))]) == 0
    return Run.open(root / "run")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("plain")
    (root / "data").mkdir()
    for i in range(12):
        (root / "data" / f"{i}.py").write_text(f"def f{i}(x):\n    return x + {i}\n" * 3)
        (root / "data" / f"{i}.js").write_text(f"function f{i}(x) {{ return x + {i}; }}\n" * 3)
    argv = ["train", str(root / "data"), "--steps", "2", "--out", str(root / "run"), "--no-measure"]
    argv += ["--data", "context=32", "--data", "fim_rate=0", "--set", "family.layers=1", "--set", "train.batch=4"]
    assert command(argv) == 0
    return Run.open(root / "run")


def right(run: Run, suffixes: list[str]) -> float:
    """The share of letters that are found."""
    holes = [Hole("a = ", s, "a.py") for s in suffixes]
    made, _, _ = complete_many(run, holes, seed=0, settings={"temperature": 0.0}, length=6)
    hits = [a == b for word, m in zip(WORDS, made, strict=True) for a, b in zip(word, m.text.ljust(3)[:3], strict=True)]
    return sum(hits) / len(hits)


def test_it_reads_what_is_after_the_cursor(trained: Run) -> None:
    assert right(trained, [f"\nb = {w}\n" for w in WORDS]) > 0.7
    assert right(trained, ["\nb = wwww\n"] * len(WORDS)) < 0.45


def test_completions_are_drawn_and_end(trained: Run) -> None:
    hole = Hole("a = ", "\nb = xyz\n", "a.py")
    (one,) = complete_hole(trained, hole).completions
    assert one.ended and one == complete_hole(trained, hole, seed=5).completions[0], "the likeliest"
    many = complete_hole(trained, hole, 8, seed=1, temperature=2.0)
    assert len({c.text for c in many.completions}) > 2 and many.mode == "fill-in-the-middle" and not many.notes
    again = complete_hole(trained, hole, 3, seed=1, temperature=2.0)
    assert again.completions == many.completions[:3]


def test_a_run_without_it_goes_on_and_says_so(plain: Run) -> None:
    found = complete_hole(plain, Hole("def f", "\n", "a.py"), 2)
    assert found.mode == "left-to-right" and found.prompt.suffix == (0, 0)
    assert any("trained without fill-in-the-middle" in n for n in found.notes)


def test_the_language_is_that_of_the_file(plain: Run) -> None:
    cond, notes = condition_of(plain, [Hole("", "", "a.js"), Hole("", "", "b.py"), Hole("", "", "c.rs")], Request(), 0)
    classes = plain.conds["language"].classes
    assert [classes[i] for i in cond.parts["language"][:2]] == ["javascript", "python"]
    assert cond.present["language"].tolist() == [True, True, False] and "language rust was not learnt" in notes[-1]


def test_a_request_may_name_the_language(plain: Run) -> None:
    cond, notes = condition_of(plain, [Hole("", "", "a.rs"), Hole("", "")], Request(label="python"), 0)
    assert [plain.conds["language"].classes[i] for i in cond.parts["language"]] == ["python"] * 2
    assert cond.present["language"].all() and not notes


def test_what_matches_a_constraint_is_not_trimmed(trained: Run) -> None:
    make = structure(trained.family, trained.encoder, regex="a#b")
    settings = {"temperature": 0.0, "constraint": make}
    made, _, _ = complete_many(trained, [Hole("", "b")], seed=0, settings=settings, length=12)
    assert (made[0].text, made[0].ended, made[0].trimmed) == ("a#b", True, False) and len(made[0].tokens) >= 3


def test_measuring_asks_for_completions(trained: Run, plain: Run) -> None:
    """With a tool that is made once: texts, or None of a run that never learnt to."""
    holes = [Hole("a = ", f"\nb = {w}\n", "a.py") for w in WORDS[:3]]
    evidence = RunEvidence(trained, run_data(trained))
    fill = evidence.tool(completer_of)
    assert fill is not None and evidence.tool(completer_of) is fill
    assert fill(holes) == [complete_hole(trained, h).completions[0].text for h in holes]
    assert RunEvidence(plain, run_data(plain)).tool(completer_of) is None


# --------------------------------------------------------------------------- the verb


def test_the_verb(trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new.py"
    file.write_text("a = \nb = xyz\n")
    (tmp_path / "other.py").write_text("b = 3\n")
    place = ["complete", str(trained.path), str(file), "--line", "1", "--column", "5"]
    assert command([*place, "-n", "3", "--json"]) == 0
    out, err = capsys.readouterr()
    found = parsed(out)
    assert set(found) == {"run", "completions", "mode", "prefix", "suffix", "context", "notes"} and not err
    assert len(found["completions"]) == 3 and set(found["completions"][0]) == {"text", "ended", "trimmed"}
    assert found["prefix"] == [4, 4] and found["suffix"] == [9, 9]
    assert command(place) == 0
    assert capsys.readouterr().out.strip()
    assert command([*place, "--repository", str(tmp_path), "--json"]) == 0
    (note,) = parsed(capsys.readouterr().out)["notes"]
    assert note.startswith("Nothing of the other files (1) is shown")
    assert command([*place, "--context", str(tmp_path / "other.py"), "-n", "2"]) == 0
    assert "─ 2" in capsys.readouterr().out


def test_what_cannot_be_completed(trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.py"
    file.write_text("a = 1\n")

    def said(*more: object, to: Path = file) -> str:
        capsys.readouterr()
        assert command(["complete", str(trained.path), str(to), *map(str, more)]) == 2
        return capsys.readouterr().err

    assert "No line 9" in said("--line", 9, "--column", 1)
    assert "from 1 to 12 tokens" in said("--line", 1, "--column", 1, "--length", 13)
    assert "from 1 to 1,000" in said("--line", 1, "--column", 1, "-n", 0)
    assert "cannot be completed" in said("--line", 1, "--column", 1, to=tmp_path / "none.py")
    assert "not both" in said("--line", 1, "--column", 1, "--context", file, "--repository", tmp_path)
    assert "is not a folder" in said("--line", 1, "--column", 1, "--repository", file)


def test_white_space_without_an_end_is_left_out(plain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = plain.encoder.abilities.texts
    assert texts is not None
    (space,) = texts.tokenizer.encode_many([" "])

    def spaces(run: Run, modules: Any, cond: Cond, seed: int, settings: Any) -> None:
        for row in range(cond.size):
            for _ in range(settings.length):
                settings.watch(row, int(space[0]), -1.0)

    monkeypatch.setattr(Run, "draw", spaces)
    found, _, notes = complete_many(plain, [Hole("def f", "\n", "a.py")] * 2, seed=0, settings={}, length=8)
    assert [c.text for c in found] == ["", ""]
    assert any("2 completions of white space alone left out" in note for note in notes)


@pytest.mark.parametrize("drawn", ["", " " * 64, "\n\t\n"])
def test_white_space_is_no_completion(trained: Run, drawn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = iter([drawn] * 2 + [drawn, "x = 1"])

    def complete(run: Run, holes: list[Hole], **_: object) -> tuple[list[Completion], list[object], list[str]]:
        return (
            [Completion(next(texts), True, False) for _ in holes],
            [fit(run.encoder.abilities.texts, h, 32) for h in holes],
            [],
        )

    monkeypatch.setattr("afresh.verbs.cursor.complete_many", complete)
    with pytest.raises(UserError, match="nothing here but white space"):
        complete_hole(trained, Hole("def f():", ""), 2)
    found = complete_hole(trained, Hole("def f():", ""), 2)
    assert [c.text for c in found.completions] == [drawn, "x = 1"]
