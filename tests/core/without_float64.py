"""Every family trains, samples, rates, edits and is aligned on a device without float64, with the numbers of a CPU.

Run by `make nightly`, in processes of their own: torch counts devices when it first computes a gradient, so that the
pretended device must exist before any other test has done so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from afresh.core import AlignContext, Aligner, AlignTarget, Edit, Modules, Space, Votes, registry
from afresh.core.rng import Rng
from afresh.data.load import Loader, sweep
from afresh.engine.families import flow, gan
from afresh.engine.families.vae import fields
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner, take_step
from afresh.engine.training.plan import make_learner
from tests.contracts.learners import configured
from tests.contracts.rows import FAMILIES, SPACES, FamilyRow, conditions, examples
from tests.contracts.test_families import built, every_case, existing
from tests.core.pretended import NAME, Pretended, pretended_device


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solvers and searches take few steps: each does on the device what the others do."""
    monkeypatch.setattr(flow, "LIKELIHOOD_STEPS", 3)
    for module in (gan, fields):
        monkeypatch.setattr(module, "SEARCH", 5)


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
    index = torch.arange(5)
    rng = Rng(7)
    with pretended_device():
        here = index.to(NAME)
        for numbers in (
            lambda i: rng.bits("x", i, (3,)),
            lambda i: rng.uniform("x", i, (3,)),
            lambda i: rng.normal("x", i, (3,)),
        ):
            assert isinstance(numbers(here), Pretended) and torch.equal(numbers(here).cpu(), numbers(index))


@every_case
def test_a_family_trains_and_samples_without_float64(row: FamilyRow, space: Space) -> None:
    found = {device: trained_samples(row, space, device) for device in ("cpu", NAME)}
    assert found["cpu"].isfinite().all()
    torch.testing.assert_close(found[NAME], found["cpu"], rtol=1e-3, atol=1e-4)


def trained_samples(row: FamilyRow, space: Space, device: str) -> torch.Tensor:
    """Samples after two steps on the device, moved to the CPU."""
    family, config = configured(row, space)
    own = {
        **family.plan.recipe(space),
        "steps": 2,
        "batch": 4,
        "micro_batch": 4,
        "save_every": 2,
        "ema_half_life": 50.0,
    }
    train = TrainConfig(**own, cond_dropout=0.2, device=device)
    with pretended_device():
        learner = make_learner(family, config, space, row.conds, train)
        loader, rng = Loader(examples(space), space, Rng(0), 4), Rng(0)
        for step in range(2):
            assert take_step(learner, loader.batch(4 * step, 4).to(device), rng) is not None
            learner.step += 1
        settings = family.sampling.settings(**row.settings)
        cond, index = conditions(2).to(device), torch.arange(2, device=device)
        with torch.no_grad():
            x = family.sampling.sample(learner.modules, config, space, cond, rng, index, settings)
        return x.cpu()


rated = pytest.mark.parametrize("row", [r for r in FAMILIES if r.family().likelihood], ids=lambda r: r.title)
edited = pytest.mark.parametrize(  # a row with one space has a stream, which edits do not take
    "row", [r for r in FAMILIES if r.family().edit and len(r.spaces) > 1], ids=lambda r: r.title
)


@rated
def test_a_family_rates_examples_without_float64(row: FamilyRow) -> None:
    (family, config), space = configured(row), SPACES[row.spaces[0]]
    assert family.likelihood is not None
    batch = next(sweep(examples(space), space, 5))
    density = family.likelihood.density if space.kind == "field" else None
    for rate in filter(None, (family.likelihood.score, density)):
        check_same(
            row, space, lambda modules, device, rate=rate: rate(modules, config, space, batch.to(device), Rng(0))
        )


@edited
def test_a_family_edits_without_float64(row: FamilyRow) -> None:
    space = SPACES[row.spaces[1]]  # no stream either
    family, config = configured(row, space)
    start = existing(space)
    keep = Rng(9).uniform("keep", torch.arange(len(start)), tuple(start.shape[1:])) < 0.5
    settings = family.sampling.settings(**row.settings)

    def after(modules: Modules, device: str) -> torch.Tensor:
        assert family.edit is not None
        task = Edit(start.to(device), 0.7, keep.to(device))
        cond, index = conditions(len(start)).to(device), torch.arange(len(start), device=device)
        return family.edit(modules, config, space, task, cond, Rng(3), index, settings)

    check_same(row, space, after)


