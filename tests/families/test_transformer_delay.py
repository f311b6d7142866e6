"""The Transformer over residual codes in the delay pattern: an exact likelihood, and samples that follow it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from scipy.stats import chisquare
from torch import Tensor, nn

from afresh.core import Batch, Cond, Part, Space, UserError
from afresh.core.rng import Rng
from afresh.families.transformer import FAMILY, TransformerConfig, TransformerSettings, score
from afresh.formats.decoder import base_of
from afresh.nets.delay import Delayed, undelayed
from afresh.training.lora import LoraConfig, attach
from tests.alignment.methods import test_exact_alignment as exact
from tests.families import test_transformer as flat

CODES = 3
TINY = Space("tokens", (4,), (CODES + 1,), {"begin": CODES}, grid=(2, 2), levels=2)  # 2 places of 2 levels
DEEP = Space("tokens", (15,), (5,), {"begin": 4}, grid=(5, 3), levels=3)
CONFIG = TransformerConfig(width=16, layers=2, heads=2, kv_heads=1, pattern="delay")
SPEC = {"label": Part("label", classes=("a", "b"))}


def made(
    space: Space, conds: dict[str, Part] | None = None, config: TransformerConfig = CONFIG
) -> dict[str, nn.Module]:
    return flat.made(space, conds, config)


def drawn(space: Space, cond: Cond, modules: dict[str, nn.Module], seed: int = 0, **settings: Any) -> Tensor:
    chosen = TransformerSettings(**settings)
    return FAMILY.sampling.sample(modules, CONFIG, space, cond, Rng(seed), torch.arange(cond.size), chosen)


def every(values: int, begin: int = CODES) -> Tensor:
    """All sequences of TINY with so many values a token, led by `begin`."""
    return torch.cartesian_prod(torch.tensor([begin]), *[torch.arange(values)] * 4)


def chances(modules: dict[str, nn.Module]) -> Tensor:
    """Of all sequences of codes, among tokens that may be drawn, from the full forward pass, (81,) float64."""
    net, x = modules["decoder"], every(CODES)
    assert isinstance(net, Delayed)
    logs = undelayed(net(net.before(x[:, 1:]), None)[..., :CODES].double().log_softmax(-1)).flatten(1, 2)
    return logs.gather(2, x[:, 1:, None])[..., 0].sum(1).exp()


def test_likelihoods_sum_to_one() -> None:
    """Over all 4^4 sequences of two places and two levels, `begin` among the values."""
    x = every(CODES + 1)
    nats = score(made(TINY), CONFIG, TINY, Batch(x, Cond(len(x)), torch.arange(len(x))), Rng(0))
    assert float(nats.double().exp().sum()) == pytest.approx(1, abs=1e-5)


def test_a_fresh_model_costs_log_v_a_code() -> None:
    modules = FAMILY.build(CONFIG, DEEP, {})
    x = torch.randint(0, 4, (3, 16), generator=torch.Generator().manual_seed(0))
    total, weight, _ = FAMILY.objective(CONFIG, DEEP).loss(
        modules, Batch(x, Cond(3), torch.arange(3)), "model", 0, Rng(0), {}
    )
    assert weight == 3 * 15 and float(total.detach()) / weight == pytest.approx(math.log(5), rel=1e-6)


def test_a_code_that_does_not_count_costs_nothing_and_is_seen() -> None:
    modules, x = made(DEEP), torch.randint(0, 4, (1, 16), generator=torch.Generator().manual_seed(0))

    def cost(mask: Tensor) -> Tensor:
        return -score(modules, CONFIG, DEEP, Batch(x, Cond(1), torch.arange(1), mask), Rng(0))

    ones = torch.eye(15, dtype=torch.bool)
    parts = torch.stack([cost(m[None]) for m in ones])
    torch.testing.assert_close(parts.sum(0), cost(torch.ones(1, 15, dtype=torch.bool)), rtol=1e-5, atol=1e-5)


def test_samples_come_as_often_as_the_full_forward_pass_says() -> None:
    modules, n = made(TINY), 12_000
    x = drawn(TINY, Cond(n), modules)
    p = chances(modules)
    assert x.shape == (n, 4) and float(p.sum()) == pytest.approx(1, abs=1e-6)
    count = torch.bincount((x * torch.tensor([27, 9, 3, 1])).sum(1), minlength=81)
    assert chisquare(count.numpy(), (p / p.sum() * n).numpy(), sum_check=False).pvalue > 1e-3


def test_two_levels_are_continued_as_the_likelihood_says() -> None:
    """Given the first place whole: the codes of one step do not see one another, so that nothing known comes late."""
    modules, n = made(TINY), 12_000
    given = torch.tensor([[2, 1]]).expand(n, 2)
    x = drawn(TINY, Cond(n, given=given), modules)
    assert bool((x[:, :2] == given).all())
    p = chances(modules).view(3, 3, 3, 3)[2, 1].flatten()
    count = torch.bincount(x[:, 2] * 3 + x[:, 3], minlength=9)
    assert chisquare(count.numpy(), (p / p.sum() * n).numpy(), sum_check=False).pvalue > 1e-3


def test_what_is_known_stays_whatever_its_length() -> None:
    modules = made(DEEP)
    rows = [[], [1], [3, 2, 0, 1], [0, 1, 2, 3] * 3 + [1, 1, 1]]
    values = torch.zeros(4, 15, dtype=torch.int64)
    mask = torch.zeros(4, 15, dtype=torch.bool)
    for i, row in enumerate(rows):
        values[i, : len(row)], mask[i, : len(row)] = torch.tensor(row, dtype=torch.int64), True
    x = drawn(DEEP, Cond(4, given=values, given_mask=mask), modules)
    assert x.shape == (4, 15) and int(x.max()) < 4
    assert all(x[i, : len(row)].tolist() == row for i, row in enumerate(rows))


@pytest.mark.parametrize("engine", [True, False], ids=["engine", "eager"])
@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {}, {"guidance": 2.5, "top_k": 3}])
def test_sampling_with_a_cache_is_sampling_without(
    settings: dict[str, Any], engine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the full forward pass at each step, for which all codes so far are fed anew."""
    if not engine:
        monkeypatch.setattr("afresh.nets.decoding.engine_of", lambda net, kind: None)
    modules, n = made(DEEP, SPEC), 6
    net = modules["decoder"]
    assert isinstance(net, Delayed)
    cond = Cond(n, {"label": torch.arange(n) % 2}, {"label": torch.arange(n) % 3 > 0})
    cached = drawn(DEEP, cond, modules, **settings)

    def whole(net: Delayed, context: int, weights: str) -> Any:
        def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
            fed = x[:, None] if state is None else torch.cat([state.inner, x[:, None]], 1)
            return net(fed, net.condition(cond))[:, -1], Fed(fed)

        return predict

    monkeypatch.setattr("afresh.families.transformer.step_predictor", whole)
    assert torch.equal(drawn(DEEP, cond, modules, **settings), cached)
    assert bool((cached != drawn(DEEP, cond, modules, seed=1, **settings)).any()) or "temperature" in settings


