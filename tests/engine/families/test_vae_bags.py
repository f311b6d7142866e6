"""The VAE of bags against Mult-VAE written out over the catalogue (Liang et al. 2018, eq. 2 to 7)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Multinomial, Normal, kl_divergence

from afresh.core import Batch, Cond, Part, Space, UserError, registry
from afresh.core.rng import Rng
from afresh.engine.families.vae.bags import FAMILY, BagObjective, BagVAEConfig
from afresh.engine.families.vae.bags import elbo as score
from afresh.engine.families.vae.latents import VAESettings
from afresh.engine.nets.bags import BagDecoder, BagEncoder

ITEMS = 12
SPACE = Space("tokens", (8,), (ITEMS + 1,), {"end": ITEMS}, stream=True, catalogue=True)
CONFIG = BagVAEConfig(width=8, latent=4, cond=8, beta=0.2, components=2)
BAGS = [[3, 1, 7], [0], [5, 2, 9, 11, 4, 8], [10, 3]]


def batch(bags: list[list[int]] = BAGS, context: int = 0) -> Batch:
    """Bags whose first `context` items are known before."""
    longest = max(map(len, bags))
    x = torch.tensor([[ITEMS, *b, *[ITEMS] * (longest - len(b))] for b in bags])
    counted = torch.tensor([[context <= i < len(b) for i in range(longest)] for b in bags])
    return Batch(x, Cond(len(bags)), torch.arange(len(bags)) + 20, counted)


def made(config: BagVAEConfig = CONFIG) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return FAMILY.build(config, SPACE, {})


def networks(modules: dict[str, nn.Module]) -> tuple[BagEncoder, BagDecoder]:
    encoder, decoder = modules["encoder"], modules["decoder"]
    assert isinstance(encoder, BagEncoder) and isinstance(decoder, BagDecoder)
    return encoder, decoder


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


class Dense(nn.Module):
    """Mult-VAE: linear layers over the multi-hot rows, with the weights of the networks over bags."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        super().__init__()
        encoder, decoder = networks(modules)

        def copied(t: Tensor) -> nn.Parameter:
            return nn.Parameter(t.detach().clone())

        self.weight_1, self.bias_1 = copied(encoder.embedding.weight[:ITEMS]), copied(encoder.condition.bias)
        self.weight_2, self.bias_2 = copied(encoder.last.weight), copied(encoder.last.bias)
        self.weight_3, self.bias_3 = copied(decoder.first.weight), copied(decoder.first.bias)
        self.weight_4, self.bias_4 = copied(decoder.head.weight[:ITEMS]), copied(decoder.head.bias[:ITEMS])

    def posterior(self, x: Tensor, keep: Tensor | None = None) -> Normal:
        shown = F.normalize(x, dim=1) if keep is None else F.normalize(x, dim=1) * keep
        mean, log_var = F.linear(torch.tanh(shown @ self.weight_1 + self.bias_1), self.weight_2, self.bias_2).chunk(
            2, 1
        )
        return Normal(mean, (0.5 * log_var).exp())

    def logits(self, z: Tensor) -> Tensor:
        return F.linear(torch.tanh(F.linear(z, self.weight_3, self.bias_3)), self.weight_4, self.bias_4)

    def loss(self, x: Tensor, noise: Tensor, keep: Tensor | None = None, beta: float = 0.2) -> Tensor:
        q = self.posterior(x, keep)
        nats = -(x * self.logits(q.mean + q.stddev * noise).log_softmax(1)).sum(1)
        return nats + beta * kl_divergence(q, Normal(torch.zeros(4), torch.ones(4))).sum(1)


def multi_hot(bags: list[list[int]] = BAGS) -> Tensor:
    return torch.stack([torch.zeros(ITEMS).index_fill(0, torch.tensor(b), 1.0) for b in bags])


