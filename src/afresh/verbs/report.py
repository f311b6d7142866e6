"""The report of a run: samples, previews, curves, scores and settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from afresh.core import Family, Word, events, registry
from afresh.core.errors import left_out
from afresh.data.advice import shortage
from afresh.data.image.kind import png_bytes
from afresh.data.storage.files import write_json
from afresh.engine.alignment.monitoring.report import Alignment, alignment
from afresh.engine.evaluation.curves import Curves
from afresh.engine.evaluation.report import Sample, Section, png_size, write_report
from afresh.engine.evaluation.study import Measurement
from afresh.engine.evaluation.time_budget import Effort
from afresh.engine.evaluation.verdict import Help, KnownFacts, Verdict, train_command, verdict
from afresh.engine.sampling.request import Request
from afresh.engine.sampling.samples import Samples, caption_of, preview_wav
from afresh.engine.training.best_checkpoint import REWARD, read_choice
from afresh.engine.training.checkpoint import newest, progress_of
from afresh.engine.training.family_choice import FamilyCurves as Reached
from afresh.engine.training.family_choice import curves_for
from afresh.engine.training.usage_meter import UsageMeter
from afresh.runs.about import AboutRun, DrawnSamples, previews
from afresh.runs.data_lineage import learnt_from
from afresh.runs.manifest import REPORTED, changing
from afresh.runs.run import Run
from afresh.services.labels.run_label import label_of
from afresh.services.labels.words import rows_of
from afresh.verbs.sample import Sampler
from afresh.verbs.sharing_licence import licence_sum
from afresh.verbs.use_command import next_commands, use_command

MAX_IMAGES = 60
FEW_IMAGES, SHORT = 20, 4.0  # images of the report of a run of fewer minutes than SHORT
MAX_TEXTS = 4
LOADED = 200_000_000  # parameters of a run of which the label of its report reads the weights
CAUTION = 0.5  # of the examples of a run: what another family is assumed to see in the same minutes
MUCH = 0.5  # of a family's expected score: another one is proposed if its own is below
PROGRAM, BROKEN = "def f():\n    return 1\n", "def f(:\n"  # encoders of Python accept only the first


def sample_views(samples: Samples, caption: str = "") -> list[Sample]:
    """Samples in the form in which a report shows them: images in one group, or a few texts one by one.

    Samples that can be rendered as audio get a player.
    """
    encoder, kind = samples.encoder, samples.encoder.kind
    few = slice(MAX_TEXTS if kind.view == "text" else None)
    values, views = samples.values[few], []
    python = "python" if encoder.valid(PROGRAM) and not encoder.valid(BROKEN) else ""
    for value, preview, request in zip(values, kind.previews(values), samples.described[few], strict=True):
        label, prompt = caption_of(request), request.get("prompt") or ""
        wav = preview_wav(encoder, prompt + value if prompt else value)
        if preview.image is not None:
            below = ", ".join(filter(None, (label, preview.text)))
            views.append(Sample(png=png_bytes(preview.image), caption=below, group=caption, wav=wav))
            continue
        views.append(
            Sample(text=preview.text, prompt=prompt, caption=label or caption, language=label or python, wav=wav)
        )
    return views


def alignment_of(about: AboutRun) -> Alignment | None:
    """What the alignment of a run has reached; None if it was not aligned, or nothing was logged yet."""
    align = about.record.align
    return None if align is None else alignment(about.rows, align.asked_distance)


def curves_of(about: AboutRun) -> list[Curves]:
    """Charts of the losses of all players with the held-out loss, and of the gradient norms."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in about.rows:
        for name, value in row.items():
            if isinstance(value, int | float) and name not in ("step", "seconds"):
                lines.setdefault(name, []).append((row["step"], value))
    losses = {k.replace("_", " "): v for k, v in lines.items() if k.endswith("loss")}
    norms = {k.replace("_", " "): v for k, v in lines.items() if k.endswith("gradient_norm")}
    charts = []
    if losses:
        charts.append(Curves(losses, y_label="loss", title="Loss"))
    if norms:
        charts.append(Curves(norms, y_label="norm", title="Gradient norm", log_y=True))
    return charts


def previews_of(run: Run) -> list[tuple[int, bytes | str]]:
    """The previews that were sampled during training, oldest first, as (step, PNG or text). Damaged ones are left out
    with a warning."""
    found: list[tuple[int, bytes | str]] = []
    for file in previews(run.path):
        if file.suffix == ".png":
            png = file.read_bytes()
            try:
                png_size(png)
            except ValueError as e:
                events.warning(f"{file} is damaged and is left out: {e}.")
            else:
                found.append((int(file.stem), png))
        else:
            found.append((int(file.stem), file.read_text("utf-8", "replace")))
    return found


