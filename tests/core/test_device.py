"""How a device computes, and how numbers are read from it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from afresh.core.device import computing_device, computing_on, read, tensor_cores, tensor_on
from afresh.engine.training.budget import synchronise
from afresh.engine.training.config import TrainConfig
from afresh.runs.run import Run


def test_float32_products_on_cuda_may_use_tf32_within_the_block_alone() -> None:
    before = torch.get_float32_matmul_precision()
    with tensor_cores("cuda:1"):
        assert torch.get_float32_matmul_precision() == "high"
    for device in ("cpu", "mps"):
        with tensor_cores(device):
            assert torch.get_float32_matmul_precision() == before


def test_numbers_are_read_to_the_bit_whatever_their_types() -> None:
    values = {
        "single": torch.tensor(0.1),
        "half": torch.tensor([0.1], dtype=torch.bfloat16),
        "double": torch.tensor(0.1, dtype=torch.float64, requires_grad=True),
        "whole": torch.tensor((1 << 40) + 1),
    }
    assert read(values, torch.device("cpu")) == {k: float(v.detach()) for k, v in values.items()}


@pytest.mark.parametrize("gone", ["cuda", "cuda:7", "mps"])
def test_a_run_moves_to_a_device_that_is_there(gone: str) -> None:
    config = TrainConfig(steps=2, batch=4, micro_batch=4, save_every=2, threads=1, device=gone)
    moved = Run.train.fget(SimpleNamespace(record=SimpleNamespace(train=config)))  # type: ignore[attr-defined]
    assert moved == config.model_copy(update={"device": "cpu"})


def test_timings_wait_for_the_device_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    for device in ("cpu", "mps", "cuda:1"):
        synchronise(device)
    assert waited == [torch.device("mps"), torch.device("cuda", 1)]


def test_what_reads_data_computes_on_the_chosen_device() -> None:
    with computing_on("cuda:3"):
        assert computing_device() == torch.device("cuda", 3)
        with computing_on(None):
            assert computing_device() == torch.device("cuda", 3)
    assert computing_device() == torch.device("cpu")


def test_values_go_to_cuda_from_page_locked_memory_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: calls.append("locked") or x)
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *args, **options: calls.append((args, options)) or x)
    cuda = torch.device("cuda", 1)
    assert tensor_on(cuda, [1, 2]).tolist() == [1, 2] and tensor_on(cuda, [], torch.int64).dtype is torch.int64
    assert calls == 2 * ["locked", ((cuda,), {"non_blocking": True})]
    calls.clear()
    tensor_on(torch.device("mps"), [1.5])
    assert calls == [((torch.device("mps"),), {})]
