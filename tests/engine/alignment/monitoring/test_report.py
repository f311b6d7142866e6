"""The alignment part of a report: the charts that the rows allow, the facts, and the alarms in words."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from afresh.core import UserError
from afresh.engine.alignment.monitoring.report import alignment
from afresh.engine.evaluation.report import Section, write_report

ALPHA, BETA = 0.3, 0.19


def gain(kl: float) -> float:
    """Gao et al. 2023 (arXiv:2210.10760) for reinforcement learning: d (alpha - beta log d), d = sqrt(KL)."""
    d = math.sqrt(kl)
    return d * (ALPHA - BETA * math.log(d)) if d else 0.0


def run(rows: int = 60, drop: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """A proxy that rises with the divergence, an held-out reward that goes by its law; measured every third row.

    It was last measured at 19.3 nats: 0.1 + 4.4 (0.3 - 0.19 log 4.4) = 0.182; most of all at 3.05 nats: 0.439.
    """
    out: list[dict[str, Any]] = []
    for i in range(rows):
        t = i / (rows - 1)
        row = {
            "reward": 0.2 + 0.2 * math.sqrt(20 * t),
            "kl": 20 * t,
            "kl_error": 0.1,
            "entropy": 2 - t,
            "length": 50 + 5 * t,
            "diversity": 1 - 0.3 * t,
            "flat": 0.2 + 0.1 * t,
            "clipped": 0.1,
        }
        if i % 3 == 0:
            row |= {"heldout_reward": 0.1 + gain(20 * t), "heldout_reward_error": 0.01 + 0.01 * t}
        out.append({"step": 10 * i, **{k: v for k, v in row.items() if k not in drop}})
    return out


def titles(rows: list[dict[str, Any]]) -> list[str]:
    found = alignment(rows)
    assert found is not None
    return [c.title for c in found.curves]


ALL = [
    "Reward against divergence",
    "Held-out reward against divergence",
    "Reward against diversity",
    "Reward",
    "Held-out reward",
    "Divergence from the reference",
    "Entropy",
    "Length",
    "Shares",
]


def test_every_figure_of_a_whole_run() -> None:
    assert titles(run()) == ALL


@pytest.mark.parametrize(
    "drop, gone",
    [
        (("kl",), {"Reward against divergence", "Held-out reward against divergence", "Divergence from the reference"}),
        (("heldout_reward",), {"Held-out reward against divergence", "Held-out reward"}),
        (("diversity",), {"Reward against diversity"}),
        (("entropy", "length"), {"Entropy", "Length"}),
        (("diversity", "flat", "clipped"), {"Reward against diversity", "Shares"}),
        (("heldout_reward_error", "kl_error"), set()),
    ],
)
def test_what_is_not_logged_leaves_its_figures_out(drop: tuple[str, ...], gone: set[str]) -> None:
    assert titles(run(drop=drop)) == [t for t in ALL if t not in gone]


def test_a_run_that_is_not_aligned_has_no_such_part() -> None:
    """The divergence of a VAE's latents is also called kl."""
    assert alignment([{"step": i, "loss": 1.0, "kl": 50.0} for i in range(9)]) is None
    assert alignment([]) is None
    assert alignment([{"step": 0, "reward": math.nan}]) is None


def test_alarms_and_the_reason_to_stop_are_sentences_that_say_what_to_do() -> None:
    found = alignment(run())
    assert found is not None
    text = " ".join(found.notes)
    assert "divergence from the reference is 20 nats; the limit is 10" in text  # the last row's
    assert "at step 90" in found.json["stop"] and found.json["stop"] in found.notes  # of 0, 30, ...: at 3.05 nats
    assert "more than 3 standard errors" in found.json["stop"]  # as the course says while it learns
    assert [a["name"] for a in found.json["alarms"]][:2] == ["kl", "over-optimisation"]
    lenient = alignment(run(), distance=20.0)
    assert lenient is not None and "kl" not in [a["name"] for a in lenient.json["alarms"]]
    assert ("held-out reward", "0.1 → 0.1821, at most 0.4389 (step 90)") in lenient.facts


def test_a_run_on_preferences() -> None:
    rows = [{"step": i, "accuracy": 0.5 + 0.01 * i, "margin": 0.1 * i, "loss": 0.7 - 0.01 * i} for i in range(20)]
    found = alignment(rows)
    assert found is not None and [c.title for c in found.curves] == ["Shares", "Margin"]
    assert found.facts[0] == ("pairs in the right order", "0.5 → 0.69") and found.notes == []
    assert found.facts[1][0] == "nats from the reference" and str(found.facts[1][1]).startswith("not known")


def test_the_headline_is_that_of_the_last_look() -> None:
    """At 0 and 8 there were looks, every row has the reward of its batch; the collapse came at the end."""
    rows: list[dict[str, Any]] = [{"step": i, "reward": 0.5, "kl": 1.0, "gap": 0.01} for i in range(1, 9)]
    look = {"diversity": 0.6, "data_similarity": 0.9, "kl_error": 0.5}
    rows = [{"step": 0, **look, "reward": 0.4, "kl": 0.0}, *rows]
    rows += [{"step": 8, **look, "reward": 0.984, "kl": 58.9, "diversity": 0.2, "data_similarity": 0.3}]
    found = alignment(rows)
    assert found is not None
    facts = dict(found.facts)
    assert facts["reward"] == "0.4 → 0.984" and facts["nats from the reference"] == "0 → 58.9 ± 0.5"
    assert facts["diversity"] == "0.6 → 0.2" and facts["similarity to the data"] == "0.9 → 0.3"
    charts = {c.title: c for c in found.curves}
    (line,) = charts["Reward against diversity"].lines.values()
    assert list(line) == [(0.6, 0.4), (0.2, 0.984)]  # from the beginning to the end, not by diversity
    assert list(charts["Difference of trainer and sampler"].lines) == ["gap"]
    assert list(charts["Divergence from the reference"].lines) == ["kl", "its standard error"]


def test_where_no_divergence_is_known_the_way_from_the_base_is_told() -> None:
    rows = [
        {"step": i, "reward": 0.1 * i, "distance_from_base": 0.2 * i, "diversity": 0.5, "vae/kl": 40.0}
        for i in range(4)
    ]
    found = alignment(rows)
    assert found is not None and dict(found.facts)["distance from the base's samples"] == "0 → 0.6"
    assert str(dict(found.facts)["nats from the reference"]).startswith("not known")
    assert found.json["alarms"] == []  # 40 nats of latents are no divergence
    assert "Distance from the base's samples from the same noise" in [c.title for c in found.curves]


def test_noisy_clouds_are_drawn_by_means_and_say_so() -> None:
    found = alignment(run(rows=481))
    assert found is not None
    (chart,) = [c for c in found.curves if c.title == "Reward against divergence"]
    assert len(chart.lines["reward, means of 21 rows"]) == 23


def test_it_fits_into_a_report(tmp_path: Path) -> None:
    rows = run()
    rows[7]["kl"] = math.inf
    found = alignment(rows)
    assert found is not None
    section = Section("s", facts=found.facts, curves=found.curves[1:2], notes=found.notes)
    path = write_report(tmp_path / "report.html", "t", [section])
    page = path.read_text("utf-8")
    for words in ("Held-out reward against divergence", "the limit is 10"):
        assert words in page
    assert json.loads(path.with_suffix(".json").read_text())["sections"][0]["notes"] == found.notes
    json.dumps(found.json, allow_nan=False)


def test_rows_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(UserError, match="Row 1"):
        alignment([{"reward": 1.0}])
