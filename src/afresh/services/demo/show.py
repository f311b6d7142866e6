"""Three trainings on data made on the spot: what they learn, what they make, and how it compares with the data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.api import Model, train
from afresh.core import Encoder, Item, Sound, UserError, events
from afresh.core.events import Event, listening
from afresh.data.image.grid import image_grid
from afresh.data.storage.folders import check_free, new_folder
from afresh.engine.evaluation.distribution import distances, two_sample_linear
from afresh.engine.evaluation.estimate import Array
from afresh.engine.evaluation.memorisation import near_copies, nearest
from afresh.services.demo import drawings, sounds, tales
from afresh.services.demo.page import DemoPart, DemoVerdict, ShownPart, write_page
from afresh.verbs.console import default_listener

LEARNT, FRESH = 0, 1  # seeds of the data that is learnt, and of data that no model has seen
SHOWN = 6  # samples of each label on the page
JUDGED = 24  # samples of each label that are judged
TALES = 64  # tales that are judged
PROMPTS = (
    "Mira lives in",
    "In an old house on the hill lives",
    "There is a small house by the sea, and in it lives",
    "On the first day of spring she finds a golden boat",
)
CELLS, EDGES = 16, 4  # parts along each axis in which fields are compared

SMALL = {"family.width": 32, "family.most": 2, "train.batch": 32}  # of the VAEs: learns the most in a minute


DRAWINGS = DemoPart(
    "drawings",
    "1,800 little drawings, learnt by a VAE",
    "vae",
    0.65,
    lambda folder: drawings.write_drawings(folder, 300, LEARNT),
    tuple(drawings.SCENES),
    drawings.draw,
    300,
    settings={"family.latent": 64, "family.components": 2, "family.patch": 3, **SMALL},
)
SOUNDS = DemoPart(
    "sounds",
    "1,200 sounds of five instruments, learnt by a VAE of spectrograms",
    "vae",
    0.35,
    lambda folder: sounds.write_sounds(folder, 240, LEARNT),
    tuple(sounds.INSTRUMENTS),
    sounds.play,
    240,
    settings={"family.latent": 32, "family.components": 1, "family.patch": 4, **SMALL},
)
STORIES = DemoPart(
    "tales",
    "4,000 short tales, learnt by a Transformer",
    "transformer",
    0.4,
    lambda folder: tales.write_tales(folder, 4000, LEARNT),
    data={"tokenizer": "bpe", "vocab_size": 512, "context": 128},
    settings={"family.width": 96, "family.layers": 2, "family.heads": 3, "family.kv_heads": 3, "train.batch": 8},
)
PARTS = (DRAWINGS, STORIES, SOUNDS)


def run_demo(out: Path, scale: float = 1.0, commands: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
    """Make the data, train, sample and judge, and write index.html into `out`; `scale` multiplies the training times.

    `commands` are shown at the end of the page, each as (what it does, command). Returns {page, image, seconds}: the
    page, an image of drawings beside the data, and the seconds spent. Raises UserError if `out` cannot be written, and
    as `afresh.train`.
    """
    begun = time.perf_counter()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"Cannot write the demonstration to {out}: {e.strerror or e}. Choose another folder.") from e
    with listening(brief(events.listener() or default_listener())):
        shown = [show(part, number, out, scale) for number, part in enumerate(PARTS, 1)]
    image = out / "drawings.png"
    side_by_side(shown[0], image)
    page = write_page(out / "index.html", shown, time.perf_counter() - begun, commands)
    return {"page": str(page), "image": str(image), "seconds": round(time.perf_counter() - begun, 1)}


def check_folder(out: Path, force: bool) -> None:
    """Raises UserError for a file, and unless `force` for a folder that holds something."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file. Choose a folder for `out`.")
    check_free(out, force)


