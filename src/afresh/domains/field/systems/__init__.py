"""Physical systems with a solver, from which true data can be made."""

from __future__ import annotations

from afresh.domains.field.systems.allen_cahn import ALLEN_CAHN, ALLEN_CAHN_2D
from afresh.domains.field.systems.burgers import BURGERS
from afresh.domains.field.systems.gray_scott import GRAY_SCOTT
from afresh.domains.field.systems.kolmogorov_flow import KOLMOGOROV_FLOW
from afresh.domains.field.systems.korteweg_de_vries import KORTEWEG_DE_VRIES
from afresh.domains.field.systems.kuramoto_sivashinsky import KURAMOTO_SIVASHINSKY
from afresh.domains.field.systems.shallow_water import SHALLOW_WATER
from afresh.domains.field.systems.system import System

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        BURGERS,
        KORTEWEG_DE_VRIES,
        KURAMOTO_SIVASHINSKY,
        ALLEN_CAHN,
        ALLEN_CAHN_2D,
        KOLMOGOROV_FLOW,
        GRAY_SCOTT,
        SHALLOW_WATER,
    )
}
