"""The report of one or several runs: an HTML file, the same facts as JSON, and a model card in Markdown.

Nothing is measured here: every number comes from a `Section`.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from afresh.core import Question, Score, UserError
from afresh.core.safe_text import visible
from afresh.data.storage.files import replace_file
from afresh.engine.evaluation.curves import Curves, dash_css, draw_curves, draw_score, number, thin
from afresh.engine.evaluation.score_descriptions import words_of
from afresh.engine.evaluation.verdict import Verdict
from afresh.engine.pages.render import data_uri, render_page

Fact = tuple[str, str | int | float]

TEMPLATE = Path(__file__).with_name("templates") / "report.html.j2"
PNG = b"\x89PNG\r\n\x1a\n"
SMALL = 192  # pixels to which a small image is enlarged, by an integer factor
FIRST = 20  # images of a group that are shown at once; the others are folded, at half that size
LABEL = "What it is made of, and what it cost"
LARGE = 320  # pixels; a wider image takes a column of its own


@dataclass(frozen=True)
class Sample:
    """A sample to show: a text or a PNG, with a WAV if it can be played, and the request that it answers (`caption`).

    A text continues its `prompt`, which `text` does not repeat, and its syntax is highlighted as `language`, such as
    "python". Samples of one `group` are shown together under its name.
    """

    text: str | None = None
    png: bytes | None = None
    caption: str = ""
    prompt: str = ""
    language: str = ""
    group: str = ""
    wav: bytes | None = None  # to be played beside the image or text


@dataclass(frozen=True)
class Section:
    """The content of a report on one run, or on one part of a demonstration. Empty fields are not shown."""

    title: str
    subtitle: str = ""
    verdict: Verdict | None = None
    facts: Sequence[Fact] = ()
    samples: Sequence[Sample] = ()
    previews: Sequence[tuple[int, bytes | str]] = ()  # (step, PNG or text)
    curves: Sequence[Curves] = ()
    scores: Sequence[Score] = ()
    not_measured: Sequence[tuple[str, str]] = ()  # (name, reason)
    plan: Sequence[tuple[str, str, str]] = ()  # (decision, value, reason)
    card: Mapping[str, Any] = field(default_factory=dict)
    data: Sequence[Fact] = ()
    label: Sequence[Fact] = ()  # what it is made of, and what it cost
    drawn: Mapping[str, Any] = field(default_factory=dict)  # what drawing the samples has used; not shown
    data_examples: Sequence[Sample] = ()
    notes: Sequence[str] = ()
    next_commands: Sequence[str] = ()


def render(title: str, sections: Sequence[Section]) -> str:
    """An HTML document that loads nothing: images are data: URIs, curves are inline SVG, and there are no scripts.

    Raises ValueError if an image is not a PNG.
    """
    views = [view(s, f"s{i}") for i, s in enumerate(sections, 1)]
    return render_page(TEMPLATE, title=visible(title), sections=views)


def write_report(path: Path, title: str, sections: Sequence[Section]) -> Path:
    """Write `path` (report.html), with report.json and card.md beside it, each atomically. Returns `path`.

    Raises UserError if the disk is full or not writable, and ValueError if an image is not a PNG.
    """
    page = render(title, sections)
    facts = {"title": title, "sections": [plain(vars(s)) for s in sections]}
    text = json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"Cannot write a report to {path}: {e.strerror or e}. Choose another folder.") from e
    replace_file(path.with_suffix(".json"), text.encode("utf-8", "backslashreplace"))
    replace_file(path.with_name("card.md"), card_markdown(title, sections).encode("utf-8", "backslashreplace"))
    replace_file(path, page.encode())
    return path


# --------------------------------------------------------------------------- HTML


def view(section: Section, key: str) -> dict[str, Any]:
    """A section as the template expects it: strings, which it escapes, and SVG marked as safe."""
    return {
        "key": key,
        "title": visible(section.title),
        "subtitle": visible(section.subtitle),
        "facts": facts_view(section.facts),
        "groups": groups_view(section.samples, "sample"),
        "previews": [preview_view(step, value) for step, value in section.previews],
        "curves": [curves_view(c, f"{key}-chart{i}") for i, c in enumerate(section.curves)],
        "verdict": verdict_view(section.verdict),
        "questions": questions_view(section.scores, str(section.card.get("modality", ""))),
        "thumbnail": thumbnail(section),
        "drawn": any(draw_score(s) for s in section.scores),
        "not_measured": [(visible(n), visible(r)) for n, r in section.not_measured],
        "plan": [tuple(map(visible, row)) for row in section.plan],
        "card": [(visible(k), value_text(v)) for k, v in flat(section.card)],
        "data": facts_view(section.data),
        "label": facts_view(section.label),
        "data_groups": groups_view(section.data_examples, "training example"),
        "notes": [visible(n) for n in section.notes],
        "next": "\n".join(visible(c) for c in section.next_commands),
    }


def groups_view(samples: Sequence[Sample], what: str) -> list[dict[str, Any]]:
    """Samples by group, in order of first appearance. After the first images of a group, the others are smaller."""
    groups: dict[str, list[tuple[int, Sample]]] = {}
    for i, sample in enumerate(samples, 1):
        groups.setdefault(sample.group, []).append((i, sample))
    views = []
    for name, members in groups.items():
        images = [(i, s) for i, s in members if s.png is not None]
        prefix = f"{what}, {visible(name)}," if name else what
        views.append(
            {
                "name": visible(name),
                "images": [
                    image_view(s.png or b"", s.caption, f"{prefix} {i}", SMALL, s.wav) for i, s in images[:FIRST]
                ],
                "more": [
                    image_view(s.png or b"", s.caption, f"{prefix} {i}", SMALL // 2, s.wav) for i, s in images[FIRST:]
                ],
                "texts": [text_view(s) for _, s in members if s.text is not None],
            }
        )
    return views


def verdict_view(verdict: Verdict | None) -> dict[str, str] | None:
    if verdict is None:
        return None
    return {name: visible(text) for name, text in {**verdict.json(), "meaning": verdict.meaning}.items()}


def questions_view(scores: Sequence[Score], modality: str) -> list[dict[str, Any]]:
    """Scores by the question that they answer, in the order of the questions: the main ones, then those beside them."""
    words, out = words_of((s.name for s in scores), modality) if scores else {}, []
    for question in Question:
        views = [
            {**score_view(s), "words": visible(words[s.name].name), "meaning": visible(words[s.name].meaning)}
            for s in scores
            if words[s.name].question == question
        ]
        main = [s for s in views if not s["beside"]] or views
        if views:
            first = ", ".join(f"{s['words']} {s['value']}" for s in main[:2])
            beside = [s for s in views if s not in main]
            out.append({"question": question, "first": first, "tables": [t for t in (main, beside) if t]})
    return out


def thumbnail(section: Section) -> dict[str, Any]:
    """An entry of the table of contents: four images from all of them, one if there are fewer, or two letters."""
    images = [s.png for s in section.samples if s.png is not None]
    if images:
        few = images[:: (len(images) - 1) // 3][:4] if len(images) >= 4 else images[:1]
        return {"images": [image_view(p, "", "") for p in few], "letters": ""}
    texts = [s for s in section.samples if s.text is not None]
    return {"images": [], "letters": "" if not texts else "{ }" if texts[0].language else "Aa"}


def facts_view(facts: Sequence[Fact]) -> list[tuple[str, str]]:
    return [(visible(k), value_text(v)) for k, v in facts]


def value_text(value: Any) -> str:
    """A fact as text: numbers with separated thousands, lists with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(value_text, value)) or "–"
    return visible(str(value))


