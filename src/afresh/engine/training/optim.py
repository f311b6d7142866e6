"""AdamW and Muon over named parameters, whose states are named tensors.

Muon (Jordan et al. 2024, github.com/KellerJordan/Muon) replaces the momentum by the nearest semi-orthogonal matrix,
which five steps of a quintic Newton-Schulz iteration approximate. Matrices of the same shape are orthogonalised in one
batch; a fused projection (`qkv`, `gate_up`) is split first, since its parts are separate maps.

Of parameters that are divided over processes (sharding.py), each process updates its parts. Muon needs whole matrices:
each is orthogonalised by one process, which receives the others' parts of its momentum and returns those of the result.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from afresh.engine.training import sharding
from afresh.engine.training.ema import copy_named
from afresh.engine.training.sharding import own_part

NS = (3.4445, -4.7750, 2.0315)  # coefficients of the quintic iteration, Jordan et al. 2024


def orthogonalise(m: Tensor, steps: int = 5, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Approximate U V^T for each matrix m = U S V^T of m (N, R, C); the singular values end up in about [0.7, 1.2]."""
    a, b, c = NS
    x = m.to(dtype)
    tall = m.shape[1] > m.shape[2]
    if tall:
        x = x.mT
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).to(dtype)
    for _ in range(steps):
        g = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(g, g, g, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).float()


def is_matrix(name: str, p: Tensor) -> bool:
    """Whether Muon should train a parameter: hidden matrices and convolutions, not embeddings, heads or conditions."""
    outer = ("embedding", "head", "conditioning", "position", "table", "null", "time", "first", "last")
    return p.dim() >= 2 and not any(w in part for part in name.split(".") for w in outer)


def in_layout_of(p: Tensor, grad: Tensor) -> Tensor:
    """The gradient with the strides of its parameter, which CUDA's fused operator demands even along axes of length 1,
    where torch's autograd does not see to it (github.com/pytorch/pytorch/issues/106951)."""
    return grad if grad.stride() == p.stride() else torch.empty_like(p).copy_(grad)


