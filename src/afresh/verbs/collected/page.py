"""The page of a data set: what became of all that was found, what each rule did, duplicates, a map, and whose it is.

It is one file that loads nothing and has no scripts. Texts and names are texts, never HTML.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from afresh.core import Sound, UserError, registry
from afresh.core.plural import counted, size
from afresh.core.safe_text import visible, visible_line
from afresh.data.collected import MODALITIES
from afresh.data.storage.files import replace_file
from afresh.engine.pages.render import data_uri, render_page
from afresh.services.collect.cards import asked
from afresh.services.collect.record import UNKNOWN
from afresh.verbs.collected.map import Map, map_of
from afresh.verbs.collected.survey import OUTSIDE, SHOWN, STAGES, DuplicatePair, Judged, Survey, survey
from afresh.verbs.inspect_data import amount

REPORT = "report.html"
LENGTH = 420  # characters of a text that are shown
SIDE = 176  # pixels of a thumbnail
SECONDS = 6.0  # of a sound that can be played
BINS = 24  # of a histogram
SCORES = 12  # whose histograms are shown
COLOURS = 6
MANY = 15  # rows of a table
PICTURES = 160  # on the map
COMPARED = 4_000  # characters of two texts whose differences are shown


def write_page(dataset: Path, to: Path | None = None) -> Path:
    """Write the page into the data set, or elsewhere; returns its path. Raises UserError if it is no data set,
    or if the page cannot be written."""
    target = to or dataset / REPORT
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, render(survey(dataset)).encode("utf-8", "backslashreplace"))
    return target


def render(found: Survey) -> str:
    """The page as HTML."""
    outside = [row for j in found.judged if j.stage in ("clean", "leakage") for row in j.samples[:OUTSIDE]]
    ranked = sorted((j for j in found.judged if j.stage != "duplicates"), key=lambda j: (-j.left_out, -j.changed))
    mapped = map_of(found.path, found.kept, outside[: 2 * OUTSIDE])
    return render_page(
        Path(__file__).with_name("templates") / "collected.html.j2",
        title=visible_line(found.path.resolve().name),
        name=quote(visible_line(str(found.path))),
        facts=found.facts,
        personal=found.personal,
        manifest=found.manifest,
        stages=found.stages,
        words={"found": "found", **STAGES},
        rules=[(j, *items_of_rule(j, found, i)) for i, j in enumerate(ranked)],
        pairs=[pair_view(p, found.path) for p in found.pairs],
        repeated=sum(j.left_out for j in found.judged if j.stage == "duplicates"),
        map=None if mapped is None else map_view(mapped, found.path),
        charts=charts(found),
        languages=largest(found.facts.languages),
        sources=sorted(found.facts.sources.items(), key=lambda pair: (-pair[1][0], pair[0]))[: 4 * MANY],
        unknown=UNKNOWN,
        number="{:,}".format,
        **{f.__name__: f for f in (asked, counted, percent, quote, size, visible_line)},
    )


# --------------------------------------------------------------------------- items as they are shown


def item_view(folder: Path, row: Mapping[str, Any]) -> dict[str, str]:
    """An item, or what was left out, as a person sees or hears it: texts cut short, pictures made small, sounds that
    can be played."""
    image, sound = media(folder, row)
    return {
        "text": cut((row.get("text") or row.get("excerpt") or "").strip()),
        "image": image,
        "sound": sound,
        "where": visible_line(row["where"])[-120:] or "(not kept)",
        "reason": visible_line(row.get("reason") or "")[:300],
    }


def media(folder: Path, row: Mapping[str, Any]) -> tuple[str, str]:
    """A thumbnail and a sound as data: URIs, each empty if none exists."""
    if not row.get("file"):
        return "", ""
    try:
        items = registry.modality(MODALITIES.get(row["kind"], (row["kind"],))[0]).kind
        preview = items.preview(items.decode((folder / row["file"]).read_bytes()))
    except (OSError, ValueError, UserError):
        return "", ""
    return thumbnail(preview.image), playable(preview.sound)


def thumbnail(pixels: Any) -> str:
    """Pixels (H, W, C) as a small WebP in a data: URI."""
    if pixels is None:
        return ""
    from PIL import Image

    picture = Image.fromarray(np.asarray(pixels).squeeze()).convert("RGB")
    grown = max(1, min(SIDE // max(picture.size), 8))
    if grown > 1:
        picture = picture.resize((picture.width * grown, picture.height * grown), Image.Resampling.NEAREST)
    picture.thumbnail((2 * SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    return data_uri("image/webp", buffer.getvalue())


def playable(sound: Sound | None) -> str:
    """The beginning of a sound as a data: URI."""
    from afresh.data.audio.kind import SOUND

    if sound is None:
        return ""
    start = Sound(sound.samples[: int(SECONDS * sound.rate)], sound.rate)
    return data_uri("audio/wav", SOUND.encode(start))


def cut(text: str) -> str:
    """The beginning of a text."""
    shown = visible(text)
    return shown if len(shown) <= LENGTH else f"{shown[:LENGTH]} …"


def differences(before: str, after: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Two texts as pieces, each with whether the other lacks it. What is equal is shortened alike in both."""
    old, new = (re.findall(r"\s+|\w+|[^\w\s]", visible(t[:COMPARED])) for t in (before, after))
    codes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    left: list[tuple[str, bool]] = []
    right: list[tuple[str, bool]] = []
    room = 2 * LENGTH
    for i, (kind, a, b, c, d) in enumerate(codes):
        gone, come = "".join(old[a:b])[:room], "".join(new[c:d])[:room]
        if kind == "equal":
            gone = come = shortened(gone, first=i == 0, last=i == len(codes) - 1)
        left += [(gone, kind != "equal")] if gone else []
        right += [(come, kind != "equal")] if come else []
        room -= max(len(gone), len(come))
        if room <= 0:
            break
    return left, right


