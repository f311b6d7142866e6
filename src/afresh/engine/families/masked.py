"""Masked diffusion over tokens: any position may be masked, and the network predicts all masked ones at once.

MDLM (Sahoo et al. 2024; Shi et al. 2024; Ou et al. 2025) with the log-linear schedule: at time t each token is replaced
by the mask with probability t, and minus the ELBO is the mean over t in [0, 1] of 1/t times the cross-entropy of the
masked tokens. Given the number n of masked tokens, the loss does not depend on the time, and integrating it out gives

    -log p(x) <= E_n E_S L/n sum_{i in S} -log p(x_i | x outside S),    n uniform on 1 ... L, S any n of L positions,

the loss of an autoregressive model averaged over all orders (Hoogeboom et al. 2022, section 3.1), with the same
expectation as with t and a lower variance. The network is not conditioned on the time, as the optimum does not depend
on it (Ou et al. 2025, theorem 1). It never predicts the mask, and visible tokens are carried over (Sahoo et al. 2024,
section 3.2.3).

A window of T tokens is preceded by one token of context, which is never masked: like the transformer, the model is
conditioned on the token before the window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from afresh.core import (
    Batch,
    Cond,
    CondSpec,
    Edit,
    Evaluations,
    Family,
    Likelihood,
    Loss,
    Modules,
    PlanHints,
    Policy,
    Predict,
    Sampling,
    Space,
    State,
    UserError,
)
from afresh.core.device import float64_device, wide
from afresh.core.rng import GOLDEN, Rng
from afresh.core.safe_json import MOST_LAYERS
from afresh.engine.nets.kernels import functions as kernels
from afresh.engine.nets.record import RecordBlock, RecordNet
from afresh.engine.nets.transformer import (
    TOKEN_RECIPE,
    TOKEN_SIZES,
    Block,
    Decoder,
    DecoderShape,
    compilable,
    layers_of,
    token_batch,
    token_examples,
)
from afresh.engine.sampling.constraint import Constraint
from afresh.engine.sampling.guidance import classifier_free
from afresh.engine.sampling.masked import Order, Unmask, fill, fill_long, ranks, repair
from afresh.engine.sampling.tokens import Cut
from afresh.services.watermark.watermark import Watermark

REACH, AROUND = 3, 2  # neighbours on each side that `Surroundings` adds, in a sequence and along each axis of a grid
SCORES = 8  # evaluations for the score of an example, each with another number of masked tokens


class MaskedConfig(BaseModel):
    """Sizes of the network. `mlp` 0: 8/3 of the width, rounded up to a multiple of 32."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: int = Field(192, ge=2)  # of the residual stream
    layers: int = Field(4, ge=1, le=MOST_LAYERS)  # blocks of attention and mlp
    heads: int = Field(3, ge=1)  # of attention
    mlp: int = Field(0, ge=0)

    @model_validator(mode="after")
    def check(self) -> MaskedConfig:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} must be an even multiple of heads ({self.heads})")
        return self


class MaskedSettings(BaseModel):
    """Options of sampling. `length`: number of new tokens of a stream; images always have all their tokens.

    `steps`: most network evaluations for a window; 0 = one for each token, which is exact and slow. `order`: the order
    of unmasking, see afresh.engine.sampling.masked.Unmask. `notation`: whether samples with their own grammar, such
    as scores of music, are held to it if they have no holes; `follows` makes the constraint of what follows a prompt.
    `watermark` marks the tokens whose context was drawn before them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    temperature: float = Field(1.0, ge=0, le=10)  # 0 = the likeliest token
    top_k: int = Field(0, ge=0)  # only the k likeliest; 0 = all
    top_p: float = Field(1.0, gt=0, le=1)  # only the likeliest that make up p
    min_p: float = Field(0.0, ge=0, le=1)  # only those p times as likely as the best
    length: int = Field(256, ge=1)
    guidance: float = Field(1.0, ge=0, le=100)  # 1 = as trained
    steps: int = Field(64, ge=0)
    order: Order = "random"
    notation: bool = True  # whether scores of music are held to their grammar
    follows: Callable[[Sequence[int]], Constraint] | None = Field(None, exclude=True)
    watermark: Watermark | None = Field(None, exclude=True)


class RecordConfig(BaseModel):
    """Sizes of the network of records (nets/record.py). `embedding`: width of the embedding of a token; `cosines`: the
    most that the ordered tokens of a position are told by; `dropout`: share of the activations, in training."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: int = Field(384, ge=2)  # of the residual stream
    layers: int = Field(2, ge=1, le=MOST_LAYERS)  # blocks
    embedding: int = Field(16, ge=1)
    cosines: int = Field(24, ge=1)
    dropout: float = Field(0.1, ge=0, le=0.9)