def section(
    run: Run,
    views: Sequence[Sample],
    measured: Measurement | None = None,
    title: str = "",
    subtitle: str = "",
) -> Section:
    """The section of a report about a run, with the samples first."""
    about, r, data = AboutRun(run), run.record, run.record.data
    aligned = alignment_of(about) or Alignment()
    return Section(
        title=title or run.path.name,
        subtitle=subtitle,
        verdict=None if measured is None else run_verdict(run, measured),
        facts=[
            ("modality", r.modality),
            ("family", about.family),
            ("parameters", r.parameters),
            *about.origin,
            ("steps", max((row["step"] for row in about.rows), default=0)),
            ("training seconds", round(about.seconds, 1)),
            ("seed", r.seed),
            *aligned.facts,
        ],
        samples=list(views),
        previews=previews_of(run),
        curves=[*curves_of(about), *aligned.curves],
        scores=[] if measured is None else list(measured.scores),
        not_measured=() if measured is None else tuple(measured.failed.items()),
        plan=r.decisions,
        card={} if measured is None else measured.card.model_dump(mode="json"),
        data=[
            ("path", Path(data.path).name),
            ("training items", data.train),
            ("held-out items", data.heldout),
            ("training bytes", data.train_bytes),
            ("split", data.split_hash[:16]),
            *((f"licences in {c.name}", licence_sum(c)) for c in learnt_from(r)),
        ],
        notes=[*data.notes, *(() if measured is None else measured.notes), *chosen_weights(run), *aligned.notes],
        next_commands=next_commands(run),
    )


def stopped(run: Run) -> str:
    """The reason why training ended before its last step, or an empty string."""
    saved = newest(run.path / "checkpoints", ())
    return "" if saved is None else progress_of(saved).stopped


def final_record(run: Run, seconds: float, measured: Measurement | None) -> dict[str, Any]:
    """The final record that `train --json` prints, with the verdict if the run was measured."""
    about, base, align = AboutRun(run), run.record.base_model, run.record.align
    curve, aligned = about.heldout, alignment_of(about)
    return {
        **({} if measured is None else {"verdict": run_verdict(run, measured).json()}),
        "run": str(run.path),
        **{name: value for name, value in about.state.items() if name != "planned"},
        "seconds": round(seconds, 2),
        **({"stopped": why} if (why := stopped(run)) else {}),
        **({"sampling": used.model_dump()} if (used := read_choice(run.path)) is not None else {}),
        **({"base_model": base, "heldout_loss_before": curve[0], "heldout_loss": curve[-1]} if base and curve else {}),
        **({} if aligned is None or align is None else {"align": align.model_dump(mode="json"), **aligned.json}),
        "metrics": [] if measured is None else [asdict(s) for s in measured.scores],
    }


def run_verdict(run: Run, measured: Measurement) -> Verdict:
    """The verdict on a run from its scores. What would help most is looked up in what was measured of each family."""
    about, r, space = AboutRun(run), run.record, run.encoder.space
    minutes = r.minutes or about.seconds / 60
    reached = None if r.codec or r.base_model or r.align else curves_for(space, r.data.train)
    kind = run.encoder.kind
    enough = (0, "items") if r.base_model or r.align else registry.enough(r.modality)
    share, lacking = shortage(enough, kind, r.data.train, r.data.train_bytes)
    known = KnownFacts(
        plural=kind.plural,
        family=r.family,
        run=str(run.path),
        data="" if r.base_model or r.align else r.data.path,
        minutes=minutes or None,
        examples=r.train.batch * max((row["step"] for row in about.rows), default=0),
        wanted=run.family.plan.examples_wanted(r.parameters, run.training_space),
        side=max(space.shape[1:]) if space.kind == "field" and len(space.shape) == 3 and not space.timed else None,
        stream=space.stream,
        use="" if kind.use is None else use_command(run),
        divided=kind.division is not None,
        ended=r.align is None and bool(stopped(run)),
        taught=bool(r.base_model) and run.family.velocity is not None,
        share=share,
        lacking=lacking,
    )
    if reached is None:
        return verdict(measured, replace(known, remedies=remedies_of(run.family, known)))
    known = replace(known, remedies=remedies_of(run.family, known, reached))
    planned = any(name == "family" for name, _, _ in r.decisions)
    return verdict(measured, known, None if planned else better_family(known, reached))


