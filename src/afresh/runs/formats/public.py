"""Kinds of public weights: what each is, how a folder of it is recognised and opened as a base, and in which format an
adapter of it is written.

Each is one record, `PUBLIC` of a module in this folder or a part of a plug-in (`afresh.core.plugin`), that
`afresh.core.registry.public_weights` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from afresh.core import Codec, Encoder, Family, UserError, registry
from afresh.data.storage.files import replace_file
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.lora import save_adapter
from afresh.runs.formats.files import read_json
from afresh.runs.formats.model_card import README, Card, with_card

INDEX, CONFIG = "model_index.json", "config.json"  # of a pipeline of diffusers, and of a model of transformers
OWN_USAGE = """# Adapter

A LoRA of `{base}`, which is not in this folder, in the format of afresh. To sample with it:

```bash
afresh sample RUN --adapter ADAPTER   # the run that it was tuned from, and this folder
```
"""


@dataclass(frozen=True)
class BaseModel:
    """An existing model. `context` is the number of tokens that it can attend to, or 0 if it does not model tokens."""

    name: str
    family: Family
    config: Any
    encoder: Encoder
    codec: tuple[str, Codec] | None
    weights: Mapping[str, Tensor]  # {module.name: tensor}
    context: int
    recipe: TrainConfig | None  # how it was trained, if known
    seasoned: bool  # public weights or a tuned run, which are tuned at lower learning rates
    modality: str | None  # None: any modality of texts
    notes: tuple[str, ...] = ()
    sized: Callable[[int], BaseModel] | None = None  # the base for images of another side, if it has no fixed one


@dataclass(frozen=True)
class WrittenAdapter:
    """How an adapter that was written is used: a page in Markdown, and the library that reads it, as the hub names
    it."""

    usage: str
    library: str


@dataclass(frozen=True)
class PublicWeights:
    """One kind of public weights. `about`: what they are, in a few words, for people.

    `holds`: whether a path holds them, complete or not; it imports no library and reads no weights. `open` takes the
    path and the name by which the base is known, and raises UserError for what is missing, damaged or unsupported.
    `write_adapter` writes the adapter among modules into a folder, where base is the name of the model that it belongs
    to; it returns None if they are the modules of another kind.
    """

    name: str
    about: str
    holds: Callable[[Path], bool]
    open: Callable[[Path, str], BaseModel]
    write_adapter: Callable[[Path, Mapping[str, nn.Module], str], WrittenAdapter | None] = lambda folder, m, base: None


def kind_of(path: Path) -> PublicWeights:
    """The kind of public weights at a path. Raises UserError, with all that can be a base, if it is of none."""
    kinds = registry.public_weights()
    for kind in kinds:
        if kind.holds(path):
            return kind
    known = "; ".join(kind.about for kind in kinds if kind.about)
    raise UserError(f"{path} {contents(path)}. A base is a run of afresh, or {known}.", "unknown_weights")


def contents(path: Path) -> str:
    """What a folder holds that is of no known kind, by its own words."""
    for file, field in ((path / INDEX, "_class_name"), (path / CONFIG, "architectures"), (path / CONFIG, "model_type")):
        if file.is_file() and (named := read_json(file).get(field)):
            what = ", ".join(map(str, named)) if isinstance(named, list) else str(named)
            return f"holds {what[:200]}, which cannot be a base"
    return f"has no {CONFIG} or {INDEX} that names a model, so it is not a folder of weights"


def write_adapter(folder: Path, modules: Mapping[str, nn.Module], card: Card) -> None:
    """Write the adapter of a run with its card, which names the base: in the format in which libraries read adapters
    of that kind of weights, else in that of afresh. Raises UserError if it cannot be written."""
    base = card.base_model or ""
    written = (kind.write_adapter(folder, modules, base) for kind in registry.public_weights())
    found = next((w for w in written if w is not None), None)
    if found is None:
        save_adapter(folder / "adapter.safetensors", nn.ModuleDict(dict(modules)))
        found = WrittenAdapter(OWN_USAGE.format(base=base), "afresh")
    replace_file(folder / README, with_card(found.usage, card, found.library, ("lora",)).encode())
