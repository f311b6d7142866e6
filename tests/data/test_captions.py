"""Captions to vectors: reproducible, and never from another encoder without an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from afresh.core import UserError
from afresh.data.captions import MANY, CaptionEncoder, fit_captions
from afresh.data.text_encoder import digests
from afresh.data.text_encoder_source import MINILM, PINNED
from tests.data.tiny_encoder import CAPTIONS, in_hub, tiny
from tests.heard import heard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("models") / "tiny")


def fitted(wanted: str, captions: list[str] = CAPTIONS) -> CaptionEncoder:
    encoder, _ = fit_captions(wanted, captions)
    assert encoder is not None
    return encoder


def test_training_captions_are_standardised(folder: Path) -> None:
    encoder, notes = fit_captions(str(folder), CAPTIONS * 2)
    assert encoder is not None and encoder.saved.name == str(folder)
    assert any("12 different captions were encoded as 12 numbers each in" in n for n in notes)
    vectors = encoder(CAPTIONS)
    torch.testing.assert_close(vectors.mean(0), torch.zeros(12), rtol=0, atol=1e-5)
    torch.testing.assert_close(vectors.std(0, correction=0), torch.ones(12), rtol=0, atol=1e-4)
    assert encoder([]).shape == (0, 12)


def test_a_saved_encoder_gives_the_same_vectors(folder: Path, tmp_path: Path) -> None:
    encoder = fitted(str(folder))
    encoder.save(tmp_path)
    again = CaptionEncoder.load(tmp_path, encoder.saved)
    torch.testing.assert_close(again(["blue dog", *CAPTIONS]), encoder(["blue dog", *CAPTIONS]), rtol=0, atol=1e-5)


def test_an_encoder_other_than_in_training_is_refused(tmp_path: Path) -> None:
    encoder = fitted(str(tiny(tmp_path / "model")))
    encoder.save(tmp_path)
    tiny(tmp_path / "model", seed=1)
    with pytest.raises(UserError, match=r"not the one that this model was trained with: model\.safetensors differ"):
        CaptionEncoder.load(tmp_path, encoder.saved)(["red cat"])
    (tmp_path / "model").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"No folder .*model with a text encoder"):
        CaptionEncoder.load(tmp_path, encoder.saved)(["red cat"])


def test_an_encoder_of_the_hub_is_recorded_with_its_commit_and_found_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = in_hub(tmp_path, "someone/tiny", "1" * 40)
    encoder = fitted("someone/tiny")
    assert encoder.saved.name == f"someone/tiny@{'1' * 40}"
    in_hub(tmp_path, "someone/tiny", "2" * 40, seed=1)  # a newer commit changes nothing
    encoder.save(tmp_path)
    again = CaptionEncoder.load(tmp_path, encoder.saved)
    torch.testing.assert_close(again(CAPTIONS), encoder(CAPTIONS), rtol=0, atol=1e-5)
    (snapshot / "config.json").unlink()
    with pytest.raises(UserError, match=r"tiny@1+ could not be downloaded.*words|config\.json missing"):
        CaptionEncoder.load(tmp_path, encoder.saved)(["red cat"])


def test_long_captions_are_truncated_and_reported(folder: Path) -> None:
    endless = "red " * 10_000
    encoder, notes = fit_captions(str(folder), [*CAPTIONS, endless, endless])
    assert encoder is not None and "2 captions truncated to 16 tokens" in notes
    torch.testing.assert_close(encoder([endless]), encoder(["red " * 14]), rtol=0, atol=1e-5)
    with heard("1 caption truncated to 16 tokens"):
        encoder(["blue " * 10_000])


def test_auto_takes_words_for_few_captions_and_minilm_for_many_if_it_is_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    few = [f"thing {i}" for i in range(MANY - 1)]
    encoder, notes = fit_captions("auto", few * 3)
    assert encoder is None and notes == [
        "captions are encoded as words, because only 99 are different (`data.captions=minilm` uses a text encoder)"
    ]
    encoder, notes = fit_captions("auto", [*few, "one more"])
    assert encoder is None and "`data.captions=minilm` downloads one" in notes[0]
    pinned = PINNED[MINILM]
    snapshot = in_hub(tmp_path, pinned.repository, pinned.revision or "")
    encoder, _ = fit_captions("auto", [*few, "one more"])
    assert encoder is None  # its files are not those that are pinned
    monkeypatch.setitem(PINNED, MINILM, replace(pinned, files=digests(snapshot)))
    encoder, notes = fit_captions("auto", [*few, "one more"])
    assert encoder is not None and encoder.saved.name == MINILM
    assert "captions are encoded by minilm, because 100 are different" in notes[0]


def test_words_and_captions_without_information_need_no_encoder(folder: Path) -> None:
    assert fit_captions(str(folder), ["a cat"] * 9) == (None, [])
    assert fit_captions("words", CAPTIONS) == (None, [])
    assert fit_captions("auto", []) == (None, [])
    with pytest.raises(UserError, match=r"the data has no captions.*column named text"):
        fit_captions(str(folder), [])
