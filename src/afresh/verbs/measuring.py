"""Scores of a run under a protocol card."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from afresh.core import Cond, Drawn, Evidence, UserError, registry
from afresh.core.rng import Rng
from afresh.core.verb import Line, Remark, Table
from afresh.data.load import draw_requests, rows_at_once, sweep
from afresh.data.prepare import Prepared
from afresh.engine.evaluation.likelihood import scored_rows
from afresh.engine.evaluation.score_descriptions import words_of
from afresh.engine.evaluation.study import Measurement, Unmeasurable, measure
from afresh.engine.evaluation.time_budget import LATE, SAMPLING, Effort, OutOfTime
from afresh.engine.evaluation.verdict import Verdict, beside
from afresh.engine.training.network import precision
from afresh.runs.data import run_data
from afresh.runs.run import Run, join
from afresh.verbs.likelihoods import byte_likelihood, has_density

T = TypeVar("T")
DRAWN_AT_ONCE = 64  # samples between two reports of progress
LEAST_DRAWN = 2  # samples, without which nothing is measured, however long they take
DRAWING = 30.0  # seconds for drawing more samples than are usual, without a limit for the measurement
JUDGE_SEED = 1_000_003  # unlikely to be a user's seed, so that the scored samples are new ones


class RunEvidence:
    """Implements `core.Evidence` for a run and its data. What takes long is computed once, when it is first used."""

    def __init__(
        self, run: Run, prepared: Prepared, settings: Mapping[str, Any] | None = None, effort: Effort | None = None
    ) -> None:
        self.run, self.prepared, self.effort = run, prepared, effort or Effort()
        self.settings = run.settings(settings or {})
        self.rng = Rng(JUDGE_SEED)
        self.kind, self.space, self.conds = run.encoder.kind, run.encoder.space, run.conds
        self.train, self.heldout = prepared.train, prepared.heldout
        self.train_items, self.heldout_items = prepared.train_items, prepared.heldout_items
        self.limited = self.effort.seconds is not None
        self.drawn: dict[int, Drawn] = {}
        self.tools: dict[Callable[..., Any], Any] = {}

    def tool(self, make: Callable[[Any, Evidence], T], study: Evidence | None = None) -> T:
        if make not in self.tools:
            self.tools[make] = make(self.run, study or self)
        made: T = self.tools[make]
        return made

    def samples(self, n: int) -> Drawn:
        """Draw n samples under conditions that occur as in the training split."""
        if n not in self.drawn:
            self.draw(n)
        return self.drawn[n]

    def draw(self, n: int, seconds: float | None = None) -> int:
        """Draw n samples, or as many of them as `seconds` allow, and return their number, at least LEAST_DRAWN.

        With a limit, the first draw is of one sample, and each one says how large the next may be.
        """
        cond, parts, done, begun = draw_requests(self.train, n, self.rng), list[Tensor](), 0, time.monotonic()
        rows = DRAWN_AT_ONCE if seconds is None else 1
        while done < n:
            self.effort.report("samples are drawn", done / n)
            rows, before = min(rows, n - done), time.monotonic()
            numbers = torch.arange(done, done + rows)
            parts.append(self.run.draw(self.run.modules, cond.select(numbers), JUDGE_SEED, self.settings, numbers))
            done += rows
            if seconds is not None:
                now = time.monotonic()
                fits = int((begun + seconds - now) / max(1e-9, now - before) * rows / 2)
                if fits < 1 and done >= LEAST_DRAWN:
                    break
                rows = max(1, min(DRAWN_AT_ONCE, fits))
        self.keep(done, join(parts, self.run.encoder.space), cond)
        return done

    def keep(self, n: int, x: Tensor, cond: Cond) -> None:
        """Keep the first n samples."""
        self.drawn[n] = Drawn(x[:n], self.run.encoder.decode(x[:n]), cond.select(torch.arange(n)))

    def likelihood(self) -> tuple[Tensor, Tensor] | None:
        """Negative log-likelihoods in nats, and the numbers of tokens or values that they refer to.

        For models of tokens, (W,) each for the windows of the held-out split; for fields of bytes, (n,) each for the
        rows that `scored_rows` selects. None if the run has no likelihood.
        """
        likelihood, run = self.run.family.likelihood, self.run
        if likelihood is None:
            return None
        if run.space.kind == "tokens":
            return self.nats
        return self.density if has_density(run, self.heldout) else None

    def token_nats(self) -> Tensor | None:
        """Negative log-likelihood in nats of each counted token of the held-out split, (N,), in its order; None if the
        family does not tell that of single tokens."""
        run, likelihood = self.run, self.run.family.likelihood
        if likelihood is None or likelihood.tokens is None or run.codec is not None or run.space.kind != "tokens":
            return None
        out = []
        with torch.no_grad(), precision(run.train):
            for batch in sweep(self.heldout, run.space, rows_at_once(self.heldout, run.space, 32)):
                self.effort.report("held-out tokens")
                if self.effort.over:
                    raise Unmeasurable(LATE)
                on_device = batch.to(run.train.device)
                found = likelihood.tokens(run.modules, run.config, run.space, on_device, Rng(0)).cpu()
                out.append(-found if batch.mask is None else -found[batch.mask])
        return torch.cat([o.flatten() for o in out])

    @property
    def bound(self) -> bool:
        """Whether the nats are only an upper bound of the negative log-likelihood."""
        likelihood = self.run.family.likelihood
        return likelihood is not None and likelihood.bound

    @cached_property
    def density(self) -> tuple[Tensor, Tensor]:
        """Nats (n,) of bytes under the run's density of x, and the number of values of each example (n,)."""
        held = self.heldout
        rows = scored_rows(held)
        total = -byte_likelihood(self.run, held, rows, rows, self.rng)
        return total, torch.full_like(total, held.x[0].numel())

    @cached_property
    def nats(self) -> tuple[Tensor, Tensor]:
        run, codec = self.run, self.run.codec
        likelihood = run.family.likelihood
        assert likelihood is not None
        heldout = self.heldout if codec is None else codec.encode(self.heldout)
        nats, tokens = [], []
        with torch.no_grad(), precision(run.train):
            for batch in sweep(heldout, run.training_space, rows_at_once(heldout, run.training_space, 32)):
                self.effort.report("held-out likelihood")
                if self.effort.over:  # a part of the split would be another score
                    raise Unmeasurable(LATE)
                on_device = batch.to(run.train.device)
                nats.append(-likelihood.score(run.modules, run.config, run.space, on_device, Rng(0)).cpu().double())
                targets = batch.x[:, 1:]
                counted = torch.ones_like(targets) if batch.mask is None else batch.mask
                tokens.append(counted.sum(1))
        return torch.cat(nats), torch.cat(tokens)

    def valid(self, value: Any) -> bool:
        return self.run.encoder.valid(value)


