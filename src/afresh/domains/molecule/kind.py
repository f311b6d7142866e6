"""Molecules as items: canonical SMILES, shown as drawings."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from afresh.core import Descriptors, ItemKind, NearDuplicate, Preview
from afresh.core.item_kind import Array
from afresh.data.image.grid import GridSettings, image_grid
from afresh.domains.molecule.alerts import alerts
from afresh.domains.molecule.chem import canonical, chem, not_one_molecule, reason_of
from afresh.domains.molecule.properties import numbers_of

BITS, RADIUS = 1024, 2  # of Morgan fingerprints, as in MOSES
PARTS = 1  # radius of the counts from which numbers are learnt: on few values, less is more
SIDE = 240  # pixels of a drawing
COMPARED = 36  # molecules whose differences from a prompt are drawn
COMPUTED = ("QED", "logP", "SA", "weight")  # properties in an .sdf
FACTS = ("SA", "QED", "logP", "weight")  # beside predictions
DETAILS = re.compile(r"[@/\\.\[]")  # what a SMILES without stereo, charges, isotopes and salts does not have


def digest(smiles: str) -> str:
    return hashlib.sha256(smiles.encode("utf-8", "surrogatepass")).hexdigest()


@cache
def _generator(radius: int) -> Any:
    chem()
    from rdkit.Chem import rdFingerprintGenerator

    return rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=BITS)


def fingerprint(smiles: str) -> Any:
    """The Morgan fingerprint of a molecule as a bit vector of RDKit; without bits if it is not valid."""
    found = chem().MolFromSmiles(smiles)
    return _generator(RADIUS).GetFingerprint(chem().Mol() if found is None else found)


def features(molecules: Sequence[str]) -> Array:
    """Morgan fingerprints (n, BITS) of 0 and 1."""
    from rdkit import DataStructs

    out = np.zeros((len(molecules), BITS))
    row = np.zeros(BITS, np.int8)
    for i, smiles in enumerate(molecules):
        DataStructs.ConvertToNumpyArray(fingerprint(smiles), row)
        out[i] = row
    return out


def counted_parts(molecules: Sequence[str]) -> Array:
    """How often each atom occurs with its neighbours (count fingerprints of radius PARTS), (n, BITS)."""
    out = np.zeros((len(molecules), BITS))
    for i, smiles in enumerate(molecules):
        if (found := chem().MolFromSmiles(smiles)) is not None:
            out[i] = _generator(PARTS).GetCountFingerprintAsNumPy(found)
    return out


def facts(molecules: Sequence[str]) -> dict[str, list[float]]:
    """What a chemist asks first: SA (1 is easy to make, 10 hard), QED, logP and weight; NaN if it is not valid."""
    found = [chem().MolFromSmiles(s) for s in molecules]
    each = [dict.fromkeys(FACTS, float("nan")) if m is None else numbers_of(m, FACTS) for m in found]
    return {name: [row[name] for row in each] for name in FACTS}


def similarity(train: Sequence[str]) -> Callable[[Sequence[str]], Array]:
    """The Tanimoto similarity of Morgan fingerprints to the most similar training molecule."""
    from rdkit import DataStructs

    known = [fingerprint(s) for s in train]
    return lambda some: np.array([max(DataStructs.BulkTanimotoSimilarity(fingerprint(s), known)) for s in some])


def diversity(molecules: Sequence[str], most: int = 1_000) -> float:
    """One minus the mean Tanimoto similarity of two molecules (IntDiv of Polykovskiy et al. 2020), of at most `most`
    of them, evenly spaced."""
    from rdkit import DataStructs

    some = [fingerprint(s) for s in molecules[:: -(-len(molecules) // most)]]
    total = sum(sum(DataStructs.BulkTanimotoSimilarity(p, some[:i])) for i, p in enumerate(some))
    return 1 - 2 * total / max(1, len(some) * (len(some) - 1))


def skeleton(smiles: str) -> str:
    """The canonical SMILES of the largest part of a molecule without charges, stereo and isotopes."""
    if not DETAILS.search(smiles):
        return smiles
    from rdkit.Chem.MolStandardize import rdMolStandardize

    library = chem()
    found = library.MolFromSmiles(smiles)
    if found is None:
        return smiles
    for atom in found.GetAtoms():
        atom.SetIsotope(0)
    found = rdMolStandardize.Uncharger().uncharge(rdMolStandardize.LargestFragmentChooser().choose(found))
    text: str = library.MolToSmiles(found, isomericSmiles=False)
    return text


def near_duplicates(molecules: Sequence[str]) -> list[NearDuplicate]:
    """Molecules that differ from an earlier one in stereo, charges, isotopes or salts only."""
    first: dict[str, int] = {}
    out = []
    for i, smiles in enumerate(molecules):
        before = first.setdefault(skeleton(smiles), i)
        if before != i:
            out.append(NearDuplicate(before, i, 1.0 if molecules[before] == smiles else 0.99))
    return out


def draw(smiles: str, against: str | None = None, side: int = SIDE) -> NDArray[np.uint8]:
    """A drawing (side, side, 3), which says so if the molecule is not valid. Atoms that are not part of the largest
    structure in common with the molecule `against` are marked."""
    from rdkit.Chem.Draw import rdMolDraw2D

    found = chem().MolFromSmiles(smiles)
    if found is None or found.GetNumAtoms() == 0:
        image = Image.new("RGB", (side, side), "white")
        font = ImageFont.load_default(side / 14)
        ImageDraw.Draw(image).text((side / 2, side / 2), "not a molecule", "grey", font, anchor="mm")
        return np.asarray(image)
    drawing = rdMolDraw2D.MolDraw2DCairo(side, side)
    marked = [] if against is None else differing(found, against)
    rdMolDraw2D.PrepareAndDrawMolecule(drawing, found, highlightAtoms=marked)
    drawing.FinishDrawing()
    return np.asarray(Image.open(io.BytesIO(drawing.GetDrawingText())).convert("RGB"))


def differing(found: Any, against: str) -> list[int]:
    """The atoms of a molecule that are not part of the largest structure in common with another one."""
    from rdkit.Chem import rdFMCS

    other = chem().MolFromSmiles(against)
    if other is None:
        return []
    common = rdFMCS.FindMCS([found, other], timeout=2, ringMatchesRingOnly=True)
    same = set(found.GetSubstructMatch(common.queryMol)) if common.numAtoms else set()
    return [a.GetIdx() for a in found.GetAtoms() if a.GetIdx() not in same]


def previews(molecules: Sequence[str]) -> list[Preview]:
    return [Preview(text=smiles, image=draw(smiles)) for smiles in molecules]


def size(smiles: str) -> int:
    """The number of heavy atoms; 0 if it is not valid."""
    found = chem().MolFromSmiles(smiles)
    return 0 if found is None else int(found.GetNumHeavyAtoms())


def smi(molecules: Sequence[str], records: Sequence[Mapping[str, Any]]) -> bytes:
    """A .smi file of the valid molecules: a SMILES and the number of the sample a line."""
    return "".join(f"{s} {i}\n" for i, s in enumerate(molecules) if canonical(s) is not None).encode()


def sdf(molecules: Sequence[str], records: Sequence[Mapping[str, Any]]) -> bytes:
    """An .sdf file of the valid molecules, in two dimensions, with the fields of their records as properties."""
    from rdkit.Chem import rdDepictor

    library, out = chem(), []
    for i, (smiles, record) in enumerate(zip(molecules, records, strict=True)):
        found = library.MolFromSmiles(smiles)
        if found is None or not smiles:
            continue
        rdDepictor.Compute2DCoords(found)
        found.SetProp("_Name", str(i))
        computed = {k: round(v, 4) for k, v in numbers_of(found, COMPUTED).items()}
        fields = {"SMILES": smiles, **computed, **{k: v for k, v in record.items() if v is not None and k != "text"}}
        lines = [f">  <{k}>\n{v if isinstance(v, str) else json.dumps(v)}\n\n" for k, v in fields.items()]
        out.append(library.MolToMolBlock(found) + "".join(lines) + "$$$$\n")
    return "".join(out).encode("utf-8", "replace")


def changes(molecules: Sequence[str], records: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG grid of the first molecules that were built on a prompt, or that have a `nearest` known one, with the atoms
    marked that are not part of it. Empty if there is neither."""
    bases = [r.get("prompt") or r.get("nearest") for r in records]
    pairs = [(s, str(base)) for s, base in zip(molecules, bases, strict=True) if base][:COMPARED]
    if not pairs:
        return b""
    buffer = io.BytesIO()
    image_grid([draw(smiles, prompt) for smiles, prompt in pairs]).save(buffer, "PNG")
    return buffer.getvalue()


def decode(content: bytes) -> str:
    """The canonical SMILES of a text. Raises ValueError if it is not a molecule."""
    text = content.decode("utf-8").strip()
    found = canonical(text)
    if found is None:
        raise ValueError(f"{text[:80]!r} is not a molecule: {not_one_molecule(text) or reason_of(text)}")
    return found


MOLECULE = ItemKind(
    name="molecule",
    plural="molecules",
    view="image",
    digest=digest,
    describe=repr,
    previews=previews,
    size=size,
    unit="heavy atoms",
    encode=lambda smiles: smiles.encode("utf-8", "surrogatepass"),
    decode=decode,
    features=features,
    descriptors=Descriptors(counted_parts, "tanimoto"),
    facts=facts,
    alerts=alerts,
    near_duplicates=near_duplicates,
    searched=50_000,
    similarity=similarity,
    diversity=diversity,
    collected={".smi": smi, ".sdf": sdf, ".png": changes},
    result_settings=GridSettings,
)