def shortened(text: str, first: bool, last: bool) -> str:
    """What is equal in two texts, without its middle: its end before a difference, and its start after one."""
    if len(text) <= 160:
        return text
    return f"{'' if first else text[:80]} … {'' if last and not first else text[-80:]}"


# --------------------------------------------------------------------------- the parts of the page


def percent(part: int, whole: int) -> str:
    share = 100 * part / whole if whole else 0.0
    return f"{share:.0f}%" if share >= 10 or share == int(share) else f"{share:.1f}%"


def items_of_rule(j: Judged, found: Survey, number: int) -> tuple[list[Any], list[Any], list[Any]]:
    """What a rule left out, what it kept, and what it changed: (place, text before, text after) in pieces."""
    unlike = {row["excerpt"][:80] or row["file"] or row["where"]: row for row in reversed(j.samples)}
    left = list(reversed(unlike.values()))[:SHOWN]
    kinds = Counter(row["kind"] for row in left)
    kind = kinds.most_common(1)[0][0] if kinds else ""
    alike = [row for row in found.kept if row["kind"] == kind] if j.stage == "clean" and j.left_out else []
    start = number * SHOWN % max(1, len(alike))
    kept = [*alike[start:], *alike[:start]][: min(SHOWN, len(left))]
    examples = []
    for e in j.examples[:SHOWN]:
        pieces = differences(e.before, e.after) if e.before else ([], [(cut(e.after), False)])
        examples.append((visible_line(e.where)[-120:], *pieces))
    return [item_view(found.path, row) for row in left], [item_view(found.path, row) for row in kept], examples


