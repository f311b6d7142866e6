"""The Transformer family: exact losses, and samples whose probabilities are those of the full forward pass."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from scipy.stats import chisquare
from torch import Tensor, nn

from afresh.core import Batch, Cond, Examples, Part, Space
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.families.transformer import CATALOGUES, FAMILY, TransformerConfig, build
from afresh.engine.nets.transformer import Decoder
from afresh.engine.sampling.next_token import (
    NextTokenObjective,
    NextTokenSettings,
    counted_targets,
    dropout,
    next_token_nats,
    sample,
    score,
)

STREAM = Space("tokens", (8,), (7,), {"begin": 4, "end": 5, "pad": 6}, stream=True)
GRID = Space("tokens", (6,), (5,), {"begin": 4}, grid=(2, 3))
CONFIG = TransformerConfig(width=16, layers=2, heads=2, kv_heads=1)
SPEC = {"label": Part("label", classes=("a", "b"))}


def made(
    space: Space, conds: dict[str, Part] | None = None, config: TransformerConfig = CONFIG
) -> dict[str, nn.Module]:
    """Modules without zero weights."""
    torch.manual_seed(0)
    modules = FAMILY.build(config, space, conds or {})
    for p in modules["decoder"].parameters():
        if not p.any():
            nn.init.normal_(p, std=0.4)
    return {k: m.eval().requires_grad_(False) for k, m in modules.items()}


def drawn(space: Space, cond: Cond, modules: dict[str, nn.Module], seed: int = 0, **settings: Any) -> Tensor:
    chosen = NextTokenSettings(**settings)
    return FAMILY.sampling.sample(modules, CONFIG, space, cond, Rng(seed), torch.arange(cond.size), chosen)


def known(rows: list[list[int]]) -> Cond:
    """Prompts of different lengths, as known values of a condition."""
    width = max(map(len, rows))
    values = torch.tensor([r + [0] * (width - len(r)) for r in rows])
    return Cond(len(rows), known=values, known_mask=torch.tensor([[i < len(r) for i in range(width)] for r in rows]))


@pytest.mark.parametrize("space", [STREAM, GRID], ids=["stream", "grid"])
def test_a_fresh_model_costs_log_v_a_token(space: Space) -> None:
    modules = FAMILY.build(CONFIG, space, {})
    x = torch.randint(0, 4, (3, space.shape[0] + 1), generator=torch.Generator().manual_seed(0))
    batch = Batch(x, Cond(3), torch.arange(3))
    total, weight, _ = NextTokenObjective(CONFIG, space).loss(modules, batch, "model", 0, Rng(0), {})
    assert weight == 3 * space.shape[0]
    assert float(total.detach()) / weight == pytest.approx(math.log(space.vocab[0]), rel=1e-6)


def test_masked_targets_are_ignored() -> None:
    modules = made(STREAM)
    x = torch.randint(0, 6, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[True] * 3 + [False] * 5, [True] * 8])
    objective = NextTokenObjective(CONFIG, STREAM)
    total, weight, _ = objective.loss(modules, Batch(x, Cond(2), torch.arange(2), mask), "model", 0, Rng(0), {})
    assert weight == 11
    changed = x.clone()
    changed[0, 4:] = 0
    again, _, _ = objective.loss(modules, Batch(changed, Cond(2), torch.arange(2), mask), "model", 0, Rng(0), {})
    torch.testing.assert_close(again, total)


def test_the_score_is_a_log_likelihood() -> None:
    """The probabilities of all 5^2 continuations of one context sum to one."""
    space = replace(GRID, shape=(2,), grid=(1, 2))
    modules = made(space)
    every = torch.cartesian_prod(torch.tensor([4]), torch.arange(5), torch.arange(5))
    nats = score(modules, CONFIG, space, Batch(every, Cond(25), torch.arange(25)), Rng(0))
    assert float(nats.exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_samples_come_as_often_as_the_full_forward_pass_says() -> None:
    """Frequencies of 4 x 4 outcomes of sampling with a cache against the exact probabilities of whole sequences."""
    space = replace(GRID, shape=(2,), grid=(1, 2))
    modules = made(space)
    n = 6000
    x = drawn(space, Cond(n), modules)
    every = torch.cartesian_prod(torch.tensor([4]), torch.arange(4), torch.arange(4))
    net = modules["decoder"]
    logits = net(every[:, :-1], None)[..., :4]  # `begin` is never drawn
    p = logits.log_softmax(-1).gather(2, every[:, 1:, None])[..., 0].sum(1).exp().double()
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    count = torch.bincount(x[:, 0] * 4 + x[:, 1], minlength=16)
    assert chisquare(count.numpy(), (p / p.sum() * n).numpy(), sum_check=False).pvalue > 1e-3


def test_greedy_sampling_is_the_argmax_of_the_full_forward_pass() -> None:
    modules = made(GRID)
    x = drawn(GRID, Cond(1), modules, temperature=0)
    row = [4]
    for _ in range(6):
        logits = modules["decoder"](torch.tensor([row]), None)[0, -1, :4]
        row.append(int(logits.argmax()))
    assert x[0].tolist() == row[1:]


def test_a_stream_begins_after_the_separator_that_training_puts_before_a_document() -> None:
    examples = Examples(torch.tensor([0, 1, 2, 5]), Cond(1), bounds=torch.tensor([0, 4]))
    first = int(Loader(examples, STREAM, Rng(0)).batch(0, 1).x[0, 0])
    modules, row = made(STREAM), [first]
    x = drawn(STREAM, Cond(1), modules, temperature=0, length=4)[0].tolist()
    assert len(x) == 4  # `end` is not drawn here
    for _ in x:
        logits = modules["decoder"](torch.tensor([row]), None)[0, -1]
        logits[[4, 6]] = -torch.inf  # `begin` and `pad` are never drawn
        row.append(int(logits.argmax()))
    assert x == row[1:]


def test_a_grid_has_all_its_tokens_and_none_that_is_special() -> None:
    x = drawn(GRID, Cond(50), made(GRID))
    assert x.shape == (50, 6) and x.dtype == torch.int64 and int(x.max()) < 4


def test_an_image_is_continued_from_its_first_part() -> None:
    x = drawn(GRID, known([[3, 2], [1, 1, 1, 0, 2, 3]]), made(GRID))
    assert x.shape == (2, 6) and x[0, :2].tolist() == [3, 2] and x[1].tolist() == [1, 1, 1, 0, 2, 3]


def test_a_stream_stops_at_its_end_token() -> None:
    """Without `begin` and `pad`; after `end`, only `end`."""
    x = drawn(STREAM, Cond(40), made(STREAM), length=30)
    assert not torch.isin(x, torch.tensor([4, 6])).any()
    over = (x == 5).int().cummax(1).values.bool()
    assert (x[over] == 5).all() and bool(over.any()) and not bool(over.all())


def test_prompts_of_any_length_in_one_batch_equal_each_alone() -> None:
    modules, rows = made(STREAM), [[0], [1, 2, 3], [2] * 8, [3, 1] * 12]
    together = drawn(STREAM, known(rows), modules, length=12)
    for i, row in enumerate(rows):
        settings = NextTokenSettings(length=12)
        alone = FAMILY.sampling.sample(modules, CONFIG, STREAM, known([row]), Rng(0), torch.tensor([i]), settings)[0]
        assert together[i, : len(alone)].tolist() == alone.tolist()
        assert (together[i, len(alone) :] == 5).all()


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_k": 3}, {"temperature": 0}, {"guidance": 2.0}])
def test_samples_are_the_same_whether_they_are_watched_or_not(settings: dict[str, Any]) -> None:
    """Those that nobody watches are drawn without work for each token, until their window is full."""
    modules, seen = made(STREAM, SPEC), list[int]()
    cond = replace(known([[0], [1, 2, 3], [2] * 7, [3] * 12]), parts={"label": torch.tensor([0, 1, 0, 1])})
    cond = replace(cond, present={"label": torch.tensor([True, True, False, True])})
    plain = drawn(STREAM, cond, modules, length=20, **settings)
    watched = drawn(STREAM, cond, modules, length=20, watch=lambda *a: bool(seen.append(a[1])), **settings)
    assert torch.equal(plain, watched) and seen


def test_a_stream_continues_beyond_the_context() -> None:
    """Windows restart; all tokens are in the vocabulary, and rows that have not ended have the requested length."""
    x = drawn(STREAM, known([[1, 2]] * 60), made(STREAM), length=7 * 8)
    assert bool(torch.isin(x, torch.tensor([0, 1, 2, 3, 5])).all())
    assert x.shape[1] > 3 * 8  # some row lived that long


def test_guidance_zero_ignores_the_label_and_one_does_not() -> None:
    modules = made(GRID, SPEC)

    def under(label: int, guidance: float) -> Tensor:
        cond = Cond(30, {"label": torch.full((30,), label)}, {"label": torch.ones(30, dtype=torch.bool)})
        return drawn(GRID, cond, modules, guidance=guidance)

    assert torch.equal(under(0, 0.0), under(1, 0.0))
    assert not torch.equal(under(0, 1.0), under(1, 1.0))
    assert not torch.equal(under(0, 1.0), under(0, 3.0))


def test_sizes_grow() -> None:
    def count(config: TransformerConfig) -> int:
        return sum(p.numel() for p in FAMILY.build(config, STREAM, {})["decoder"].parameters())

    counts = [count(c) for c in FAMILY.plan.sizes(STREAM)]
    assert counts == sorted(counts) and counts[0] < 0.5e6 and counts[-1] > 20e6


@pytest.mark.parametrize(
    "given", [{"width": 30, "heads": 4}, {"heads": 3, "kv_heads": 2}, {"width": 9, "heads": 3}, {"colour": 1}]
)
def test_an_invalid_configuration_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        TransformerConfig(**given)


def test_an_unsuitable_space_is_refused_with_a_reason() -> None:
    assert "codec" in str(FAMILY.accepts(Space("field", (1, 4, 4))))
    assert "levels" in str(FAMILY.accepts(Space("tokens", (8, 4), (5,) * 4)))
    assert isinstance(FAMILY.build(CONFIG, STREAM, {})["decoder"], Decoder)


# --------------------------------------------------------------------------- catalogues


CATALOGUE = Space("tokens", (8,), (11,), {"end": 10}, stream=True, catalogue=True)


def shop(**fields: Any) -> TransformerConfig:
    return TransformerConfig(width=16, layers=2, heads=2, kv_heads=2, tied=True, **fields)


def choices(n: int) -> Batch:
    x = (Rng(5).uniform("x", torch.arange(n), (9,)) * 10).long()
    return Batch(x, Cond(n), torch.arange(n), mask=torch.arange(8)[None] < torch.arange(n)[:, None] % 8 + 1)


def test_dropout_keeps_the_mean_and_depends_on_the_draw_alone() -> None:
    config = shop(dropout=0.25)
    keep = dropout(config, Rng(1), torch.arange(64), 8)
    assert len(keep) == 5 and all(k.shape == (64, 8, 16) for k in keep)
    assert float(torch.stack(keep).mean()) == pytest.approx(1, abs=0.02)
    assert torch.stack(keep).unique().tolist() == pytest.approx([0, 256 / 192])
    short = dropout(config, Rng(1), torch.tensor([7, 3]), 4)
    assert all(torch.equal(a, b[[7, 3], :4]) for a, b in zip(short, keep, strict=True))
    assert dropout(shop(), Rng(1), torch.arange(4), 8) == []


def test_negatives_that_are_the_whole_vocabulary_give_the_exact_loss() -> None:
    config, batch = shop(), choices(6)
    torch.manual_seed(0)
    net = build(config, CATALOGUE, {})["decoder"]
    targets = counted_targets(batch)
    h = net.hidden(batch.x[:, :-1], None)
    every = torch.arange(11)
    exact = net.nats(h, targets)
    sampled = net.sampled_nats(h, targets, every)
    assert torch.allclose(sampled, exact, atol=1e-4)


def test_sampled_normalisers_are_unbiased_and_do_not_depend_on_how_a_batch_is_divided() -> None:
    config, batch = shop(negatives=6), choices(4)
    torch.manual_seed(0)
    modules = build(config, CATALOGUE, {})
    objective = NextTokenObjective(config, CATALOGUE)
    whole, count, _ = objective.loss(modules, batch, "model", 0, Rng(0), {})
    parts = [objective.loss(modules, batch.select(torch.tensor(r)), "model", 0, Rng(0), {}) for r in ([0, 1], [2, 3])]
    assert float(whole) == pytest.approx(sum(float(p[0]) for p in parts), rel=1e-5)
    assert int(count) == sum(int(p[1]) for p in parts)
    one = batch.select(torch.tensor([0]))  # a single target
    with torch.no_grad():
        ratios = torch.stack(
            [objective.loss(modules, one, "model", 0, Rng(s), {})[0].double().exp() for s in range(2_000)]
        )
        exact = (
            next_token_nats(modules, CATALOGUE, one)[0].double().exp().item()
        )  # of 1 / p, the normaliser over the target's share
    assert float(ratios.mean()) == pytest.approx(exact, abs=4 * float(ratios.std()) / math.sqrt(2_000))


def test_a_catalogue_is_learnt_with_dropout_and_samples_have_no_end() -> None:
    assert all(c.tied and c.dropout for c in CATALOGUES.plan.sizes(CATALOGUE))
    modules = build(shop(), CATALOGUE, {})
    x = sample(modules, shop(), CATALOGUE, Cond(3), Rng(0), torch.arange(3), NextTokenSettings(length=100))
    assert x.shape == (3, 8) and int(x.max()) < 10
