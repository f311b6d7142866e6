"""What some work has used: seconds, and energy as far as the machine tells, else estimated.

Where the machine does not tell, the energy of processors is estimated from the seconds that its cores were busy with
this work, and that of a GPU from the seconds that it was in use, each by the power that Green Algorithms assumes for
hardware of which nothing is known (Lannelongue, Grealey and Inouye 2021: the rows "Any" of its tables TDP_cpu and
TDP_gpu). Memory, cooling and losses of the power supply are not in it. Both numbers are kept, measured and estimated.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from afresh.engine.training import ranks
from afresh.engine.training.energy_counters import POWERCAP, Counter, CounterGone, gpu_counters, processor_counters

CORE_WATTS, GPU_WATTS = 12.0, 200.0
EVERY = 5.0  # seconds between two readings of the counters; the smallest begin anew after a minute
Amount = Annotated[float, Field(ge=0, lt=1e15)]


class Usage(BaseModel):
    """What some work has used. cpu_seconds: of all cores together; gpu_seconds: of all GPUs together.
    cpu_joules, gpu_joules: as measured by the machine; None where it does not tell. *_watts: what was assumed for a
    core, and for a GPU, to estimate."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    seconds: Amount
    cpu_seconds: Amount
    gpu_seconds: Amount = 0.0
    cpu_joules: Amount | None = None
    gpu_joules: Amount | None = None
    core_watts: Amount = CORE_WATTS
    gpu_watts: Amount = GPU_WATTS

    @property
    def estimated_joules(self) -> float:
        """What is estimated from seconds alone."""
        return self.cpu_seconds * self.core_watts + self.gpu_seconds * self.gpu_watts

    @property
    def joules(self) -> float:
        """What was measured; of a part that was not, what is estimated."""
        cpu = self.cpu_seconds * self.core_watts if self.cpu_joules is None else self.cpu_joules
        return cpu + (self.gpu_seconds * self.gpu_watts if self.gpu_joules is None else self.gpu_joules)

    @property
    def measured(self) -> bool:
        """Whether nothing of `joules` is estimated."""
        return self.cpu_joules is not None and (self.gpu_joules is not None or not self.gpu_seconds)

    @property
    def method(self) -> str:
        """How the energy is known, in words."""
        core, gpu = f"{self.core_watts:g} W a busy core", f"{self.gpu_watts:g} W a GPU in use"
        cpu = "processors measured by RAPL" if self.cpu_joules is not None else f"processors estimated at {core}"
        if not self.gpu_seconds:
            return cpu
        return f"{cpu}, " + ("GPUs measured by NVML" if self.gpu_joules is not None else f"GPUs estimated at {gpu}")


def core_seconds() -> float:
    """The seconds that cores were busy with this process, and with programs that it has waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


class UsageMeter:
    """Measures what this process and its siblings use from now on.

    `device`: on which the work is done; with several processes (training/ranks.py), all of them are counted as this one
    is, and GPUs and processors of other machines are estimated.
    """

    def __init__(
        self,
        device: str,
        powercap: Path = POWERCAP,
        now: Callable[[], float] = time.perf_counter,
        busy: Callable[[], float] = core_seconds,
    ) -> None:
        self.now, self.busy = now, busy
        self.processes, here = ranks.world(), ranks.local_world()
        kind, _, number = device.partition(":")
        self.gpus = 0 if kind == "cpu" else self.processes
        alone = self.processes in (1, here)
        own = [int(number or 0)] if self.processes == 1 else list(range(here))
        self.processors: list[Counter] = processor_counters(powercap) if alone else []
        self.devices: list[Counter] = gpu_counters(own) if kind == "cuda" and alone else []
        self.start, self.busy_before, self.polled = self.now(), self.busy(), self.now()

    def poll(self) -> None:
        """Read the counters if it is time to, so that none begins again unseen."""
        if self.now() - self.polled >= EVERY:
            self.read()

    def read(self) -> Usage:
        """What was used until now."""
        self.polled = self.now()
        seconds = self.polled - self.start
        self.processors, cpu = updated(self.processors)
        self.devices, gpu = updated(self.devices)
        return Usage(
            seconds=round(seconds, 3),
            cpu_seconds=round(max(0.0, self.busy() - self.busy_before) * self.processes, 3),
            gpu_seconds=round(seconds * self.gpus, 3),
            cpu_joules=cpu,
            gpu_joules=gpu,
        )


def updated(counters: list[Counter]) -> tuple[list[Counter], float | None]:
    """The counters, and their joules together; none of them and None from when one cannot be read."""
    try:
        joules = round(sum(c.update() for c in counters), 3)
    except CounterGone:
        return [], None
    return counters, joules if counters else None
