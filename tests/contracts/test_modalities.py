"""The contract of modalities: nothing is lost in encoding, and decoding returns the same."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from afresh.core import Corpus, Encoder, Examples, Item, Modality, UserError, registry
from afresh.data.prepare import choose_modality, prepare
from afresh.faces.cli import run as command
from afresh.runs.run import Run
from afresh.verbs.use_command import use_command
from tests.contracts.rows import MODALITIES, ModalityRow, equal, unknown_field

every_row = pytest.mark.parametrize("row", MODALITIES, ids=lambda r: r.name)


def read(row: ModalityRow, folder: Path) -> tuple[Modality, Any, Corpus]:
    row.write(folder)
    kind = registry.modality(row.name)
    options = kind.options(**row.options)
    return kind, options, kind.read(folder, options)


def fitted(row: ModalityRow, folder: Path) -> tuple[Encoder, list[Item], Examples]:
    kind, options, corpus = read(row, folder)
    encoder = kind.fit(corpus.items, options)
    return encoder, corpus.items, encoder.encode(corpus.items)


def decoded(encoder: Encoder, found: Examples) -> list[Any]:
    """The decoded values of all examples."""
    if found.bounds is None:
        return encoder.decode(found.x.float() * found.scale + found.shift if found.x.dim() > 2 else found.x)
    return [encoder.decode(found.x[a:b][None])[0] for a, b in found.bounds.unfold(0, 2, 1).tolist()]


@every_row
def test_it_recognises_its_own_data(row: ModalityRow, tmp_path: Path) -> None:
    row.write(tmp_path)
    kind, why = choose_modality(tmp_path, None)
    assert kind.name == row.name and why
    assert 0.5 < kind.sniff(tmp_path).score <= 1


@every_row
def test_every_file_is_an_item_or_is_refused_with_a_reason(row: ModalityRow, tmp_path: Path) -> None:
    (tmp_path / "odd.xyz").write_bytes(b"\0\1\2")
    _, _, corpus = read(row, tmp_path)
    assert len(corpus.items) == row.files
    assert [r.source for r in corpus.refused] == ["odd.xyz"] and len(corpus.refused[0].reason) > 5
    assert all(i.source for i in corpus.items)


@every_row
def test_decoding_inverts_encoding(row: ModalityRow, tmp_path: Path) -> None:
    encoder, items, found = fitted(row, tmp_path)
    back = decoded(encoder, found)
    assert len(back) == len(items) == found.cond.size
    left = [i.value for i in items]
    for value in back:  # a stream puts documents of one condition together, so the order may differ
        assert encoder.valid(value)
        left.pop(next(i for i, v in enumerate(left) if equal(v, value)))
    assert not left


@every_row
def test_the_space_describes_the_examples(row: ModalityRow, tmp_path: Path) -> None:
    encoder, _, found = fitted(row, tmp_path)
    space = encoder.space
    if space.kind == "tokens":
        ids = set(range(space.vocab[0]))
        assert set(found.x.unique().tolist()) <= ids and set(space.special.values()) <= ids
        assert not set(found.x.unique().tolist()) & {i for k, i in space.special.items() if k != "end"}
    else:
        x = found.x.float() * found.scale + found.shift
        assert x.shape[1:] == space.shape and (space.std == 1 or float(x.abs().max()) <= 1 + 1e-6)
        assert float(x.std(correction=0)) == pytest.approx(space.std, rel=0.01)
    assert found.bytes > 0 and set(found.cond.parts) == set(encoder.conds)


@every_row
def test_an_encoder_survives_saving(row: ModalityRow, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    encoder, items, found = fitted(row, tmp_path / "data")
    encoder.save(tmp_path / "encoder")
    kind = registry.modality(row.name)
    other = kind.load(tmp_path / "encoder")
    assert other.space == encoder.space and dict(other.conds) == dict(encoder.conds)
    again = other.encode(items)
    assert torch.equal(again.x, found.x) and again.bytes == found.bytes
    assert all(torch.equal(again.cond.parts[k], found.cond.parts[k]) for k in found.cond.parts)
    assert all(equal(a, b) for a, b in zip(decoded(other, again), decoded(encoder, found), strict=True))


@every_row
def test_an_encoder_that_is_missing_or_has_unknown_fields_is_refused(row: ModalityRow, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    encoder, _, _ = fitted(row, tmp_path / "data")
    kind = registry.modality(row.name)
    with pytest.raises(UserError, match=r"(?i)no such file"):
        kind.load(tmp_path)
    encoder.save(tmp_path / "encoder")
    unknown_field(tmp_path / "encoder" / "encoder.json")
    with pytest.raises(UserError, match="colour"):
        kind.load(tmp_path / "encoder")


@every_row
def test_options_survive_json_and_refuse_what_they_do_not_know(row: ModalityRow) -> None:
    kind = registry.modality(row.name).options
    options = kind(**row.options)
    assert kind.model_validate_json(options.model_dump_json()) == options
    with pytest.raises(ValidationError):
        kind(colour="blue")


@every_row
def test_an_unknown_label_is_refused_with_the_known_ones(row: ModalityRow, tmp_path: Path) -> None:
    encoder, items, _ = fitted(row, tmp_path)
    for name, part in encoder.conds.items():
        if part.kind == "label":
            with pytest.raises(UserError, match=part.classes[0]):
                encoder.encode([replace(items[0], labels={name: "never seen"})])


@every_row
def test_an_empty_folder_is_refused(row: ModalityRow, tmp_path: Path) -> None:
    kind = registry.modality(row.name)
    with pytest.raises(UserError, match="is empty"):
        kind.read(tmp_path, kind.options(**row.options))
    with pytest.raises(UserError, match="is empty"):
        choose_modality(tmp_path, None)
    with pytest.raises(UserError, match="No file or folder"):
        choose_modality(tmp_path / "missing", None)


@every_row
def test_written_samples_can_be_read_back(row: ModalityRow, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    encoder, items, _ = fitted(row, tmp_path / "data")
    values = [items[0].value, items[-1].value]
    files = encoder.write(values, tmp_path / "out", ["0", "1"])
    assert len(set(files)) == 2
    reader = registry.modality(row.written or row.name)
    back = reader.read(tmp_path / "out", reader.options(**row.options))
    assert all(any(equal(v, i.value) for i in back.items) for v in values)


@every_row
def test_preparing_twice_gives_the_same_split_with_nothing_on_both_sides(row: ModalityRow, tmp_path: Path) -> None:
    row.write(tmp_path)
    one, two = (prepare(tmp_path, row.name, row.options) for _ in range(2))
    assert one.split_hash == two.split_hash and torch.equal(one.train.x, two.train.x)
    train, heldout = ({one.kind.digest(i.value) for i in split} for split in (one.train_items, one.heldout_items))
    assert train and heldout and not train & heldout


@pytest.mark.slow
@every_row
def test_the_command_that_training_prints_next_works(
    row: ModalityRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    row.write(tmp_path / "data")
    options = [f"--data={name}={value}" for name, value in row.options.items()]
    train = ["train", "data", "--modality", row.name, *options, "--steps", "1", "--out", "run", "--no-measure"]
    assert command(train) == 0
    assert command(shlex.split(use_command(Run.open(tmp_path / "run")))[1:]) == 0
