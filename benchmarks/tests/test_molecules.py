"""The benchmark of molecules: its reference, and how a set compares with itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rdkit")
pytest.importorskip("fcd_torch")

from afresh.domains.molecule.metrics import Molecules
from benchmarks.molecules.moses import Reference, distances, scores

MOLECULES = [f"{'C' * n}{end}" for n in range(1, 9) for end in ("O", "N", "c1ccccc1", "C(=O)O", "c1ccccc1C1CCCCC1")]


def test_what_is_stored_of_test_molecules_is_what_was_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFRESH_BENCH", str(tmp_path))
    computed, first, again = (
        Reference.of(Molecules(MOLECULES)),
        Reference.of_test(MOLECULES),
        Reference.of_test(MOLECULES),
    )
    for stored in (first, again):
        np.testing.assert_array_equal(stored.activations, computed.activations)
        np.testing.assert_array_equal(stored.fingerprints, computed.fingerprints)
        assert stored.fragments == computed.fragments
        assert stored.scaffolds == computed.scaffolds
        for name, values in computed.numbers.items():
            np.testing.assert_array_equal(stored.numbers[name], values)
    assert len(list((tmp_path / "moses").iterdir())) == 2


def test_a_set_is_at_no_distance_from_itself() -> None:
    found = Reference.of(Molecules(MOLECULES))
    apart = distances(found, found)
    assert apart["FCD/Test"] == pytest.approx(0, abs=1e-6)
    assert apart["SNN/Test"] == apart["Frag/Test"] == apart["Scaf/Test"] == pytest.approx(1)
    assert apart["logP"] == apart["weight"] == 0


def test_novelty_is_against_all_training_molecules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFRESH_BENCH", str(tmp_path))
    known, samples = MOLECULES[:30], [*MOLECULES[:10], "not a molecule", *MOLECULES[30:]]
    found = scores(samples, MOLECULES, known)
    assert found["valid"] == 20 / 21
    assert found["Novelty"] == 0.5
    assert set(found["real"]) <= set(found)
