"""Where torch.compile does not work, training goes on without it and says why in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from afresh.core import events, registry
from afresh.core.rng import Rng
from afresh.engine.training import plan
from afresh.engine.training.compiling import first_reason
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import take_step
from tests.contracts.rows import PLANE, SPEC
from tests.engine.training.toys import Squares, batches, config, flat, learner, same

NO_HEADERS = """C++ compile error

Command: g++ /tmp/x.main.cpp -O3

Output:
/tmp/x.h:1:10: fatal error: Python.h: No such file or directory
"""


def test_the_reason_is_the_line_that_names_the_error() -> None:
    assert first_reason(NO_HEADERS) == "/tmp/x.h:1:10: fatal error: Python.h: No such file or directory"
    assert first_reason("Cannot find a working triton\ninstallation") == "Cannot find a working triton"
    assert first_reason("") == ""


def test_a_learner_is_made_without_torch_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "compile_fault", lambda device: "Python.h: No such file or directory")
    family, told = registry.family("vae"), list[events.Event]()
    train = TrainConfig(**{**family.plan.recipe(PLANE), "steps": 2, "batch": 4, "micro_batch": 4, "save_every": 2})
    with events.listening(told.append):
        made = plan.make_learner(
            family, family.config(width=8, latent=4, cond=8), PLANE, SPEC, train.model_copy(update={"compile": True})
        )
    assert [m._compiled_call_impl for m in made.modules.values()] == [None] * len(made.modules)
    assert len(told) == 1 and "goes on without it: Python.h" in told[0].text


@pytest.mark.slow
def test_a_compiler_that_does_not_work_is_found_out() -> None:
    """In a process of its own, because torch looks for the compiler once."""
    code = "from afresh.engine.training.compiling import compile_fault; print(compile_fault('cpu'))"
    command = [sys.executable, "-c", code]
    env = os.environ | {"CXX": "/bin/false", "PYTHONPATH": str(Path(plan.__file__).parents[3])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "No working C++ compiler found" in done.stdout and len(done.stdout.splitlines()) == 1


def test_a_network_that_cannot_be_compiled_is_trained_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though a small function can be."""
    batch = batches(config())(0, 4)
    plain = learner(Squares(2))
    assert take_step(plain, batch, Rng(0)) is not None
    live, told = learner(Squares(2), compile=True), list[events.Event]()

    def refused(*args: object, **kwargs: object) -> object:
        raise RuntimeError("Unsupported: an operation of this network\n  in a long report")

    live.modules["second"]._compiled_call_impl = refused
    with events.listening(told.append):
        assert take_step(live, batch, Rng(0)) is not None
    assert same(flat(live.snapshot()), flat(plain.snapshot()))
    assert [e.text.rpartition(": ")[0] for e in told] == [
        "torch.compile does not work for this network, so training goes on without it: Unsupported"
    ]
