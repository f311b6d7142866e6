"""The page that a demonstration ends with: one HTML file that loads nothing.

It shows the parts of the demonstration: the data and training of each, and what came of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from afresh.api import Model
from afresh.core import Sound
from afresh.data.audio.views import sound_image, wav_bytes
from afresh.data.image.kind import png_bytes
from afresh.data.storage.files import replace_file
from afresh.engine.pages.render import data_uri, render_page
from afresh.services.demo.sounds import SECONDS


@dataclass(frozen=True)
class DemoPart:
    """One set of data and how it is learnt. `make` gives a value by label, seed and index; None for tales."""

    name: str
    what: str  # on the terminal
    family: str
    minutes: float
    write: Callable[[Path], None]
    labels: Sequence[str] = ()
    make: Callable[[str, int, int], Any] | None = None
    each: int = 0  # items a label
    data: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DemoVerdict:
    """One number: what the model reaches, what it means, and what stands beside it."""

    value: str
    meaning: str
    beside: str


@dataclass(frozen=True)
class ShownPart:
    """A part after training: examples by label ("" where there are none), samples, verdicts and times."""

    part: DemoPart
    model: Model
    real: Mapping[str, Sequence[Any]]
    made: Mapping[str, Sequence[Any]]
    verdicts: Sequence[DemoVerdict]
    seconds: Mapping[str, float]  # data, training, samples
    prompts: Sequence[str] = ()  # what tales begin with
    between: Sequence[Any] = ()  # on the way from one drawing to another
    loop: Sound | None = None


NAMES = {"data": "making the data", "training": "training", "samples": "sampling and judging"}


def picture(pixels: Any) -> str:
    return data_uri("image/png", png_bytes(pixels))


def player(sound: Sound, seconds: float | None = None) -> dict[str, str]:
    """{image, wav} of a sound; the image stands for `seconds`."""
    return {"image": picture(sound_image(sound, seconds)), "wav": data_uri("audio/wav", wav_bytes(sound))}


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def facts(shown: ShownPart) -> dict[str, str]:
    """What is said of a part: the model's size and the time that it learnt for."""
    record = shown.model.run.record
    size = record.parameters
    return {
        "parameters": f"{size / 1e6:.1f} million" if size >= 1e6 else f"{size:,}",
        "seconds": f"{shown.seconds['training']:.0f}",
        "train": f"{record.data.train + record.data.heldout:,}",
    }


def write_page(path: Path, shown: Sequence[ShownPart], seconds: float, commands: Sequence[tuple[str, str]]) -> Path:
    """Write the page of drawings, tales and sounds, in this order, and of what to do next: (what it does, command).

    Returns `path`. Raises UserError if it cannot be written.
    """
    drawings, tales, sounds = shown
    machine = drawings.model.run.record.machine
    spent = {text: sum(s.seconds[name] for s in shown) for name, text in NAMES.items()}
    page = render_page(
        Path(__file__).with_name("templates") / "index.html.j2",
        total=clock(seconds),
        machine=f"{machine['name']}, {machine['threads']} threads",
        times=[(text, clock(value), 100 * value / seconds) for text, value in spent.items()],
        drawings=drawings,
        tales=tales,
        sounds=sounds,
        facts=facts,
        picture=picture,
        player=player,
        seconds=SECONDS,
        commands=commands,
    )
    replace_file(path, page.encode())
    return path
