"""The verb `measure`: a run's evidence, its scores under a protocol card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from afresh.core import Batch, CondSpec, Drawn, Examples, Item, ItemKind, Space, UserError, registry
from afresh.core.rng import Rng
from afresh.data.load import draw_requests, rows_at_once, sweep
from afresh.data.prepare import Prepared
from afresh.evaluation.likelihood import scored_rows
from afresh.evaluation.study import Measurement, measure
from afresh.runs.data import run_data
from afresh.runs.run import Run
from afresh.sampling.density import bits_per_dim, dequantised
from afresh.tasks.complete import FILL_IN, Hole, complete_many, mode_of
from afresh.training.loop import precision

JUDGE_SEED = 1_000_003  # samples that are judged are not those that a user drew


class RunEvidence:
    """core.Evidence for a run and its data. Everything is computed when first asked for, and once."""

    def __init__(self, run: Run, prepared: Prepared, settings: Mapping[str, Any] | None = None) -> None:
        self.run, self.prepared = run, prepared
        self.settings = run.settings(settings or {})
        self.rng = Rng(JUDGE_SEED)
        self.drawn: dict[int, Drawn] = {}

    @property
    def kind(self) -> ItemKind:
        return self.run.encoder.kind

    @property
    def space(self) -> Space:
        return self.run.encoder.space

    @property
    def conds(self) -> CondSpec:
        return self.run.conds

    @property
    def train(self) -> Examples:
        return self.prepared.train

    @property
    def heldout(self) -> Examples:
        return self.prepared.heldout

    @property
    def train_items(self) -> Sequence[Item]:
        return self.prepared.train_items

    @property
    def heldout_items(self) -> Sequence[Item]:
        return self.prepared.heldout_items

    def samples(self, n: int) -> Drawn:
        """n samples under conditions drawn as in the training split."""
        if n not in self.drawn:
            cond = draw_requests(self.train, n, self.rng)
            x = self.run.draw(self.run.modules, cond, JUDGE_SEED, self.settings)
            self.drawn[n] = Drawn(x, self.run.encoder.decode(x), cond)
        return self.drawn[n]

    def likelihood(self) -> tuple[Tensor, Tensor] | None:
        """For models of tokens nats and tokens of every window of the held-out split, (W,) each; of a field of bytes
        nats and values of the pictures that `scored_rows` names."""
        likelihood, run = self.run.family.likelihood, self.run
        if likelihood is None:
            return None
        if run.space.kind == "tokens":
            return self.nats
        bytes_ = self.heldout.x.dtype == torch.uint8 and run.codec is None
        return self.density if likelihood.density is not None and bytes_ else None

    @property
    def bound(self) -> bool:
        """Whether the nats are only an upper bound."""
        likelihood = self.run.family.likelihood
        return likelihood is not None and likelihood.bound

    @cached_property
    def density(self) -> tuple[Tensor, Tensor]:
        """Nats (n,) of bytes under the run's density of x, and how many values each example has."""
        run, held = self.run, self.heldout
        likelihood = run.family.likelihood
        assert likelihood is not None and likelihood.density is not None
        found, dims = [], held.x[0].numel()
        for rows in scored_rows(held).split(16):
            x = held.x[rows].float() * held.scale + held.shift
            x = dequantised(x, held.scale, self.rng, rows)
            batch = Batch(x, held.cond.select(rows), rows).to(run.train.device)
            nats = likelihood.density(run.modules, run.config, run.space, batch, self.rng)
            found.append(bits_per_dim(nats.double().cpu(), dims, held.scale) * dims * math.log(2))
        nats = torch.cat(found)
        return nats, torch.full_like(nats, dims)

    @cached_property
    def nats(self) -> tuple[Tensor, Tensor]:
        run, codec = self.run, self.run.codec
        likelihood = run.family.likelihood
        assert likelihood is not None
        heldout = self.heldout if codec is None else codec.encode(self.heldout)
        nats, tokens = [], []
        with torch.no_grad(), precision(run.train):
            for batch in sweep(heldout, run.training_space, rows_at_once(heldout, run.training_space, 32)):
                there = batch.to(run.train.device)
                nats.append(-likelihood.score(run.modules, run.config, run.space, there, Rng(0)).double().cpu())
                targets = batch.x[:, 1:]
                counted = torch.ones_like(targets) if batch.mask is None else batch.mask
                tokens.append(counted.sum(1))
        return torch.cat(nats), torch.cat(tokens)

    def valid(self, value: Any) -> bool:
        return self.run.encoder.valid(value)

    def complete(self, holes: Sequence[tuple[str, str, str]]) -> list[str] | None:
        """The likeliest text between two others, in a file of some name; None for a run that never learnt to."""
        if mode_of(self.run) != FILL_IN:
            return None
        made, _, _ = complete_many(self.run, [Hole(*h) for h in holes], seed=JUDGE_SEED, temperature=0.0)
        return [c.text for c in made]


def measure_run(
    run: Run,
    data: Path | None = None,
    n: int | None = None,
    prepared: Prepared | None = None,
    settings: Mapping[str, Any] | None = None,
    judges: Path | None = None,
) -> Measurement:
    """Judge a run on its held-out split, or on `data`, with n samples (as many as there are held-out items, from 64
    to 1,000; 32 of a stream). `prepared` saves reading the data again; `judges` is where
    encoders are kept (the run's own folder, unless several runs on the same data share them).

    Raises UserError when the data is gone, or for n < 2.
    """
    found = prepared or run_data(run, data)
    if n is not None and n < 2:
        raise UserError(f"Measuring needs at least 2 samples. Given: {n}.")
    count = n or (32 if run.space.stream else max(64, min(1000, len(found.heldout_items))))
    evidence = RunEvidence(run, found, settings)
    sampling = {"family": run.record.family, **evidence.settings.model_dump()}
    return measure(
        evidence,
        registry.metrics(),
        count,
        modality=run.record.modality,
        sampling=sampling,
        folder=judges or run.path / "judges",
    )
