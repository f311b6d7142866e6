"""docs/results/benchmarks.md, from results.json alone: six numbers, what was promised by subject, and every row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common.benchmark import entries, subject_title
from benchmarks.common.results import load

Rows = Sequence[Mapping[str, Any]]
Found = Mapping[str, Sequence[Mapping[str, Any]]]  # by benchmark, what each machine measured, the newest last
NO_PROMISE = re.compile(r"|stated|\(a ceiling\)|trains in .*")  # goals of rows that promise nothing
WIDE = 90  # characters of a cell that is read at a glance


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def folded(summary: str, text: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{text}\n\n</details>"


# --------------------------------------------------------------------------- the six numbers

NUMBER = r"(-?[\d,.]*\d)"


@dataclass(frozen=True)
class Headline:
    """One row of a benchmark, chosen by the beginning of its description. Shown is the first number of each side, or
    what `pattern` finds on the peer's side."""

    text: str
    file: str
    benchmark: str
    what: str
    peer: str
    pattern: str = NUMBER


HEADLINES = (
    Headline(
        "**Text**: tiny-Shakespeare in 5 minutes of one core, nats a character (lower is better)",
        file="minutes",
        benchmark="tiny-Shakespeare",
        what="nats a character, 5 min of one core, seed 0",
        peer="Hugging Face Trainer, as long",
    ),
    Headline(
        "**Images**: clothes of 28x28 in 10 minutes of two cores, KID x1000 (lower is better)",
        file="fashion",
        benchmark="fashion, flow",
        what="KID x1000, 10 min",
        peer="example of diffusers, as long",
    ),
    Headline(
        "**Sounds**: spoken digits in 15 minutes of one core, share that Whisper hears right",
        file="spoken",
        benchmark="spoken digits, flow",
        what="digit heard by Whisper among ten",
        peer="real recordings",
        pattern=r"real ([\d.]+)",
    ),
    Headline(
        "**Speed**: tokens a second of a 12M decoder in int8 on one core",
        file="decoding",
        benchmark="12M decoder, decoding",
        what="tokens a second of one sequence, 32 + 256 tokens, int8",
        peer="llama.cpp, q8_0",
    ),
    Headline(
        "**Alignment**: seconds a step of DPO on 32 pairs (lower is better)",
        file="steer",
        benchmark="steering, speed",
        what="DPO of 32 pairs",
        peer="TRL",
    ),
    Headline(
        "**A failure**: emoji in 30 minutes of one core, share matched to their caption among 32",
        file="emoji",
        benchmark="emoji, flow",
        what="asked caption among 32",
        peer="real emoji",
        pattern=r"floor ([\d.]+)",
    ),
)


def headlines() -> str:
    """The six numbers of the README: what a reader asks first, one of them a failure."""
    runs, rows, machines = load(), [], []
    for h in HEADLINES:
        newest = runs[h.file][-1]
        row = compared([r for r in newest["rows"] if r["benchmark"] == h.benchmark and r["what"].startswith(h.what)])
        ours, theirs = number(NUMBER, row["ours"]), number(h.pattern, row["theirs"])
        ratio = f"{float(ours.replace(',', '')) / float(theirs.replace(',', '')):.2f}"
        of_ratio = row["ratio"] is not None and re.fullmatch(r"at (most|least) [\d.]+", row["goal"])
        goal = f"ratio {row['goal']}" if of_ratio else row["goal"]
        rows.append((h.text, ours, f"{theirs} ({h.peer})", ratio, goal, "yes" if row["reached"] else "**no**"))
        machines.append(newest["machine"])
    assert any("no" in r[-1] for r in rows), "one of the six headline numbers must be a failure"
    head = ("Measured", "afresh", "beside", "ratio", "goal", "reached")
    return f"{markdown(head, rows)}\n\nMachine: {'; '.join(dict.fromkeys(machines))}."


