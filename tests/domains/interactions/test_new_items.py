"""Recommendations of items that nobody chose yet: each as likely as the items that are most alike."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest

from afresh.core import Item, UserError
from afresh.domains.interactions.encoder import load_histories
from afresh.domains.interactions.history import History
from afresh.domains.interactions.modality import InteractionOptions
from afresh.domains.interactions.recommend import Ranking, Recommender
from afresh.faces.cli import run as command
from afresh.runs.run import Run

KINDS = ("chair", "table", "lamp", "rug")
SIZES = ["width=32", "layers=1", "heads=2", "kv_heads=2", "dropout=0"]


def kind(item: int) -> str:
    return KINDS[item // 5]


def write(folder: Path, items: dict[str, str], users: range) -> Path:
    """A log of users who choose an item of one kind after the other, and a table of all items."""
    folder.mkdir()
    rows = ["user,item"]
    for u in users:
        any_of = Random(u)
        rows += [f"u{u},i{(u + e) % 4 * 5 + any_of.randrange(5)}" for e in range(5 + u % 3)]
    (folder / "log.csv").write_text("\n".join([*rows, ""]))
    described = {f"i{i}": kind(i) for i in range(20)} | items
    (folder / "items.csv").write_text("\n".join(["item,kind", *(f"{i},{k}" for i, k in described.items()), ""]))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an item `new`, a lamp that nobody chose."""
    folder = tmp_path_factory.mktemp("shop")
    data = write(folder / "data", {"new": "lamp"}, range(60))
    settings = [part for s in SIZES for part in ("--set", f"family.{s}")]
    settings += ["--set", "train.batch=16", "--set", "train.lr=0.01", "--data", "new_items=true"]
    asked = ["train", str(data), "--steps", "120", "--out", str(folder / "run"), "--no-measure", *settings]
    assert command(asked) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def recommender(run: Path) -> Recommender:
    return Recommender(Run.open(run))


def of_network(recommender: Recommender, history: list[str]) -> dict[str, float]:
    p = recommender.log_probs([recommender.encoder.ids(history)], recommender.condition(1))[0].exp()
    return dict(zip(recommender.catalogue.ids, p.tolist(), strict=True))


def test_an_item_that_nobody_chose_is_as_likely_as_the_mean_of_those_that_are_alike(recommender: Recommender) -> None:
    p = of_network(recommender, ["i0", "i6"])  # a chair and a table, after which comes a lamp
    assert math.fsum(p.values()) == pytest.approx(1, abs=1e-4)
    lamps = [f"i{i}" for i in range(10, 15)]
    assert p["new"] + math.fsum(p[i] for i in lamps) > 0.6
    assert p["new"] == pytest.approx(np.mean([p[i] for i in lamps]), rel=1e-4)
    # The tables that are counted from histories know nothing of it, and take what they know of other lamps.
    assert "new" in [r.item for r in recommender.recommend([["i0", "i6"]], Ranking(6))[0]]
    assert of_network(recommender, ["i10"])["new"] < 0.01  # after a lamp comes a rug


