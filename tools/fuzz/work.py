"""What the processes of the fuzz do: make the runs, and try mutations of them."""

from __future__ import annotations

import resource
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

from tools.fuzz.supervised import Begun, Tried

MEMORY = 4 << 30  # bytes of addresses beyond those in use before the first mutation
EVERY = {
    "open": 1,
    "sample": 2,
    "use": 2,
    "verify": 4,
    "resume": 4,
    "export": 4,
    "score": 4,
    "report": 8,
    "measure": 8,
}  # each verb is tried at every n-th mutation of a run


def make_all(folder: Path, numbers: Iterable[int]) -> Iterator[Begun | Tried]:
    from tools.fuzz.runs import RUNS, make_runs

    for name in RUNS:
        begun = Begun(0, name, "make")
        yield begun
        make_runs(folder, [name])
        yield Tried(begun, True, "works")


def mutations(folder: Path, numbers: Iterable[int]) -> Iterator[Begun | Tried]:
    """Try each mutation with its verbs, in the folder `changed`, with a limit of memory."""
    from tools.fuzz.mutations import copied, mutate  # which import torch: not in the process that supervises
    from tools.fuzz.runs import RUNS
    from tools.fuzz.verbs import Hangs, outcome

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    for number in numbers:
        name = RUNS[number % len(RUNS)]
        yield Begun(number, name, "change")
        run = copied(folder / name, folder / "changed")
        what = mutate(run, Random(number))
        for verb in (verb for verb, n in EVERY.items() if number // len(RUNS) % n == 0):
            begun = Begun(number, name, verb, what)
            yield begun
            try:
                yield Tried(begun, True, outcome(verb, run))
            except (Exception, Hangs) as e:
                yield Tried(begun, False, "".join(traceback.format_exception(e, limit=-4)))