def brief(listener: Callable[[Event], None]) -> Callable[[Event], None]:
    """Without the notes of data and plans, which a run's own folder tells."""

    def chosen(event: Event) -> None:
        if event.kind != "note" or event.code == "demo":
            listener(event)

    return chosen


def show(part: DemoPart, number: int, out: Path, scale: float) -> ShownPart:
    """Write the data, train, sample and judge one part."""
    events.note(f"{number} of {len(PARTS)}: {part.what}, in {60 * part.minutes * scale:.0f} seconds", "demo")
    seconds: dict[str, float] = {}
    data = out / "data" / part.name
    with timed(seconds, "data"):
        write_once(part, data)
    with timed(seconds, "training"):
        model = train(
            data,
            family=part.family,
            minutes=part.minutes * scale,
            out=out / "runs" / part.name,
            force=True,
            data=part.data,
            settings=part.settings,
        )
    with timed(seconds, "samples"):
        return (show_tales if part.make is None else show_fields)(part, model, seconds)


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - begun


def write_once(part: DemoPart, folder: Path) -> None:
    """Data of before is kept: it is the same. An unfinished folder never has the final name."""
    if folder.exists():
        return
    try:
        with new_folder(folder) as unfinished:
            part.write(unfinished)
    except OSError as e:
        raise UserError(f"Cannot write the data of the demonstration to {folder}: {e.strerror or e}.") from e


# --------------------------------------------------------------------------- drawings and sounds


def show_fields(part: DemoPart, model: Model, seconds: dict[str, float]) -> ShownPart:
    """Samples of every label; how they compare with data that no model has seen."""
    assert part.make is not None
    samples = {label: model.sample(JUDGED, label=label, seed=1) for label in part.labels}
    encoder = model.run.encoder
    verdicts = compared(
        torch.cat([s.x for s in samples.values()]),
        encoded(encoder, items(part, FRESH, JUDGED)),
        encoded(encoder, items(part, LEARNT, part.each)),
        part,
    )
    real = {label: [part.make(label, FRESH, i) for i in range(SHOWN)] for label in part.labels}
    values = {label: list(s.values[:SHOWN]) for label, s in samples.items()}
    pictures = isinstance(values[part.labels[0]][0], np.ndarray)
    way = between(model) if pictures else ()
    loop = None if pictures else arranged({label: v[:3] for label, v in values.items()})
    return ShownPart(part, model, real, values, verdicts, seconds, between=way, loop=loop)


def items(part: DemoPart, seed: int, each: int) -> list[Item]:
    """`each` examples of every label."""
    assert part.make is not None
    return [
        Item(part.make(label, seed, i), source=f"{label}/{i}", labels={"label": label})
        for label in part.labels
        for i in range(each)
    ]


def encoded(encoder: Encoder, of: Sequence[Item]) -> Tensor:
    """The fields that a model would learn from, (N, C, H, W)."""
    examples = encoder.encode(of)
    return examples.x.float() * examples.scale + examples.shift


def coarse(x: Tensor) -> Array:
    """What is where: fields (N, C, H, W) averaged over CELLS x CELLS parts, as vectors."""
    return F.adaptive_avg_pool2d(x.float(), CELLS).flatten(1).double().cpu().numpy()


def sharpness(x: Tensor) -> Array:
    """How much neighbours differ in each of EDGES x EDGES parts of fields (N, C, H, W), as vectors: blur lowers it."""
    differences = x.float().diff(dim=-1).abs().mean(1, keepdim=True)
    return F.adaptive_avg_pool2d(differences, EDGES).flatten(1).double().cpu().numpy()


