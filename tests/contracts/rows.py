"""One row a plug-in: the smallest space, net and data on which it can be held to its promises.

A new plug-in is a new row here and no new test. Everything is small enough that all contracts of all rows take
less than a minute on one thread.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor

from afresh.core import Codec, Cond, CondSpec, Examples, Family, ItemKind, Part, Slot, Sound, Space, registry
from afresh.core.rng import Rng
from afresh.domains.exercises.history import ANSWERS
from afresh.domains.field.kind import FIELD
from afresh.domains.interactions.history import HISTORY
from afresh.domains.molecule.kind import MOLECULE
from afresh.domains.series.kind import SERIES
from afresh.domains.table.row import ROW
from tests.plugin.package.afresh_walks import WALK

SPEC: CondSpec = {
    "label": Part("label", classes=("a", "b", "c")),
    "age": Part("number", mean=3.0, std=2.0),
    "prompt": Part("prompt", classes=("red", "big"), length=3),
}

LINE = Space("field", (2, 11), std=0.6)
PLANE = Space("field", (1, 6, 5), std=0.5)
SOLID = Space("field", (1, 3, 4, 2))
MARKS = {"begin": 4, "end": 5, "pad": 6, "fim_prefix": 7, "fim_suffix": 8, "fim_middle": 9}
STREAM = Space("tokens", (8,), (10,), MARKS, stream=True)
RASTER = Space("tokens", (6,), (5,), {"begin": 4}, grid=(2, 3))
NOTES = Space("tokens", (8,), (10,), {"end": 8, "score": 9}, stream=True)
RESIDUAL = Space("tokens", (8,), (5,), {"begin": 4}, grid=(4, 2))
LEVELS = Space("tokens", (4, 2), (5, 5), {"begin": 4})
BAGS = Space("tokens", (8,), (13,), {"end": 12}, stream=True, catalogue=True)
RECORDS = Space("tokens", (8,), (12,), {"end": 10, "filler": 11}, stream=True, records=True)
SLOTS = (Slot(0, 3), Slot(3, 4, ordered=3), Slot(7, 2), Slot(9, 5, ordered=5))
TABLE = Space("tokens", (4,), (15,), {"begin": 14}, grid=(4,), slots=SLOTS)
SPACES = {
    "line": LINE,
    "plane": PLANE,
    "solid": SOLID,
    "stream": STREAM,
    "raster": RASTER,
    "residual": RESIDUAL,
    "levels": LEVELS,
    "notes": NOTES,
    "bags": BAGS,
    "records": RECORDS,
    "table": TABLE,
}


def conditions(n: int) -> Cond:
    """n requests, with every part present in some rows and absent from others."""
    rows = torch.arange(n)
    rng = Rng(11)
    parts = {
        "label": rows % 3,
        "age": 3 * rng.normal("age", rows),
        "prompt": (rng.uniform("prompt", rows, (3,)) * 4).long(),
    }
    return Cond(n, parts, {k: (rows + i) % 4 != 0 for i, k in enumerate(parts)})


def examples(space: Space, n: int = 24) -> Examples:
    """n random examples of a space with `conditions(n)`."""
    rows = torch.arange(n)
    rng = Rng(12)
    if space.kind == "field":
        return Examples(rng.normal("x", rows, space.shape) * space.std, conditions(n))
    if space.slots:
        first, count = (torch.tensor([getattr(s, k) for s in space.slots]) for k in ("first", "count"))
        return Examples((first + rng.uniform("x", rows, space.shape) * count).int(), conditions(n))
    words = min(space.vocab) - len(space.special)
    if not space.stream:
        return Examples((rng.uniform("x", rows, space.shape) * words).int(), conditions(n))
    lengths = (rng.uniform("length", rows) * 20).long() + 1 + space.catalogue  # a document's `end` included
    bounds = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    x = (rng.uniform("x", torch.arange(int(bounds[-1]))) * words).int()
    if space.catalogue:  # histories begin with `end`, and all that follows is to be predicted
        x[bounds[:-1]] = space.special["end"]
        return Examples(x, conditions(n), bounds=bounds, bytes=len(x), mask=x != space.special["end"])
    x[bounds[1:] - 1] = space.special["end"]
    if not space.records:
        return Examples(x, conditions(n), bounds=bounds, bytes=len(x))
    both = [torch.cat([x.new_full((1,), space.special["end"]), row]) for row in x.tensor_split(bounds[1:-1])]
    bounds = bounds + torch.arange(n + 1)
    mask = torch.ones(int(bounds[-1]), dtype=torch.bool)
    mask[bounds[:-1]] = False
    return Examples(torch.cat(both), conditions(n), bounds=bounds, bytes=len(x), mask=mask)


# --------------------------------------------------------------------------- families


@dataclass(frozen=True)
class FamilyRow:
    """`spaces` that the family must accept; quick `config` and `settings`; `tolerance` between one row and many in a
    batch."""

    name: str
    spaces: tuple[str, ...]
    config: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    unknown: str = "colour"  # a field that neither model has
    tolerance: float = 2e-5
    rounding: float = 1e-6  # of a gradient, as a share of its norm, between divisions of a batch
    conditional: bool = True  # whether a condition has a say in its samples, and guidance is one of its settings
    conds: CondSpec = field(default_factory=lambda: SPEC)  # that it is built with
    variant: str = ""  # what sets it apart from the family's first row: a second way that keeps the same promises

    @property
    def title(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name

    def family(self, space: Space | None = None) -> Family:
        """The record for a space, or for the first of `spaces`."""
        return registry.family(self.name).for_space(SPACES[self.spaces[0]] if space is None else space)


FAMILIES = (
    FamilyRow(
        "transformer",
        ("stream", "raster", "residual", "notes", "bags", "records"),
        {"width": 16, "layers": 2, "heads": 2, "kv_heads": 1},
        {"length": 12},
        tolerance=0.0,  # tokens are equal or they are not
    ),
    FamilyRow(
        "causal_lm",
        ("stream", "notes", "records"),
        {
            "model": {
                "model_type": "gpt_neox",
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 24,
                "max_position_embeddings": 16,
                "bos_token_id": None,
                "eos_token_id": None,
            }
        },
        {"length": 12},
        tolerance=0.0,
        conditional=False,
        conds={},
    ),
    FamilyRow(
        "masked",
        ("stream", "raster", "residual", "notes", "bags", "records"),
        {"width": 16, "layers": 2, "heads": 2},
        {"length": 12},
        tolerance=0.0,
    ),
    FamilyRow("masked", ("table",), {"width": 16, "embedding": 4, "cosines": 3}, tolerance=0.0, variant="table"),
    FamilyRow(
        "vae",
        ("line", "plane", "solid"),
        {"width": 8, "latent": 4, "cond": 8, "patch": 2, "components": 2},
    ),
    FamilyRow(
        "vae",
        ("bags",),
        {"width": 8, "latent": 4, "cond": 8, "components": 2, "dropout": 0.3},
        {"length": 5},
        tolerance=0.0,
        variant="bags",
    ),
    FamilyRow(
        "vae",
        ("records",),
        {"width": 16, "blocks": 2, "latent": 8, "cond": 8, "components": 2, "dropout": 0.3},
        {"length": 8},
        tolerance=0.0,
        variant="records",
        rounding=5e-6,  # four codes of a text, where the row had two: 1.2e-6 was seen
    ),
    FamilyRow("gan", ("line", "plane", "solid"), {"width": 8, "latent": 4, "cond": 8}),
    FamilyRow("flow", ("line", "plane", "solid"), {"widths": (8, 16), "emb": 16}, {"steps": 3}),
    FamilyRow("ensemble", ("line", "plane", "solid"), {"widths": (8, 16), "emb": 16}),
    FamilyRow("refiner", ("line", "plane", "solid"), {"widths": (8, 16), "emb": 16}),
    FamilyRow(
        "autoencoder",
        ("line", "plane", "solid"),
        {"width": 8, "bottleneck": "vq", "codes": 8, "channels": 3},  # the bottleneck with weights of its own
        rounding=5e-6,  # its convolutions' sums depend on the batch's size (1.9e-6 was seen)
        conditional=False,
    ),
    FamilyRow(
        "autoencoder",
        ("line", "plane", "solid"),
        {"width": 8, "bottleneck": "fsq", "levels": (4, 4), "residual": 2},
        rounding=5e-6,
        conditional=False,
        variant="residual",
    ),
    FamilyRow(
        "autoencoder",
        ("records",),
        {"width": 16, "blocks": 2, "channels": 3, "slots": 2, "dropout": 0.3},
        tolerance=0.0,
        conditional=False,
        variant="records",
    ),
    FamilyRow(
        "fewstep",
        ("line", "plane", "solid"),
        {"widths": (8, 16), "emb": 16, "finest": 2, "solves": 1},
        {"steps": 2},
        rounding=5e-6,  # what it learns is itself an output of networks (1.2e-6 was seen)
    ),
)


# --------------------------------------------------------------------------- modalities


@dataclass(frozen=True)
class ModalityRow:
    """`write` puts toy data of `files` items, a file each if they are not rows, into a folder; `options` make encoding
    lossless."""

    name: str
    write: Callable[[Path], None]
    files: int
    options: Mapping[str, Any] = field(default_factory=dict)
    families: tuple[str, ...] = ("transformer", "masked")  # that must take it, through a codec if need be
    written: str = ""  # the modality that reads what this one writes, where that is another


WORDS = ("the", "sea", "was", "grey", "and", "a", "wind", "blew", "from", "north", "all", "day", "till", "night")


def write_texts(folder: Path) -> None:
    for i in range(24):
        body = " ".join(WORDS[(i * j) % len(WORDS)] for j in range(1, 12 + i % 5))
        (folder / f"{i:02d}.txt").write_text(f"{i}. {body}\n", encoding="utf-8")


def write_programs(folder: Path) -> None:
    for i in range(12):
        (folder / f"m{i}.py").write_text(f"def f{i}(x):\n    return x + {i}\n", encoding="utf-8")
        (folder / f"m{i}.js").write_text(f"function f{i}(x) {{\n  return x + {i};\n}}\n", encoding="utf-8")


def write_pictures(folder: Path) -> None:
    for i in range(24):
        pixels = (Rng(i).uniform("pixels", torch.arange(6), (6,)) * 8).byte().numpy() * 32
        place = folder / ("dark" if i % 2 else "light")
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels // 2 if i % 2 else 255 - pixels // 2).save(place / f"{i:02d}.png")


def write_tunes(folder: Path) -> None:
    """Melodies in ABC, one a file, with an upbeat and a triplet."""
    for i in range(24):
        bars = "|".join("".join("CDEFGABc"[(i * j + k * k) % 8] + "2" for k in range(4)) for j in range(1, 5))
        tune = f"X:1\nT:{i}\nM:4/4\nL:1/8\nK:C\nG2|{bars}|(3CEG c4 z{'EFGA'[i % 4]}|\n"
        (folder / f"{i:02d}.abc").write_text(tune, encoding="ascii")


def write_sounds(folder: Path) -> None:
    for i in range(24):
        wave = (Rng(i).uniform("wave", torch.arange(400)) * 2**16 - 2**15).short().numpy()
        place = folder / ("low" if i % 2 else "high")
        place.mkdir(exist_ok=True)
        soundfile.write(place / f"{i:02d}.wav", wave // 4 if i % 2 else wave, 8_000)


def write_answers(folder: Path) -> None:
    """One learner a file, with answers minutes and days apart."""
    for i in range(24):
        rows = [
            f"{i},add-{(i * j) % 5},add,{(i + j) % 3 % 2},2024-05-{j + 1:02d}T12:{i:02d}:00" for j in range(3 + i % 9)
        ]
        (folder / f"{i:02d}.csv").write_text(
            "\n".join(["student,item,skill,correct,time", *rows, ""]), encoding="utf-8"
        )


def write_histories(folder: Path) -> None:
    for i in range(24):
        items = [f"item {(i + j) * (j + 1) % 7}" for j in range(4 + i % 5)]
        (folder / f"{i:02d}.jsonl").write_text(json.dumps({"user": f"u{i}", "items": items}), encoding="utf-8")


def write_molecules(folder: Path) -> None:
    """Chains with one of three ends, one a file."""
    for i in range(24):
        (folder / f"{i:02d}.smi").write_text(f"{'C' * (2 + i // 3)}{'ONF'[i % 3]} chain-{i}\n", encoding="ascii")


def write_waves(folder: Path) -> None:
    """24 waves on a ring of 8 points, one a file, without time."""
    x = np.arange(8) / 8
    for i in range(24):
        wave = np.sin(2 * np.pi * (x - i / 24)) * (1 + i / 24)
        np.savez(folder / f"{i:02d}.npz", u=wave[None], time=np.zeros(1), x=x)


def write_table(folder: Path) -> None:
    """24 rows of numbers, categories and missing values in one file, as a single row is not known to be one of many."""
    rows = (f"{i % 4},{'abc'[i % 3]},{'' if i % 2 else '0.25'}\n" for i in range(24))
    (folder / "rows.csv").write_text("rooms,town,area\n" + "".join(rows), encoding="ascii")


def write_readings(folder: Path) -> None:
    """24 series of 16 steps that are counted, one a file: a window each."""
    for i in range(24):
        rows = [f"{t},{math.sin(t + i):.4f},{math.cos(t * i / 7):.4f}" for t in range(16)]
        (folder / f"{i:02d}.csv").write_text("\n".join(["time,a,b", *rows, ""]), encoding="ascii")


SEQUENCES = ("transformer", "masked", "vae", "autoencoder")  # families of whole sequences too
MODALITIES = (
    ModalityRow("text", write_texts, 24, {"context": 8}, SEQUENCES),
    ModalityRow("code", write_programs, 24, {"context": 8}, SEQUENCES, "text"),  # two languages: written as .txt
    ModalityRow(
        "image", write_pictures, 24, {"size": 6}, ("transformer", "masked", "vae", "gan", "flow", "autoencoder")
    ),
    ModalityRow(
        "audio",
        write_sounds,
        24,
        {"representation": "wave", "trim": False, "seconds": 0.05},
        ("vae", "gan", "flow", "autoencoder"),
    ),
    ModalityRow("music", write_tunes, 24, {"context": 8}, SEQUENCES),
    ModalityRow("exercises", write_answers, 24, {"context": 80, "least": 1}),
    ModalityRow(
        "interactions", write_histories, 24, {"context": 16, "split": "user"}, ("transformer", "masked", "vae")
    ),
    ModalityRow("molecule", write_molecules, 24, families=SEQUENCES),
    ModalityRow("table", write_table, 24, families=("masked",)),
    ModalityRow("field", write_waves, 24, families=("vae", "gan", "flow", "ensemble", "refiner", "autoencoder")),
    ModalityRow("series", write_readings, 24, {"context": 12, "horizon": 4}, ("ensemble",)),
)


# --------------------------------------------------------------------------- codecs


@dataclass(frozen=True)
class CodecRow:
    """`make` returns examples of `space` that the codec, fitted to them, encodes without loss (`lossy`: with little
    loss). `fit`: how to make a codec that is not fitted to data only. `tolerance` between one row and many in a
    batch."""

    name: str
    space: Space
    make: Callable[[int], Examples]
    fit: Callable[[Examples, Space], Codec] | None = None
    lossy: bool = False
    tolerance: float = 0.0


def few_greys(n: int) -> Examples:
    levels = (Rng(5).uniform("grey", torch.arange(n), (1, 4, 5)) * 7).byte() * 40
    return Examples(levels, conditions(n), scale=2 / 255, shift=-1.0, bytes=levels.numel())


def few_colours(n: int) -> Examples:
    pixels = (Rng(6).uniform("colour", torch.arange(n), (3, 8, 8)) * 7).byte() * 40
    return Examples(pixels, conditions(n), scale=2 / 255, shift=-1.0, bytes=pixels.numel())


def from_pipeline(found: Examples, space: Space) -> Codec:
    """An autoencoder of diffusers with random weights."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    made = registry.codec_module("pipeline")
    sizes = {"block_out_channels": (4, 4), "norm_num_groups": 2, "latent_channels": 3}
    codec: Codec = made.of_network(made.autoencoder_of("AutoencoderKL", {**blocks, **sizes}, {}), space)
    return codec


