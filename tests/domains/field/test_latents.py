"""Models over the latents or codes of states: priors of states and of windows are drawn, and what such a model cannot
be told is refused before it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import afresh
from afresh.core import UserError
from afresh.runs import latent_space
from afresh.verbs.train import TrainSpec, start
from afresh.verbs.training_job import learn
from tests.domains.field.drifting import write_drifting
from tests.named_settings import named

SMALL: Mapping[str, Mapping[str, Any]] = {
    "autoencoder": {"width": 4, "factor": 4, "channels": 2, "levels": [4, 4]},
    "flow": {"widths": [4], "emb": 8},
    "transformer": {"layers": 1, "width": 16, "heads": 2, "kv_heads": 2},
    "masked": {"layers": 1, "width": 16, "heads": 2},
}


def plane(folder: Path) -> Path:
    """Trajectories of two channels on 12 x 8 points."""
    folder.mkdir()
    phase, t = np.random.default_rng(0).random(20)[:, None, None, None], np.arange(6.0)[:, None, None] / 20
    x, y = np.arange(12.0)[:, None] / 12, np.arange(8.0) / 8
    u, v = (f(2 * np.pi * (x + t + phase)) + f(2 * np.pi * y) for f in (np.sin, np.cos))
    np.savez(folder / "plane.npz", u=u, v=v, t=t.ravel(), x=x.ravel(), y=y)
    return folder


def line(folder: Path) -> Path:
    """Trajectories of one channel on 16 points."""
    return write_drifting(folder, 20)


def trained(
    path: Path, out: Path, family: str, data: Mapping[str, Any], codec: Path | None = None, **more: Any
) -> Path:
    """A run of two steps on data that is read with these options."""
    network = {**SMALL[family], **more}
    learn(
        start(
            TrainSpec(
                path,
                steps=2,
                out=out,
                family=family,
                codec=str(codec or "auto"),
                data=data,
                settings=named(family=network),
            )
        )
    )
    return out


@pytest.mark.parametrize(
    ("make", "options", "family", "bottleneck"),
    [
        (plane, {"history": 0}, "flow", "kl"),
        (line, {"window": 3}, "flow", "kl"),
        (line, {"history": 0}, "transformer", "fsq"),
        (plane, {"window": 3}, "transformer", "fsq"),
        (plane, {"window": 3}, "masked", "fsq"),
    ],
)
def test_states_and_windows_are_drawn_over_latents(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], Path],
    options: Mapping[str, Any],
    family: str,
    bottleneck: str,
) -> None:
    monkeypatch.setattr(latent_space, "WORST", 1e9)
    data = make(tmp_path / "data")
    codec = trained(data, tmp_path / "codec", "autoencoder", options, bottleneck=bottleneck)
    run = afresh.load(trained(data, tmp_path / "run", family, options, codec))
    samples = run.sample(3)
    assert len(samples.values) == 3 and all(run.run.encoder.valid(value) for value in samples.values)
    samples.save(tmp_path / "samples")
    with np.load(sorted((tmp_path / "samples").glob("*.npz"))[0]) as file:
        assert len(file["time"]) == options.get("window", 1) and file["u"].shape[0] == len(file["time"])


def test_a_codec_is_for_states_of_the_same_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent_space, "WORST", 1e9)
    data = line(tmp_path / "data")
    codec = trained(data, tmp_path / "codec", "autoencoder", {"history": 0})
    with pytest.raises(UserError, match="fields of 1x16, and this data is read as 3x16"):
        trained(data, tmp_path / "run", "flow", {"window": 3}, codec)


def test_states_that_follow_others_have_no_codec(tmp_path: Path) -> None:
    """They are refused before the first step, and what can be learnt instead is named."""
    data = plane(tmp_path / "data")
    codec = trained(data, tmp_path / "codec", "autoencoder", {"history": 0})
    for family, run in (("flow", codec), ("transformer", None)):
        words = r"past lies on the grid.*family=ensemble.*data\.history=0.*data\.window"
        with pytest.raises(UserError, match=words) as e:
            trained(data, tmp_path / "run", family, {}, run)
        assert e.value.code == "aligned_codec" and not (tmp_path / "run").exists()
