"""Masked diffusion: the bound against enumeration of all orders, samples as often as those orders say, promises of
what is shown and what is hidden."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from scipy.stats import chisquare
from torch import Tensor, nn

from afresh.core import Batch, Cond, Edit, Examples, Part, Space, UserError
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.engine.families.masked import (
    AROUND,
    FAMILY,
    REACH,
    Denoiser,
    MaskedConfig,
    MaskedObjective,
    MaskedSettings,
    MaskedWindow,
    Surroundings,
    predictor,
    score,
    spread,
    stream,
)
from afresh.engine.sampling.masked import Unmask
from afresh.engine.sampling.tokens import Cut
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import take_step
from afresh.engine.training.plan import make_learner

STREAM = Space("tokens", (8,), (7,), {"begin": 4, "end": 5, "pad": 6}, stream=True)
GRID = Space("tokens", (6,), (5,), {"begin": 4}, grid=(2, 3))
TINY = Space("tokens", (3,), (4,), {"begin": 3}, grid=(1, 3))
CONFIG = MaskedConfig(width=16, layers=2, heads=2)
SPEC = {"label": Part("label", classes=("a", "b"))}


def made(space: Space, conds: dict[str, Part] | None = None) -> dict[str, nn.Module]:
    """Weights with no zero left, so that every part has a say."""
    torch.manual_seed(0)
    modules = FAMILY.build(CONFIG, space, conds or {})
    for p in modules["denoiser"].parameters():
        if not p.any():
            nn.init.normal_(p, std=0.4)
    return {k: m.eval().requires_grad_(False) for k, m in modules.items()}


def drawn(space: Space, cond: Cond, modules: dict[str, nn.Module], seed: int = 0, **settings: Any) -> Tensor:
    chosen = MaskedSettings(**{"steps": 0, **settings})
    return FAMILY.sampling.sample(modules, CONFIG, space, cond, Rng(seed), torch.arange(cond.size), chosen)


def known(rows: list[list[int | None]]) -> Cond:
    """Texts of different lengths with holes (None), as known values of a condition."""
    width = max(map(len, rows))
    full = [r + [None] * (width - len(r)) for r in rows]
    values = torch.tensor([[0 if i is None else i for i in r] for r in full])
    return Cond(len(rows), known=values, known_mask=torch.tensor([[i is not None for i in r] for r in full]))


def by_orders(modules: dict[str, nn.Module], every: Tensor, allowed: int = 4) -> Tensor:
    """log p(x) of each x (N, 3) under each of the 6 orders of unmasking, (6, N), float64. Ids from `allowed` are
    never drawn."""
    predict, rows = predictor(modules), torch.arange(len(every))
    out = []
    for order in permutations(range(3)):
        x, total = torch.full((len(every), 4), 4), torch.zeros(len(every), dtype=torch.float64)
        x[:, 0] = 3
        for place in order:
            logits = predict(x, None, Cond(len(every)), None)[0][:, place, :allowed]
            total += logits.double().log_softmax(-1)[rows, every[:, place]]
            x[:, place + 1] = every[:, place]
        out.append(total)
    return torch.stack(out)


EVERY = torch.cartesian_prod(*[torch.arange(4)] * 3)  # (64, 3)


def led(x: Tensor) -> Batch:
    """Rows x (B, 3) of TINY as a batch."""
    return Batch(torch.nn.functional.pad(x, (1, 0), value=3), Cond(len(x)), torch.arange(len(x)))


# --------------------------------------------------------------------------- the bound


@pytest.mark.parametrize("space", [STREAM, GRID], ids=["stream", "grid"])
def test_a_fresh_model_costs_log_v_a_token_in_every_draw(space: Space) -> None:
    """The number of masked tokens and the weight cancel, so that no draw differs."""
    modules = FAMILY.build(CONFIG, space, {})
    x = torch.randint(0, 4, (30, space.shape[0] + 1), generator=torch.Generator().manual_seed(0))
    batch = Batch(x, Cond(30), torch.arange(30))
    total, weight, _ = MaskedObjective(CONFIG, space).loss(modules, batch, "model", 0, Rng(0), {})
    assert weight == 30 * space.shape[0]
    assert float(total.detach()) / weight == pytest.approx(math.log(space.vocab[0]), rel=1e-5)
    each = torch.full((30,), -space.shape[0] * math.log(space.vocab[0]))
    torch.testing.assert_close(score(modules, CONFIG, space, batch, Rng(0)), each, rtol=1e-5, atol=0)


def test_the_loss_is_the_mean_over_all_orders() -> None:
    """Over all numbers and sets of masked positions it is exactly the mean over orders of -log p(x | order)."""
    modules, window = made(TINY), MaskedWindow.of(led(EVERY), TINY)
    total = torch.zeros(64, dtype=torch.float64)
    for n in (1, 2, 3):
        sets = list(combinations(range(3), n))
        for places in sets:
            hidden = torch.zeros(64, 3, dtype=torch.bool)
            hidden[:, list(places)] = True
            total += window.nats(modules["denoiser"], hidden).double() / len(sets) / 3
    torch.testing.assert_close(total, -by_orders(modules, EVERY).mean(0), rtol=1e-5, atol=1e-5)


def test_the_bound_is_below_the_likelihood_which_sums_to_one() -> None:
    orders = by_orders(made(TINY), EVERY)
    likelihood = orders.logsumexp(0) - math.log(6)
    assert float(likelihood.exp().sum()) == pytest.approx(1, abs=1e-5)
    assert bool((orders.mean(0) <= likelihood + 1e-9).all()) and float((likelihood - orders.mean(0)).max()) > 0.01


def test_score_and_loss_are_unbiased_and_the_score_has_less_variance() -> None:
    modules, objective, n, x = made(TINY), MaskedObjective(CONFIG, TINY), 2000, torch.tensor([[0, 2, 1]])
    exact = float(by_orders(modules, x).mean())
    many = led(x.repeat(n, 1))
    scores = score(modules, CONFIG, TINY, many, Rng(1)).double()
    assert abs(float(scores.mean()) - exact) < 4 * float(scores.std()) / math.sqrt(n) + 1e-6
    rows = [many.select(torch.tensor([i])) for i in range(400)]
    losses = torch.stack([objective.loss(modules, r, "model", 0, Rng(1), {})[0] for r in rows]).double()
    assert abs(float(losses.mean()) + exact) < 4 * float(losses.std()) / math.sqrt(400)
    assert float(scores.std()) < float(losses.std()) / math.sqrt(8)  # better than eight independent draws


def test_numbers_of_hidden_tokens_are_spread_evenly_in_every_stretch_of_draws() -> None:
    whole = spread(Rng(5), torch.arange(4096))
    assert torch.equal(spread(Rng(5), torch.arange(100, 140)), whole[100:140])
    for first in (0, 77, 2000):
        u = whole[first : first + 64].sort().values
        assert float((u - (torch.arange(64) + 0.5) / 64).abs().max()) < 3 / 64  # at random: about 8 / 64
    assert not torch.equal(whole, spread(Rng(6), torch.arange(4096)))


def test_a_trained_model_reaches_the_entropy_of_its_data() -> None:
    """Two dependent tokens: for a model that knows both orders, the bound equals log p."""
    space = replace(GRID, shape=(2,), grid=(1, 2))
    joint = torch.tensor(
        [[0.30, 0.02, 0.05, 0.03], [0.05, 0.20, 0.00, 0.05], [0.0, 0.05, 0.1, 0.0], [0.0, 0.0, 0.05, 0.1]]
    )
    x = torch.arange(16).repeat_interleave((joint.flatten() * 400).round().long())
    examples = Examples(torch.stack([x // 4, x % 4], 1), Cond(len(x)))
    told = TrainConfig(**FAMILY.plan.recipe(space), steps=200, batch=64, micro_batch=64, save_every=200)
    learner = make_learner(FAMILY, CONFIG, space, {}, told)
    loader = Loader(examples, space, Rng(0))
    for learner.step in range(200):
        take_step(learner, loader.batch(learner.step * 64, 64), Rng(0))
    every = torch.cartesian_prod(torch.tensor([4]), torch.arange(4), torch.arange(4))
    bound = score(learner.modules, CONFIG, space, Batch(every, Cond(16), torch.arange(16)), Rng(0))
    p = joint.flatten()
    entropy = -float((p[p > 0] * p[p > 0].log()).sum())
    assert entropy - 1e-3 < -float((p * bound).sum()) < entropy + 0.03


# --------------------------------------------------------------------------- what is shown


def test_tokens_after_the_last_target_are_masked_and_a_question_is_not() -> None:
    """The width of the batch does not matter either: a bidirectional network must not see where the text ends."""
    modules = made(STREAM)
    x = torch.tensor([[5, 0, 1, 2, 3, 3, 0, 5, 5]])
    mask = torch.tensor([[False, False, True, True, False, True, False, False]])

    def scored(x: Tensor, mask: Tensor) -> float:
        return float(score(modules, CONFIG, STREAM, Batch(x, Cond(1), torch.arange(1), mask), Rng(0)))

    one = scored(x, mask)
    after, question, between = x.clone(), x.clone(), x.clone()
    after[0, 7:] = 1
    question[0, 1] = 3
    between[0, 5] = 1
    assert scored(after, mask) == one == scored(x[:, :7], mask[:, :6])
    assert scored(question, mask) != one and scored(between, mask) != one
    batch = Batch(x, Cond(1), torch.arange(1), mask)
    assert MaskedObjective(CONFIG, STREAM).loss(modules, batch, "model", 0, Rng(0), {})[1] == 3


def test_the_token_before_a_window_matters() -> None:
    modules = made(STREAM)
    x = torch.tensor([[5, 0, 1, 2, 3, 3, 0, 1, 2], [0, 0, 1, 2, 3, 3, 0, 1, 2]])
    a, b = score(modules, CONFIG, STREAM, Batch(x, Cond(2), torch.zeros(2, dtype=torch.int64)), Rng(0))
    assert float(a) != float(b)


def test_the_mask_is_never_predicted() -> None:
    logits = predictor(made(STREAM))(torch.full((2, 9), 7), None, Cond(2), None)[0]
    assert logits.shape == (2, 8, 7)


def test_embeddings_of_neighbours_are_added_in_sequences_and_on_grids() -> None:
    torch.manual_seed(0)
    line, plane = Surroundings(9, 4, ()), Surroundings(9, 4, (4, 5))
    x = torch.randint(0, 9, (2, 21))
    e = line.weight[x]
    at = [e[:, 10 + d] * line.near[:, 0, 0, REACH + d] for d in range(-REACH, REACH + 1)]
    torch.testing.assert_close(line(x)[:, 10], e[:, 10] + sum(at))
    torch.testing.assert_close(line(x)[:, 0], e[:, 0] + sum(e[:, d] * line.near[:, 0, 0, REACH + d] for d in range(4)))
    e = plane.weight[x]
    cells = e[:, 1:].reshape(2, 4, 5, 4)
    near = torch.zeros(2, 4)
    for i in range(4):  # of the cell (1, 2)
        for j in range(5):
            if abs(i - 1) <= AROUND:
                near = near + cells[:, i, j] * plane.near[:, 0, AROUND + i - 1, AROUND + j - 2]
    torch.testing.assert_close(plane(x)[:, 1 + 1 * 5 + 2], cells[:, 1, 2] + near)
    torch.testing.assert_close(plane(x)[:, 0], e[:, 0])  # the token of context lies beside the grid


# --------------------------------------------------------------------------- samples


def test_samples_come_as_often_as_the_orders_say() -> None:
    """With one position in each step: the mixture of the six orders, without `begin`; in one step: the marginals."""
    modules, n = made(TINY), 8000
    every = torch.cartesian_prod(*[torch.arange(3)] * 3)
    p = by_orders(modules, every, allowed=3).exp().mean(0)
    assert float(p.sum()) == pytest.approx(1, abs=1e-6)
    for steps, same in ((0, True), (1, False)):
        x = drawn(TINY, Cond(n), modules, steps=steps)
        count = torch.bincount(x @ torch.tensor([9, 3, 1]), minlength=27)
        assert (chisquare(count.numpy(), (p * n).numpy(), sum_check=False).pvalue > 1e-3) == same


def test_an_image_keeps_known_tokens_at_any_position() -> None:
    modules = made(GRID)
    x = drawn(GRID, known([[3, None, 2, None, None, 1], [None, None, None, 0]]), modules)
    assert x.shape == (2, 6) and x[0, [0, 2, 5]].tolist() == [3, 2, 1] and int(x[1, 3]) == 0 and int(x.max()) < 4
    other = drawn(GRID, known([[3, None, 2, None, None, 0], [None, None, None, 0]]), modules, seed=1)
    assert not torch.equal(x[0], other[0])


def test_a_prefix_is_continued_and_holes_are_filled() -> None:
    modules = made(STREAM)
    texts: list[list[int | None]] = [[1, 2], [1, None, None, 3, 2], [None, 0], [], [3, 1] * 9]
    x = drawn(STREAM, known(texts), modules, length=11)
    assert not torch.isin(x, torch.tensor([4, 6, 7])).any()
    assert (
        x[1, [0, 3, 4]].tolist() == [1, 3, 2] and (x[1, :5] < 4).all() and (x[1, 5:] == 5).all()
    )  # whole, no `end` in it
    assert int(x[2, 1]) == 0 and (x[2, :2] < 4).all() and (x[2, 2:] == 5).all()
    assert x.shape[1] <= 11


def test_holes_far_beyond_the_window_are_filled() -> None:
    text: list[int | None] = [*([0, 1, 2, 3] * 6), None, None, 1, 2, *([3] * 9), None, 1]
    x = drawn(STREAM, known([text]), made(STREAM))[0].tolist()
    assert len(x) == len(text) and all(t is None or t == v for t, v in zip(text, x, strict=True)) and max(x) < 4


def test_a_stream_stops_at_its_end_token() -> None:
    x = drawn(STREAM, Cond(60), made(STREAM), length=30)
    over = (x == 5).int().cummax(1).values.bool()
    assert (x[over] == 5).all() and bool(over.any()) and not bool(over.all())


@pytest.mark.parametrize("settings", [{}, {"steps": 3}, {"order": "confidence", "temperature": 0.7}], ids=str)
def test_texts_of_any_length_in_one_batch_equal_each_alone(settings: dict[str, Any]) -> None:
    modules = made(STREAM)
    rows: list[list[int | None]] = [[0], [1, None, 3], [2] * 8, [3, 1] * 12, [0, None, None, 1, None, 2, 2]]
    together = drawn(STREAM, known(rows), modules, length=12, **settings)
    for i, row in enumerate(rows):
        chosen = MaskedSettings(**{"steps": 0, "length": 12, **settings})
        alone = FAMILY.sampling.sample(modules, CONFIG, STREAM, known([row]), Rng(0), torch.tensor([i]), chosen)[0]
        assert together[i, : len(alone)].tolist() == alone.tolist()
        assert (together[i, len(alone) :] == 5).all()


def test_a_record_begins_with_its_prompt() -> None:
    """Nothing precedes a record in training, and so in sampling."""
    modules, space = made(STREAM), replace(STREAM, records=True)
    x = torch.full((1, 9), 7)
    x[0, :3] = torch.tensor([2, 0, 1])
    first = int(predictor(modules)(x, None, Cond(1), None)[0][0, 2, [0, 1, 2, 3, 5]].argmax())
    found = drawn(space, known([[2, 0, 1]]), modules, length=1, temperature=0)
    assert found[0].tolist() == ([] if first == 4 else [first])


@pytest.mark.parametrize("prompt", [[], [1], [1, 2, 3]])
def test_the_end_of_a_record_is_drawn_before_its_tokens_in_the_order_of_confidence(prompt: list[int]) -> None:
    """Lengths come as often as the filler's probabilities say while nothing else is known. What would have ended within
    the prompt ends behind it."""
    weights = torch.tensor([0.1, 0.2, 0.3, 0.15])  # of records of 0 to 3 tokens; the others have no filler
    calls = []

    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        over = F.pad(weights.cumsum(0), (1, 0)) * (not calls)
        calls.append(len(x))
        logits = torch.full((len(x), 5, 7), -torch.inf)
        logits[..., 0], logits[..., 6] = (1 - over).log(), over.log()
        return logits, state

    count = 20_000
    rows = torch.tensor([[5, *prompt]]).expand(count, -1)
    how = Unmask(7, Cut(), order="confidence")
    found = stream(predict, rows, Cond(count), Rng(0), torch.arange(count), how, 5, 5 - len(prompt), 5, 6)
    assert set(found.unique().tolist()) <= {0, 5}
    sizes = torch.bincount(len(prompt) + (found == 0).sum(1), minlength=6).tolist()
    shares = [0.1, 0.2, 0.3, 0.15, 0.0, 0.25]
    shares[: len(prompt) + 1] = [0.0] * len(prompt) + [sum(shares[: len(prompt) + 1])]
    there = [i for i, share in enumerate(shares) if share]
    assert sum(sizes[i] for i in there) == count
    assert chisquare([sizes[i] for i in there], [count * shares[i] for i in there]).pvalue > 1e-3


def test_guidance_zero_ignores_the_label_and_one_does_not() -> None:
    modules = made(GRID, SPEC)

    def under(label: int, guidance: float) -> Tensor:
        cond = Cond(30, {"label": torch.full((30,), label)}, {"label": torch.ones(30, dtype=torch.bool)})
        return drawn(GRID, cond, modules, guidance=guidance)

    assert torch.equal(under(0, 0.0), under(1, 0.0))
    assert not torch.equal(under(0, 1.0), under(1, 1.0))
    assert not torch.equal(under(0, 1.0), under(0, 3.0))


# --------------------------------------------------------------------------- records and refusals


@pytest.mark.parametrize("given", [{"width": 30, "heads": 4}, {"width": 9, "heads": 3}, {"colour": 1}, {"heads": 0}])
def test_an_invalid_configuration_is_refused(given: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        MaskedConfig(**given)


def test_an_unsuitable_space_is_refused_with_a_reason() -> None:
    assert "codec" in str(FAMILY.accepts(Space("field", (1, 4, 4))))
    assert "levels" in str(FAMILY.accepts(Space("tokens", (8, 4), (5,) * 4)))
    with pytest.raises(ValidationError):
        MaskedSettings(order="sideways")
    assert isinstance(FAMILY.build(CONFIG, STREAM, {})["denoiser"], Denoiser)
    assert FAMILY.likelihood is not None and FAMILY.likelihood.bound


# --------------------------------------------------------------------------- editing

RASTER = Space("tokens", (6,), (5,), {"begin": 4}, grid=(2, 3))


def edited(strength: float, keep: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    modules = FAMILY.build(CONFIG, RASTER, {})
    start = torch.arange(24).view(4, 6) % 4
    assert FAMILY.edit is not None
    task = Edit(start, strength, keep)
    return start, FAMILY.edit(modules, CONFIG, RASTER, task, Cond(4), Rng(1), torch.arange(4), MaskedSettings())


def test_an_edit_keeps_the_marked_values() -> None:
    keep = torch.tensor([True, True, False, True, False, False]).expand(4, 6)
    start, x = edited(1.0, keep)
    assert torch.equal(x[keep], start[keep]) and not torch.equal(x, start)


def test_the_strength_of_an_edit() -> None:
    start, x = edited(0.0)
    assert torch.equal(x, start)
    start, x = edited(0.5)
    assert 0 < int((x != start).sum()) <= 18


def test_an_energy_of_tokens_is_refused() -> None:
    modules = FAMILY.build(CONFIG, RASTER, {})
    task = Edit(torch.zeros(1, 6), energy=lambda x: x.sum(1))
    assert FAMILY.edit is not None
    with pytest.raises(UserError, match="no gradient"):
        FAMILY.edit(modules, CONFIG, RASTER, task, Cond(1), Rng(1), torch.arange(1), MaskedSettings())
