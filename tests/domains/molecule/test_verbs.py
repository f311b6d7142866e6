"""Runs on molecules: drawn, valid by choice, built on a part, written, and tuned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import afresh
from afresh.core import UserError
from afresh.domains.molecule.chem import canonical
from afresh.domains.molecule.kind import draw
from afresh.domains.molecule.modality import MODALITY, MoleculeOptions
from afresh.domains.molecule.parts import contains
from afresh.faces.cli import run as command
from afresh.verbs.creation_request import CreationRequest, first_line, form_of, make
from afresh.verbs.gallery import title_of

RINGS = ("c1ccccc1", "c1ccncc1", "C1CCNCC1", "c1ccoc1", "c1ccsc1")
ENDS = ("CO", "CN", "C(=O)N", "CC", "CC#N", "CF", "CS", "CCO", "CCl")
TINY = {"family.width": 16, "family.layers": 1, "family.heads": 2, "train.batch": 4}


def trained(folder: Path, family: str = "transformer", **data: object) -> afresh.Model:
    rows = [f"{ring}{end},{i * 0.1 + j}" for i, ring in enumerate(RINGS) for j, end in enumerate(ENDS)]
    (folder / "table.csv").write_text("smiles,logS\n" + "\n".join(rows) + "\n")
    own = TINY | ({"family.kv_heads": 2} if family == "transformer" else {})
    return afresh.train(
        folder / "table.csv", family=family, steps=2, out=folder / "run", data=data, settings=own, quiet=True
    )


def test_valid_molecules_are_drawn_and_written(tmp_path: Path) -> None:
    model = trained(tmp_path, form="selfies")
    samples = model.sample(6, number={"logS": 1.0}, valid=True)
    assert all(canonical(s) == s for s in samples) and len(samples) == 6
    assert list(samples) == list(model.sample(6, number={"logS": 1.0}, valid=True))
    records = samples.save(tmp_path / "out")
    assert [r["text"] for r in records] == list(samples) and records[0]["logS"] == pytest.approx(1.0)
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == [
        "grid.png",
        "samples.jsonl",
        "samples.sdf",
        "samples.smi",
    ]
    lines = (tmp_path / "out" / "samples.smi").read_text().splitlines()
    assert [line.split()[0] for line in lines] == list(samples)
    back = MODALITY.read(tmp_path / "out" / "samples.sdf", MoleculeOptions())
    assert {i.value for i in back.items} == set(samples)
    assert back.items[0].numbers["logS"] == pytest.approx(1.0) and "QED" in back.items[0].numbers
    with Image.open(tmp_path / "out" / "grid.png") as grid:
        assert np.asarray(grid).min() < 255
    with pytest.raises(UserError, match="not both"):
        model.sample(2, valid=True, best_of=2, reward=lambda items: [0.0] * len(items))


@pytest.mark.parametrize("family", ["transformer", "masked"])
def test_what_is_built_on_a_part_contains_it_if_it_is_valid(family: str, tmp_path: Path) -> None:
    model = trained(tmp_path, family, form="fragments")
    samples = model.sample(8, prompt="c1ccncc1*")
    assert [d["kept"] for d in samples.described] == [contains(s, "c1ccncc1*") for s in samples]
    assert all(canonical(s) is None or contains(s, "c1ccncc1") for s in samples)
    samples.save(tmp_path / "out")
    assert (tmp_path / "out" / "samples.png").read_bytes().startswith(b"\x89PNG")
    varied = model.sample(4, prompt="OCc1ccccc1", strength=0.5)
    assert len(varied) == 4 and varied.described[0]["strength"] == 0.5
    with pytest.raises(UserError, match=r"not a scaffold or fragment"):
        model.sample(2, prompt="c1ccc")
    with pytest.raises(UserError, match=r"No training molecule has Br"):
        model.sample(2, prompt="c1cc(Br)ccc1*")
    with pytest.raises(UserError, match="strength"):
        model.sample(2, strength=0.5)
    if family == "masked":
        filled = model.sample(4, infill="c1cc[[1]]cc1CO")
        assert all(len(model.run.encoder.tokenised(s)) >= 5 for s in filled)


BAD = {
    "c1ccccc": "unclosed ring",
    "c1ccnc1": "Can't kekulize mol",
    "C(C)(C)(C)(C)C": "Explicit valence for atom # 0 C, 5, is greater than permitted",
    "CC(=O)O.OCC>[H+]>CC(=O)OCC": "a reaction, not a molecule",
    "*CC*": "R groups or attachment points",
    "C" * 100_000: "100,000 characters, but at most 5,000 are read",
    "": "empty",
    "CCO;CCN": "syntax error",
}


def test_the_command_says_of_each_bad_row_what_is_wrong(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = [
        f"A{i % 3},{ring}{end},{i * 0.1 + j},{j} {'nM' if j % 2 else 'uM'},7,,{'1e400' if j == 1 else j}"
        for i, ring in enumerate(RINGS)
        for j, end in enumerate(ENDS)
    ]
    rows = ["id,smiles,logS,IC50,dose,note,big", *(f"B,{s},nan,inf,7,,1" for s in BAD), *good]
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    assert command(["data", str(tmp_path / "table.csv")]) == 0
    said, logged = capfd.readouterr()
    assert f"refused: {len(BAD)} inputs" in said and all(reason in said for reason in BAD.values())
    assert "identifiers, 4 of them repeated" in said
    assert "'IC50' has numbers with units (uM, nM)" in said and "dose is left out: every item has 7" in said
    assert "column 'note' is not learnt: it has no values" in said
    assert "column 'big': 5 values are not numbers, such as '1e400', and count as missing" in said
    assert "SMILES Parse Error" not in logged + said
    argv = ["train", tmp_path / "table.csv", "--family", "transformer", "--steps", 1, "--no-measure"]
    argv += ["--out", tmp_path / "run", *(w for k, v in TINY.items() for w in ("--set", f"{k}={v}"))]
    assert command([str(a) for a in [*argv, "--set", "family.kv_heads=2"]]) == 0
    assert afresh.load(tmp_path / "run").run.conds.keys() == {"logS", "big"}


def test_a_tuned_run_learns_new_tokens(tmp_path: Path) -> None:
    trained(tmp_path)
    (tmp_path / "new.smi").write_text("".join(f"{'C' * n}[Se]C\n" for n in range(1, 9)))
    tuned = afresh.tune(tmp_path / "run", tmp_path / "new.smi", steps=2, out=tmp_path / "tuned", quiet=True)
    assert tuned.run.encoder.added == ("[Se]",)
    assert json.loads((tmp_path / "tuned" / "encoder" / "encoder.json").read_text())["added"] == ["[Se]"]


def test_works_of_a_wish_are_valid_and_known_by_their_smiles(tmp_path: Path) -> None:
    model = trained(tmp_path, form="selfies")
    wish = CreationRequest(n=3, prompt="", seed=5)
    made = list(make(model.run, wish, {}))
    assert all(canonical(m.value) == m.value for m in made)
    assert [title_of(wish, m, model.run.encoder.kind, form_of(model.run)) for m in made] == [
        first_line([m.value]) for m in made
    ]
    assert next(make(model.run, wish, {}, only=1)).value == made[1].value


def test_what_is_not_a_molecule_is_drawn_as_such() -> None:
    assert draw("c1cc").min() < 255 and draw("c1cc").shape == draw("CCO").shape