def better_family(known: KnownFacts, reached: Reached) -> Help | None:
    """Another family that was measured to give recognisable samples, much nearer to real ones than the run's family,
    in about the same minutes. None without one."""
    if known.family not in reached.points or not known.examples:
        return None
    others = {f: reached.expected(f, round(CAUTION * known.examples)) for f in reached.points if f != known.family}
    best = min(others, key=lambda f: others[f], default=None)
    enough = min(reached.recognisable, MUCH * reached.expected(known.family, known.examples))
    if best is None or others[best] > enough:
        return None
    return Help(
        f"In the same minutes, the family {best} gives samples that one recognises, as measured on data like this.",
        train_command(known, known.minutes, family=best),
    )


def remedies_of(family: Family, known: KnownFacts, reached: Reached | None = None) -> dict[Word, Help]:
    """What a family proposes for words of the verdict, with the commands. A family that needs more minutes gets those
    after which it was measured to give recognisable samples, or else the proposed multiple."""
    out: dict[Word, Help] = {}
    for word, remedy in family.remedies.items():
        minutes = None if reached is None or remedy.times <= 1 else minutes_of(remedy.family, known, reached)
        command = train_command(known, minutes or remedy.times * (known.minutes or 5), family=remedy.family)
        out[word] = Help(remedy.sentence.format(plural=known.plural), command)
    return out


def minutes_of(family: str, known: KnownFacts, reached: Reached) -> float | None:
    """The minutes after which a family was measured to give recognisable samples, at CAUTION of the run's speed; None
    if they are not known. At least twice the minutes of the run."""
    enough = reached.enough(family) if family in reached.points else None
    if enough is None or not known.examples or not known.minutes:
        return None
    return max(2 * known.minutes, float(round(known.minutes * enough / (CAUTION * known.examples))))


def chosen_weights(run: Run) -> list[str]:
    """A note on the weights that sampling uses, if an aligned run ended worse than at an earlier evaluation."""
    found = read_choice(run.path)
    return [f"For this run, {found.described}."] if found is not None and found.metric == REWARD else []


@dataclass(frozen=True)
class ReportSamples:
    """The samples that a report shows, and what drawing them has used; None where they could not be drawn."""

    samples: Samples | None = None
    drawn: DrawnSamples | None = None


def report_samples(run: Run, seconds: float | None = None) -> ReportSamples:
    """The samples that the report of a run shows; fewer if the run had few minutes, which the report is a part of, and
    as many as can be drawn in `seconds`, at least one. What drawing uses is measured without reading the weights. A run
    that cannot draw has a report without samples."""
    count = MAX_TEXTS if run.encoder.kind.view == "text" else MAX_IMAGES
    if run.record.minutes is not None and run.record.minutes < SHORT:
        count = min(count, FEW_IMAGES)
    effort, tried = Effort(run.path.name, seconds), list[ReportSamples]()

    def draw(n: int) -> ReportSamples:
        effort.report("samples of the report")
        sampler, modules = Sampler(run, n, Request(), run.record.seed, {}), run.modules
        meter = UsageMeter(str(next(p for m in modules.values() for p in m.parameters()).device))
        samples = sampler()
        return ReportSamples(samples, DrawnSamples(works=len(samples), usage=meter.read()))

    with left_out("The report shows no samples."):
        count = effort.affordable(count, 1, 1.0, lambda: tried.append(draw(1)))
        return tried[-1] if tried and count == 1 else draw(count)
    return ReportSamples()


def write_run_report(run: Run, measured: Measurement | None, shown: ReportSamples | None = None) -> Path:
    """Write report.html, report.json and card.md to the run's folder, and aligned.json for an aligned run. `shown` is
    what `report_samples` returns, which is drawn if not given.

    Returns the path of the page.
    """
    shown = shown or report_samples(run)
    made = replace(
        section(run, [] if shown.samples is None else sample_views(shown.samples), measured),
        label=[*rows_of(label_of(run, shown.drawn, run.record.parameters <= LOADED))],
        drawn={} if shown.drawn is None else shown.drawn.model_dump(mode="json"),
    )
    with changing(run.path, REPORTED):
        if (found := alignment_of(AboutRun(run))) is not None:
            write_json(run.path / "aligned.json", found.json)
        return write_report(run.path / "report.html", run.path.name, [made])
