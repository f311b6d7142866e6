"""What the families have in common that draw one token after the other: settings, objective, likelihood, sampling and
rollouts, over any network that continues tokens (nets.decoding.CausalNet)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from afresh.core import (
    Batch,
    Cond,
    Evaluations,
    Likelihood,
    Loss,
    Modules,
    Policy,
    Predict,
    Rollout,
    Sampling,
    Space,
    State,
    Steps,
    Stepwise,
    UserError,
)
from afresh.core.device import tensor_on
from afresh.core.rng import Rng
from afresh.engine.nets.decoding import CausalNet, check_engine, decode, kind_of
from afresh.engine.nets.kernels.decode import Kind
from afresh.engine.sampling.constraint import Constraint, Maker
from afresh.engine.sampling.guidance import classifier_free
from afresh.engine.sampling.tokens import (
    Alternatives,
    Cut,
    Decoding,
    Penalties,
    TokenSequence,
    Watch,
    continuations,
    draw_plain,
)
from afresh.services.watermark.marked_text import MarkedText
from afresh.services.watermark.watermark import Watermark


class NextTokenSettings(BaseModel):
    """Options of sampling. `length`: number of new tokens of a stream; images always have all their tokens.

    `constraint` creates the constraint of each text (afresh.engine.sampling.constrained), one object for each sample.
    `notation`: whether samples with a grammar of their own, such as scores of music, are held to it, unless there is a
    `constraint`; `follows` makes the constraint of what follows a prompt.
    `watch` is called with every token that is drawn, and may end the sample. `watermark` marks tokens that are drawn at
    a temperature above 0. `weights`: precision of the weights while decoding on a CPU; auto is that of training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    temperature: float = Field(1.0, ge=0, le=10)  # 0 = the likeliest token
    top_k: int = Field(0, ge=0)  # only the k likeliest; 0 = all
    top_p: float = Field(1.0, gt=0, le=1)  # only the likeliest that make up p
    min_p: float = Field(0.0, ge=0, le=1)  # only those p times as likely as the best
    frequency_penalty: float = Field(0.0, ge=-2, le=2)  # for each time that a token was drawn before
    presence_penalty: float = Field(0.0, ge=-2, le=2)  # once, for tokens that were drawn before
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] = Field(default_factory=dict)  # by token id
    top_logprobs: int = Field(0, ge=0, le=20)  # the likeliest tokens that are recorded beside each drawn one
    length: int = Field(256, ge=1)
    guidance: float = Field(1.0, ge=0, le=100)  # 1 = as trained
    notation: bool = True  # whether scores of music are held to their grammar
    constraint: Maker | None = Field(None, exclude=True)
    follows: Callable[[Sequence[int]], Constraint] | None = Field(None, exclude=True)
    watch: Watch | None = Field(None, exclude=True)
    scored: bool = Field(True, exclude=True)  # whether `watch` receives log-probabilities, or zeros
    watermark: Watermark | None = Field(None, exclude=True)
    weights: Literal["auto", "float32", "bfloat16", "int8"] = "auto"


def causal_net(modules: Modules) -> CausalNet:
    """The network that continues tokens."""
    return cast(CausalNet, modules["decoder"])


class NextTokenObjective:
    """Cross-entropy of the next token, in nats; the weight is the number of counted tokens."""

    players: Mapping[str, tuple[str, ...]] = {"model": ("decoder",)}
    averaged = ("decoder",)

    def __init__(self, config: Any, space: Space) -> None:
        self.config, self.space = config, space

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        net, targets, tokens = causal_net(modules), counted_targets(batch), inputs_of(self.space, batch)
        keep = dropout(self.config, rng, batch.index, tokens.shape[1])
        nats = net(tokens, net.condition(batch.cond), targets, keep, self.negatives(rng, step, tokens.device))
        return nats.sum(), (targets >= 0).sum(), {"loss": nats.detach().sum()}

    def negatives(self, rng: Rng, step: int, device: torch.device) -> Tensor | None:
        """The tokens (n,) that represent the vocabulary in a step, whatever the division of its batch."""
        if not self.config.negatives:
            return None
        size = self.space.vocab[0]
        drawn = rng.uniform("negatives", torch.full((1,), step, device=device), (self.config.negatives,))[0] * size
        return drawn.long().clamp_max(size - 1)

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def dropout(config: Any, rng: Rng, index: Tensor, count: int) -> list[Tensor]:
    """The factors (B, T, width) of the embeddings and of the two branches of each block: 0 for a share `dropout` of
    them, and so much more than 1 for the others that the mean is 1 (Srivastava et al. 2014).

    The draws of a position depend neither on the batch nor on its length.
    """
    if not config.dropout:
        return []
    places = 1 + 2 * config.layers
    keep = rng.dropout("dropout", index, (count, places, config.width), config.dropout)
    return [keep[:, :, i] for i in range(places)]


