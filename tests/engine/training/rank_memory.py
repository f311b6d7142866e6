"""A process of several, the second of which has a memory for two examples."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from afresh.core.rng import Rng
from afresh.engine.training import loop, ranks
from tests.engine.training.test_device_memory import Bounded
from tests.engine.training.toys import batches, flat, learner

if __name__ == "__main__":
    ranks.join()
    live = learner(Bounded(8 if ranks.leads() else 2), batch=8, micro_batch=8)
    folder = Path(sys.argv[1])
    loop.run(live, batches(live.config), folder / "checkpoints", Rng(0), loop.Hooks())
    own = {**flat(live.snapshot()), "micro_batch": torch.tensor(live.micro_batch)}
    save_file(own, folder / f"{ranks.rank()}.safetensors")
