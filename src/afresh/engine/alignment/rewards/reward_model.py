"""Trains a reward model from a file of votes, and loads it from its folder.

FOLDER/model.json has the settings and the held-out accuracy, FOLDER/model.safetensors the fitted parameters, and
FOLDER/report.json all held-out results. For sounds, FOLDER/encoder is a copy of the run's encoder. Rewards are
standardised by the mean and deviation over the items with votes, so that they are comparable between reward models.

The reward of a text does not depend on its prompt, so it cannot measure whether an answer fits its question. Prompts
are only used to hold out all answers to a prompt together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save as save_bytes
from torch import Tensor

from afresh.core import Encoder, Item, ItemKind, Score, UserError, registry
from afresh.core.safe_json import faults, parse_json
from afresh.data.storage.files import replace_file, write_json
from afresh.data.storage.tensor_file import read_tensors
from afresh.engine.alignment.feedback.preferences import PreferenceData, read_votes
from afresh.engine.alignment.rewards.bradley_terry import (
    HeldOut,
    RewardHead,
    comparisons_of,
    fit,
    learn,
    rewards,
    scales,
    shared,
    splits,
    usable,
)
from afresh.engine.alignment.rewards.field_rewards import of_field
from afresh.engine.alignment.rewards.image_encoder import (
    ImageSettings,
    as_spectra,
    blank,
    encoder_of,
    images_of,
    spectra_of,
)
from afresh.engine.alignment.rewards.image_features import (
    BATCH,
    MIN_VOTES,
    STEPS,
    FeatureTrial,
    Tuned,
    features_of,
    trial,
    tuned,
)
from afresh.engine.alignment.rewards.reward import Array, Request, Reward
from afresh.engine.alignment.rewards.text_features import TextFeatures, TextSettings, fit_text
from afresh.engine.alignment.rewards.vote_evidence import TASTE
from afresh.engine.evaluation.encoders import EncoderRecipe, one_step
from afresh.engine.evaluation.image_sets import is_image_space
from afresh.engine.evaluation.time_budget import Effort
from afresh.runs.run import Run

MODEL_FILE, WEIGHTS_FILE, REPORT_FILE, ENCODER_FOLDER = "model.json", "model.safetensors", "report.json", "encoder"
VERSION = 1


class RewardRecord(BaseModel):
    """The content of model.json. `encoder`: SHA-256 of the files of the encoder of sounds, if one is used.
    `sound`: for sounds, the modality that loads the encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal["afresh reward model"] = "afresh reward model"
    version: int = VERSION
    items: str  # the name of their kind
    text: TextSettings | None = None
    picture: ImageSettings | None = None
    features: int | None = None  # their number, if the features of the kind of items are used
    encoder: dict[str, str | None] | None = None
    sound: str | None = None
    mean: float  # of the rewards of the items with votes, in logits
    deviation: float = Field(gt=0)
    log_nu: float | None
    spread: float
    weights_sha256: str
    votes: str  # the file
    votes_sha256: str | None
    accuracy: tuple[float, float | None, float | None, int]  # held out: value, low, high, votes
    agreement: float | None  # of two raters


@dataclass(frozen=True)
class Trained:
    """The result of training: the folder, the reward, the held-out results of the linear first stage, and the
    comparison of the second stage with it, or None without a second stage."""

    folder: Path
    reward: Reward
    held_out: HeldOut
    second: FeatureTrial | None

    @property
    def guessing(self) -> bool:
        """Whether the reward may predict unseen votes no better than chance: the 95% interval of its accuracy reaches
        down to one half."""
        low = self.held_out.accuracy.low
        return low is not None and low <= 0.5

    def lines(self) -> list[str]:
        """The results for a user, one sentence each."""
        h, error = self.held_out, self.held_out.calibration_error
        out = [f"Held-out accuracy: {_percent(h.accuracy)} votes (chance: 50%), with unseen {h.apart}."]
        if h.agreement is None:
            out.append("No pair was judged twice, so the best possible accuracy is not known.")
        elif h.ceiling is not None:
            out.append(
                f"Two judgements agree in {_percent(h.agreement)} pairs, so at most {h.ceiling.value:.0%} is possible."
            )
        out.append(f"Calibration error: {error.value:.3f} (a perfect predictor: {error.floor:.3f}).")
        if self.guessing:
            out.append("This may be no better than guessing: do not align a model with it. Collect more votes.")
        if self.second is not None:
            used = "used" if self.second.better else "not used"
            before, after = f"{self.second.before:.0%}", f"{self.second.after:.0%}"
            out.append(f"Training the encoder as well: from {before} to {after} of {self.second.n} votes, {used}.")
        return out


