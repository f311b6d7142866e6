"""The autoencoder's critic: the game in closed form, who is moved, what it changes, and that no codec needs it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from afresh.core import Batch, Cond, Examples, Space
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.families.autoencoder import FAMILY, GAMMA, AutoencoderConfig, AutoencoderObjective
from afresh.families.codecs.trained import load, of_modules
from afresh.training.config import TrainConfig
from afresh.training.loop import Learner, averaged, take_step
from afresh.training.plan import make_learner

PLANE = Space("field", (1, 8, 8), std=0.5)


def made(space: Space = PLANE, **config: Any) -> tuple[AutoencoderConfig, dict[str, nn.Module]]:
    torch.manual_seed(0)
    c = AutoencoderConfig(**{"width": 8, "factor": 2, **config})
    return c, FAMILY.build(c, space, {})


def batch(n: int = 4) -> Batch:
    rows = torch.arange(n)
    return Batch(Rng(5).normal("x", rows, PLANE.shape) * PLANE.std, Cond(n), rows + 10)


def loss(config: AutoencoderConfig, modules: dict[str, nn.Module], player: str = "model") -> Any:
    return AutoencoderObjective(config, PLANE).loss(modules, batch(), player, 0, Rng(1), {})


def grained(n: int) -> Examples:
    """A slow wave of any phase with grain of half its power, which no code of a few numbers could tell, (n, 1, 8, 8) of
    variance 1/4."""
    rows = torch.arange(n)
    phase = 2 * math.pi * Rng(3).uniform("phase", rows)[:, None]
    wave = (2 * math.pi * torch.arange(8) / 8 + phase).sin()[:, None, None] / 3**0.5
    grain = Rng(3).normal("grain", rows, PLANE.shape) / 12**0.5
    return Examples(wave + grain, Cond(n))


def learnt(steps: int, examples: Examples, **config: Any) -> tuple[AutoencoderConfig, Learner]:
    c = AutoencoderConfig(**{"width": 16, "factor": 4, "channels": 2, **config})
    own = {**FAMILY.plan.recipe, "warmup": 10}
    train = TrainConfig(**own, steps=steps, batch=32, micro_batch=32, save_every=steps, cond_dropout=0.0)
    learner = make_learner(FAMILY, c, PLANE, {}, train)
    loader = Loader(examples, PLANE, Rng(0))
    for learner.step in range(steps):
        assert take_step(learner, loader.batch(learner.step * 32, 32), Rng(0)) is not None
    return c, learner


# --------------------------------------------------------------------------- the game


def test_without_a_weight_there_is_no_critic() -> None:
    config, modules = made()
    assert "critic" not in modules and list(AutoencoderObjective(config, PLANE).players) == ["model"]
    config, modules = made(adversarial=0.1)
    assert "critic" in modules and list(AutoencoderObjective(config, PLANE).players) == ["model", "critic"]


@pytest.mark.parametrize("bottleneck", ["kl", "vq", "fsq"])
def test_the_model_pays_for_what_the_critic_tells_from_its_original(bottleneck: str) -> None:
    config, modules = made(adversarial=0.3, bottleneck=bottleneck)
    total, _, metrics = loss(config, modules)
    plain = loss(config.model_copy(update={"adversarial": 0.0}), modules)[0]
    with torch.no_grad():
        x = batch().x
        back, _ = AutoencoderObjective(config, PLANE).made(modules, batch(), Rng(1), all_codes=True)
        told = F.softplus(modules["critic"](x) - modules["critic"](back)).flatten(1).mean(1).sum()
        measured = loss(config, modules)[0]
    torch.testing.assert_close(metrics["adversarial"], told)
    torch.testing.assert_close(total, plain + 0.3 * told)
    torch.testing.assert_close(measured, plain)  # where it is only measured, the critic has no say


class Times(nn.Module):
    """k x of every cell."""

    def __init__(self, k: float) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(k))

    def forward(self, x: Tensor) -> Tensor:
        return (self.k * x).squeeze(1)


def test_the_critic_plays_r3gan_on_places() -> None:
    """With k x as the score of each cell, its slopes are k: R1 and R2 are k^2 in units of the data."""
    config, modules = made(adversarial=0.3)
    modules["critic"] = Times(0.7)
    with torch.no_grad():
        back, _ = AutoencoderObjective(config, PLANE).made(modules, batch(), Rng(1), all_codes=False)
    pairing = F.softplus(0.7 * (back - batch().x)).flatten(1).mean(1).sum()
    total, weight, metrics = loss(config, modules, "critic")
    penalty = 0.49 * PLANE.std**2
    torch.testing.assert_close(metrics["r1"], torch.tensor(4 * penalty))
    torch.testing.assert_close(metrics["r2"], torch.tensor(4 * penalty))
    torch.testing.assert_close(total, pairing + GAMMA * 4 * penalty)
    torch.testing.assert_close(metrics["ahead"], (batch().x > back).float().mean() * 4)
    assert weight == 4
    gradients = torch.autograd.grad(total, list(modules["decoder"].parameters()), allow_unused=True)
    assert all(g is None for g in gradients)  # the model is not moved in the critic's turn


def test_codes_that_are_left_out_for_the_model_are_left_out_for_its_critic() -> None:
    config, modules = made(adversarial=0.3, bottleneck="fsq", residual=3, levels=(3, 3))
    objective = AutoencoderObjective(config, PLANE)
    some, every = (objective.made(modules, batch(16), Rng(1), all_codes=v)[0] for v in (False, True))
    different = (some != every).flatten(1).any(1)
    assert 0 < int(different.sum()) < 16  # half keep all


def test_both_players_move_and_each_its_own() -> None:
    config, learner = learnt(1, grained(32), adversarial=0.3)
    fresh = make_learner(FAMILY, config, PLANE, {}, learner.config)
    for name in ("encoder", "decoder", "critic"):
        pairs = zip(fresh.modules[name].parameters(), learner.modules[name].parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs), name
    names = {p: {k.split(".")[0] for o in learner.optimizers[p] for k in o.params} for p in learner.optimizers}
    assert names == {"model": {"encoder", "decoder"}, "critic": {"critic"}}
    assert "critic" not in learner.averages


# --------------------------------------------------------------------------- what it changes


def grain(x: Tensor) -> float:
    """The power of the differences between neighbours."""
    return float(x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean())


@pytest.mark.slow
def test_a_critic_brings_back_what_the_squared_error_smooths() -> None:
    """Grain that the codes have no room for: the squared error leaves most of it out. A critic that sees none asks for
    some, at little more error (500 steps: .26 of the data's grain without, .42 with weight 0.1)."""
    found = {}
    x = grained(128).x
    for weight in (0.0, 0.1):
        config, learner = learnt(250, Examples(grained(2176).x[128:], Cond(2048)), adversarial=weight, edge=0.0)
        held = Batch(x, Cond(128), torch.arange(128))
        with torch.no_grad(), averaged(learner):
            objective = AutoencoderObjective(config, PLANE)
            back, _ = objective.made(learner.modules, held, Rng(0), all_codes=True)
        found[weight] = grain(back) / grain(x), float((back - x).square().mean()) / PLANE.std**2
    assert 1.2 * found[0.0][0] < found[0.1][0] < 1, found
    assert found[0.0][1] < found[0.1][1] < 1.2 * found[0.0][1], found  # what that costs


# --------------------------------------------------------------------------- codecs, old runs, bad values


def test_a_codec_is_made_and_read_without_the_critic(tmp_path: Path) -> None:
    config, learner = learnt(2, grained(64), adversarial=0.3, bottleneck="fsq", levels=(4, 4))
    codec = of_modules(config.model_dump(mode="json"), learner.modules, PLANE, grained(16))
    codes = codec.encode(grained(16)).x
    codec.save(tmp_path)
    other = load(tmp_path)
    assert torch.equal(other.encode(grained(16)).x, codes)
    assert torch.equal(other.decode(codes), codec.decode(codes))
    assert "critic" not in other.modules and not any("critic" in f.read_text() for f in tmp_path.glob("*.json"))


def test_runs_from_before_there_was_a_critic_open() -> None:
    """Their configuration has no word of it; their networks are as they were."""
    new = AutoencoderConfig()
    old = {k: v for k, v in new.model_dump(mode="json").items() if k != "adversarial"}
    assert AutoencoderConfig(**old) == new


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf, "much"])
def test_impossible_weights_are_refused(weight: Any) -> None:
    with pytest.raises(ValidationError, match="adversarial"):
        AutoencoderConfig(adversarial=weight)
