"""The verb `data`: report on data as training would read it."""

from __future__ import annotations

import html
import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afresh.core import CondSpec, Encoder, Item, ItemKind, Refused, Space
from afresh.core.plural import counted
from afresh.data.advice import Advice, advise
from afresh.data.duplicates import near_duplicates
from afresh.data.files import walk, zip_names
from afresh.data.image.grid import image_grid
from afresh.data.image.kind import png_bytes
from afresh.data.prepare import Prepared, facts_of, prepare
from afresh.data.refusals import refusal_lines
from afresh.data.storage.files import replace_file
from afresh.data.storage.folders import write_folder
from afresh.data.text.languages import LICENCE, LICENCE_SUFFIXES
from afresh.engine.evaluation.report import Sample, Section, render
from afresh.engine.sampling.samples import images_of, png_html, preview_wav
from afresh.verbs.base_advice import base_advice, secret_advice
from afresh.verbs.choose_codec import data_as_trained

IMAGES, TEXTS = 24, 4  # examples on the page
EXCERPT = 600  # characters of a text
EXAMPLES = "examples.json"  # in a folder of examples
SHOWN = 6  # of anything listed for a person


@dataclass(frozen=True)
class NearItems:
    """Two near duplicates; `crosses` is true if one is in the training split and the other is held out."""

    first: str
    second: str
    likeness: float
    crosses: bool


