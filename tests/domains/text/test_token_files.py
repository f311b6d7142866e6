"""Tokens that another program made: learnt as they are, with the batches that they would give in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from afresh.core import Cond, Examples, UserError
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.data.prepare import Prepared, prepare
from afresh.data.text.tokenizer import Tokenizer
from afresh.data.token_parts import Made
from afresh.domains.text.token_files import TokenFiles
from afresh.runs.data import run_data
from afresh.runs.run import Run
from afresh.verbs.train import TrainSpec, start
from afresh.verbs.training_job import learn
from tests.domains.text.test_large import SMALL, texts
from tests.named_settings import named


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tokenizer]:
    """A tokenizer.json that does not say which token ends a text, as other programs write them."""
    folder, learnt = tmp_path_factory.mktemp("tokenizer"), Tokenizer.learn_bpe(texts(200), 300)
    learnt.save(folder / "tokenizer.json")
    return folder / "tokenizer.json", learnt


def ids_of(tokenizer: Tokenizer, documents: Sequence[str]) -> list[int]:
    return [i for text in documents for i in (*tokenizer.encode(text), tokenizer.special["end"])]


def read(path: Path, tokenizer: Path) -> Prepared:
    return prepare(path, options={"tokenizer": str(tokenizer), "context": 32})


def all_ids(prepared: Prepared) -> list[int]:
    parts = prepared.train.parts
    assert isinstance(parts, TokenFiles)
    lengths = [parts.tokens(p) for p in range(len(parts))]
    return [i for p, n in enumerate(lengths) for i in parts.read(torch.tensor([p]), torch.arange(n)[None])[0].tolist()]


def test_batches_are_those_of_the_tokens_in_memory(tmp_path: Path, tokenizer: tuple[Path, Tokenizer]) -> None:
    path, known = tokenizer
    sides = {"train": texts(400), "val": texts(40, seed=1)}
    for side, documents in sides.items():
        np.array(ids_of(known, documents), np.uint16).tofile(tmp_path / f"{side}.bin")
    prepared = read(tmp_path, path)
    assert prepared.modality == "text" and [i.value for i in prepared.heldout_items] == sides["val"]
    ids = torch.tensor(ids_of(known, sides["train"]), dtype=torch.int32)
    whole = Examples(ids, Cond(1), bounds=torch.tensor([0, len(ids)]))
    space = prepared.encoder.space
    ours, theirs = Loader(prepared.train, space, Rng(3)), Loader(whole, space, Rng(3))
    assert ours.count == theirs.count > 100
    for first in range(0, 3 * ours.count, 50):
        a, b = ours.batch(first, 50), theirs.batch(first, 50)
        assert torch.equal(a.x, b.x) and (a.mask is b.mask is None or torch.equal(a.mask, b.mask))


@pytest.mark.parametrize("form", ["two bytes", "four bytes", "llm.c", "llm.c, four bytes", "npy"])
def test_each_token_is_learnt_once_or_held_out(tmp_path: Path, tokenizer: tuple[Path, Tokenizer], form: str) -> None:
    path, known = tokenizer
    documents = texts(900)
    (tmp_path / "data").mkdir()
    for number in range(3):
        ids = ids_of(known, documents[number * 300 : number * 300 + 300])
        place = tmp_path / "data" / f"shard_{number:02d}.{'npy' if form == 'npy' else 'bin'}"
        header = np.zeros(256, np.int32)
        header[:3] = (20240801, 7, len(ids)) if form == "llm.c, four bytes" else (20240520, 1, len(ids))
        array = np.array(ids, np.uint32 if "four" in form else np.uint16)
        if form == "npy":
            np.save(place, array)
        else:
            place.write_bytes((header.tobytes() if "llm" in form else b"") + array.tobytes())
    prepared = read(tmp_path / "data", path)
    held = [i.value for i in prepared.heldout_items]
    learnt = known.decode(all_ids(prepared)).split(".")
    assert len(held) > 16 and sorted([*held, *(t + "." for t in learnt if t)]) == sorted(documents)


def test_a_run_of_them_goes_on_with_the_same_windows(tmp_path: Path, tokenizer: tuple[Path, Tokenizer]) -> None:
    path, known = tokenizer
    np.array(ids_of(known, texts(600)), np.uint16).tofile(tmp_path / "tokens.bin")
    spec = TrainSpec(
        tmp_path / "tokens.bin",
        steps=3,
        out=tmp_path / "run",
        data={"tokenizer": str(path), "context": 32},
        settings=named(family=SMALL, train={"threads": 1}),
    )
    job = start(spec)
    learn(job)
    run = Run.open(tmp_path / "run")
    assert run.encoder.space.special["end"] == known.special["end"]
    again = run_data(run)  # raises if it is not what was learnt
    first, second = (Loader(t, run.training_space, Rng(0)) for t in (job.source.train, again.train))
    assert torch.equal(first.batch(700, 40).x, second.batch(700, 40).x)
    assert read(tmp_path / "tokens.bin", tmp_path / "run").encoder.space.vocab == run.encoder.space.vocab


def test_texts_are_learnt_by_a_named_tokenizer(tmp_path: Path, tokenizer: tuple[Path, Tokenizer]) -> None:
    (tmp_path / "a.txt").write_text("\n".join(texts(60)))
    prepared = read(tmp_path / "a.txt", tokenizer[0].parent)
    assert prepared.encoder.space.vocab == (tokenizer[1].size,) and any("named" in n for n in prepared.notes)


# --------------------------------------------------------------------------- bad input


def test_a_token_outside_of_the_vocabulary_is_named(tmp_path: Path, tokenizer: tuple[Path, Tokenizer]) -> None:
    path, known = tokenizer
    ids = np.array(ids_of(known, texts(2000)), np.uint16)
    ids[len(ids) // 2 + 1] = known.size
    ids.tofile(tmp_path / "t.bin")
    with pytest.raises(UserError, match=rf"t\.bin has the token {known.size} at byte {len(ids) // 2 * 2 + 2:,}"):
        all_ids(read(tmp_path / "t.bin", path))
    half = len(ids) // 2
    counts = [Counter(tokens=half), Counter(tokens=len(ids) - half)]
    windows = TokenFiles([Made(tmp_path / "t.bin", ids.dtype, 2 * half * n, counts[n]) for n in range(2)], known, 1.0)
    with pytest.raises(UserError, match=rf"at byte {len(ids) // 2 * 2 + 2:,}, .*data\.tokenizer"):
        windows.read(torch.tensor([0, 1]), torch.arange(-1, 31).repeat(2, 1))


def test_damaged_files_are_named(tmp_path: Path, tokenizer: tuple[Path, Tokenizer]) -> None:
    path, known = tokenizer
    ids, data = np.array(ids_of(known, texts(300)), np.uint16), tmp_path / "a.bin"
    header = np.zeros(256, np.int32)
    header[:3] = 20240520, 1, len(ids)
    data.write_bytes(header.tobytes() + ids.tobytes()[:-100])
    with pytest.raises(UserError, match=rf"a\.bin cannot be read as tokens: it declares {len(ids):,} tokens"):
        read(data, path)
    data.write_bytes(ids.tobytes()[:-1])
    with pytest.raises(UserError, match=r"no whole number of tokens of uint16.*data\.exclude"):
        read(data, path)
    np.save(tmp_path / "b.npy", ids)
    (tmp_path / "b.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:-8])
    with pytest.raises(UserError, match=r"b\.npy cannot be read as tokens.*declares"):
        prepare(tmp_path / "b.npy", "text", {"tokenizer": str(path)})
    data.write_bytes(ids.tobytes())
    prepared = read(data, path)
    data.write_bytes(ids.tobytes()[:-3000])
    with pytest.raises(UserError, match=r"a\.bin has fewer tokens than when it was found"):
        all_ids(prepared)


def test_the_tokenizer_has_to_be_named(tmp_path: Path, tokenizer: tuple[Path, Tokenizer]) -> None:
    np.array(ids_of(tokenizer[1], texts(300)), np.uint16).tofile(tmp_path / "a.bin")
    with pytest.raises(UserError, match=r"a\.bin holds tokens of another program.*data\.tokenizer=PATH"):
        prepare(tmp_path / "a.bin")
    with pytest.raises(UserError, match=r"names no tokenizer.*tokenizer\.json"):
        read(tmp_path / "a.bin", tmp_path)
    with pytest.raises(UserError, match="BPE is neither auto"):
        prepare(tmp_path / "a.bin", options={"tokenizer": "BPE"})
