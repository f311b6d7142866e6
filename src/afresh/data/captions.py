"""Captions to vectors by a frozen text encoder: MiniLM or another one of the Hugging Face hub, or one in a folder.

A run records the name of the encoder, with the commit on the hub, and the SHA-256 of every file that affects the
vectors, and refuses to sample with another encoder. Without a text encoder, captions are words that are learnt with the
model (afresh.data.conditions).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from afresh.core import Item, Omission, UserError, events
from afresh.core.device import computing_device
from afresh.core.plural import counted

if TYPE_CHECKING:
    from afresh.data.text_encoder import TextModel
    from afresh.data.text_encoder_source import Located
    from afresh.engine.nets.pipelines import PipelineText

WORDS, AUTO = "words", "auto"
MANY = 100  # distinct captions from which `auto` uses a text encoder if there is one; for fewer, words are enough


Captions = Annotated[
    str,
    Field(
        min_length=1,
        description="encoder of captions: auto, words (learnt from the training captions alone), or a pretrained text "
        "encoder: minilm, a folder, or a name on the Hugging Face hub (ORGANISATION/NAME@REVISION)",
    ),
]


class SavedCaptions(BaseModel):
    """The text encoder that computed the vectors: its name, the dimension, and the SHA-256 of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    width: int = Field(ge=1)
    files: dict[str, str]


class CaptionEncoder:
    """Captions to the vectors (N, E) that a model is conditioned on, standardised per dimension by the training split.

    The text model is loaded, and its files are checked, when the first unknown caption is encoded. It computes on the
    device that was chosen when this encoder was made (core.device.computing_device).
    """

    def __init__(self, saved: SavedCaptions, mean: Tensor, std: Tensor, known: Mapping[str, Tensor] | None = None):
        self.saved, self.mean, self.std = saved, mean, std
        self.device = computing_device()
        self.known = dict(known or {})  # cache: caption -> vector before standardisation

    @cached_property
    def model(self) -> TextModel | PipelineText:
        """Raises UserError if the text encoder used in training is missing or its files differ."""
        return open_encoder(self.saved.name, self.saved.files, self.device)[1]

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """(N, E) float32. Warns about captions that are truncated. Raises UserError like `model`."""
        new = list(dict.fromkeys(c for c in captions if c not in self.known))
        if new:
            vectors, cut = self.model.vectors(new)
            if cut:
                events.warning(truncation_note(len(cut), self.model.limit))
            self.known.update(zip(new, vectors, strict=True))
        raw = torch.stack([self.known[c] for c in captions]) if captions else self.mean.new_zeros(0, len(self.mean))
        return (raw - self.mean) / self.std

    def save(self, folder: Path) -> None:
        """Save the statistics. `saved` is stored in the file of the modality's encoder."""
        (folder / "captions.safetensors").write_bytes(save({"mean": self.mean, "std": self.std}))

    @staticmethod
    def load(folder: Path, saved: SavedCaptions) -> CaptionEncoder:
        """Raises UserError if the file is missing or damaged."""
        file = folder / "captions.safetensors"
        try:
            tensors = load_file(file)
            mean, std = tensors["mean"], tensors["std"]
        except (OSError, SafetensorError, KeyError) as error:
            raise UserError(f"{file} cannot be read: {error}. Copy the complete run again.") from None
        if mean.shape != (saved.width,) or std.shape != (saved.width,):
            raise UserError(
                f"{file} does not belong to {saved.name}: its shape is {tuple(mean.shape)}, not ({saved.width},)."
            )
        return CaptionEncoder(saved, mean, std)


def fit_captions(wanted: str, captions: Sequence[str]) -> tuple[CaptionEncoder | None, list[str]]:
    """An encoder fitted to the training captions, whose vectors it caches, and notes. None: captions become words.

    Raises UserError if the encoder does not exist, or if one is requested but there are no captions.
    """
    if of_pipeline(wanted):
        return as_encoded(wanted), []
    distinct = list(dict.fromkeys(captions))
    if not captions and wanted not in (AUTO, WORDS):
        raise UserError(
            f"`data.captions={wanted}` is set, but the data has no captions. Add a column named text to metadata.jsonl "
            "or metadata.csv, or omit the option."
        )
    if len(distinct) < 2 or wanted == WORDS:
        return None, []
    notes = []
    if wanted == AUTO:
        wanted, why = _choose(len(distinct))
        notes.append(why)
        if wanted == WORDS:
            return None, notes
    found, model = open_encoder(wanted)
    start = time.monotonic()
    vectors, cut = model.vectors(distinct)
    seconds = time.monotonic() - start
    notes.append(f"{len(distinct):,} different captions were encoded as {model.width} numbers each in {seconds:.1f} s")
    if cut:
        long = {distinct[i] for i in cut}
        notes.append(truncation_note(sum(c in long for c in captions), model.limit))
    mean = vectors.mean(0)
    std = vectors.std(0, correction=0).clamp_min(1e-6)
    saved = SavedCaptions(name=found.name, width=model.width, files=found.files)
    return CaptionEncoder(saved, mean, std, dict(zip(distinct, vectors, strict=True))), notes


