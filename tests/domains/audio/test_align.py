"""Sounds steered end to end: by a reward, by a class, by votes, and the votes themselves, on runs of a few steps."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import afresh
from afresh.api import Model
from afresh.core import Sound, UserError
from afresh.data.audio.kind import SOUND
from afresh.data.image.kind import IMAGE
from afresh.data.text.kind import TEXT
from afresh.engine.alignment.feedback.preferences import Vote, read_votes, scan
from afresh.engine.alignment.feedback.votes import append
from afresh.engine.alignment.rewards.reward import Scorer
from afresh.engine.alignment.rewards.reward_factory import reward_of
from afresh.engine.alignment.rewards.reward_model import load_reward_model, train_reward_model
from afresh.faces.cli import run as command
from afresh.faces.http import vote
from afresh.runs.data import run_data
from afresh.runs.run import Run, metrics_rows
from afresh.verbs.align import AlignSpec, start
from afresh.verbs.annotate import PairRequest, Session, make_plan, votes_in
from afresh.verbs.training_job import learn
from tests.heard import heard
from tests.named_settings import with_named
from tests.voting import Voter, page_votes
from tests.warm import Warm

pytestmark = pytest.mark.slow

RATE = 8_000
PROGRAM = "import sys; from afresh.faces.cli import run; sys.exit(run(sys.argv[1:]))"
SMALL = {"flow": "family.widths=[8]", "vae": "family.width=8"}


def blip(i: int, high: bool, seconds: float = 0.12) -> np.ndarray:
    """A tone that fades, low and soft or high and loud; (T,) float32."""
    time = np.arange(round(seconds * RATE)) / RATE
    hertz = (1800 if high else 300) * (1 + 0.02 * i)
    return ((0.6 if high else 0.1) * np.sin(2 * np.pi * hertz * time) * np.exp(-4 * time)).astype(np.float32)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 sounds of two classes, a run of each family on them, and votes for what is loud."""
    root = tmp_path_factory.mktemp("sounds")
    for i in range(16):
        place = root / "blips" / ("high" if i % 2 else "low")
        place.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / f"{i:02d}.wav", blip(i, bool(i % 2)), RATE, "FLOAT")
    for family, small in SMALL.items():
        argv = ["train", root / "blips", "--family", family, "--steps", "30", "--out", root / family, "--no-measure"]
        argv += ["--set", "train.batch=8", "--set", small, "--data", "trim=false"]
        argv += ["--set", "train.eval_every=30", "--set", "train.preview_every=30"]
        assert command([str(a) for a in argv]) == 0
    (root / "voted").mkdir()
    for i in range(24):
        soundfile.write(root / "voted" / f"{i}.wav", blip(i, bool(i % 2)) * (1 - i / 60), RATE)
    lines = [{"a": f"voted/{i}.wav", "b": f"voted/{j}.wav", "winner": "ab"[j % 2]} for i in range(24) for j in
             range(i + 1, 24, 3) if (i + j) % 2]  # fmt: skip
    (root / "votes.jsonl").write_text("".join(json.dumps(v) + "\n" for v in lines))
    return root


def aligned(root: Path, family: str, out: Path, **wishes: object) -> Run:
    train = {"batch": 8, "lr": 3e-3, "ema_half_life": 0, "eval_every": 12}
    given: dict[str, object] = {"steps": 24, "set_train": train, **wishes}
    if family == "flow":
        given = {"settings": {"steps": 4}, **given}
    learn(start(AlignSpec(root / family, **with_named(given), out=out)))
    return Run.open(out)


def seen(run: Run, name: str) -> list[float]:
    return [row[name] for row in metrics_rows(run) if "diversity" in row and name in row]


# ------------------------------------------------------------------------------------------------------ by a reward