def compared(made: Tensor, fresh: Tensor, learnt: Tensor, part: DemoPart) -> list[DemoVerdict]:
    """Samples and fresh examples, JUDGED of every label, beside the examples that were learnt; all (N, C, H, W)."""
    gallery, samples, real = coarse(learnt), coarse(made), coarse(fresh)
    asked = np.repeat(np.arange(len(part.labels)), JUDGED)
    right, right_real = (np.mean(distances(x, gallery).argmin(1) // part.each == asked) for x in (samples, real))
    apart = two_sample_linear(sharpness(made), sharpness(fresh), seed=0)
    copies, copies_real = (near_copies(nearest(x, gallery), nearest(real, gallery)).value for x in (samples, real))
    return [
        DemoVerdict(f"{right:.0%}", "show what was asked for", f"new ones by the script: {right_real:.0%}"),
        DemoVerdict(
            f"{apart.value:.0%}",
            "are recognised as the model's by their sharpness alone",
            "50% is chance, the best possible",
        ),
        DemoVerdict(
            f"{copies:.1%}", "are near copies of what was learnt", f"new ones by the script: {copies_real:.1%}"
        ),
    ]


def between(model: Model) -> Sequence[Any]:
    """Nine drawings on the way from a balloon to a flower, through the model's latents."""
    first, second = (drawings.draw(label, FRESH, 0) for label in ("balloon", "flower"))
    return model.interpolate(first, second, 9, label="balloon", to_label="flower").values


def arranged(instruments: Mapping[str, Sequence[Sound]]) -> Sound:
    """Two bars out of samples: drum and drop keep time, bells and strings take turns, a zap ends them."""
    rate, step = sounds.RATE, round(0.2 * sounds.RATE)
    score = {"drum": (0, 4, 8, 12, 14), "drop": (2, 6, 10), "string": (0, 3, 5, 8, 11), "bell": (6, 14), "zap": (15,)}
    mix = np.zeros(20 * step, np.float32)
    for label, places in score.items():
        for turn, place in enumerate(places):
            wave = instruments[label][turn % len(instruments[label])].samples[:, 0]
            part = mix[place * step :][: len(wave)]
            part += wave[: len(part)]
    return Sound((0.9 * mix / max(1e-3, float(np.abs(mix).max())))[:, None], rate)


def side_by_side(shown: ShownPart, file: Path) -> None:
    """An image with a row for each label: three drawings of the script, a gap, and samples of the model."""
    gap = np.full((drawings.SIDE, drawings.SIDE, 3), 255, np.uint8)
    rows = [[*shown.real[label][:3], gap, *shown.made[label]] for label in shown.part.labels]
    image_grid([pixels for row in rows for pixels in row], columns=len(rows[0]), scale=2).save(file)


# --------------------------------------------------------------------------- tales


def show_tales(part: DemoPart, model: Model, seconds: dict[str, float]) -> ShownPart:
    """Continuations of PROMPTS, and TALES whole tales that are judged by the rules of the grammar."""
    learnt = {tales.tale(LEARNT, i) for i in range(4000)}
    told = model.sample(len(PROMPTS), prompt=list(PROMPTS), seed=1, temperature=0.7, length=150).values
    whole = [text.strip() for text in model.sample(TALES, seed=1, temperature=0.7, length=200).values]
    heroes, finds = sum(map(tales.keeps_hero, whole)), sum(map(tales.keeps_colour, whole))
    scores = {score["name"]: score["value"] for score in model.measure(n=8)["metrics"]}
    verdicts = [
        DemoVerdict(f"{heroes} of {TALES}", "tales stay with he or she to the end", "the script: all"),
        DemoVerdict(f"{finds} of {TALES}", "tales remember the colour of what was found", "the script: all"),
        DemoVerdict(
            f"{sum(text in learnt for text in whole)} of {TALES}", "tales are copies of one that was learnt", ""
        ),
        DemoVerdict(
            f"{scores['bits_per_byte']:.2f}",
            "bits for each byte of tales that were held out",
            f"lzma after all of the others: {scores['bits_per_byte/lzma_train']:.2f}",
        ),
    ]
    real = [tales.tale(FRESH, i) for i in range(2)]
    return ShownPart(part, model, {"": real}, {"": [t.rstrip() for t in told]}, verdicts, seconds, prompts=PROMPTS)
