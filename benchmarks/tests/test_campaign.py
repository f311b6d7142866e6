"""Campaigns on a list whose values add up of parts: what is learnt beats chance, and rows are not run twice."""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

from afresh.core.events import ignore, listening
from benchmarks.molecules.campaign import campaigns


def test_what_is_learnt_beats_chance(tmp_path: Path) -> None:
    ends, middles = ("C", "N", "O", "F", "Cl"), ("CC", "c1ccccc1", "C(=O)", "CCC", "C1CCCC1")
    source = tmp_path / "molecules.smi"
    parts = product(ends[:3], middles, middles, ends)
    source.write_text("".join(f"{a}{b.replace('1ccccc1', '1ccc(cc1)')}{c}{d}\n" for a, b, c, d in parts if b != c))
    options = argparse.Namespace(
        source=str(source), rewards=["logp"], methods="ei,random", seeds=1, rounds=3, batch=6, budget=0
    )
    with listening(ignore):
        rows = list(campaigns(options, []))
        assert [r["method"] for r in rows] == ["ei", "random"] and rows[0]["inside"][1] == 18
        assert rows[0]["top"][0] == rows[1]["top"][0] and rows[0]["top"][-1] > rows[1]["top"][-1]
        assert list(campaigns(options, rows)) == rows
