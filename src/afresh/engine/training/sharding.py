"""Networks that are divided over the processes that train together (ranks.py), by PyTorch's FSDP2: each process keeps a
part of every weight, and of its gradient, moments and average.

A whole weight exists only while it is used. A layer that the family names (PlanHints.blocks) is gathered for its
forward pass and again for its backward pass; all other weights are gathered for as long as a gradient is computed.
Weights are divided by their first dimension, and so is everything that is kept for each; single numbers are copied.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, distributed, nn

from afresh.core import Batch, Loss, Objective, State, UserError
from afresh.core.rng import Rng
from afresh.engine.nets.transformer import Linear
from afresh.engine.training import ranks
from afresh.engine.training.config import TrainConfig

# torch.distributed's tensors and FSDP2 are imported where they are needed, since that takes a second.


class Division(nn.Module):
    """The modules of a learner as one, so that all that an objective does with them happens in one forward pass, in
    which their weights are there. `plain`: copies without weights, to be filled for evaluations."""

    def __init__(self, modules: Mapping[str, nn.Module], plain: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.nets, self.plain = nn.ModuleDict(dict(modules)), [plain]  # in a list, so that it is no part of this module

    def forward(self, objective: Objective, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        return objective.loss(dict(self.nets.items()), batch, player, step, rng, state)

    def filled(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, nn.Module]:
        """Plain modules with these weights, {module: {name: tensor}}."""
        out = copy.deepcopy(dict(self.plain[0]))  # anew, since a network may remember what it made of its weights
        for name, net in out.items():
            net.load_state_dict(dict(tensors[name]), assign=True)
        return out


def check_division(config: TrainConfig) -> None:
    """Raises UserError if a network cannot be divided with this configuration."""
    if config.precision == "float16":
        raise UserError(
            "A network that computes in float16 cannot be divided over processes. Use bfloat16 or float32 "
            "(`train.precision`), or keep it whole (`train.shard=no`).",
            "not_divided",
        )
    if config.offload and torch.device(config.device).type == "cpu":
        raise UserError(
            "`train.offload` moves what a device does not need at once to main memory. This run trains on the CPU, "
            "where there is nothing to move. Leave it out.",
            "not_divided",
        )


def divide(modules: Mapping[str, nn.Module], blocks: Sequence[nn.Module], config: TrainConfig) -> Division:
    """Divide modules, in place. Those of `blocks` are gathered one at a time. Raises UserError if the configuration
    does not allow it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

    check_division(config)
    device = torch.device(config.device).type
    for module in (m for net in modules.values() for m in net.modules()):
        if isinstance(module, Linear):
            module.keeps_narrow = False
    for net in modules.values():
        net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # FSDP2 accepts no other
    plain = {name: without_weights(net) for name, net in modules.items()}
    mesh = init_device_mesh(device, (ranks.world(),))
    # The kernels for a CPU read norms' weights in float32, and gain nothing from a smaller exchange.
    narrow = torch.bfloat16 if config.precision == "bfloat16" and device != "cpu" else None
    policy = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32, cast_forward_inputs=False)
    offload = CPUOffloadPolicy() if config.offload else OffloadPolicy()
    whole = Division(modules, plain)
    single = {p for net in modules.values() for p in net.parameters() if p.dim() == 0}  # which cannot be divided
    for p in single:
        p.data = p.data.to(config.device)
    for part in (*blocks, whole):
        own = fully_shard(part, mesh=mesh, mp_policy=policy, offload_policy=offload, ignored_params=single)
        own.set_gradient_divide_factor(1.0)  # gradients are sums (core/model.py)
        own.set_force_sum_reduction_for_comms(True)
    # A process may have no example with a condition, whose weights another process uses.
    whole.set_reduce_scatter_unused_params(True)  # type: ignore[operator]  # fully_shard has made it an FSDPModule
    return whole


def without_weights(net: nn.Module) -> nn.Module:
    """A copy whose parameters have shapes but no memory."""
    empty = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in net.parameters()}
    return copy.deepcopy(net, empty)


# --------------------------------------------------------------------------- parts of tensors


def divided(t: Tensor) -> bool:
    """Whether a tensor is one of which each process has a part."""
    known = sys.modules.get("torch.distributed.tensor")
    return known is not None and isinstance(t, known.DTensor)


def own_part(t: Tensor) -> Tensor:
    """The part of this process, as a view; a tensor that is not divided as it is."""
    if not divided(t):
        return t
    with torch.no_grad():
        part: Tensor = t.to_local()  # type: ignore[attr-defined]
    return part


def whole(t: Tensor) -> Tensor:
    """A whole copy of a tensor, in every process; all of them have to ask for it."""
    if not divided(t):
        return t.detach().clone()
    full: Tensor = t.detach().full_tensor()  # type: ignore[attr-defined]
    return full


