"""A reward model from a file of votes: its folder, made and read.

FOLDER/model.json says what it is and how good it is on votes held out, FOLDER/model.safetensors holds what was fitted,
FOLDER/report.json the whole judgement; of sounds FOLDER/encoder is that of the run. What is scored is centred on the
mean reward of the items that were voted on, in their deviations: a score of 1 means as much in one reward model as in
another.

A text is judged by itself: where votes have prompts, they only keep answers to one prompt on one side when votes are
held out. Nothing here knows whether an answer answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from afresh.alignment.feedback.preferences import Preferences, read_votes
from afresh.alignment.rewards.bradley_terry import (
    Head,
    HeldOut,
    comparisons_of,
    fit,
    learn,
    rewards,
    scales,
    shared,
    splits,
    usable,
)
from afresh.alignment.rewards.image import of_field
from afresh.alignment.rewards.image_encoder import SavedPicture, blank, encoder_of, heard, opened, small
from afresh.alignment.rewards.image_features import ENOUGH, Trial, Tuned, features_of, trial, tuned
from afresh.alignment.rewards.reward import Array, Request, Reward
from afresh.alignment.rewards.text_features import Hidden, TextFeatures, TextSettings, fit_text
from afresh.core import Encoder, Item, ItemKind, Score, UserError, events, registry
from afresh.core.files import replace_file, write_json
from afresh.data.audio.kind import SOUND
from afresh.data.captions import MINILM, digests, folder_of, open_model
from afresh.data.image.kind import IMAGE
from afresh.data.text.kind import TEXT
from afresh.evaluation.encoders import Recipe
from afresh.evaluation.image_sets import is_image_space
from afresh.runs.run import Run

MODEL, WEIGHTS, REPORT, ENCODER = "model.json", "model.safetensors", "report.json", "encoder"
VERSION = 1


class Saved(BaseModel):
    """model.json. `encoder`: SHA-256 of the files of an encoder of sentences or sounds, where one is used. `sound`: the
    modality whose encoder is beside, of sounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal["afresh reward model"] = "afresh reward model"
    version: int = VERSION
    items: str  # the name of their kind
    text: TextSettings | None = None
    picture: SavedPicture | None = None
    features: int | None = None  # numbers of an item, if it is seen by the features of its kind
    encoder: dict[str, str | None] | None = None
    sound: str | None = None
    mean: float  # of the rewards of the items voted on, in logits
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
    """What training left: the folder, the reward, how good the reward of its first stage (a linear one) is, and whether
    the second, where there was one, is better."""

    folder: Path
    reward: Reward
    held_out: HeldOut
    second: Trial | None

    def lines(self) -> list[str]:
        """What a user should know, a sentence each."""
        h = self.held_out
        out = [f"Of the votes held out, {_told(h.accuracy)} are foretold (guessing: 50%); no {h.apart} were seen."]
        if h.agreement is None:
            out.append("No pair was judged by two raters, so it is not known how much could be foretold at all.")
        elif h.ceiling is not None:
            out.append(f"Two raters agree in {_told(h.agreement)}; no reward could exceed {h.ceiling.value:.0%} then.")
        out.append(f"Chances are off by {h.calibration_error.value:.3f} ({h.calibration_error.floor:.3f} by luck).")
        if h.accuracy.low is not None and h.accuracy.low <= 0.5:
            out.append("That may be no better than guessing: do not align a model with it. Collect more votes.")
        if self.second is not None:
            done = "kept" if self.second.better else "not kept"
            before, after = f"{self.second.before:.0%}", f"{self.second.after:.0%}"
            out.append(f"Training the encoder too: {before} became {after} of {self.second.n} votes, {done}.")
        return out


def _told(s: Score) -> str:
    ends = "" if s.low is None or s.high is None else f" ({s.low:.0%} to {s.high:.0%})"
    return f"{s.value:.0%}{ends} of {s.n:,}"


# ------------------------------------------------------------------------------------------------------- training