def png_size(png: bytes) -> tuple[int, int]:
    """(width, height) in pixels, from the header. Raises ValueError if it is not a PNG."""
    width, height = struct.unpack(">II", png[16:24]) if len(png) >= 24 else (0, 0)
    if png[:8] != PNG or png[12:16] != b"IHDR" or not width or not height:
        raise ValueError(f"a report shows PNG images; these {len(png):,} bytes are not one")
    return width, height


def image_view(png: bytes, caption: str, what: str, size: int = SMALL, wav: bytes | None = None) -> dict[str, Any]:
    """A PNG (and a WAV) as data: URIs. A small image is enlarged by an integer factor, without interpolation."""
    width, height = png_size(png)
    factor = max(1, round(size / max(width, height)))
    return {
        "src": data_uri("image/png", png),
        "wav": wav_uri(wav),
        "width": width * factor,
        "height": height * factor,
        "pixels": factor > 1,
        "large": width > LARGE,
        "caption": visible(caption),
        "alt": f"{what}: {visible(caption)}" if caption else what,
    }


def wav_uri(wav: bytes | None) -> str:
    """A WAV as a data: URI; an empty string for None."""
    return data_uri("audio/wav", wav) if wav else ""


def text_view(sample: Sample) -> dict[str, Any]:
    prompt, text = visible(sample.prompt), visible(sample.text or "")
    prompt, body = highlighted(prompt, text, sample.language)
    return {
        "prompt": prompt,
        "body": body,
        "code": bool(sample.language),
        "caption": visible(sample.caption),
        "wav": wav_uri(sample.wav),
    }


def highlighted(prompt: str, text: str, language: str) -> tuple[str, str]:
    """Prompt and text with syntax highlighting, or unchanged if the language is unknown.

    They are parsed together, since a prompt may open a string that the text closes.
    """
    if not language:
        return prompt, text
    from markupsafe import Markup
    from pygments import format as format_tokens
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return prompt, text
    head: list[tuple[Any, str]] = []
    tail: list[tuple[Any, str]] = []
    left = len(prompt)
    for kind, piece in lexer.get_tokens(prompt + text):
        head += [(kind, piece[:left])] if left else []
        tail += [(kind, piece[left:])] if piece[left:] else []
        left -= min(left, len(piece))

    def marked(tokens: list[tuple[Any, str]]) -> Markup:
        text = format_tokens(tokens, HtmlFormatter(nowrap=True))  # escapes, and adds a missing last line break
        return Markup(text if not tokens or tokens[-1][1].endswith("\n") else text.removesuffix("\n"))

    return marked(head), marked(tail)


