"""What a type checker sees of `import afresh` in a script of a user. `make types` checks this file; nothing runs it.

An `ignore` that hides nothing is an error, so the last two lines must be errors of just these kinds.
"""

from __future__ import annotations

from typing import assert_type

import afresh
from afresh.api import Model
from afresh.engine.sampling.samples import Samples
from afresh.verbs.likelihoods import Scores

model = afresh.train("x")
assert_type(model, Model)
samples = model.sample(2)
assert_type(samples[0:1], Samples)
assert_type(model.score("a"), Scores)
assert_type(model.score("a").nats, list[float])
assert_type(afresh.list_models(), list[Model])
misspelt = afresh.tarin  # type: ignore[attr-defined]
model.sample(n="2")  # type: ignore[arg-type]