def pair_view(pair: DuplicatePair, folder: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Why something was left out, the item that it repeats, and what was left out."""
    first, second = pair.first.get("text"), pair.second.get("text")
    if first is not None and second is not None and pair.rule == "near":
        before, after = differences(first, second)
    else:
        before, after = ([(cut(t or ""), False)] if t else [] for t in (first, second))
    kept, left = ({**item_view(folder, r), "pieces": p} for r, p in ((pair.first, before), (pair.second, after)))
    return visible_line(pair.reason)[:200], kept, left


def map_view(m: Map, folder: Path) -> dict[str, Any]:
    """The map: a dot an item, or a small picture where there are few, in colours by what a person chooses."""
    pictures = bool(m.rows and m.rows[0].get("file"))
    palettes = {}
    for name in () if pictures else ("source", "language", "licence", "split"):
        values = Counter(row[name] for row, kept in zip(m.rows, m.kept, strict=True) if kept and row[name])
        if len(values) > 1:
            palettes[name] = [v for v, _ in values.most_common(COLOURS - (len(values) > COLOURS))]
    dots: list[dict[str, Any]] = []
    for row, (x, y), kept in zip(m.rows, m.points, m.kept, strict=True):
        colours = (
            f"{name}-{named.index(row[name]) + 1 if row[name] in named else COLOURS}"
            for name, named in palettes.items()
        )
        why = "" if kept else f"left out: {visible_line(row['reason'])[:120]}\n"
        words = visible_line((row.get("text") or row.get("excerpt") or "")[:90])
        dots.append(
            {
                "x": f"{30 + 940 * x:.1f}",
                "y": f"{30 + 540 * (1 - y):.1f}",
                "kept": kept,
                "classes": " ".join(colours) if kept else "outside",
                "about": f"{why}{visible_line(row['where'])[-80:]}\n{words}",
                "image": media(folder, row)[0] if pictures and len(dots) < PICTURES else "",
            }
        )
    outliers = [(item_view(folder, m.rows[i]), dots[i], f"{far:.1f}") for i, far in m.outliers]
    return {"dots": dots, "outliers": outliers, "palettes": palettes, "kept": sum(m.kept), "kind": m.rows[0]["kind"]}


def charts(found: Survey) -> list[dict[str, Any]]:
    """Histograms of the sizes by kind and of the scores."""
    sizes: dict[str, list[float]] = defaultdict(list)
    scores: dict[str, list[float]] = defaultdict(list)
    for row in found.measured:
        sizes[row["kind"]].append(row["bytes"])
        for name, value in row["scores"] or ():
            if value is not None and math.isfinite(value):
                scores[name].append(value)
    out = [histogram(f"bytes of {k}", v, log=True) for k, v in sorted(sizes.items(), key=lambda pair: -len(pair[1]))]
    named = sorted(scores.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:SCORES]
    out += [histogram(visible_line(k).replace("_", " "), v) for k, v in named if min(v) < max(v)]
    return out


def histogram(name: str, values: Sequence[float], log: bool = False) -> dict[str, Any]:
    """The counts of a histogram between the values that all but a few lie between; those are in the outermost ones."""
    numbers = np.asarray(values, np.float64)
    low, high = np.quantile(numbers, [0.005, 0.995]) if len(numbers) > 200 else (numbers.min(), numbers.max())
    log = log and low > 0 and high > 20 * low
    scaled = np.log(np.maximum(numbers, low)) if log else numbers
    ends = (math.log(low), math.log(high)) if log else (low, high)
    if ends[0] == ends[1]:
        ends = (ends[0] - 0.5, ends[1] + 0.5)
    counts, _ = np.histogram(np.clip(scaled, *ends), BINS, ends)
    return {
        "name": name,
        "counts": counts.tolist(),
        "low": amount(float(low)),
        "high": amount(float(high)),
        "middle": amount(float(np.median(numbers))),
    }


def largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Counts, the largest first, and all others together."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    rest = sum(n for _, n in ranked[MANY:])
    return [*ranked[:MANY], *([(f"{len(ranked) - MANY} others", rest)] if rest else [])]