class Muon:
    """Muon over {name: matrix}. The spectral norm of an update is about lr * sqrt(max(1, rows / columns))."""

    def __init__(self, params: Mapping[str, nn.Parameter], decay: float, momentum: float = 0.95) -> None:
        self.params, self.decay, self.momentum = dict(params), decay, momentum
        self.buffers = {k: torch.zeros_like(p) for k, p in self.params.items()}

    @property
    def param_groups(self) -> list[dict[str, list[nn.Parameter]]]:
        """The parameters, as torch.amp.GradScaler asks for them."""
        return [{"params": list(self.params.values())}]

    @staticmethod
    def split(name: str, m: Tensor) -> list[Tensor]:
        """The separate maps of a matrix, as views of its rows: q, k, v; gate, up."""
        if name.endswith("gate_up.weight"):
            return list(m.chunk(2))
        if name.endswith("qkv.weight"):
            width = m.shape[1]  # q has as many rows as the residual stream is wide; k and v share the rest
            rest = (m.shape[0] - width) // 2
            return list(m.split([width, rest, rest]))
        return [m]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update the parameters from their gradients."""
        names = list(self.params)
        grads = [own_part(g) for n in names if (g := self.params[n].grad) is not None]
        assert len(grads) == len(names)
        moments = [own_part(self.buffers[n]) for n in names]
        torch._foreach_lerp_(moments, grads, 1 - self.momentum)
        nesterov = torch._foreach_lerp(grads, moments, self.momentum)
        params = list(self.params.values())
        if sharding.divided(params[0]):
            self.step_divided(names, params, nesterov, lr)
            return
        for parts, update, scale in self.directions(names, params, nesterov):
            torch._foreach_mul_(parts, 1 - lr * self.decay)
            torch._foreach_add_(parts, update, alpha=-lr * scale)

    def directions(
        self, names: Sequence[str], targets: Sequence[Tensor], momenta: Sequence[Tensor]
    ) -> Iterator[tuple[list[Tensor], list[Tensor], float]]:
        """For the maps of each shape: views of the targets, the orthogonalised momenta of the same shapes, and what
        they are multiplied by in addition to the rate."""
        groups: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for name, target, momentum in zip(names, targets, momenta, strict=True):
            for part, view in zip(self.split(name, momentum), self.split(name, target.detach()), strict=True):
                flat = part.flatten(1)  # copies a kernel stored channels-last; the weight keeps its layout
                groups[(flat.shape[0], flat.shape[1])].append((flat, view))
        for (rows, columns), pairs in groups.items():
            update = orthogonalise(torch.stack([flat for flat, _ in pairs]))
            views = [view for _, view in pairs]
            found = [u.view(v.shape) for u, v in zip(update, views, strict=True)]
            yield views, found, math.sqrt(max(1.0, rows / columns))

    def step_divided(self, names: list[str], params: Sequence[Tensor], momenta: Sequence[Tensor], lr: float) -> None:
        """The update of partitioned parameters, from this process's parts of their momenta."""
        owner = sharding.owners(params)
        mine = sharding.to_owners(params, momenta, owner)
        updates = {i: torch.empty_like(m) for i, m in mine.items()}
        for parts, found, scale in self.directions(
            [names[i] for i in mine], list(updates.values()), list(mine.values())
        ):
            for part, direction in zip(parts, found, strict=True):
                part.copy_(direction * scale)
        weights = [own_part(p) for p in params]
        torch._foreach_mul_(weights, 1 - lr * self.decay)
        torch._foreach_add_(weights, sharding.from_owners(params, updates, owner), alpha=-lr)

    def state(self) -> dict[str, Tensor]:
        """The state as named tensors, for a checkpoint."""
        return {f"muon.{k}": v for k, v in self.buffers.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state. Raises KeyError or RuntimeError if it belongs to other parameters."""
        for k, v in self.buffers.items():
            copy_named(v, state, f"muon.{k}")


class AdamW:
    """torch's fused AdamW over {name: parameter}. Only tensors of two or more dimensions decay.

    The operator is called directly, since torch.optim's class imports torch's compiler, which takes a second.
    """

    def __init__(
        self, params: Mapping[str, nn.Parameter], decay: float, betas: tuple[float, float], eps: float = 1e-8
    ) -> None:
        self.params, self.decay, self.betas, self.eps = dict(params), decay, betas, eps
        self.moments = {  # allocated at once, so that a checkpoint before the first step holds them
            k: {
                "step": torch.zeros((), dtype=torch.float32, device=p.device),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }
            for k, p in self.params.items()
        }

    @property
    def param_groups(self) -> list[dict[str, list[nn.Parameter]]]:
        """The parameters, as torch.amp.GradScaler asks for them."""
        return [{"params": list(self.params.values())}]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update the parameters that have gradients."""
        for decays in (True, False):
            names = [k for k, p in self.params.items() if p.grad is not None and (p.dim() >= 2) == decays]
            if names:
                self.update(names, lr, self.decay if decays else 0.0)

    def update(self, names: list[str], lr: float, decay: float) -> None:
        params = [own_part(self.params[k]) for k in names]
        grads = [own_part(g) for k in names if (g := self.params[k].grad) is not None]
        steps, averages, squares = (
            [own_part(self.moments[k][m]) for k in names] for m in ("step", "exp_avg", "exp_avg_sq")
        )
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            params,
            [in_layout_of(p, g) for p, g in zip(params, grads, strict=True)],
            averages,
            squares,
            [],
            steps,
            lr=lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )
        torch.autograd.graph.increment_version(params)  # the fused step does not do it

    def state(self) -> dict[str, Tensor]:
        """The state as named tensors, for a checkpoint."""
        return {f"adamw.{k}.{kind}": t for k, own in self.moments.items() for kind, t in own.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state. Raises KeyError or RuntimeError if it belongs to other parameters."""
        for k, own in self.moments.items():
            for kind, t in own.items():
                copy_named(t, state, f"adamw.{k}.{kind}")