def preview_view(step: int, value: bytes | str) -> dict[str, Any]:
    name = f"step {step:,}"
    if isinstance(value, bytes):
        return {"name": name, "image": image_view(value, "", f"samples at {name}"), "text": ""}
    return {"name": name, "image": None, "text": visible(value)}


def curves_view(chart: Curves, key: str) -> dict[str, Any]:
    from markupsafe import Markup

    legend = []
    for i, (name, points) in enumerate(chart.lines.items()):
        finite = [y for _, y in points if math.isfinite(y)]
        k = thin(points)[1]
        last = f"{number(finite[-1])} at the end" if finite else "no values"
        legend.append(
            {
                "name": visible(name),
                "last": last + (f"; shown as means of {k} points" if k > 1 else ""),
                "colour": i % 6 + 1,
                "dash": dash_css(i),
            }
        )
    return {"title": visible(chart.title), "svg": Markup(draw_curves(chart, key)), "legend": legend}


def score_view(score: Score) -> dict[str, Any]:
    from markupsafe import Markup

    has_interval = score.low is not None and score.high is not None
    return {
        "name": visible(score.name),
        "beside": "/" in score.name,
        "value": number(score.value),
        "interval": f"{number(score.low)} to {number(score.high)}" if has_interval else "–",
        "n": number(score.n),
        "floor": number(score.floor),
        "control": number(score.control),
        "arrow": {"lower": "↓", "higher": "↑", "none": ""}[score.better],
        "better": {"lower": "lower is better", "higher": "higher is better", "none": ""}[score.better],
        "mark": Markup(draw_score(score)),
    }


def flat(card: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The rows of a nested mapping: {"a": {"b": 1}} -> ("a: b", 1)."""
    rows: list[tuple[str, Any]] = []
    for k, v in card.items():
        rows += flat(v, f"{prefix}{k}: ") if isinstance(v, Mapping) else [(f"{prefix}{k}", v)]
    return rows


# --------------------------------------------------------------------------- JSON and Markdown


def plain(value: Any) -> Any:
    """A value as JSON: images and sounds by size and SHA-256, numbers that are not finite as null."""
    if isinstance(value, (Sample, Curves, Score, Verdict)):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, bytes) and value[:4] == b"RIFF":
        return {"sha256": hashlib.sha256(value).hexdigest(), "bytes": len(value)}
    if isinstance(value, bytes):
        width, height = png_size(value)
        return {"sha256": hashlib.sha256(value).hexdigest(), "width": width, "height": height}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table. Bars and line breaks inside cells are escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    return [line(head), line(["---"] * len(head)), *map(line, rows), ""]


def card_markdown(title: str, sections: Sequence[Section]) -> str:
    """The model card: model, data, scores and how they were measured, notes and plan."""
    lines = [f"# {visible(title)}", ""]
    for s in sections:
        lines += [f"## {visible(s.title)}", ""]
        if s.subtitle:
            lines += [visible(s.subtitle), ""]
        if s.verdict is not None:
            lines += [f"**Verdict: {s.verdict.word}.** {visible(s.verdict.sentence)}", "", visible(s.verdict.help), ""]
            lines += [f"    {visible(s.verdict.command)}", ""] if s.verdict.command else []
        for name, facts in (("Model", s.facts), ("Data", s.data), (LABEL, s.label)):
            if facts:
                lines += [f"### {name}", "", *table(("", ""), facts_view(facts))]
        if s.scores:
            head = ("score", "value", "95% interval", "n", "floor", "control", "better")
            views = [score_view(x) for x in s.scores]
            keys = ("name", "value", "interval", "n", "floor", "control", "better")
            lines += ["### Measured", "", *table(head, [[v[k] for k in keys] for v in views])]
            lines += ["Floor: the score of real data. Control: the score of a trivial model.", ""]
        if s.not_measured:
            lines += ["Not measured:", "", *(f"- {visible(n)}: {visible(r)}" for n, r in s.not_measured), ""]
        if s.notes:
            lines += ["### Notes", "", *(f"- {visible(n)}" for n in s.notes), ""]
        if s.plan:
            rows = [[visible(c) for c in row] for row in s.plan]
            lines += ["### Plan", "", *table(("decision", "value", "reason"), rows)]
        if s.card:
            rows = [[visible(k), value_text(v)] for k, v in flat(s.card)]
            lines += ["### Protocol", "", *table(("", ""), rows)]
        if s.next_commands:
            lines += ["### Next", "", *(f"    {visible(c)}" for c in s.next_commands), ""]
    return "\n".join(lines)