def train_reward_model(
    preferences: Path,
    run: Run | None,
    out: Path,
    seed: int = 0,
    hidden: Literal["minilm"] | None = None,
    recipe: Recipe = Recipe(),
) -> Trained:
    """Learn a reward from a file of votes and write it to the new folder `out`.

    `run`: for pictures, their size and the training pictures that an encoder learns from (`recipe`); without one the
    pictures voted on. Sounds need one, whose encoder is kept. `hidden`: sentence embeddings beside n-grams and lengths.
    Raises UserError for votes that `read_votes` or `reward_head.learn` refuse, pictures or sounds that cannot be read,
    a folder that is in use.
    """
    for name in (MODEL, "run.json"):
        if (out / name).exists():
            raise UserError(f"{out} has a {name} already, which is left as it is. Choose another `out`.")
    before = _sha256(preferences)
    # Texts, and the files of other kinds, are recognised; other items that are text have to be expected.
    expected = None if run is None or not run.encoder.kind.inline or run.encoder.kind is TEXT else run.encoder.kind
    data = read_votes(preferences, expected)
    if run is not None and run.encoder.kind is not data.kind:
        raise UserError(
            f"{preferences} has votes on {data.kind.plural}, but the run {run.path} makes {run.encoder.kind.plural}."
        )
    if _sha256(preferences) != before:
        raise UserError(f"{preferences} changed while it was read. Try again when nobody votes.")
    make = trainer_of(data.kind, run)
    if hidden is not None and make is not _text:
        raise UserError(
            f"{hidden} is an encoder of texts, and {preferences} has votes on {data.kind.plural}. Leave it out."
        )
    made, second = make(data, run, hidden, recipe, seed)
    if made.encoder is not None:
        made.encoder.save(out / ENCODER)
        made.fields.update(encoder=_files(out / ENCODER))
    weights = save_bytes({k: v.contiguous() for k, v in made.tensors.items()})
    h = made.held_out
    saved = Saved(
        items=data.kind.name,
        **made.fields,
        mean=float(made.raw.mean()),
        deviation=float(made.raw.std()) or 1.0,
        log_nu=made.log_nu,
        spread=h.spread,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        votes=str(preferences),
        votes_sha256=before,
        accuracy=(h.accuracy.value, h.accuracy.low, h.accuracy.high, h.accuracy.n),
        agreement=None if h.agreement is None else h.agreement.value,
    )
    replace_file(out / WEIGHTS, weights)
    report = {"votes": data.summary.lines(), "held_out": asdict(h), "second_stage": second and asdict(second)}
    write_json(out / REPORT, {**report, "votes_file": saved.votes, "votes_sha256": saved.votes_sha256})
    write_json(out / MODEL, saved.model_dump(mode="json"))  # last: without it the folder is none
    return Trained(out, load_reward_model(out), h, second)