def next_token_nats(modules: Modules, space: Space, batch: Batch) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy in nats and number of counted tokens of each row, (B,) each."""
    net, targets = causal_net(modules), counted_targets(batch)
    return net(inputs_of(space, batch), net.condition(batch.cond), targets), (targets >= 0).sum(1)


def inputs_of(space: Space, batch: Batch) -> Tensor:
    """The tokens (B, T) that the network reads. An `end` between documents is predicted as it is, and read as the token
    with which the next document begins."""
    tokens = batch.x[:, :-1]
    if space.opening is None or not space.lead:  # the messages of a conversation end, and no document begins
        return tokens
    return tokens.masked_fill(tokens == space.special["end"], space.opening)


def counted_targets(batch: Batch) -> Tensor:
    """The tokens to predict, (B, T), -1 where one is not counted."""
    targets = batch.x[:, 1:]
    return targets if batch.mask is None else targets.masked_fill(~batch.mask, -1)


def score(modules: Modules, config: Any, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """Log-likelihood of the counted tokens in nats, (B,); differentiable."""
    return -next_token_nats(modules, space, batch)[0]


def token_score(modules: Modules, config: Any, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """Log-likelihood of each counted token in nats, 0 for the others, (B, T)."""
    net = causal_net(modules)
    h = net.hidden(inputs_of(space, batch), net.condition(batch.cond))
    return -net.token_nats(h, counted_targets(batch))


def predictor(modules: Modules, context: int, weights: Kind | Literal["auto"] = "auto") -> Predict:
    """A Predict of the logits (B, V) of the next token, after the first t[b] (None: all) of x (B, T).

    The state is the key/value cache. `weights` auto: bfloat16 under autocast, otherwise float32.
    """
    net = causal_net(modules)

    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        return decode(net, x, t, net.condition(cond), state, context, kind_of(weights, x.device))

    return predict


def prompts_of(space: Space, cond: Cond) -> list[list[int]]:
    """The tokens with which each sample begins: the token before an example in training, and the prompt."""
    if cond.known is None:
        return [[space.context_token] for _ in range(cond.size)]
    known = cond.known_mask if cond.known_mask is not None else torch.ones_like(cond.known, dtype=torch.bool)
    return [[*space.lead, *row[m].tolist()] for row, m in zip(cond.known, known, strict=True)]


def never_drawn(space: Space) -> list[int]:
    """The special tokens but the one that ends a sample, whose id may have several names."""
    return [i for i in space.special.values() if i != space.end_token]


def decoding(
    modules: Modules, config: Any, space: Space, settings: NextTokenSettings, among_drawn: bool = False
) -> Decoding:
    """An empty batch in which sequences with the same guidance and precision can be drawn side by side. Raises
    UserError for a precision of the weights without an engine."""
    net = causal_net(modules)
    check_engine(net, settings.weights)
    context = space.shape[0]
    predict = classifier_free(predictor(modules, context + 1, settings.weights), settings.guidance)
    return Decoding(predict, context, net.device, space.end_token, never_drawn(space), among_drawn)


def sequences(space: Space, cond: Cond, rng: Rng, index: Tensor, settings: NextTokenSettings) -> list[TokenSequence]:
    """The sequences of a request, each with its prompt alone."""
    cut = Cut(settings.temperature, settings.top_k, settings.top_p, settings.min_p)
    bias = tuple(sorted(settings.logit_bias.items()))
    if bias and not 0 <= bias[0][0] <= bias[-1][0] < space.vocab[0]:
        raise UserError(f"logit_bias is by token id, from 0 to {space.vocab[0] - 1}. Given: {sorted(dict(bias))}.")
    penalties = Penalties(settings.frequency_penalty, settings.presence_penalty, bias)
    length, prompts = space.sample_length(settings.length), prompts_of(space, cond)
    marked: Sequence[MarkedText | None] = [None] * len(prompts)
    if settings.watermark is not None:
        marked = MarkedText.of(settings.watermark, prompts, length, rng, index)
    return [
        TokenSequence(
            prompt,
            number,
            rng,
            length,
            cut,
            penalties,
            settings.constraint() if settings.constraint else settings.follows(prompt) if settings.follows else None,
            settings.watch,
            settings.top_logprobs,
            settings.scored,
            marks,
        )
        for prompt, number, marks in zip(prompts, index.tolist(), marked, strict=True)
    ]


def is_plain(settings: NextTokenSettings) -> bool:
    """Whether tokens are drawn from a cut distribution alone, without a constraint and without `watch`."""
    penalties = settings.frequency_penalty or settings.presence_penalty or settings.logit_bias
    return not penalties and settings.constraint is settings.follows is settings.watch is None


def batch_key(settings: NextTokenSettings) -> Hashable:
    """Requests with equal values can be drawn in one batch."""
    return settings.guidance, settings.weights


def gather(space: Space, drawn: Sequence[TokenSequence]) -> Tensor:
    """(n, T) int64 of sequences that have ended; short ones are padded with `end`. Raises UserError if one failed."""
    rows = continuations(drawn, space.end_token)
    if space.fixed:  # the prompt is the first part of the image
        both = zip(drawn, rows, strict=True)
        return torch.tensor([(s.tokens[1 : s.prompt] + row)[: space.shape[0]] for s, row in both])
    longest = max(map(len, rows))
    return torch.tensor([r + [space.special["end"]] * (longest - len(r)) for r in rows], dtype=torch.int64)


@torch.no_grad()
def sample(
    modules: Modules,
    config: Any,
    space: Space,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: NextTokenSettings,
    among_drawn: bool = False,
) -> Tensor:
    """(n, T) int64. A stream continues cond.known (B, S) where its mask is true; short rows are padded with `end`.

    Records need such a prompt, as nothing precedes it. `among_drawn`: whether the probability that `watch` receives is
    among the tokens that may be drawn. Raises UserError for a precision of the weights without an engine.
    """
    batch, drawn = decoding(modules, config, space, settings, among_drawn), sequences(space, cond, rng, index, settings)
    left = drawn
    if drawn and type(rng) is Rng and index.device.type == "cpu" and is_plain(settings):
        left = draw_plain(batch, drawn, cond, rng, index)
    if left:
        place = {id(s): i for i, s in enumerate(drawn)}
        batch.join(left, cond if left is drawn else cond.select(torch.tensor([place[id(s)] for s in left])))
    batch.run()
    return gather(space, drawn)


def windows(space: Space, length: int) -> int:
    """Of so many new tokens, each of which begins half a window after the one before."""
    return -(-length // max(1, space.shape[0] // 2))


def rollout(
    modules: Modules,
    config: Any,
    space: Space,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: NextTokenSettings,
) -> Rollout:
    """Samples of `sample`, and the log-probability of each token, `end` included, among those that may be drawn.

    Raises UserError for settings under which tokens are not drawn from the policy itself, and if a prompt and the new
    tokens do not fit in the context.
    """
    plain = NextTokenSettings(length=settings.length, weights=settings.weights)
    if settings != plain:
        raise UserError("A policy is trained without temperature, truncation or guidance. Only length can be set.")
    prompts, room = prompts_of(space, cond), space.shape[0] + 1
    count = space.sample_length(settings.length)
    longest = max(map(len, prompts))
    if not space.fixed and longest + count > room:
        raise UserError(
            f"Prompts of {longest - 1} tokens and {count} new ones do not fit in the model's context of {room - 1}. "
            "Choose a smaller length or shorter prompts."
        )
    place = {number: row for row, number in enumerate(index.tolist())}
    drawn: list[list[int]] = [[] for _ in prompts]
    sure: list[list[float]] = [[] for _ in prompts]

    def watch(number: int, token: int, likely: float, top: Alternatives) -> bool:
        drawn[place[number]].append(token)
        sure[place[number]].append(likely)
        return False

    watched = plain.model_copy(update={"watch": watch})
    x = sample(modules, config, space, cond, rng, index, watched, among_drawn=True)
    width = max(len(p) + len(d) for p, d in zip(prompts, drawn, strict=True))
    rows = torch.full((len(prompts), width), space.context_token)
    mask = torch.zeros(len(prompts), width - 1, dtype=torch.bool)
    logp = torch.zeros(len(prompts), width - 1)
    for b, (prompt, new, likely) in enumerate(zip(prompts, drawn, sure, strict=True)):
        first = len(prompt)
        rows[b, : first + len(new)] = torch.tensor([*prompt, *new])
        mask[b, first - 1 : first - 1 + len(new)] = True
        logp[b, first - 1 : first - 1 + len(new)] = torch.tensor(likely)
    device = index.device
    return Rollout(x, Batch(rows.to(device), cond, index, mask.to(device)), logp.to(device))


def steps(modules: Modules, config: Any, space: Space, batch: Batch) -> Steps:
    """The steps of the counted tokens (batch.mask), with probabilities among the tokens that may be drawn."""
    net = causal_net(modules)
    assert batch.mask is not None
    c = net.condition(batch.cond)
    h = net.hidden(inputs_of(space, batch), c)
    logits = net.logits(h[batch.mask])  # only of the counted steps: a prompt may be long
    if banned := never_drawn(space):
        logits = logits.index_fill(1, tensor_on(logits.device, banned), -torch.inf)
    logs = logits.log_softmax(-1)
    taken = logs.gather(1, batch.x[:, 1:][batch.mask][:, None])[:, 0]
    with torch.no_grad():
        spread = -(logs.exp() * logs.clamp_min(-1e4)).sum(-1)
    nothing = torch.zeros(batch.mask.shape, dtype=logs.dtype, device=logs.device)
    logp, entropy = (nothing.masked_scatter(batch.mask, v) for v in (taken, spread))
    return Steps(logp, batch.mask, entropy, h.detach().float())


SAMPLING = Sampling(NextTokenSettings, sample, stepwise=Stepwise(decoding, sequences, gather, batch_key))
LIKELIHOOD = Likelihood(score, tokens=token_score, method="exact log-likelihood")
EVALUATIONS = Evaluations(lambda space, settings: 1 if space.fixed else windows(space, settings.length))
POLICY = Policy(("decoder",), rollout=rollout, steps=steps, score=score, fits=True)