def from_networks(found: Examples, space: Space) -> Codec:
    """As from a trained autoencoder, but untrained."""
    torch.manual_seed(0)
    family = registry.family("autoencoder")
    config = family.config(width=8, factor=2, channels=3)
    modules = family.build(config, space, {})
    codec: Codec = registry.codec_module("trained").of_modules(config.model_dump(), modules, space, found)
    return codec


# Codecs of records, whose lengths differ. They keep the same promises in tests of their own
# (tests/engine/families/codecs).
RECORD_CODECS = ("records", "trained_sequences")
CODECS = (
    CodecRow("palette", Space("field", (1, 4, 5)), few_greys),
    CodecRow("trained", Space("field", (1, 4, 5)), few_greys, from_networks, lossy=True, tolerance=1e-5),
    CodecRow(
        "pipeline",
        Space("field", (3, 8, 8), axes=("height", "width")),
        few_colours,
        from_pipeline,
        lossy=True,
        tolerance=1e-5,
    ),
)


# --------------------------------------------------------------------------- samplers


@dataclass(frozen=True)
class SolverRow:
    """A solver of sampling.ode.SOLVERS, with an affordable number of steps."""

    name: str
    steps: int = 5


SOLVERS = (SolverRow("euler"), SolverRow("heun"), SolverRow("ab2"), SolverRow("dpmpp"), SolverRow("sde"))


