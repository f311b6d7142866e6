"""A reward model is learnt from a file of votes, read back as it was, and refused when it is not what it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

from afresh.core import UserError
from afresh.data.text.kind import TEXT
from afresh.engine.alignment.feedback.preferences import FIRST, SECOND
from afresh.engine.alignment.rewards import reward_model
from afresh.engine.alignment.rewards.bradley_terry import Comparisons, scales
from afresh.engine.alignment.rewards.image_features import (
    ImageFeatures,
    Tuned,
    features_of,
    framed,
    plain,
    trial,
    tuned,
)
from afresh.engine.alignment.rewards.reward_model import Trained, load_reward_model, train_reward_model
from afresh.engine.alignment.rewards.text_features import TextSettings
from afresh.engine.evaluation.encoders import EncoderRecipe
from afresh.verbs.train import TrainSpec, start

WORDS = ["grey", "stone", "river", "cloud", "paper", "night", "lamp", "field", "winter", "road", "glass", "table"]
QUICK = EncoderRecipe(steps=20, batch=32, width=8, features=16)


def lines(path: Path, votes: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(v) + "\n" for v in votes), encoding="utf-8")
    return path


def text_votes(path: Path, n: int = 120, seed: int = 0) -> Path:
    """Texts of equal length; those with the word sun are liked, 9 times in 10."""
    random = np.random.default_rng(seed)
    votes = []
    for i in range(n):
        plain_text, sunny = (" ".join(random.choice(WORDS, 12)) + f" {i}" for _ in range(2))
        sunny = sunny.replace(sunny.split()[0], "sun", 1)
        pair, liked = ((sunny, plain_text), "a") if random.random() < 0.5 else ((plain_text, sunny), "b")
        if random.random() < 0.1:
            liked = {"a": "b", "b": "a"}[liked]
        votes.append({"a": pair[0], "b": pair[1], "winner": liked, "rater": "r"})
    return lines(path, votes)


def picture_votes(folder: Path, n: int = 100, seed: int = 0) -> Path:
    """8 x 8 pictures of noise; the redder one is liked."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    reds = random.integers(40, 215, 2 * n)
    for i, red in enumerate(reds):
        pixels = random.integers(60, 200, (8, 8, 3))
        pixels[..., 0] = (pixels[..., 0] - 130) // 4 + red
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03d}.png")
    return lines(
        folder / "votes.jsonl",
        [
            {
                "a": f"{2 * i:03d}.png",
                "b": f"{2 * i + 1:03d}.png",
                "winner": "a" if reds[2 * i] > reds[2 * i + 1] else "b",
            }
            for i in range(n)
        ],
    )