def _sha256(path: Path) -> str | None:
    """None where it cannot be read, which `read_votes` explains."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


@dataclass(frozen=True)
class _Made:
    """What is to be kept: rewards of the items voted on (K,), tensors, and fields of `Saved`."""

    raw: Array
    log_nu: float | None
    held_out: HeldOut
    tensors: dict[str, Tensor]
    fields: dict[str, Any]
    encoder: Encoder | None = None  # which makes fields of items


def trainer_of(kind: ItemKind, run: Run | None) -> Callable[..., tuple[_Made, Trial | None]]:
    """How a reward of items of a kind is learnt: of texts by n-grams, of images, and fields that can be compared as
    images, by a network, of other items by the features of their kind. Raises UserError if they have none."""
    if kind is TEXT:
        return _text
    if kind is IMAGE or kind is SOUND or (run is not None and is_image_space(run.encoder.space)):
        return _field
    if kind.features is not None:
        return _features
    raise UserError(f"Rewards of {kind.plural} cannot be learnt: they have neither fields nor features.")


def _text(
    data: Preferences, run: Run | None, hidden: str | None, recipe: Recipe, seed: int
) -> tuple[_Made, Trial | None]:
    _, names = comparisons_of(data.votes)
    found = fit_text(names, None if hidden is None else minilm(), seed=seed)
    features = found(names)
    head, held_out = learn(features, data.votes, seed, shared(found.shares(features)))
    tensors = {
        "weights": torch.from_numpy(head.weights),
        "rarity": torch.from_numpy(found.rarity),
        "directions": torch.from_numpy(found.directions).float(),
    }
    files = None if hidden is None else digests(folder_of(MINILM))
    fields = {"text": found.settings, "encoder": files}
    return _Made(rewards(head, features), head.log_nu, held_out, tensors, fields), None


def minilm() -> Hidden:
    """Sentence embeddings (n, 384) of length 1. Raises UserError where they are not installed."""
    model = open_model(folder_of(MINILM))

    def hidden(texts: Sequence[str]) -> Array:
        vectors, cut = model.vectors(texts)
        if cut:
            told = f"{len(cut):,} texts are longer than {model.limit} tokens; minilm reads no further."
            events.warning(told)
        return vectors.double().numpy()

    return hidden


def _features(
    data: Preferences, run: Run | None, hidden: str | None, recipe: Recipe, seed: int
) -> tuple[_Made, Trial | None]:
    assert data.kind.features is not None
    _, names = comparisons_of(data.votes)
    features = data.kind.features([data.value(name) for name in names])
    head, held_out = learn(features, data.votes, seed)
    tensors = {"weights": torch.from_numpy(head.weights)}
    return _Made(rewards(head, features), head.log_nu, held_out, tensors, {"features": features.shape[1]}), None


def _field(
    data: Preferences, run: Run | None, hidden: str | None, recipe: Recipe, seed: int
) -> tuple[_Made, Trial | None]:
    c, names = comparisons_of(data.votes)
    pixels = data.kind is IMAGE
    x = (opened if pixels else heard)(data, names, run)
    encoder = encoder_of(x, run, recipe, seed)
    shape = (x.shape[1], x.shape[2], x.shape[3])
    saved = SavedPicture(shape=shape, recipe=None if encoder is None else asdict(recipe))
    net = blank(saved).eval().requires_grad_(False)
    if encoder is not None:
        net.load_state_dict({f"encoder.{k}": v for k, v in encoder.items()})
    features = features_of(net, x)
    share = shared(net.shares(features))
    head, held_out = learn(features, data.votes, seed, share)
    final, second = Tuned(net, torch.from_numpy(head.weights), head.log_nu), None
    if encoder is not None and int(c.decided.sum()) >= ENOUGH:
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
        return _Made(raw, final.log_nu, held_out, tensors, {"picture": saved}), second
    fields = {"picture": saved, "sound": run.record.modality}
    return _Made(raw, final.log_nu, held_out, tensors, fields, run.encoder), second


# -------------------------------------------------------------------------------------------------------- reading


def load_reward_model(folder: Path) -> Reward:
    """The reward of a folder that `train_reward_model` wrote; for pictures, and fields of sounds, with its
    differentiable form.

    Raises UserError when the folder is none, is damaged or of a later version, or its sentence encoder is another.
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
            make = _of_picture if saved.sound is None else _of_field(saved.sound, folder / ENCODER)
            reward = make(saved, Tuned(net, weights, saved.log_nu))
        elif saved.features is not None:
            reward = _of_features(saved, kind, weights.numpy())
        else:
            raise ValueError("it has features of neither texts nor images")
    except (KeyError, RuntimeError, ValueError, TypeError) as e:
        raise UserError(f"{folder} is damaged: {str(e)[:200]}. Restore a copy of it, or train it again.") from None
    return replace(reward, name=str(folder), kind=kind)


