"""A model of the time of a step on many processes: what is exchanged, how long that takes, and what it hides behind.

Seconds, bytes and FLOP throughout. `docs/results/scaling.md` states the assumptions and shows what follows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

NODE = 8  # GPUs
BUCKET = 25e6  # bytes of gradients whose sum starts together, as DistributedDataParallel has it
LAYERS = 32  # of a network whose weights are gathered layer by layer

Way = Literal["sum", "overlapped sum", "FSDP"]
WAYS: tuple[Way, ...] = ("sum", "overlapped sum", "FSDP")


# --------------------------------------------------------------------------- one exchange

How = Literal["ring", "tree"]


@dataclass(frozen=True)
class Link:
    """Between neighbours: the seconds until a message begins to arrive, and bytes a second."""

    latency: float
    rate: float


def rounds(how: How, members: int) -> int:
    """The messages that follow one another in an all-reduce."""
    return 2 * (members - 1) if how == "ring" else 2 * math.ceil(math.log2(members))


def sent(how: How, members: int) -> float:
    """What each member sends, as a multiple of the content: around a ring parts of it (Patarasuk and Yuan 2009), up and
    down two trees that share the content the whole of it, in pieces (Sanders, Speck and Träff 2009)."""
    return 0.0 if members == 1 else 2 * (members - 1) / members if how == "ring" else 2.0


def all_reduce(size: float, members: int, link: Link, how: How) -> float:
    return rounds(how, members) * link.latency + sent(how, members) * size / link.rate


@dataclass(frozen=True)
class Cluster:
    """Nodes of NODE GPUs. `node`: the seconds of the smallest all-reduce within one, and bytes a second of each GPU's
    links there; `net`: seconds of a hop between nodes, and bytes a second of each GPU's own interface."""

    node: Link
    net: Link

    def all_reduce(self, size: float, gpus: int, how: How | None = None) -> float:
        """Summed within nodes, then each GPU's part between nodes, then gathered within nodes. The phases overlap, so
        that the slower one counts. The faster of ring and tree if `how` is not given."""
        if how is None:
            return min(self.all_reduce(size, gpus, "ring"), self.all_reduce(size, gpus, "tree"))
        inside, nodes = min(NODE, gpus), math.ceil(gpus / NODE)
        within = sent("ring", inside) * size / self.node.rate
        between = sent(how, nodes) * size / NODE / self.net.rate
        return self.node.latency + rounds(how, nodes) * self.net.latency + max(within, between)


# --------------------------------------------------------------------------- fits


@dataclass(frozen=True)
class Fit:
    """seconds = latency + bytes / rate, and how far it is from what was measured: the median and the largest error,
    relative."""

    latency: float
    rate: float
    median_error: float
    largest_error: float


def fit(measured: Mapping[float, float]) -> Fit:
    """The line with the least relative errors in squares through {bytes: seconds}. Latency and rate are positive."""
    sizes, seconds = (np.array(x, float) for x in zip(*sorted(measured.items()), strict=True))
    known = np.stack([1 / seconds, sizes / seconds], 1)  # 1 = latency / seconds + (bytes / rate) / seconds
    latency, slowness = np.linalg.lstsq(known, np.ones(len(sizes)), rcond=None)[0]
    if latency <= 0 or slowness <= 0:
        raise ValueError("these times do not grow with the size as those of an exchange")
    errors = np.abs((latency + sizes * slowness) / seconds - 1)
    return Fit(float(latency), float(1 / slowness), float(np.median(errors)), float(errors.max()))


# --------------------------------------------------------------------------- a step


@dataclass(frozen=True)
class Network:
    """`tokens`: of each GPU in a step."""

    name: str
    parameters: float
    tokens: float

    @property
    def work(self) -> float:
        """FLOP of a step of one GPU: 6 for each parameter and token; attention is left out."""
        return 6 * self.parameters * self.tokens


def exchanged_bytes(network: Network, gpus: int, way: Way) -> float:
    """Bytes that each GPU sends in a step: the sum of gradients in float32, or with FSDP weights in bfloat16 gathered
    twice and gradients in float32 summed to where they belong. Both come to eight bytes for each parameter."""
    around = (gpus - 1) / gpus
    if way == "FSDP":
        return around * network.parameters * (2 + 2 + 4)
    return 2 * around * network.parameters * 4


def step_seconds(network: Network, gpus: int, way: Way, cluster: Cluster, speed: float) -> float:
    """`speed`: FLOP a second that one GPU reaches without others.

    A plain sum follows the backward pass, which is two thirds of the work. An overlapped one hides behind it but for
    its last bucket. FSDP hides behind all work but for the first layer's weights.
    """
    compute, size = network.work / speed, 4 * network.parameters
    if gpus == 1:
        return compute
    if way == "sum":
        return compute + cluster.all_reduce(size, gpus)
    if way == "overlapped sum":
        buckets = max(1, round(size / BUCKET))
        each = cluster.all_reduce(size / buckets, gpus)
        return compute / 3 + max(2 / 3 * compute, (buckets - 1) * each) + each
    each = cluster.all_reduce(size / LAYERS, gpus)  # as many bytes as the gathers and the sum of a layer
    return max(compute, LAYERS * each) + each / 4


def efficiency(network: Network, gpus: int, way: Way, cluster: Cluster, speed: float) -> float:
    """The share of the speed of single GPUs, the batch growing with their number."""
    return network.work / speed / step_seconds(network, gpus, way, cluster, speed)


def memory(network: Network, gpus: int, way: Way) -> float:
    """Bytes of weights, gradients and two moments in float32 on each GPU."""
    return 16 * network.parameters / (gpus if way == "FSDP" else 1)
