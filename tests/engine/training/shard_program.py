"""A process of several that divide networks: trains one of each family for a few steps, and writes what results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.training import ranks
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner
from afresh.engine.training.optim import Muon
from afresh.engine.training.plan import make_learner
from afresh.engine.training.sharding import own_part, whole
from tests.contracts.learners import configured, learn
from tests.contracts.rows import FAMILIES, SPACES, SPEC, examples

STEPS = 3
ROWS = (
    ("transformer", "stream"),
    ("masked", "residual"),
    ("vae", "line"),
    ("vae-bags", "bags"),
    ("vae-records", "records"),
    ("gan", "line"),
    ("flow", "line"),
    ("autoencoder", "line"),
    ("fewstep", "line"),
)
ROOMY = ("transformer", "stream")  # the network that is also trained with its layers computed again
# Names as in a decoder, and shapes of which some do not divide by two.
MATRICES = {"qkv.weight": (12, 6), "gate_up.weight": (14, 4), "a.weight": (1, 5), "conv.weight": (5, 2, 3), "b": (9, 7)}


def learner_of(title: str, space: str, **train: Any) -> Learner:
    """A new learner for steps of eight examples in micro-batches of four. Matrices learn by AdamW, as the products in
    bfloat16 of Muon make large differences of small ones."""
    row = next(r for r in FAMILIES if r.title == title)
    family, config = configured(row, SPACES[space])
    own = {
        **family.plan.recipe(SPACES[space]),
        "steps": 8,
        "batch": 8,
        "micro_batch": 4,
        "save_every": 8,
        "ema_half_life": 50.0,
        "warmup": 2,
        "optimizer": "adamw",
        "cond_dropout": 0.2,
    }
    return make_learner(family, config, SPACES[space], SPEC, TrainConfig(**{**own, **train}))


def trained(learner: Learner, space: str) -> dict[str, Tensor]:
    """The whole state after STEPS steps, in rank 0."""
    learn(learner, Loader(examples(SPACES[space]), SPACES[space], Rng(0)), STEPS)
    groups = learner.snapshot().tensors
    return {
        f"{group}.{name}": v.contiguous().clone() for group, tensors in groups.items() for name, v in tensors.items()
    }


def moved_matrices(params: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Matrices after two steps of Muon with the same gradients everywhere."""
    optimizer = Muon(params, 0.1)
    for step in range(2):
        for number, p in enumerate(params.values()):
            grad = Rng(step).normal("grad", torch.tensor([number]), tuple(p.shape))[0]
            p.grad = divided(grad) if ranks.world() > 1 else grad
        optimizer.step(0.1)
    return {k: whole(p) for k, p in params.items()}


def matrices() -> dict[str, Tensor]:
    return {name: Rng(9).normal("p", torch.tensor([i]), shape)[0] for i, (name, shape) in enumerate(MATRICES.items())}


def divided(t: Tensor) -> Tensor:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    return distribute_tensor(t, init_device_mesh("cpu", (ranks.world(),)), [Shard(0)])


def bytes_kept(learner: Learner) -> int:
    """The bytes of weights, averages and the optimisers' states in this process."""
    kept = [p for net in learner.modules.values() for p in net.parameters()]
    kept += [t for own in learner.averages.values() for t in own.values()]
    kept += [t for os in learner.optimizers.values() for o in os for t in o.state().values()]
    return sum(own_part(t).numel() * t.element_size() for t in kept)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    ranks.join()
    sizes: dict[str, Any] = {}
    for title, space in ROWS:
        learner = learner_of(title, space, shard=True)
        tensors = trained(learner, space)
        sizes[f"{title}-{space}"] = ranks.from_all(bytes_kept(learner))
        if ranks.leads():
            save_file(tensors, folder / f"{title}-{space}.safetensors")
    again = trained(learner_of(*ROOMY, shard=True, recompute=True), ROOMY[1])
    by_muon = moved_matrices({k: nn.Parameter(divided(v)) for k, v in matrices().items()})
    if ranks.leads():
        save_file(again, folder / "again.safetensors")
        save_file(by_muon, folder / "muon.safetensors")
        (folder / "bytes.json").write_text(json.dumps(sizes))