def read(folder: Path) -> tuple[Saved, dict[str, Tensor]]:
    """model.json and the tensors that it vouches for. Raises UserError."""
    again = "Restore a copy of it, or train it again."
    try:
        record: Any = json.loads((folder / MODEL).read_bytes())
    except OSError:
        raise UserError(
            f"{folder} is no reward model: it has no {MODEL} that can be read. Train one from a file of votes."
        ) from None
    except ValueError:
        raise UserError(f"{folder / MODEL} is damaged: it is not JSON. {again}") from None
    if not isinstance(record, dict) or record.get("format") != "afresh reward model":
        raise UserError(f"{folder / MODEL} is not of a reward model. Give the folder that one was trained into.")
    if record.get("version") != VERSION:
        raise UserError(
            f"{folder} was made by another version of the program (format {record.get('version')}; this one reads "
            f"{VERSION}). Use that version, or train it again."
        )
    try:
        saved = Saved.model_validate(record)
    except ValidationError as e:
        problems = "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in e.errors()[:5])
        raise UserError(f"{folder / MODEL} is damaged: {problems}. {again}") from None
    try:
        raw = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(raw).hexdigest() != saved.weights_sha256:
            raise UserError(f"{folder / WEIGHTS} is not what {MODEL} says it was: damaged or cut short. {again}")
        return saved, load_bytes(raw)
    except (OSError, SafetensorError) as e:
        raise UserError(f"{folder / WEIGHTS} cannot be read: {e}. {again}") from None


def _of_text(saved: Saved, settings: TextSettings, weights: Array, tensors: dict[str, Tensor]) -> Reward:
    hidden: Callable[[Sequence[str]], Array] | None = None
    if saved.encoder is not None:
        if digests(folder_of(MINILM)) != saved.encoder:
            raise UserError(f"The sentence encoder minilm is not the one of {saved.votes}'s reward. Train it again.")
        hidden = minilm()
    directions = tensors["directions"].double().numpy()
    features = TextFeatures(settings, tensors["rarity"].double().numpy(), directions, hidden)
    if weights.shape != (sum(features.blocks),) or directions.shape[1:] != features.rarity.shape:
        raise ValueError(f"{weights.shape} weights of {sum(features.blocks)} features")
    head = Head(weights, saved.log_nu, saved.spread)

    def score(items: Sequence[str], requests: Sequence[Request]) -> Array:
        return (rewards(head, features(items)) - saved.mean) / saved.deviation

    return Reward("", score)


def _of_features(saved: Saved, kind: ItemKind, weights: Array) -> Reward:
    features, head = kind.features, Head(weights, saved.log_nu, saved.spread)
    if features is None or weights.shape != (saved.features,):
        raise ValueError(f"{weights.shape} weights of {saved.features} features")

    def score(items: Sequence[Any], requests: Sequence[Request]) -> Array:
        return (rewards(head, features(items)) - saved.mean) / saved.deviation

    return Reward("", score)


def _of_picture(saved: Saved, net: Tuned) -> Reward:
    def on_field(x: Tensor) -> Tensor:
        return (net(x) - saved.mean) / saved.deviation

    return of_field(on_field)


def _of_field(modality: str, folder: Path) -> Callable[[Saved, Tuned], Reward]:
    """The same of the fields that the encoder in a folder makes. Raises ValueError when its files are not what they
    were."""

    def made(saved: Saved, net: Tuned) -> Reward:
        if _files(folder) != saved.encoder:
            raise ValueError(f"{folder} is not what it was")
        encoder = registry.modality(modality).load(folder)

        def on_field(x: Tensor) -> Tensor:
            return (net(small(x)) - saved.mean) / saved.deviation

        @torch.no_grad()
        def score(items: Sequence[Any], requests: Sequence[Request]) -> Array:
            fields = encoder.encode([Item(value) for value in items])
            return np.asarray(on_field(fields.x.float() * fields.scale + fields.shift).double().numpy())

        return Reward("", score, on_field=on_field)

    return made


def _files(folder: Path) -> dict[str, str | None]:
    """SHA-256 of every file, by name."""
    return {file.name: _sha256(file) for file in sorted(folder.glob("*"))}
