"""The benchmark of photos: what is held out, a judge that knows kinds and copies, the goals, and the sheet."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afresh.engine.evaluation.estimate import Array, Estimate, share
from benchmarks.common.processes import Answer
from benchmarks.images.peers.diffusers_latents import RATE, rate
from benchmarks.images.photos import Judge, Made, Task, contender_rows, enlarged, goal_rows, sheet
from benchmarks.images.sets import Bytes, Labels, Side, divide_photos, read_photos

KINDS = ("dark", "light")
SIDE = 8


def photos(n: int, seed: int) -> Side:
    """Random images of two kinds, a dark and a light one."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, n)
    x = random.integers(0, 100, (n, SIDE, SIDE, 3)) + 150 * y[:, None, None, None]
    return Side(x.astype(np.uint8), y)


def archive(path: Path) -> Path:
    """40 dark and 20 light photos, each of one grey of its own, and a file that is not a photo."""
    with zipfile.ZipFile(path, "w") as files:
        files.writestr("README.md", "no photo")
        for kind, greys in (("light", range(200, 220)), ("dark", range(40))):
            for grey in greys:
                content = io.BytesIO()
                Image.new("RGB", (24, 16), (grey,) * 3).save(content, "JPEG", quality=100)
                files.writestr(f"{kind}/{grey:03}.jpg", content.getvalue())
    return path


def features(x: Bytes) -> Array:
    return x.reshape(len(x), -1).astype(np.float64) / 255


# --------------------------------------------------------------------------- the photos


def test_every_photo_is_in_one_part_and_kinds_are_held_out_alike(tmp_path: Path) -> None:
    assert divide_photos(archive(tmp_path / "photos.zip"), tmp_path / "photos") == KINDS
    parts = {p: [f.relative_to(tmp_path / "photos" / p) for f in (tmp_path / "photos" / p).glob("*/*")]
             for p in ("train", "held", "watched")}  # fmt: skip
    assert len(set().union(*parts.values())) == sum(len(names) for names in parts.values()) == 60
    counts = {part: Counter(name.parent.name for name in names) for part, names in parts.items()}
    assert counts["held"] == {"dark": 6, "light": 3} and counts["watched"] == {"dark": 1, "light": 1}
    before = (tmp_path / "photos").stat().st_mtime_ns
    assert divide_photos(tmp_path / "gone.zip", tmp_path / "photos") == KINDS, "what is there is not made again"
    assert (tmp_path / "photos").stat().st_mtime_ns == before


def test_photos_are_read_with_their_kinds_in_an_order_that_mixes_them(tmp_path: Path) -> None:
    divide_photos(archive(tmp_path / "photos.zip"), tmp_path / "photos")
    side = read_photos(tmp_path / "photos" / "train", KINDS, 16)
    assert side.x.shape == (49, 16, 16, 3) and side.x.dtype == np.uint8
    assert ((side.x[:, 8, 8, 0] > 100) == side.y).all()
    assert np.flatnonzero(np.diff(side.y)).size > 5


# --------------------------------------------------------------------------- the judge


def judge() -> Judge:
    return Judge(photos(200, 0), photos(100, 1), 40, features)


