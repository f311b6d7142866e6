"""A base whose hidden layers are held in few bits while an adapter is tuned on it: when it is, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from torch import nn

from afresh.core import UserError, events
from afresh.engine.nets.frozen_linear import BITS, KINDS, Kind, operators
from afresh.engine.training.budget import Machine
from afresh.engine.training.network import empty_network
from afresh.engine.training.plan import Decision
from afresh.engine.training.weights import in_few_bits
from afresh.runs.formats.public import BaseModel
from afresh.runs.latent_space import LatentSpace

ROOM = 2 / 3  # share of the memory that the weights of a base may take; the rest is for what is computed


def check_frozen(settings: Mapping[str, Any], based: bool, adapter: bool, personal: bool) -> None:
    """Raises UserError if `train.frozen` is set where no adapter is tuned on a base that is the run's own copy."""
    if settings.get("frozen", "float32") == "float32":
        return
    why = None
    if not based:
        why = "It is of a base that an adapter is tuned on (`afresh tune`)"
    elif not adapter:
        why = "Weights in few bits cannot learn: keep the adapter (leave `full` out)"
    elif personal:
        why = "The adapter of a person uses the weights of its base, which stay in float32"
    elif settings.get("shard"):
        why = "A network that is divided over processes (`train.shard`) has its weights in float32"
    if why is not None:
        raise UserError(f"`train.frozen={settings['frozen']}` cannot be had here. {why}. Leave it out.", "frozen")


def frozen_kind(
    count: int, machine: Machine, settings: Mapping[str, Any], free: bool
) -> tuple[Kind | None, Decision | None]:
    """How the hidden layers of a base of `count` weights are held, None for float32, and the decision if it is one.
    `free`: whether they may be in few bits at all."""
    if (given := settings.get("frozen")) is not None:
        return (None, None) if given == "float32" else (given, Decision("frozen", given, "set by hand"))
    sizes = {"float32": 4.0 * count} | {k: count * BITS[k] / 8 for k in KINDS}
    if not free or not machine.memory or sizes["float32"] <= ROOM * machine.memory:
        return None, None
    why = f"in float32 its weights need {sizes['float32'] / 1e9:.3g} GB, and {machine.memory / 1e9:.3g} GB are there"
    if find_spec("bitsandbytes") is None:
        events.warning(
            f"The base may not fit the memory: {why}. Its hidden layers can be held in int8 or nf4: pip install "
            "'afresh[quantized]'.",
            "base_too_large",
        )
        return None, None
    kind: Kind = "int8" if sizes["int8"] <= ROOM * machine.memory else "nf4"
    return kind, Decision("frozen", kind, why)


def in_memory(
    base: BaseModel, latent: LatentSpace, machine: Machine, settings: Mapping[str, Any], free: bool
) -> tuple[BaseModel, Decision | None]:
    """The base as it is held in memory, and the decision if it is not simply in float32. Raises UserError if
    bitsandbytes is not installed but asked for."""
    network = nn.ModuleDict(empty_network(latent.family, base.config, latent.space, base.encoder.conds))
    kind, decision = frozen_kind(sum(p.numel() for p in network.parameters()), machine, settings, free)
    if kind is None:
        return base, None
    operators()
    return replace(base, weights=in_few_bits(network, base.weights, kind)), decision
