"""A run that has hardly learnt keeps the voice that it is given, fills the others, and goes on from a beginning."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch

from afresh import api
from afresh.core import Cond, UserError
from afresh.core.rng import Rng
from afresh.domains.music.compose import go_on, harmonise, read_score
from afresh.domains.music.encoder import SPECIAL
from afresh.domains.music.files import midi_bytes
from afresh.domains.music.score import MusicScore, Note
from afresh.engine.sampling.masked import Unmask, repair
from afresh.engine.sampling.tokens import Cut
from afresh.runs.run import Run

TINY = {"family.width": 16, "family.layers": 1, "family.heads": 2, "train.compile": False}
MELODY = MusicScore(tuple(Note(4 * i, 0, 72 + i % 5, 4) for i in range(8)), steps=4)
MELODY_OF_TWO = replace(MELODY, notes=(*MELODY.notes, *(Note(4 * i, 1, 48, 4) for i in range(8))))


def trained(folder: Path, family: str) -> Run:
    pieces = [[[60 + (i + k // 4) % 7, 48 + (i * k // 4) % 5] for k in range(32)] for i in range(24)]
    (folder / "pieces.json").write_text(json.dumps(pieces), encoding="ascii")
    given = {"context": 64}
    settings = {**TINY, "family.kv_heads": 2} if family == "transformer" else TINY
    return api.train(
        folder / "pieces.json", family=family, steps=2, out=folder / family, data=given, settings=settings, quiet=True
    ).run


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("masked"), "masked")


@pytest.mark.parametrize("voice", [0, 1])
def test_the_given_voice_stays_and_the_other_is_filled(masked: Run, voice: int, tmp_path: Path) -> None:
    made = harmonise(masked, MELODY, 2, voice=voice, seed=3)
    words = [t.split() for t in made.texts]
    given = ("C5", "C#5", "D5", "D#5", "E5", "C5", "C#5", "D5")
    for row in words:
        cells = [w for w in row[3:] if w != "|"]  # T, V and M come first
        assert len(cells) == 64
        assert cells[voice::2] == [w for p in given for w in (p, "_", "_", "_")]
    assert harmonise(masked, MELODY, 2, voice=voice, seed=3).texts == made.texts
    again = [[n.pitch for n in s.notes if n.voice == voice] for s in made.scores()]
    assert again == [[n.pitch for n in MELODY.notes]] * 2
    assert all(masked.encoder.valid(t) for t in made.texts)
    assert "not fitting a step" in made.notes[-1]  # it has hardly learnt which words there are
    files = made.save(tmp_path / "out")
    assert [(f["file"], f["sound"]) for f in files] == [("0.mid", "0.wav"), ("1.mid", "1.wav")]
    assert [f["text"] for f in files] == list(made.texts) and (tmp_path / "out" / "index.html").exists()
    samples, rate = soundfile.read(tmp_path / "out" / "0.wav")
    assert len(samples) / rate > 4 and abs(samples).max() > 0.5  # eight quarters at 120


def test_samples_of_a_masked_run_are_held_to_the_notation_unless_it_is_turned_off(masked: Run, tmp_path: Path) -> None:
    """Beyond a window too, and from a beginning. It has hardly learnt: nothing of what it writes freely is valid."""
    model, valid = api.load(masked.path), masked.encoder.valid
    for given in ({"length": 40}, {"length": 150, "steps": 4}, {"length": 40, "order": "confidence", "temperature": 0}):
        free, held = (model.sample(6, notation=n, **given) for n in (False, True))
        assert not any(map(valid, free)) and all(map(valid, held)), given
        assert [str(v) for v in model.sample(6, **given)] == [str(v) for v in held]
    made = go_on(masked, MELODY_OF_TWO, 3, settings={"length": 20}).texts
    assert all(map(valid, made)) and all(t.split()[:6] == ["T120", "V2", "M4/4", "|", "C5", "C3"] for t in made)


def test_repair_draws_again_only_what_may_not_stand(masked: Run) -> None:
    encoder, end = masked.encoder, SPECIAL["end"]
    assert encoder.abilities.notation is not None
    good = "T120 V2 M1/4 | C5 C3 _ _ z _ _ C3".replace("_ C3", "z C3").split()
    bad = [*good[:4], "|", *good[5:]]  # a second bar in the place of the first note
    ids = [[encoder.ids[w] for w in words] for words in (good, bad)]
    x = torch.tensor([[end, *row, end] for row in ids])
    asked: list[torch.Tensor] = []

    def predict(window: torch.Tensor, t: None, cond: Cond, state: None) -> tuple[torch.Tensor, None]:
        asked.append(window)
        return torch.zeros(*window[:, 1:].shape, encoder.space.vocab[0]), None

    how = Unmask(encoder.space.vocab[0], Cut(), follows=encoder.abilities.notation)
    spans = (torch.zeros(2, dtype=torch.int64), torch.full((2,), x.shape[1] - 1))
    out = repair(predict, x, *spans, Cond(2), Rng(0), torch.arange(2), 64, how, end)
    assert out[0].tolist() == x[0].tolist() and len(asked) >= 1 and all(len(w) == 1 for w in asked)
    assert asked[0][0, 5] == how.mask and asked[0][0, 6:9].tolist() == x[1, 6:9].tolist(), "both sides are seen"
    assert all(map(encoder.valid, encoder.decode(out[:, 1:])))


def test_a_file_is_read_on_the_grid_of_the_run(masked: Run, tmp_path: Path) -> None:
    (tmp_path / "a.mid").write_bytes(midi_bytes(MELODY))
    assert read_score(masked, tmp_path / "a.mid") == (MELODY, [])
    (tmp_path / "b.mid").write_bytes(b"no music")
    for name in ("b.mid", "c.mid", "d.txt"):
        with pytest.raises(UserError, match="cannot be read as music"):
            read_score(masked, tmp_path / name)


def test_what_cannot_be_is_refused(masked: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="voice 2"):
        harmonise(masked, MELODY, voice=2)
    with pytest.raises(UserError, match="steps per quarter"):
        harmonise(masked, replace(MELODY, steps=12))
    with pytest.raises(UserError, match="no note"):
        harmonise(masked, replace(MELODY, notes=()))
    left = trained(tmp_path, "transformer")
    with pytest.raises(UserError, match="masked"):
        harmonise(left, MELODY)
    made = go_on(left, replace(MELODY, notes=(*MELODY.notes, Note(0, 1, 48, 32))), 2, settings={"length": 6})
    assert all(t.startswith("T120 V2 M4/4\n| C5 C3 _ _") and len(t.split()) <= 3 + 2 + 64 + 6 for t in made.texts)
