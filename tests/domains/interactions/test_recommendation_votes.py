"""Votes from lists that were shown: who is preferred to whom, and that aligning to them works."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from afresh.core import UserError
from afresh.domains.interactions.blend import blended
from afresh.domains.interactions.history import HISTORY, History, decode
from afresh.domains.interactions.recommend import Ranking, Recommender
from afresh.domains.interactions.recommendation_votes import item_of, votes_in
from afresh.engine.alignment.feedback.preferences import read_votes
from afresh.faces.cli import run as command
from afresh.runs.run import Run
from tests.domains.interactions.shop import ITEMS


def log(file: Path, rows: Sequence[dict[str, object]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def shown(recommender: Recommender, file: Path, lists: int = 200, explore: float = 4.0) -> Path:
    """Lists of four that were drawn at a temperature, of which users click i0 to i2, whatever comes next."""
    histories = [[f"i{(u + e) % ITEMS}" for e in range(3)] for u in range(lists)]
    found = recommender.recommend(histories, Ranking(4, explore=explore, seen=True, seed=3))
    rows = [
        {
            "list": n,
            "place": place,
            "history": h,
            "item": r.item,
            "drawn": r.drawn,
            "click": r.item in ("i0", "i1", "i2"),
        }
        for n, (h, items) in enumerate(zip(histories, found, strict=True))
        for place, r in enumerate(items, 1)
    ]
    return log(file, rows)


def test_what_was_clicked_is_preferred_to_what_was_not(recommender: Recommender, tmp_path: Path) -> None:
    rows = [("i5", 1), ("i6", 0), ("i7", 1), ("i8", 0), ("else", 0)]
    file = log(tmp_path / "log.jsonl", [
        {"list": 1, "place": p, "history": ["i3", "what", "i4"], "item": i, "drawn": 0.1, "click": c}
        for p, (i, c) in enumerate(rows, 1)
    ])  # fmt: skip
    told = votes_in(recommender, file)
    assert {v.decided for v in told.votes} == {("i5", "i6"), ("i5", "i8"), ("i7", "i6"), ("i7", "i8")}
    assert {(v.prompt, v.weight) for v in told.votes} == {("i3,i4", 1.0)} and told.notes == (
        "4 votes from 1 list",
        "2 pairs with an item that the run has not learnt, left out",
    )


def test_votes_are_written_and_read_again(run: Path, recommender: Recommender, tmp_path: Path) -> None:
    file, out = shown(recommender, tmp_path / "log.jsonl"), tmp_path / "votes.jsonl"
    asked = [
        "recommend",
        str(run),
        "--set",
        f"votes_from={file}",
    ]
    assert command([*asked, "--out", str(out)]) == 0
    assert read_votes(out, HISTORY).votes == tuple(votes_in(recommender, file).votes)
    assert command([*asked, "--out", str(out)]) == 2  # there is a file
    assert command(asked) == 2
    alone = [{"history": "i3", "item": "i4", "drawn": 0.5, "click": 1}]
    with pytest.raises(UserError, match="tells no preference"):
        votes_in(recommender, log(tmp_path / "alone.jsonl", alone))


@pytest.mark.parametrize(("family", "method"), [("transformer", "dpo"), ("transformer", "kto"), ("masked", "dpo")])
def test_what_is_preferred_becomes_likelier(
    run: Path, masked_run: Path, tmp_path: Path, family: str, method: str
) -> None:
    base = run if family == "transformer" else masked_run
    before, out = Recommender(Run.open(base)), tmp_path / "votes.jsonl"
    votes_in(before, shown(before, tmp_path / "log.jsonl")).write(out)
    asked = ["align", str(base), "--preferences", str(out), "--steps", "30", "--out", str(tmp_path / "aligned")]
    assert (
        command([*asked, "--method", method, "--set", "train.lr=3e-3", "--set", "train.batch=16", "--no-measure"]) == 0
    )
    after = Recommender(Run.open(tmp_path / "aligned"))
    rows = [after.encoder.ids(h) for h in (["i3", "i4", "i5"], ["i8"])]
    clicked = after.encoder.ids(["i0", "i1", "i2"])
    was, now = (r.log_probs(rows, r.condition(2)).exp()[:, clicked].sum(1) for r in (before, after))
    assert bool((now > was + 0.05).all())
    both = blended(after.experts(rows, after.condition(2)), after.blend.weights).softmax(1)
    assert torch.allclose(after.probabilities(rows, after.condition(2)), both, rtol=1e-3, atol=1e-6)


def test_methods_that_need_a_reward_say_which_do_not(
    run: Path, recommender: Recommender, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    votes_in(recommender, shown(recommender, tmp_path / "log.jsonl")).write(tmp_path / "votes.jsonl")
    asked = ["align", str(run), "--preferences", str(tmp_path / "votes.jsonl"), "--method", "grpo"]
    assert command([*asked, "--out", str(tmp_path / "aligned")]) == 2
    assert "such as dpo" in capsys.readouterr().err


def test_ids_are_histories_of_one(tmp_path: Path) -> None:
    assert decode(b"i3") == History("", ("i3",)) and decode(b"7, 8") == History("", ("7", "8"))
    for name in ("i3", "a,b", '{"', "[1]", " x", "7"):
        assert decode(item_of(name).encode()).items == (name,)
    with pytest.raises(ValueError, match="has items"):
        decode(b" ")