@pytest.fixture(scope="module")
def taste(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("taste")
    return train_reward_model(text_votes(folder / "votes.jsonl"), None, folder / "model")


def test_what_was_liked_is_found_in_new_texts(taste: Trained) -> None:
    held = taste.held_out
    assert held.accuracy.low is not None and held.accuracy.low > 0.6
    reward = load_reward_model(taste.folder)
    new = [" ".join(np.random.default_rng(i).choice(WORDS, 12)) for i in range(50)]
    sunny = [text.replace(text.split()[0], "sun", 1) for text in new]
    assert np.mean(reward.score(sunny, [{}] * 50) > reward.score(new, [{}] * 50)) > 0.9
    assert reward.kind is TEXT and reward.name == str(taste.folder)


def test_scores_are_in_deviations_of_the_items_voted_on(taste: Trained) -> None:
    votes = [json.loads(line) for line in (taste.folder.parent / "votes.jsonl").read_text().splitlines()]
    items = sorted({v[k] for v in votes for k in "ab"})
    scores = load_reward_model(taste.folder).score(items, [{}] * len(items))
    assert scores.mean() == pytest.approx(0, abs=1e-6)
    assert scores.std() == pytest.approx(1, abs=1e-6)
    record = json.loads((taste.folder / "model.json").read_text())
    assert record["deviation"] > 0 and "mean" in record


def test_it_is_read_as_it_was_made_and_made_the_same_again(taste: Trained, tmp_path: Path) -> None:
    texts = ["sun and stone", "", "\n", "é" * 1000, "lamp"]
    first = taste.reward.score(texts, [{}] * 5)
    assert np.isfinite(first).all()
    assert (load_reward_model(taste.folder).score(texts, [{}] * 5) == first).all()
    one_by_one = [float(taste.reward.score([t], [{}])[0]) for t in texts]
    assert np.allclose(one_by_one, first, atol=1e-12)
    again = train_reward_model(taste.folder.parent / "votes.jsonl", None, tmp_path / "again")
    assert (again.reward.score(texts, [{}] * 5) == first).all()


def test_the_folder_says_how_good_it_is_and_of_which_votes(taste: Trained) -> None:
    report = json.loads((taste.folder / "report.json").read_text())
    record = json.loads((taste.folder / "model.json").read_text())
    sha = hashlib.sha256((taste.folder.parent / "votes.jsonl").read_bytes()).hexdigest()
    assert report["votes_sha256"] == record["votes_sha256"] == sha
    assert report["held_out"]["accuracy"]["value"] == record["accuracy"][0] == taste.held_out.accuracy.value
    assert any("No pair was judged twice" in line for line in taste.lines())
    assert {p.name for p in taste.folder.iterdir()} == {"model.json", "model.safetensors", "report.json"}


def copied(taste: Trained, to: Path) -> Path:
    to.mkdir()
    for file in taste.folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def spoil_weights(folder: Path) -> None:
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[-7] ^= 1
    (folder / "model.safetensors").write_bytes(raw)


def shorten(folder: Path) -> None:
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[: len(raw) // 2])


def rewrite(folder: Path, **fields: Any) -> None:
    record = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**record, **fields}))


def not_finite(folder: Path) -> None:
    """Whole by its hash, and yet not numbers."""
    tensors = load((folder / "model.safetensors").read_bytes())
    tensors["weights"][0] = float("nan")
    raw = save(tensors)
    (folder / "model.safetensors").write_bytes(raw)
    rewrite(folder, weights_sha256=hashlib.sha256(raw).hexdigest())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_weights, "does not have the hash"),
        (shorten, "does not have the hash"),
        (lambda f: (f / "model.safetensors").unlink(), "cannot be read"),
        (lambda f: (f / "model.json").unlink(), "is not a reward model"),
        (lambda f: (f / "model.json").write_text("{"), "not JSON"),
        (lambda f: (f / "model.json").write_text("[]"), "does not belong to a reward model"),
        (lambda f: rewrite(f, format="other"), "does not belong to a reward model"),
        (lambda f: rewrite(f, version=2), "another version"),
        (lambda f: rewrite(f, deviation=0.0), "deviation"),
        (lambda f: rewrite(f, extra=1), "extra"),
        (lambda f: rewrite(f, text=None), "neither texts nor images"),
        (lambda f: rewrite(f, text={**TextSettings().model_dump(), "lengths": False}), "features"),
        (not_finite, "not finite"),
    ],
)
def test_a_damaged_folder_is_refused(taste: Trained, tmp_path: Path, spoil, said: str) -> None:  # type: ignore[no-untyped-def]
    folder = copied(taste, tmp_path / "copy")
    spoil(folder)
    with pytest.raises(UserError, match=said):
        load_reward_model(folder)


def test_nothing_is_overwritten_and_a_failure_leaves_no_model(taste: Trained, tmp_path: Path) -> None:
    before = {p.name: p.read_bytes() for p in taste.folder.iterdir()}
    with pytest.raises(UserError, match=r"already has a model\.json"):
        train_reward_model(taste.folder.parent / "votes.jsonl", None, taste.folder)
    assert {p.name: p.read_bytes() for p in taste.folder.iterdir()} == before
    few = text_votes(tmp_path / "few.jsonl", 10)
    with pytest.raises(UserError, match="at least 20"):
        train_reward_model(few, None, tmp_path / "few")
    assert not (tmp_path / "few").exists()


