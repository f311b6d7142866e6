"""Tables of what was measured: every row is used or said not to be, and columns are found."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from afresh.core import UserError
from afresh.data.image.kind import IMAGE
from afresh.data.measurements import columns_of_numbers, read_observed
from afresh.data.text.kind import TEXT
from afresh.domains.molecule.kind import MOLECULE


def put(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_columns_are_found_by_name_or_by_what_they_hold(tmp_path: Path) -> None:
    table = put(tmp_path / "a.csv", "name,structure,logS,year\naspirin,OC(=O)C,1,2001\nwater,OCC,-2,2002\n")
    found = read_observed([table], MOLECULE, "logS")
    assert [(r.item, r.value) for r in found.rows] == [("CC(=O)O", 1.0), ("CCO", -2.0)]
    assert columns_of_numbers(table) == ["logS", "year"]
    with pytest.raises(UserError, match=r"No column of .* holds molecules"):
        read_observed([put(tmp_path / "b.csv", "name,logS\naspirin,1\n")], MOLECULE, "logS")
    with pytest.raises(UserError, match="Did you mean 'logS'"):
        read_observed([table], MOLECULE, "logs")
    with pytest.raises(UserError, match="not a table"):
        read_observed([put(tmp_path / "c.smi", "CCO\n")], MOLECULE, "logS")
    with pytest.raises(UserError, match="has no column 'smile'"):
        read_observed([table], MOLECULE, "logS", "smile")


def test_other_forms_of_tables_are_read_alike(tmp_path: Path) -> None:
    rows = [{"text": "a cat", "liked": 1.5}, {"text": "a dog", "liked": None}]
    lines = "".join(json.dumps(r) + "\n" for r in rows)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.jsonl.gz", "a.parquet"):
        found = read_observed([tmp_path / name], TEXT, "liked")
        assert [(r.item, r.value) for r in found.measured] == [("a cat", 1.5)] and len(found.rows) == 2
        assert any("1 of 2 rows have no liked" in n for n in found.notes)


@pytest.mark.parametrize(
    ("cell", "why"),
    [("<3", "bound"), ("inf", "finite"), ("3.5 mg", "has a unit"), ("yes", "finite")],
)
def test_values_that_are_no_numbers_are_refused_by_row(cell: str, why: str, tmp_path: Path) -> None:
    good = "".join(f"{'C' * n}O,{n}\n" for n in range(1, 9))
    found = read_observed([put(tmp_path / "a.csv", f"smiles,x\n{good}CCN,{cell}\n")], MOLECULE, "x")
    assert len(found.measured) == 8 and len(found.refused) == 1
    assert found.refused[0].source == "a.csv, row 9" and why in found.refused[0].reason


def test_decimal_commas_are_read_and_said(tmp_path: Path) -> None:
    found = read_observed([put(tmp_path / "a.csv", "smiles;x\nCO;1,5\nCCO;-2,25\nCCCO;3\n")], MOLECULE, "x")
    assert [r.value for r in found.measured] == [1.5, -2.25, 3.0] and any("decimal commas" in n for n in found.notes)


def test_one_unit_is_taken_and_several_are_refused(tmp_path: Path) -> None:
    found = read_observed([put(tmp_path / "a.csv", "smiles,x\nCO,3 nM\nCCO,4.5 nM\n")], MOLECULE, "x")
    assert [r.value for r in found.rows] == [3.0, 4.5] and any("nM" in n for n in found.notes)
    with pytest.raises(UserError, match="several units: nM, uM"):
        read_observed([put(tmp_path / "b.csv", "smiles,x\nCO,3 nM\nCCO,4.5 uM\n")], MOLECULE, "x")
    with pytest.raises(UserError, match="several units: nM and none"):
        read_observed([put(tmp_path / "c.csv", "smiles,x\nCO,3 nM\nCCO,4.5\n")], MOLECULE, "x")


def test_tables_of_other_sizes_are_questioned(tmp_path: Path) -> None:
    one = put(tmp_path / "a.csv", "smiles,x\nCO,1\nCCO,2\nCCCO,3\n")
    two = put(tmp_path / "b.csv", "smiles,x\nCN,1000\nCCN,2000\nCCCN,3000\n")
    assert any("same units" in n for n in read_observed([one, two], MOLECULE, "x").notes)
    assert not any("same units" in n for n in read_observed([one, one], MOLECULE, "x").notes)


def test_results_may_name_proposals_by_their_ids(tmp_path: Path) -> None:
    folder = tmp_path / "round1"
    folder.mkdir()
    put(folder / "proposals.csv", "id,item,x,predicted,low,high\nab12,CO,,1,0,2\ncd34,CCO,,2,1,3\n")
    results = put(tmp_path / "results.csv", "id,x\nab12,1.5\nother,7\n")
    found = read_observed([results, folder], MOLECULE, "x")
    assert [(r.item, r.value) for r in found.measured] == [("CO", 1.5)]
    assert [r.source for r in found.refused] == ["results.csv, row 2"]
    again = put(tmp_path / "twice.csv", "id,smiles,x\nA,CO,1\nA,CCO,2\n")
    assert any("1 identifier" in n for n in read_observed([again], MOLECULE, "x").notes)


def test_files_are_named_with_or_without_their_suffix(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.full((4, 4), 9, np.uint8)).save(tmp_path / f"{name}.png")
    found = read_observed([put(tmp_path / "x.csv", "id,x\na,1\nb.png,2\nc,3\n")], IMAGE, "x")
    assert [r.value for r in found.measured] == [1.0, 2.0] and found.rows[0].item.shape == (4, 4, 1)
    assert "there is no file c" in found.refused[0].reason
