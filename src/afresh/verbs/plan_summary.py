"""What was chosen before training, in five lines for a person: the data, the model, the time, the result, and what to
be careful about. All decisions with their reasons are details of the same stream of events, and stand in run.json."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from afresh.core import Omission, events
from afresh.core.plural import counted
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.data.prepare import Prepared
from afresh.data.refusals import missed, sum_refusals
from afresh.engine.sampling.request import converses, writes_text
from afresh.engine.training.progress import clock
from afresh.engine.training.training_clock import compared
from afresh.runs.record import AlignRecord
from afresh.runs.run import Run
from afresh.verbs.capabilities import conditions
from afresh.verbs.choose_codec import SIZE
from afresh.verbs.training_job import Job

SIZES = ((1e6, "very small"), (10e6, "small"), (100e6, "medium"), (float("inf"), "large"))  # by parameters
SHOWN = 2  # reasons for leaving something out, and things to be careful about, that are shown in full
NAMED = 6  # conditions, and classes of a label


def report_summary(job: Job, advice: Sequence[str] = ()) -> None:
    """Report the lines of a run that is about to be trained as events. `advice`: what to know about the data."""
    run, aligned = job.run, job.run.record.align
    lines = {
        "data": data_line(job.prepared, run) if aligned is None else wish_line(aligned),
        "model": model_line(run),
        "time": time_line(job),
        "result": result_line(run),
        "careful": careful_line(job.prepared, advice) if aligned is None else "",
    }
    for name, text in lines.items():
        if text:
            events.note(f"{name}: {text}", "summary", subject=name)


def data_line(prepared: Prepared, run: Run) -> str:
    """What is learnt from, at which size and why, and what was left out."""
    train, heldout, plural = prepared.train_count, prepared.heldout_count, prepared.kind.plural
    text = f"{plural} from {prepared.path.name}: {train:,} to learn from, {heldout:,} held out to judge by"
    groups = sum_refusals(missed(prepared.refused))
    out = [f"{len(prepared.duplicates):,} exact {'copy' if len(prepared.duplicates) == 1 else 'copies'}"]
    out = out * bool(prepared.duplicates) + [group.line for group in groups[:SHOWN]]
    if rest := sum(group.count for group in groups[SHOWN:]):
        out.append(f"{rest:,} more for other reasons (`verbose`)")
    text += "".join(f"; {value} pixels a side ({why})" for name, value, why in run.record.decisions if name == SIZE)
    return text + (f"; left out: {'; '.join(out)}" if out else "")


def wish_line(wish: AlignRecord) -> str:
    """What an aligned model learns from: votes, or what it draws itself."""
    if wish.reward is None:
        return f"the votes in {Path(wish.preferences or '').name}"
    watched = "" if wish.heldout_reward is None else f", watched over by {wish.heldout_reward}"
    return f"what the model draws itself, judged by the reward {wish.reward}{watched}"


def model_line(run: Run) -> str:
    """Which model, how large, and what it begins with."""
    record = run.record
    size = next(word for most, word in SIZES if record.parameters < most)
    text = f"{record.family}" + (f", which {run.family.how}" if run.family.how else "")
    text += f"; {size}, with {record.parameters / 1e6:,.3g} million parameters"
    text += "" if record.codec_licence is None else f", on latents of {record.codec_licence.name}"
    if record.base_model is None:
        return f"{text}; begins with random weights"
    learns = "an adapter learns" if record.lora is not None else "all weights learn"
    text += f"; begins as {Path(record.base_model).name}, of which {learns}"
    return text if record.align is None else f"{text} by {record.align.method}"


def time_line(job: Job) -> str:
    """How long it takes, on what, and how often the data is seen."""
    record, train = job.run.record, job.run.train
    end, clocked = job.training_end(), job.clock
    place = f"on {'the processor' if train.device == 'cpu' else train.device}"
    if train.device == "cpu":
        place += f" with {counted(train.threads, 'thread')}"
    if record.minutes is None or end is None or clocked is None:
        text = f"{counted(train.steps, 'step')} {place}"
    else:
        took, whole = time.monotonic() - clocked.begun, clocked.all_seconds(record.minutes, job.fits)
        total = compared(max(whole, 60 * record.minutes), record.minutes)
        why = f" (reading and planning took {clock(took)})" if "instead" in total else ""
        text = f"{total} in all{why}, about {clock(end - time.monotonic())} of it to learn, {place}"
    if record.align is not None:
        return text
    passes = train.steps * train.batch / max(1, Loader(job.source.train, job.source.space, Rng(0)).count)
    return f"{text}; {seen(passes)}"


def seen(passes: float) -> str:
    """How much of the data is seen in so many passes over it, in words."""
    if passes < 0.95:
        return f"about {passes:.0%} of the data is seen"
    times = "once" if passes < 1.25 else f"{passes:,.2g} times" if passes < 10 else f"{passes:,.0f} times"
    return f"all of the data is seen about {times}"


def result_line(run: Run) -> str:
    """What the model will be able to do."""
    plural = run.encoder.kind.plural
    if run.encoder.kind.use is not None:
        able = [f"new {plural} and what follows on known ones"]
    elif converses(run.encoder, run.space):
        able = ["answers to messages"]
    elif writes_text(run.encoder, run.space):
        able = [f"new {plural}, and the continuation of what you begin (`prompt`)"]
    else:
        able = [f"new {plural}" + ("" if run.family.edit is None else ", and edits of yours")]
    if wishes := wishes_of(run):
        able.append(f"asked for by {', '.join(wishes)}")
    disk = "".join(f" ({value})" for name, value, _ in run.record.decisions if name == "disk")
    return f"{', '.join(able)}; kept in {run.path}{disk}"


def wishes_of(run: Run) -> list[str]:
    """The conditions of a run in words: the classes of its labels, the ranges of its numbers."""
    known, out = conditions(run), []
    for name, classes in known["labels"].items():
        more = f", and {len(classes) - NAMED:,} more" if len(classes) > NAMED else ""
        out.append(f"{name} ({', '.join(classes[:NAMED])}{more})")
    out += [f"{name} ({span['low']:.4g} to {span['high']:.4g})" for name, span in known["numbers"].items()]
    out += ["caption"] * known["caption"]
    out += known["images"] if run.encoder.kind.medium == "image" else []  # of fields, these are the states before
    return out[:NAMED] + ([f"{len(out) - NAMED:,} more"] if len(out) > NAMED else [])


def careful_line(prepared: Prepared, advice: Sequence[str]) -> str:
    """What to know before the time is spent: the first sentences of advice, and what reading left out of the data; the
    rest, and what to do, is a detail."""
    lost = [n for n in prepared.notes if isinstance(n, Omission)]
    said = [*(a for a in advice if not a.endswith("nothing to do")), *lost]
    others = len(said[SHOWN:]) + len([n for n in prepared.notes if n not in lost])
    if not said:
        return ""
    text = "; ".join(s.split(". ")[0].rstrip(".") for s in said[:SHOWN])
    more = f"and {counted(others, 'more note')}, " if others else ""
    return f"{text} ({more}what to do: `verbose`)"
