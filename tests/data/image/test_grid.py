"""Grids of images: every pixel is in its place."""

from __future__ import annotations

import numpy as np
import pytest
from rich.console import Console

from afresh.data.image.grid import GAP, fitting_columns, image_grid, terminal_grid


def flat(*levels: int, side: int = 8, channels: int = 1) -> list[np.ndarray]:
    return [np.full((side, side, channels), v, np.uint8) for v in levels]


def test_images_are_placed_row_by_row_without_smoothing() -> None:
    images = [np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8) for i in range(5)]
    sheet = np.asarray(image_grid(images, columns=3, scale=1))
    assert sheet.shape == (2 * (8 + GAP) + GAP, 3 * (8 + GAP) + GAP, 3)
    for i, image in enumerate(images):
        top, left = GAP + i // 3 * (8 + GAP), GAP + i % 3 * (8 + GAP)
        assert np.array_equal(sheet[top : top + 8, left : left + 8], image)
    assert (sheet[-8 - GAP :, -8 - GAP :] == 255).all()  # the sixth place is empty


def test_enlarging_repeats_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 1), np.uint8)
    sheet = np.asarray(image_grid([image], scale=3))
    inner = sheet[2:14, 2:14, 0]
    assert np.array_equal(inner, image[..., 0].repeat(3, 0).repeat(3, 1))


def test_captions_make_room_below_and_leave_the_images_unchanged() -> None:
    plain = image_grid(flat(0, 0), columns=2, scale=8)
    named = image_grid(flat(0, 0), columns=2, scale=8, captions=["seven", "a caption far too long for its image"])
    assert named.width == plain.width and named.height > plain.height
    foot = np.asarray(named)[-12:]
    assert (foot < 128).any(), "captions are drawn"
    assert image_grid(flat(0, 0), columns=2, captions=["", "x"]).height > 0


def test_square_when_no_columns_are_given() -> None:
    sheet = image_grid(flat(*range(9)), scale=1)
    assert sheet.width == sheet.height


def test_wrong_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        image_grid([])
    with pytest.raises(ValueError, match="the same size"):
        image_grid([*flat(0), *flat(0, side=9)])
    with pytest.raises(ValueError, match="1 captions for 2"):
        image_grid(flat(0, 1), captions=["x"])


def test_half_blocks_show_two_rows_of_pixels_each() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0], image[1, 0], image[0, 1], image[1, 1] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 8, 7)
    text = terminal_grid([image], 1)
    lines = text.plain.splitlines()
    side = 2 + 2 * GAP
    assert [len(line) for line in lines] == [side] * (side // 2)
    middle = (side + 1) * (GAP // 2) + GAP  # the character of the image's left column
    style = next(s.style for s in text.spans if s.start == middle)
    assert style.color.triplet == (255, 0, 0) and style.bgcolor.triplet == (0, 255, 0)


def test_previews_fit_the_width_and_print() -> None:
    text = terminal_grid(flat(*range(0, 250, 10), side=32), 8, width=60)
    assert max(map(len, text.plain.splitlines())) <= 60
    console = Console(width=60, force_terminal=True, color_system="truecolor", record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(text)
    assert "▀" in console.export_text()


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (2, 2), (3, 3), (5, 3), (6, 3), (7, 3), (10, 5), (12, 4), (16, 4), (22, 5), (48, 8)]
)
def test_columns_leave_no_hole_where_that_is_nearly_square(count: int, columns: int) -> None:
    assert fitting_columns(count) == columns
    sheet = image_grid(flat(*[0] * count), scale=1)
    assert sheet.width == columns * (8 + GAP) + GAP and sheet.height == -(-count // columns) * (8 + GAP) + GAP


def test_labels_that_take_turns_have_a_column_each() -> None:
    assert fitting_columns(40, [str(i % 10) for i in range(40)]) == 10
    assert fitting_columns(40, ["a"] * 40) == 8
    assert fitting_columns(40, [str(i // 4) for i in range(40)]) == 8
