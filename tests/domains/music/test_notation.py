"""Whatever a model would like to write, what is drawn is one valid score."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from afresh.core.rng import Rng
from afresh.domains.music.encoder import SPECIAL, ScoreEncoder
from afresh.engine.sampling.constraint import restrict
from afresh.engine.sampling.text_time_limit import Deadline
from afresh.runs.run import Run
from tests.domains.music.test_compose import trained

EVENTS = ScoreEncoder(steps=12, voices=0, context=64, transpose=0)
VOICES = ScoreEncoder(steps=4, voices=2, context=64, transpose=0)
TUNE = "T120 M3/4 | C4 :12 D4 :12 E4 :12 | F4 :24 @0 v2 C3 :36"
BEGUN = {
    "nothing": (EVENTS, ""),
    "within a bar": (EVENTS, "T120 M3/4 | C4 :12"),
    "within a note": (EVENTS, "T120 M3/4 | C4 :12 D4"),
    "a note that overlaps": (EVENTS, "T120 M3/4 | C4 :36 @0 v2 D4 :96 @12"),
    "a whole tune": (EVENTS, TUNE),
    "no score": (EVENTS, "C4 :12 :12 @3"),
    "no voices": (VOICES, ""),
    "two voices": (VOICES, "T100 V2 M2/4 | G4 C3 _ _ z"),
}


def drawn(encoder: ScoreEncoder, begun: str, length: int, seed: int) -> list[int]:
    """What a model would write that finds every word as likely as any other."""
    ids = [encoder.ids[w] for w in begun.split()]
    assert encoder.abilities.notation is not None
    deadline = Deadline(encoder.abilities.notation([SPECIAL["end"], *ids]), length, SPECIAL["end"])
    out = list[int]()
    while len(out) < length and out[-1:] != [SPECIAL["end"]]:
        logits = torch.zeros(1, encoder.space.vocab[0])
        p = restrict(logits, [deadline.constraint], SPECIAL["end"])[0].softmax(-1)
        u = Rng(seed).uniform(f"{len(out)}", torch.zeros(1, dtype=torch.int64))
        out.append(deadline.take(int(torch.searchsorted(p.cumsum(-1), u * 0.99999, right=True)), length - len(out)))
    return out


@pytest.mark.parametrize("length", [6, 60, 300])
@pytest.mark.parametrize("begun", BEGUN)
def test_any_beginning_goes_on_to_one_valid_score(begun: str, length: int) -> None:
    encoder, text = BEGUN[begun]
    for seed in range(6):
        (after,) = encoder.decode(torch.tensor([drawn(encoder, text, length, seed)]))
        whole = f"{text} {after}".split()
        _, problems = encoder.score(" ".join(whole))
        assert problems == encoder.score(text)[1] if begun == "no score" else not problems, (seed, whole)
        assert sum(w[0] == "T" for w in whole) == (0 if begun == "no score" and not after.count("T") else 1)


@pytest.mark.parametrize("encoder", [EVENTS, VOICES], ids=lambda e: e.form)
def test_every_real_score_is_allowed(encoder: ScoreEncoder) -> None:
    text = TUNE if not encoder.voices else "T100 V2 M2/4 | G4 C3 _ _ z _ z _ A4 _ _ z _ z _ z M1/4 | _ C3 B4 _"
    assert encoder.score(text)[1] == []
    assert encoder.abilities.notation is not None
    state = encoder.abilities.notation([])
    for word in text.split():
        assert bool(state.allowed()[encoder.ids[word]]), word
        state.accept(encoder.ids[word])
    assert state.finished() and not bool(state.allowed()[[i for w, i in encoder.ids.items() if w[0] in "TV"]].any())
    same, copy = state.copy(), state.copy()
    copy.accept(int(state.allowed().nonzero()[0]))
    assert vars(same) == vars(state) != vars(copy), "a copy goes on by itself"


@pytest.mark.slow
def test_samples_are_held_to_the_notation_unless_it_is_turned_off(tmp_path: Path) -> None:
    """By a run that has hardly learnt: nothing of what it writes freely is valid."""
    import afresh

    run: Run = trained(tmp_path, "transformer")
    model = afresh.load(run.path)
    free, held = (model.sample(8, length=40, notation=n) for n in (False, True))
    assert sum(map(run.encoder.valid, free)) == 0 and all(map(run.encoder.valid, held))
    assert [str(v) for v in model.sample(8, length=40)] == [str(v) for v in held]
    assert all(run.encoder.valid(t) for t in model.compose(tmp_path / "pieces.json", 2, settings={"length": 20}).texts)
