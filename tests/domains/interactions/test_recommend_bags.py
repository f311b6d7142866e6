"""Recommendations by a VAE of bags: what is chosen together, for users seen, new and unknown, and new items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from pyarrow import parquet

from afresh.api import Model
from afresh.core.rng import Rng
from afresh.domains.interactions.recommend import Recommender
from afresh.faces.cli import run as command
from afresh.runs.run import Run

GROUPS, EACH, SIZE = 3, 8, 5  # groups of items, items of a group, items of a user


def log(file: Path, users: int, first: int = 0, more: Sequence[str] = ()) -> Path:
    """Every user chooses items of one group. `more`: items that are chosen with those of group 0 too."""
    rows = ["user,item"]
    for u in range(first, first + users):
        group = u % GROUPS
        items = [f"{'abc'[group]}{i}" for i in range(EACH)] + (list(more) if group == 0 else [])
        order = Rng(7).uniform("items", torch.tensor([u]), (len(items),))[0].argsort().tolist()
        rows += [f"u{u},{items[i]}" for i in order[: SIZE + 1]]
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join([*rows, ""]))
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    data = log(folder / "data" / "log.csv", 90)
    small = ["width=16", "latent=8", "cond=8", "components=2"]
    settings = [part for s in small for part in ("--set", f"family.{s}")]
    settings += ["--set", "train.batch=32", "--set", "train.lr=0.01", "--data", "split=last"]
    out = str(folder / "run")
    assert command(["train", str(data), "--family", "vae", "--steps", "150", "--out", out, *settings]) == 0
    return folder / "run"


def groups(recommender: Recommender, history: Sequence[str], k: int = 3) -> str:
    """The groups of the likeliest items that are not in the history, by the network alone."""
    row = recommender.encoder.ids(history)
    logs = recommender.log_probs([row], recommender.condition(1))[0].index_fill(0, torch.tensor(row).long(), -torch.inf)
    return "".join(recommender.catalogue.ids[i][0] for i in logs.topk(k).indices)


def test_what_goes_together_is_recommended_to_users_never_seen(run: Path) -> None:
    recommender = Recommender(Run.open(run))
    assert groups(recommender, ["a1", "a6"]) == "aaa"
    assert groups(recommender, ["b7"]) == "bbb"
    assert groups(recommender, ["c0", "c1", "c2", "c3"], 4) == "cccc"
    likely = recommender.log_probs([[]], recommender.condition(1))[0].exp()
    by_group = [float(sum(likely[i] for i, n in enumerate(recommender.catalogue.ids) if n[0] == g)) for g in "abc"]
    assert min(by_group) > 0.2  # of whom nothing is known


def test_it_is_measured_and_recommends_to_everybody_from_the_command_line(run: Path, tmp_path: Path) -> None:
    assert "HR@10" in (run / "report.json").read_text() and (run / "report.json").is_file()
    table = tmp_path / "lists.parquet"
    assert command(["recommend", str(run), "--all", "-k", "2", "--out", str(table)]) == 0
    rows = parquet.read_table(table).to_pylist()
    assert len(rows) == 180
    assert sum(r["item"][0] == "abc"[int(r["user"][1:]) % GROUPS] for r in rows) > 170


def test_samples_are_of_one_group_and_go_on_from_a_prompt(run: Path) -> None:
    model = Model(Run.open(run))
    drawn = model.sample(30, length=3).values
    assert sum(len({i[0] for i in h.items}) == 1 for h in drawn) > 20
    assert all(len(set(h.items)) == 3 for h in drawn)
    more = model.sample(10, prompt="b1,b2", length=2).values
    assert sum(i[0] == "b" for h in more for i in h.items[-2:]) > 15


def test_new_items_are_learnt_in_tuning(run: Path, tmp_path: Path) -> None:
    newer = log(tmp_path / "newer" / "log.csv", 90, 1_000, ["new1", "new2"])
    asked = ["--steps", "60", "--set", "train.batch=32", "--data", "split=last", "--no-measure"]
    assert command(["tune", str(run), str(newer), "--out", str(tmp_path / "run"), *asked]) == 0
    recommender = Recommender(Run.open(tmp_path / "run"))
    assert len(recommender.catalogue) == GROUPS * EACH + 2
    assert groups(recommender, ["c1", "c5"]) == "ccc"
    logs = recommender.log_probs([recommender.encoder.ids([h]) for h in ("a1", "b1")], recommender.condition(2))
    new = recommender.encoder.ids(["new1", "new2"])
    assert (logs[0, new] > logs[1, new] + 1).all()  # they go with group a
    assert set(groups(recommender, ["new1", "a2"])) <= {"a", "n"}
