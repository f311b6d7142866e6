"""SipHash-2-4 by its published vectors."""

from __future__ import annotations

from struct import unpack

import pytest
import torch

from afresh.services.watermark.watermark import siphash, siphash_by_pytorch
from tests import needs

KEY = torch.tensor(unpack("<2q", bytes(range(16))))
# Of the messages 00 01 02 ..., by their length: the reference implementation's vectors.h.
VECTORS = {8: "6224939a79f5f593", 16: "db9bc2577fcc2a3f"}


@pytest.mark.parametrize("length", [8, 16])
def test_the_published_vectors(length: int) -> None:
    words = torch.tensor([unpack(f"<{length // 8}q", bytes(range(length)))])
    for function in (siphash, siphash_by_pytorch):
        assert int(function(words, KEY)[0]) == unpack("<q", bytes.fromhex(VECTORS[length]))[0]


@needs.kernels
def test_the_kernel_gives_what_pytorch_does() -> None:
    words = torch.randint(-(2**62), 2**62, (50, 5), generator=torch.Generator().manual_seed(0))
    assert torch.equal(siphash(words, KEY), siphash_by_pytorch(words, KEY))
    assert torch.equal(siphash(words.T[:3].T, KEY), siphash_by_pytorch(words[:, :3], KEY))
