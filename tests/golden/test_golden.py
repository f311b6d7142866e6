"""A change that is not meant to change what is learnt does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from afresh.core import registry
from tests.golden import NARROW, ROWS, TOLERANCE, losses, stored

PLAIN = {
    "AFRESH_KERNELS": "0",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}


class NothingNarrow(TorchDispatchMode):
    """Fails where an operator returns a tensor of less than double precision."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        assert not any(isinstance(t, torch.Tensor) and t.dtype in NARROW for t in tree_leaves(out)), func
        return out


def agree(found: Mapping[str, list[float]], family: str) -> None:
    expected = stored(family)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=TOLERANCE, abs=0), name


def test_every_family_has_golden_losses() -> None:
    assert set(registry.FAMILIES) <= set(ROWS) <= {*registry.FAMILIES, *registry.FOREIGN}


@pytest.mark.parametrize("family", ROWS)
def test_losses_are_those_of_the_last_version(family: str) -> None:
    with NothingNarrow():
        result = losses(family)
    agree(result, family)


@pytest.mark.slow
def test_losses_do_not_depend_on_the_processor() -> None:
    """The same numbers from the plainest instructions that PyTorch, oneDNN and MKL can be restricted to."""
    code = "import json; from tests.golden import *; print(json.dumps({family: losses(family) for family in ROWS}))"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **PLAIN}, capture_output=True, check=True)
    for family, result in json.loads(done.stdout).items():
        agree(result, family)