def test_lists_filters_and_reasons_are_those_of_other_runs(
    run: Path, recommender: Recommender, capsys: pytest.CaptureFixture[str]
) -> None:
    found = recommender.recommend([["i0", "i6"], []], Ranking(21, seen=True))
    assert len(found[0]) == 21 and math.fsum(r.probability for r in found[0]) == pytest.approx(1, abs=1e-4)
    assert {"network", "popularity", "alike, floor 10"} <= set(recommender.blend.weights)
    lamps = recommender.recommend([["i0"]], Ranking(9, where={"kind": "lamp"}, because=1))[0]
    assert {r.item for r in lamps} == {"i10", "i11", "i12", "i13", "i14", "new"}
    assert command(["recommend", str(run), "--history", "i0,new", "-k", "3", "--because", "1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["lists"][0]["items"]) == 3


def test_of_a_history_the_network_reads_the_most_alike_item_for_one_that_nobody_chose(recommender: Recommender) -> None:
    lamp = lamp_most_alike(recommender)
    assert of_network(recommender, ["i3", "new"]) == of_network(recommender, ["i3", lamp])


def test_the_network_reads_chosen_items_alone(recommender: Recommender) -> None:
    encoder, index = recommender.encoder, recommender.catalogue.index
    found = encoder.encode([Item(History("", ("i0", "new", "i6"), context=1))])
    assert found.x.tolist() == [encoder.end, index["i0"], index["i6"]]
    assert found.mask is not None and found.mask.tolist() == [False, False, True]
    assert encoder.beginnings("i0,new")[0].tolist() == [index["i0"], index[lamp_most_alike(recommender)]]


def lamp_most_alike(recommender: Recommender) -> str:
    """Of items that are equally alike, the one that more users chose."""
    return next(i for i in recommender.catalogue.ids if i != "new" and kind(int(i[1:])) == "lamp")


def test_such_a_run_is_measured_and_continues_histories(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["measure", str(run), "--json"]) == 0
    metrics = {m["name"]: m for m in json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]}
    assert metrics["NDCG@10"]["value"] > 0.3
    assert command(["sample", str(run), "-n", "4", "--prompt", "i0,new", "--json"]) == 0
    drawn = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(drawn["samples"]) == 4 and all(s["prompt"] == "i0,new" for s in drawn["samples"])


def test_tuning_adds_new_items_which_need_no_history(run: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data", {"newer": "rug"}, range(40))
    asked = ["--steps", "2", "--no-measure", "--out", str(tmp_path / "run")]
    assert command(["tune", str(run), str(data), *asked]) == 0
    base, tuned = Recommender(Run.open(run)), Recommender(Run.open(tmp_path / "run"))
    assert tuned.catalogue.ids == (*base.catalogue.ids, "newer")
    rows = tuned.encoder.first_rows(base.encoder)
    lamps = {base.catalogue.index[f"i{i}"] for i in range(10, 15)}
    assert set(rows[base.catalogue.index["new"]]) == lamps and all(rows[i] == [i] for i in range(20))
    p = of_network(tuned, ["i6", "i12"])
    assert p["newer"] > 0.02 > of_network(tuned, ["i0"])["newer"]


def test_without_the_option_only_chosen_items_are_recommended(tmp_path: Path) -> None:
    data = write(tmp_path / "data", {"new": "lamp"}, range(20))
    asked = ["train", str(data), "--steps", "2", "--no-measure", "--out", str(tmp_path / "run")]
    assert command([*asked, "--family", "masked", "--set", "family.width=32", "--set", "family.heads=2"]) == 0
    assert "new" not in Recommender(Run.open(tmp_path / "run")).catalogue.index


@pytest.mark.parametrize("family", ["masked", "vae"])
def test_other_families_recommend_new_items_too(family: str, tmp_path: Path) -> None:
    data = write(tmp_path / "data", {"new": "lamp"}, range(20))
    asked = ["train", str(data), "--steps", "2", "--no-measure", "--out", str(tmp_path / "run"), "--family", family]
    assert command([*asked, "--data", "new_items=true"]) == 0
    made = Recommender(Run.open(tmp_path / "run"))
    p = of_network(made, ["i0", "i6"])
    assert p["new"] == pytest.approx(np.mean([p[f"i{i}"] for i in range(10, 15)]), rel=1e-4)


def test_what_is_lacking_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "data", {}, range(20))
    (data / "items.csv").unlink()
    asked = ["train", str(data), "--steps", "2", "--no-measure", "--out", str(tmp_path / "run"), "--data"]
    assert command([*asked, "new_items=true"]) == 2
    assert "Put a table beside it" in capsys.readouterr().err
    for wrong, said in (("codes=3", "new_items=true"), ("texts=minilm", "there is no texts")):
        assert command([*asked, wrong]) == 2
        assert said in capsys.readouterr().err
    assert InteractionOptions(codes=None, texts="auto") == InteractionOptions()  # as earlier runs record them


def test_a_run_with_codes_of_items_is_refused_with_what_to_use_instead(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(run / "encoder", folder)
    saved = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps(saved | {"codes": 3}))
    with pytest.raises(UserError, match=r"Train the run again with `data.new_items=true`"):
        load_histories(folder)