def test_sounds_become_louder(root: Path, tmp_path: Path) -> None:
    run = aligned(root, "flow", tmp_path / "run", method="rejection", reward="loudness", heldout_reward="brightness")
    reward = seen(run, "reward")
    assert reward[-1] > reward[0] + 0.5, "dB"
    assert len(seen(run, "heldout_reward")) == len(reward)
    assert all(0 < d < 1 for d in seen(run, "diversity"))
    made = afresh.load(tmp_path / "run").sample(2, steps=4).values
    assert all(isinstance(v, Sound) for v in made)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classifiers of a few steps: these classes are plain."""
    monkeypatch.setattr("afresh.engine.evaluation.label_classifier.STEPS", 40)


def test_a_class_of_sounds_is_a_reward_with_a_gradient(root: Path, quick: None) -> None:
    run = Run.open(root / "flow")
    with heard("accuracy of its classifier"):
        reward = reward_of(run, "class:high")
    own = [Sound(blip(i, bool(i % 2))[:, None], RATE) for i in range(8)]
    found = np.asarray(reward.score(own, [{}] * 8))
    assert (found[1::2] > 0.8).all() and (found[::2] < 0.2).all()
    made = run.encoder.encode(run_data(run).train_items[:4])
    x = (made.x.float() * made.scale + made.shift).requires_grad_(True)
    assert reward.on_field is not None
    (slope,) = torch.autograd.grad(reward.on_field(x).sum(), x)
    assert slope.shape == x.shape and bool(slope.abs().sum() > 0)


def test_a_gradient_steers_and_best_of_several_is_choose_method(root: Path, quick: None) -> None:
    run = Run.open(root / "flow")
    plain = Model(run).sample(8, seed=1, steps=4)
    best = Model(run).sample(8, seed=1, steps=4, best_of=4, reward="loudness")
    assert [d["reward"] for d in best.described] == pytest.approx(Scorer(reward_of(run, "loudness"))(best.values))
    assert np.mean([d["reward"] for d in best.described]) > Scorer(reward_of(run, "loudness"))(plain.values).mean()
    with heard("accuracy of its classifier"):
        steered = Model(run).sample(4, seed=1, steps=4, reward_guidance="class:high", weight=1.0)
    assert not torch.equal(steered.x, plain.x[:4])
    with pytest.raises(
        UserError, match=r"loudness: a reward without a gradient cannot guide sampling. Rewards with one: class:LABEL"
    ):
        Model(run).sample(2, steps=4, reward_guidance="loudness")


def test_rewards_of_other_kinds_teach(root: Path, tmp_path: Path) -> None:
    assert Run.open(root / "vae").encoder.kind is SOUND
    for wish, why in (("symmetry", "symmetry is for images, not for sounds"), ("json", "json is for texts")):
        with pytest.raises(UserError, match=why):
            start(AlignSpec(root / "vae", reward=wish, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------------------- by votes


def test_preferred_sounds_gain(root: Path, tmp_path: Path) -> None:
    train = {"batch": 8, "lr": 1e-3, "eval_every": 15, "log_every": 5}
    wishes: dict[str, Any] = {"set_train": train, "set_align": {"beta": 0.5, "keep": 1.0}, "steps": 30}
    run = aligned(root, "flow", tmp_path / "run", method="dpo", preferences=root / "votes.jsonl", **wishes)
    last = [row for row in metrics_rows(run) if "win_gain" in row][-1]
    assert last["win_gain"] > last["lose_gain"] and last["ordered"] > 0.6


def test_a_reward_model_of_votes_prefers_what_was_preferred(root: Path, tmp_path: Path) -> None:
    run = Run.open(root / "vae")
    found = train_reward_model(root / "votes.jsonl", run, tmp_path / "model")
    assert found.held_out.accuracy.value > 0.8
    loud, soft = (Sound(blip(3, high)[:, None] * 0.9, RATE) for high in (True, False))
    reward = load_reward_model(tmp_path / "model")
    assert reward.kind is SOUND
    values = reward.score([loud, soft], [{}] * 2)
    assert values[0] > values[1]
    made = run.encoder.encode(run_data(run).train_items[:3])
    assert reward.on_field is not None
    on_field = reward.on_field(made.x.float() * made.scale + made.shift)
    assert np.allclose(on_field, reward.score([i.value for i in run_data(run).train_items[:3]], [{}] * 3))
    assert reward_of(run, str(tmp_path / "model")).score([loud], [{}])[0] == pytest.approx(values[0])
    file = tmp_path / "model" / "encoder" / "encoder.json"
    file.write_bytes(file.read_bytes().replace(b'"rate": 8000', b'"rate": 4000'))
    with pytest.raises(UserError, match=r"is damaged: .*encoder have changed"):
        load_reward_model(tmp_path / "model")
    with pytest.raises(UserError, match="name the run"):
        train_reward_model(root / "votes.jsonl", None, tmp_path / "other")


def test_votes_make_a_reward_for_methods_that_need_one(root: Path, tmp_path: Path) -> None:
    wishes: dict[str, Any] = {"preferences": root / "votes.jsonl", "heldout_reward": "loudness"}
    run = aligned(root, "vae", tmp_path / "run", method="draft", **wishes)
    reward = seen(run, "reward")
    assert reward[-1] > reward[0]


# ---------------------------------------------------------------------------------------------------------- voting


def test_votes_on_other_things_are_refused(root: Path, tmp_path: Path) -> None:
    sounds = root / "votes.jsonl"
    assert read_votes(sounds).kind is SOUND
    append(tmp_path / "p.jsonl", Vote("one.png", "other.png", "a"))
    append(tmp_path / "t.jsonl", Vote("a text", "another", "a"))
    for name, kind in (("p", "images"), ("t", "texts")):
        with pytest.raises(UserError, match=f"has votes on {kind}.* but .*sound.* [Gg]ive votes on sounds"):
            start(AlignSpec(root / "vae", preferences=tmp_path / f"{name}.jsonl", out=tmp_path / "run"))
        with pytest.raises(UserError, match=f"has votes on {kind}, but this run makes sounds"):
            votes_in(tmp_path / f"{name}.jsonl", SOUND)
    with pytest.raises(UserError, match="has votes on sounds, but this run makes images"):
        votes_in(sounds, IMAGE)
    with pytest.raises(UserError, match="has votes on sounds, but this run makes texts"):
        votes_in(sounds, TEXT)
    append(tmp_path / "p.jsonl", Vote("one.wav", "other.wav", "a"))
    with pytest.raises(UserError, match="mixes images and sounds"):
        scan(tmp_path / "p.jsonl")
    append(tmp_path / "gone.jsonl", Vote("one.wav", "other.wav", "a"))
    with pytest.raises(UserError, match=r"2 of the 2 sounds named in .* are missing"):
        read_votes(tmp_path / "gone.jsonl")


def test_voting_on_sounds_on_the_page(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.jsonl"

    def act(voter: Voter) -> None:
        assert voter.page.count("<audio") == 2 and 'class="look"' not in voter.page
        for i, said in enumerate(("a", "b", "tie")):
            heard = voter.items()
            voter.vote(said)
            kept = read_votes(out, SOUND).votes[-1]
            assert kept.winner == said and kept.label == "high" and len(read_votes(out).votes) == i + 1
            for item, raw in zip((kept.a, kept.b), heard, strict=True):
                assert (tmp_path / item).read_bytes() == raw and raw[:4] == b"RIFF"
                assert soundfile.info(tmp_path / item).samplerate == RATE
        assert voter.pair is None

    with page_votes(act):
        assert command(["compare", str(root / "vae"), "-n", "3", "--label", "high", "--out", str(out)]) == 0


def test_the_command_keeps_sounds_and_goes_on(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, sessions = tmp_path / "v.jsonl", []

    def serve(session: Session, *rest: Any) -> None:
        sessions.append(session)
        while (question := session.next()) is not None and len(session.judged) % 3 != 2:
            session.vote(question, "a")

    monkeypatch.setattr(vote, "serve", serve)
    argv = ["compare", str(root / "vae"), "-n", "4", "--label", "low", "--out", str(out)]
    assert command(argv) == 0
    assert len(read_votes(out).votes) == 2
    files = {f: f.read_bytes() for f in (tmp_path / "v-items").glob("*.wav")}
    assert len(files) == 4
    next(iter(files)).unlink()
    assert command(argv) == 0
    assert sessions[1].plan == sessions[0].plan and sessions[1].begun == 2
    assert {f: f.read_bytes() for f in files} == files, "the seed makes a sound that was lost again"
    assert command(["compare", str(root / "vae"), "--summary", "--out", str(out)]) == 0


def test_a_vote_on_sounds_survives_the_end_of_the_program(root: Path, tmp_path: Path, warm: Warm) -> None:
    """Killed as soon as the page was told that a vote is kept; then the same plan, and another pair."""
    out = tmp_path / "v.jsonl"
    argv = ["compare", str(root / "vae"), "-n", "3", "--label", "high", "--out", str(out)]
    with warm.start("-c", PROGRAM, *argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as program:
        assert program.stderr is not None
        voter = Voter(next(found[0] for line in program.stderr if (found := re.search(r"http://\S+", line))))
        voter.vote("b")
        program.send_signal(signal.SIGKILL)
    (kept,) = read_votes(out).votes
    session = Session(make_plan([Run.open(root / "vae")], PairRequest(label="high"), 3, votes=out), out)
    question = session.next()
    assert question is not None and (question.number, question.of) == (2, 3)
    assert kept.pair in session.plan.pairs and question.pair != kept.pair
