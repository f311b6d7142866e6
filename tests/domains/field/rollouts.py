"""Rollouts of waves whose future is known, as the evidence of metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from afresh.core import Cond, Drawn
from afresh.domains.field.held_rollouts import HeldRollouts, Noise, held_rollouts
from afresh.domains.field.kind import FIELD
from afresh.domains.field.modality import MODALITY, FieldOptions, items_of
from afresh.domains.field.reading.options import ReadingOptions
from afresh.domains.field.reading.read import read_fields
from tests.domains.field.drifting import write_drifting
from tests.engine.evaluation.evidence import Evidence

MEMBERS = 15


def forecaster(folder: Path, spread: float = 1.0, error: float = 1.0) -> Evidence:
    """A model whose members differ from a state by noise of deviation `spread`, as the truth does by `error`.

    The state is that of waves which drift by as much in each step, so that simpler models know it as well.
    """
    path = write_drifting(folder / "waves", 40, 9, points=24)
    options = FieldOptions(**{**ReadingOptions().model_dump(), "periodic": ("yes",)})
    fields = read_fields(path, options.reading).fields
    items = list(items_of(fields, 1))
    groups = sorted({str(i.group) for i in items})
    train = [i for i in items if i.group in groups[:30]]
    held = [i for i in items if i.group not in groups[:30]]
    encoder = MODALITY.fit(train, options)
    splits = encoder.encode(train), encoder.encode(held)
    rng = np.random.default_rng(0)
    known = splits[1].x.double().numpy().reshape(10, 8, 1, 24)
    learnt = splits[0].x.double().numpy().reshape(30, 8, 1, 24)
    truth = known + error * rng.normal(size=known.shape)
    members = known + spread * rng.normal(size=(MEMBERS, *known.shape))
    found = HeldRollouts(
        encoder,
        truth,
        members,
        {"persistence": np.repeat(known[:, :1], 8, 1)},
        learnt[rng.integers(0, 30, (MEMBERS, 10))],
        learnt,
        Noise(),
        np.zeros(MEMBERS * 10, np.intp),
    )
    drawn = Drawn(splits[1].x[:1], [held[0].value], Cond(1))
    return Evidence(
        encoder.space,
        encoder.conds,
        *splits,
        train,
        held,
        lambda n: drawn,
        accepts=encoder.valid,
        kind=FIELD,
        tools={held_rollouts: found},
    )
