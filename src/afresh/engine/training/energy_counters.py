"""The energy that the machine itself says it has used: RAPL of processors, NVML of GPUs.

RAPL: files of Linux in /sys/class/powercap (Documentation/power/powercap/powercap.rst of the kernel), a counter in
microjoules a zone, which restarts at `max_energy_range_uj`. Counted are whole packages, and their memory where it is
a zone of its own; the other zones within a package are parts of it, and `psys` and `intel-rapl-mmio` would count it
twice. Most systems let only root read them (CVE-2020-8694). A package is all that runs on it, other programs too.

NVML: millijoules since the driver was loaded, of Volta and later (nvmlDeviceGetTotalEnergyConsumption).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
PACKAGE, PART = re.compile(r"intel-rapl:\d+"), re.compile(r"intel-rapl:\d+:\d+")


class CounterGone(Exception):
    """A counter cannot be read any more."""


@dataclass
class Counter:
    """A counter of energy. `read`: its value now, in joules; raises OSError or ValueError. `range`: the joules after
    which it begins again; None: never.

    It has to be read at least once in `range`, since a counter does not tell how often it began again.
    """

    name: str
    read: Callable[[], float]
    range: float | None
    last: float = 0.0
    joules: float = 0.0

    def begin(self) -> None:
        """Count from now on."""
        self.last = self.read()

    def update(self) -> float:
        """The joules since `begin`. Raises CounterGone."""
        try:
            now = self.read()
        except (OSError, ValueError) as error:
            raise CounterGone(f"{self.name}: {error}") from None
        used = now - self.last
        if used < 0:
            if self.range is None:
                raise CounterGone(f"{self.name} has gone back")
            used += self.range
        self.last = now
        self.joules += used
        return self.joules


def processor_counters(root: Path = POWERCAP) -> list[Counter]:
    """The counters of this machine's processors, which are begun; none where one of them cannot be read."""
    zones = sorted(root.glob("intel-rapl:*")) if root.is_dir() else []
    found = []
    for zone in zones:
        with suppress(OSError, ValueError):
            name = (zone / "name").read_text().strip()
            whole = PACKAGE.fullmatch(zone.name) is not None and name.startswith("package")
            if whole or (PART.fullmatch(zone.name) is not None and name == "dram"):
                found.append(zone)
    try:
        counters = [zone_counter(zone) for zone in found]
    except (OSError, ValueError):
        return []
    return counters


def zone_counter(zone: Path) -> Counter:
    """The counter of a zone, which is begun. Raises OSError or ValueError if it cannot be read."""
    file = zone / "energy_uj"

    def read() -> float:
        return int(file.read_text()) / 1e6

    counter = Counter(zone.name, read, int((zone / "max_energy_range_uj").read_text()) / 1e6)
    counter.begin()
    return counter


def gpu_counters(numbers: Sequence[int]) -> list[Counter]:
    """The counters of these CUDA devices, which are begun; none where one of them does not tell, or where the package
    nvidia-ml-py is not installed."""
    try:
        import pynvml
        import torch

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(n).uuid}") for n in numbers]
        counters = [Counter(f"GPU {n}", device_reader(pynvml, h), None) for n, h in zip(numbers, handles, strict=True)]
        for counter in counters:
            counter.begin()
    except Exception:  # NVMLError, which is known only where the package is, and what old drivers lack
        return []
    return counters


def device_reader(pynvml: Any, handle: Any) -> Callable[[], float]:
    def read() -> float:
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        except pynvml.NVMLError as error:
            raise OSError(str(error)) from None

    return read
