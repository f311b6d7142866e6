"""Fields as items: what is told of a state, units, splits, and conditions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from afresh.core import Batch, UserError
from afresh.core.rng import Rng
from afresh.data.prepare import prepare
from afresh.domains.field.encoder import PAST, FieldEncoder
from afresh.domains.field.modality import MODALITY, FieldOptions
from tests.domains.field.drifting import write_drifting


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_drifting(tmp_path / "data")


def test_each_state_follows_those_before(data: Path) -> None:
    prepared = prepare(data, None, {"history": 2})
    encoder = prepared.encoder
    assert prepared.modality == "field" and isinstance(encoder, FieldEncoder)
    assert encoder.space.shape == (1, 16) and encoder.space.periodic == (True,)
    part = encoder.conds[PAST]
    assert part.persists and part.shape == (2, 16)
    past = prepared.train.cond.parts[PAST]
    for item, x, before in zip(prepared.train_items, prepared.train.x, past, strict=True):
        torch.testing.assert_close(encoder.unit(item.images[PAST]), before)
        np.testing.assert_allclose(encoder.physical(x), item.value, rtol=1e-4, atol=1e-5)
    scale = float((prepared.train.x - past[:, 1:]).square().mean().sqrt())
    assert part.std == pytest.approx(scale, rel=1e-4)


def test_values_have_unit_deviation_over_the_training_split(data: Path) -> None:
    x = prepare(data, None, {}).train.x
    assert float(x.mean()) == pytest.approx(0, abs=1e-4) and float(x.std()) == pytest.approx(1, rel=1e-2)


def test_trajectories_stay_on_one_side(data: Path) -> None:
    prepared = prepare(data, None, {})
    sides = [{item.group for item in items} for items in (prepared.train_items, prepared.heldout_items)]
    assert not sides[0] & sides[1] and all(sides)


def test_of_a_single_trajectory_the_end_is_held_out(tmp_path: Path) -> None:
    data = write_drifting(tmp_path / "data", trajectories=1, steps=100)
    prepared = prepare(data, None, {})
    sides = (prepared.train_items, prepared.heldout_items)
    learnt, held = ([int(item.source.split()[-1]) for item in items] for items in sides)
    assert max(learnt) < min(held) - 1


def test_parameters_and_inputs_are_conditions(tmp_path: Path) -> None:
    data = write_drifting(tmp_path / "data", speeds=True, mask=True)
    prepared = prepare(data, None, {})
    conds = prepared.encoder.conds
    assert conds["speed"].kind == "number" and conds["terrain"].kind == "aligned" and not conds["terrain"].persists
    terrain = prepared.train.cond.parts["terrain"]
    assert float(terrain.mean()) == pytest.approx(0, abs=1e-4)


def test_pairs_without_time_have_no_past(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((20, 8, 8)) > 0.5
    np.savez(tmp_path / "pairs.npz", x=x, y=np.cumsum(x, 1) + rng.normal(size=x.shape) * 0.1)
    prepared = prepare(tmp_path / "pairs.npz", "field", {})
    assert set(prepared.encoder.conds) == {"x"} and len(prepared.train_items) + len(prepared.heldout_items) == 20


def test_it_is_read_again_from_its_folder(data: Path, tmp_path: Path) -> None:
    prepared = prepare(data, None, {})
    prepared.encoder.save(tmp_path / "encoder")
    again = MODALITY.load(tmp_path / "encoder")
    assert torch.equal(again.encode(prepared.heldout_items).x, prepared.heldout.x)
    assert again.conds == prepared.encoder.conds and again.space == prepared.encoder.space


def test_too_short_trajectories_are_said(tmp_path: Path) -> None:
    data = write_drifting(tmp_path / "data", steps=3)
    with pytest.raises(UserError, match=r"data\.history"):
        prepare(data, None, {"history": 3})


def test_noise_on_the_states_before_is_of_the_given_deviation_and_keyed(tmp_path: Path) -> None:
    path = write_drifting(tmp_path / "waves", 40, 8)
    options = FieldOptions(noise=0.05)
    corpus = MODALITY.read(path, options)
    examples = MODALITY.fit(corpus.items, options.model_copy(update=dict(corpus.settled))).encode(corpus.items)
    index = torch.arange(len(corpus.items))
    batch = Batch(examples.x, examples.cond, index)
    assert examples.vary is not None
    noisy = examples.vary(batch, Rng(0))
    difference = noisy.cond.parts["past"] - batch.cond.parts["past"]
    assert float(difference.std()) == pytest.approx(0.05, rel=0.05) and torch.equal(noisy.x, batch.x)
    alone = examples.vary(Batch(examples.x[7:8], examples.cond.select(index[7:8]), index[7:8]), Rng(0))
    torch.testing.assert_close(alone.cond.parts["past"], noisy.cond.parts["past"][7:8])
    assert MODALITY.fit(corpus.items, FieldOptions(**corpus.settled)).encode(corpus.items).vary is None