def measure_run(
    run: Run,
    data: Path | None = None,
    n: int | None = None,
    prepared: Prepared | None = None,
    settings: Mapping[str, Any] | None = None,
    judges: Path | None = None,
    seconds: float | None = None,
) -> Measurement:
    """Score a run on its held-out split, or on `data`, with n samples.

    By default, n is the number of held-out items, limited to between 64 and 1,000, or 32 for a stream. Of items that
    `Abilities.samples` says to draw more of, it is as many as are drawn in DRAWING seconds, rounded down to 1, 2 or 5
    times a power of ten, so that cards are equal.

    `prepared`: the run's data, if it has already been read. `judges`: the folder for trained encoders, by default in
    the run's folder; several runs on the same data may share one. `seconds`: a limit; with it, there are fewer samples,
    encoders learn for less long, and the last metrics may be left out, so such scores are not compared with those of a
    full measurement (the card says how they were measured).

    Raises UserError if the data is missing or has changed, and for n < 2.
    """
    prepared = prepared or run_data(run, data)
    if n is not None and n < 2:
        raise UserError(f"Measuring needs at least 2 samples. Given: {n}.")
    many = run.encoder.abilities.samples
    usual = 32 if run.space.stream else max(64, min(1000, len(prepared.heldout_items)))
    count = n or many or usual
    effort = Effort(run.path.name, seconds)
    effort.report("samples are drawn")
    evidence = RunEvidence(run, prepared, settings, effort)
    if n is None and seconds is not None:
        try:
            with effort.bounded():
                count = evidence.draw(count, SAMPLING * seconds)
        except (OutOfTime, UserError):  # which each metric that needs samples names as its reason
            count = LEAST_DRAWN
    elif n is None and many:
        drawn = evidence.drawn[evidence.draw(count, DRAWING)]
        count = rounded_down(len(drawn.x))
        evidence.keep(count, drawn.x, drawn.cond)
    sampling = {"family": run.record.family, **evidence.settings.model_dump()}
    measured = measure(
        evidence,
        registry.metrics(run.record.modality),
        count,
        modality=run.record.modality,
        sampling=sampling,
        folder=judges or run.path / "judges",
        effort=effort,
    )
    effort.report("", 1.0, ended=True)
    return measured


