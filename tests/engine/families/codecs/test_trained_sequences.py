"""Sequences as the latents of a trained autoencoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from afresh.core import Batch, Cond, Examples, Space, UserError, registry
from afresh.core.rng import Rng
from afresh.data.load import sweep
from afresh.engine.families import autoencoder
from afresh.engine.families.autoencoder import AutoencoderConfig
from afresh.engine.families.codecs import records, trained_sequences
from afresh.engine.families.codecs.trained_sequences import SequenceCodec
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import take_step
from afresh.engine.training.plan import make_learner
from tests.contracts.rows import enliven, unknown_field

END = 8
STREAM = Space("tokens", (12,), (9,), {"end": END}, stream=True)
CONFIG = AutoencoderConfig(width=32, blocks=2, channels=4, slots=2, kl=0.01)
ROWS = [[(first + i * by) % 8 for i in range(4 + first % 3)] for first in range(8) for by in (0, 1)]


def documents() -> Examples:
    lengths = [len(r) + 1 for r in ROWS]
    x = torch.tensor([t for row in ROWS for t in [*row, END]]).int()
    return Examples(x, Cond(len(ROWS)), bounds=torch.tensor([0, *lengths]).cumsum(0), bytes=len(x))


RECORDS = records.fit(documents(), STREAM)


def untrained() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    modules = autoencoder.build(CONFIG, RECORDS.target, {})
    enliven(modules)
    return modules


def codec_of(modules: dict[str, nn.Module]) -> SequenceCodec:
    return trained_sequences.of_modules(CONFIG.model_dump(), modules, STREAM, documents(), RECORDS)


def test_latents_are_standardised_and_rows_are_encoded_like_documents() -> None:
    codec = codec_of(untrained())
    there = codec.encode(documents())
    assert there.x.shape == (len(ROWS), 4, 2) and codec.target.shape == (4, 2) and codec.source == STREAM
    torch.testing.assert_close(there.x.std(0, unbiased=False), torch.ones(4, 2))
    rows = torch.nn.utils.rnn.pad_sequence([torch.tensor([*r, END]) for r in ROWS], True, END)
    torch.testing.assert_close(codec.encode(Examples(rows, Cond(len(rows)))).x, there.x, rtol=1e-3, atol=1e-4)


def test_many_examples_are_standardised_by_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = codec_of(untrained())
    monkeypatch.setattr(trained_sequences, "STANDARDISED", 4)
    some = codec_of(untrained())
    z = (whole.encode(documents()).x * whole.std + whole.mean)[[0, 5, 10, 15]]
    torch.testing.assert_close(some.mean, z.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(some.std, z.std(0, unbiased=False), rtol=1e-4, atol=1e-5)


def test_a_codec_survives_saving_and_unknown_fields_are_refused(tmp_path: Path) -> None:
    codec = codec_of(untrained())
    codec.save(tmp_path)
    other = registry.load_codec("trained_sequences", tmp_path)
    z = codec.encode(documents()).x
    assert (other.source, other.target) == (codec.source, codec.target)
    assert torch.equal(other.encode(documents()).x, z) and torch.equal(other.decode(z), codec.decode(z))
    unknown_field(tmp_path / "codec.json")
    with pytest.raises(UserError, match="readable codec"):
        registry.load_codec("trained_sequences", tmp_path)


def test_wrong_latents_spaces_and_bottlenecks_are_refused() -> None:
    codec = codec_of(untrained())
    with pytest.raises(UserError, match="4, 2"):
        codec.decode(torch.zeros(1, 2, 4))
    with pytest.raises(UserError, match="records"):
        trained_sequences.of_modules(CONFIG.model_dump(), untrained(), STREAM, documents())
    with pytest.raises(UserError, match="bottleneck"):
        autoencoder.build(AutoencoderConfig(bottleneck="fsq"), RECORDS.target, {})


def test_learnt_sequences_come_back_and_the_prior_is_fitted() -> None:
    own = {"steps": 300, "batch": 16, "micro_batch": 16, "save_every": 300, "optimizer": "adamw", "lr": 3e-3}
    learner = make_learner(registry.family("autoencoder"), CONFIG, RECORDS.target, {}, TrainConfig(**own))
    there = RECORDS.encode(documents())
    (batch,) = sweep(there, RECORDS.target, 16)
    for step in range(300):
        assert take_step(learner, Batch(batch.x, batch.cond, batch.index + 16 * step, batch.mask), Rng(1)) is not None
        learner.step += 1
    modules = {k: m.eval() for k, m in learner.modules.items()}
    codec = codec_of(modules)
    back = codec.decode(codec.encode(documents()).x).tolist()
    same = [row[: len(r)] == r and set(row[len(r) :]) <= {END} for row, r in zip(back, ROWS, strict=True)]
    assert sum(same) >= 14
    found = autoencoder.finish(modules, CONFIG, RECORDS.target, there, Rng(0))
    assert found["prior.mean"].shape == (8,) and bool(found["prior.root"].isfinite().all())
