"""Kills runs of every kind, and of every way to end early, at many points each: `python -m tools.kills [POINTS]`.

Prints how many of them end with the same bits as an undisturbed one.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.engine.training.killed import EARLY_ENDS, Whole, Zygote
from tests.engine.training.zygote import BASES, RUNS


def main(points: int) -> None:
    """Kill runs of every kind at so many points each, spread evenly, and print how they end."""
    wholes = [(kind, None) for kind in (*RUNS, *BASES)]
    with tempfile.TemporaryDirectory() as folder:
        zygote = Zygote(Path(folder))
        equal = tried = 0
        for kind, early in (*EARLY_ENDS, *wholes):
            began, faults = time.monotonic(), []
            whole = Whole(zygote, Path(folder) / f"{kind}-{early}", kind, early)
            chosen = random.Random(37).sample(range(len(whole.points)), min(points, len(whole.points)))
            for at in sorted(chosen):
                run = whole.copy(f"kill{at}")
                try:
                    assert whole.go_on(run, fault="kill", at=at) == -signal.SIGKILL
                    whole.check(run)
                except AssertionError as error:
                    faults.append(f"    {whole.points[at]} ({at}): {' '.join(str(error).split())[:200]}")
                shutil.rmtree(run.parent)
            tried, equal = tried + len(chosen), equal + len(chosen) - len(faults)
            name = f"{kind}, ended early by {early} at step {int(whole.last)}" if early else kind
            ended = f"{len(chosen) - len(faults)} of {len(chosen)} bit-equal, {time.monotonic() - began:.0f} s"
            print(f"{name}: {ended}", *faults, sep="\n", flush=True)
        zygote.close()
    print(f"in total {equal} of {tried}")
    sys.exit(equal < tried)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
