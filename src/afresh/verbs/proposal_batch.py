"""A batch of proposals: what is to be measured next, what is believed of it, and how past beliefs held."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from afresh.core import Encoder, ItemKind, Score
from afresh.core.plural import counted, digits
from afresh.core.safe_text import visible_line
from afresh.core.verb import Line, Remark, Table
from afresh.data.image.grid import image_grid
from afresh.data.image.kind import png_bytes
from afresh.data.image.lettering import font_file
from afresh.data.measurements import FILE, ITEM, TABLE, MeasuredItem
from afresh.data.storage.files import replace_file
from afresh.data.storage.folders import check_free, output_folder
from afresh.engine.alignment.surrogate.acquisition import Goal
from afresh.engine.evaluation.estimate import share
from afresh.engine.evaluation.report import Sample, Section, render
from afresh.engine.sampling.samples import images_of, make_folder, preview_wav

LONGEST = 60  # characters of an item in a table
RECORD, PAGE, MEASURED = "proposals.json", "index.html", "measured"
COLUMNS = ("predicted", "low", "high", "chance", "nearest", "similarity", "nearest_measured")


@dataclass(frozen=True, eq=False)
class Proposal:
    """An item to measure. `predicted` is the mean of what it would measure, `low` and `high` are the ends of the 90%
    interval, and `chance` is the probability that it is better than the best measured value. `nearest` is the most
    similar measured item, which measured `nearest_value`; `outside` means that it is less like any of them than they
    are like each other. `facts` are numbers of the kind of items, such as how hard a molecule is to make."""

    name: str
    item: Any
    predicted: float
    low: float
    high: float
    chance: float
    nearest: str
    nearest_value: float
    similarity: float
    outside: bool
    facts: Mapping[str, float]
    origin: str
    why: str

    def json(self) -> dict[str, Any]:
        """All but the item, as plain values."""
        return {
            "id": self.name,
            "predicted": self.predicted,
            "low": self.low,
            "high": self.high,
            "chance": self.chance,
            "nearest": self.nearest,
            "similarity": self.similarity,
            "nearest_measured": self.nearest_value,
            "outside": self.outside,
            **self.facts,
            "origin": self.origin,
            "why": self.why,
        }


@dataclass(frozen=True)
class Past:
    """How past predictions held: the share of n measured values inside their 90% intervals with its 95% interval
    (Wilson), the mean absolute error, that of predicting the mean of what was measured before, and the rows of
    (predicted, low, high, measured)."""

    n: int
    inside: float
    inside_low: float
    inside_high: float
    error: float
    error_of_mean: float
    pairs: tuple[tuple[float, float, float, float], ...]

    def __str__(self) -> str:
        return (
            f"of {counted(self.n, 'past prediction')}, {self.inside:.0%} were inside the 90% interval (95%: "
            f"{self.inside_low:.0%} to {self.inside_high:.0%}); mean error {self.error:.3g}, {self.error_of_mean:.3g} "
            "for predicting the mean of what was known"
        )

    def json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "inside_90": self.inside,
            "inside_90_low": self.inside_low,
            "inside_90_high": self.inside_high,
            "error": self.error,
            "error_of_mean": self.error_of_mean,
        }


def past_of(rows: Sequence[MeasuredItem], kind: ItemKind) -> Past | None:
    """How the predictions in some rows held, by the values in the same rows or in others of the same items; None if
    none was measured."""
    said = {kind.digest(row.item): row.predicted for row in rows if row.predicted is not None}
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.value is not None and (digest := kind.digest(row.item)) in said:
            found.setdefault(digest, []).append(row.value)
    if not found:
        return None
    told = [(*said[digest], float(np.mean(values))) for digest, values in found.items()]
    before = [row.value for row in rows if row.value is not None and kind.digest(row.item) not in said]
    values = np.array([p[3] for p in told], dtype=np.float64)
    hits = share(sum(low <= value <= high for _, low, high, value in told), len(told))
    assert hits.low is not None and hits.high is not None
    error = float(np.mean([abs(mean - value) for mean, _, _, value in told]))
    of_mean = float(np.abs(values - (np.mean(before) if before else values.mean())).mean())
    return Past(len(told), hits.value, hits.low, hits.high, error, of_mean, tuple(told))


@dataclass(frozen=True, eq=False)
class Proposals(Sequence[Proposal]):
    """The next batch, in the order in which it was chosen. `model` says by what it was valued and `pool` what it was
    chosen from; `best` is the best measured item and its value."""

    rows: tuple[Proposal, ...]
    encoder: Encoder
    column: str
    goal: Goal
    acquisition: str
    measured: int
    best: tuple[str, float]
    model: str
    pool: str
    past: Past | None
    notes: tuple[str, ...] = ()
    seed: int = 0
    known: tuple[MeasuredItem, ...] = ()  # what was measured
    searched: bool = False  # by a reward
    saved: Path | None = None  # the folder that they were written to

    @property
    def kind(self) -> ItemKind:
        return self.encoder.kind

    @property
    def items(self) -> list[Any]:
        return [row.item for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Proposal: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Proposal, ...]: ...
    def __getitem__(self, index: int | slice) -> Proposal | tuple[Proposal, ...]:
        return self.rows[index]

    def __repr__(self) -> str:
        first = f", the first {self.kind.describe(self.rows[0].item)}" if self.rows else ""
        return f"Proposals({counted(len(self), self.kind.name, self.kind.plural)} for {self.column}{first})"

    def json(self) -> dict[str, Any]:
        """Everything but the items of kinds that are files, as plain values."""
        return {
            "column": self.column,
            "goal": str(self.goal),
            "acquisition": self.acquisition,
            "seed": self.seed,
            "measured": self.measured,
            "best": {"item": self.best[0], "value": self.best[1]},
            "model": self.model,
            "candidates": self.pool,
            "past": None if self.past is None else self.past.json(),
            "proposals": [
                {**({ITEM: text_of(self.kind, row.item)} if self.kind.inline else {}), **row.json()}
                for row in self.rows
            ],
            "notes": list(self.notes),
        }

    def lines(self) -> list[Line]:
        """A table of the batch, and where it was written to."""
        facts = list(self.rows[0].facts)[:1] if self.rows else []  # the most telling
        rows = []
        for row in self.rows:
            line = visible_line(text_of(self.kind, row.item) if self.kind.inline else row.name)
            rows.append(
                [line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}...", digits(row.predicted)]
                + [f"{digits(row.low)} to {digits(row.high)}", f"{row.chance:.0%}", f"{row.similarity:.2f}"]
                + [digits(row.facts[name]) for name in facts]
            )
        columns = [self.kind.name, self.column, "90% interval", "better", "nearest", *facts]
        out: list[Line] = [Table(columns, rows, right=range(1, len(columns)), wrap=(0,))]
        best = f"{digits(self.best[1])}, {visible_line(self.best[0])}"
        out.append(Remark(f"the best of {self.measured:,} measured: {best}"))
        if self.saved is not None:
            out.append(Remark(f"{len(self):,} proposals in {self.saved}; as a page: {self.saved / PAGE}"))
        if self.saved is not None and self.searched:
            out.append(Remark(f"all that was valued, the best first: {self.saved / MEASURED}.csv"))
        elif self.saved is not None:
            table = self.saved / TABLE
            out.append(
                Remark(
                    f"next: measure them, fill in the column {self.column} of {table}, and propose again with "
                    f"{self.saved} as another of `observed`."
                )
            )
        return out

    def files(self) -> dict[str, bytes]:
        return {}

    def save(self, out: str | Path, force: bool = False) -> Proposals:
        """Write proposals.csv with a column for the results, proposals.json, a page, drawings, and the items. Returns
        the batch with its folder. Raises UserError if `out` has something in it, unless it is to be replaced
        (`force`)."""
        out = Path(out)
        check_free(out, force)
        with output_folder(out, (RECORD,)) as folder:
            make_folder(folder, "Choose another output folder.")
            self._write(folder)
        return replace(self, saved=out)

    def _write(self, folder: Path) -> None:
        kind = self.kind
        held = written(self.encoder, self.items, folder, [row.name for row in self.rows])
        replace_file(folder / TABLE, self.table(held).encode("utf-8", "backslashreplace"))
        records = [{**row.json(), "seed": self.seed} for row in self.rows]
        for suffix, content in kind.collected.items():
            if file := content(self.items, records):
                replace_file(folder / f"proposals{suffix}", file)
        if images := images_of(self.encoder, self.items):
            buffer = io.BytesIO()
            captions = [f"{row.predicted:.3g} ({row.low:.3g} to {row.high:.3g})" for row in self.rows]
            image_grid(images, columns=min(5, len(images)), captions=captions).save(buffer, "PNG")
            replace_file(folder / "grid.png", buffer.getvalue())
        plot = drawn(self)
        replace_file(folder / "plot.png", plot)
        replace_file(folder / RECORD, (json.dumps(self.json(), indent=1, ensure_ascii=False) + "\n").encode())
        replace_file(folder / PAGE, page(self, plot).encode())
        if self.searched:
            self._write_measured(folder)

    def _write_measured(self, out: Path) -> None:
        """Write measured.csv: what a reward valued, the best first, each item once."""
        kind = self.kind
        rows = {kind.digest(row.item): row for row in self.known if row.value is not None}
        order = sorted(rows, key=lambda digest: -float(self.goal.worth(np.array([rows[digest].value]))[0]))
        names = [digest[:8] for digest in order]
        held = written(self.encoder, [rows[digest].item for digest in order], out / MEASURED, names)
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        writer.writerow(["id", ITEM if kind.inline else FILE, self.column])
        for digest, name, text in zip(order, names, held, strict=True):
            writer.writerow([name, text if kind.inline else f"{MEASURED}/{text}", rows[digest].value])
        replace_file(out / f"{MEASURED}.csv", buffer.getvalue().encode("utf-8", "backslashreplace"))

    def table(self, held: Sequence[str]) -> str:
        """The content of proposals.csv; `held` are the items, or the names of their files."""
        kind, out = self.kind, io.StringIO()
        facts = list(self.rows[0].facts) if self.rows else []
        writer = csv.writer(out)
        writer.writerow(["id", ITEM if kind.inline else FILE, self.column, *COLUMNS, *facts, "origin", "why"])
        for row, text in zip(self.rows, held, strict=True):
            numbers = [f"{x:.6g}" for x in (row.predicted, row.low, row.high, row.chance)]
            near = [row.nearest, f"{row.similarity:.3f}", f"{row.nearest_value:.6g}"]
            more = [f"{row.facts[name]:.4g}" for name in facts]
            writer.writerow([row.name, text, "", *numbers, *near, *more, row.origin, row.why])
        return out.getvalue()


def written(encoder: Encoder, items: Sequence[Any], folder: Path, names: Sequence[str]) -> list[str]:
    """Items of inline kinds as text, or the names of the files that they are written to."""
    kind = encoder.kind
    return [text_of(kind, i) for i in items] if kind.inline else encoder.write(items, folder, names)


def text_of(kind: ItemKind, item: Any) -> str:
    """An item of an inline kind as text."""
    return kind.encode(item).decode("utf-8", "surrogatepass")


def page(proposals: Proposals, plot: bytes) -> str:
    """A page of the batch that loads nothing."""
    kind = proposals.kind
    samples = []
    for row, preview in zip(proposals, kind.previews(proposals.items), strict=True):
        caption = f"{row.predicted:.4g} ({row.low:.4g} to {row.high:.4g}). {row.why}"
        png = None if preview.image is None else png_bytes(preview.image)
        below = f"{preview.text}: {caption}" if png and preview.text else caption
        text = preview.text if png is None else None
        samples.append(Sample(text, png, below, wav=preview_wav(proposals.encoder, row.item), group="The batch"))
    samples.append(Sample(png=plot, caption=PLOTTED, group="Beliefs"))
    facts: list[tuple[str, str | int | float]] = [
        ("wanted", f"{proposals.column}, {proposals.goal}"),
        ("measured", proposals.measured),
        ("best measured", f"{proposals.best[1]:.6g}: {proposals.best[0]}"),
        ("learnt by", proposals.model),
        ("chosen from", proposals.pool),
        ("chosen by", proposals.acquisition),
    ]
    scores = []
    if proposals.past is not None:
        past = proposals.past
        facts.append(("past predictions", str(past)))
        scores.append(Score("inside_90", past.inside, past.inside_low, past.inside_high, past.n, "none", 0.9))
    title = f"What to measure next: {proposals.column}"
    return render(title, [Section(title, facts=facts, samples=samples, scores=scores, notes=proposals.notes)])


PLOTTED = (
    "Predicted values with 90% intervals by the similarity to the nearest measured item; the dashed line is the best "
    "measured value. Right: past predictions by what was measured, once there are some."
)


def drawn(proposals: Proposals) -> bytes:
    """The plot that PLOTTED describes, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    past = proposals.past
    figure = Figure(figsize=(9.6 if past else 5.2, 3.6), layout="constrained", dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if past else 1, squeeze=False)[0]
    x = [row.similarity for row in proposals]
    y = [row.predicted for row in proposals]
    ends = [[row.predicted - row.low for row in proposals], [row.high - row.predicted for row in proposals]]
    axes[0].errorbar(x, y, ends, fmt="o", markersize=4, linewidth=1, color="#2a6fb0")
    axes[0].axhline(proposals.best[1], linestyle="--", linewidth=1, color="#555555")
    axes[0].set_xlabel("similarity to the nearest measured item")
    font = font_file(proposals.column)
    axes[0].set_ylabel(proposals.column, font=font)
    if past is not None:
        mean, low, high, value = np.array(past.pairs).T
        axes[1].errorbar(value, mean, [mean - low, high - mean], fmt="o", markersize=4, linewidth=1, color="#b0562a")
        span = [min(value.min(), mean.min()), max(value.max(), mean.max())]
        axes[1].plot(span, span, linestyle="--", linewidth=1, color="#555555")
        axes[1].set_xlabel(f"measured {proposals.column}", font=font)
        axes[1].set_ylabel("predicted before")
    out = io.BytesIO()
    canvas.print_png(out)
    return out.getvalue()