def test_the_judge_tells_new_images_from_copies_and_from_another_kind() -> None:
    own = judge()
    assert own.real["recognised"] == share(100, 100)
    new, known = photos(60, 2), photos(200, 0)
    fresh = own.scores(new.x, new.y)
    assert fresh["recognised"].value == 1 and fresh["near_copies"].value < 0.1
    darkened = own.scores(new.x // 2, new.y)["kid"].value
    assert max(abs(fresh["kid"].value), abs(own.real["kid"].value)) < 0.1 * darkened
    assert own.scores(known.x[:60], known.y[:60])["near_copies"].value == 1
    assert own.scores(new.x, 1 - new.y)["recognised"].value == 0


def test_training_photos_are_no_copies_of_themselves() -> None:
    assert judge().real["near_copies"].value < 0.2


def test_the_order_of_samples_decides_no_value() -> None:
    own, new = judge(), photos(60, 2)
    order = np.argsort(new.y, kind="stable")
    one, other = own.scores(new.x, new.y), own.scores(new.x[order], new.y[order])
    assert all(one[k].value == pytest.approx(other[k].value) for k in one)


# --------------------------------------------------------------------------- the rows


def made(recognised: float, kid: float, copies: float, seconds: float = 1.0) -> Made:
    scores = {"recognised": recognised, "kid": kid, "near_copies": copies}
    answer = Answer("", 1_000_000, 10, 60.0, 100.0, seconds)
    return Made(answer, {k: Estimate(v, v - 0.01, v + 0.01, 240) for k, v in scores.items()})


REAL = made(0.9, 0.0, 0.01).scores


def task(folder: Path) -> Task:
    return Task(folder, KINDS, 20, 30, folder)


def test_goals_are_reached_at_their_bounds_and_not_beyond(tmp_path: Path) -> None:
    others = {"today": made(0.5, 90, 0), "diffusers": made(0.1, 120, 0)}
    good = goal_rows(task(tmp_path), 256, {"ours": made(0.8, 30, 0.01, 3.0), **others}, REAL)
    assert [r.reached for r in good] == [True] * 5
    assert [r.ratio for r in good[:3]] == pytest.approx([0.8 / 0.9, 1 / 3, 1 / 4])
    bad = goal_rows(task(tmp_path), 256, {"ours": made(0.79, 41, 0.02, 3.1), **others}, REAL)
    assert [r.reached for r in bad] == [False] * 5
    smaller = goal_rows(task(tmp_path), 128, {"ours": made(0.83, 30, 0.01), **others}, REAL)
    assert [r.reached for r in smaller] == [False, True, True, True], "0.93 is asked of 128 pixels, and no seconds"


def test_only_what_ran_has_rows(tmp_path: Path) -> None:
    assert goal_rows(task(tmp_path), 128, {"today": made(0.5, 90, 0)}, REAL) == []
    alone = goal_rows(task(tmp_path), 128, {"ours": made(0.9, 30, 0.01)}, REAL)
    assert [r.what.partition(",")[0] for r in alone] == ["recognised as the kind asked for", "near copies"]


def test_a_contender_that_is_asked_for_no_kind_has_no_share_of_recognised() -> None:
    ours, theirs = contender_rows(128, {"ours": made(0.8, 30, 0), "diffusers": made(0.1, 90, 0)}, REAL)
    assert ours.ours.startswith("recognised 0.8") and ours.theirs.startswith("recognised 0.9")
    assert theirs.ours.startswith("kid 90") and "recognised" not in theirs.theirs


def test_every_kind_is_asked_for_as_often_in_the_order_of_the_sheet(tmp_path: Path) -> None:
    asked: Labels = task(tmp_path).asked
    assert Counter(asked.tolist()) == {0: 30, 1: 30}
    x = np.broadcast_to((100 + asked)[:, None, None, None], (60, SIDE, SIDE, 3)).astype(np.uint8)
    drawn = sheet(x, 30)
    assert drawn.shape == (2 * SIDE, 10 * SIDE, 3)
    assert (drawn[:SIDE] == 100).all() and (drawn[SIDE:] == 101).all()


def test_small_images_are_enlarged_and_others_left() -> None:
    x = photos(1, 0).x[0]
    assert enlarged(x, SIDE) is x
    assert enlarged(np.full_like(x, 7), 4 * SIDE).shape == (4 * SIDE, 4 * SIDE, 3)
    assert (enlarged(np.full_like(x, 7), 4 * SIDE) == 7).all()


def test_the_peers_rate_warms_up_for_a_tenth_of_the_time_and_ends_at_nothing() -> None:
    assert rate(0) == rate(1) == rate(2) == 0
    assert rate(0.05) < rate(0.1) and rate(0.1) > rate(0.5) > rate(0.9)
    assert rate(0.5) == pytest.approx(RATE / 2)
