"""Pictures of fields: each channel with its own scale, name, unit and time."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from afresh.data.image.lettering import Lettering
from afresh.domains.field.assimilation_picture import drawn
from afresh.domains.field.pictures import STOPS, ChannelRows, ColourScale, colours, previews, sheet
from afresh.domains.field.rollout import Rollout

ENCODER: Any = SimpleNamespace(titles=["Höhe (m)", "u"], channels=("h", "u"), step=0.5, window=2)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written into pictures."""
    texts: list[str] = []
    draw = Lettering.draw

    def noted(self: Lettering, pen: Any, at: Any, text: str, *more: Any) -> None:
        texts.append(text)
        draw(self, pen, at, text, *more)

    monkeypatch.setattr(Lettering, "draw", noted)
    return texts


def states(*space: int) -> np.ndarray:
    """(members, steps, 2, *space): heights from 100 to 300, and velocities from -0.02 to 0.01."""
    ramp = np.linspace(0, 1, 3 * 4 * int(np.prod(space))).reshape(3, 4, *space)
    return np.stack([100 + 200 * ramp, 0.03 * ramp - 0.02], 2).astype(np.float32)


def test_the_colours_of_a_channel_are_those_of_its_own_values() -> None:
    high, both = ColourScale.of(np.array([100.0, np.nan, 300.0])), ColourScale.of(np.array([-0.02, 0.01]))
    assert (high.low, high.high, both.low, both.high) == (100, 300, -0.02, 0.02)
    assert colours(np.array([100.0, 300.0]), high).tolist() == STOPS[[0, -1]].tolist()
    assert colours(np.array([0.0]), both).tolist() == [STOPS[3].tolist()], "0 is white where there are both signs"
    assert colours(np.array([np.nan]), both).tolist() == [[255, 255, 255]]
    assert ColourScale.of(np.full(3, 7.0)) == ColourScale(6, 8)
    field = np.stack([np.full((4, 4), 250.0), np.linspace(-1e-3, 1e-3, 16).reshape(4, 4)])
    (image,) = previews([field])
    assert len(np.unique(image[:, image.shape[1] // 2 :].reshape(-1, 3), axis=0)) == 16, "a small channel is seen"


@pytest.mark.parametrize("space", [(16,), (6, 8), (4, 5, 6)], ids=["line", "plane", "volume"])
def test_a_rollout_names_channels_units_members_times_and_values(space: tuple[int, ...], written: list[str]) -> None:
    found = Rollout(ENCODER, states(*space), states(*space)[0, 0], "", format="npz")
    image = Image.open(io.BytesIO(found.plot()))
    assert image.width > 200 and {"member 0", "member 2", "300", "200", "100", "0.02", "0", "-0.02"} <= set(written)
    said = "; ".join(written)
    assert "Höhe (m)" in said and "time 0.5" in said and ("time 2" in said or "to 2" in said)
    written.clear()
    animation = Image.open(io.BytesIO(found.animation()))
    frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)]
    assert len(frames) == 4 and not np.array_equal(frames[0], frames[3])
    assert {"Höhe (m), time 0.5", "Höhe (m), time 2", "u, time 1", "mean"} <= set(written)


def test_a_scale_stands_beside_its_block() -> None:
    scale = ColourScale(0.0, 1.0)
    plain = np.full((20, 30, 3), (128, 0, 128), np.uint8)
    image = sheet([ChannelRows("a", scale, [[plain, plain]], ["x", "y"], ["m"])])
    both = [(image == np.array(c, np.uint8)).all(-1) for c in STOPS[[0, -1]]]
    (low, high), right = ([np.argwhere(b) for b in both]), np.argwhere((image == (128, 0, 128)).all(-1))[:, 1].max()
    assert len(low) and len(high) and high[:, 0].max() < low[:, 0].min(), "the high end is at the top"
    assert min(low[:, 1].min(), high[:, 1].min()) > right


@pytest.mark.parametrize(("space", "window"), [((16,), 1), ((16,), 2), ((6, 8), 2)])
def test_a_posterior_names_channels_and_says_what_its_band_holds(
    space: tuple[int, ...], window: int, written: list[str]
) -> None:
    members = states(*space)[:, :window]
    values = np.where(np.arange(np.prod(space)).reshape(space) % 3, np.nan, members[0]).reshape(2 * window, *space)
    observed: Any = SimpleNamespace(values=values, factors=(1,) * len(space), encoder=ENCODER)
    assert Image.open(io.BytesIO(drawn(observed, members, members[0]))).width > 100
    said = "; ".join(written)
    assert "Höhe (m)" in said and "truth" in said
    assert ("5% to 95%, about 45% of truths" in said) == (window == 1)
    assert ("deviation of the members, Höhe (m)" in said) == (window == 2)