def whole_for_leader(t: Tensor) -> Tensor:
    """The whole tensor in rank 0, in main memory, and an empty one in the others; all of them have to ask for it. A
    tensor that is not divided is returned as it is, not as a copy."""
    if not divided(t):
        return t.detach()
    full = whole(t)
    return full.cpu() if ranks.leads() else full.new_empty(0)


def divided_like(t: Tensor, full: Tensor) -> Tensor:
    """A whole tensor divided as `t` is. Raises RuntimeError if it has another shape."""
    if not divided(t) or divided(full):
        return full
    if full.shape != t.shape:
        raise RuntimeError(f"a tensor has the shape {tuple(full.shape)}, not {tuple(t.shape)}")
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = t.device_mesh, t.placements  # type: ignore[attr-defined]
    full = full.to(own_part(t).device)
    return distribute_tensor(full, mesh, placements, src_data_rank=None)  # each process has all of it already


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all tensors together; some may be divided."""
    parts = [own_part(t) for t in tensors if divided(t)]
    copies = [t for t in tensors if not divided(t)]
    if not parts:
        return torch.nn.utils.get_total_norm(copies)
    square = torch.nn.utils.get_total_norm(parts).square()
    distributed.all_reduce(square)
    if copies:
        square = square + torch.nn.utils.get_total_norm(copies).to(square.device).square()
    return square.sqrt()


# --------------------------------------------------------------------------- whole matrices, each in one process


def owners(tensors: Sequence[Tensor]) -> list[int]:
    """The process that computes with each of some divided tensors, so that all have about as much to do."""
    loads = [0] * ranks.world()
    out = [0] * len(tensors)
    for i in sorted(range(len(tensors)), key=lambda i: -tensors[i].numel()):
        out[i] = loads.index(min(loads))
        loads[out[i]] += tensors[i].numel()
    return out


def rows_of(t: Tensor, rank: int) -> int:
    """How many of the rows of a divided tensor a process has."""
    each = -(-len(t) // ranks.world())
    return max(0, min(len(t), (rank + 1) * each) - rank * each)


def to_owners(like: Sequence[Tensor], parts: Sequence[Tensor], owner: Sequence[int]) -> dict[int, Tensor]:
    """Assemble the tensors that this process owns, {number: tensor}, from the parts that each process has of all."""
    mine = [i for i, rank in enumerate(owner) if rank == ranks.rank()]
    sent = [torch.cat([parts[i].reshape(-1) for i in of] or [parts[0].new_empty(0)]) for of in by_rank(owner)]
    sizes = [[rows_of(like[i], r) * (like[i].numel() // len(like[i])) for i in mine] for r in range(ranks.world())]
    got = [flat.split(own) for flat, own in zip(exchange(sent, [sum(s) for s in sizes]), sizes, strict=True)]
    return {i: torch.cat([pieces[n] for pieces in got]).view(like[i].shape) for n, i in enumerate(mine)}


def from_owners(like: Sequence[Tensor], wholes: Mapping[int, Tensor], owner: Sequence[int]) -> list[Tensor]:
    """The parts of this process of all tensors, from the whole ones that each process owns: undoes `to_owners`."""
    count, empty = ranks.world(), own_part(like[0]).new_empty(0)
    sent = []
    for rank in range(count):
        firsts = {i: sum(rows_of(t, r) for r in range(rank)) for i, t in ((i, like[i]) for i in wholes)}
        cut = [wholes[i][first : first + rows_of(like[i], rank)].reshape(-1) for i, first in firsts.items()]
        sent.append(torch.cat(cut or [empty]))
    sizes = [[own_part(like[i]).numel() for i in of] for of in by_rank(owner)]
    got = exchange(sent, [sum(s) for s in sizes])
    out = [empty] * len(like)
    for flat, of, own in zip(got, by_rank(owner), sizes, strict=True):
        for i, piece in zip(of, flat.split(own), strict=True):
            out[i] = piece.view(own_part(like[i]).shape)
    return out


def by_rank(owner: Sequence[int]) -> list[list[int]]:
    """The numbers of the tensors of each process."""
    return [[i for i, r in enumerate(owner) if r == rank] for rank in range(ranks.world())]


def exchange(sent: Sequence[Tensor], sizes: Sequence[int]) -> Sequence[Tensor]:
    """Send a flat tensor to each process, and return what each has sent to this one, of these sizes."""
    out = sent[0].new_empty(sum(sizes))
    distributed.all_to_all_single(out, torch.cat(list(sent)), list(sizes), [len(s) for s in sent])
    return out.split(list(sizes))
