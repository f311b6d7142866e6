"""Files of molecules: formats, columns, standards, and bad input, of which nothing is lost without a word."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from afresh.core import Corpus, UserError
from afresh.data.prepare import prepare
from afresh.domains.molecule.chem import canonical, reason_of
from afresh.domains.molecule.modality import MODALITY, MoleculeOptions

SMILES = ["CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "C1CCCCC1N", "O=C(N)c1cccnc1", "CCN"]


def read(path: Path, **options: object) -> Corpus:
    return MODALITY.read(path, MoleculeOptions(**options))


def table(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_every_format_gives_the_same_molecules(tmp_path: Path) -> None:
    from rdkit import Chem

    (tmp_path / "a.smi").write_text("smiles name\n" + "".join(f"{s}\tm{i}\n" for i, s in enumerate(SMILES)))
    table(tmp_path / "a.csv", "id,SMILES", [f"{i},{s}" for i, s in enumerate(SMILES)])
    pq.write_table(pa.table({"SMILES": SMILES}), tmp_path / "a.parquet")
    blocks = [Chem.MolToMolBlock(Chem.MolFromSmiles(s)) + ">  <pIC50>\n6.5\n\n$$$$\n" for s in SMILES]
    (tmp_path / "a.sdf").write_text("".join(blocks))
    found = {f.name: read(f) for f in sorted(tmp_path.iterdir())}
    values = [[i.value for i in corpus.items] for corpus in found.values()]
    assert all(v == values[0] for v in values) and len(values[0]) == 6
    assert found["a.sdf"].items[0].numbers == {"pIC50": 6.5}
    assert "NC1CCCCC1" in values[0]  # canonical


def test_columns_of_numbers_are_found_and_shown(tmp_path: Path) -> None:
    rows = [f"{i},{s},{i * 0.3},{'' if i == 1 else i % 2 + 0.5},batch {i % 2}" for i, s in enumerate(SMILES)]
    corpus = read(table(tmp_path / "x.csv", "id,smiles,logS,IC50 (nM),note", rows))
    assert corpus.items[2].numbers == pytest.approx({"logS": 0.6, "IC50__nM_": 0.5})
    said = "\n".join(corpus.notes)
    assert "the SMILES are column 'smiles'" in said and "'id' is not learnt: it numbers the rows" in said
    assert "'note' is not learnt: it is text" in said and "IC50__nM_ is missing for 1 of 6" in said
    assert set(read(tmp_path / "x.csv", numbers=("logS",)).items[2].numbers) == {"logS"}
    with pytest.raises(UserError, match=r"No column 'pKa'.*logS"):
        read(tmp_path / "x.csv", numbers=("pKa",))
    with pytest.raises(UserError, match=r"has no column 'mol'"):
        read(tmp_path / "x.csv", smiles_column="mol")


def test_properties_are_computed_on_request(tmp_path: Path) -> None:
    from rdkit import Chem
    from rdkit.Chem import Crippen

    file = tmp_path / "x.smi"
    file.write_text("\n".join(SMILES))
    item = read(file, properties=("logP", "QED", "weight", "SA")).items[1]
    assert item.numbers["logP"] == pytest.approx(Crippen.MolLogP(Chem.MolFromSmiles("c1ccccc1O")))
    assert 0 < item.numbers["QED"] < 1 < item.numbers["SA"] < 10 and item.numbers["weight"] == pytest.approx(
        94.11, 0.01
    )


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, "C[C@H]([13CH3])[NH3+].[Cl-]"),
        ({"mixtures": "largest"}, "C[C@H]([13CH3])[NH3+]"),
        ({"mixtures": "largest", "neutralise": True}, "C[C@H]([13CH3])N"),
        ({"stereo": False}, "CC([13CH3])[NH3+].[Cl-]"),
        ({"isotopes": False, "mixtures": "largest", "neutralise": True}, "CC(C)N"),
    ],
)
def test_standards_are_kept_or_applied_by_a_stated_choice(
    options: dict[str, object], value: str, tmp_path: Path
) -> None:
    from afresh.domains.molecule.chem import canonical

    file = tmp_path / "x.smi"
    file.write_text("C[C@H]([13CH3])[NH3+].[Cl-]\nCCO\n")
    corpus = read(file, **options)
    assert corpus.items[0].value == canonical(value)
    said = "\n".join(corpus.notes)
    assert all(
        f"1 of 2 molecules have {t}" in said for t in ("mixtures or salts", "charged atoms", "stereo", "isotopes")
    )
    refused = read(file, mixtures="refuse")
    assert len(refused.items) == 1 and "a mixture or a salt" in refused.refused[0].reason


def test_bad_rows_are_refused_one_by_one_and_counted(tmp_path: Path) -> None:
    bad = ["c1ccccc", "C(C)(C)(C)(C)C", "CC>>CO", "*CC*", "C" * 100_000, "", "n1cccc1", "hello"]
    corpus = read(table(tmp_path / "x.csv", "smiles,y", [f"{s},1.{i}" for i, s in enumerate([*bad, *SMILES])]))
    assert len(corpus.items) == 6 and len(corpus.refused) == len(bad)
    assert [r.source for r in corpus.refused] == [f"x.csv, row {i + 1}" for i in range(len(bad))]
    assert all(r.reason for r in corpus.refused)
    damaged = tmp_path / "x.sdf"
    damaged.write_text("nothing\n\n\nat all\n$$$$\n")
    with pytest.raises(UserError, match="No usable molecule"):
        read(damaged)


def test_what_was_refused_is_listed_where_too_few_are_left(tmp_path: Path) -> None:
    file, other = tmp_path / "few.smi", tmp_path / "other.smi"
    file.write_text("Oc1ccccc1\nC(C)(C)(C)(C)C\nc1cccc1\n")
    with pytest.raises(UserError, match=r"Only one distinct item(.|\n)*valence(.|\n)*kekulize"):
        prepare(file, "molecule")
    other.write_text("CCO>>CC=O\n")
    file.write_text("CCO\nCCN\n")
    with pytest.raises(UserError, match=r"(No usable molecule|validation)(.|\n)*a reaction"):
        prepare(file, "molecule", validation=other)


def test_mixed_units_and_constants_and_duplicates_are_said(tmp_path: Path) -> None:
    rows = [f"cmp1,{s},{i}.5 {'nM' if i % 2 else 'uM'},7.0" for i, s in enumerate([*SMILES, "OCC"])]
    file = table(tmp_path / "x.csv", "name,smiles,IC50,dose", rows)
    corpus = read(file)
    said = "\n".join(corpus.notes)
    assert "'IC50' has numbers with units (uM, nM)" in said and "identifiers, 1 of them repeated" in said
    with pytest.raises(UserError, match="units"):
        read(file, numbers=("IC50",))
    prepared = prepare(file, "molecule")
    assert len(prepared.duplicates) == 1 and "dose is left out: every item has 7" in "\n".join(prepared.notes)


def test_one_molecule_is_too_few(tmp_path: Path) -> None:
    (tmp_path / "x.smi").write_text("CCO\nOCC\n")
    with pytest.raises(UserError, match="Only one distinct item"):
        prepare(tmp_path / "x.smi", "molecule")


def test_a_scaffold_stays_on_one_side(tmp_path: Path) -> None:
    rings = ["c1ccccc1", "c1ccncc1", "C1CCCCC1", "c1ccoc1", "c1ccsc1", "C1CCNC1", "C1CCOC1", "c1cncnc1"]
    ends = [f"{'C' * n}{end}" for n in range(1, 5) for end in ("O", "N", "F")]
    (tmp_path / "x.smi").write_text("\n".join(f"{end[::-1]}{ring}" for ring in rings for end in ends))
    prepared = prepare(tmp_path / "x.smi", "molecule", {"split": "scaffold"})
    sides = [{i.group for i in side} for side in (prepared.train_items, prepared.heldout_items)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert all(len([i for i in prepared.heldout_items if i.group == g]) == len(ends) for g in sides[1])


def test_enantiomers_stay_on_one_side(tmp_path: Path) -> None:
    """A molecule and its mirror image have one scaffold, also where the centres are in its rings."""
    sizes = [(one, other) for one in range(1, 5) for other in range(2, 6)]
    made = [f"{a}1[C@@H]2{'C' * one}N[C@H]2{'C' * other}1" for one, other in sizes for a in "CO"]
    pairs = [(canonical(s), canonical(s.replace("@@", "?").replace("@", "@@").replace("?", "@"))) for s in made]
    (tmp_path / "x.smi").write_text("\n".join(str(smiles) for pair in pairs for smiles in pair))
    prepared = prepare(tmp_path / "x.smi", "molecule", {"split": "scaffold"})
    side = {i.value: k for k, part in enumerate((prepared.train_items, prepared.heldout_items)) for i in part}
    assert len(side) == 2 * len(pairs) and set(side.values()) == {0, 1}
    assert all(one != other and side[one] == side[other] for one, other in pairs)


def test_a_table_without_smiles_names_its_columns(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds SMILES.*name, value.*data.smiles_column"):
        read(table(tmp_path / "x.csv", "name,value", ["aspirin tablet,1", "some water,2"]))
    with pytest.raises(UserError, match="several columns of SMILES"):
        read(table(tmp_path / "y.csv", "a_smiles,b_smiles", ["CCO,CCN"]))


def test_the_log_of_rdkit_stays_off_after_it_was_asked_for_a_reason(capfd: pytest.CaptureFixture[str]) -> None:
    assert reason_of("c1ccc") == "unclosed ring"
    assert canonical("c1ccc") is None
    assert capfd.readouterr().err == ""