class Fed:
    """A state of all steps fed so far."""

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner


def test_the_policys_steps_are_those_of_its_samples() -> None:
    """Log-probabilities of the sampler, of the training path, and of the whole; what was given has none."""
    modules, n = made(DEEP, SPEC), 5
    policy = FAMILY.policy
    assert policy is not None and policy.rollout is not None and policy.steps is not None
    cond = Cond(n, {"label": torch.arange(n) % 2}, {"label": torch.ones(n, dtype=torch.bool)})
    given = replace(cond, given=torch.full((n, 4), 2))
    for request, first in ((cond, 0), (given, 4)):
        made_so = policy.rollout(modules, CONFIG, DEEP, request, Rng(1), torch.arange(n), TransformerSettings())
        assert torch.equal(made_so.x, made_so.batch.x[:, 1:]) and made_so.batch.mask is not None
        assert not made_so.batch.mask[:, :first].any() and bool(made_so.batch.mask[:, first:].all())
        steps = policy.steps(modules, CONFIG, DEEP, made_so.batch)
        torch.testing.assert_close(steps.logp, made_so.logp, rtol=1e-4, atol=1e-4)
        assert steps.entropy.shape == (n, 15) and steps.features.shape == (n, 15, 16)
        assert bool((steps.entropy[:, first:] > 0).all()) and bool((steps.entropy <= math.log(4) + 1e-5).all())
    with pytest.raises(UserError, match="learnt as it is"):
        hot = TransformerSettings(temperature=2.0)
        policy.rollout(modules, CONFIG, DEEP, cond, Rng(1), torch.arange(n), hot)


class Places(exact.Strings):
    """The strings of four letters as two places of two levels."""

    def built(self) -> dict[str, Any]:
        self.config = self.config.model_copy(update={"pattern": "delay"})
        return super().built()


