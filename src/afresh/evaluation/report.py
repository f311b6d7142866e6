"""The report of one or several runs: one HTML file to enjoy, the same facts as JSON, and a card as Markdown.

Nothing here computes a measurement: every number comes in through a `Section`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from afresh.core import Score, UserError
from afresh.core.files import replace_file
from afresh.evaluation.curves import Curves, dash_css, draw_curves, draw_score, number, thin

Fact = tuple[str, str | int | float]

PNG = b"\x89PNG\r\n\x1a\n"
SMALL = 96  # pixels that a small picture is enlarged to, by a whole factor
MANY = 40  # pictures of a group, from which they are drawn at half that size
LARGE = 320  # pixels of width from which a picture takes a column of its own


@dataclass(frozen=True)
class Sample:
    """One sample to show: a text or a PNG, where it can be heard with its WAV, and what was asked for (`caption`).

    A text goes on from its `prompt` (not repeated in `text`) and is coloured as its `language`, e.g. "python".
    Samples of one `group` stand together under its name, groups beside each other where there is room.
    """

    text: str | None = None
    png: bytes | None = None
    caption: str = ""
    prompt: str = ""
    language: str = ""
    group: str = ""
    wav: bytes | None = None  # what is heard beside its picture or text


@dataclass(frozen=True)
class Section:
    """All that is told of one run (or of one part of a demonstration). Empty fields leave no trace."""

    title: str
    subtitle: str = ""
    facts: Sequence[Fact] = ()
    samples: Sequence[Sample] = ()
    previews: Sequence[tuple[int, bytes | str]] = ()  # (step, PNG or text)
    curves: Sequence[Curves] = ()
    scores: Sequence[Score] = ()
    not_measured: Sequence[tuple[str, str]] = ()  # (name, reason)
    plan: Sequence[tuple[str, str, str]] = ()  # (decision, value, reason)
    card: Mapping[str, Any] = field(default_factory=dict)
    data: Sequence[Fact] = ()
    data_examples: Sequence[Sample] = ()
    notes: Sequence[str] = ()
    next_commands: Sequence[str] = ()


def render(title: str, sections: Sequence[Section]) -> str:
    """One HTML document that loads nothing: pictures are data: URIs, curves inline SVG, no script.

    Raises ValueError for a picture that is not a PNG.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = (files("afresh.evaluation") / "templates" / "report.html.j2").read_text("utf-8")
    shown = [view(s, f"s{i}") for i, s in enumerate(sections, 1)]
    return environment.from_string(source).render(title=visible(title), sections=shown)


def write_report(path: Path, title: str, sections: Sequence[Section]) -> Path:
    """Write `path` (report.html), and report.json and card.md beside it; each whole or not at all. Returns `path`.

    Raises UserError when the disk is full or not writable, ValueError for a picture that is not a PNG.
    """
    page = render(title, sections)
    facts = {"title": title, "sections": [record(s) for s in sections]}
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
    """A section as the template wants it: strings to escape, and ready-made SVG marked as safe."""
    return {
        "key": key,
        "title": visible(section.title),
        "subtitle": visible(section.subtitle),
        "facts": facts_view(section.facts),
        "groups": groups_view(section.samples, "sample"),
        "previews": [preview_view(step, value) for step, value in section.previews],
        "curves": [curves_view(c, f"{key}-chart{i}") for i, c in enumerate(section.curves)],
        "scores": [score_view(s) for s in section.scores],
        "thumbnail": thumbnail(section),
        "drawn": any(draw_score(s) for s in section.scores),
        "not_measured": [(visible(n), visible(r)) for n, r in section.not_measured],
        "plan": [tuple(map(visible, row)) for row in section.plan],
        "card": [(visible(k), shown(v)) for k, v in flat(section.card)],
        "data": facts_view(section.data),
        "data_groups": groups_view(section.data_examples, "training example"),
        "notes": [visible(n) for n in section.notes],
        "next": "\n".join(visible(c) for c in section.next_commands),
    }


