"""Every family trains and samples on a device without float64, and there draws the numbers that it draws on a CPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from afresh.core import Space
from afresh.core.device import computing_device, computing_on
from afresh.core.rng import Rng, uniform_each
from afresh.data.load import Loader
from afresh.runs.run import Run
from afresh.training.budget import synchronise
from afresh.training.config import TrainConfig
from afresh.training.loop import take_step
from afresh.training.plan import make_learner
from tests.contracts.rows import SPEC, FamilyRow, conditions, examples
from tests.contracts.test_families import configured, every_case
from tests.pretended import NAME, Pretended, pretended_device


def test_the_pretended_device_refuses_what_apples_gpu_refuses() -> None:
    with pretended_device():
        x = torch.arange(3.0, device=NAME)
        assert x.device.type == NAME and isinstance(x * 2, Pretended) and (x * 2).tolist() == [0, 2, 4]
        assert not isinstance(x.cpu(), Pretended)
        for refused in (x.double, lambda: torch.zeros(2, dtype=torch.float64).to(NAME)):
            with pytest.raises(TypeError, match="float64"):
                refused()
        with pytest.raises(RuntimeError, match="same device"):
            x + torch.ones(3)


def test_numbers_are_those_of_a_cpu() -> None:
    index, purposes = torch.arange(5), list("abcde")
    rng = Rng(7)
    with pretended_device():
        here = index.to(NAME)
        for numbers in (
            lambda i: rng.bits("x", i, (3,)),
            lambda i: rng.uniform("x", i, (3,)),
            lambda i: rng.normal("x", i, (3,)),
            lambda i: uniform_each([(rng, p, j) for p, j in zip(purposes, i.tolist(), strict=True)], i.device),
        ):
            assert isinstance(numbers(here), Pretended) and torch.equal(numbers(here).cpu(), numbers(index))


@pytest.mark.parametrize("gone", ["cuda", "cuda:7", "mps"])
def test_a_run_moves_to_a_device_that_is_there(gone: str) -> None:
    moved = Run.train.fget(SimpleNamespace(record=SimpleNamespace(train=config_on(gone))))  # type: ignore[attr-defined]
    assert moved == config_on("cpu")


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


def config_on(device: str) -> TrainConfig:
    return TrainConfig(steps=2, batch=4, micro_batch=4, save_every=2, threads=1, device=device)


@every_case
def test_a_family_trains_and_samples_without_float64(row: FamilyRow, space: Space) -> None:
    found = {device: trained_samples(row, space, device) for device in ("cpu", NAME)}
    assert found["cpu"].isfinite().all()
    torch.testing.assert_close(found[NAME], found["cpu"], rtol=1e-3, atol=1e-4)


def trained_samples(row: FamilyRow, space: Space, device: str) -> torch.Tensor:
    """Samples after two steps on the device, moved to the CPU."""
    family, config = configured(row)
    own = {**family.plan.recipe, "steps": 2, "batch": 4, "micro_batch": 4, "save_every": 2, "ema_half_life": 50.0}
    train = TrainConfig(**own, cond_dropout=0.2, device=device)
    with pretended_device():
        learner = make_learner(family, config, space, SPEC, train)
        loader, rng = Loader(examples(space), space, Rng(0), 4), Rng(0)
        for step in range(2):
            assert take_step(learner, loader.batch(4 * step, 4).to(device), rng) is not None
            learner.step += 1
        settings = family.sampling.settings(**row.settings)
        cond, index = conditions(2).to(device), torch.arange(2, device=device)
        with torch.no_grad():
            x = family.sampling.sample(learner.modules, config, space, cond, rng, index, settings)
        return x.cpu()
