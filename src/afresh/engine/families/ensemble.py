"""Ensembles: a network that is told noise draws a field in one go, and learns by a proper score of a few such members.

The score is the almost fair CRPS at every value of the field (Lang et al. 2024, AIFS-CRPS, eq. 4): with members x_1 to
x_M of an example y,

    1 / (2 M (M - 1)) sum over j != k of |x_j - y| + |x_k - y| - (1 - (1 - alpha) / M) |x_j - x_k|.

For alpha = 1 it is fair: its mean is least for members that are drawn as y is, however few they are (Ferro 2014). A
little below 1, members that are all equal but one are no longer as good. One member, without noise, is a regression by
the squared error, which draws the mean.

Of fields that follow from others nearly without chance, members lie around a `mean` that has a network of its own and
learns by the squared error, whose gradient falls with the error, while that of the CRPS does not; a smaller network
draws what members differ by, and the mean does not learn from it.

The network is told the noise on the grid and, by modulation, as a vector (Alet et al. 2025, FGN, sec. 2), since what is
uncertain may be local or common to the whole field. The score sees single values and does not ask how they go together:
where the truth had independent noise at every point, neighbouring values of members had a correlation of -.4. It suits
fields of which much is known, such as the next state of a system; of what has many different forms, such as images of a
class, a score of single values says too little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import (
    Batch,
    Cond,
    CondSpec,
    Family,
    Likelihood,
    Loss,
    Modules,
    PlanHints,
    Policy,
    Sampling,
    Space,
    State,
    UserError,
)
from afresh.core.rng import Rng
from afresh.core.safe_json import MOST_LAYERS
from afresh.engine.nets.column_transformer import ColumnTransformer
from afresh.engine.nets.conditioning import (
    Conditioning,
    aligned_channels,
    aligned_fields,
    aligned_parts,
    persisting,
    previous,
    told_channels,
)
from afresh.engine.nets.dit import DiTBlock
from afresh.engine.nets.persistence import Persistence
from afresh.engine.nets.resnet import ConvBlock, local_sizes, state_batch, state_examples
from afresh.engine.nets.transformer import layers_of
from afresh.engine.nets.unet import ResBlock
from afresh.engine.nets.velocity import FIELD_RECIPE, HEAD, VelocityShape, Widths, along, network

MOST_MEMBERS = 64
PATCHES = 32  # of a column of a series


class EnsembleConfig(BaseModel):
    """Sizes of the network (nets.velocity.VelocityShape), and options of the objective.

    `members`: drawn for each example in training; 1 is a regression without noise. `mean`: whether they lie around a
    mean with a network of its own. `noise_channels`: of noise on the grid; `noise_numbers`: for the whole field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    net: Literal["unet", "dit", "resnet", "columns"] = "unet"  # over patches, on one grid, of each channel
    widths: Widths = (64, 128)  # channels of each grid (dit, resnet: one)
    blocks: int = Field(1, ge=1, le=MOST_LAYERS)  # a grid; of dit and resnet layers
    emb: int = Field(256, ge=2)  # width of the vector of noise and condition
    attention: bool = True  # at the coarsest grid
    patch: int = Field(1, ge=1)  # cells an axis folded into channels
    mean: bool = False
    members: int = Field(2, ge=1, le=MOST_MEMBERS)
    noise_channels: int = Field(2, ge=0)
    noise_numbers: int = Field(16, ge=0)
    alpha: float = Field(0.95, gt=0, le=1)  # of the almost fair CRPS


