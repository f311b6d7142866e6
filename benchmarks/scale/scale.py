"""Several processes: the bits and the speed of one, kills, and the exchange between them.

`python -m benchmarks scale` measures all; words choose: bits, speed, killed, gloo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.common.benchmark import Benchmark
from benchmarks.common.results import Row, save
from benchmarks.scale import bits, gloo, killed, speed

PARTS: Mapping[str, Callable[[], list[Row]]] = {
    "bits": bits.rows,
    "speed": speed.rows,
    "killed": killed.rows,
    "gloo": gloo.rows,
}


def main(*words: str) -> None:
    """Each part is kept under a name of its own, so that it can be measured alone."""
    if unknown := set(words) - PARTS.keys():
        raise SystemExit(f"scale measures {', '.join(PARTS)}; given: {', '.join(sorted(unknown))}.")
    for name in words or tuple(PARTS):
        made = PARTS[name]()
        for row in made:
            print(f"{row.benchmark}, {row.what}: {row.ours}; {row.theirs}", flush=True)
        save(f"scale_{name}", made)


BENCHMARKS = (Benchmark("scale", (), 12, main),)