def test_a_crash_before_the_last_file_leaves_no_model(taste: Trained, tmp_path: Path) -> None:
    votes, real = taste.folder.parent / "votes.jsonl", reward_model.write_json

    def crash(path: Path, value: Any) -> None:
        if path.name == "model.json":
            raise KeyboardInterrupt
        real(path, value)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reward_model, "write_json", crash)
        train_reward_model(votes, None, tmp_path / "model")
    with pytest.raises(UserError, match="is not a reward model"):
        load_reward_model(tmp_path / "model")
    train_reward_model(votes, None, tmp_path / "model")  # the same folder will do
    assert load_reward_model(tmp_path / "model").kind is TEXT


def test_a_model_with_sentence_embeddings_has_to_be_trained_again(tmp_path: Path) -> None:
    found = train_reward_model(text_votes(tmp_path / "v.jsonl", 30), None, tmp_path / "model")
    settings = json.loads((found.folder / "model.json").read_text())["text"]
    rewrite(found.folder, text={**settings, "hidden": 384}, encoder={"model.safetensors": "0" * 64})
    with pytest.raises(UserError, match=r"uses sentence embeddings.*Train it again"):
        load_reward_model(found.folder)


def test_random_votes_are_called_guessing(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    votes = [
        {
            "a": f"{i} " + " ".join(random.choice(WORDS, 8)),
            "b": f"{i} " + " ".join(random.choice(WORDS, 8)),
            "winner": w,
        }
        for i, w in enumerate(random.choice(["a", "b"], 80))
    ]
    found = train_reward_model(lines(tmp_path / "v.jsonl", votes), None, tmp_path / "model")
    assert any("no better than guessing" in line for line in found.lines())


# ------------------------------------------------------------------------------------------------------- pictures


@pytest.fixture(scope="module")
def reds(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("reds")
    return train_reward_model(picture_votes(folder / "pictures"), None, folder / "model", recipe=QUICK)


def test_what_was_liked_is_found_in_new_pictures_of_any_size(reds: Trained) -> None:
    assert reds.held_out.accuracy.low is not None and reds.held_out.accuracy.low > 0.8
    reward = load_reward_model(reds.folder)
    random = np.random.default_rng(1)
    for side in (8, 13):
        dull = random.integers(60, 180, (20, side, side, 3)).astype(np.uint8)
        red = dull.copy()
        red[..., 0] += 60
        assert (reward.score([*red], [{}] * 20) > reward.score([*dull], [{}] * 20)).mean() > 0.9


def test_its_differentiable_form_is_the_same_function(reds: Trained) -> None:
    reward = load_reward_model(reds.folder)
    assert reward.on_field is not None
    pixels = np.random.default_rng(2).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    x = torch.from_numpy(np.moveaxis(pixels, 3, 1).copy()).float() / 127.5 - 1
    x.requires_grad_(True)
    value = reward.on_field(x)
    assert np.allclose(value.detach().numpy(), reward.score([*pixels], [{}] * 3), atol=1e-4)
    (slope,) = torch.autograd.grad(value.sum(), x)
    step = 1e-2 * slope / slope.norm()
    with torch.no_grad():
        gain = (reward.on_field((x + step).double()) - reward.on_field((x - step).double())).sum() / 2
    assert float(gain) == pytest.approx(1e-2 * float(slope.norm()), rel=0.05)
    assert (slope[:, 0].mean() > 0) and (slope[:, 0].mean() > slope[:, 1:].mean().abs())


def test_the_plain_features_are_smooth_and_say_what_they_say() -> None:
    x = torch.rand(1, 3, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.autograd.gradcheck(plain, x.requires_grad_(True))
    flat = torch.full((1, 1, 8, 8), 0.25, dtype=torch.float64).requires_grad_(True)
    found = plain(flat)
    assert found[0, 0] == 0.25 and torch.allclose(found[0, -16:], torch.tensor(0.25).double())
    (slope,) = torch.autograd.grad(found.sum(), flat)
    assert torch.isfinite(slope).all()
    board = (torch.arange(8)[:, None] + torch.arange(8)).remainder(2).double()[None, None] * 2 - 1
    wave = torch.cos(torch.pi * (torch.arange(8) + 0.5) / 8).double().expand(1, 1, 8, 8)
    bands = [plain(p)[0, 2:8] for p in (board, wave)]
    assert bands[0].argmax() == 5 and bands[1].argmax() == 0


def test_channels_and_sizes_are_brought_to_those_of_training() -> None:
    x = torch.rand(2, 3, 8, 8)
    grey = framed(x, (1, 4, 4))
    assert grey.shape == (2, 1, 4, 4)
    assert torch.allclose(framed(grey, (3, 4, 4))[:, 2], grey[:, 0])
    assert ImageFeatures((3, 8, 8), None)(x[:, :1]).shape == ImageFeatures((3, 8, 8), None)(x).shape


def test_the_encoder_is_trained_on_many_votes_and_kept_only_if_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is liked is plain to the first stage, so that the second has nothing to win."""
    monkeypatch.setattr("afresh.engine.alignment.rewards.image_features.STEPS", 20)
    found = train_reward_model(
        picture_votes(tmp_path / "pictures", 320), None, tmp_path / "model", recipe=EncoderRecipe(10, 32, 8, 8)
    )
    assert found.second is not None and found.second.n > 30 and not found.second.better
    assert found.second.before > 0.9
    assert any("not used" in line for line in found.lines())


def test_the_second_stage_learns_what_votes_say() -> None:
    """Pictures whose features say nothing at first: weights 0 and an encoder that is random."""
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.normal(0, 0.3, (200, 1, 8, 8))).float()
    a, b = np.arange(0, 200, 2), np.arange(1, 200, 2)
    better = (x[a, 0, :, :4].mean((1, 2)) > x[b, 0, :, :4].mean((1, 2))).numpy()  # the left half is brighter
    votes = Comparisons(a, b, np.where(better, FIRST, SECOND), np.full(100, -1))
    features = ImageFeatures((1, 8, 8), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4)))
    found = features_of(features, x)
    begun = Tuned(features, torch.zeros(found.shape[1]).double(), None)
    after = tuned(begun, x, votes, scales(found[a], found[b]), 0)
    said = trial(begun, after, x, votes)
    assert said.n == 100 and said.after > 0.8 > said.before and said.better
    assert (features_of(features, x) == found).all()  # what it began at stays


def test_a_runs_own_pictures_teach_the_encoder(tmp_path: Path) -> None:
    votes = picture_votes(tmp_path / "pictures", 60)
    spec = TrainSpec(tmp_path / "pictures", family="flow", steps=1, out=tmp_path / "run", device="cpu")
    run = start(spec).run
    found = train_reward_model(votes, run, tmp_path / "model", recipe=QUICK)
    assert found.reward.on_field is not None
    assert found.reward.on_field(torch.zeros(2, *run.encoder.space.shape)).shape == (2,)
    with pytest.raises(UserError, match="has votes on texts, but the run"):
        train_reward_model(text_votes(tmp_path / "v.jsonl", 30), run, tmp_path / "other")


def test_pictures_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    votes = picture_votes(tmp_path / "pictures", 30)
    (tmp_path / "pictures" / "007.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1 of the 60 images with votes cannot be read: 007\.png"):
        train_reward_model(votes, None, tmp_path / "model")


def test_seconds_that_are_too_few_for_an_encoder_leave_the_reward_to_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the speed of the machine: no second is too few, and an hour is enough."""
    monkeypatch.setattr("afresh.engine.evaluation.encoders._fit", lambda *_: None)
    votes = picture_votes(tmp_path / "pictures")
    few = train_reward_model(votes, None, tmp_path / "few", recipe=EncoderRecipe(30, 32, 8, 8), seconds=1e-9)
    many = train_reward_model(votes, None, tmp_path / "many", recipe=EncoderRecipe(30, 32, 8, 8), seconds=3600)
    recipes = [json.loads((t.folder / "model.json").read_text())["picture"]["recipe"] for t in (few, many)]
    assert recipes[0] is None and recipes[1]["steps"] == 30
