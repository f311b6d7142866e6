"""Graphics of a report as inline SVG in the page's colours: charts of curves, and a score on its scale."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from afresh.core import Score

Point = tuple[float, float]

INK, GRID = "#010203", "#040506"  # placeholders, replaced by CSS colours after drawing
LINES = tuple(f"#0a0b{i:02x}" for i in range(1, 7))
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2), (9, 3), (3, 1, 1, 1, 1, 1))
MAX_POINTS = 400  # a line with more points is drawn as means of neighbouring points


@dataclass(frozen=True)
class Curves:
    """A chart. `lines`: name -> points (x, y) in order of x. A point that is not finite leaves a gap."""

    lines: Mapping[str, Sequence[Point]]
    x_label: str = "step"
    y_label: str = "loss"
    title: str = ""
    log_y: bool = False


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> tuple[list[Point], int]:
    """At most `most` points, each the mean of k neighbouring points, and k."""
    k = math.ceil(len(points) / most) if len(points) > most else 1
    if k == 1:
        return list(points), 1
    groups = [points[i : i + k] for i in range(0, len(points), k)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups], k


def draw_curves(chart: Curves, key: str = "chart", width: float = 5.8, height: float = 2.7) -> str:
    """The chart as one <svg> element of `width` x `height` inches, without a legend.

    Line i, from 1, has the colour var(--series-i) and the dashes of `dash_css(i - 1)`. The element loads nothing, and
    every id in it begins with `key`.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "text.parse_math": False}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        for i, points in enumerate(chart.lines.values()):
            drawn, _ = thin([(x, y if math.isfinite(y) else math.nan) for x, y in points])
            (line,) = axes.plot(
                [x for x, _ in drawn], [y for _, y in drawn], color=LINES[i % len(LINES)], linewidth=1.8
            )
            line.set_dashes(DASHES[i % len(DASHES)])
            if len(drawn) == 1:
                line.set_marker("o")
        if chart.log_y:
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(NullFormatter())
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, place: number(float(f"{value:.6g}"))))
        axes.set_xlabel(chart.x_label, color=INK)
        axes.set_ylabel(chart.y_label, color=INK)
        axes.tick_params(colors=INK, which="both", length=0)
        axes.grid(color=GRID, linewidth=0.8)
        for side in axes.spines.values():
            side.set_visible(False)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return inline(out.getvalue(), f"{key}-", describe(chart))


def inline(svg: str, prefix: str, label: str) -> str:
    """Turn an SVG document of matplotlib into an element for HTML with ids of its own and the page's colours and
    fonts."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.S)
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", svg)
    svg = re.sub(r'font: [^;"]*?(\d+(?:\.\d+)?)px [^;"]*', r"font-size: \1px", svg)
    svg = svg.replace(INK, "var(--soft)").replace(GRID, "var(--line)")
    for i, colour in enumerate(LINES):
        svg = svg.replace(colour, f"var(--series-{i + 1})")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)


def describe(chart: Curves) -> str:
    """A description of the chart for screen readers: where every line begins and ends."""
    ends = []
    for name, points in chart.lines.items():
        finite = [(x, y) for x, y in points if math.isfinite(y)]
        if finite:
            (a, first), (b, last) = finite[0], finite[-1]
            ends.append(f"{name} from {number(first)} at {number(a)} to {number(last)} at {number(b)}")
    return f"{chart.y_label} by {chart.x_label}: {'; '.join(ends) or 'no points'}"


def dash_css(i: int) -> str:
    """The dashes of line i, from 0, for a legend entry of 28 pixels."""
    return " ".join(f"{d * 1.8:g}" for d in DASHES[i % len(DASHES)]) or "none"


def number(x: float | None) -> str:
    """A number with four significant figures and separated thousands: 0.01234, 12.34, 1,234, 1.2e-05; None is a
    dash."""
    if x is None or not math.isfinite(x):
        return "–"
    if isinstance(x, int) or (float(x).is_integer() and abs(x) < 1e15):
        return f"{int(x):,}"
    if abs(x) >= 1000:
        return f"{x:,.0f}" if abs(x) < 1e15 else f"{x:.3e}"
    return f"{x:.4g}"


def scale(score: Score) -> tuple[float, float] | None:
    """Values at the left and right ends of a score's graphic, the better one on the right. None if there is neither
    floor nor control, or all values coincide."""
    marks = [m for m in (score.floor, score.control) if m is not None and math.isfinite(m)]
    if not marks or not math.isfinite(score.value):
        return None
    ends = [e for e in (score.low, score.high) if e is not None and math.isfinite(e)]
    known = [score.value, *marks, *ends]
    low, high = min(known), max(known)
    if low == high:
        return None
    return (high, low) if score.better == "lower" else (low, high)


def draw_score(score: Score, width: int = 190) -> str:
    """The position of a value with its interval between the control (open mark) and the floor (filled mark)."""
    ends = scale(score)
    if ends is None:
        return ""
    left, right = ends
    pad, middle = 10, 12

    def place(value: float) -> float:
        return round(pad + (value - left) / (right - left) * (width - 2 * pad), 1)

    words = [f"value {number(score.value)}"]
    parts = [f'<line x1="{pad}" x2="{width - pad}" y1="{middle}" y2="{middle}" class="axis"/>']
    if score.low is not None and score.high is not None and math.isfinite(score.low) and math.isfinite(score.high):
        a, b = sorted((place(score.low), place(score.high)))
        parts.append(f'<line x1="{a}" x2="{b}" y1="{middle}" y2="{middle}" class="interval"/>')
    if score.control is not None and math.isfinite(score.control):
        x = place(score.control)
        parts.append(f'<path d="M{x - 4} 3h8l-4 7z" class="control"/>')
        words.append(f"control {number(score.control)}")
    if score.floor is not None and math.isfinite(score.floor):
        x = place(score.floor)
        parts.append(f'<path d="M{x - 4} 21h8l-4 -7z" class="floor"/>')
        words.append(f"floor {number(score.floor)}")
    parts.append(f'<circle cx="{place(score.value)}" cy="{middle}" r="4.5" class="value"/>')
    label = html.escape(", ".join(words))
    return (
        f'<svg class="score" role="img" aria-label="{label}" width="{width}" height="24" viewBox="0 0 {width} 24">'
        f"<title>{label}</title>{''.join(parts)}</svg>"
    )