@pytest.mark.parametrize("method,given", [("rloo", {}), ("ppo", {"reuse": 2})])
def test_a_policy_is_steered_towards_the_optimum(
    method: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not onto it: the codes of one step do not see one another, which the optimum asks for."""
    monkeypatch.setattr(exact, "SPACE", replace(exact.SPACE, grid=(2, 2), levels=2))
    strings = Places()
    best, before = strings.worth(strings.optimum), strings.worth(strings.q)
    logs, _ = strings.steered(method, 80, 128, 3e-3, beta=exact.BETA, **given)
    assert float(logs.exp().sum()) == pytest.approx(1, abs=1e-5)
    assert strings.worth(logs) > before + 0.6 * (best - before)


@pytest.mark.parametrize("pattern", ["delay", "flat"])
def test_a_second_level_that_follows_from_the_first_is_learnt(pattern: str) -> None:
    """A random first level, and a second that is a function of it: log 3 nats a place, where 2 log 3 is ignorance."""
    space = Space("tokens", (12,), (CODES + 1,), {"begin": CODES}, grid=(6, 2), levels=2)
    config = CONFIG.model_copy(update={"width": 32, "pattern": pattern})
    torch.manual_seed(0)
    modules = FAMILY.build(config, space, {})
    objective = FAMILY.objective(config, space)
    optimizer = torch.optim.Adam(modules["decoder"].parameters(), 0.01)

    def batch(first: int, n: int) -> Batch:
        coarse = (Rng(4).uniform("coarse", torch.arange(first, first + n), (6,)) * 3).long()
        codes = torch.stack([coarse, (coarse + 1) % 3], 2).flatten(1)
        return Batch(nn.functional.pad(codes, (1, 0), value=CODES), Cond(n), torch.arange(first, first + n))

    for i in range(120):
        total, weight, _ = objective.loss(modules, batch(64 * i, 64), "model", i, Rng(0), {})
        optimizer.zero_grad()
        (total / weight).backward()
        optimizer.step()
    with torch.no_grad():
        nats = -float(score(modules, config, space, batch(10**6, 256), Rng(0)).mean()) / 6  # a place
        x = FAMILY.sampling.sample(modules, config, space, Cond(200), Rng(0), torch.arange(200), TransformerSettings())
    assert nats == pytest.approx(math.log(3), abs=0.05)
    follows = (x[:, 1::2] == (x[:, ::2] + 1) % 3).float().mean()
    assert float(follows) > 0.97


def test_an_adapter_begins_as_nothing_and_then_has_a_say() -> None:
    modules = made(DEEP)
    net, x = modules["decoder"], torch.randint(0, 4, (2, 16), generator=torch.Generator().manual_seed(0))
    batch = Batch(x, Cond(2), torch.arange(2))
    before, samples = score(modules, CONFIG, DEEP, batch, Rng(0)), drawn(DEEP, Cond(9), modules)
    assert attach(net, LoraConfig(rank=2), Rng(0)) > 0
    torch.testing.assert_close(score(modules, CONFIG, DEEP, batch, Rng(0)), before)
    assert torch.equal(drawn(DEEP, Cond(9), modules), samples)
    with torch.no_grad():
        for p in net.parameters():
            if p.requires_grad:  # the adapter alone
                nn.init.normal_(p, std=0.5)
    assert not torch.allclose(score(modules, CONFIG, DEEP, batch, Rng(0)), before)


@pytest.mark.parametrize("space", [replace(TINY, levels=1), Space("tokens", (8,), (9,), {"end": 8}, stream=True)])
def test_tokens_of_one_level_are_refused_with_a_way_on(space: Space) -> None:
    with pytest.raises(UserError, match=r"one\. Leave family\.pattern out.*family\.residual=2.*--codec RUN"):
        FAMILY.build(CONFIG, space, {})


def test_what_follows_a_text_token_by_token_is_refused() -> None:
    with pytest.raises(UserError, match=r"several at once.*family\.pattern=flat"):
        drawn(TINY, Cond(1), made(TINY), watch=lambda row, token, likely: False)


def test_other_programs_files_are_refused_in_words() -> None:
    modules: Any = made(DEEP)
    tokenizer: Any = None
    with pytest.raises(UserError, match="fixed length, which no"):
        base_of(modules, CONFIG, DEEP, tokenizer, Cond(1), "run")


def test_an_unknown_pattern_is_refused() -> None:
    with pytest.raises(ValidationError):
        TransformerConfig.model_validate({"pattern": "parallel"})
