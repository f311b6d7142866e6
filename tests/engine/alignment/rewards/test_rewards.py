"""Rewards by closed forms, their differentiable forms by bytes and finite differences, what users write, and checks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from afresh.core import ItemKind, RewardError, UserError
from afresh.data.audio.kind import SOUND
from afresh.data.image.kind import IMAGE
from afresh.data.text.kind import TEXT
from afresh.domains.image.rewards import IMAGES
from afresh.engine.alignment.rewards.reward import MAX_COUNTED_VALUES, Context, FailureTally, Reward, Scorer
from afresh.engine.alignment.rewards.reward_expression import build, builtins, parse, weighted
from tests.heard import heard

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (6, 12, 8, 3), dtype=np.uint8)


def scores(text: str, items: Sequence[Any], train: Sequence[Any] = ()) -> list[float]:
    kind = TEXT if isinstance(items[0], str) else IMAGE
    return [float(v) for v in Scorer(build(text, Context(kind, train)))(items)]


def flat(*colour: int) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (12, 8, len(colour))).copy()


def wave(u: int, v: int, high: int = 16, wide: int = 16) -> np.ndarray:
    """One basis picture of the cosine transform, grey, full contrast."""
    rows = np.cos(np.pi * (np.arange(high) + 0.5) * u / high)[:, None]
    columns = np.cos(np.pi * (np.arange(wide) + 0.5) * v / wide)
    return np.round(127.5 + 127.5 * rows * columns).astype(np.uint8)[:, :, None]


# ---------------------------------------------------------------------------------------------------------------- texts


def test_texts_by_hand() -> None:
    assert scores("length", ["", "abc", "äö"]) == [0, 3, 2]
    assert scores("length:unit=words", ["", " two words\n"]) == [0, 2]
    assert scores("length:min=2,max=4", ["", "a", "ab", "abcd", "abcdefgh"]) == [0, 0.5, 1, 1, 0.5]
    assert scores("contains:b+", ["ab+c", "abc"]) == [1, 0]
    assert scores(r"matches:\A\d+\Z", ["12", "a12"]) == [1, 0]
    assert scores("parses", ["x = 1", "x = ", "# nothing", "", "a\0b", "(" * 5000]) == [1, 0, 0, 0, 0, 0]
    assert scores("json", ['{"a": [1]}', "{a: 1}", "NaN", "", "[" * 100000, "9" * 5000]) == [1, 0, 0, 0, 0, 1]


def test_likeness_of_texts(tmp_path: Path) -> None:
    (tmp_path / "like.txt").write_text("the cat sat")
    same, near, far, none = scores(f"near:{tmp_path}/like.txt", ["the cat sat", "the cat sits", "the fog", "xyz"])
    assert same == pytest.approx(1) and 1 > near > far > none == 0
    (tmp_path / "like.txt").write_text("a")  # ^^a ^a$ a$$ against ^^a ^aa aa$ a$$: 2 / sqrt(3 * 4)
    assert scores(f"near:{tmp_path}/like.txt", ["aa"]) == pytest.approx([2 / 12**0.5])


def test_novelty_of_texts_is_the_share_of_new_windows() -> None:
    train = ["abcdefgh", "xyz"]
    assert scores("novel:n=4", ["abcdefgh", "cdef", "abcdZZZZ", "xyz", "xy", "ZZZZZ"], train) == [0, 0, 0.8, 0, 1, 1]
    assert scores("novel:n=4", ["bcdX", "abcdbcde"], train) == [1, pytest.approx(3 / 5)]


# ------------------------------------------------------------------------------------------------------------- pictures


def test_one_colour() -> None:
    pictures = [flat(0, 0, 0), flat(255, 255, 255), flat(200), flat(255, 0, 0)]
    assert scores("brightness", pictures) == pytest.approx([0, 1, 200 / 255, 0.299])
    assert scores("symmetry", pictures) == pytest.approx([1] * 4)
    assert scores("compressible", pictures) == pytest.approx([1] * 4)
    assert scores("sharpness", pictures) == pytest.approx([0] * 4, abs=1e-12)
    assert scores("colour:#FF0000", pictures) == pytest.approx([2 / 3, 1 / 3, 1 - (55**2 + 2 * 200**2) / 3 / 255**2, 1])


def test_mirror_images() -> None:
    """Even along the width: 1. Odd: 0. Orthogonal, of the same size: half. Contrast does not matter."""
    odd, even = wave(0, 1), wave(0, 2)
    both = ((odd.astype(int) + even.astype(int)) // 2).astype(np.uint8)
    assert scores("symmetry", [even, odd, both, wave(3, 0)]) == pytest.approx([1, 0, 0.5, 1], abs=0.01)
    assert scores("symmetry", [both // 2]) == pytest.approx([0.5], abs=0.01)


def test_frequencies() -> None:
    assert scores("compressible", [wave(3, 3), wave(4, 0), wave(0, 4), wave(9, 12)]) == pytest.approx(
        [1, 0, 0, 0], abs=0.001
    )


def test_a_checkerboard_is_sharpest() -> None:
    board = (np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None]
    assert scores("sharpness", [board]) == pytest.approx([1])
    with pytest.raises(UserError, match="3 x 3"):
        scores("sharpness", [board[:2, :2]])


def test_likeness_of_pictures(tmp_path: Path) -> None:
    file = tmp_path / "like.png"
    Image.fromarray(NOISE[0]).save(file)
    same, other, far = scores(f"near:{file}", [NOISE[0], NOISE[1], flat(255, 255, 255)])
    assert same == pytest.approx(1) and 1 > other > far
    Image.new("L", (4, 4), 255).save(file)
    assert scores(f"near:{file}", [flat(0), flat(255), flat(0, 0, 0)]) == pytest.approx([0, 1, 0])


def test_a_blur_forgives_what_is_fine(tmp_path: Path) -> None:
    Image.new("L", (64, 64), 128).save(tmp_path / "grey.png")
    fine, coarse = wave(60, 60, 64, 64), wave(1, 1, 64, 64)
    found = scores(f"near:{tmp_path}/grey.png", [fine, coarse])
    assert found[0] > 0.999 and found[1] < 0.95


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_may_be_read_only(channels: int) -> None:
    picture = np.full((4, 4, channels), 51, np.uint8)
    picture.flags.writeable = False
    assert build("brightness", Context(IMAGE)).score([picture], [{}]) == pytest.approx([0.2])
    assert build("novel", Context(IMAGE, [picture])).score([picture], [{}]) == pytest.approx([0.0])


def test_novelty_of_pictures() -> None:
    train = [flat(0), flat(100), *NOISE]
    assert scores("novel", [flat(0), flat(160), NOISE[5]], train) == pytest.approx([0, 60 / 255, 0], abs=1e-5)
    with pytest.raises(UserError, match="one size"):
        scores("novel", [flat(0)[:4]], train)


@pytest.mark.parametrize("name", sorted(IMAGES))
@pytest.mark.parametrize("channels", [1, 3])
def test_differentiable_forms(name: str, channels: int, tmp_path: Path) -> None:
    """They agree with the plain form on bytes, and their gradient with finite differences."""
    pictures = [p[..., :channels] for p in NOISE]
    Image.fromarray(NOISE[3]).save(tmp_path / "like.png")
    word = {"near": f"near:{tmp_path}/like.png", "colour": "colour:#12ff80"}.get(name, name)
    reward = build(word, Context(IMAGE, pictures[2:]))
    assert reward.on_field is not None
    x = torch.tensor(np.stack(pictures[:2])).movedim(3, 1).double() / 127.5 - 1
    np.testing.assert_allclose(reward.on_field(x).numpy(), reward.score(pictures[:2], [{}] * 2), atol=1e-12)
    np.testing.assert_allclose(reward.on_field(x.float()).numpy(), reward.on_field(x).numpy(), atol=1e-4)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(reward.on_field(x).sum(), x)
    step = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1e-5
    change = reward.on_field(x.detach() + step) - reward.on_field(x.detach() - step)
    assert float(change.sum()) == pytest.approx(2 * float((slope * step).sum()), rel=1e-4)


def test_a_sum_is_linear_and_differentiable_where_all_parts_are() -> None:
    text = "0.7*brightness + 2 * symmetry - .5*sharpness"
    parts = np.array([scores(name, NOISE) for name in ("brightness", "symmetry", "sharpness")])
    assert scores(text, NOISE) == pytest.approx(list(np.array([0.7, 2, -0.5]) @ parts))
    reward = build(text, Context(IMAGE))
    x = torch.tensor(NOISE).movedim(3, 1).double() / 127.5 - 1
    assert reward.on_field is not None
    assert reward.on_field(x).tolist() == pytest.approx(scores(text, NOISE))
    assert build("-length", Context(TEXT)).on_field is None


# ------------------------------------------------------------------------------------------------- what users write


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("length", [(1, "length")]),
        ("  - length ", [(-1, "length")]),
        ("-0.5*length", [(-0.5, "length")]),
        ("1e-3 * length - .5*json + contains:foo", [(1e-3, "length"), (-0.5, "json"), (1, "contains:foo")]),
        ("contains:'a + b' + json", [(1, "contains:a + b"), (1, "json")]),
        ("""contains:"don't" """, [(1, "contains:don't")]),
        ("""contains:'"'"'" """, [(1, "contains:\"'")]),
        (r"matches:\d+\.\d*", [(1, r"matches:\d+\.\d*")]),
        ("near:my-cat.png", [(1, "near:my-cat.png")]),
        ("near:my-novel.txt", [(1, "near:my-novel.txt")]),
        ("my-own.py:f", [(1, "my-own.py:f")]),
        ("!prog 'a - b' c", [(1, "!prog 'a - b' c")]),
        ("length + 2*!prog -n 3 '-'", [(1, "length"), (2, "!prog -n 3 '-'")]),
        ("2*'!prog a - b' - json", [(2, "!prog a - b"), (-1, "json")]),
        ("'contains:well-parses'", [(1, "contains:well-parses")]),
    ],
)
def test_what_is_understood(text: str, terms: list[tuple[float, str]]) -> None:
    assert [(t.weight, t.word) for t in parse(text)] == terms


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        ("", 0, "missing"),
        ("length +", 8, "missing"),
        ("length + + json", 9, "sign"),
        ("length - -0.5*json", 9, "sign"),
        ("0.5*", 4, "missing"),
        ("0.5* + json", 5, "sign"),
        ("length json", 7, "sign is missing"),
        ("length -json", 7, "sign is missing"),
        ("contains:foo bar", 13, "sign is missing"),
        ("contains:don't", 12, "not closed"),
        ("contains:well-parses", 13, "in quotes"),
        ("length+0.5*json", 6, "in quotes"),
        ("!prog a + length", 8, "quotes"),
        ("!prog -", 6, "quotes"),
        ("1e999*length", 0, "too large"),
    ],
)
def test_what_is_refused_and_where(text: str, place: int, why: str) -> None:
    with pytest.raises(UserError, match=why) as e:
        parse(text)
    assert str(e.value).splitlines()[2].index("^") == place + 2


def test_written_terms_are_read_back() -> None:
    """Any words in quotes, any weights and signs: a sum is read as it was meant."""
    rng = np.random.default_rng(3)
    letters = [*"ab +-*:!'\\\"#\t", "length", "é"]
    for _ in range(200):
        meant = []
        for _ in range(rng.integers(1, 5)):
            word = "contains:" + "".join(rng.choice(letters, rng.integers(1, 8)))
            meant.append((float(np.round(rng.normal(), 3)), word))
        written = ""
        for weight, word in meant:
            quoted = "'" + word.replace("'", "'\"'\"'") + "'"
            written += f" {'-' if weight < 0 or str(weight) == '-0.0' else '+'} {abs(weight)}*{quoted}"
        assert [(t.weight, t.word) for t in parse(written)] == meant, written


@pytest.mark.parametrize(
    ("text", "kind", "why"),
    [
        ("lenght", TEXT, "Did you mean length"),
        ("brightness", TEXT, "for images"),
        ("json", IMAGE, "for texts"),
        ("length:maximum=3", TEXT, "does not accept the option"),
        ("length:max=3,max=4", TEXT, "does not accept the option"),
        ("length:max=none", TEXT, "whole number"),
        ("length:min=5,max=4", TEXT, "above"),
        ("json:loads", TEXT, "alone"),
        ("contains", TEXT, "contains:TEXT"),
        ("contains:''", TEXT, "contains:TEXT"),
        ("matches:(", TEXT, "regular expression"),
        ("near:/nowhere", TEXT, "cannot be read"),
        ("near:/nowhere", IMAGE, "cannot be read"),
        ("near", IMAGE, "near:cat.png"),
        ("novel", TEXT, "training"),
        ("novel", IMAGE, "training"),
        ("colour:red", IMAGE, "#ff8800"),
        ("length*0.5", TEXT, "weights come first"),
        ("(length)", TEXT, "parentheses are not used"),
        ("!'", TEXT, "split into words"),
        ("!nowhere-to-be-found a", TEXT, "no program"),
        ("nowhere.py:f", TEXT, "no file"),
    ],
)
def test_what_does_not_exist_or_fit(text: str, kind: ItemKind, why: str) -> None:
    with pytest.raises(UserError, match=why):
        build(text, Context(kind))


def test_every_built_in_has_help_and_a_wrong_item_is_named() -> None:
    for kind in (TEXT, IMAGE, SOUND):
        assert all(found.help for found in builtins(kind).values())
    with pytest.raises(RewardError, match=r"brightness failed for item 1, an image \(2, 2, 4\)"):
        scores("brightness", [flat(0), np.zeros((2, 2, 4), np.uint8)])


# --------------------------------------------------------------------------------------------------- running, tallies


def reward(score: Any) -> Reward:
    return Reward("mine", score)


@pytest.mark.parametrize(
    ("score", "why"),
    [
        (lambda items, requests: [float("-inf")] * len(items), "item 0, 'item 0': it returned -inf"),
        (lambda items, requests: [1.0], "items 0 to 3: it returned 1 numbers for 4 items"),
        (lambda items, requests: 1.0, "items 0 to 3: it returned numbers of shape"),
        (lambda items, requests: ["a"] * len(items), "items 0 to 3: it did not return a list of numbers"),
        (lambda items, requests: 1 / 0, "items 0 to 3: ZeroDivisionError"),
    ],
)
def test_what_is_no_finite_number_is_named(score: Any, why: str) -> None:
    with pytest.raises(RewardError, match=f"The reward mine failed for {why}"):
        Scorer(reward(score), batch=4)([f"item {i}" for i in range(10)])


def test_an_item_without_a_number_counts_as_the_worst_and_is_named() -> None:
    listed: list[tuple[Any, str]] = []

    def score(items: Sequence[str], requests: Sequence[Any]) -> list[float]:
        return [float("nan") if "7" in s else float(s) for s in items]

    run = Scorer(reward(score), batch=4, failed=lambda item, why: listed.append((item, why)))
    with heard("mine has no value for 1 of 10 items so far.*worst item.*now 0.*'7': it returned nan"):
        assert run([str(i) for i in range(10)]).tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 8, 9]
    assert listed == [("7", "it returned nan, but a reward must be a finite number.")]
    assert run.tallies["mine"].n == 9 and run.failures == 1


def test_of_a_sum_the_item_is_worst_if_a_part_has_no_number() -> None:
    def half(items: Sequence[str], requests: Sequence[Any]) -> list[float]:
        return [float("inf") if s == "2" else float(s) for s in items]

    part = reward(half)
    both = weighted("sum", [(1.0, Reward("length", lambda items, requests: [5.0] * len(items))), (-2.0, part)])
    with heard("The reward mine has no value"):
        assert Scorer(both)(["1", "2", "3"]).tolist() == [3, -1, -1]


def test_batches_keep_items_and_requests_together() -> None:
    seen = []

    def score(items: Sequence[str], requests: Sequence[Any]) -> list[float]:
        seen.append(len(items))
        return [float(item) + r.get("plus", 0) for item, r in zip(items, requests, strict=True)]

    found = Scorer(reward(score), batch=3)([str(i) for i in range(7)], [{"plus": 10 * i} for i in range(7)])
    assert found.tolist() == [11.0 * i for i in range(7)] and seen == [3, 3, 1]
    assert Scorer(reward(score))([]).tolist() == []
    with pytest.raises(ValueError, match="requests"):
        Scorer(reward(score))(["1"], [])


def test_a_constant_reward_is_noted_once_and_by_part() -> None:
    notes: list[str] = []
    run = Scorer(build("length + 2*json", Context(TEXT)), 2, notes.append)
    run(["aa", "b", "cc", "dd", "ee", "ff"])
    assert notes == []
    run(["a", "b"] * 8)
    assert notes == ["The reward json has been 0 for all items so far, so nothing can be learnt from it."]
    varied: list[str] = []
    Scorer(build("json", Context(TEXT)), 2, varied.append)(["1", "a"] + ["a"] * 20)
    assert varied == []


def test_tallies() -> None:
    values = RNG.integers(0, 5, 1000).astype(float)
    tally = FailureTally()
    for part in np.split(values, 10):
        tally.add(part)
        tally = FailureTally(**json.loads(json.dumps(vars(tally))))
    found, times = tally.summary(), np.bincount(values.astype(int))
    assert found["n"] == 1000 and found["mean"] == pytest.approx(values.mean())
    assert found["deviation"] == pytest.approx(values.std(ddof=1))
    assert found["mode"] == times.argmax() and found["mode_share"] == times.max() / 1000
    assert FailureTally().summary()["mode"] is None


def test_the_mode_is_found_among_many_values() -> None:
    """Beyond MAX_COUNTED_VALUES distinct values, the share is too small by at most 1 / MAX_COUNTED_VALUES."""
    values = RNG.permutation(np.concatenate([np.zeros(2000), 1 + np.arange(4 * MAX_COUNTED_VALUES)]))
    tally = FailureTally()
    tally.add(values)
    found, share = tally.summary(), 2000 / len(values)
    assert found["mode"] == 0 and share - 1 / MAX_COUNTED_VALUES <= found["mode_share"] <= share


def test_parts_of_a_sum_have_tallies_of_their_own() -> None:
    run = Scorer(build("length - 3*json", Context(TEXT)))
    assert run(["1", "ab"]).tolist() == [-2, 2]
    means = {name: tally.summary()["mean"] for name, tally in run.tallies.items()}
    assert means == {"length - 3*json": 0, "length": 1.5, "json": 0.5}
