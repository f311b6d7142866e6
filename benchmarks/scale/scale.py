"""Several processes: the bits and the speed of one, kills, and the exchange between them.

`python -m benchmarks scale` measures all; words choose: bits, speed, killed, gloo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.common.benchmark import Benchmark
from benchmarks.common.parts import measure
from benchmarks.common.results import Row
from benchmarks.scale import bits, gloo, killed, speed

PARTS: Mapping[str, Callable[[], list[Row]]] = {
    "bits": bits.rows,
    "speed": speed.rows,
    "killed": killed.rows,
    "gloo": gloo.rows,
}


def main(*words: str) -> None:
    measure("scale", PARTS, words)


BENCHMARKS = (Benchmark("scale", (), 12, main),)