def _percent(s: Score) -> str:
    ends = "" if s.low is None or s.high is None else f" ({s.low:.0%} to {s.high:.0%})"
    return f"{s.value:.0%}{ends} of {s.n:,}"


# ------------------------------------------------------------------------------------------------------- training


def train_reward_model(
    preferences: Path,
    run: Run | None,
    out: Path,
    seed: int = 0,
    recipe: EncoderRecipe = EncoderRecipe(),
    seconds: float | None = None,
) -> Trained:
    """Learn a reward from a file of votes and write it to the new folder `out`.

    `run`: for images, it determines their size, and an encoder is trained on its training images according to `recipe`;
    without a run, on the images with votes. Sounds need a run, whose encoder is copied. `seconds`: that training
    encoders may take; it has fewer steps then, or no encoder (None: what it takes). Raises UserError for
    votes that `read_votes` or `bradley_terry.learn` refuse, images or sounds that cannot be read, and a folder that
    already has a model.
    """
    for name in (MODEL_FILE, "run.json"):
        if (out / name).exists():
            raise UserError(f"{out} already has a {name}, which is not replaced. Choose another `out`.")
    before = _sha256(preferences)
    # Texts and files are recognised by themselves; other kinds that are written as text have to be named.
    expected = (
        None if run is None or not run.encoder.kind.inline or run.encoder.kind.medium == "text" else run.encoder.kind
    )
    data = read_votes(preferences, expected)
    if run is not None and run.encoder.kind is not data.kind:
        raise UserError(
            f"{preferences} has votes on {data.kind.plural}, but the run {run.path} makes {run.encoder.kind.plural}. "
            "Name a run of the same kind."
        )
    if _sha256(preferences) != before:
        raise UserError(f"{preferences} changed while it was read. Try again when no votes are being added.")
    fitted, second = trainer_of(data.kind, run)(data, run, recipe, seed, Effort(TASTE, seconds))
    if fitted.encoder is not None:
        fitted.encoder.save(out / ENCODER_FOLDER)
        fitted.fields.update(encoder=_files(out / ENCODER_FOLDER))
    weights = save_bytes({k: v.contiguous() for k, v in fitted.tensors.items()})
    h = fitted.held_out
    saved = RewardRecord(
        items=data.kind.name,
        **fitted.fields,
        mean=float(fitted.raw.mean()),
        deviation=float(fitted.raw.std()) or 1.0,
        log_nu=fitted.log_nu,
        spread=h.spread,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        votes=str(preferences),
        votes_sha256=before,
        accuracy=(h.accuracy.value, h.accuracy.low, h.accuracy.high, h.accuracy.n),
        agreement=None if h.agreement is None else h.agreement.value,
    )
    replace_file(out / WEIGHTS_FILE, weights)
    report = {"votes": data.summary.lines(), "held_out": asdict(h), "second_stage": second and asdict(second)}
    write_json(out / REPORT_FILE, {**report, "votes_file": saved.votes, "votes_sha256": saved.votes_sha256})
    write_json(
        out / MODEL_FILE, saved.model_dump(mode="json")
    )  # last, so that an incomplete folder is not a reward model
    return Trained(out, load_reward_model(out), h, second)


