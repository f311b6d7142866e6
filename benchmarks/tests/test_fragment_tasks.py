"""Fragment tasks are counted as the published code counts them."""

from __future__ import annotations

import pytest

pytest.importorskip("rdkit")

from afresh.domains.molecule.chem import chem
from benchmarks.molecules.fragment_tasks import DRUGS, TASKS, scores


def test_every_drug_has_a_part_for_each_task() -> None:
    for drug in DRUGS.values():
        found = chem().MolFromSmiles(drug)
        points = {task: cut(found).count("*") for task, cut in TASKS.items()}
        assert points["motif extension"] == 1 and points["linker design"] == 2 and points["superstructure"] == 0
        assert points["scaffold decoration"] >= 1


def test_the_largest_piece_counts_and_points_may_stay_unused() -> None:
    part = "*c1ccc(*)cc1"
    drawn = ["CCc1ccc(F)cc1", "CCc1ccccc1", "c1ccccc1.CCCCCCCCC", "no molecule"]
    assert scores(drawn, part) == pytest.approx({"valid": 50, "unique": 100, "quality": 0, "attached": 25})
    twice = scores([drawn[0]] * 4, part)
    assert twice["valid"] == 100 and twice["unique"] == 25
