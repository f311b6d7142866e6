"""The visible label of images: where it stands, that it can be seen, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from afresh.core import UserError
from afresh.services.disclosure.label import LEAST_SIDE, visible_label


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 90), (64, 48), (128, 128), (700, 300)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_the_label_is_in_the_lower_right_corner_and_contrasts(
    height: int, width: int, channels: int, level: int
) -> None:
    image = np.full((height, width, channels), level, np.uint8)
    labelled = visible_label(image)
    assert labelled.shape == image.shape and labelled.dtype == np.uint8 and (image == level).all()
    changed = np.argwhere((labelled != level).any(-1))
    (top, left), (bottom, right) = changed.min(0), changed.max(0) + 1
    assert top >= height - max(16, 0.15 * min(height, width)) and left >= width - max(20, 0.2 * min(height, width))
    assert bottom < height and right < width
    inside = labelled[top:bottom, left:right]
    assert inside.min() == 0 and inside.max() > 200  # white letters on black
    assert 0.08 < (inside > 128).mean() < 0.6


def test_it_has_two_letters() -> None:
    """Between the letters is a black column, and no other divides them."""
    label = visible_label(np.zeros((400, 400, 1), np.uint8))[:, :, 0]
    changed = np.argwhere(label)
    (top, left), (bottom, right) = changed.min(0), changed.max(0) + 1
    inside = label[top + 5 : bottom - 5, left + 5 : right - 5].any(0)
    assert int(np.diff(inside.astype(int), prepend=0).clip(0).sum()) == 2


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.zeros((LEAST_SIDE - 1, 200, 3), np.uint8), "Enlarge"),
        (np.zeros((200, 200), np.uint8), "uint8"),
        (np.zeros((200, 200, 2), np.uint8), "channels"),
        (np.zeros((200, 200, 3)), "float64"),
    ],
)
def test_what_cannot_be_labelled_is_refused(pixels: np.ndarray, says: str) -> None:
    with pytest.raises(UserError, match=says):
        visible_label(pixels)
