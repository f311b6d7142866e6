"""The page of a data set: what became of all that was found, what each rule did, duplicates, a map, and whose it is.

It is one file that loads nothing and has no scripts. Texts and names are texts, never HTML.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
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
from afresh.verbs.collected.survey import OUTSIDE, SHOWN, STAGES, Judged, Survey, survey

REPORT = "report.html"
LENGTH = 420  # characters of a text that are shown
SIDE = 176  # pixels of a thumbnail
SECONDS = 6.0  # of a sound that can be played
BINS = 24  # of a histogram
SCORES = 12  # whose histograms are shown
COLOURS = 6
MANY = 15  # rows of a table
COMPARED = 4_000  # characters of two texts whose differences are shown


def write_page(dataset: Path, to: Path | None = None) -> Path:
    """Write the page into the data set, or elsewhere; returns its path. Raises UserError if the folder is no data set,
    or if the page cannot be written."""
    target = to or dataset / REPORT
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, render(survey(dataset)).encode("utf-8", "backslashreplace"))
    return target


def render(found: Survey) -> str:
    """The page as HTML."""
    show = ItemViews(found.path)
    outside = [row for j in found.judged if j.stage in ("clean", "leakage") for row in j.samples[:OUTSIDE]]
    ranked = sorted((j for j in found.judged if j.stage != "duplicates"), key=lambda j: (-j.left_out, -j.changed))
    mapped = map_of(found.path, found.kept, outside[: 2 * OUTSIDE])
    return render_page(
        Path(__file__).with_name("templates") / "collected.html.j2",
        title=visible_line(found.path.resolve().name),
        facts=facts(found),
        warnings=warnings(found),
        funnel=funnel(found),
        rules=[rule_view(j, found, show, i) for i, j in enumerate(ranked)],
        pairs=[pair_view(p, show) for p in found.pairs],
        repeated=sum(j.left_out for j in found.judged if j.stage == "duplicates"),
        map=None if mapped is None else map_view(mapped, show),
        charts=charts(found),
        languages=bars(found.facts.languages),
        licences=licences(found),
        sources=sources(found),
        name=quote(visible_line(str(found.path))),
    )


# --------------------------------------------------------------------------- items as they are shown


class ItemViews:
    """Items as a person sees or hears them: texts cut short, pictures made small, sounds that can be played."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def item(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """An item, or what was left out, by its row."""
        words = (row.get("text") or row.get("excerpt") or "").strip()
        image, sound = self.media(row["kind"], row.get("file") or "")
        return {
            "text": cut(words),
            "image": image,
            "sound": sound,
            "where": visible_line(row["where"])[-120:] or "(not kept)",
            "reason": visible_line(row.get("reason") or "")[:300],
            "empty": not (words or image or sound),
        }

    def media(self, kind: str, file: str) -> tuple[str, str]:
        """A thumbnail and a sound as data: URIs, each empty if there is none."""
        if not file:
            return "", ""
        try:
            items = registry.modality(MODALITIES.get(kind, (kind,))[0]).kind
            preview = items.preview(items.decode((self.folder / file).read_bytes()))
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


def facts(found: Survey) -> list[tuple[str, str]]:
    f = found.facts
    out = [
        ("items", f"{f.items:,}"),
        ("of what was found", percent(f.items, found.stages[0].remain)),
        ("kinds", ", ".join(f"{k} {n:,}" for k, n in f.kinds.most_common()) or "none"),
        ("size", size(f.bytes)),
        ("held out", f"{f.splits['validation']:,}"),
        ("licences by bytes", str(f.ledger)),
    ]
    return [(k, visible_line(v)) for k, v in out]


def percent(part: int, whole: int) -> str:
    share = 100 * part / whole if whole else 0.0
    return f"{share:.0f}%" if share >= 10 or share == int(share) else f"{share:.1f}%"


def warnings(found: Survey) -> list[str]:
    """What a person should know before anything is learnt."""
    f, out = found.facts, []
    if unknown := f.ledger.unknown:
        out.append(
            f"The licences of {counted(unknown.items, 'item')} ({percent(unknown.bytes, f.bytes)} of the bytes) are "
            "unknown. A model that learns from them is not exported unless that is accepted by name."
        )
    if f.ledger.without_consent:
        out.append(f"No consent is known for {counted(f.ledger.without_consent, 'item')} that show persons.")
    out += [f"{s['place']} was not collected to its end." for s in found.manifest["sources"] if not s["finished"]]
    common = found.manifest.get("leakage", {})
    out += [
        f"In common with {place}: {', '.join(f'{n:,} {how}' for how, n in counts.items())}."
        for place, counts in common.items()
        if counts
    ]
    return [visible_line(w) for w in out]


def funnel(found: Survey) -> list[dict[str, Any]]:
    """The stages: the share before and after each, in percent of the width."""
    stages = found.stages
    whole = stages[0].remain or 1
    before, out = 100.0, []
    for s in stages:
        now = 100 * s.remain / whole
        out.append(
            {
                "name": "found" if s.name == "found" else STAGES[s.name],
                "left_out": f"{s.left_out:,}" if s.left_out else "",
                "share": percent(s.left_out, whole) if s.left_out else "",
                "remain": f"{s.remain:,}",
                "shape": f"{50 - before / 2:.2f},0 {50 + before / 2:.2f},0 {50 + now / 2:.2f},40 {50 - now / 2:.2f},40",
                "lost": lost(before, now),
            }
        )
        before = now
    return out


def lost(before: float, now: float) -> list[str]:
    """The two triangles of what is left out at a stage."""
    if before - now < 0.05:
        return []
    left = f"{50 - before / 2:.2f},0 {50 - now / 2:.2f},40 {50 - before / 2:.2f},40"
    right = f"{50 + before / 2:.2f},0 {50 + now / 2:.2f},40 {50 + before / 2:.2f},40"
    return [left, right]


def rule_view(j: Judged, found: Survey, show: ItemViews, number: int) -> dict[str, Any]:
    """A rule with what it left out beside what it kept, and what it changed."""
    unlike = {row["excerpt"][:80] or row["file"] or row["where"]: row for row in reversed(j.samples)}
    left = list(reversed(unlike.values()))[:SHOWN]
    kinds = Counter(row["kind"] for row in left)
    kind = kinds.most_common(1)[0][0] if kinds else ""
    alike = [row for row in found.kept if row["kind"] == kind] if j.stage == "clean" and j.left_out else []
    start = number * SHOWN % max(1, len(alike))
    kept = [*alike[start:], *alike[:start]][: min(SHOWN, len(left))]
    examples = []
    for e in j.examples[:SHOWN]:
        before, after = differences(e.before, e.after) if e.before else ([], [(cut(e.after), False)])
        examples.append({"where": visible_line(e.where)[-120:], "before": before, "after": after})
    named = j.stage == "clean"
    return {
        "name": visible_line(j.rule),
        "stage": STAGES[j.stage],
        "about": visible_line(j.about),
        "left_out": f"{j.left_out:,}" if j.left_out else "",
        "share": percent(j.left_out, j.seen) if j.seen and j.left_out else "",
        "width": f"{100 * j.left_out / j.seen:.1f}" if j.seen else "0",
        "seen": f"{j.seen:,}" if j.seen else "",
        "changed": f"{j.changed:,}" if j.changed else "",
        "left": [show.item(row) for row in left],
        "kept": [show.item(row) for row in kept],
        "examples": examples,
        "switch": named,
    }


def pair_view(pair: Any, show: ItemViews) -> dict[str, Any]:
    first, second = show.item(pair.first), show.item(pair.second)
    texts = pair.first.get("text"), pair.second.get("text")
    if texts[0] is not None and texts[1] is not None and pair.rule == "near":
        before, after = differences(texts[0], texts[1])
    else:
        before, after = ([(cut(t or ""), False)] if t else [] for t in texts)
    return {
        "rule": pair.rule,
        "reason": visible_line(pair.reason)[:200],
        "first": {**first, "pieces": before},
        "second": {**second, "pieces": after},
    }


def map_view(m: Map, show: ItemViews) -> dict[str, Any]:
    """The map: a dot an item, or a small picture where there are few, in colours by what a person chooses."""
    pictures = bool(m.rows and m.rows[0].get("file"))
    palettes = {}
    for name in () if pictures else ("source", "language", "licence", "split"):
        values = Counter(row[name] for row, kept in zip(m.rows, m.kept, strict=True) if kept and row[name])
        if len(values) > 1:
            named = [v for v, _ in values.most_common(COLOURS - (len(values) > COLOURS))]
            palettes[name] = named
    dots = []
    for row, (x, y), kept in zip(m.rows, m.points, m.kept, strict=True):
        classes = [
            f"{name}-{named.index(row[name]) + 1 if row[name] in named else COLOURS}"
            for name, named in palettes.items()
            if kept
        ]
        about = visible_line(row["where"])[-80:]
        words = visible_line((row.get("text") or row.get("excerpt") or "")[:90])
        why = "" if kept else f"left out: {visible_line(row['reason'])[:120]}\n"
        dots.append(
            {
                "x": f"{30 + 940 * x:.1f}",
                "y": f"{30 + 540 * (1 - y):.1f}",
                "kept": kept,
                "classes": " ".join(classes),
                "about": f"{why}{about}\n{words}",
            }
        )
    if pictures:
        for dot, row in list(zip(dots, m.rows, strict=True))[:160]:
            dot["image"] = show.media(row["kind"], row.get("file") or "")[0]
    outliers = [
        {**show.item(m.rows[i]), "far": f"{far:.1f}", "x": dots[i]["x"], "y": dots[i]["y"], "number": n}
        for n, (i, far) in enumerate(m.outliers, 1)
    ]
    return {
        "dots": dots,
        "outliers": outliers,
        "legends": [
            {
                "name": name,
                "values": [
                    *((i, visible_line(v)[-60:]) for i, v in enumerate(named, 1)),
                    *([(COLOURS, "others")] if len(named) == COLOURS - 1 else []),
                ],
            }
            for name, named in palettes.items()
        ],
        "items": sum(m.kept),
        "outside": len(m.kept) - sum(m.kept),
        "kind": m.rows[0]["kind"],
    }


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
    """Bars of a histogram between the values that all but a few lie between; those are in the outermost bars."""
    numbers = np.asarray(values, np.float64)
    low, high = np.quantile(numbers, [0.005, 0.995]) if len(numbers) > 200 else (numbers.min(), numbers.max())
    log = log and low > 0 and high > 20 * low
    scaled = np.log(np.maximum(numbers, low)) if log else numbers
    ends = (math.log(low), math.log(high)) if log else (low, high)
    if ends[0] == ends[1]:
        ends = (ends[0] - 0.5, ends[1] + 0.5)
    counts, _ = np.histogram(np.clip(scaled, *ends), BINS, ends)
    most = max(1, int(counts.max()))
    width = 240 / BINS
    return {
        "name": name,
        "bars": [
            {"x": f"{i * width:.1f}", "width": f"{width - 1.5:.1f}", "y": f"{80 - 76 * c / most:.1f}",
             "height": f"{76 * c / most:.1f}"}
            for i, c in enumerate(counts.tolist())
        ],
        "low": short(low),
        "high": short(high),
        "middle": short(float(np.median(numbers))),
        "items": f"{len(numbers):,}",
    }  # fmt: skip


def short(value: float) -> str:
    """A number with few digits."""
    value = float(value)
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def bars(counts: Mapping[str, int]) -> list[dict[str, str]]:
    """Counts as bars, the largest first."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    most, whole = (ranked[0][1], sum(counts.values())) if ranked else (1, 1)
    rest = sum(n for _, n in ranked[MANY:])
    shown = [*ranked[:MANY], *([(f"{len(ranked) - MANY} others", rest)] if rest else [])]
    return [
        {
            "name": visible_line(k),
            "count": f"{n:,}",
            "share": percent(n, whole),
            "width": f"{min(100, 100 * n / most):.0f}",
        }
        for k, n in shown
    ]


def licences(found: Survey) -> list[dict[str, str]]:
    whole = found.facts.bytes or 1
    return [
        {
            "licence": visible_line(s.licence),
            "items": f"{s.items:,}",
            "bytes": size(s.bytes),
            "share": percent(s.bytes, whole),
            "width": f"{100 * s.bytes / whole:.1f}",
            "asks": "nobody knows" if s.licence == UNKNOWN else asked(s.licence),
            "unknown": "yes" if s.licence == UNKNOWN else "",
        }
        for s in found.facts.ledger.shares
    ]


def sources(found: Survey) -> list[dict[str, Any]]:
    out = []
    ranked: Iterable[tuple[str, tuple[int, set[str]]]] = sorted(
        found.facts.sources.items(), key=lambda pair: (-pair[1][0], pair[0])
    )
    for place, (count, said) in list(ranked)[: 4 * MANY]:
        out.append(
            {
                "place": visible_line(place),
                "items": f"{count:,}",
                "said": [visible_line(s) for s in sorted(said)],
                "quoted": quote(visible_line(place)),
            }
        )
    return out
