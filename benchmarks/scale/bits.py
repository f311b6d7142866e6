"""Whether several processes have the bits of one, for every family: `python -m benchmarks.scale.bits FOLDER FIRST LAST`
trains each from step FIRST, which is in the folder, to step LAST; alone in two micro-batches, or with another process.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from tests.contracts.learners import learn, trainer
from tests.contracts.rows import FAMILIES, SPACES, examples

from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.training import checkpoint, ranks
from benchmarks.common.results import Row
from benchmarks.scale.together import run_together

MODULE = "benchmarks.scale.bits"
STEPS, CHANGES = 100, (34, 67)  # where the number of processes changes
MICRO_BATCH = 4  # of eight examples


def every() -> list[tuple[str, str]]:
    return [(row.title, space) for row in FAMILIES for space in row.spaces]


def train(folder: Path, first: int, last: int) -> None:
    """Every family in each of its spaces."""
    for title, space in every():
        root = folder / f"{title}-{space}"
        learner = trainer(next(r for r in FAMILIES if r.title == title), SPACES[space])
        learner.config = learner.config.model_copy(update={"micro_batch": MICRO_BATCH, "steps": STEPS})
        if first:
            saved = checkpoint.newest(root)
            assert saved is not None and saved.step == first
            learner.restore(saved)
        learn(learner, Loader(examples(SPACES[space]), SPACES[space], Rng(0)), last - first)
        ranks.wait()
        if ranks.leads():
            checkpoint.save(root, learner.snapshot())
        ranks.wait()


def trained(folder: Path, *parts: tuple[int, int]) -> Path:
    """A folder in which every family was trained by one part after another: (processes, last step)."""
    folder.mkdir()
    first = 0
    for processes, last in parts:
        run_together([MODULE, str(folder), str(first), str(last)], folder / "log", processes)
        first = last
    return folder


def same(one: Path, other: Path, case: tuple[str, str]) -> bool:
    """Whether the last checkpoints hold the same bits: weights, averages, moments and states of objectives."""
    name = f"{case[0]}-{case[1]}/{STEPS:06d}"
    files = sorted(f.name for f in (one / name).glob("*.safetensors"))
    assert files and files == sorted(f.name for f in (other / name).glob("*.safetensors"))
    return all((one / name / f).read_bytes() == (other / name / f).read_bytes() for f in files)


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        alone = trained(root / "alone", (1, STEPS))
        compared = {
            f"two processes, {STEPS} steps": trained(root / "two", (2, STEPS)),
            "two, then one, then two": trained(root / "changing", (2, CHANGES[0]), (1, CHANGES[1]), (2, STEPS)),
        }
        made = []
        for what, folder in compared.items():
            equal = [same(alone, folder, case) for case in every()]
            made.append(
                Row(
                    "several processes, bits",
                    f"families in their spaces whose whole state has the bits of one process; {what}",
                    f"{sum(equal)} of {len(equal)}",
                    ratio=sum(equal) / len(equal),
                    goal="all",
                    reached=all(equal),
                    n=f"{len(equal)} pairs of a family and a space, float32 on a processor",
                )
            )
        return made


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks.join()
    train(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