@dataclass(frozen=True)
class Look:
    """A report on data: items, sizes, labels, duplicates, licences and advice."""

    prepared: Prepared
    near: tuple[NearItems, ...] | None  # near duplicates; None if they were not searched
    licences: Mapping[str, str]  # file -> its first line
    advice: tuple[Advice, ...] = ()

    def __repr__(self) -> str:
        p = self.prepared
        train = counted(p.train_count, "item")
        return f"Look({str(p.path)!r}: {p.modality}, {train} to train, {p.heldout_count:,} held out)"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        """The report in a notebook, with examples."""
        images = images_of(self.prepared.encoder, [i.value for i in self.examples])
        shown = png_html(png_bytes(np.asarray(image_grid(images))), "examples") if images else ""
        return f"<pre>{html.escape(str(self))}</pre>{shown}"

    @property
    def items(self) -> tuple[Item, ...]:
        return (*self.prepared.train_items, *self.prepared.heldout_items)

    @property
    def examples(self) -> list[Item]:
        """A few training items at even intervals."""
        items = self.prepared.train_items
        count = min(len(items), TEXTS if self.prepared.kind.view == "text" else IMAGES)
        return [items[i * len(items) // count] for i in range(count)]

    def json(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        p = self.prepared
        near = None if self.near is None else [vars(n) for n in self.near]
        return {
            "path": str(p.path),
            "modality": p.modality,
            "why": p.why,
            "train": p.train_count,
            "heldout": p.heldout_count,
            "bytes": p.train.bytes + p.heldout.bytes,
            "sizes": sizes(self.items, p.kind),
            "space": describe_space(p.encoder.space),
            "options": p.options.model_dump(mode="json"),
            "labels": label_counts(self.items),
            "numbers": number_ranges(self.items),
            "captions": sum(i.caption is not None for i in self.items),
            "conditions": {name: part.kind for name, part in p.encoder.conds.items()},
            "exact_duplicates": [vars(r) for r in p.duplicates],
            "near_duplicates": near,
            "advice": [vars(a) for a in self.advice],
            "licences": dict(self.licences),
            "refused": [vars(r) for r in p.refused],
            "notes": list(p.notes),
            "split": p.split_hash,
        }

    def lines(self) -> list[str]:
        """The report as lines of text."""
        p = self.prepared
        size = p.train.bytes + p.heldout.bytes
        out = [
            f"{p.path}: {p.modality} ({p.why})",
            f"{counted(p.train_count + p.heldout_count, p.kind.name, p.kind.plural)}: {p.train_count:,} to train, "
            f"{p.heldout_count:,} held out, {size:,} bytes",
            f"sizes: {describe_sizes(sizes(self.items, p.kind))}",
            f"one example for the model: {describe_space(p.encoder.space)}",
            *label_lines(label_counts(self.items), p.encoder.conds),
            *(f"number {k}: {describe_numbers(v)}" for k, v in number_ranges(self.items).items()),
        ]
        captions = sum(i.caption is not None for i in self.items)
        if captions:
            out.append(f"captions: of {counted(captions, 'item')}")
        out += duplicate_lines(p.duplicates, self.near)
        out += [f"advice: {a.text}" for a in self.advice]
        return out + licence_lines(self.licences) + refused_lines(p.refused) + [f"note: {n}" for n in p.notes]

    def save(self, path: str | Path) -> None:
        """Write the report as an HTML page with examples. Raises UserError if it cannot be written."""
        p = self.prepared
        facts = [tuple(line.split(": ", 1)) for line in self.lines() if ": " in line and not line.startswith("note")]
        section = Section(
            title=p.path.name,
            subtitle="The data as training would read it.",
            data=[(k, v) for k, v in facts],
            data_examples=[example(i, p.encoder) for i in self.examples],
            notes=list(p.notes),
        )
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, render(f"{p.path.name}: data", [section]).encode("utf-8", "backslashreplace"))


@dataclass(frozen=True)
class ExampleFiles:
    """An item in a folder of examples: the names of its files, and its text. What it has no form of is None."""

    caption: str
    picture: str | None = None
    sound: str | None = None
    text: str | None = None


def write_examples(folder: Path, found: Look, replace: bool = False) -> None:
    """Write a few items as training sees them into a folder: pictures as PNG, sounds as WAV, and `examples.json`, which
    lists them and holds the texts. With `replace`, it takes the place of a folder."""
    listed, files = [], dict[str, bytes]()
    for number, item in enumerate(found.examples):
        sample = example(item, found.prepared.encoder)
        picture = sound = None
        if sample.png is not None:
            picture = f"{number:03d}.png"
            files[picture] = sample.png
        if sample.wav is not None:
            sound = f"{number:03d}.wav"
            files[sound] = sample.wav
        listed.append(asdict(ExampleFiles(sample.caption, picture, sound, sample.text)))
    files[EXAMPLES] = json.dumps(listed).encode()
    write_folder(folder, files.items(), replace)


def read_examples(folder: Path) -> list[ExampleFiles]:
    """What `write_examples` wrote; nothing where there is no such folder."""
    try:
        return [ExampleFiles(**entry) for entry in json.loads((folder / EXAMPLES).read_bytes())]
    except FileNotFoundError:
        return []


def look(
    path: Path,
    modality: str | None = None,
    options: Mapping[str, Any] | None = None,
    validation: Path | None = None,
    near: bool = True,
) -> Look:
    """Read, split and encode `path` as training would. Raises UserError if the data is not usable."""
    prepared = prepare(path, modality, data_as_trained(path, modality, options or {}), validation)
    items = [*prepared.train_items, *prepared.heldout_items]
    first_heldout = len(prepared.train_items)
    found = near_duplicates(items, prepared.kind) if near else None
    advice = (*secret_advice(prepared), *base_advice(prepared), *advise(facts_of(prepared, found)))
    if found is None:
        return Look(prepared, None, licences(path), advice)
    pairs = tuple(
        NearItems(
            items[q.first].source, items[q.second].source, round(q.similarity, 4), q.first < first_heldout <= q.second
        )
        for q in found
    )
    return Look(prepared, pairs, licences(path), advice)


def licences(path: Path) -> dict[str, str]:
    """The licence files by name, each with its first line that is not blank."""
    found: dict[str, str] = {}
    if path.is_file():
        names = [n for n in zip_names(path) if is_licence(n)] if path.suffix.lower() == ".zip" else []
        return dict.fromkeys(names, "")
    for file in walk(path)[0]:
        if is_licence(file.name):
            with file.path.open("rb") as f:
                text = f.read(2000).decode("utf-8", "replace")
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            found[file.name] = lines[0][:80] if lines else ""
    return found


def is_licence(name: str) -> bool:
    path = Path(name)
    return path.suffix.lower() in LICENCE_SUFFIXES and LICENCE.fullmatch(path.name) is not None


# --------------------------------------------------------------------------- counts


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"count": len(values), "least": min(values), "median": statistics.median(values), "most": max(values)}


def sizes(items: Sequence[Item], kind: ItemKind) -> dict[str, Any]:
    """{unit: sizes}: the range of numbers (characters, seconds), or the number of items of each size (28x28x1
    pixels)."""
    every = [kind.size(i.value) for i in items]
    numbers = [size for size in every if not isinstance(size, str)]
    return {kind.unit: spread(numbers) if numbers else dict(Counter(map(str, every)).most_common())}


def label_counts(items: Sequence[Item]) -> dict[str, dict[str, int]]:
    """{label: {class: count}}, the most frequent first. Items without the label are counted under the empty name."""
    names = sorted({k for i in items for k in i.labels})
    return {name: dict(Counter(i.labels.get(name, "") for i in items).most_common()) for name in names}


def number_ranges(items: Sequence[Item]) -> dict[str, dict[str, float]]:
    names = sorted({k for i in items for k in i.numbers})
    return {name: spread([i.numbers[name] for i in items if name in i.numbers]) for name in names}


# --------------------------------------------------------------------------- words


def describe_sizes(found: Mapping[str, Any]) -> str:
    """The result of `sizes` as text."""
    ((unit, counts),) = found.items()
    if "median" in counts:
        least, median, most = (amount(counts[name]) for name in ("least", "median", "most"))
        return f"{least} to {most} {unit}, median {median}"
    return ", ".join(f"{size} {unit}" + (f" ({n:,})" if len(counts) > 1 else "") for size, n in counts.items())


def amount(value: float) -> str:
    """Format whole numbers with separators of thousands, and others with three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def describe_numbers(found: Mapping[str, float]) -> str:
    items = counted(int(found["count"]), "item")
    return f"{found['least']:,.4g} to {found['most']:,.4g}, median {found['median']:,.4g} ({items})"


def describe_space(space: Space) -> str:
    shape = " x ".join(map(str, space.shape))
    if space.kind == "tokens":
        window = f"a window of {shape} tokens" if space.stream else f"{shape} tokens"
        return f"{window} from a vocabulary of {space.vocab[0]:,}"
    return f"a field of {shape} numbers with standard deviation {space.std:.2g}"


def label_lines(labels: Mapping[str, Mapping[str, int]], conds: CondSpec) -> list[str]:
    out = []
    for name, counts in labels.items():
        shown = ", ".join(f"{c or '(none)'} {n:,}" for c, n in list(counts.items())[:20])
        more = f" and {len(counts) - 20:,} more" if len(counts) > 20 else ""
        use = "" if name in conds else "; not used as a condition, since it does not distinguish items"
        out.append(f"{name}: {counted(len(counts), 'class', 'classes')}: {shown}{more}{use}")
    return out


def duplicate_lines(exact: Sequence[Refused], near: Sequence[NearItems] | None) -> list[str]:
    out = [f"exact duplicates: {len(exact):,}, left out" if exact else "exact duplicates: none"]
    out += [f"  {r.source}: {r.reason}" for r in exact[:SHOWN]]
    if near is None:
        return [*out, "near duplicates: not searched"]
    crossing = [n for n in near if n.crosses]
    out.append(
        f"near duplicates: {len(near):,}, not removed; {len(crossing):,} cross the split"
        if near
        else "near duplicates: none"
    )
    for n in sorted(near, key=lambda n: (not n.crosses, -n.likeness))[:SHOWN]:
        where = " (crosses the split)" if n.crosses else ""
        out.append(f"  {n.second} is {math.floor(100 * n.likeness)}% similar to {n.first}{where}")
    return out


def licence_lines(found: Mapping[str, str]) -> list[str]:
    if not found:
        return ["licence files: none; check yourself whether you may use this data"]
    shown = [f"licence file: {name}{f' ({head})' if head else ''}" for name, head in list(found.items())[:SHOWN]]
    return shown + ([f"and {len(found) - SHOWN:,} more licence files"] if len(found) > SHOWN else [])


def refused_lines(refused: Sequence[Refused]) -> list[str]:
    """The refused inputs by kind and reason, what matters most first."""
    if not refused:
        return ["refused: nothing"]
    return [f"refused: {counted(len(refused), 'input')}", *(f"  {line}" for line in refusal_lines(refused, 2 * SHOWN))]


def example(item: Item, encoder: Encoder) -> Sample:
    """An item in the form in which the page shows it."""
    words = [*item.labels.values(), *(f"{k} {v:g}" for k, v in item.numbers.items()), item.caption or ""]
    caption = ", ".join(w for w in words if w)
    preview, wav = encoder.kind.preview(item.value), preview_wav(encoder, item.value)
    if preview.image is not None:
        return Sample(png=png_bytes(preview.image), caption=", ".join(filter(None, (caption, preview.text))), wav=wav)
    return Sample(text=excerpt(preview.text or ""), caption=caption or item.source, wav=wav)


def excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]} ..."