def check_same(row: FamilyRow, space: Space, computed: Callable[[Modules, str], torch.Tensor]) -> None:
    """The same numbers from the same weights on a CPU and on the device."""
    found = {}
    for device in ("cpu", NAME):
        with pretended_device(), torch.no_grad():
            modules = {k: m.to(device) for k, m in built(row, space).items()}
            found[device] = computed(modules, device).cpu()
    torch.testing.assert_close(found[NAME], found["cpu"], rtol=1e-3, atol=1e-4)


METHODS = ("grpo", "reinforce", "ppo", "dpo", "rejection", "nft", "draft")  # one of each kind
ALIGNED = [
    pytest.param(row, SPACES[row.spaces[0]], aligner, id=f"{row.title}-{name}")
    for row in FAMILIES
    if (policy := row.family().policy) is not None
    for name in METHODS
    if set((aligner := registry.aligners()[name]).needs) <= {*policy.has()}
]


@pytest.mark.parametrize("row,space,aligner", ALIGNED)
def test_a_family_is_aligned_without_float64(row: FamilyRow, space: Space, aligner: Aligner) -> None:
    """Muon orthogonalises in bfloat16, in which numbers that differ by rounding may differ by its last bit."""
    found = {device: aligned_weights(row, space, aligner, device) for device in ("cpu", NAME)}
    torch.testing.assert_close(found[NAME], found["cpu"], rtol=1e-2, atol=1e-3)


def aligned_weights(row: FamilyRow, space: Space, aligner: Aligner, device: str) -> torch.Tensor:
    """All weights after two steps of an aligner on the device, moved to the CPU."""
    family, config = configured(row, space)
    assert family.policy is not None
    chosen = aligner.config(**({"group": 2} if "group" in aligner.config.model_fields else {}))
    own = {**family.plan.recipe(space), **aligner.recipe, "steps": 2, "batch": 4, "micro_batch": 4, "save_every": 2}
    train = TrainConfig(**{**own, "ema_half_life": 0.0, "device": device})
    settings = family.sampling.settings(**({"length": 5} if space.kind == "tokens" else row.settings))
    with pretended_device():
        steered = family, config, space, settings, lambda x: x.flatten(1).mean(1)
        modules, reference = ({k: m.to(device) for k, m in built(row, space).items()} for _ in range(2))
        for name in family.policy.moves:
            modules[name].requires_grad_(True)
        modules |= {k: m.to(device) for k, m in aligner.modules(chosen, modules).items()}
        state = dict(aligner.first(chosen))
        learner = Learner(modules, aligner.objective(chosen, AlignTarget(*steered)), train, state=state)
        context = AlignContext(
            *steered,
            modules=modules,
            reference=reference,
            rng=Rng(1),
            noise=Rng(2),
            requests=lambda first, n: conditions(24).select(torch.arange(first, first + n) % 24),
            state=lambda: learner.state,
            steps=lambda: 2,
            reward=lambda x, cond: x.cpu().flatten(1).double().mean(1),  # as rewards are: of a CPU, in float64
            votes=votes(space),
        )
        batches = aligner.batches(chosen, context)
        for step in range(2):
            assert take_step(learner, batches(4 * step, 4).to(device), Rng(2)) is not None
            learner.step += 1
        return torch.cat([p.detach().cpu().flatten() for m in modules.values() for p in m.parameters()])


def votes(space: Space) -> Votes:
    batch = next(sweep(examples(space), space, 8))
    win, lose = (batch.select(torch.arange(8).view(2, 4)[side]) for side in range(2))
    mask = torch.ones(4, win.x.shape[1] - 1, dtype=torch.bool) if space.kind == "tokens" else None
    win, lose = (replace(side, mask=mask, index=torch.arange(4)) for side in (win, lose))
    return Votes(win, lose, torch.zeros(4, dtype=torch.bool), torch.ones(4))
