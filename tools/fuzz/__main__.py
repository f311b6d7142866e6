"""Change the files of tiny runs at random and use them: `python -m tools.fuzz --mutations 10000` (make fuzz).

Every mutation follows from its number, so that what is not explained can be repeated by `--first NUMBER --mutations 1`,
and a series that was ended goes on with `--first`. A verb is explained if it works or raises a UserError, and not if it
raises anything else, exceeds its limit of seconds or memory, ends its process, or hangs. What is not explained is
listed at the end, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import collections
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tools.fuzz.supervised import Tried, supervised
from tools.fuzz.work import make_all, mutations

WAIT = 600.0  # seconds by the clock for one verb, which only what does not compute can need
SHOWN = 500  # mutations from one line of progress to the next


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first mutation")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time")
    parser.add_argument("--folder", type=Path, help="where the runs are made, or were made before")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="fuzz"))
    os.environ |= {"XDG_CONFIG_HOME": str(folder / "config"), "XDG_DATA_HOME": str(folder / "data")}
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    make_runs_apart(folder)
    numbers = range(args.first, args.first + args.mutations)
    unexplained = report(supervised(partial(mutations, folder), numbers, WAIT), time.monotonic() + args.seconds)
    if args.folder is None:
        shutil.rmtree(folder)
    return 1 if unexplained else 0


def make_runs_apart(folder: Path) -> None:
    """In a process of its own, so that this one does not grow. Raises RuntimeError if a run cannot be made."""
    for tried in supervised(partial(make_all, folder), range(1), 3600.0):
        if not tried.explained:
            raise RuntimeError(f"A run could not be made: {tried.says}")


def report(results: Iterator[Tried], end: float) -> int:
    """The number of verbs that were not explained. Prints each as it occurs, progress, and all of them at the end."""
    outcomes: collections.Counter[str] = collections.Counter()
    seen: dict[int, bool] = {}  # number of a mutation -> whether all of it is explained
    listed = []
    for tried in results:
        begun = tried.begun
        if begun.number not in seen and len(seen) % SHOWN == 0 and seen:
            print(f"{sum(seen.values()):,} of {len(seen):,} explained", flush=True)
        seen[begun.number] = seen.get(begun.number, True) and tried.explained
        how = "works" if tried.says == "works" else "refused"
        outcomes[f"{begun.verb}: {how if tried.explained else 'UNEXPLAINED'}"] += 1
        if not tried.explained:
            listed.append(f"{begun.number} {begun.run} {begun.verb}: {begun.what}")
            print(f"UNEXPLAINED {listed[-1]}\n{tried.says}", flush=True)
        if time.monotonic() > end:
            break
    print(
        f"mutations {min(seen):,} to {max(seen):,}: {sum(seen.values()):,} of {len(seen):,} explained" if seen else ""
    )
    print(", ".join(f"{k} {v:,}" for k, v in sorted(outcomes.items())))
    print("\n".join(["Not explained:", *listed] if listed else ["Everything is explained."]))
    return len(listed)


if __name__ == "__main__":
    sys.exit(main())
