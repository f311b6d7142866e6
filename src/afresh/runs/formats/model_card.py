"""README.md of an export: a model card as the Hugging Face hub reads it, with its metadata as YAML at the head."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from afresh.core.safe_text import visible_line

README = "README.md"
UNKNOWN = "unknown"  # a licence that the hub accepts: nobody has stated one
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
EXPORTED = "-hf"  # what `afresh export --to hf` adds to the name of a run
CACHED = "models--"  # how the hub's local cache names the folder of a model
MOST_METADATA = 100_000  # characters
# The package that opens what the hub names by a library.
OPENED_BY = {"transformers": "transformers", "peft": "peft", "diffusers": "diffusers", "onnx": "onnxruntime"}
HEAD = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


@dataclass(frozen=True)
class Card:
    """What a card says of a model, whatever the format. `task` is a pipeline_tag of the hub, `base_model` a name of
    `shared_name`, `licence` as the hub names it, which is "other" for one that it has no name for: it is known as
    `licence_name`, and its text is at `licence_link`. `datasets` are names without their folders, `scores` were
    measured on held-out data, and `sentences` follow the title."""

    name: str
    task: str
    base_model: str | None = None
    licence: str = UNKNOWN
    datasets: Sequence[str] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    sentences: Sequence[str] = ()
    licence_name: str = ""
    licence_link: str = ""
    relation: str | None = None  # to the base model, as the hub names it: adapter, finetune


def add_card(folder: Path, card: Card, library: str) -> None:
    """`with_card` for the folder's README.md."""
    usage = (folder / README).read_text(encoding="utf-8")
    (folder / README).write_text(with_card(usage, card, library), encoding="utf-8")


def with_card(usage: str, card: Card, library: str, tags: Sequence[str] = ()) -> str:
    """A page with metadata, a title and the card's sentences in place of its first line, whose rest says how to use the
    folder. `library` is the program that opens it, as the hub names it."""
    _, _, usage = usage.partition("\n")
    licence = (
        "No licence was stated: write the one of this model into the metadata above before you share it."
        if card.licence == UNKNOWN
        else f"Licence: {card.licence_name or card.licence}."
    )
    needs = [f"Needs {least_version(OPENED_BY[library])}."] if library in OPENED_BY else []
    about = "".join(f"{plain(s)}\n\n" for s in (*card.sentences, licence, *needs))
    return f"{metadata(card, library, tags)}\n# {plain(title(card.name))}\n\n{about}{usage.lstrip()}"


def least_version(package: str) -> str:
    """The oldest version of a package that afresh accepts, with which exports are tested, as `diffusers>=0.35`."""
    return next(m[0] for line in requires("afresh") or () if (m := re.match(rf"{package}>=[\d.]+", line)))


def metadata(card: Card, library: str, tags: Sequence[str] = ()) -> str:
    """The block of YAML between two lines of dashes. Each value is JSON, which YAML contains."""
    scores = [{"type": k, "value": round(v, 4), "name": k.replace("_", " ")} for k, v in card.scores.items()]
    data = {"type": card.datasets[0], "name": card.datasets[0], "split": "held-out"} if card.datasets else {}
    result = {"task": {"type": card.task}, "dataset": data, "metrics": scores}
    entries: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": card.task,
        "license": card.licence,
        "license_name": card.licence_name if card.licence == "other" else None,
        "license_link": card.licence_link if card.licence == "other" else None,
        "base_model": card.base_model,
        "base_model_relation": card.relation if card.base_model else None,
        "datasets": list(card.datasets),
        "metrics": list(card.scores),
        "tags": ["afresh", *tags],
        "model-index": [{"name": title(card.name), "results": [result]}] if scores and data else [],
    }
    return f"---\n{''.join(yaml_lines(entries))}---\n"


def yaml_lines(entries: Mapping[str, Any]) -> list[str]:
    return [f"{k}: {json.dumps(v, ensure_ascii=False)}\n" for k, v in entries.items() if v]


def extended_card(page: str, entries: Mapping[str, Any], text: str) -> str:
    """A page of `with_card` with further metadata, and a text at its end."""
    head, _, rest = page.removeprefix("---\n").partition("---\n")
    return f"---\n{head}{''.join(yaml_lines(entries))}---\n{rest.rstrip()}\n\n{text}\n"


def plain(text: str) -> str:
    """A line of Markdown in which names are neither elements of HTML nor links."""
    return re.sub(r"([<\[])", r"\\\1", visible_line(text))


def title(name: str) -> str:
    return visible_line(name).strip() or "model"


# --------------------------------------------------------------------------- names and licences of others


def shared_name(source: str) -> str:
    """The name by which other machines know a model: its name on the hub, or its folder's or file's without the path.

    A run is known by the folder into which `afresh export --to hf` writes it, RUN-hf.
    """
    path = Path(source)
    for part in path.parts:
        if part.startswith(CACHED):
            return part.removeprefix(CACHED).replace("--", "/")
    if HUB_NAME.fullmatch(source) and not path.exists():
        return source
    return f"{path.name}{EXPORTED}" if (path / "run.json").is_file() else path.name


def dataset_name(path: str) -> str:
    """The name of a folder or file of data, in the letters that names on the hub may have."""
    return re.sub(r"[^\w.-]+", "-", Path(path).name).strip("-.") or "data"


def card_metadata(folder: Path) -> dict[str, Any]:
    """The metadata at the head of a folder's README.md; empty without it, or where it is not YAML."""
    import yaml

    try:
        with (folder / README).open(encoding="utf-8", errors="replace") as file:
            head = HEAD.match(file.read(MOST_METADATA))
        found = yaml.safe_load(head[1]) if head else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