# --------------------------------------------------------------------------- metrics


@dataclass(frozen=True)
class MetricRow:
    """A module of metrics, and the `spaces` that its metrics apply to. `kind`: of the items; None: texts as tokens and
    images as fields. `variant`: those that need other conditions than SPEC, `conds`."""

    name: str
    spaces: tuple[str, ...]
    metrics: tuple[str, ...]
    kind: ItemKind | None = None
    variant: str = ""
    conds: CondSpec = field(default_factory=lambda: SPEC)


MOLECULE_METRICS = (
    "molecule_validity",
    "molecule_uniqueness",
    "molecule_novelty",
    "molecule_fcd",
    "molecule_similarity",
    "molecule_diversity",
    "molecule_filters",
    "molecule_properties",
    "molecule_requests",
)
ITEM_METRICS = ("items_valid", "items_distance", "items_diversity", "items_near_copies")
TOKENS = tuple(name for name, space in SPACES.items() if space.kind == "tokens")
METRICS = (
    MetricRow(
        "text",
        ("stream", "levels", "notes", "raster", "residual", "bags", "records", "table"),
        ("bits_per_byte", "parses", "known_words", "distinct", "verbatim"),
    ),
    MetricRow("code", ("stream",), ("completions",)),
    MetricRow(
        "image",
        ("plane",),
        (
            "frechet",
            "kid",
            "precision",
            "recall",
            "density",
            "coverage",
            "two_sample",
            "appearance",
            "variety",
            "likeness",
            "conditional_accuracy",
            "near_copies",
            "nearest_ratio",
        ),
    ),
    MetricRow("image", ("plane",), ("taught",), variant="taught", conds={"caption": Part("vector", shape=(4,))}),
    MetricRow("likelihood", ("line", "plane", "solid"), ("bits_per_dim",)),
    MetricRow("music", ("notes",), ("score_validity", "note_distributions", "note_copies", "note_variety")),
    MetricRow("molecule", tuple(SPACES), MOLECULE_METRICS, MOLECULE),
    MetricRow("likelihood", TOKENS, ("bits_per_token",), WALK, variant="tokens"),
    MetricRow("exercises", tuple(SPACES), ("foreseen_answers",), ANSWERS),
    MetricRow("field", tuple(SPACES), ("rollouts", "calibration_of_rollouts", "statistics_of_rollouts"), FIELD),
    MetricRow("series", tuple(SPACES), ("foreseen_series",), SERIES),
    MetricRow(
        "feature_metrics",
        tuple(SPACES),
        ("items_valid", "items_distance", "items_diversity", "items_near_copies"),
        WALK,
    ),
    MetricRow("interactions", ("bags",), ("recommendations",), HISTORY),
    MetricRow("table", tuple(SPACES), ("table_fidelity", "table_privacy", "table_use"), ROW),
)


