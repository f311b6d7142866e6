"""What to measure next: read, proposed, written, filled in and read again, for molecules, texts and images."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import afresh
from afresh.core import UserError
from afresh.core.events import Event, listening
from afresh.domains.molecule.alerts import alerts
from afresh.domains.molecule.chem import canonical
from afresh.engine.alignment.surrogate.model import FEW, fit_surrogate
from afresh.verbs.candidates import VARIED, Pool, vary
from afresh.verbs.proposing import LEAST_CHANCE, remarks
from tests.engine.alignment.surrogate.test_model import POINT, points, truth

RINGS = ("c1ccccc1", "c1ccncc1", "C1CCNCC1", "c1ccoc1", "c1ccsc1")
ENDS = ("CO", "CN", "C(=O)N", "CC", "CC#N", "CF", "CS", "CCO", "CCl")
TINY = {"family.width": 16, "family.layers": 1, "family.heads": 2, "family.kv_heads": 2, "train.batch": 4}


def measured(rings: tuple[str, ...] = RINGS) -> list[tuple[str, float]]:
    return [(f"{r}{e}", len(e) * 0.3 + r.count("c") * 0.2) for r in rings for e in ENDS]


def write(path: Path, rows: list[tuple[Any, ...]], header: tuple[str, ...] = ("smiles", "logS")) -> Path:
    with path.open("w", newline="") as out:
        csv.writer(out).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> afresh.Model:
    folder = tmp_path_factory.mktemp("molecules")
    table = write(folder / "table.csv", list(measured()))
    return afresh.train(
        table, family="transformer", steps=2, out=folder / "run", data={"form": "selfies"}, settings=TINY, quiet=True
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_molecules_are_proposed_measured_and_proposed_again(model: afresh.Model, tmp_path: Path) -> None:
    known = write(tmp_path / "known.csv", list(measured()[:20]))
    first = model.propose(known, "logS", batch=5, budget=80, out=tmp_path / "one")
    assert len(first) == 5 and len({p.item for p in first}) == 5
    for p in first:
        assert canonical(p.item) == p.item and p.low < p.predicted < p.high and 0 <= p.chance <= 1
        assert p.item not in {canonical(s) for s, _ in measured()[:20]} and 0 <= p.similarity <= 1
        assert 1 <= p.facts["SA"] <= 10 and p.nearest in p.why
        alert = alerts([p.item])[0]
        assert p.why.endswith(f" Alert: {alert}.") if alert else "Alert" not in p.why
    files = {f.name for f in (tmp_path / "one").iterdir()}
    assert files == {"grid.png", "index.html", "plot.png"} | {
        f"proposals.{s}" for s in ("csv", "json", "png", "sdf", "smi")
    }
    table = rows_of(tmp_path / "one" / "proposals.csv")
    assert [r["item"] for r in table] == first.items and {r["logS"] for r in table} == {""}
    assert json.loads((tmp_path / "one" / "proposals.json").read_text())["proposals"][0]["id"] == first[0].name
    for i, row in enumerate(table[:4]):  # the last one is not measured
        row["logS"] = row["predicted"] if i else "99"
    write(tmp_path / "one" / "proposals.csv", [tuple(r.values()) for r in table], tuple(table[0]))
    second = model.propose([known, tmp_path / "one"], "logS", batch=5, budget=80, out=tmp_path / "two")
    assert second.past is not None and second.past.n == 4 and second.past.inside == 0.75
    assert second.measured == 24 and second.best == (first[0].item, 99.0)
    assert not {p.item for p in second} & set(first.items[:4])
    with pytest.raises(UserError, match="would be replaced"):
        model.propose([known, tmp_path / "one"], "logS", out=tmp_path / "one", force=True)
    with pytest.raises(UserError, match="exists"):
        model.propose(known, "logS", out=tmp_path / "two")


@pytest.mark.parametrize("acquisition", ["ei", "ucb", "thompson", "greedy"])
def test_a_list_is_ranked_by_what_is_wanted(acquisition: Any, model: afresh.Model, tmp_path: Path) -> None:
    known = write(tmp_path / "known.csv", list(measured()[::2]))
    listed = tmp_path / "list.smi"
    listed.write_text("".join(f"{s}\n" for s, _ in measured()))
    values = {canonical(s): v for s, v in measured()}

    def means(**goal: Any) -> float:
        batch = model.propose(known, "logS", batch=4, candidates=listed, acquisition=acquisition, **goal)
        assert not {p.item for p in batch} & {canonical(s) for s, _ in measured()[::2]}
        return sum(values[p.item] for p in batch) / 4

    high, low, middle = means(), means(maximise=False), means(target=1.5)
    assert high > middle > low


def test_a_batch_depends_on_the_order_of_the_values_alone(model: afresh.Model, tmp_path: Path) -> None:
    plain = model.propose(write(tmp_path / "plain.csv", list(measured())), "logS", batch=4, budget=80)
    skewed = write(tmp_path / "skewed.csv", [(s, 10**v) for s, v in measured()])
    assert set(model.propose(skewed, "logS", batch=4, budget=80).items) == set(plain.items)
    assert [r.chance for r in plain.rows] == sorted((r.chance for r in plain.rows), reverse=True)


@pytest.mark.parametrize("acquisition", ["ei", "ucb", "thompson", "greedy"])
def test_candidates_without_a_chance_are_proposed_only_if_too_few_have_one(
    acquisition: Any, model: afresh.Model, tmp_path: Path
) -> None:
    """Chance as it is listed: in the units of the numbers, though candidates are compared by their ranks."""
    rows = [(s, 10 ** (2 * v)) for s, v in measured()]
    known, listed = write(tmp_path / "known.csv", rows[::2]), tmp_path / "list.smi"
    for given in (rows[1::2], [r for r in rows[1::2] if r[1] < 300]):
        listed.write_text("".join(f"{s}\n" for s, _ in given))
        likely = [
            p.chance
            for p in model.propose(known, "logS", batch=len(given), candidates=listed)
            if p.chance >= LEAST_CHANCE
        ]
        for count in (2, len(likely), len(likely) + 3):
            said: list[Event] = []
            with listening(said.append):
                batch = model.propose(known, "logS", batch=count, candidates=listed, acquisition=acquisition)
            chances = [p.chance for p in batch]
            assert chances == sorted(chances, reverse=True) and len(chances) == min(count, len(given))
            assert sum(c >= LEAST_CHANCE for c in chances) == min(count, len(likely))
            warned = any("is chosen to learn. Raise" in e.text for e in said)
            assert warned == (len(likely) < len(chances))


def test_molecules_are_also_recombined(model: afresh.Model, tmp_path: Path) -> None:
    known = write(tmp_path / "known.csv", list(measured()))
    found = model.propose(known, "logS", batch=10, budget=41)
    made = int(re.search(r"(\d+) recombined from the best", found.pool)[1])  # type: ignore[index]
    assert "candidates of " in found.pool and 0 < made <= 10
    assert any(p.origin == "recombined from the best" for p in found)


def test_parents_that_the_run_cannot_write_cost_the_others_nothing(model: afresh.Model) -> None:
    """Neither bromine nor iodine is among what the run has learnt to write. With none that it can, nothing is added."""
    for parents, drawn in ((["BrI", "c1ccccc1CO"], 4), (["BrI"], 0)):
        pool = Pool(frozenset())
        vary(pool, model.run, 4, VARIED, parents, 0, {})
        assert pool.drawn == drawn and set(pool.origins) <= {VARIED}


def test_what_limits_the_trust_is_said_and_nothing_else() -> None:
    few, many = (fit_surrogate(POINT, points(n, 2), truth(points(n, 2)).tolist()) for n in (FEW - 1, 3 * FEW))
    noise = np.random.default_rng(3).standard_normal(60).tolist()
    useless = fit_surrogate(POINT, points(60, 2), noise)
    assert [line.split()[0] for line in remarks(few, FEW - 1)] == ["only"]
    assert remarks(many, 3 * FEW) == []
    assert remarks(many, 3 * FEW + 2)[0].startswith(f"2 of {3 * FEW + 2} values are of points measured before")
    assert ["no better than by their mean" in line for line in remarks(useless, 60)] == [True]


def test_rows_that_cannot_be_used_are_told_apart(model: afresh.Model, tmp_path: Path) -> None:
    rows = [*measured()[:12], ("c1ccc", 1.0), ("CCO", "nan"), ("CCN", ""), ("CCF", "inf"), ("CCCl", "<0.5"), ("", 2.0)]
    rows += [("CCCC", "1,5"), (measured()[0][0], 3.0)]
    known = write(tmp_path / "known.csv", rows)
    said: list[Event] = []
    with listening(said.append):
        found = model.propose(known, "logS", batch=2, budget=40)
    text = "\n".join(e.text for e in said)
    assert found.measured == 12
    for part in (
        "Ring",
        "2 of 20 rows have no logS",
        "not a finite number",
        "bound",
        "decimal point",
        "measured before",
    ):
        assert part.lower() in text.lower(), (part, text)


@pytest.mark.parametrize(
    ("rows", "column", "message"),
    [
        ([*measured()], "logs", "Did you mean 'logS'"),
        ([(s, 3.0) for s, _ in measured()], "logS", "nothing to learn"),
        ([measured()[0]], "logS", "needs 3 different"),
        ([(s, f"{v} {'nM' if i % 2 else 'uM'}") for i, (s, v) in enumerate(measured())], "logS", "several units"),
        ([(s, "high") for s, _ in measured()], "logS", "no numbers"),
    ],
)
def test_what_cannot_be_learnt_is_refused(
    rows: list[tuple[Any, ...]], column: str, message: str, model: afresh.Model, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        model.propose(write(tmp_path / "known.csv", rows), column)


def test_wrong_options_are_refused(model: afresh.Model, tmp_path: Path) -> None:
    known = write(tmp_path / "known.csv", list(measured()))
    with pytest.raises(UserError, match="`batch`"):
        model.propose(known, "logS", batch=0)
    with pytest.raises(UserError, match="`budget`"):
        model.propose(known, "logS", batch=20, budget=10)
    with pytest.raises(UserError, match="No column"):
        model.propose(known, "logS", item_column="molecule")
    listed = tmp_path / "list.smi"
    listed.write_text("".join(f"{s}\n" for s, _ in measured()))
    with pytest.raises(UserError, match="None of 45 candidates"):
        model.propose(known, "logS", candidates=listed)


def test_a_reward_is_asked_so_often_and_no_more(model: afresh.Model, tmp_path: Path) -> None:
    asked: list[str] = []

    def carbons(items: list[str]) -> list[float]:
        asked.extend(items)
        return [float(s.count("C") + s.count("c")) if len(asked) > 6 else 0.0 for s in items]

    found = model.propose(reward=carbons, calls=30, batch=6, budget=40, out=tmp_path / "out")
    assert len(asked) == len(set(asked)) == 30 and len(found) == 6 and found.searched
    rows = rows_of(tmp_path / "out" / "measured.csv")
    values = [float(r["carbons"]) for r in rows]
    assert len(rows) == 30 and values == sorted(values)[::-1] and found.best == (rows[0]["item"], values[0])
    again = model.propose(tmp_path / "out" / "measured.csv", "carbons", batch=2, budget=20)
    assert again.measured == 30
    with pytest.raises(UserError, match="leave `observed`"):
        model.propose(tmp_path / "out" / "measured.csv", "carbons", reward="qed")
    with pytest.raises(UserError, match="`calls`"):
        model.propose(reward="qed", calls=5)
    with pytest.raises(UserError, match="Say what was measured"):
        model.propose()