class EnsembleSettings(BaseModel):
    """Options of sampling. `spread`: a factor of what members differ by from a mean that has a network of its own, or
    otherwise the standard deviation of the noise that the network is told; 1 as in training."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    spread: float = Field(1.0, ge=0, le=10)


class Drawing(nn.Module):
    """(noise (B, noise, *grid), latent (B, latent), Cond) -> x (B, C, *grid).

    Where a part of the condition persists, x is what was before and a change of the part's scale: values whose scale is
    0 are known, and stay as they are.
    """

    def __init__(self, config: EnsembleConfig, space: Space, conds: CondSpec) -> None:
        super().__init__()
        self.conds, self.channels, self.grid = conds, space.shape[0], space.shape[1:]
        told, last = aligned_channels(conds, self.channels), persisting(conds)
        self.rings = Persistence(last[1], self.grid) if last and last[1].spectrum else None
        self.own = own_channels(conds, self.channels) if config.net == "columns" else 0
        self.conditioning = Conditioning(conds, config.emb, aligned=True)
        self.bias = nn.Parameter(torch.zeros(config.emb))
        several = config.members > 1
        self.noise, self.latent = (config.noise_channels, config.noise_numbers) if several else (0, 0)
        self.shared = nn.Linear(self.latent, config.emb, bias=False) if self.latent else None
        self.mean = self.made(config, space, told) if config.mean or not several else None
        self.net = self.scale = None
        if several:
            if self.mean is not None:  # what members differ by needs a smaller network
                # The error of the mean falls by orders of magnitude. A factor that is learnt at the rate of other
                # numbers follows it the faster, the smaller it is.
                self.scale = nn.Parameter(torch.ones(self.channels, *[1] * len(self.grid)))
                widths, blocks = tuple(-(-w // 2) for w in config.widths), -(-config.blocks // 2)
                config = config.model_copy(update={"widths": widths, "blocks": blocks})
                told += self.channels
            self.net = self.made(config, space, told + self.noise)

    def made(self, config: EnsembleConfig, space: Space, inputs: int) -> nn.Module:
        """A network of so many channels of inputs, one at least."""
        if config.net == "columns":
            width, shared = config.widths[0], inputs - self.own * self.channels
            heads = max(1, width // HEAD)
            return ColumnTransformer(
                self.grid[0], self.channels, self.own, shared, width, config.blocks, heads, config.emb, config.patch
            )
        shape = VelocityShape.of(config)
        return network(shape, space, max(1, inputs), self.channels)

    def answer(self, net: nn.Module, e: Tensor, cond: Cond, *more: Tensor) -> Tensor:
        """What a network says, (B, C, *grid), of what is known on the grid and more channels."""
        seen, e = self.seen(cond, *more), nn.functional.silu(e)
        if not self.own:
            out: Tensor = net(seen, e).float()
            return out
        own, shared = seen.split((self.own * self.channels, seen.shape[1] - self.own * self.channels), 1)
        before = previous(cond, self.conds, seen[:, : self.channels])
        assert before is not None
        drawn = (along(before[1], own) > 0).expand(-1, self.channels, *self.grid)
        by_column: Tensor = net(own.unflatten(1, (self.own, self.channels)), shared, drawn, e).float()
        return by_column

    def means(self, cond: Cond) -> Tensor | None:
        """The change (B, C, *grid) of unit scale around which members lie, if it is learnt by itself."""
        if self.mean is None:
            return None
        return self.answer(self.mean, self.conditioning(cond) + self.bias, cond)

    def changes(self, mean: Tensor | None, noise: Tensor, latent: Tensor, cond: Cond, spread: float = 1.0) -> Tensor:
        """The changes (B, C, *grid) of unit scale of members, which differ `spread` times as much as in training."""
        if self.net is None:
            assert mean is not None
            return mean
        e = self.conditioning(cond) + self.bias
        if mean is None:
            noise, latent = spread * noise, spread * latent
        else:
            e = e.detach()
        e = e if self.shared is None else e + self.shared(latent)
        more = (noise,) if mean is None else (mean, noise)
        out = self.answer(self.net, e, cond, *more)
        return out if mean is None or self.scale is None else mean + spread * self.scale * out

    def after(self, change: Tensor, cond: Cond) -> Tensor:
        """x of a change of unit scale."""
        before = previous(cond, self.conds, change)
        if before is None:
            return change
        base, scale = before
        return base + along(scale, base) * change if self.rings is None else self.rings(base, change)

    def seen(self, cond: Cond, *more: Tensor) -> Tensor:
        """What is known on the grid, as channels; zeros if there is nothing."""
        nothing = self.bias.new_zeros(cond.size, self.channels, *self.grid)
        out = torch.cat([aligned_fields(cond, self.conds, nothing), *more], 1)
        return out if out.shape[1] else nothing[:, :1]

    def forward(self, noise: Tensor, latent: Tensor, cond: Cond, spread: float = 1.0) -> Tensor:
        return self.after(self.changes(self.means(cond), noise, latent, cond, spread), cond)


def own_channels(conds: CondSpec, channels: int) -> int:
    """How many numbers of each column and step the network `columns` is told. Raises UserError for conditions that are
    not those of series."""
    found = persisting(conds)
    if found is None or found[0] != next(iter(aligned_parts(conds))):
        raise UserError("The network `columns` is for series: take unet or dit.")
    return told_channels(found[1], channels) // channels


def drawing(modules: Modules) -> Drawing:
    """The network of `build`."""
    net = modules["drawing"]
    assert isinstance(net, Drawing)
    return net


def draw_members(
    net: Drawing, mean: Tensor | None, cond: Cond, rng: Rng, index: Tensor, members: int, name: str
) -> Tensor:
    """(B, members, C, *grid), around a mean (B, C, *grid) if there is one. Each depends on its index and number
    alone."""
    noise = [rng.normal(f"{name}/{m}/noise", index, (net.noise, *net.grid)) for m in range(members)]
    latent = [rng.normal(f"{name}/{m}/latent", index, (net.latent,)) for m in range(members)]
    noise_of_all, latent_of_all = (torch.stack(parts, 1).flatten(0, 1) for parts in (noise, latent))
    several, middle = cond.repeat(members), None if mean is None else mean.repeat_interleave(members, 0)
    x = net.after(net.changes(middle, noise_of_all, latent_of_all, several), several)
    return x.view(len(index), members, *x.shape[1:])


def almost_fair_crps(x: Tensor, y: Tensor, alpha: float) -> Tensor:
    """The almost fair CRPS of members x (B, M, ...), two at least, for y (B, ...), at every value: (B, ...).

    By sorting, with ranks r_i from 0: the sum of |x_j - x_k| over all pairs is 2 sum_i (2 r_i - M + 1) x_(i).
    """
    count = x.shape[1]
    error = (x - y[:, None]).abs().mean(1)
    ranks = 2.0 * torch.arange(count, device=x.device, dtype=x.dtype) - count + 1
    pairs = 2 * (x.sort(1).values * ranks.view(1, -1, *[1] * (x.dim() - 2))).sum(1)
    return error - (1 - (1 - alpha) / count) * pairs / (2 * count * (count - 1))


def errors(
    modules: Modules, config: EnsembleConfig, space: Space, batch: Batch, rng: Rng, members: int, name: str
) -> Tensor:
    """The score of each example in units of its scale of changes, averaged over the field, (B,): the CRPS of several
    members, the squared error of a mean that is learnt by itself, or their sum. Where each value has a scale, the
    average is over those whose scale is not 0."""
    net, x = drawing(modules), batch.x.float()
    before = previous(batch.cond, net.conds, x)
    unit = along(x.new_ones(len(x)) if before is None else before[1], x)
    counted = (unit > 0).to(x.dtype).expand_as(x)
    unit = torch.where(unit > 0, unit, 1.0)
    mean, score = net.means(batch.cond), torch.zeros_like(x)
    if mean is not None:
        score = score + ((net.after(mean, batch.cond) - x) / unit).square()
        mean = mean.detach()  # it is not learnt from members
    if members > 1:
        drawn = draw_members(net, mean, batch.cond, rng, batch.index, members, name)
        score = score + almost_fair_crps(drawn / unit[:, None], x / unit, config.alpha)
    return (score * counted).flatten(1).sum(1) / counted.flatten(1).sum(1).clamp_min(1)


class EnsembleObjective:
    """The almost fair CRPS of `members` draws, or the squared error of one."""

    players: Mapping[str, tuple[str, ...]] = {"model": ("drawing",)}
    averaged = ("drawing",)

    def __init__(self, config: EnsembleConfig, space: Space) -> None:
        self.config, self.space = config, space

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        each = errors(modules, self.config, self.space, batch, rng, self.config.members, "ensemble")
        return each.sum(), float(len(each)), {"loss": each.detach().sum()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def draw(
    modules: Modules,
    config: EnsembleConfig,
    space: Space,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: EnsembleSettings,
) -> Tensor:
    """Samples (n, *space.shape) from noise that is keyed by `index`; differentiable in the weights."""
    net = drawing(modules)
    noise = rng.normal("sample/noise", index, (net.noise, *space.shape[1:]))
    return net(noise, rng.normal("sample/latent", index, (net.latent,)), cond, settings.spread)


sample = torch.no_grad()(draw)


def score(modules: Modules, config: EnsembleConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """Minus the score of training, always with the same noise, (B,). It is not a likelihood."""
    return -errors(modules, config, space, batch, rng, config.members, "ensemble/score")


def accepts(space: Space) -> str | None:
    if space.kind != "field":
        return "an ensemble draws fields of real numbers; tokens go with transformer"
    if space.pixels or space.timed:
        return "an ensemble is judged value by value, which says too little of images and sounds: take flow"
    return None


def sizes(space: Space) -> Sequence[EnsembleConfig]:
    """Networks of five sizes: of a local field on its own grid, of series Transformers with about PATCHES patches a
    column, otherwise with a level for each halving of the grid down to about 4 cells, at most four."""
    if space.serial:
        patch = max(1, round(space.shape[1] / PATCHES))
        return [
            EnsembleConfig(net="columns", widths=(width,), blocks=blocks, emb=2 * width, patch=patch)
            for width, blocks in ((32, 1), (32, 2), (64, 2), (64, 3), (128, 3))
        ]
    if space.local:
        return [EnsembleConfig(mean=True, **size) for size in local_sizes(space)]
    levels = 1
    while levels < 4 and min(space.shape[1:]) >= 8 * 2 ** (levels - 1):
        levels += 1
    return [
        EnsembleConfig(widths=tuple(width * g for g in (1, 2, 3, 4)[:levels]), blocks=blocks, emb=4 * width)
        for width, blocks in ((16, 1), (32, 1), (48, 1), (64, 1), (96, 2))
    ]


def recipe(space: Space) -> dict[str, Any]:
    """Windows of a series overlap, so that few differ: small steps, more decay. Training ends only where what is held
    out, which is a single stretch of time, becomes clearly worse.

    Rollouts of local fields add errors up, so that they are computed in float32. The error of their mean falls as the
    rate does, and an average of the weights of many steps would have too large a spread.
    """
    if space.serial:
        return {
            "optimizer": "adamw",
            "lr": 1e-3,
            "betas": (0.9, 0.99),
            "weight_decay": 0.1,
            "ema_half_life": 3_000,
            "stop_rising": 0.1,
        }
    return {
        **FIELD_RECIPE,
        **({"precision": "float32", "ema_half_life": 0.0} if space.local else {"ema_half_life": 10_000}),
    }


def build(config: EnsembleConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    return {"drawing": Drawing(config, space, conds)}


FAMILY = Family(
    name="ensemble",
    accepts=accepts,
    config=EnsembleConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=state_examples,
        batch=state_batch,
        recipe=recipe,
        blocks=lambda modules: layers_of(modules["drawing"], ResBlock, DiTBlock, ConvBlock),
    ),
    build=build,
    objective=EnsembleObjective,
    sampling=Sampling(EnsembleSettings, sample, guided=False),
    likelihood=Likelihood(score),
    policy=Policy(("drawing",), draw=draw),
    how="draws in one go",
)
