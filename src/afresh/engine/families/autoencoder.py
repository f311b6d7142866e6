"""Autoencoder with latents on a grid, or in slots: the first stage of latent models, for `afresh train --codec RUN`.

Rombach et al. 2022 ("High-resolution image synthesis with latent diffusion models", sec. 3.1). It is a codec and only a
weak generative model: its samples are decoded from a Gaussian that is fitted to the latents after training. The
generative model is a flow, a GAN or a VAE over its latents, or a Transformer over its codes, which also uses the
conditions; the autoencoder uses none.

Records of tokens, such as molecules, become a few vectors (nets/sequences.py), from which a Transformer writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor, nn

from afresh.core import (
    Batch,
    Cond,
    CondSpec,
    Examples,
    Family,
    Likelihood,
    Loss,
    Modules,
    Objective,
    PlanHints,
    Sampling,
    Space,
    State,
    UserError,
)
from afresh.core.rng import Rng
from afresh.core.safe_json import MOST_GRIDS, MOST_LAYERS
from afresh.core.space import SERIES, evenly_spaced
from afresh.data.load import numbered
from afresh.engine.nets.autoencoder import (
    MOST_RESIDUAL,
    NETWORKS,
    Bottleneck,
    GaussianPrior,
    LatentShape,
    latent_grid,
    latents,
    networks,
)
from afresh.engine.nets.quantise import VQ, ResidualFSQ, straight_through
from afresh.engine.nets.sequences import (
    SequenceDecoder,
    Sequences,
    SequenceShape,
    drop_tokens,
    sequence_networks,
    sequential,
)
from afresh.engine.nets.spectrum import stft, windows_of
from afresh.engine.sampling.sequences import write

LOG_VAR = 20.0  # bound on the absolute log variance of a latent
EDGE = 0.3  # weight of the error of differences between neighbours
COMMITMENT = 0.25  # beta of van den Oord et al. 2017, eq. 3
REVIVE = 0.01  # weight of the term that attracts every code to the data
FITTED = 4096  # most examples that the prior is fitted to
FULL = 0.5  # share of the examples in training that use all codes of a position
QUIET = 1e-3  # floor of the magnitudes in the spectral distance, relative to the standard deviation of the data
SPECTRAL = 0.1  # default weight of the spectral distance for waves
SEQUENCE_KL = 0.1  # weight of the KL of a sequence's latents
LONGEST = 12  # longest axis of the latents for which no further halving is chosen


class AutoencoderConfig(BaseModel):
    """Sizes of both networks, the bottleneck, and the weights of the loss.

    `factor`: cells along an axis for each position of the latents. `bottleneck`: `kl`, `channels` real numbers at each
    position, for flow, gan and vae; `fsq`, codes of `levels`, or `vq`, codes of a codebook of `codes` vectors of
    `channels`, both for transformer and masked. `residual`: number of codes of `fsq` at each position, each of the
    residual of those before it; training leaves out the last ones at random, so that fewer can be decoded as well.
    `width`: channels after the first halving, doubled with each further one up to `most` times `width`. `kl`: weight of
    the mean KL of a latent value. `spectral`: weight of the spectral distance, for waves only. `high`: how much more
    errors of high values weigh than those of low ones, as for levels of sound, of which the loud ones are audible; 0 =
    equally.

    Of sequences: `slots`: positions of the latents, of `channels` numbers each; `width` and `blocks` of the Transformer
    that writes; `kl`: weight of the KL of all latents; `dropout`: share of the tokens before the next one that it is
    not shown in training. The bottleneck is `kl`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    bottleneck: Bottleneck = "kl"
    factor: Literal[2, 4, 8] = 4
    channels: int = Field(default=4, ge=1)
    levels: tuple[Annotated[int, Field(ge=2)], ...] = Field(default=(8, 5, 5, 5), min_length=1, max_length=MOST_GRIDS)
    codes: int = Field(default=512, ge=2)
    residual: int = Field(default=1, ge=1, le=MOST_RESIDUAL)
    width: int = Field(default=32, ge=1)
    blocks: int = Field(default=1, ge=1, le=MOST_LAYERS)  # a grid
    most: int = Field(default=4, ge=1)
    kl: float = Field(default=1e-3, ge=0)
    spectral: float = Field(default=0.0, ge=0)
    high: float = Field(default=0.0, ge=0, le=1)
    slots: int = Field(default=8, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @field_validator("factor", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        """Accepts a number as text, as the command line passes it: pydantic does not convert text for a Literal."""
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @model_validator(mode="after")
    def check(self) -> AutoencoderConfig:
        if self.residual > 1 and self.bottleneck != "fsq":
            raise ValueError(
                f"residual {self.residual} needs the bottleneck fsq, not {self.bottleneck}: set bottleneck=fsq as "
                "well, or leave residual at 1"
            )
        return self

    @property
    def shape(self) -> LatentShape:
        """The sizes of the networks."""
        return LatentShape(**{k: getattr(self, k) for k in LatentShape.model_fields})


class AutoencoderSettings(BaseModel):
    """`temperature` scales the standard deviation of the latents that are drawn: 1 = as fitted, 0 = their mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    temperature: float = Field(default=1.0, ge=0, le=2)


def accepts(space: Space) -> str | None:
    if space.serial:
        return SERIES
    if sequential(space):
        return None
    if space.kind != "field":
        return (
            "an autoencoder compresses a field of real numbers, or sequences that stand alone; other tokens go with "
            "transformer as they are"
        )
    if not 2 <= len(space.shape) <= 4:
        return f"an autoencoder compresses channels over 1 to 3 axes; the shape here is {space.shape}"
    return None


def is_wave(space: Space) -> bool:
    """Whether fields of the space are waveforms (C, samples) of a known length in seconds."""
    return space.timed and len(space.shape) == 2 and space.seconds > 0


def sizes(space: Space) -> Sequence[AutoencoderConfig]:
    """One to three halvings, so that no axis of the latents has more than `LONGEST` positions if possible; of sequences
    eight slots."""
    if sequential(space):
        ladder = ((96, 3), (128, 4), (192, 4), (256, 5), (320, 6), (384, 6))
        fixed = {"channels": 8, "slots": 8, "kl": SEQUENCE_KL}
        return [AutoencoderConfig(width=width, blocks=blocks, **fixed) for width, blocks in ladder]
    longest = max(space.shape[1:])
    factor = next((f for f in (2, 4) if -(-longest // f) <= LONGEST), 8)
    spectral = SPECTRAL if is_wave(space) else 0.0
    return [
        AutoencoderConfig(factor=factor, width=width, blocks=blocks, spectral=spectral)
        for width, blocks in ((16, 1), (32, 1), (48, 1), (64, 2), (96, 2), (128, 3))
    ]


def examples_wanted(parameters: int, space: Space) -> int:
    """One example for every 8 parameters.

    On 28x28 images of clothes in a minute of a core, a width of 32 left 1.5% of the variance unexplained after 83,000
    images, and a width of 64 left 1.6% after 36,000; in 20 seconds widths of 16 and 32 were equal.
    """
    if sequential(space):
        return 2 * parameters // (5 * space.shape[0])  # half of them write, as those of the Transformer do
    return parameters // 8


def build(config: AutoencoderConfig, space: Space, conds: CondSpec) -> dict[str, nn.Module]:
    """Raises UserError if a spectral loss is used for fields that are not waves, and for codes of sequences."""
    if sequential(space):
        if config.bottleneck != "kl":
            raise UserError(
                f"`family.bottleneck={config.bottleneck}` makes codes of fields. Sequences of tokens become real "
                "numbers: leave it at kl."
            )
        prior = GaussianPrior((config.channels, config.slots))
        shape = SequenceShape(config.channels, config.slots, config.width, config.blocks)
        return {**sequence_networks(space, shape), "prior": prior}
    if config.spectral and not is_wave(space):
        raise UserError(
            f"`family.spectral={config.spectral:g}` compares spectra of waveforms (channels, samples), but the data "
            f"are fields of shape {space.shape}. Leave it at 0, or set `data.representation=wave` to represent "
            "sounds as waveforms. A log-mel spectrogram is a spectrum already."
        )
    prior = GaussianPrior((config.shape.latent, *latent_grid(space.shape[1:], config.factor)))
    return {**networks(space.shape, config.shape), "prior": prior}


def regions(modules: Modules, device: str) -> Sequence[nn.Module]:
    """Both networks, but not those over sequences, whose states are asked for and not their output."""
    pair = [modules["encoder"], modules["decoder"]]
    return [] if isinstance(modules["decoder"], SequenceDecoder) else pair


def mean_square(x: Tensor) -> Tensor:
    """The mean square of each row of x (B, ...), (B,)."""
    return x.float().square().flatten(1).mean(1)


def importance(x: Tensor, high: float) -> Tensor:
    """Weights of the squared errors of x, like x, quadratic in the height of a value above -1.

    They increase from 1 - high at -1 to 1 + 2 high at 1, with a mean of 1 over values that are uniform on [-1, 1].
    """
    return 1 - high + 3 * high * ((x.clamp(-1, 1) + 1) / 2).square()


def edge_error(error: Tensor) -> Tensor:
    """The mean square of the differences of an error (B, C, *grid) between neighbours, summed over the axes, (B,).

    This is the squared error of the gradients. It weighs frequencies by their square, and thereby penalises blur.
    """
    axes = [a for a in range(2, error.dim()) if error.shape[a] > 1]
    return sum((mean_square(error.diff(dim=a)) for a in axes), torch.zeros(len(error), device=error.device))


def spectral_error(reconstructed: Tensor, x: Tensor, rate: int, least: float) -> Tensor:
    """The distance of the spectra of waveforms (B, C, T) at `rate` samples a second, in nepers, (B,).

    It is the mean of |log |S| - log |S'|| over windows, bins and frames, with magnitudes clamped at `least`: eq. 5 of
    Yamamoto et al. 2020 for the windows of nets/spectrum.py. Their eq. 4, the spectral convergence, is left out: for
    loud sounds the squared error measures the same (Parseval), and for silence it is unbounded.
    """
    total = torch.zeros(len(x), device=x.device)
    windows = windows_of(rate)
    for window in windows:
        ours, theirs = (
            stft(v.flatten(0, 1), window, window // 4).abs().clamp_min(least).log() for v in (reconstructed, x)
        )
        total = total + (ours - theirs).abs().reshape(len(x), -1).mean(1)
    return total / len(windows)


def depths(rng: Rng, index: Tensor, most: int) -> Tensor:
    """The number of codes, of `most`, that each example uses, (B,) int64: all with probability FULL, otherwise uniform.

    Quantiser dropout (Zeghidour et al. 2021, sec. III-C), applied to half of the examples as in Kumar et al. 2023, sec.
    3.2, so that full depth is not learnt worse.
    """
    u = rng.uniform("autoencoder/depth", index)
    return torch.where(u < FULL, most, 1 + ((u - FULL) / (1 - FULL) * most).long().clamp(0, most - 1))


class AutoencoderObjective:
    """Squared error of values and edges relative to the variance of the data, and the terms of the bottleneck.

    Waveforms add the spectral distance. `kl`: KL(q || N(0, 1)) in nats, averaged over the latent values (Kingma and
    Welling 2014, app. B). `vq`: van den Oord et al. 2017, eq. 3, and a weak attraction of every code to the nearest
    vector of each example. It hardly affects codes in use; unused codes have no other gradient and move towards the
    data. This replaces the re-initialisation of dead codes (as in Zheng and Vedaldi 2023, online clustered codebooks),
    which would depend on how a batch is divided.
    """

    players: Mapping[str, tuple[str, ...]] = {"model": (*NETWORKS, "prior")}
    averaged = NETWORKS

    def __init__(self, config: AutoencoderConfig, space: Space) -> None:
        self.config, self.variance = config, space.std**2
        self.rate = round(space.shape[-1] / space.seconds) if config.spectral else 0

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        c, x = self.config, batch.x.float()
        reconstruction, terms = self.reconstruct(modules, batch, rng, all_codes=not torch.is_grad_enabled())
        error = reconstruction - x
        square = mean_square(error.detach())
        if c.high:
            error = error * importance(x, c.high).sqrt()
        total = mean_square(error) / self.variance + EDGE * edge_error(error) / self.variance
        if c.spectral:
            terms["spectral"] = spectral_error(reconstruction, x, self.rate, QUIET * self.variance**0.5)
        weights = {"kl": c.kl, "commitment": COMMITMENT, "book": 1.0, "revive": REVIVE, "spectral": c.spectral}
        total = total + sum(weights[k] * v for k, v in terms.items())
        metrics = {"loss": total, "mse": square, **terms}
        return total.sum(), float(len(total)), {k: v.detach().sum() for k, v in metrics.items()}

    def reconstruct(
        self, modules: Modules, batch: Batch, rng: Rng, all_codes: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The reconstruction (B, *shape) of a batch and the terms of the bottleneck, (B,) each.

        Without `all_codes`, each example uses a random number of its residual codes.
        """
        terms = dict[str, Tensor]()
        z = modules["encoder"](batch.x)
        if self.config.bottleneck == "kl":
            mean, log_var = z.chunk(2, 1)
            log_var = log_var.clamp(-LOG_VAR, LOG_VAR)
            noise = rng.normal("autoencoder/latent", batch.index, tuple(mean.shape[1:]))
            terms["kl"] = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).flatten(1).mean(1)
            z = mean + (0.5 * log_var).exp() * noise
        book = modules["quantiser"]
        if isinstance(book, VQ):
            z, terms = book_terms(book, z)
        elif isinstance(book, ResidualFSQ) and not all_codes:
            z = book(z, depths(rng, batch.index, book.depth))
        else:
            z = book(z)
        return modules["decoder"](z), terms

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def book_terms(book: VQ, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The quantised z, book(z), and the terms |z - sg e|^2, |sg z - e|^2 and the attraction of every code, (B,) each.

    Each term is a mean over positions or codes, and over channels.
    """
    distances = book.distances(z.detach())  # (B, positions, K), shared by all terms
    e = book.vectors(distances.detach().argmin(2).view(len(z), *z.shape[2:]))
    near = distances.amin(1)  # (B, K): from each code to the nearest vector of each example
    terms = {
        "commitment": mean_square(z - e.detach()),
        "book": mean_square(z.detach() - e),
        "revive": near.mean(1) / z.shape[1],
    }
    return straight_through(z.float(), e), terms


# --------------------------------------------------------------------------- sequences


def sequence_terms(
    modules: Modules, batch: Batch, rng: Rng, drop: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """-log p(x | z) for one draw of z, its KL from N(0, 1), and the number of predicted tokens, (B,) each. `drop`
    (B, T): which tokens the decoder is not shown."""
    decoder, tokens, targets = modules["decoder"], batch.x[:, :-1], batch.x[:, 1:]
    assert isinstance(decoder, SequenceDecoder)
    if batch.mask is not None:
        targets = targets.masked_fill(~batch.mask, -1)
    mean, log_var = modules["encoder"](Sequences.of(batch))
    kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)
    z = mean + (0.5 * log_var).exp() * rng.normal("autoencoder/latent", batch.index, tuple(mean.shape[1:]))
    shown = tokens if drop is None else drop_tokens(tokens, drop, decoder.filler)
    return decoder.nats(decoder.divided(z), None, shown, targets).sum(1), kl, (targets >= 0).sum(1)


class CodedSequenceObjective:
    """-log p(x | z) + kl KL(q(z | x) || N(0, 1)), in nats; the weight is the number of tokens."""

    players: Mapping[str, tuple[str, ...]] = {"model": ("encoder", "decoder", "prior")}
    averaged = ("encoder", "decoder")

    def __init__(self, config: AutoencoderConfig, space: Space) -> None:
        self.config = config

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        c, drop = self.config, None
        if c.dropout and torch.is_grad_enabled():  # not in evaluation
            drop = rng.uniform("autoencoder/dropout", batch.index, (batch.x.shape[1] - 1,)) < c.dropout
        nats, kl, tokens = sequence_terms(modules, batch, rng, drop)
        total = nats + c.kl * kl
        return (
            total.sum(),
            tokens.sum(),
            {"loss": total.detach().sum(), "nats": nats.detach().sum(), "kl": kl.detach().sum()},
        )

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def objective(config: AutoencoderConfig, space: Space) -> Objective:
    return (CodedSequenceObjective if sequential(space) else AutoencoderObjective)(config, space)


# --------------------------------------------------------------------------- scores and samples


def score(modules: Modules, config: AutoencoderConfig, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """Minus the squared error relative to the variance of the data, (B,), which is not a likelihood; of sequences, a
    lower bound of their log-likelihood in nats, with one draw of z."""
    if sequential(space):
        with torch.no_grad():
            nats, kl, _ = sequence_terms(modules, batch, rng)
        return -nats - kl
    z = modules["quantiser"](latents(modules, config.shape, batch.x))
    return -mean_square(modules["decoder"](z) - batch.x.float()) / space.std**2


@torch.no_grad()
def sample(
    modules: Modules,
    config: AutoencoderConfig,
    space: Space,
    cond: Cond,
    rng: Rng,
    index: Tensor,
    settings: AutoencoderSettings,
) -> Tensor:
    """Samples (n, *space.shape), decoded from latents of the fitted Gaussian. The conditions are not used."""
    prior = modules["prior"]
    assert isinstance(prior, GaussianPrior)
    d = prior.get_buffer("mean").numel()
    z = prior(rng.normal("sample/noise", index, (d,)) * settings.temperature)
    if isinstance(decoder := modules["decoder"], SequenceDecoder):
        return write(decoder, z.flatten(1), None, space, replace(cond, known=None, known_mask=None), rng, index)
    out: Tensor = modules["decoder"](modules["quantiser"](z))
    return out


@torch.no_grad()
def finish(
    modules: Modules, config: AutoencoderConfig, space: Space, examples: Examples, rng: Rng
) -> Mapping[str, Tensor]:
    """Fits the prior to the latents, before quantisation, of at most `FITTED` evenly spaced examples."""
    prior = modules["prior"]
    assert isinstance(prior, GaussianPrior)
    device = prior.get_buffer("mean").device
    n, batch_of = numbered(examples, space)
    parts = []
    for block in evenly_spaced(n, FITTED).split(64):
        batch = batch_of(block).to(device)
        if sequential(space):
            mean, _ = modules["encoder"](Sequences.of(batch))
            parts.append(mean.view(-1, *prior.shape).cpu())
        else:
            parts.append(latents(modules, config.shape, batch.x).cpu())
    return {f"prior.{k}": v for k, v in prior.fitted(torch.cat(parts)).items()}


FAMILY = Family(
    name="autoencoder",
    accepts=accepts,
    config=AutoencoderConfig,
    plan=PlanHints(
        sizes=sizes,
        examples_wanted=examples_wanted,
        batch=lambda examples, space: 32 if sequential(space) else 64,
        recipe=lambda space: {
            "optimizer": "muon",
            "matrix_lr": 0.02,
            "lr": 2e-3,
            "betas": (0.9, 0.99),
            "weight_decay": 0.0,
            "warmup": 50,
            "decay": 0.6,
            "ema_half_life": 5_000,
            "clip": 1.0,
        },
        cond_dropout=0.0,
        regions=regions,
    ),
    build=build,
    objective=objective,
    sampling=Sampling(AutoencoderSettings, sample, guided=False),  # no condition is used
    likelihood=Likelihood(score, bound=True),
    finish=finish,
    retired={"edge": EDGE, "commitment": COMMITMENT},
    how="draws from a small code",
)
