"""The model of communication: its formulas against sums that are counted by hand, and its fit against given times."""

from __future__ import annotations

import math

import pytest

from benchmarks.scale import published
from benchmarks.scale.model import (
    NODE,
    Cluster,
    Link,
    Network,
    all_reduce,
    efficiency,
    exchanged_bytes,
    fit,
    step_seconds,
)
from benchmarks.scale.page import cluster

SLOW, FAST = Link(1e-3, 1e9), Link(1e-6, 1e11)


def test_a_ring_sends_a_part_in_each_round() -> None:
    # Four members: three rounds to sum the quarters and three to pass them on.
    assert all_reduce(4e9, 4, SLOW, "ring") == pytest.approx(6 * (1e-3 + 1e9 / 1e9))
    assert all_reduce(4e9, 1, SLOW, "ring") == 0.0 == all_reduce(4e9, 1, SLOW, "tree")


def test_a_tree_goes_up_and_down() -> None:
    assert all_reduce(4e9, 8, SLOW, "tree") == pytest.approx(6e-3 + 2 * 4.0)
    few, many = (all_reduce(0, 1024, SLOW, how) for how in ("tree", "ring"))
    assert (few, many) == pytest.approx((20e-3, 2046e-3))


def test_nodes_exchange_what_each_gpu_holds_of_their_sum() -> None:
    known = Cluster(FAST, SLOW)
    assert known.all_reduce(8e9, NODE, "ring") == pytest.approx(1e-6 + 2 * 7 / 8 * 8e9 / 1e11)
    assert known.all_reduce(8e9, 2 * NODE, "ring") == pytest.approx(
        1e-6 + 2e-3 + 8e9 / NODE / 1e9
    )  # slower than within
    assert known.all_reduce(8, 64 * NODE) == pytest.approx(12e-3, rel=1e-3)  # a tree, as only latency counts


def test_a_line_is_found_again_and_its_errors_are_told() -> None:
    sizes = [10.0**k for k in range(3, 10)]
    line = fit({s: 2e-4 + s / 5e8 for s in sizes})
    assert (line.latency, line.rate) == pytest.approx((2e-4, 5e8)) and line.largest_error < 1e-9
    off = fit({s: (2e-4 + s / 5e8) * (1.2 if s == 1e6 else 1.0) for s in sizes})
    assert 0.1 < off.largest_error < 0.2
    with pytest.raises(ValueError, match="do not grow"):
        fit({1e3: 1.0, 1e6: 0.5})


def test_a_step_hides_what_it_can() -> None:
    network, known = Network("1M", 1e6, 1e3), Cluster(FAST, SLOW)
    assert network.work == 6e9
    assert exchanged_bytes(network, 8, "sum") == exchanged_bytes(network, 8, "FSDP") == 7 / 8 * 8e6
    whole = known.all_reduce(4e6, 16)
    assert step_seconds(network, 16, "sum", known, 1e9) == pytest.approx(6.0 + whole)
    assert step_seconds(network, 16, "overlapped sum", known, 1e9) == pytest.approx(6.0 + whole)  # one bucket
    assert step_seconds(network, 16, "FSDP", known, 1e9) == pytest.approx(6.0, rel=1e-2)
    assert efficiency(network, 1, "sum", known, 1e9) == 1.0
    large = Network("1G", 1e9, 1e3)
    quick = Cluster(FAST, Link(1e-6, 1e9))
    ways = [efficiency(large, 1024, way, quick, 1e13) for way in ("sum", "overlapped sum")]
    assert ways[0] < ways[1] < 1.0


def test_the_model_foretells_sums_that_others_measured() -> None:
    """It was fitted to eight GPUs and one hop alone; a sum of 1,984 GPUs and large ones of two nodes are foretold."""
    known, inside = cluster()
    gpus = NODE * published.LARGE_NODES
    measured = 2 * (gpus - 1) / gpus * published.LARGE_BYTES / published.LARGE_BUS
    assert known.all_reduce(published.LARGE_BYTES, gpus) == pytest.approx(measured, rel=0.05)
    largest = max(published.INFINIBAND)
    assert known.all_reduce(largest, 16) == pytest.approx(published.INFINIBAND[largest], rel=0.1)
    assert math.isclose(known.node.rate, 433e9, rel_tol=0.01) and inside.median_error < 0.1