def test_the_loss_and_its_gradients_are_those_of_the_dense_model() -> None:
    modules, data = made(), batch()
    dense = Dense(modules)
    total, weight, metrics = BagObjective(CONFIG, SPACE).loss(modules, data, "model", 0, Rng(3), {})
    noise = Rng(3).normal("vae/latent", data.index, (4,))
    expected = dense.loss(multi_hot(), noise)
    assert int(weight) == sum(map(len, BAGS))
    assert total.item() == pytest.approx(expected.sum().item(), rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(dense.loss(multi_hot(), noise, beta=1).sum().item(), rel=1e-5)
    total.backward()
    expected.sum().backward()
    encoder, decoder = networks(modules)
    pairs = {
        "weight_1": gradient(encoder.embedding.weight)[:ITEMS],
        "bias_1": gradient(encoder.condition.bias),
        "weight_2": gradient(encoder.last.weight),
        "bias_2": gradient(encoder.last.bias),
        "weight_3": gradient(decoder.first.weight),
        "bias_3": gradient(decoder.first.bias),
        "weight_4": gradient(decoder.head.weight)[:ITEMS],
        "bias_4": gradient(decoder.head.bias)[:ITEMS],
    }
    for name, found in pairs.items():
        assert torch.allclose(found, gradient(dense.get_parameter(name)), rtol=1e-4, atol=1e-6), name


def test_the_likelihood_is_the_multinomial_s_but_for_its_coefficient() -> None:
    modules = made()
    dense, x, noise = Dense(modules), multi_hot(), torch.zeros(4, 4)
    logits = dense.logits(dense.posterior(x).mean)
    n = x.sum(1)
    coefficient = torch.lgamma(n + 1)  # of sets: no item occurs twice
    each = [Multinomial(int(k), logits=row).log_prob(row_x) for k, row, row_x in zip(n, logits, x, strict=True)]
    assert torch.allclose(-torch.stack(each) + coefficient, dense.loss(x, noise, beta=0), rtol=1e-5)


def test_dropout_hides_a_share_of_the_items_and_scales_the_others() -> None:
    config, data = CONFIG.model_copy(update={"dropout": 0.4}), batch()
    modules = made(config)
    total, _, _ = BagObjective(config, SPACE).loss(modules, data, "model", 0, Rng(3), {})
    shown = Rng(3).uniform("vae/dropout", data.index, (6,)) >= 0.4
    keep = torch.zeros(4, ITEMS)
    for row, bag in enumerate(BAGS):
        keep[row, bag] = shown[row, : len(bag)].float() / 0.6
    noise = Rng(3).normal("vae/latent", data.index, (4,))
    assert 0 < int(shown.sum()) < shown.numel()
    assert total.item() == pytest.approx(Dense(modules).loss(multi_hot(), noise, keep).sum().item(), rel=1e-5)


def test_the_score_is_the_bound_and_depends_neither_on_the_order_nor_on_dropout() -> None:
    modules, data = made(), batch()
    found = score(modules, CONFIG.model_copy(update={"dropout": 0.5}), SPACE, data, Rng(3))
    noise = Rng(3).normal("vae/score", data.index, (4,))
    assert torch.allclose(-found, Dense(modules).loss(multi_hot(), noise, beta=1), rtol=1e-5)
    turned = score(modules, CONFIG, SPACE, batch([b[::-1] for b in BAGS]), Rng(3))
    assert torch.allclose(found, turned, rtol=1e-5)


def test_what_is_known_before_predicts_the_rest_and_is_shown_whole() -> None:
    """log p(rest | known) for one draw of z given the known items."""
    config, bags = CONFIG.model_copy(update={"dropout": 0.5}), [[3, 1, 7], [5, 2, 9, 11]]
    modules, data = made(config), batch(bags, context=2)
    dense, noise = Dense(modules), Rng(3).normal("vae/latent", data.index, (4,))
    q = dense.posterior(multi_hot([b[:2] for b in bags]))
    logs = dense.logits(q.mean + q.stddev * noise).log_softmax(1)
    expected = logs[0, 7] + logs[1, 9] + logs[1, 11]
    total, weight, metrics = BagObjective(config, SPACE).loss(modules, data, "model", 0, Rng(3), {})
    assert int(weight) == 3 and float(metrics["kl"]) == 0
    assert total.item() == pytest.approx(-expected.item(), rel=1e-5)


def test_a_bound_is_below_the_likelihood() -> None:
    """The mean of the bound over draws, and the likelihood by the same draws weighted by their importance."""
    modules, draws = made(), 4_000
    dense, x = Dense(modules), multi_hot([[3, 1, 7]])
    bags = batch([[3, 1, 7]] * draws)
    bound = score(modules, CONFIG, SPACE, bags, Rng(0)).mean()
    with torch.no_grad():
        z = Rng(1).normal("prior", torch.arange(draws), (4,))
        exact = (x * dense.logits(z).log_softmax(1)).sum(1).logsumexp(0) - math.log(draws)
    assert float(bound) < float(exact)


def test_the_next_item_is_predicted_by_the_mean_of_the_posterior_whatever_the_order() -> None:
    modules = made()
    assert FAMILY.predict_next is not None
    predict = FAMILY.predict_next(modules, SPACE)
    x = torch.tensor([[ITEMS, 3, 1, 7], [ITEMS, 7, 3, 1], [ITEMS, 3, 1, 5]])
    logs, _ = predict(x, torch.tensor([4, 4, 3]), Cond(3), None)
    dense = Dense(modules)
    expected = dense.logits(dense.posterior(multi_hot([[3, 1, 7], [3, 1]])).mean).log_softmax(1)
    assert torch.allclose(logs[0, :ITEMS], expected[0], atol=1e-5)
    assert torch.allclose(logs[1], logs[0], atol=1e-5)
    assert torch.allclose(logs[2, :ITEMS], expected[1], atol=1e-5)


def test_samples_are_sets_and_go_on_from_known_items() -> None:
    modules, settings = made(), VAESettings(length=5)
    x = FAMILY.sampling.sample(modules, CONFIG, SPACE, Cond(40), Rng(0), torch.arange(40), settings)
    assert x.shape == (40, 5) and int(x.max()) < ITEMS
    assert all(len(set(row)) == 5 for row in x.tolist())
    known = torch.tensor([[3, 1, 7, 0, 5, 2]]).expand(40, 6)
    mask = torch.arange(6)[None] < torch.tensor([0] * 20 + [6] * 20)[:, None]
    prompted = Cond(40, known=known, known_mask=mask)
    more = FAMILY.sampling.sample(modules, CONFIG, SPACE, prompted, Rng(0), torch.arange(40), settings)
    assert torch.equal(more[:20], x[:20])  # nothing is known of these
    assert not torch.isin(more[20:], known).any()
    every = FAMILY.sampling.sample(modules, CONFIG, SPACE, prompted, Rng(0), torch.arange(40), VAESettings())
    assert every.shape == (40, 8)
    assert ((every == ITEMS).sum(1) == torch.tensor([0] * 20 + [2] * 20)).all()  # six items are left


def test_how_often_items_are_drawn_first_follows_their_probabilities() -> None:
    modules, n = made(), 4_000
    decoder = networks(modules)[1]
    with torch.no_grad():
        decoder.first.weight.zero_()  # the same probabilities for every z
        decoder.head.bias.copy_(torch.linspace(0, 3, ITEMS + 1))
        p = decoder(torch.zeros(1, 4), torch.zeros(1, 8))[0, :ITEMS].exp()
    first = FAMILY.sampling.sample(modules, CONFIG, SPACE, Cond(n), Rng(0), torch.arange(n), VAESettings(length=1))
    share = torch.bincount(first[:, 0], minlength=ITEMS) / n
    assert torch.allclose(share, p, atol=float(4 * (p * (1 - p) / n).sqrt().max()))


def test_a_condition_says_what_is_drawn() -> None:
    spec = {"label": Part("label", ("a", "b"))}
    torch.manual_seed(0)
    modules = FAMILY.build(CONFIG, SPACE, spec)
    one, other = (Cond(2, {"label": torch.full((2,), i)}, {"label": torch.ones(2, dtype=torch.bool)}) for i in range(2))
    data = batch([[3, 1], [5]])
    scores = [score(modules, CONFIG, SPACE, Batch(data.x, c, data.index, data.mask), Rng(0)) for c in (one, other)]
    assert not torch.allclose(scores[0], scores[1])


def test_bags_are_not_edited_and_draws_have_no_gradient() -> None:
    assert FAMILY.edit is None and FAMILY.latents is None
    with pytest.raises(UserError, match=r"draft does not work for the family vae \(it lacks: draw\)"):
        registry.aligner("draft", FAMILY)


def test_other_tokens_are_refused() -> None:
    text = Space("tokens", (8,), (13,), {"end": 12}, stream=True)
    assert registry.family("vae").accepts(SPACE) is None and "transformer" in str(registry.family("vae").accepts(text))


def test_a_large_catalogue_is_represented_by_negatives_and_a_small_one_counts_whole() -> None:
    large = replace(SPACE, vocab=(20_001,), special={"end": 20_000})
    assert all(c.negatives == 0 and c.dropout and c.beta == 0.2 for c in FAMILY.plan.sizes(SPACE))
    assert all(c.negatives for c in FAMILY.plan.sizes(large))
    config = CONFIG.model_copy(update={"negatives": 500})
    drawn = BagObjective(config, replace(SPACE, special={"end": 3})).negatives(Rng(0), 7, torch.device("cpu"))
    assert drawn is not None and set(drawn.tolist()) == set(range(ITEMS + 1)) - {3}
