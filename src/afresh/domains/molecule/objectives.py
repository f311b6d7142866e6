"""The objectives of PMO (Gao et al. 2022, practical molecular optimisation) that RDKit computes alone, as a table.

All but `qed` are from GuacaMol (Brown et al. 2019). These follow PMO's oracles, which are those of PyTDC from version
0.3.7 on: earlier versions counted the atoms of a SMILES as if it were a formula.
"""

from __future__ import annotations

import re

from afresh.domains.molecule.measures import (
    Atoms,
    Contains,
    Lacks,
    Measure,
    MoleculeObjective,
    NearestMolecule,
    Number,
    ObjectiveTerm,
    Similarity,
    UpTo,
)

ALBUTEROL = "CC(C)(C)NCC(O)c1ccc(O)c(CO)c1"
AMLODIPINE = r"Clc1ccccc1C2C(=C(/N/C(=C2/C(=O)OCC)COCCN)C)\C(=O)OC"
CAMPHOR = "CC1(C)C2CCC1(C)C(=O)C2"
CELECOXIB = "CC1=CC=C(C=C1)C1=CC(=NN1C1=CC=C(C=C1)S(N)(=O)=O)C(F)(F)F"
FEXOFENADINE = "CC(C)(C(=O)O)c1ccc(cc1)C(O)CCCN2CCC(CC2)C(O)(c3ccccc3)c4ccccc4"
HOP = "CCCOc1cc2ncnc(Nc3ccc4ncsc4c3)c2cc1S(=O)(=O)C(C)(C)C"
MENTHOL = "CC(C)C1CCC(C)CC1O"
MESTRANOL = "COc1ccc2[C@H]3CC[C@@]4(C)[C@@H](CC[C@@]4(O)C#C)[C@@H]3CCc2c1"
OSIMERTINIB = "COc1cc(N(C)CCN(C)C)c(NC(=O)C=C)cc1Nc2nccc(n2)c3cn(C)c4ccccc34"
PERINDOPRIL = "O=C(OCC)C(NC(C(=O)N1C(C(=O)O)CC2CCCCC12)C)CCC"
RANOLAZINE = "COc1ccccc1OCC(O)CN2CCN(CC(=O)Nc3c(C)cccc3C)CC2"
SILDENAFIL = "CCCC1=NN(C2=C1N=C(NC2=O)C3=C(C=CC(=C3)S(=O)(=O)N4CCN(CC4)C)OCC)C"
SITAGLIPTIN = "Fc1cc(c(F)cc1F)CC(N)CC(=O)N3Cc2nnc(n2CC3)C(F)(F)F"
TADALAFIL = "O=C1N(CC(N2C1CC3=C(C2C4=CC5=C(OCO5)C=C4)NC6=C3C=CC=C6)=O)C"
THIOTHIXENE = "CN(C)S(=O)(=O)c1ccc2Sc3ccccc3C(=CCCN4CCN(C)CC4)c2c1"
TROGLITAZONE = "Cc1c(C)c2OC(C)(COc3ccc(CC4SC(=O)NC4=O)cc3)CCc2c(C)c1O"
ZALEPLON = "O=C(C)N(CC)C1=CC=CC(C2=CC=NC3=C(C=NN23)C#N)=C1"

QUINAZOLINE = "[#7]-c1n[c;h1]nc2[c;h1]c(-[#8])[c;h0][c;h1]c12"
BENZOTHIAZOLE = "[#7]-c1ccc2ncsc2c1"
DECORATION = "[#6]-[#6]-[#6]-[#8]-[#6]~[#6]~[#6]~[#6]~[#6]-[#7]-c1ccc2ncsc2c1"
SULPHONE = "CS([#6])(=O)=O"
VALSARTAN_PART = "CN(C=O)Cc1ccc(c2ccccc2)cc1"

LOG_P, TPSA, BERTZ = Number("logP"), Number("TPSA"), Number("Bertz")


def geometric(*terms: Measure) -> MoleculeObjective:
    return MoleculeObjective("geometric", terms)


def arithmetic(*terms: Measure) -> MoleculeObjective:
    return MoleculeObjective("arithmetic", terms)


