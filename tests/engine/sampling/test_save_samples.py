"""Samples that can be rendered as audio can be played wherever they are shown: in a folder, a notebook and a report."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from afresh.core import Cond, Sound, registry
from afresh.domains.music.encoder import ScoreEncoder
from afresh.engine.evaluation.report import Sample, Section, render
from afresh.engine.sampling.samples import LONGEST, Samples, preview_wav, write_with_audio
from afresh.verbs.report import sample_views
from tests.contracts.rows import MODALITIES, ModalityRow

SCORES = ScoreEncoder(steps=4, voices=0, context=64, transpose=0)
BEGIN, MORE = "T120 M4/4\n| C4 :4 E4 :4", " G4 :4 C5 :4"
HEARD = {"audio", "music"}


def samples(*texts: str) -> Samples:
    """Scores that go on from BEGIN."""
    described = [{"prompt": BEGIN, "label": None}] * len(texts)
    return Samples(texts, torch.zeros(len(texts), 1), Cond(len(texts)), described, 0, SCORES)


def seconds(wav: bytes) -> float:
    found, rate = soundfile.read(io.BytesIO(wav))
    return len(found) / rate


@pytest.mark.parametrize("row", MODALITIES, ids=lambda r: r.name)
def test_an_encoder_says_what_its_values_sound_like(row: ModalityRow, tmp_path: Path) -> None:
    row.write(tmp_path)
    kind = registry.modality(row.name)
    options = kind.options(**row.options)
    items = kind.read(tmp_path, options).items
    heard = kind.fit(items, options).hear(items[0].value)
    assert (heard is not None) == (row.name in HEARD)
    if heard is not None:
        assert isinstance(heard, Sound) and heard.samples.ndim == 2 and heard.samples.dtype == np.float32
        assert np.isfinite(heard.samples).all() and 0 < np.abs(heard.samples).max() <= 1


def test_a_score_without_a_note_or_of_hours_is_not_heard() -> None:
    assert SCORES.hear("T120 M4/4 |") is None and SCORES.hear("") is None
    assert SCORES.hear("T20 M4/4" + "\n| C4 :16" * 301) is None  # an hour and a second
    assert SCORES.hear("no words of a score C4 :4") is not None


def test_on_a_page_a_score_is_heard_for_half_a_minute() -> None:
    long = "T120 M4/4" + "\n| C4 :16" * 20  # 40 seconds
    assert SCORES.hear(long).seconds == pytest.approx(40, abs=0.1)
    assert seconds(preview_wav(SCORES, long)) == pytest.approx(LONGEST)
    assert seconds(preview_wav(SCORES, BEGIN)) == pytest.approx(1, abs=0.1)
    assert preview_wav(SCORES, "") is None


def test_files_and_a_page_of_what_is_heard(tmp_path: Path) -> None:
    made = write_with_audio(SCORES, [BEGIN, "", BEGIN + MORE], tmp_path, ["<one>", "", ""])
    assert made == [("0.mid", "0.wav"), ("1.mid", None), ("2.mid", "2.wav")]
    assert not (tmp_path / "1.wav").exists() and (tmp_path / "1.mid").exists()
    assert seconds((tmp_path / "2.wav").read_bytes()) == pytest.approx(2, abs=0.1)
    page = (tmp_path / "index.html").read_text()
    assert re.findall(r'<audio [^>]*src="([^"]+)"', page) == ["0.wav", "2.wav"]
    assert "&lt;one&gt;" in page and "1.mid: no sound" in page


def test_nothing_is_written_where_nothing_is_heard(tmp_path: Path) -> None:
    assert write_with_audio(SCORES, ["", "T120"], tmp_path, ["", ""]) == [] and not list(tmp_path.iterdir())


def test_a_report_and_a_notebook_play_a_text_from_its_prompt_on() -> None:
    found = samples(MORE, " M4/4")
    views = sample_views(found)
    assert [v.text for v in views] == [MORE, " M4/4"] and {v.prompt for v in views} == {BEGIN}
    assert [round(seconds(v.wav or b""), 1) for v in views] == [2.1, 1.1]  # with the last note's end
    page = render("t", [Section(title="s", samples=views)])
    for shown in (page, found._repr_html_()):
        wavs = re.findall(r'src="data:audio/wav;base64,([^"]+)"', shown)
        assert [base64.b64decode(w) for w in wavs] == [v.wav for v in views]


def test_a_text_without_sound_has_no_player() -> None:
    assert "<audio" not in render("t", [Section(title="s", samples=[Sample(text="words")])])
