"""Change the files of tiny runs at random and use them: `python -m tests.fuzz --mutations 10000` (make fuzz).

Every mutation follows from its number, so that a fault can be repeated by `--first NUMBER --mutations 1`. The exit code
is 1 if a verb raised anything but a UserError, took too long, or needed more memory than the limit.
"""

from __future__ import annotations

import argparse
import collections
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random

from tests.fuzz.mutations import copied, mutate
from tests.fuzz.runs import RUNS, make_runs

MEMORY = 4 << 30  # bytes of addresses beyond those in use when the runs are made
EVERY = {
    "open": 1,
    "sample": 2,
    "verify": 4,
    "resume": 4,
    "export": 4,
    "report": 8,
    "measure": 8,
}  # each verb is tried at every n-th mutation


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time")
    parser.add_argument("--folder", type=Path, help="where the runs are made, or were made before")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="fuzz"))
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    make_runs(folder)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    faults = tried(folder, args.first, args.mutations, time.monotonic() + args.seconds)
    if args.folder is None:
        shutil.rmtree(folder)
    return 1 if faults else 0


def tried(folder: Path, first: int, mutations: int, end: float) -> int:
    """The number of faults. Prints each with its traceback, and a count of outcomes at the end."""
    from tests.fuzz.verbs import Hangs, outcome

    outcomes: collections.Counter[str] = collections.Counter()
    faults, number = 0, first
    for number in range(first, first + mutations):
        if time.monotonic() > end:
            break
        random = Random(number)
        name = RUNS[number % len(RUNS)]
        run = copied(folder / name, folder / "changed")
        what = mutate(run, random)
        verbs = [verb for verb, n in EVERY.items() if number // len(RUNS) % n == 0]
        (folder / "now").write_text(f"{number} {name} {what}")  # for a crash of the process itself
        for verb in verbs:
            try:
                result = outcome(verb, run)
                outcomes[f"{verb}: {'works' if result == 'works' else 'refused'}"] += 1
            except (Exception, Hangs) as e:
                faults += 1
                print(f"FAULT {number} {name} {verb}: {what}", flush=True)
                traceback.print_exception(e, limit=-4)
                outcomes[f"{verb}: FAULT"] += 1
    print(
        f"mutations {first:,} to {number:,}: {faults:,} faults; "
        + ", ".join(f"{k} {v:,}" for k, v in sorted(outcomes.items()))
    )
    return faults


if __name__ == "__main__":
    sys.exit(main())