def rounded_down(n: int) -> int:
    """The largest of 1, 2 or 5 times a power of ten that is at most n."""
    unit = 10 ** (len(str(n)) - 1)
    return unit * next(k for k in (5, 2, 1) if k * unit <= n)


# --------------------------------------------------------------------------- the result of the verb


class Measured(dict[str, Any]):
    """How good a run is, as plain values ({verdict, card, metrics, skipped, notes}); `verdict` and `measurement` are
    the objects behind them."""

    def __init__(self, verdict: Verdict, measurement: Measurement) -> None:
        super().__init__({"verdict": verdict.json(), **measurement.json()})
        self.verdict, self.measurement = verdict, measurement

    @property
    def notes(self) -> Sequence[str]:
        return self.measurement.notes

    def __repr__(self) -> str:
        """The verdict and the main scores, one a line, with their intervals and references."""
        main = [score for score in self.measurement.scores if "/" not in score.name]
        words = words_of((score.name for score in main), self.measurement.card.modality)
        rows = [(words[s.name].name, beside(s)) for s in main]
        width = max((len(name) for name, _ in rows), default=0)
        table = [f"  {name:<{width}}  {value}" for name, value in rows]
        return "\n".join([f"{self.verdict.word}: {self.verdict.sentence}", self.verdict.help, *table])

    def json(self) -> dict[str, Any]:
        return dict(self)

    def lines(self) -> list[Line]:
        """The verdict, a table of the scores, what could not be measured of this kind of data, and the card."""
        out = verdict_lines(self.verdict)
        if self.measurement.scores:
            columns = ["", "value", "interval", "n", "better", "real data", "control"]
            rows = [score.row() for score in self.measurement.scores]
            out.append(Table(columns, rows, right=(1, 2, 3, 5, 6), wrap=(0,)))
        reasons: dict[str, list[str]] = {}
        for name, reason in self.measurement.failed.items():
            reasons.setdefault(reason, []).append(name)
        out += [Remark(f"not measured: {', '.join(names)} ({reason})") for reason, names in reasons.items()]
        card = self.measurement.card
        card_line = (
            f"card {card.id}: {card.samples:,} samples against {card.reference_size:,} of the {card.reference}, split "
            f"{card.split[:12]}, seed {card.seed}"
        )
        return [*out, Remark(card_line)]

    def files(self) -> dict[str, bytes]:
        return {}


def verdict_lines(verdict: Verdict) -> list[Line]:
    """The verdict in a word, why, and what would help most, with its command on a line of its own."""
    command = [f"    {verdict.command}"] if verdict.command else []
    word = f"verdict: {verdict.word}. {verdict.sentence}"
    return [word, f"what would help most: {verdict.help}", *command]