def compared(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of rows that measure the same, the one with a ratio to a peer."""
    assert rows, "results.json lacks a row that the README shows"
    return next((r for r in rows if r["ratio"] is not None), rows[0])


def number(pattern: str, text: str) -> str:
    hit = re.search(pattern, text)
    assert hit, f"no number like {pattern} in {text!r}"
    return hit[1]


# --------------------------------------------------------------------------- what was promised


def promises(rows: Rows) -> list[list[Mapping[str, Any]]]:
    """Rows with a goal, those that promise the same together: of several seeds, sizes, families or data sets."""
    alike: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for r in rows:
        if not NO_PROMISE.fullmatch(r["goal"]):
            about = re.sub(r"[\d.,]+", "", re.split(r"[;,:]", r["what"])[0])
            alike.setdefault((r["benchmark"].partition(",")[0], about, r["goal"]), []).append(r)
    return list(alike.values())


def promise(rows: Rows) -> list[str]:
    """The cells of a promise: one that was missed, if there is one, speaks for all."""
    missed = [r for r in rows if not r["reached"]]
    r = (missed or rows)[0]
    kept = len(rows) - len(missed)
    reached = ("yes" if kept else "**no**") if len(rows) == 1 else f"{kept} of {len(rows)}"
    if missed and len(rows) > 1:
        reached = f"**{reached}**"
    return [
        short(f"{r['benchmark']}: {r['what']}"),
        r["goal"],
        short(r["ours"]),
        short(r["theirs"]),
        reached,
        short(r["n"], 40),
    ]


def short(text: str, wide: int = WIDE) -> str:
    """What stands before the first semicolon, cut at a word."""
    text = text.partition(";")[0]
    return text if len(text) <= wide else text[:wide].rsplit(" ", 1)[0].rstrip(",:(") + " …"


# --------------------------------------------------------------------------- every row


def every_row(runs: Mapping[str, Any]) -> str:
    """Every row of a machine, by benchmark, and when each was measured."""
    rows = []
    for name in sorted(runs):
        for r in runs[name]["rows"]:
            ratio = "" if r["ratio"] is None else f"{r['ratio']:.2f}"
            reached = "" if NO_PROMISE.fullmatch(r["goal"]) else "yes" if r["reached"] else "no"
            rows.append([r["benchmark"], r["what"], r["ours"], r["theirs"], ratio, r["goal"], reached, r["n"]])
    head = ("benchmark", "what", "afresh", "beside", "ratio", "goal", "reached", "n")
    when = ", ".join(f"{name} ({runs[name]['when']})" for name in sorted(runs))
    return f"{markdown(head, rows)}\n\n{when}."


def side_by_side(found: Found) -> str:
    """What was measured on more than one machine: a column for each. What stands after a semicolon in a row may differ.
    Empty if there is no such row."""
    rows: dict[tuple[str, str], dict[str, list[str]]] = {}
    for runs in found.values():
        for run in runs:
            for r in run["rows"]:
                cells = rows.setdefault((r["benchmark"], r["what"].partition(";")[0]), {})
                cells.setdefault(run["machine"], []).append(r["ours"])
    shared = {k: cells for k, cells in rows.items() if len(cells) > 1}
    every = sorted({machine for cells in shared.values() for machine in cells})
    lines = [f"| benchmark | what | {' | '.join(every)} |", "|---|---|" + "---|" * len(every)]
    for (benchmark, what), cells in sorted(shared.items()):
        each = (" or ".join(dict.fromkeys(cells.get(m, []))) for m in every)
        lines.append(f"| {benchmark} | {what} | {' | '.join(each)} |")
    return "\n".join(lines) if shared else ""


# --------------------------------------------------------------------------- the page


def subject_of(name: str) -> str:
    """The subject of a group of results, by the longest name of a benchmark that it begins with."""
    return max((e for e in entries() if name.startswith(e.name)), key=lambda e: len(e.name)).subject


def by_subject(found: Found) -> dict[str, dict[str, Sequence[Mapping[str, Any]]]]:
    out: dict[str, dict[str, Sequence[Mapping[str, Any]]]] = {}
    for name, runs in found.items():
        out.setdefault(subject_of(name), {})[name] = runs
    return dict(sorted(out.items(), key=lambda pair: subject_title(pair[0])))


def subject_part(subject: str, found: Found) -> str:
    """A row for each promise by the newest measurement, and every row of every machine, folded."""
    kept = [p for runs in found.values() for p in promises(runs[-1]["rows"])]
    rows = [promise(p) for p in kept]
    each = [r for p in kept for r in p]
    reached = f"{sum(r['reached'] for r in each)} of {len(each)} goals reached."
    parts = [
        f"## {subject_title(subject)}",
        reached,
        markdown(("Promise", "Goal", "afresh", "beside", "reached", "n"), rows),
    ]
    for machine in sorted({run["machine"] for runs in found.values() for run in runs}):
        here = {name: run for name, runs in found.items() for run in runs if run["machine"] == machine}
        count = sum(len(run["rows"]) for run in here.values())
        parts.append(folded(f"{machine}: all {count} rows", every_row(here)))
    return "\n\n".join(parts)


def page(found: Found | None = None) -> str:
    """The page of these results, or of those that are kept."""
    found = load() if found is None else found
    intro = (
        "Made by `make bench` and `make docs` from `benchmarks/results.json`; not edited by hand. Both sides of a row\n"
        "are measured in one session on one machine. Goals were set before measuring; those that were missed stand\n"
        "here, too. Where several rows promise the same, one stands for all, a missed one before others; every row is\n"
        "folded below. What was measured once stands in [what was tried once](tried.md)."
    )
    parts = ["# Benchmarks", intro, "## Six numbers", headlines()]
    parts += [subject_part(subject, own) for subject, own in by_subject(found).items()]
    if both := side_by_side(found):
        parts += ["## Processors side by side", folded("What was measured on more than one machine", both)]
    return "\n\n".join(parts) + "\n"