class TokenDenoiser(Protocol):
    """A network that predicts the masked tokens of windows, as `Denoiser` and `RecordNet` do."""

    mask: int  # the id that stands for a masked token, one above the vocabulary

    def condition(self, cond: Cond) -> Tensor | None: ...
    def __call__(self, tokens: Tensor, c: Tensor | None, targets: Tensor | None = None, **dropout: Any) -> Tensor: ...


def denoiser(modules: Modules) -> TokenDenoiser:
    return cast(TokenDenoiser, modules["denoiser"])


class Surroundings(nn.Embedding):
    """Embeddings of tokens, to each of which those of its neighbours are added with weights for each channel.

    The neighbours are up to `REACH` positions before and after; on a grid of two axes, up to `AROUND` along each axis.
    A masked token has no information of its own: until attention has learnt to use its neighbours, the loss stays near
    the entropy of token frequencies, for most of a budget of minutes (docs/development/log.md). This is a Canon layer
    (Allen-Zhu 2025), but bidirectional and only at the input.
    """

    def __init__(self, vocab: int, width: int, grid: tuple[int, ...]) -> None:
        super().__init__(vocab, width)
        self.grid = grid if len(grid) == 2 else ()
        self.reach = (AROUND, AROUND) if self.grid else (0, REACH)
        self.near = nn.Parameter(torch.empty(width, 1, *(2 * r + 1 for r in self.reach)))
        nn.init.normal_(self.weight, std=0.5)
        nn.init.normal_(
            self.near, std=0.5 if not self.grid else 0.5 * math.sqrt((2 * REACH + 1) / self.near[0].numel())
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 -> (B, T, width). With a grid, the first token is the context and not a cell."""
        e = super().forward(tokens)
        first = e[:, : len(self.grid) // 2]
        x = e[:, first.shape[1] :].transpose(1, 2)  # (B, width, T), or only the cells
        plane = x.reshape(*x.shape[:2], *(self.grid or (1, -1))).contiguous(memory_format=torch.channels_last)
        near = F.conv2d(plane, self.near, padding=self.reach, groups=e.shape[2]).flatten(2).transpose(1, 2)
        return e + torch.cat([torch.zeros_like(first, dtype=near.dtype), near], 1)


class Denoiser(nn.Module):
    """Tokens (B, T + 1), with the mask's id V where masked, to logits (B, T, V) of all but the token of context.

    With `targets` (B, T), -1 to ignore one: their summed cross-entropy in nats, (B,).
    """

    def __init__(self, shape: DecoderShape, conds: CondSpec, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.decoder = Decoder(shape, conds)
        self.decoder.embedding = Surroundings(shape.vocab, shape.width, grid)
        self.mask = shape.vocab - 1

    def condition(self, cond: Cond) -> Tensor | None:
        return self.decoder.condition(cond)

    def forward(self, tokens: Tensor, c: Tensor | None, targets: Tensor | None = None) -> Tensor:
        assert self.decoder.head is not None
        h = self.decoder.hidden(tokens, c)[:, 1:]
        logits = F.linear(h, self.decoder.head.weight[:-1])  # the mask is never predicted
        if targets is None:
            return logits.float()
        if kernels.usable(logits):
            return kernels.cross_entropy(logits.flatten(0, 1), targets.flatten()).view(targets.shape).sum(1)
        nats = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")
        return nats.view(targets.shape).sum(1)


@dataclass(frozen=True)
class MaskedWindow:
    """A batch padded to the window of T tokens: x (B, T + 1), and which targets are counted, (B, T) bool."""

    x: Tensor
    counted: Tensor
    cond: Cond
    index: Tensor

    @staticmethod
    def of(batch: Batch, space: Space) -> MaskedWindow:
        """Pads a batch: the length of its rows would otherwise be visible to a bidirectional network."""
        room = (0, space.shape[0] + 1 - batch.x.shape[1])
        counted = torch.ones_like(batch.x[:, 1:], dtype=torch.bool) if batch.mask is None else batch.mask
        x, counted = F.pad(batch.x, room), F.pad(counted, room)
        if (filler := space.filler) is not None:  # predicted: a record's length is known from the first step on
            after = ~counted.flip(1).cummax(1).values.flip(1)
            x, counted = torch.cat([x[:, :1], x[:, 1:].masked_fill(after, filler)], 1), counted | after
        return MaskedWindow(x, counted, batch.cond, batch.index)

    def nats(self, net: TokenDenoiser, hidden: Tensor, **dropout: Any) -> Tensor:
        """L / n times the summed cross-entropy of the n of L counted tokens that are `hidden` (B, T), (B,).

        Tokens that are not counted are visible before a counted one (a question), but not after the last, since they
        would reveal where the text ends.
        """
        after = ~self.counted.flip(1).cummax(1).values.flip(1)
        tokens = self.x.clone()
        tokens[:, 1:].masked_fill_(hidden | after, net.mask)
        targets = self.x[:, 1:].masked_fill(~hidden, -1)
        weight = self.counted.sum(1) / hidden.sum(1).clamp_min(1)
        return net(tokens, net.condition(self.cond), targets, **dropout) * weight

    def ranks(self, rng: Rng, purpose: str) -> Tensor:
        """Ranks (B, T) in a random order of the counted positions, followed by the others."""
        return ranks(rng.bits(purpose, self.index, tuple(self.counted.shape[1:])), self.counted)


class MaskedObjective:
    """Minus the ELBO in nats, with one draw of the masked tokens; the weight is the number of counted tokens."""

    players: Mapping[str, tuple[str, ...]] = {"model": ("denoiser",)}
    averaged = ("denoiser",)

    def __init__(self, config: Any, space: Space) -> None:
        self.space = space

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        net = denoiser(modules)
        window = MaskedWindow.of(batch, self.space)
        total = window.counted.sum(1)
        n = 1 + part_of(total, spread(rng, batch.index))
        hidden = window.counted & (window.ranks(rng, "masked/order") < n[:, None])
        nats = window.nats(net, hidden, **self.dropout(rng, batch.index))
        return nats.sum(), total.sum(), {"loss": nats.detach().sum()}

    def dropout(self, rng: Rng, index: Tensor) -> Mapping[str, Any]:
        """What a network is told that drops activations in training."""
        return {}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


class RecordObjective(MaskedObjective):
    """That of records: a table of some ten thousand rows is seen tens of times, and dropout is what keeps its network
    from learning them by heart (docs/development/log.md)."""

    def __init__(self, config: Any, space: Space) -> None:
        super().__init__(config, space)
        self.share, self.width, self.layers = config.dropout, config.width, config.layers

    def dropout(self, rng: Rng, index: Tensor) -> Mapping[str, Any]:
        if not self.share or not torch.is_grad_enabled():  # evaluation
            return {}
        keep = [rng.dropout(f"record/{i}", index, (3 * self.width,), self.share) for i in range(self.layers)]
        return {"keep": keep}


def spread(rng: Rng, index: Tensor) -> Tensor:
    """Numbers in [0, 1) for the draws `index`, (B,) float64, evenly spread over consecutive draws; on the CPU
    if the device of `index` has no float64.

    Weyl's sequence of the golden ratio in 64-bit integers, with a random start: the low-variance times of Kingma et al.
    2021 (appendix I.1), but as a function of the number of each draw, so that they do not depend on the batch.
    """
    index = index.to(float64_device(index.device))
    start = rng.bits("masked/spread", torch.zeros_like(index[:1]))
    bits = index * GOLDEN + start
    return ((bits >> 11) & ((1 << 53) - 1)).double() * 2.0**-53


def part_of(total: Tensor, share: Tensor) -> Tensor:
    """floor(share * total), (B,) int64, of counts `total` (B,) and float64 shares (B,)."""
    return (share * total.to(share.device)).long().to(total.device)


def bound(modules: Modules, config: Any, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """An unbiased estimate of the ELBO of the counted tokens, a lower bound of their log-likelihood, in nats, (B,).

    It averages over `SCORES` evenly spread numbers of masked tokens. The masked sets are consecutive arcs of one random
    circular order of the positions, so that together they cover all positions about equally often.
    """
    net = denoiser(modules)
    window = MaskedWindow.of(batch, space)
    total, rank = window.counted.sum(1), window.ranks(rng, "masked/score/order")
    u = wide(rng.uniform("masked/score/number", batch.index))
    out = torch.zeros(len(batch.x), device=batch.x.device)
    offset = torch.zeros_like(total)
    for k in range(SCORES):
        n = 1 + part_of(total, (u + k) / SCORES)
        shifted = (rank - offset[:, None]) % total.clamp_min(1)[:, None]
        out -= window.nats(net, window.counted & (shifted < n[:, None])) / SCORES
        offset = offset + n
    return out


score = torch.no_grad()(bound)


def predictor(modules: Modules) -> Predict:
    """The logits (B, T, V) of a window (B, T + 1), without those of its first token, as a Predict."""
    net = denoiser(modules)

    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        return net(x, net.condition(cond)), state

    return predict


def next_predictor(modules: Modules, space: Space) -> Predict:
    """A Predict of the logits (B, V) of the token after the first t[b] (None: all) of x (B, T), in a window in which it
    and all that follow are masked (Sun et al. 2019, BERT4Rec, sec. 3.6)."""
    plain, mask = predictor(modules), space.vocab[0]

    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        count = torch.full((len(x),), x.shape[1], device=x.device) if t is None else t
        window = F.pad(x, (0, space.shape[0] + 1 - x.shape[1]), value=mask)
        unknown = torch.arange(window.shape[1], device=x.device) >= count[:, None]
        logits, _ = plain(window.masked_fill(unknown, mask), None, cond, None)
        return logits[torch.arange(len(x), device=x.device), count - 1], None

    return predict


@torch.no_grad()
def sample(
    modules: Modules,
    config: Any,
    space: Space,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: MaskedSettings,
) -> Tensor:
    """(n, T) int64: the known tokens, cond.known (B, S) where its mask is true, and the others drawn.

    A row of a stream without holes is continued by `length` tokens, which are returned up to `end`; short rows are
    padded with `end`. A row with holes (an unknown position before a known one) is returned with its holes filled.
    Texts longer than a window are filled half a window at a time (afresh.engine.sampling.masked.fill_long).
    """
    mask, context = space.vocab[0], space.shape[0]
    predict = classifier_free(predictor(modules), settings.guidance)
    cut = Cut(settings.temperature, settings.top_k, settings.top_p, settings.min_p)
    end = space.special["end"] if space.stream else None
    kept = (end, space.filler)
    banned = [i for i in space.special.values() if i not in kept]  # several names may share the id of `end`
    how = Unmask(mask, cut, settings.steps, settings.order, banned, settings.watermark, settings.follows)
    known = torch.full((cond.size, 0), mask, device=index.device)
    if cond.known is not None:
        known = cond.known if cond.known_mask is None else cond.known.masked_fill(~cond.known_mask, mask)
    if space.lead or not known.shape[1]:
        known = F.pad(known, (1, 0), value=space.context_token)
    if space.stream:
        return stream(
            predict, known, cond, rng, index, how, context, settings.length, space.special["end"], space.filler
        )
    x = F.pad(known, (0, context + 1 - known.shape[1]), value=mask)
    return fill(predict, x, x[:, 1:] == mask, cond, rng, index, how, "unmask/0")[:, 1:]


@torch.no_grad()
def edit(
    modules: Modules,
    config: Any,
    space: Space,
    task: Edit,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: MaskedSettings,
) -> Tensor:
    """Draws again a random share `strength` of the tokens of a grid that are not marked by `keep`, (B, T) int64.

    Raises UserError for texts, whose holes are filled by cond.known, and for an energy, which needs gradients.
    """
    if space.stream or task.start is None:
        raise UserError("The family masked edits existing images. The holes of texts are filled by infill.")
    if task.energy is not None:
        raise UserError("The family masked draws tokens, which have no gradient of an energy. Use a flow or a VAE.")
    keep = rng.uniform("edit/hidden", index, space.shape) >= task.strength
    if task.keep is not None:
        keep = keep | task.keep
    known = replace(cond, known=task.start.long(), known_mask=keep)
    return sample(modules, config, space, known, rng, index, settings)


def stream(
    predict: Predict,
    known: Tensor,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    how: Unmask,
    context: int,
    length: int,
    end: int,
    filler: int | None = None,
) -> Tensor:
    """`sample` for streams: known (B, 1 + S) has the mask where unknown and begins with the token of context.

    In the order `confidence` the end of a record is drawn first. Otherwise the filler, which is the easiest to predict,
    would take every place that it may have, and records would be too short.
    """
    place = torch.arange(known.shape[1], device=known.device)
    last = torch.where(known != how.mask, place, 0).amax(1)
    has_holes = ((known == how.mask) & (place < last[:, None])).any(1)  # rows with holes
    start, stop = last.masked_fill(has_holes, 0), last + (~has_holes * length)  # what is returned
    x = F.pad(known, (0, 1 + int(stop.max()) - known.shape[1]), value=how.mask)
    wanted = (x == how.mask) & (torch.arange(x.shape[1], device=x.device) <= stop[:, None])
    ending = [end] if filler is None else [end, filler]
    inside = replace(how, banned=[*how.banned, *ending])  # a document must not end in a hole
    bounded = torch.zeros_like(has_holes)  # rows whose end is known before they are filled
    if how.order == "confidence" and filler is not None and not bool(has_holes.all()):
        o = (~has_holes).nonzero()[:, 0]
        x[o], wanted[o], bounded[o] = draw_ends(
            predict, x[o], wanted[o], cond.select(o), rng, index[o], context, how.mask, ending
        )
    for rows, by, ends, margin in (
        (has_holes, inside, None, context // 4),
        (bounded, inside, None, 0),
        (~(has_holes | bounded), how, end, 0),
    ):
        if bool(rows.any()):
            some = (x[rows], wanted[rows, 1:], cond.select(rows.nonzero()[:, 0]), rng, index[rows])
            x[rows] = fill_long(predict, *some, context, by, ends, margin)
            if how.follows is not None and rows is not has_holes:
                x[rows] = repair(predict, x[rows], start[rows], stop[rows], *some[2:], context, how, end)
    out = [row[1 + a : 1 + b] for row, a, b in zip(x.tolist(), start.tolist(), stop.tolist(), strict=True)]
    # What fills the window after a record ends it, too.
    out = [
        r if w else list(takewhile(lambda t: t not in ending, r)) for r, w in zip(out, has_holes.tolist(), strict=True)
    ]
    longest = max(map(len, out))
    return torch.tensor([r + [end] * (longest - len(r)) for r in out], dtype=torch.int64)


def draw_ends(
    predict: Predict,
    x: Tensor,
    wanted: Tensor,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    context: int,
    mask: int,
    ending: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw where records end, before anything else of them: x and wanted (B, 1 + L) with [end, filler] `ending` written
    in their places, and the rows (B,) that end within the window.

    The filler stands at a place if and only if the record ended before it, so that its probabilities, while all places
    are masked, are the distribution function of the length.
    """
    end, filler = ending
    width = min(context, x.shape[1] - 1)
    window = F.pad(x[:, : width + 1], (0, context - width), value=mask)
    logits, _ = predict(window, None, cond, None)
    over = logits[:, :width].float().softmax(-1)[..., filler].masked_fill(~wanted[:, 1 : width + 1], 0)
    after = over.cummax(1).values > rng.uniform("unmask/end", index)[:, None].to(over)
    place = torch.arange(1, x.shape[1], device=x.device)
    first = wanted[:, 1:].int().argmax(1) + 1
    last = torch.maximum(after.int().argmax(1), first)[:, None]  # the place of `end`, one before the first filler
    rows = after.any(1)
    known = rows[:, None] & (place >= last)
    tokens = torch.where(known, torch.where(place == last, end, filler), x[:, 1:])
    return torch.cat([x[:, :1], tokens], 1), torch.cat([wanted[:, :1], wanted[:, 1:] & ~known], 1), rows


def evaluations(space: Space, settings: MaskedSettings) -> int:
    """Of the network for a sample: for every group of tokens of every window, which are half a window apart."""
    context = space.shape[0]
    windows = -(-settings.length // max(1, context // 2)) if space.stream else 1
    return windows * min(settings.steps or context, context) * (1 if settings.guidance == 1 else 2)


def accepts(space: Space) -> str | None:
    if space.kind != "tokens":
        return "masked needs tokens; a field must pass through a codec first"
    return None if len(space.shape) == 1 else "masked takes one token for each position, not several levels"


def sizes(space: Space) -> Sequence[MaskedConfig]:
    """From 0.2M to 25M parameters, heads of 32 or 64."""
    return [MaskedConfig(width=w, layers=n, heads=h) for w, n, h in TOKEN_SIZES]


def build(config: MaskedConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    shape = DecoderShape(
        vocab=space.vocab[0] + 1,  # the last id is the mask
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.heads,
        mlp=config.mlp or -(-config.width * 8 // 3 // 32) * 32,
        context=space.shape[0],
        positions=space.shape[0] + 1 if space.grid else 0,
        causal=False,
        # No `separator`: an `end` may be masked, and the boundaries of documents would change when it is revealed. A
        # window of several documents is one text here, and an `end` is predicted like any other token.
    )
    return {"denoiser": Denoiser(shape, conds, space.grid)}


def record_sizes(space: Space) -> Sequence[RecordConfig]:
    return [RecordConfig(width=w, layers=n) for w, n in ((128, 2), (256, 2), (384, 2), (512, 3))]


def build_record(config: RecordConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    sizes = (config.width, config.layers, config.embedding, config.cosines)
    return {"denoiser": RecordNet(space.slots, space.vocab[0], *sizes, conds)}


TEXTS = Family(
    name="masked",
    accepts=accepts,
    config=MaskedConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=token_examples,
        batch=token_batch,
        recipe=lambda space: {**TOKEN_RECIPE, "lr": 1e-2},
        regions=lambda modules, device: compilable(modules["denoiser"], device),
        blocks=lambda modules: layers_of(modules["denoiser"], Block),
    ),
    build=build,
    objective=MaskedObjective,
    sampling=Sampling(MaskedSettings, sample, fills=True),
    likelihood=Likelihood(score, bound=True, method=f"evidence lower bound, over {SCORES} numbers of masked tokens"),
    predict_next=next_predictor,
    edit=edit,
    evaluations=Evaluations(
        evaluations, lambda space, settings, keep: evaluations(space, settings), score=lambda space: SCORES
    ),
    policy=Policy(("denoiser",), score=bound, fits=True),
    how="fills in, in any order",
)

RECORDS = replace(
    TEXTS,
    accepts=lambda space: accepts(space) if space.slots else "this is the record of positions with tokens of their own",
    config=RecordConfig,
    plan=PlanHints(
        sizes=record_sizes,
        examples_wanted=lambda parameters, space: parameters // 2,
        batch=lambda examples, space: 128,
        most_examples=lambda count: max(1_200_000, 40 * count),  # docs/development/log.md, "Tables, again"
        recipe=lambda space: {"optimizer": "adamw", "lr": 2e-3, "betas": (0.9, 0.98), "weight_decay": 0.01},
        # Without an average the weights of a high rate, which are taken where training ends early, have a held-out loss
        # as low but draw rows that trees tell apart (docs/development/log.md).
        regime=lambda epochs, steps, examples, space: {"ema_half_life": round(0.1 * examples)},
        blocks=lambda modules: layers_of(modules["denoiser"], RecordBlock),
    ),
    build=build_record,
    objective=RecordObjective,
)

FAMILY = replace(TEXTS, variants=(RECORDS,))