def by_name(rows: Sequence[Any], name: str) -> Any:
    return next(r for r in rows if r.name == name)


def row_for(modality: ModalityRow, family: str) -> FamilyRow:
    """The row of a family for a modality: that of whole sequences, bags or tables, where it learns these."""
    rows = [r for r in FAMILIES if r.name == family]
    own = {"interactions": "bags", "table": "table"}
    variant = "records" if modality.families == SEQUENCES else own.get(modality.name, "")
    return next((r for r in rows if r.variant == variant), rows[0])


def unknown_field(file: Path) -> None:
    """Adds an unknown field to a JSON file."""
    saved = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**saved, "colour": "blue"}), encoding="utf-8")


def equal(a: Any, b: Any) -> bool:
    """Values of a modality: texts, arrays or sounds. Those of float arrays are equal up to rounding, since they are
    divided by a deviation."""
    if isinstance(a, np.ndarray) and a.dtype.kind == "f":
        return bool(a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-6))
    if isinstance(a, Sound) and isinstance(b, Sound):
        return a.rate == b.rate and bool(np.array_equal(a.samples, b.samples))
    return bool(np.array_equal(a, b)) if isinstance(a, np.ndarray) else bool(a == b)


def enliven(modules: Mapping[str, torch.nn.Module], seed: int = 0) -> None:
    """Replaces initial zeros, so that every part influences the output."""
    torch.manual_seed(seed)
    for module in modules.values():
        for p in module.parameters():
            if not bool(p.any()):
                torch.nn.init.normal_(p, std=0.3)


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
