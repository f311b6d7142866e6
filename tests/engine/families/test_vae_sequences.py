"""The VAE of sequences: what its networks see, and that its latents are used as much as was asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from afresh.core import Batch, Cond, Edit, Examples, Space, UserError, registry
from afresh.core.options import current
from afresh.core.rng import Rng
from afresh.engine.families.vae import sequences as vae
from afresh.engine.families.vae.latents import VAESettings
from afresh.engine.families.vae.sequences import SLOTS, SequenceVAEConfig
from afresh.engine.nets.posterior import encoding
from afresh.engine.nets.sequences import SequenceDecoder, Sequences
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner, take_step
from afresh.engine.training.plan import make_learner
from tests.contracts.rows import enliven

END, FILLER = 8, 9
SPACE = Space("tokens", (12,), (10,), {"end": END, "filler": FILLER}, stream=True, records=True)
CONFIG = SequenceVAEConfig(width=32, blocks=2, latent=8, cond=8, components=2, beta=0.1)
SETTINGS = VAESettings(length=12)


def batch_of(rows: list[list[int]], width: int = 0, first: int = 0) -> Batch:
    """Records with an `end` on both sides, padded to `width`."""
    width = max(width, *(len(r) + 1 for r in rows))
    x = torch.tensor([[END, *r, *[END] * (width - len(r))] for r in rows])
    mask = torch.arange(width) < torch.tensor([[len(r) + 1] for r in rows])
    return Batch(x, Cond(len(rows)), torch.arange(first, first + len(rows)), mask)


def built(config: SequenceVAEConfig = CONFIG) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    modules = vae.build(config, SPACE, {})
    enliven(modules)
    return {k: m.eval().requires_grad_(False) for k, m in modules.items()}


def test_the_latents_do_not_depend_on_padding() -> None:
    modules, rows = built(), [[1, 2, 3], [4, 5], [6, 7, 0, 1, 2]]
    several = encoding(modules, Sequences.of(batch_of(rows, 9)), Cond(3))
    for i, row in enumerate(rows):
        alone = encoding(modules, Sequences.of(batch_of([row])), Cond(1))
        torch.testing.assert_close(alone.mean, several.mean[i : i + 1], rtol=1e-4, atol=1e-5)
    whole = encoding(modules, Sequences.whole(torch.tensor([[1, 2, 3, END, END]]), END), Cond(1))
    torch.testing.assert_close(whole.mean, several.mean[:1], rtol=1e-4, atol=1e-5)


def test_the_latents_depend_on_every_token() -> None:
    modules, row = built(), [1, 2, 3, 4]
    before = encoding(modules, Sequences.of(batch_of([row])), Cond(1)).mean
    for i in range(len(row)):
        changed = [*row[:i], 7, *row[i + 1 :]]
        after = encoding(modules, Sequences.of(batch_of([changed])), Cond(1)).mean
        assert not torch.allclose(before, after, atol=1e-4), i


def test_drawing_step_by_step_agrees_with_the_whole_sequence() -> None:
    decoder = built()["decoder"]
    assert isinstance(decoder, SequenceDecoder)
    z, c, tokens = torch.randn(2, 2, SLOTS), torch.zeros(2, 8), torch.tensor([[END, 1, 2], [END, 3, 4]])
    whole = decoder.net.logits(decoder.hidden(z, c, tokens))
    state = None
    for i in range(3):
        logits, state = decoder.step(z, c, tokens[:, i : i + 1], None, state, "float32")
        torch.testing.assert_close(logits, whole[:, i], rtol=1e-3, atol=1e-4)


def learnt(monkeypatch: pytest.MonkeyPatch, share: float, steps: int = 250) -> tuple[Learner, list[dict[str, float]]]:
    """A learner of records of 6 tokens that are all the same, or count up."""
    rows = [[(first + i * by) % 8 for i in range(6)] for first in range(8) for by in (0, 1)]
    monkeypatch.setattr(vae, "SHARE", share)
    own = {"steps": steps, "batch": 16, "micro_batch": 16, "save_every": steps, "optimizer": "adamw", "lr": 3e-3}
    learner = make_learner(registry.family("vae").for_space(SPACE), CONFIG, SPACE, {}, TrainConfig(**own))
    seen = []
    for step in range(steps):
        metrics = take_step(learner, batch_of(rows, first=16 * step), Rng(1))
        assert metrics is not None
        seen.append(metrics)
        learner.step += 1
    return learner, seen


def test_the_latents_are_used_and_sequences_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, seen = learnt(monkeypatch, 0.8)
    kl, nats = (sum(m[k] for m in seen[-50:]) for k in ("kl", "nats"))
    assert kl / (kl + nats) > 0.6
    assert seen[-1]["beta"] > CONFIG.beta  # it became heavier, as they told more than they were asked to
    modules = {k: m.eval() for k, m in learner.modules.items()}
    x = torch.tensor([[3] * 6 + [END], [0, 1, 2, 3, 4, 5, END]])
    u = vae.encode(modules, CONFIG, SPACE, x, Cond(2), SETTINGS)
    back = vae.decode_latents(modules, CONFIG, SPACE, u, Cond(2), SETTINGS)
    assert back[:, :6].tolist() == x[:, :6].tolist()


def test_a_small_share_leaves_less_to_the_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    _, seen = learnt(monkeypatch, 0.2)
    kl, nats = (sum(m[k] for m in seen[-50:]) for k in ("kl", "nats"))
    assert kl / (kl + nats) < 0.5


def edited(start: Tensor, strength: float) -> Tensor:
    rows = torch.arange(len(start))
    return vae.edit(built(), CONFIG, SPACE, Edit(start, strength), Cond(len(start)), Rng(0), rows, SETTINGS)


def test_an_edit_of_no_strength_changes_nothing_and_one_of_all_is_a_sample() -> None:
    start = torch.tensor([[1, 2, 3, END], [4, 5, END, END]])
    assert torch.equal(edited(start, 0.0), start)
    sample = vae.sample(built(), CONFIG, SPACE, Cond(2), Rng(0), torch.arange(2), SETTINGS)
    assert torch.equal(edited(start, 1.0), sample)
    with pytest.raises(UserError, match="strength"):
        task = Edit(start, 0.5, torch.ones_like(start, dtype=torch.bool))
        vae.edit(built(), CONFIG, SPACE, task, Cond(2), Rng(0), torch.arange(2), SETTINGS)


def test_a_prompt_is_continued() -> None:
    known = torch.tensor([[END, 1, 2], [END, 3, 4]])
    cond = replace(Cond(2), known=known, known_mask=torch.ones_like(known, dtype=torch.bool))
    x = vae.sample(built(), CONFIG, SPACE, cond, Rng(0), torch.arange(2), VAESettings(length=4))
    plain = vae.sample(built(), CONFIG, SPACE, Cond(2), Rng(0), torch.arange(2), VAESettings(length=4))
    assert x.shape[1] <= 4 and not torch.equal(x, plain)


def test_latents_that_slots_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match=r"family\.latent` \(9\) must be a multiple of 4"):
        vae.build(SequenceVAEConfig(width=32, latent=9), SPACE, {})


def test_runs_of_earlier_versions_have_the_settings_that_are_constants_now() -> None:
    earlier = {**CONFIG.model_dump(), "most": 4, "patch": 1, "negatives": 0, "slots": 4, "share": 0.25}
    assert SequenceVAEConfig(**current(earlier, vae.FAMILY.retired)) == CONFIG
    with pytest.raises(ValueError, match=r"share is 0\.5, and this version has no such setting: 0\.25 is always used"):
        current({**earlier, "share": 0.5}, vae.FAMILY.retired)


def test_the_density_is_fitted_to_records() -> None:
    rows = [[i % 8, (i * 3) % 8, 1] for i in range(24)]
    batch = batch_of(rows)
    x = torch.cat([r[: 1 + int(m.sum())] for r, m in zip(batch.x, batch.mask, strict=True)])  # type: ignore[arg-type]
    bounds = torch.arange(25) * 5
    mask = torch.ones(len(x), dtype=torch.bool)
    mask[bounds[:-1]] = False
    found = vae.FAMILY.finish(built(), CONFIG, SPACE, Examples(x.int(), Cond(24), bounds=bounds, mask=mask), Rng(0))
    assert found["density.mean"].shape == (2, 2, 8) and bool(found["density.mean"].isfinite().all())
