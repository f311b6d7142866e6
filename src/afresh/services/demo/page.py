"""The page that a demonstration ends with: one HTML file that loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from afresh.core import Sound
from afresh.data.audio.views import sound_image, wav_bytes
from afresh.data.image.kind import png_bytes
from afresh.data.storage.files import replace_file
from afresh.engine.pages.render import data_uri, render_page
from afresh.services.demo.part import ShownPart
from afresh.services.demo.sounds import SECONDS

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
    return {
        "parameters": f"{record.parameters / 1e6:.1f} million"
        if record.parameters >= 1e6
        else f"{record.parameters:,}",
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
