"""Public weights: the same numbers as transformers and diffusers, the speed of LoRA beside PEFT, and its memory.

`python -m benchmarks bases` measures all; words choose: logs, images, speed, memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.bases import exact, memory, speed
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.parts import measure
from benchmarks.common.results import Row

PARTS: Mapping[str, Callable[[], list[Row]]] = {
    "logs": exact.log_rows,
    "images": exact.image_rows,
    "speed": speed.rows,
    "memory": memory.rows,
}


def main(*words: str) -> None:
    measure("bases", PARTS, words)


BENCHMARKS = (Benchmark("bases", (), 20, main),)
