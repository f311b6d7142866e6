"""Documents of a stream as records."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from afresh.core import Cond, Examples, Space, UserError, registry
from afresh.core.events import listening
from afresh.data.load import sweep
from afresh.engine.families.codecs import records
from tests.contracts.rows import SPACES, unknown_field

SOURCE = Space("tokens", (6,), (9,), {"end": 8}, stream=True)


def documents(*lengths: int) -> Examples:
    """Documents of these lengths, `end` included, whose tokens count up."""
    rows = [[*(i % 8 for i in range(n - 1)), 8] for n in lengths]
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    return Examples(
        torch.tensor([t for row in rows for t in row]).int(), Cond(len(rows)), bounds=bounds, bytes=sum(lengths)
    )


def test_each_document_is_predicted_as_a_whole_and_alone() -> None:
    found = documents(4, 3, 6)
    codec = records.fit(found, SOURCE)
    assert codec.target.records and codec.target.vocab == (10,) and codec.target.special["filler"] == 9
    there = codec.encode(found)
    assert len(there) == 3 and there.bytes == found.bytes
    (batch,) = sweep(there, codec.target, 8)
    assert batch.mask is not None and bool((batch.x[:, 0] == 8).all())
    for row, mask, document in zip(batch.x, batch.mask, found.x.split([4, 3, 6]), strict=True):
        assert row[1:][mask].tolist() == document.tolist()


def test_tokens_are_decoded_as_they_are() -> None:
    codec = records.fit(documents(4), SOURCE)
    x = torch.tensor([[0, 1, 2, 8]])
    assert torch.equal(codec.decode(x), x)
    with pytest.raises(UserError, match="from 0 to 8"):
        codec.decode(torch.tensor([[9]]))


def test_long_documents_are_learnt_in_several_windows_with_a_warning() -> None:
    said: list[str] = []
    with listening(lambda e: said.append(e.text)):
        codec = records.fit(documents(600, 4), SOURCE)
    assert codec.context == records.LONGEST and any("1 document of 2" in s for s in said)


def test_a_codec_survives_saving(tmp_path: Path) -> None:
    codec = records.fit(documents(4, 3, 6), SOURCE)
    codec.save(tmp_path)
    assert registry.load_codec("records", tmp_path) == codec
    unknown_field(tmp_path / records.FILE)
    with pytest.raises(UserError, match="records"):
        registry.load_codec("records", tmp_path)


def test_what_is_no_stream_of_documents_is_refused() -> None:
    for name in ("line", "raster", "bags", "records"):
        assert not records.takes(SPACES[name])
        with pytest.raises(UserError, match="made of the documents of a stream"):
            records.fit(documents(4), SPACES[name])
