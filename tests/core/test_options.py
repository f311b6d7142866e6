"""Messages about settings name the value and what is accepted."""

from __future__ import annotations

from typing import Any

import pytest

from afresh.core import UserError, registry
from afresh.core.options import override
from afresh.data.prepare import read_options
from afresh.engine.families.autoencoder import AutoencoderConfig


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rate": "1000000"}, "rate: should be at most 48000, given '1000000' (accepted: 4000 to 48000)"),
        ({"seconds": 0}, "seconds: should be at least 0.02, given 0 (accepted: 0.02 to 60)"),
        ({"overlap": "-1"}, "given '-1' (accepted: 0 to 0.9)"),
        ({"rate": "fast"}, "given 'fast' (accepted: 4000 to 48000)"),
        ({"near": "maybe"}, "near: should be 'keep' or 'drop', given 'maybe'"),
        ({"chanels": 2}, "there is no chanels (did you mean channels?). Accepted"),
        ({"speaker": 2}, "there is no speaker. Accepted: rate, channels, seconds"),
    ],
)
def test_data_options(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        read_options(registry.modality("audio"), given)
    assert said in str(error.value) and str(error.value).startswith("Data options of audio: ")


def test_options_without_an_upper_or_a_lower_limit() -> None:
    with pytest.raises(UserError, match=r"given 0 \(accepted: from 1\)"):
        read_options(registry.modality("music"), {"max_file_mb": 0})


def test_contradictory_settings_are_explained_in_plain_words() -> None:
    with pytest.raises(UserError) as error:
        override(AutoencoderConfig(), {"residual": 3}, "family")
    assert str(error.value).startswith(
        "Settings of family: residual 3 needs the bottleneck fsq, not kl: set bottleneck=fsq"
    )


@pytest.mark.parametrize(
    ("modality", "given", "read"),
    [
        ("code", {"languages": "python, c"}, ("python", "c")),
        ("audio", {"curves": "loudness,pitch"}, ("loudness", "pitch")),
        ("molecule", {"properties": "logP,QED"}, ("logP", "QED")),
        ("molecule", {"numbers": "logS"}, ("logS",)),
        ("molecule", {"numbers": ["logS"]}, ("logS",)),
    ],
)
def test_lists_are_given_as_words_with_commas(modality: str, given: dict[str, Any], read: tuple[str, ...]) -> None:
    (name,) = given
    assert getattr(read_options(registry.modality(modality), given), name) == read
