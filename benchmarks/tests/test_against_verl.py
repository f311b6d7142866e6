"""What is worked out from rewards and log-probabilities is what verl works out, on random numbers with masks.

Needs verl's files alone: `pip install --no-deps verl` (0.9.1 was read); skipped without them. Its package imports Ray,
tensordict and Hydra, of which these functions use nothing, so `core_algos.py` and what it calls are run from their
files, with empty names in place of the rest.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from afresh.engine.alignment.methods import advantages as adv
from afresh.engine.alignment.methods import policy as gradient

FOUND = importlib.util.find_spec("verl")  # which runs nothing of it
if FOUND is None or FOUND.submodule_search_locations is None:
    pytest.skip("verl is not installed: pip install --no-deps verl", allow_module_level=True)
ROOT = Path(next(iter(FOUND.submodule_search_locations)))
NAMES = {  # by module: what core_algos.py and verl/utils/torch_functional.py import of it and do not use here
    "omegaconf": ("DictConfig",),
    "tensordict": ("TensorDict",),
    "transformers": ("PreTrainedTokenizer",),
    "verl.trainer.config": ("AlgoConfig",),
    "verl.utils": ("as_torch_index", "group_mean_std"),
    "verl.utils.device": ("get_device_name", "get_torch_device"),
    "verl.workers.config": ("ActorConfig",),
}
FILES = ("verl.utils.import_utils", "verl.utils.torch_functional", "verl.trainer.ppo.core_algos")


def run_file(name: str) -> ModuleType:
    """One of verl's modules, from its file."""
    spec = importlib.util.spec_from_file_location(name, ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def verl() -> Any:
    """verl.trainer.ppo.core_algos. What stood in sys.modules before stands there again after."""
    folders = ("verl", "verl.trainer", "verl.trainer.ppo", "verl.workers")
    before = {name: sys.modules.get(name) for name in (*folders, *NAMES, *FILES)}
    try:
        for name in (*folders, *NAMES):
            empty = ModuleType(name)
            empty.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
            empty.__path__ = []
            for what in NAMES.get(name, ()):
                setattr(empty, what, type(what, (), {}))
            sys.modules[name] = empty
        utils, found = sys.modules["verl.utils"], None
        for name in FILES:
            found = run_file(name)
            if name.startswith("verl.utils."):
                setattr(utils, name.rpartition(".")[2], found)
        return found
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def same(found: Tensor, wanted: Tensor) -> None:
    """In float64; verl adds 1e-8 to counts where these divide by the count."""
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def masks(seed: int, rows: int, length: int) -> Tensor:
    """Rows of every length, with steps that do not count in their midst (a tool's answers)."""
    g = torch.Generator().manual_seed(seed)
    ends = torch.randint(2, length + 1, (rows,), generator=g)
    mask = (torch.arange(length) < ends[:, None]) & (torch.rand(rows, length, generator=g) < 0.8)
    mask[:, 0] = True
    return mask


# --------------------------------------------------------------------------- advantages


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (1.0, 1.0), (0.97, 0.0)])
def test_generalised_advantages(verl: Any, gamma: float, lam: float) -> None:
    """verl whitens the advantages that it returns, so ours are whitened; the returns come before that.

    As in `aligners.policy`, the reward stands at the last step and each step pays for its divergence.
    """
    mask = masks(0, 9, 12)
    values, gap = drawn(1, 9, 12), drawn(2, 9, 12) * mask
    final = adv.at_end(drawn(3, 9), mask)
    rewards = verl.compute_rewards(final, gap, torch.zeros_like(gap), 0.1)
    same(rewards, final - 0.1 * gap)
    wanted, returns = verl.compute_gae_advantage_return(rewards, values, mask.double(), gamma, lam)
    found, learnt = adv.gae(rewards, values, mask, gamma, lam)
    same(learnt[mask], returns[mask])
    same(found[mask], (returns - values)[mask])
    same(adv.whiten(found, mask)[mask], wanted[mask])


def groups(seed: int) -> tuple[Tensor, Tensor, np.ndarray[Any, Any]]:
    """Rewards (P, N) of which one group is flat; verl's rows in a mixed order, and whose group each is."""
    rewards = drawn(seed, 5, 4)
    rewards[2] = 0.3
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    return rewards, order, np.array([f"request {int(i) // 4}" for i in order])


@pytest.mark.parametrize("scale", [True, False])
def test_advantages_within_groups(verl: Any, scale: bool) -> None:
    """Both divide by the sample's deviation (N - 1) plus 1e-6. verl spreads them over the steps that count."""
    rewards, order, index = groups(4)
    mask = masks(5, 20, 6)
    at = adv.at_end(rewards.flatten()[order], mask)
    wanted, _ = verl.compute_grpo_outcome_advantage(at, mask.double(), index, norm_adv_by_std_in_grpo=scale)
    same(adv.spread(adv.grpo(rewards, scale=scale).advantages.flatten()[order], mask), wanted)


@pytest.mark.parametrize("function", ["compute_rloo_outcome_advantage", "compute_rloo_vectorized_outcome_advantage"])
def test_advantages_against_the_others(verl: Any, function: str) -> None:
    rewards, order, index = groups(6)
    mask = masks(7, 20, 6)
    at = adv.at_end(rewards.flatten()[order], mask)
    wanted, _ = getattr(verl, function)(at, mask.double(), index)
    same(adv.spread(adv.rloo(rewards).advantages.flatten()[order], mask), wanted)


# --------------------------------------------------------------------------- losses


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28), (0.1, 0.4)])
def test_the_clipped_surrogate(verl: Any, low: float, high: float) -> None:
    """Loss, share of clipped steps and gradient. verl always has a dual bound; here it is one that is never reached."""
    mask, advantages = masks(8, 9, 12), drawn(9, 9, 12)
    old = -drawn(10, 9, 12).abs()
    logp = old + 0.6 * drawn(11, 9, 12)
    advantages[0, 0], logp[0, 0] = 1.0, old[0, 0] + 25  # beyond what both let into the exponential
    ours, theirs = (logp.clone().requires_grad_() for _ in range(2))
    with pytest.warns(FutureWarning, match="deprecated"):
        wanted, clipped, _, _ = verl.compute_policy_loss(
            old,
            theirs,
            advantages,
            mask.double(),
            cliprange_low=low,
            cliprange_high=high,
            clip_ratio_c=1e12,
        )
    found = gradient.ppo(ours, old, advantages, mask, low, high)
    loss = found.losses[mask].mean()
    same(loss, wanted)
    assert float(clipped) > 0.05, "nothing would be seen"
    assert float(found.clipped[mask].float().mean()) == pytest.approx(float(clipped), rel=1e-6)
    loss.backward()
    wanted.backward()
    assert ours.grad is not None and theirs.grad is not None
    same(ours.grad, theirs.grad)


def test_the_critic_s_loss(verl: Any) -> None:
    mask, returns, old = masks(14, 9, 12), drawn(15, 9, 12), drawn(16, 9, 12)
    values = old + 0.4 * drawn(17, 9, 12)
    wanted, clipped = verl.compute_value_loss(values, returns, old, mask.double(), 0.2)
    found = gradient.value_loss(values, returns, mask, old, 0.2)
    same(found.losses[mask].mean(), wanted)
    assert float(clipped) > 0.05
    assert float(found.clipped[mask].float().mean()) == pytest.approx(float(clipped), rel=1e-6)