def _sha256(path: Path) -> str | None:
    """None if the file cannot be read, which `read_votes` reports."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


@dataclass(frozen=True)
class _Fitted:
    """A fitted model: rewards (K,) of the items with votes, tensors, and fields of `Record`."""

    raw: Array
    log_nu: float | None
    held_out: HeldOut
    tensors: dict[str, Tensor]
    fields: dict[str, Any]
    encoder: Encoder | None = None  # of items to fields


def trainer_of(kind: ItemKind, run: Run | None) -> Callable[..., tuple[_Fitted, FeatureTrial | None]]:
    """The function that fits a reward of items of a kind.

    Texts are represented by n-grams, images and fields that can be compared as images by a network, and other items by
    the features of their kind. Raises UserError if a kind has no features.
    """
    if kind.medium == "text":
        return _text
    if kind.medium is not None or (run is not None and is_image_space(run.encoder.space)):
        return _field
    if kind.features is not None:
        return _features
    raise UserError(
        f"Rewards of {kind.plural} cannot be learnt: they have neither fields nor features. Choose a method that "
        "learns from the votes themselves, such as dpo, or give a reward."
    )


def _text(
    data: PreferenceData, run: Run | None, recipe: EncoderRecipe, seed: int, effort: Effort
) -> tuple[_Fitted, FeatureTrial | None]:
    _, names = comparisons_of(data.votes)
    found = fit_text(names, seed=seed)
    features = found(names)
    head, held_out = learn(features, data.votes, seed, shared(found.shares(features)), data.judged_again)
    tensors = {
        "weights": torch.from_numpy(head.weights),
        "rarity": torch.from_numpy(found.rarity),
        "directions": torch.from_numpy(found.directions).float(),
    }
    return _Fitted(rewards(head, features), head.log_nu, held_out, tensors, {"text": found.settings}), None


def _features(
    data: PreferenceData, run: Run | None, recipe: EncoderRecipe, seed: int, effort: Effort
) -> tuple[_Fitted, FeatureTrial | None]:
    assert data.kind.features is not None
    _, names = comparisons_of(data.votes)
    features = data.kind.features([data.value(name) for name in names])
    head, held_out = learn(features, data.votes, seed, judged_again=data.judged_again)
    tensors = {"weights": torch.from_numpy(head.weights)}
    return _Fitted(rewards(head, features), head.log_nu, held_out, tensors, {"features": features.shape[1]}), None


def _field(
    data: PreferenceData, run: Run | None, recipe: EncoderRecipe, seed: int, effort: Effort
) -> tuple[_Fitted, FeatureTrial | None]:
    c, names = comparisons_of(data.votes)
    pixels = data.kind.medium == "image"
    x = (images_of if pixels else spectra_of)(data, names, run)
    encoder, recipe = encoder_of(x, run, recipe, seed, effort)
    shape = (x.shape[1], x.shape[2], x.shape[3])
    saved = ImageSettings(shape=shape, recipe=None if encoder is None else asdict(recipe))
    net = blank(saved).eval().requires_grad_(False)
    if encoder is not None:
        net.load_state_dict({f"encoder.{k}": v for k, v in encoder.items()})
    features = features_of(net, x)
    share = shared(net.shares(features))
    head, held_out = learn(features, data.votes, seed, share, data.judged_again)
    final, second = Tuned(net, torch.from_numpy(head.weights), head.log_nu), None
    if encoder is not None and int(c.decided.sum()) >= MIN_VOTES and tuning_fits(x, effort, recipe):
        scale = scales(features[c.a], features[c.b])
        rest, here = usable(c, splits(c, seed)[0])[0]
        known = c.only(rest)
        a, b = features[known.a], features[known.b]
        part = fit(a, b, known.judged, held_out.spread, share, None, head.log_nu is not None)
        start = Tuned(net, torch.from_numpy(part.weights), part.log_nu)
        second = trial(start, tuned(start, x, known, scale, seed), x, c.only(here))
        final = tuned(final, x, c, scale, seed) if second.better else final
    with torch.no_grad():
        raw = torch.cat([final(p.double()) for p in torch.split(x, 256)]).numpy()
    tensors = {"weights": final.weights, **{f"features.{k}": v for k, v in final.features.state_dict().items()}}
    if pixels or run is None:
        return _Fitted(raw, final.log_nu, held_out, tensors, {"picture": saved}), second
    fields = {"picture": saved, "sound": run.record.modality}
    return _Fitted(raw, final.log_nu, held_out, tensors, fields, run.encoder), second


def tuning_fits(x: Tensor, effort: Effort, recipe: EncoderRecipe) -> bool:
    """Whether there are seconds left to train the encoder on the votes, twice."""
    step = one_step(x, {}, replace(recipe, batch=2 * BATCH))
    return effort.affordable(2 * STEPS, 0, 1.0, step) == 2 * STEPS


# -------------------------------------------------------------------------------------------------------- reading


def load_reward_model(folder: Path) -> Reward:
    """The reward of a folder that `train_reward_model` wrote, differentiable for images and for fields of sounds.

    Raises UserError if the folder is not a reward model, is damaged, or of another version.
    """
    saved, tensors = read(folder)
    kind = registry.kind(saved.items)
    try:
        weights = tensors.pop("weights").double()
        if not all(bool(torch.isfinite(t).all()) for t in (weights, *tensors.values())):
            raise ValueError("some numbers are not finite")
        if saved.text is not None:
            reward = _of_text(saved, saved.text, weights.numpy(), tensors)
        elif saved.picture is not None:
            net = blank(saved.picture)
            net.load_state_dict({k.removeprefix("features."): v for k, v in tensors.items()})
            net = net.eval().requires_grad_(False)
            make = _of_image if saved.sound is None else _of_field(saved.sound, folder / ENCODER_FOLDER)
            reward = make(saved, Tuned(net, weights, saved.log_nu))
        elif saved.features is not None:
            reward = _of_features(saved, kind, weights.numpy())
        else:
            raise ValueError("it has features of neither texts nor images")
    except (KeyError, RuntimeError, ValueError, TypeError) as e:
        raise UserError(f"{folder} is damaged: {str(e)[:200]}. Restore a copy of it, or train it again.") from None
    return replace(reward, name=str(folder), kind=kind)


def read(folder: Path) -> tuple[RewardRecord, dict[str, Tensor]]:
    """model.json, and the tensors whose hash it states. Raises UserError."""
    again = "Restore a copy of it, or train it again."
    try:
        record: Any = parse_json((folder / MODEL_FILE).read_bytes())
    except OSError:
        raise UserError(
            f"{folder} is not a reward model: it has no {MODEL_FILE} that can be read. Train one from a file of votes."
        ) from None
    except ValueError:
        raise UserError(f"{folder / MODEL_FILE} is damaged: it is not JSON. {again}") from None
    if not isinstance(record, dict) or record.get("format") != "afresh reward model":
        raise UserError(f"{folder / MODEL_FILE} does not belong to a reward model. Name the folder of a reward model.")
    if record.get("version") != VERSION:
        raise UserError(
            f"{folder} was made by another version of the program (format {record.get('version')}; this one reads "
            f"{VERSION}). Use that version, or train it again."
        )
    try:
        saved = RewardRecord.model_validate(record)
    except ValidationError as e:
        raise UserError(f"{folder / MODEL_FILE} is damaged: {faults(e)}. {again}") from None
    try:
        raw = (folder / WEIGHTS_FILE).read_bytes()
        if hashlib.sha256(raw).hexdigest() != saved.weights_sha256:
            raise UserError(f"{folder / WEIGHTS_FILE} is damaged: it does not have the hash in {MODEL_FILE}. {again}")
    except OSError as e:
        raise UserError(f"{folder / WEIGHTS_FILE} cannot be read: {e}. {again}") from None
    return saved, read_tensors(folder / WEIGHTS_FILE, raw)


def _of_text(saved: RewardRecord, settings: TextSettings, weights: Array, tensors: dict[str, Tensor]) -> Reward:
    if settings.hidden:
        raise UserError(
            f"The reward model of {saved.votes} also uses sentence embeddings, which this version does not. Train it "
            "again."
        )
    directions = tensors["directions"].double().numpy()
    features = TextFeatures(settings, tensors["rarity"].double().numpy(), directions)
    if weights.shape != (sum(features.blocks),) or directions.shape[1:] != features.rarity.shape:
        raise ValueError(f"{weights.shape} weights of {sum(features.blocks)} features")
    head = RewardHead(weights, saved.log_nu, saved.spread)

    def score(items: Sequence[str], requests: Sequence[Request]) -> Array:
        return (rewards(head, features(items)) - saved.mean) / saved.deviation

    return Reward("", score)


def _of_features(saved: RewardRecord, kind: ItemKind, weights: Array) -> Reward:
    features, head = kind.features, RewardHead(weights, saved.log_nu, saved.spread)
    if features is None or weights.shape != (saved.features,):
        raise ValueError(f"{weights.shape} weights of {saved.features} features")

    def score(items: Sequence[Any], requests: Sequence[Request]) -> Array:
        return (rewards(head, features(items)) - saved.mean) / saved.deviation

    return Reward("", score)


def _of_image(saved: RewardRecord, net: Tuned) -> Reward:
    def on_field(x: Tensor) -> Tensor:
        return (net(x) - saved.mean) / saved.deviation

    return of_field(on_field)


def _of_field(modality: str, folder: Path) -> Callable[[RewardRecord, Tuned], Reward]:
    """A reward of items that the encoder in `folder` converts to fields. Raises ValueError if its files have
    changed."""

    def make(saved: RewardRecord, net: Tuned) -> Reward:
        if _files(folder) != saved.encoder:
            raise ValueError(f"the files of {folder} have changed")
        encoder = registry.modality(modality).load(folder)

        def on_field(x: Tensor) -> Tensor:
            return (net(as_spectra(x)) - saved.mean) / saved.deviation

        @torch.no_grad()
        def score(items: Sequence[Any], requests: Sequence[Request]) -> Array:
            fields = encoder.encode([Item(value) for value in items])
            return np.asarray(on_field(fields.x.float() * fields.scale + fields.shift).double().numpy())

        return Reward("", score, on_field=on_field)

    return make


def _files(folder: Path) -> dict[str, str | None]:
    """SHA-256 of every file of a folder, by name."""
    return {file.name: _sha256(file) for file in sorted(folder.glob("*"))}
