"""The space that a family learns in: the data's own, that of a codec fitted to the data, or of one trained before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from afresh.core import Codec, Examples, Family, Space, UserError, registry
from afresh.data.prepare import Prepared
from afresh.runs.run import Run, summary
from afresh.training.plan import Decision
from afresh.training.weights import FITTED, read_weights

# Of the held-out values' variance, the most that a codec may leave unexplained. 32x32 photographs were soft but
# themselves at 5%, and blobs at 12%; 28x28 clothes lost their prints at 3% and their seams at 8%.
WORST = 0.08
CHECKED = 2048  # held-out examples that a codec is tried on
RANGE = 2.0  # from the least to the greatest value of a field, for the PSNR


@dataclass(frozen=True)
class LatentSpace:
    """A family, the codec before it if there is one, and the data as the family sees it."""

    family: Family
    name: str | None
    codec: Codec | None
    space: Space
    train: Examples
    heldout: Examples
    decisions: tuple[Decision, ...] = ()


def latent_space(prepared: Prepared, family: str | None, run: Path | None) -> LatentSpace:
    """The data in a space that the family takes: through the codec of `run`, or as `registry.bridge` finds. `family`
    None: the Transformer for tokens, else the flow.

    Raises UserError where that cannot be.
    """
    if run is not None:
        return through(run, prepared, family)
    space = prepared.encoder.space
    chosen = registry.family(family or usual(space))
    found = registry.bridge(chosen, prepared.train, space)
    if found is None:
        return LatentSpace(chosen, None, None, space, prepared.train, prepared.heldout)
    name, codec = found
    return LatentSpace(chosen, name, codec, codec.target, codec.encode(prepared.train), codec.encode(prepared.heldout))


def usual(space: Space) -> str:
    """The family of choice for a space."""
    return "transformer" if space.kind == "tokens" else "flow"


def through(path: Path, prepared: Prepared, family: str | None) -> LatentSpace:
    """The data as the latents of a finished run. Raises UserError for a run that does not fit or is not good enough."""
    run, module = Run.open(path), registry.codec_module(registry.TRAINED)
    check_source(run)
    check_run(run, module.FAMILY, prepared)
    codec = module.of_modules(run.record.config, run.modules, run.encoder.space, prepared.train)
    chosen = registry.family(family or usual(codec.target))
    check_family(chosen, codec.target, path)
    lost, decibels = unexplained(codec, prepared.heldout)
    found = f"{lost:.1%} of the held-out values' variance is not explained, PSNR {decibels:.1f} dB"
    if not lost <= WORST:
        raise UserError(
            f"The codec {path} is not good enough for this data: {found}; at most {WORST:.0%} is accepted, as no model "
            "over a codec can be better than it. Train a better one: longer (`minutes`), with more in each place "
            "(`family.channels=8`, or `family.levels=[8,8,8,5,5]`), or with more places (`family.factor=2`)."
        )
    train = codec.encode(prepared.train)
    reason = f"from {path}; {module.described(codec, train)}; {found}"
    decision = Decision("codec", registry.TRAINED, reason)
    return LatentSpace(
        chosen, registry.TRAINED, codec, codec.target, train, codec.encode(prepared.heldout), (decision,)
    )


def check_source(run: Run) -> None:
    """Raises UserError for a run that no codec is made of, which can be said before data is read."""
    record, wanted = run.record, registry.codec_module(registry.TRAINED).FAMILY
    if record.family != wanted or record.codec is not None:
        over = "" if record.codec is None else f" over the codec {record.codec}"
        raise UserError(
            f"{run.path} is a {record.family}{over}; `codec` takes a finished run of the family {wanted}. Train one: "
            f"`afresh.train(DATA, family={wanted!r})`."
        )


def check_run(run: Run, wanted: str, prepared: Prepared) -> None:
    """Raises UserError unless `run` is a finished one, on data of the same kind and size."""
    path, record = run.path, run.record
    make = f"Train one: `afresh.train(DATA, family={wanted!r})`"
    if record.modality != prepared.modality:
        raise UserError(
            f"{path} was trained on {record.modality}, and this data is {prepared.modality}. {make} on such data."
        )
    theirs, ours = run.encoder.space.shape, prepared.encoder.space.shape
    if theirs != ours:
        options = " ".join(f"`data.{k}={v}`" for k, v in run.encoder.settled.items())
        raise UserError(
            f"{path} was trained on fields of {sides(theirs)}, and this data is read as {sides(ours)} (channels x "
            f"sides). Read it at the codec's size ({options}), or train a codec on data read as this is."
        )
    if read_weights(path, FITTED) is None:
        now = summary(run)
        raise UserError(
            f"{path} has not finished training: it is at step {now['steps']:,} of {now['planned']:,}. Go on with: "
            f"`afresh.resume({str(path)!r})`"
        )


def sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def check_family(family: Family, target: Space, path: Path) -> None:
    """Raises UserError, naming the families that work, when this one does not take what the codec makes."""
    reason = family.accepts(target)
    if reason is None:
        return
    works = [f for f in registry.FAMILIES if registry.family(f).accepts(target) is None]
    raise UserError(
        f"The codec {path} makes {target.kind} of shape {sides(target.shape)}, which {family.name} does not take: "
        f"{reason}. What works with this codec: {', '.join(works)}. Codes are made by `family.bottleneck=fsq` "
        "(or vq), real numbers by kl."
    )


def unexplained(codec: Codec, heldout: Examples) -> tuple[float, float]:
    """What a codec loses: squared error over the variance of all values, and the PSNR in dB by the range of `RANGE`.

    On at most `CHECKED` examples, spread evenly.
    """
    rows = torch.linspace(0, len(heldout) - 1, min(CHECKED, len(heldout))).long()
    x = heldout.x[rows]
    some = Examples(x, heldout.cond.select(rows), heldout.scale, heldout.shift)
    made = codec.decode(codec.encode(some).x)
    real = x.float() * heldout.scale + heldout.shift
    error = float((made - real).double().square().mean())
    variance = float(real.double().var(unbiased=False))
    decibels = 10 * math.log10(RANGE**2 / error) if error > 0 else math.inf
    return error / variance if variance > 0 else float(error > 0), decibels