def open_encoder(
    wanted: str, files: Mapping[str, str] | None = None, device: torch.device | None = None
) -> tuple[Located, TextModel | PipelineText]:
    """Where a text encoder is, with the hashes of its files, and the encoder. Raises UserError if it is missing, or if
    its files are not `files`."""
    from afresh.data.text_encoder import open_model
    from afresh.data.text_encoder_source import locate

    found = locate(wanted, files)
    return found, open_model(found.folder, device)


def of_pipeline(wanted: str) -> bool:
    """Whether captions are encoded by a text-to-image pipeline, whose network takes its own embeddings of them."""
    from afresh.engine.nets.pipelines import is_text_to_image

    return is_text_to_image(Path(wanted))


def captioned(items: Sequence[Item], wanted: str, trigger: str | None) -> tuple[list[Item], list[str]]:
    """The items with the trigger word before their captions, or as the caption of those that have none, and notes.

    For the pipeline of a text-to-image base, an item without a caption first gets the name of its folder. Raises
    UserError if nothing says what the items show.
    """
    told = of_pipeline(wanted)
    out = []
    for item in items:
        caption = item.caption or (", ".join(item.labels.values()) if told else "")
        if trigger and trigger.casefold() not in caption.casefold():
            caption = f"{trigger}, {caption}" if caption else trigger
        out.append(replace(item, caption=caption or None))
    if not told:
        return out, []
    silent = sum(item.caption is None for item in out)
    if silent == len(out) > 0:
        raise UserError(
            "Nothing says what the images show, and the base draws what a text says. Put a .txt file beside each "
            "image, or the images into folders that are named by what they show, or give a word that stands for the "
            "subject: `data.trigger=WORD`."
        )
    notes: list[str] = []
    from afresh.engine.nets.pipelines import text_of

    if trigger and text_of(Path(wanted), computing_device()).is_common(trigger):
        notes.append(
            f"the trigger {trigger!r} is a common word, whose own meaning the adapter overwrites: a rare one, such as "
            "sks, keeps it"
        )
    if silent:
        notes.append(Omission(f"{counted(silent, 'item')} without a caption: what the base draws without a text"))
    if other := sorted({k for item in items for k in (*item.numbers, *item.images)}):
        notes.append(Omission(f"{', '.join(other)} left out: the base knows captions alone"))
    return out, notes


def as_encoded(wanted: str) -> CaptionEncoder:
    """The text encoders of a pipeline, whose embeddings are used as they are. Raises UserError if they are missing."""
    found, model = open_encoder(wanted)
    saved = SavedCaptions(name=found.name, width=model.width, files=found.files)
    encoder = CaptionEncoder(saved, torch.zeros(model.width), torch.ones(model.width))
    encoder.model = model
    return encoder


def truncation_note(count: int, limit: int) -> str:
    return Omission(f"{counted(count, 'caption')} truncated to {counted(limit, 'token')}")


def _choose(distinct: int) -> tuple[str, str]:
    """The encoder that `auto` stands for, given the number of distinct captions, and the reason.

    Nothing is downloaded unless it is asked for.
    """
    if distinct < MANY:
        return WORDS, (
            f"captions are encoded as words, because only {distinct:,} are different (`data.captions=minilm` uses a "
            "text encoder)"
        )
    from afresh.data.text_encoder_source import MINILM, cached

    if not cached(MINILM):
        return WORDS, (
            "captions are encoded as words; a text encoder also knows words that do not occur in them "
            "(`data.captions=minilm` downloads one from the Hugging Face hub, 91 MB)"
        )
    return MINILM, (
        f"captions are encoded by minilm, because {distinct:,} are different and it is on this machine "
        "(`data.captions=words` learns words from these captions alone)"
    )
