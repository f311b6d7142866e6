"""The contract of codecs: a target space that a family accepts, and a way back."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch

from afresh.core import Codec, Examples, Space, UserError, registry
from tests.contracts.rows import CODECS, SPACES, CodecRow, close, unknown_field

every_row = pytest.mark.parametrize("row", CODECS, ids=lambda r: r.name)


def fitted(row: CodecRow) -> tuple[Codec, Examples]:
    found = row.make(12)
    return fit(row, found, row.space), found


def fit(row: CodecRow, found: Examples, space: Space) -> Codec:
    codec: Codec = (row.fit or import_module(f"afresh.engine.families.codecs.{row.name}").fit)(found, space)
    return codec


@every_row
def test_decoding_inverts_encoding_up_to_the_loss(row: CodecRow) -> None:
    codec, found = fitted(row)
    there = codec.encode(found)
    back, real = codec.decode(there.x), found.x.float() * found.scale + found.shift
    assert back.shape == real.shape and back.dtype == torch.float32 and bool(back.isfinite().all())
    if not row.lossy:
        torch.testing.assert_close(back, real)
    assert len(there) == len(found) and there.bytes == found.bytes
    assert all(torch.equal(there.cond.parts[k], v) for k, v in found.cond.parts.items())


@every_row
def test_the_target_space_is_correct_and_accepted_by_some_family(row: CodecRow) -> None:
    codec, found = fitted(row)
    there, target = codec.encode(found), codec.target
    assert codec.source == row.space and there.x.shape[1:] == target.shape
    if target.kind == "tokens":
        forbidden = torch.tensor(sorted(target.special.values()))
        assert int(there.x.min()) >= 0 and int(there.x.max()) < target.vocab[0]
        assert not torch.isin(there.x.long(), forbidden).any()
    assert any(registry.family(f).accepts(target) is None for f in registry.FAMILIES)


@every_row
def test_examples_are_encoded_independently(row: CodecRow) -> None:
    codec, found = fitted(row)
    there = codec.encode(found).x
    one = Examples(found.x[5:6], found.cond.select(torch.tensor([5])), found.scale, found.shift)
    close(codec.encode(one).x, there[5:6], row.tolerance)
    close(codec.decode(there[5:6]), codec.decode(there)[5:6], row.tolerance)


@every_row
def test_a_codec_survives_saving(row: CodecRow, tmp_path: Path) -> None:
    codec, found = fitted(row)
    codec.save(tmp_path / "codec")
    other = registry.load_codec(row.name, tmp_path / "codec")
    assert (other.source, other.target) == (codec.source, codec.target)
    assert torch.equal(other.encode(found).x, codec.encode(found).x)
    x = codec.encode(found).x
    assert torch.equal(other.decode(x), codec.decode(x))


@every_row
def test_a_missing_codec_is_refused(row: CodecRow, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        registry.load_codec(row.name, tmp_path)


@every_row
def test_unknown_fields_are_refused(row: CodecRow, tmp_path: Path) -> None:
    codec, _ = fitted(row)
    codec.save(tmp_path)
    for file in tmp_path.glob("*.json"):
        unknown_field(file)
    with pytest.raises(UserError, match="colour"):
        registry.load_codec(row.name, tmp_path)


@every_row
def test_an_unsuitable_space_is_refused(row: CodecRow) -> None:
    codec, found = fitted(row)
    for space in SPACES.values():
        if space.kind != codec.source.kind or len(space.shape) != len(codec.source.shape):
            with pytest.raises(UserError, match=rf"encodes .*{space.kind}|needs {codec.source.kind}"):
                fit(row, found, space)
