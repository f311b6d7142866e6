"""The models of DRD2, GSK3b and JNK3 of PMO as a program: `python pmo_models.py FOLDER drd2|gsk3b|jnk3`.

FOLDER is molscore/data/models/molopt of the unpacked wheel of molscore, whose models are pickles of scikit-learn 0.23.
A pickle can run any code. Therefore this program has an environment of its own (Python 3.11, scikit-learn 1.1.3, numpy
1.26 and rdkit), and lets a pickle name only the classes that such a model has.

It reads a JSON line {"text": SMILES} for each molecule and answers with a line, the chance of it being active, or 0 for
what is not a molecule, so it is also a reward: '!python pmo_models.py FOLDER jnk3'. Fingerprints are those of PyTDC.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

CLASSES = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("sklearn.svm._classes", "SVC"),
    ("sklearn.ensemble._forest", "RandomForestClassifier"),
    ("sklearn.tree._classes", "DecisionTreeClassifier"),
    ("sklearn.tree._tree", "Tree"),
}
BITS = 2048


class Unpickler(pickle.Unpickler):
    """Refuses every name that is not one of CLASSES."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in CLASSES:
            raise pickle.UnpicklingError(f"the model names {module}.{name}")
        return super().find_class(module, name)


def fingerprints(molecules: list[Any], name: str) -> Any:
    """(n, BITS): counts of features within three bonds for drd2, folded by the remainder; bits within two bonds for the
    others."""
    import numpy as np
    from rdkit.Chem import rdFingerprintGenerator as generators

    out = np.zeros((len(molecules), BITS))
    if name != "drd2":
        bits = generators.GetMorganGenerator(radius=2, fpSize=BITS)
        for row, molecule in zip(out, molecules, strict=True):
            row[:] = bits.GetFingerprintAsNumPy(molecule)
        return out
    features = generators.GetMorganFeatureAtomInvGen()
    counts = generators.GetMorganGenerator(radius=3, atomInvariantsGenerator=features)
    for row, molecule in zip(out, molecules, strict=True):
        for key, count in counts.GetSparseCountFingerprint(molecule).GetNonzeroElements().items():
            row[key % BITS] += count
    return out


def main(folder: Path, name: str) -> None:
    warnings.filterwarnings("ignore")
    from rdkit import Chem, rdBase

    rdBase.DisableLog("rdApp.*")
    with (folder / f"{name}_current.pkl").open("rb") as stream:
        model = Unpickler(stream).load()
    if hasattr(model, "estimators_"):
        model.n_jobs, model.verbose = 1, 0
    rest = b""
    while more := os.read(0, 1 << 20):  # as many lines as are there, so that they are valued together
        *lines, rest = (rest + more).split(b"\n")
        found = [Chem.MolFromSmiles(json.loads(line)["text"]) for line in lines]
        valid = [i for i, molecule in enumerate(found) if molecule is not None and molecule.GetNumAtoms()]
        chances = [0.0] * len(found)
        if valid:
            active = list(model.classes_).index(1)
            predicted = model.predict_proba(fingerprints([found[i] for i in valid], name))[:, active]
            for i, chance in zip(valid, predicted, strict=True):
                chances[i] = float(chance)
        sys.stdout.write("".join(f"{chance!r}\n" for chance in chances))
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
