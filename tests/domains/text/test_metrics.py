"""Compressors, verbatim runs and validity, against exact values and brute force."""

import gzip
import lzma
import math

import numpy as np
import pytest

from afresh.domains.text.metrics import METRICS, complete_parts, gzip_size, joined, lzma_after, lzma_size, valid_so_far
from afresh.engine.evaluation.memorisation import CopySearch, WindowHashes
from afresh.engine.evaluation.study import measure
from tests.engine.evaluation.evidence import code_evidence, library_code, parses_python, unfinished

TRAIN, HELDOUT = library_code()


def test_compressed_sizes_are_exact() -> None:
    text = HELDOUT[0].encode()
    assert gzip_size(text) == len(gzip.compress(text, 9)) - 18  # header of 10 bytes, sum and size of 8
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    packed = lzma.compress(text, format=lzma.FORMAT_RAW, filters=filters)
    assert lzma_size(text) == len(packed) and lzma.decompress(packed, lzma.FORMAT_RAW, filters=filters) == text
    assert lzma_after(text, text) < 0.02 * lzma_size(text)  # a copy costs next to nothing
    assert joined([b"a"]) == b"a" and joined([b"a", b"bc"]) == b"a\0bc\0"


def test_window_hashes_distinguish_runs() -> None:
    generator = np.random.default_rng(0)
    text = bytes(generator.integers(97, 100, 3000).astype(np.uint8))
    hashes = WindowHashes(text).of(7)
    runs = [text[i : i + 7] for i in range(len(text) - 6)]
    assert len(hashes) == len(runs) and len(set(hashes.tolist())) == len(set(runs))
    assert WindowHashes(b"xx" + text).of(7)[2:].tolist() == hashes.tolist()
    assert len(WindowHashes(b"abc").of(4)) == 0


def test_copied_runs_equal_those_of_brute_force() -> None:
    source = CopySearch([b"hello world, this is a document", b"and one more"])
    texts = [b"xx this is a dog", b"one", b"documentand one"]
    whole = b"hello world, this is a document\0and one more"
    for length in (3, 5, 9):
        want = [[t[i : i + length] in whole for i in range(len(t) - length + 1)] for t in texts]
        assert [s.tolist() for s in source.contained(texts, length)] == want
    assert source.longest(texts) == len(b" this is a do") and source.longest([b"documentand"]) == len(b"document")
    assert source.longest([]) == 0 and source.longest([b"QQ"]) == 0


def test_validity_of_unfinished_programs() -> None:
    assert valid_so_far(unfinished(4), parses_python) is True
    begun = "def f(x):\n    return (x,\n"
    assert complete_parts(begun) == [begun, "def f(x):\n"]
    assert valid_so_far(begun, parses_python) is False  # nothing before it is complete
    assert valid_so_far("x = 1\n" + begun, parses_python) is True
    assert valid_so_far("def f((:\n  x\n return\n" * 6, parses_python) is False
    assert valid_so_far("a = 1\nb = = 2\n" + "c = 3\n" * 8, parses_python) is False  # wrong long before its end
    assert valid_so_far('"""A module that\nis only begun', parses_python) is None
    assert valid_so_far("", parses_python) is False
    heads = [t[:n] for t in TRAIN + HELDOUT for n in (300, 1000, 3000, 9000)]
    decided = [v for v in (valid_so_far(h, parses_python) for h in heads) if v is not None]
    assert len(decided) > 10 and np.mean(decided) > 0.9


def test_metrics_of_text() -> None:
    size = sum(len(t.encode()) for t in HELDOUT)
    evidence = code_evidence([t[:800] for t in TRAIN], nats=size * 1.5 * math.log(2))
    result = measure(evidence, METRICS, 10, modality="code", sampling={"temperature": 1.0})
    scores = {s.name: s for s in result.scores}
    assert scores["bits_per_byte"].value == pytest.approx(1.5) and scores["bits_per_byte"].n == size
    assert scores["bits_per_byte"].control == scores["bits_per_byte/lzma_train"].value
    assert scores["bits_per_byte/gzip"].value == 8 * gzip_size(joined([t.encode() for t in HELDOUT])) / size
    assert scores["bits_per_byte/lzma_train"].value < scores["bits_per_byte/lzma"].value
    assert scores["verbatim_50"].value == 1.0 == scores["verbatim_50"].control and scores["verbatim_50"].floor < 0.1
    assert scores["longest_copy"].value == 800 > scores["longest_copy"].floor
    assert scores["distinct_1"].value < scores["distinct_1"].floor  # five texts, each twice
    assert scores["parses"].value == 1.0 and scores["parses"].control < 0.5
    assert not result.skipped


def test_a_bound_has_a_name_of_its_own() -> None:
    """So that no table shows it as exact bits per byte."""
    evidence = code_evidence(["some words " * 20], nats=100.0)
    evidence.bound = True
    result = measure(evidence, METRICS, 4, modality="text", sampling={})
    names = [s.name for s in result.scores]
    assert "bits_per_byte/bound" in names and "bits_per_byte" not in names
    assert any("only a bound" in n for n in result.notes)


def test_validity_is_not_measured_if_everything_is_valid() -> None:
    evidence = code_evidence(["some words " * 20])
    evidence.accepts = lambda value: True
    result = measure(evidence, METRICS, 4, modality="text", sampling={})
    assert "scrambled" in result.skipped["parses"]
    names = [s.name for s in result.scores]
    assert "bits_per_byte" not in names and "bits_per_byte/gzip" in names
    assert any("no likelihood" in n for n in result.notes)