def isomer(formula: str) -> MoleculeObjective:
    """How near the formula of a molecule is to another one: the numbers of atoms of its elements, and of all atoms."""
    counts = {e: int(n or 1) for e, n in re.findall(r"([A-Z][a-z]?)(\d*)", formula)}
    return geometric(
        *(ObjectiveTerm(Atoms(element), NearestMolecule(n, 1)) for element, n in counts.items()),
        ObjectiveTerm(Atoms(), NearestMolecule(sum(counts.values()), 2)),
    )


OBJECTIVES = {
    "albuterol_similarity": geometric(ObjectiveTerm(Similarity(ALBUTEROL, "FCFP4"), UpTo(0.75))),
    "amlodipine_mpo": geometric(Similarity(AMLODIPINE), ObjectiveTerm(Number("rings"), NearestMolecule(3, 0.5))),
    "celecoxib_rediscovery": geometric(Similarity(CELECOXIB)),
    "deco_hop": arithmetic(
        ObjectiveTerm(Similarity(HOP, "PHCO"), UpTo(0.85)),
        Lacks(SULPHONE),
        Lacks(BENZOTHIAZOLE),
        Contains(QUINAZOLINE),
    ),
    "fexofenadine_mpo": geometric(
        ObjectiveTerm(Similarity(FEXOFENADINE, "AP"), UpTo(0.8)),
        ObjectiveTerm(TPSA, NearestMolecule(90, 10, "at least")),
        ObjectiveTerm(LOG_P, NearestMolecule(4, 1, "at most")),
    ),
    "isomers_c7h8n2o2": isomer("C7H8N2O2"),
    "isomers_c9h10n2o2pf2cl": isomer("C9H10N2O2PF2Cl"),
    "median1": geometric(Similarity(CAMPHOR), Similarity(MENTHOL)),
    "median2": geometric(Similarity(TADALAFIL, "ECFP6"), Similarity(SILDENAFIL, "ECFP6")),
    "mestranol_similarity": geometric(ObjectiveTerm(Similarity(MESTRANOL, "AP"), UpTo(0.75))),
    "osimertinib_mpo": geometric(
        ObjectiveTerm(Similarity(OSIMERTINIB, "FCFP4"), UpTo(0.8)),
        ObjectiveTerm(Similarity(OSIMERTINIB, "ECFP6"), NearestMolecule(0.85, 0.1, "at most")),
        ObjectiveTerm(TPSA, NearestMolecule(100, 10, "at least")),
        ObjectiveTerm(LOG_P, NearestMolecule(1, 1, "at most")),
    ),
    "perindopril_mpo": geometric(
        Similarity(PERINDOPRIL), ObjectiveTerm(Number("aromatic rings"), NearestMolecule(2, 0.5))
    ),
    "qed": geometric(Number("QED")),
    "ranolazine_mpo": geometric(
        ObjectiveTerm(Similarity(RANOLAZINE, "AP"), UpTo(0.7)),
        ObjectiveTerm(TPSA, NearestMolecule(95, 20, "at least")),
        ObjectiveTerm(LOG_P, NearestMolecule(7, 1, "at least")),
        ObjectiveTerm(Atoms("F"), NearestMolecule(1, 1)),
    ),
    "scaffold_hop": arithmetic(
        ObjectiveTerm(Similarity(HOP, "PHCO"), UpTo(0.75)),
        Contains(DECORATION),
        Lacks(QUINAZOLINE),
    ),
    "sitagliptin_mpo": geometric(
        ObjectiveTerm(Similarity(SITAGLIPTIN), NearestMolecule(0, 0.1)),
        ObjectiveTerm(LOG_P, NearestMolecule(SITAGLIPTIN, 0.2)),
        ObjectiveTerm(TPSA, NearestMolecule(SITAGLIPTIN, 5)),
        isomer("C16H15F6N5O"),
    ),
    "thiothixene_rediscovery": geometric(Similarity(THIOTHIXENE)),
    "troglitazone_rediscovery": geometric(Similarity(TROGLITAZONE)),
    "valsartan_smarts": geometric(
        Contains(VALSARTAN_PART),
        ObjectiveTerm(LOG_P, NearestMolecule(SITAGLIPTIN, 0.2)),
        ObjectiveTerm(TPSA, NearestMolecule(SITAGLIPTIN, 5)),
        ObjectiveTerm(BERTZ, NearestMolecule(SITAGLIPTIN, 30)),
    ),
    "zaleplon_mpo": geometric(Similarity(ZALEPLON), isomer("C19H17N3O2")),
}
