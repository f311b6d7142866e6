"""Fill-in-the-middle: nothing is lost or changed but the order, windows keep their size, held-out text is untouched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from afresh.core import Batch, Cond, Item
from afresh.core.rng import Rng
from afresh.data.load import Loader, sweep
from afresh.data.text.fim import EXTRA, MARKS, PIECES, SHORTEST, FillIn, between_characters, fim_prompt, supports_fim
from afresh.data.text.tokenizer import Tokenizer
from afresh.domains.code.modality import MODALITY, CodeOptions

CODE = "def add(a, b):\n    return a + b  # naïve é€\n\n\nclass Über:\n    pass\n" * 30
TOKENIZERS = {
    "bytes": Tokenizer.all_bytes(MARKS),
    "chars": Tokenizer.learn_chars([CODE.replace("€", "")], MARKS),  # the sign is spelled in halves
    "bpe": Tokenizer.learn_bpe([CODE], 400, MARKS),
}
every_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)


def batch(t: Tokenizer, documents: Sequence[str], size: int, index: Sequence[int] = (0,)) -> Batch:
    """The same window of `size` targets for every draw of `index`: documents in turn, cut off or padded."""
    end = t.special["end"]
    stream = [i for d in documents for i in [*t.encode(d), end]]
    mask = torch.arange(size) < len(stream)
    row = torch.tensor([end, *(stream + [end] * size)[:size]])
    return Batch(row.expand(len(index), -1), Cond(len(index)), torch.tensor(index), mask.expand(len(index), -1))


def undone(t: Tokenizer, row: Sequence[int], mask: Sequence[bool]) -> list[tuple[str, str]]:
    """(kind, text) of each document of a window, put back in order."""
    end = t.special["end"]
    pre, suf, mid = (t.special[m] for m in MARKS)
    marks = {pre, suf, mid}
    size = max((i + 1 for i, m in enumerate(mask) if m), default=0)
    out: list[tuple[str, str]] = []
    piece: list[int] = []
    for token in [*row[1 : 1 + size], end] if size and row[size] != end else row[1 : 1 + size]:
        if token != end:
            piece.append(token)
            continue
        if pre not in piece:
            out.append(("plain", t.decode(piece)))
        elif piece[1] == suf:
            at = piece.index(mid)
            out.append(("spm", t.decode(piece[at + 1 :]) + t.decode(piece[2:at])))
        else:
            a, b = piece.index(suf), piece.index(mid)
            assert piece[0] == pre and a < b
            out.append(("psm", t.decode(piece[1:a]) + t.decode(piece[b + 1 :]) + t.decode(piece[a + 1 : b])))
        assert sum(p in marks for p in piece) in (0, 3)
        piece = []
    return out


TEXT = st.text(st.sampled_from("ab \n\t(é€😀"), min_size=1, max_size=60)


@every_tokenizer
@settings(max_examples=80, deadline=None)
@given(documents=st.lists(TEXT, min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_only_the_order_changes(name: str, documents: list[str], seed: int) -> None:
    """With room enough, every document comes back from its three parts."""
    t = TOKENIZERS[name]
    made = FillIn(t, 0.7)(batch(t, documents, 2000, (seed,)), Rng(1))
    assert made.mask is not None
    assert [text for _, text in undone(t, made.x[0].tolist(), made.mask[0].tolist())] == documents


@every_tokenizer
@settings(max_examples=60, deadline=None)
@given(size=st.integers(20, 90), seed=st.integers(0, 1000))
def test_a_full_window_keeps_its_size_and_its_parts(name: str, size: int, seed: int) -> None:
    """What is cut is the end of the text and so of the suffix, else the beginning of the prefix: all marks stay."""
    t = TOKENIZERS[name]
    before = batch(t, [CODE], size, range(seed, seed + 8))
    made = FillIn(t, 1.0)(before, Rng(2))
    assert made.x.shape == before.x.shape and made.mask is not None and made.mask.shape == (8, size)
    assert made.x.dtype == torch.int64
    for row, mask in zip(made.x.tolist(), made.mask.tolist(), strict=True):
        ((kind, text),) = undone(t, row, mask)
        if kind != "plain":  # of pieces of words, one may end within a character
            assert text.rstrip("\ufffd") in CODE
            assert t.special["end"] in row[1:] and sum(r in {t.special[m] for m in MARKS} for r in row) == 3
            assert len(t.encode(text)) >= (size - EXTRA) * (0.5 if name == "bpe" else 1.0) - 6


@every_tokenizer
def test_marks_and_padding_are_not_targets(name: str) -> None:
    t = TOKENIZERS[name]
    made = FillIn(t, 1.0)(batch(t, [CODE[:60], CODE[:70]], 400), Rng(0))
    assert made.mask is not None
    targets, counted = made.x[0, 1:], made.mask[0]
    marks = torch.isin(targets, torch.tensor([t.special[m] for m in MARKS]))
    used = int(counted.nonzero()[-1]) + 1
    assert marks.sum() == 6 and torch.equal(counted[:used], ~marks[:used]) and not counted[used:].any()
    assert (targets[used:] == t.special["end"]).all() and int((targets[:used] == t.special["end"]).sum()) == 2


def test_a_share_of_documents_is_rearranged_half_in_each_order() -> None:
    t, n = TOKENIZERS["bytes"], 4000
    text = "".join(chr(97 + i) for i in range(20))
    made = FillIn(t, 0.3)(batch(t, [text], 40, range(n)), Rng(3))
    assert made.mask is not None
    kinds = [undone(t, r, m)[0][0] for r, m in zip(made.x.tolist(), made.mask.tolist(), strict=True)]
    counts = [kinds.count(k) for k in ("plain", "psm", "spm")]
    assert chisquare(counts, [0.7 * n, 0.15 * n, 0.15 * n]).pvalue > 1e-3
    middles = np.zeros(21)
    lengths = [
        (r.index(t.special["end"], r.index(t.special["fim_middle"])) - r.index(t.special["fim_middle"]) - 1)
        for r, k in zip(made.x.tolist(), kinds, strict=True)
        if k == "psm"
    ]
    for length in lengths:
        middles[length] += 1
    pairs = np.array([21 if d == 0 else 2 * (21 - d) for d in range(21)]) / 21**2  # |a - b| of two uniform places
    expected = pairs * len(lengths)
    assert chisquare([middles[:10].sum(), middles[10:].sum()], [expected[:10].sum(), expected[10:].sum()]).pvalue > 1e-3
    assert middles[0] > 0


def test_a_window_does_not_depend_on_its_batch() -> None:
    t = TOKENIZERS["bpe"]
    make, windows = FillIn(t, 0.5), batch(t, [CODE[:90], CODE], 64, range(30))
    whole = make(windows, Rng(4))
    for i in (0, 7, 29):
        alone = make(windows.select(torch.tensor([i])), Rng(4))
        assert torch.equal(alone.x[0], whole.x[i])
        assert alone.mask is not None and whole.mask is not None and torch.equal(alone.mask[0], whole.mask[i])
    assert len(torch.unique(whole.x, dim=0)) > 10, "draws of the same window differ"
    assert not torch.equal(make(windows, Rng(5)).x, whole.x)


def test_characters_are_not_divided() -> None:
    t = TOKENIZERS["bytes"]
    ids = np.array(t.encode("aé€"), dtype=np.int32)
    assert between_characters(ids, t).tolist() == [0, 1, 3, 6]
    t = TOKENIZERS["chars"]
    ids = np.array(t.encode("a€b"), dtype=np.int32)
    assert len(ids) == 8 and between_characters(ids, t).tolist() == [0, 1, 7, 8]


def test_parts_that_end_within_a_character_are_not_rearranged() -> None:
    t = TOKENIZERS["bpe"]
    ids = t.encode("x = 1  # " + "😀" * 30)
    assert "\ufffd" in t.decode(ids[:-1])
    before = Batch(torch.tensor([[0, *ids[:-1]]]), Cond(1), torch.arange(1))
    assert torch.equal(FillIn(t, 1.0)(before, Rng(0)).x, before.x)


def test_short_parts_and_parts_after_the_16th_are_not_rearranged() -> None:
    t = TOKENIZERS["bytes"]
    kinds = [k for k, _ in undone(t, *_made(t, ["x" * (SHORTEST - 1), "x" * SHORTEST]))]
    assert kinds[0] == "plain" and kinds[1] != "plain"
    kinds = [k for k, _ in undone(t, *_made(t, ["x" * 20] * (PIECES + 3)))]
    assert "plain" not in kinds[:PIECES] and set(kinds[PIECES:]) == {"plain"}


def _made(t: Tokenizer, documents: list[str]) -> tuple[list[int], list[bool]]:
    made = FillIn(t, 1.0)(batch(t, documents, 2000), Rng(0))
    assert made.mask is not None
    return made.x[0].tolist(), made.mask[0].tolist()


def test_the_order_of_parts() -> None:
    special = {m: 90 + i for i, m in enumerate(MARKS)}
    prefix, suffix = np.array([1, 2], dtype=np.int32), np.array([3], dtype=np.int32)
    assert fim_prompt(special, prefix, suffix).tolist() == [90, 1, 2, 91, 3, 92]
    assert fim_prompt(special, prefix, suffix, suffix_first=True).tolist() == [90, 91, 3, 92, 1, 2]
    assert supports_fim(special) and not supports_fim({"fim_prefix": 1})


# --------------------------------------------------------------------------- in the modality


def test_training_data_is_rearranged_and_held_out_data_is_not(tmp_path: Path) -> None:
    items = [Item(CODE + str(i), f"{i}.py", {"language": "python"}) for i in range(4)]
    encoder = MODALITY.fit(items, CodeOptions(context=64))
    encoder.save(tmp_path)
    encoder = MODALITY.load(tmp_path)
    examples, space = encoder.encode(items), encoder.space
    marks = torch.tensor([space.special[m] for m in MARKS])
    for seen in sweep(examples, space, 8):
        assert not torch.isin(seen.x, marks).any()
    loader = Loader(examples, space, Rng(0))
    first = loader.batch(0, 64)
    share = float(torch.isin(first.x, marks).any(1).float().mean())
    assert 0.3 < share < 0.7
    again = Loader(examples, space, Rng(0))
    parts = [again.batch(0, 40), again.batch(40, 24)]
    assert torch.equal(torch.cat([p.x for p in parts]), first.x)
    later = loader.batch(loader.count, 64)
    assert not torch.equal(later.x, first.x)


def test_without_fill_in_the_middle_there_are_no_marks() -> None:
    items = [Item(CODE, "a.py", {"language": "python"})]
    for options in (CodeOptions(fim_rate=0), CodeOptions(context=16)):
        encoder = MODALITY.fit(items, options)
        assert not supports_fim(encoder.space.special) and encoder.encode(items).vary is None
    assert any("requires a context of at least 20 tokens" in n for n in encoder.notes)
