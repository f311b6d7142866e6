"""The nouns: conditions, batches, and the identity of an item."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from afresh import core
from afresh.core import Batch, Cond, Part
from afresh.core.space import evenly_spaced
from afresh.data.image.kind import IMAGE
from afresh.data.text.kind import TEXT

SPEC = {
    "label": Part("label", classes=("a", "b")),
    "age": Part("number"),
    "prompt": Part("prompt", classes=("red",), length=3),
}
COND = Cond(
    2,
    {"label": torch.tensor([0, 1]), "age": torch.tensor([0.5, -1.0]), "prompt": torch.tensor([[2, 0, 0], [2, 2, 1]])},
    {
        "label": torch.tensor([True, True]),
        "age": torch.tensor([True, False]),
        "prompt": torch.tensor([False, True]),
    },
    known=torch.tensor([[1, 2], [3, 4]]),
    known_mask=torch.tensor([[True, False], [True, True]]),
)


def presence(cond: Cond) -> dict[str, list[bool]]:
    return {k: v.tolist() for k, v in cond.present.items()}


def test_null_drops_all_parts_or_the_named_ones_but_never_known_values() -> None:
    assert presence(COND.null()) == {"label": [False] * 2, "age": [False] * 2, "prompt": [False] * 2}
    assert presence(COND.null(["label"])) == {**presence(COND), "label": [False, False]}
    assert COND.null().known is COND.known
    assert presence(COND) == {"label": [True, True], "age": [True, False], "prompt": [False, True]}  # unchanged


def test_drop_only_removes_parts() -> None:
    kept = COND.drop({"label": torch.tensor([False, True]), "age": torch.tensor([True, True])})
    assert presence(kept) == {"label": [False, True], "age": [True, False], "prompt": [False, True]}


def same(a: Cond, b: Cond) -> bool:
    pairs = [*((a.parts[k], b.parts[k]) for k in a.parts), *((a.present[k], b.present[k]) for k in a.present)]
    known = [(a.known, b.known), (a.known_mask, b.known_mask)]
    return a.size == b.size and all(
        torch.equal(x, y) for x, y in pairs + [(x, y) for x, y in known if x is not None and y is not None]
    )


def test_select_repeat_and_cat_agree() -> None:
    assert same(COND.repeat(2), COND.select(torch.tensor([0, 0, 1, 1])))
    assert same(Cond.cat([COND, COND]), COND.select(torch.tensor([0, 1, 0, 1])))
    assert same(Cond.cat([COND.select(torch.tensor([i])) for i in range(2)]), COND)
    assert COND.select(torch.zeros(0, dtype=torch.int64)).size == 0


def test_the_negative_condition_follows_its_rows() -> None:
    """Without a negative it is the null condition; known values are kept in both."""
    assert same(COND.negative_or_null(), COND.null())
    unwanted = Cond(2, COND.parts, {k: ~v for k, v in COND.present.items()})
    steered = replace(COND, negative=unwanted)
    assert same(steered.negative_or_null(), replace(unwanted, known=COND.known, known_mask=COND.known_mask))
    assert steered.negative_or_null().known is COND.known and steered.negative_or_null().negative is None
    last = torch.tensor([1])
    assert same(steered.select(last).negative_or_null(), steered.negative_or_null().select(last))
    assert same(steered.repeat(3).negative_or_null(), steered.negative_or_null().repeat(3))
    mixed = Cond.cat([COND, steered])
    negatives = Cond.cat([COND.null(), steered.negative_or_null()])
    assert same(mixed.negative_or_null(), negatives), "null for rows without a negative"
    assert steered.null().negative is unwanted


def test_an_unconditional_request_has_no_parts() -> None:
    nothing = Cond.unconditional(SPEC, 3)
    assert nothing.size == 3 and not any(v.any() for v in nothing.present.values())
    plain = replace(COND, known=None, known_mask=None)
    assert same(Cond.cat([plain, nothing]).select(torch.arange(2)), plain)
    assert {k: (tuple(v.shape), v.dtype) for k, v in nothing.parts.items()} == {
        "label": ((3,), torch.int64),
        "age": ((3,), torch.float32),
        "prompt": ((3, 3), torch.int64),
    }


def test_selecting_rows_of_a_batch_selects_all_its_tensors() -> None:
    batch = Batch(
        torch.arange(6).view(2, 3),
        COND,
        torch.tensor([7, 9]),
        torch.tensor([[True, False], [False, True]]),
        {"advantage": torch.tensor([1.0, -1.0])},
    )
    row = batch.select(torch.tensor([1]))
    assert row.x.tolist() == [[3, 4, 5]] and row.index.tolist() == [9] and row.cond.size == 1
    assert row.mask is not None and row.mask.tolist() == [[False, True]]
    assert row.extras["advantage"].tolist() == [-1.0] and row.cond.parts["label"].tolist() == [1]


def test_the_identity_of_an_item_is_its_content() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert TEXT.digest("x") == hashlib.sha256(b"x").hexdigest() != TEXT.digest("X")
    assert IMAGE.digest(pixels) == IMAGE.digest(pixels.copy())
    assert IMAGE.digest(pixels) != IMAGE.digest(pixels.reshape(1, 4, 3))  # the same bytes, another image
    assert len(TEXT.digest("lone \ud800 surrogate")) == 64


def test_every_noun_is_found_and_most_need_no_torch() -> None:
    assert all(getattr(core, name) is not None for name in core.__all__)
    code = (
        "import sys\n"
        "from afresh.core import Corpus, Item, ItemKind, NearDuplicate, Refused, Score, Sound, UserError, registry\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    with pytest.raises(ImportError):
        from afresh.core import Nonsense  # type: ignore[attr-defined]  # noqa: F401


def test_rows_at_even_distances_have_both_ends() -> None:
    assert evenly_spaced(0, 4).tolist() == [] and evenly_spaced(3, 4).tolist() == [0, 1, 2]
    rows = evenly_spaced(10_000, 1024)
    assert len(rows) == 1024 and rows[0] == 0 and rows[-1] == 9_999 and set(rows.diff().tolist()) == {9, 10}
    assert evenly_spaced(30_000_001, 3).tolist() == [0, 15_000_000, 30_000_000]
