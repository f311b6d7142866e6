"""Physical systems with a solver, from which true data can be made."""

from __future__ import annotations

from afresh.domains.field.systems.advection import BURGERS, KURAMOTO_SIVASHINSKY
from afresh.domains.field.systems.gray_scott import GRAY_SCOTT
from afresh.domains.field.systems.system import System

SYSTEMS: dict[str, System] = {system.name: system for system in (BURGERS, KURAMOTO_SIVASHINSKY, GRAY_SCOTT)}