def groups_view(samples: Sequence[Sample], what: str) -> list[dict[str, Any]]:
    """Samples by group, in order of first appearance; many pictures of a group are drawn smaller."""
    groups: dict[str, list[tuple[int, Sample]]] = {}
    for i, sample in enumerate(samples, 1):
        groups.setdefault(sample.group, []).append((i, sample))
    views = []
    for name, members in groups.items():
        many = sum(s.png is not None for _, s in members) > MANY
        prefix = f"{what}, {visible(name)}," if name else what
        views.append(
            {
                "name": visible(name),
                "many": many,
                "pictures": [
                    picture(s.png, s.caption, f"{prefix} {i}", SMALL // 2 if many else SMALL, s.wav)
                    for i, s in members
                    if s.png is not None
                ],
                "texts": [text_view(s) for _, s in members if s.text is not None],
            }
        )
    return views


def thumbnail(section: Section) -> dict[str, Any]:
    """For the table of contents: four pictures spread over all of them, one if there are fewer, or two letters."""
    found = [s.png for s in section.samples if s.png is not None]
    if found:
        few = found[:: (len(found) - 1) // 3][:4] if len(found) >= 4 else found[:1]
        return {"pictures": [picture(p, "", "") for p in few], "letters": ""}
    texts = [s for s in section.samples if s.text is not None]
    return {"pictures": [], "letters": "" if not texts else "{ }" if texts[0].language else "Aa"}


def facts_view(facts: Sequence[Fact]) -> list[tuple[str, str]]:
    return [(visible(k), shown(v)) for k, v in facts]


def shown(value: Any) -> str:
    """A fact in words: numbers with their thousands apart, lists with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value)) or "–"
    return visible(str(value))


def visible(text: str) -> str:
    """Text that HTML can hold: control characters as their pictures, lone surrogates as escapes."""
    text = text.replace("\r\n", "\n").encode("utf-8", "backslashreplace").decode()
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", lambda m: "\u2421" if m[0] == "\x7f" else chr(0x2400 + ord(m[0])), text)


def png_size(png: bytes) -> tuple[int, int]:
    """(width, height) in pixels, from the header. Raises ValueError when it is not a PNG."""
    if png[:8] != PNG or png[12:16] != b"IHDR" or len(png) < 24:
        raise ValueError(f"a report shows PNG pictures; these {len(png):,} bytes are not one")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def picture(png: bytes, caption: str, what: str, size: int = SMALL, wav: bytes | None = None) -> dict[str, Any]:
    """A PNG (and a WAV) as data: URIs; a tiny one is enlarged by a whole factor, its pixels kept square."""
    width, height = png_size(png)
    times = max(1, round(size / max(width, height)))
    return {
        "src": f"data:image/png;base64,{base64.b64encode(png).decode()}",
        "wav": playable(wav),
        "width": width * times,
        "height": height * times,
        "pixels": times > 1,
        "large": width > LARGE,
        "caption": visible(caption),
        "alt": f"{what}: {visible(caption)}" if caption else what,
    }


def playable(wav: bytes | None) -> str:
    """A WAV as a data: URI; nothing for none."""
    return f"data:audio/wav;base64,{base64.b64encode(wav).decode()}" if wav else ""


def text_view(sample: Sample) -> dict[str, Any]:
    prompt, text = visible(sample.prompt), visible(sample.text or "")
    prompt, body = coloured(prompt, text, sample.language)
    shown = {"prompt": prompt, "body": body, "code": bool(sample.language), "caption": visible(sample.caption)}
    return {**shown, "wav": playable(sample.wav)}


def coloured(prompt: str, text: str, language: str) -> tuple[str, str]:
    """Prompt and text with their syntax marked by classes where the language is known, otherwise as they are.

    They are read as one, since a prompt may open a string that the text closes.
    """
    if not language:
        return prompt, text
    from markupsafe import Markup
    from pygments import format as mark
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
        found = mark(tokens, HtmlFormatter(nowrap=True))  # it escapes, and ends the last line where that is open
        return Markup(found if not tokens or tokens[-1][1].endswith("\n") else found.removesuffix("\n"))

    return marked(head), marked(tail)


def preview_view(step: int, value: bytes | str) -> dict[str, Any]:
    name = f"step {step:,}"
    if isinstance(value, bytes):
        return {"name": name, "picture": picture(value, "", f"samples at {name}"), "text": ""}
    return {"name": name, "picture": None, "text": visible(value)}


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
                "last": last + (f"; drawn as means of {k} points" if k > 1 else ""),
                "colour": i % 6 + 1,
                "dash": dash_css(i),
            }
        )
    return {"title": visible(chart.title), "svg": Markup(draw_curves(chart, key)), "legend": legend}


def score_view(score: Score) -> dict[str, Any]:
    from markupsafe import Markup

    known = score.low is not None and score.high is not None
    return {
        "name": visible(score.name),
        "value": number(score.value),
        "interval": f"{number(score.low)} to {number(score.high)}" if known else "–",
        "n": number(score.n),
        "floor": number(score.floor),
        "control": number(score.control),
        "arrow": {"lower": "↓", "higher": "↑", "none": ""}[score.better],
        "better": {"lower": "lower is better", "higher": "higher is better", "none": ""}[score.better],
        "mark": Markup(draw_score(score)),
    }


def flat(card: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """A nested mapping as rows: {"a": {"b": 1}} -> ("a: b", 1)."""
    rows: list[tuple[str, Any]] = []
    for k, v in card.items():
        rows += flat(v, f"{prefix}{k}: ") if isinstance(v, Mapping) else [(f"{prefix}{k}", v)]
    return rows


# --------------------------------------------------------------------------- JSON and Markdown


def record(section: Section) -> dict[str, Any]:
    """A section as JSON can hold it: pictures and sounds by size and SHA-256, numbers that are not finite as null."""
    return plain({name: getattr(section, name) for name in section.__dataclass_fields__})


def plain(value: Any) -> Any:
    if isinstance(value, (Sample, Curves, Score)):
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
    """A Markdown table; bars and line breaks inside cells are escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    return [line(head), line(["---"] * len(head)), *map(line, rows), ""]


def card_markdown(title: str, sections: Sequence[Section]) -> str:
    """The model card: what was learnt from what, how well, measured how, and what to be careful about."""
    lines = [f"# {visible(title)}", ""]
    for s in sections:
        lines += [f"## {visible(s.title)}", ""]
        if s.subtitle:
            lines += [visible(s.subtitle), ""]
        for name, facts in (("Model", s.facts), ("Data", s.data)):
            if facts:
                lines += [f"### {name}", "", *table(("", ""), facts_view(facts))]
        if s.scores:
            head = ("score", "value", "95% interval", "n", "floor", "control", "better")
            views = [score_view(x) for x in s.scores]
            keys = ("name", "value", "interval", "n", "floor", "control", "better")
            lines += ["### Measured", "", *table(head, [[v[k] for k in keys] for v in views])]
            lines += ["Floor: real data against real data. Control: a trivial model.", ""]
        if s.not_measured:
            lines += ["Not measured:", "", *(f"- {visible(n)}: {visible(r)}" for n, r in s.not_measured), ""]
        if s.notes:
            lines += ["### Notes", "", *(f"- {visible(n)}" for n in s.notes), ""]
        if s.plan:
            rows = [[visible(c) for c in row] for row in s.plan]
            lines += ["### Plan", "", *table(("decision", "value", "reason"), rows)]
        if s.card:
            rows = [[visible(k), shown(v)] for k, v in flat(s.card)]
            lines += ["### Protocol", "", *table(("", ""), rows)]
        if s.next_commands:
            lines += ["### Next", "", *(f"    {visible(c)}" for c in s.next_commands), ""]
    return "\n".join(lines)
