"""How a device computes, and how numbers are read from it."""

from __future__ import annotations

import torch

from afresh.core.device import read, tensor_cores


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
