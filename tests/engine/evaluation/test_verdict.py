"""The verdict on models that were made to deserve each word, the advice that follows, and what is saved."""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.core import Cond, Drawn, Examples, Item, Score, Space, registry
from afresh.core.rng import Rng
from afresh.domains.image import appearance
from afresh.domains.image import metrics as image_metrics
from afresh.domains.text import metrics as text_metrics
from afresh.engine.evaluation import image_sets
from afresh.engine.evaluation.card import ProtocolCard
from afresh.engine.evaluation.encoders import EncoderRecipe
from afresh.engine.evaluation.study import Measurement, measure
from afresh.engine.evaluation.time_budget import LATE
from afresh.engine.evaluation.verdict import MEANING, Help, KnownFacts, verdict
from afresh.engine.training.family_choice import FamilyCurves
from afresh.services.demo.drawings import SCENES, draw
from afresh.services.demo.tales import tale
from afresh.verbs.report import remedies_of
from tests.engine.evaluation.evidence import Evidence, digits, image_evidence

UNUSED = ("frechet", "two_sample", "conditional_accuracy", "nearest_ratio")  # no verdict looks at these
METRICS = [m for m in (*appearance.METRICS, *image_metrics.METRICS) if m.name not in UNUSED]


@cache
def drawings() -> tuple[np.ndarray, np.ndarray]:
    """360 drawings of six scenes in random order, averaged to (N, 3, 24, 24) uint8, and their scenes."""
    x = np.stack([draw(label, 0, i) for i in range(60) for label in SCENES]).transpose(0, 3, 1, 2)
    small = x.reshape(len(x), 3, 24, 2, 24, 2).mean((3, 5)).round().astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(x))
    return small[order], (np.arange(len(x)) % len(SCENES))[order]


def blurred(x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = F.avg_pool2d(F.pad(x, (1,) * 4, mode="replicate"), 3, 1)
    return x


def bent(x: Tensor, amount: float) -> Tensor:
    """Images (N, C, H, W) distorted by smooth random shifts."""
    n, _, h, w = x.shape
    shift = Rng(3).normal("bent", torch.arange(n), (2, 4, 4)) * amount
    shift = F.interpolate(shift, size=(h, w), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    grid = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), [n, 1, h, w], align_corners=False)
    return F.grid_sample(x, grid + shift, padding_mode="border", align_corners=False)


def made(train: Tensor, unseen: Tensor) -> dict[str, list[Tensor]]:
    """Samples (N, C, H, W) of models that deserve each word, from training images and unseen real ones."""
    index = torch.arange(len(unseen))
    z = Rng(7).normal("made", index, tuple(unseen.shape[1:]))
    copies = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[index % len(train)]]
    mixed = torch.where((index % 2 == 0)[:, None, None, None], unseen, z / 2)
    return {
        "good": [unseen],
        "noise": [z / 2, train.mean() + train.std() * z, train.mean(0) + z / 4, 0.05 * unseen + z / 2],
        "blurred": [blurred(unseen, 1), blurred(unseen, 2)],
        "recognisable": [mixed, unseen + z / 4, bent(unseen, 0.12)],
        "memorised": [copies, copies + 0.03 * z],
        "collapsed": [train[:1] + 0.05 * z, train[index % 3] + 0.05 * z, bent(train[:1].expand_as(unseen), 0.02)],
    }


def misjudged(
    x: np.ndarray, train: int, heldout: int, best: str, folder: Path, words: Sequence[str] = tuple(MEANING)
) -> list[tuple[str, str]]:
    """What verdicts say of models made to deserve another of the words, as (deserved, said); that numbers do not tell
    is not a mistake.

    The first images of x (N, C, H, W) are the training split, the next are held out, and up to 60 others are unseen.
    `best`: the word of a perfect model.
    """
    parts = (x[:train], x[train : train + heldout])
    pixels = torch.from_numpy(x).float() / 127.5 - 1
    wrong: list[tuple[str, str]] = []
    models = made(pixels[:train], pixels[train + heldout :][:60])
    for word in (w for w in words if w in models):
        for samples in models[word]:
            evidence = image_evidence(
                parts, (np.zeros(train), np.zeros(heldout)), samples.clamp(-1, 1), Cond(len(samples)), 0
            )
            measured = measure(evidence, METRICS, 64, modality="image", sampling={}, folder=folder)
            deserved, said = best if word == "good" else word, verdict(measured, KnownFacts("images")).word
            wrong += [] if said in (deserved, "cannot tell") else [(deserved, said)]
    return wrong


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders that learn for a few steps, and one instead of three."""
    monkeypatch.setattr(image_sets, "EncoderRecipe", lambda: EncoderRecipe(steps=60, batch=64))
    monkeypatch.setattr(image_metrics, "CROSS_CHECKS", ())


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_images_made_to_deserve_each_word(tmp_path: Path) -> None:
    assert misjudged(drawings()[0], 252, 54, "good", tmp_path) == []


@pytest.mark.parametrize("data", [digits, drawings])
@pytest.mark.parametrize(("train", "heldout"), [(12, 1), (36, 4), (110, 12)])
def test_few_images_are_judged_by_their_values(
    data: Callable[[], tuple[np.ndarray, np.ndarray]], train: int, heldout: int, tmp_path: Path
) -> None:
    assert misjudged(data()[0], train, heldout, "recognisable", tmp_path) == []


def with_near_duplicates(x: np.ndarray, share: float) -> np.ndarray:
    """Images in random order, of which the first `share` occur twice with values that differ a little."""
    random = np.random.default_rng(0)
    twice = x[: int(share * len(x))].astype(int)
    near = (twice + random.integers(-4, 5, twice.shape)).clip(0, 255).astype(np.uint8)
    return random.permutation(np.concatenate([x, near]))


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_copies_are_told_from_near_duplicates_in_the_data(share: float, tmp_path: Path) -> None:
    few = with_near_duplicates(drawings()[0][:60], share)
    assert misjudged(few, 45, 5, "recognisable", tmp_path) == []


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_copies_are_told_from_near_duplicates_among_many_held_out_images(tmp_path: Path) -> None:
    x = with_near_duplicates(digits()[0][:300], 0.6)
    assert misjudged(x, 340, 70, "good", tmp_path, ("good", "memorised")) == []


# --------------------------------------------------------------------------- texts


def chain(text: str, order: int, size: int, seed: int) -> str:
    """`size` characters of a Markov chain of words."""
    words = text.split(" ")
    after = defaultdict(list)
    for i in range(len(words) - order):
        after[tuple(words[i : i + order])].append(words[i + order])
    generator = random.Random(seed)
    out = list(generator.choice(list(after)))
    while len(" ".join(out)) < size:
        out.append(generator.choice(after.get(tuple(out[-order:]), words)))
    return " ".join(out)[:size]


@pytest.mark.parametrize("n", [16, 64])
def test_texts_made_to_deserve_each_word(n: int) -> None:
    tales = [tale(0, i) for i in range(210)]
    train, heldout, unseen = tales[:120], tales[120:180], tales[180:]
    shuffle = random.Random(0)
    shuffled = ["".join(shuffle.sample(t, len(t))) for t in unseen]
    letters = ["".join(shuffle.choices("bcdfgh ", k=200)) for _ in unseen]
    cases: dict[str, list[tuple[list[str], float]]] = {  # samples, bits per byte of held-out text
        "good": [(unseen, 0.1)],
        "noise": [(shuffled, 4.5), (letters, 7.0)],
        "recognisable": [([chain(" ".join(train), 1, 300, i) for i in range(60)], 1.5), (unseen, 1.5)],
        "memorised": [(train, 0.1), ([*train[:30], *unseen], 0.1)],
        "collapsed": [(["the " * 80] * 9, 3.0), ([unseen[0]] * 9, 1.0)],
    }
    wrong = []
    for word, models in cases.items():
        for i, (samples, bits) in enumerate(models):
            found = verdict(measured_texts(train, heldout, samples, bits, n), KnownFacts("texts"))
            wrong += [] if found.word == word else [(word, i, found.word)]
    assert wrong == []


def measured_texts(train: list[str], heldout: list[str], samples: list[str], bits: float | None, n: int) -> Measurement:
    none = Examples(torch.zeros(1, dtype=torch.int64), Cond(1), bounds=torch.tensor([0, 1]))

    def draw(n: int) -> Drawn:
        return Drawn(torch.zeros(n, 1, dtype=torch.int64), [samples[i % len(samples)] for i in range(n)], Cond(n))

    nats = None
    if bits is not None:
        size = sum(len(t.encode()) for t in heldout)
        nats = (torch.full((2,), bits * size * math.log(2) / 2, dtype=torch.float64), torch.ones(2))
    items, held = ([Item(t) for t in split] for split in (train, heldout))
    evidence = Evidence(Space("tokens", (256,), (256,), stream=True), {}, none, none, items, held, draw, nats)
    return measure(evidence, text_metrics.METRICS, n, modality="text", sampling={})


def test_writing_without_spaces_is_not_judged_by_its_words() -> None:
    one = [f"\u7f8e\u4e3d{chr(0x4E00 + 37 * i)}\u7684\u5929{chr(0x4E00 + 91 * i)}\u6c14" for i in range(40)]
    found = verdict(measured_texts(one[:20], one[20:30], one[30:], None, 10), KnownFacts("texts"))
    assert found.word == "not measured"


# --------------------------------------------------------------------------- what would help


def card(train: int = 900, heldout: int = 100) -> ProtocolCard:
    fixed = {
        "version": "1",
        "modality": "any",  # whose metrics are those of every kind
        "split": "0",
        "reference": "held-out split",
        "seed": 0,
        "sampling": {},
    }
    return ProtocolCard(train_size=train, heldout_size=heldout, samples=64, reference_size=64, judges={}, **fixed)


def image_scores(**values: float) -> tuple[Score, ...]:
    """Scores of a perfect model of images, but for the given values (of density/coverage and so on)."""
    marks = {  # name: value, floor, control
        "likeness": (0.9, 0.9, 0.3),
        "variety": (1.0, 1.0, 0.7),
        "variety_pixels": (1.0, 1.0, 0.7),
        "near_copies": (0.01, 0.01, 1.0),
        "near_copies_blurred": (0.01, 0.01, 1.0),
        "appearance_detail": (0.0, 0.0, -4.0),
        "kid": (0.01, 0.01, 0.0),
        "kid_pixel_gaussian": (1.0, 0.01, 0.0),
        "density": (1.0, 1.0, 1.0),
        "coverage": (1.0, 1.0, 1.0),
    }
    out = []
    for name, (value, floor, control) in marks.items():
        own = values.get(name, value)
        slash = (
            name.replace("_pixel", "/pixel", 1).replace("_blurred", "/blurred").replace("appearance_", "appearance/")
        )
        out.append(Score(slash, own, own, own, 64, "none", floor, control))
    return tuple(out)


def measured(train: int = 900, heldout: int = 100, **values: float) -> Measurement:
    return Measurement(card(train, heldout), image_scores(**values), {}, ())


def of_family(name: str, known: KnownFacts, reached: FamilyCurves | None = None) -> KnownFacts:
    """What is known of a run of a family, with what that family proposes."""
    own = replace(known, family=name)
    return replace(own, remedies=remedies_of(registry.family(name), own, reached))


RUN = KnownFacts("images", "flow", "runs/my photos", "/home/me/my photos", 1.0, 2_000, 40_000, 64)


def test_a_run_that_saw_too_little_needs_smaller_images_or_more_minutes() -> None:
    noise = verdict(measured(likeness=0.3), RUN)
    assert noise.word == "noise" and "32 pixels" in noise.help
    assert noise.command == (
        "afresh train '/home/me/my photos' --family flow --data size=32 --minutes 1 --out 'runs/my photos-2'"
    )
    small = verdict(measured(likeness=0.3), replace(RUN, side=28))
    assert small.help == "Train about 20 times as long." and "--minutes 20" in small.command
    planned = Help("The VAE gives recognisable images in the same minute.", "afresh train x --family vae")
    assert verdict(measured(likeness=0.3), RUN, planned).help == planned.sentence


def test_what_helps_depends_on_the_word_and_the_family() -> None:
    enough = replace(RUN, examples=50_000)
    copies = verdict(measured(train=40, near_copies=0.9), enough)
    assert copies.word == "memorised" and "40 images" in copies.help and "--minutes 0.5" in copies.command
    soft = verdict(measured(appearance_detail=-3.9), of_family("vae", enough))
    assert soft.word == "blurred" and "--family flow --minutes 4" in soft.command
    reached = FamilyCurves("photos", 800.0, {"flow": [(1_000, 1600.0), (175_000, 800.0)]})
    known = verdict(measured(appearance_detail=-3.9), of_family("vae", enough, reached))
    assert "--family flow --minutes 7" in known.command
    alike = verdict(measured(variety=0.1, variety_pixels=0.1), of_family("gan", enough))
    assert alike.word == "collapsed" and "--family vae" in alike.command
    rough = verdict(measured(density=0.1), enough)
    assert rough.word == "recognisable" and rough.help == "Train about 4 times as long."
    few = replace(enough, share=0.2, lacking="100 images to learn from, and about 500 usually suffice")
    wanted = (
        "More data: there are 100 images to learn from, and about 500 usually suffice. Longer training repeats them."
    )
    assert verdict(measured(train=100, density=0.1), few).help == wanted
    assert verdict(measured(likeness=0.3), replace(few, examples=2_000)).help == wanted, "before more minutes"
    assert "32 pixels" in verdict(measured(likeness=0.3), replace(few, examples=2_000, share=0.8)).help
    good = verdict(measured(), enough)
    assert good.word == "good" and good.command.startswith("afresh sample 'runs/my photos' -n 64 ")


def test_few_held_out_items_are_said_to_tell_little() -> None:
    assert "only 27 are held out" in verdict(measured(heldout=27), RUN).sentence
    assert "held out" not in verdict(measured(heldout=100), RUN).sentence
    assert (
        "held out" not in verdict(measured(heldout=1), replace(RUN, divided=True)).sentence
    )  # a long text is one item


def test_without_scores_there_is_no_verdict_but_a_reason() -> None:
    reason = "needs at least 10 training images, not 6"
    found = verdict(Measurement(card(6, 1), (), {"likeness": reason}, (), {"likeness": reason}), RUN)
    assert found.word == "not measured" and "not 6" in found.sentence and "More data" in found.help
    other = "measures images and sounds, fields of shape (C, H, W), not tokens"
    found = verdict(Measurement(card(), (), {"likeness": other}, ()), RUN)
    assert found.word == "not measured" and "fields" not in found.sentence
    assert set(MEANING) >= {found.word} and set(found.json()) == {"word", "sentence", "help", "command"}


@pytest.mark.parametrize(
    "valid,divergence,word",
    [(0.44, 0.01, "recognisable"), (1.0, 0.01, "good"), (0.02, 0.01, "noise"), (1.0, 0.4, "noise")],
)
def test_music_that_is_cut_off_is_music_and_that_of_random_notes_is_noise(
    valid: float, divergence: float, word: str
) -> None:
    marks = {"valid_scores": (valid, 1.0, 0.0), "pitch_class_divergence": (divergence, 0.008, 0.13)}
    marks |= {"duration_divergence": (divergence, 0.01, 0.5), "copied_runs_8": (0.04, 0.12, 1.0)}
    marks["known_words"] = (0.0, 0.9, 0.0)  # which judges texts that are no music
    scores = tuple(Score(name, v, v, v, 64, "none", floor, control) for name, (v, floor, control) in marks.items())
    found = verdict(Measurement(card(), scores, {}, ()), replace(RUN, plural="texts"))
    assert found.word == word
    assert ("only 44% of them are valid scores" in found.sentence) == (valid == 0.44)


@pytest.mark.parametrize(("own", "word"), [(0.01, "noise"), (0.05, "recognisable"), (0.06, "good")])
def test_recommendations_are_judged_beside_what_is_popular_and_a_simpler_model(own: float, word: str) -> None:
    marks = {"NDCG@10": own, "NDCG@10/item_knn": 0.06, "NDCG@10/popularity": 0.01}
    scores = tuple(Score(name, v, v, v, 64, "higher") for name, v in marks.items())
    use = "afresh recommend runs/shop --user 7"
    found = verdict(Measurement(card(), scores, {}, ()), replace(RUN, plural="histories", use=use))
    assert found.word == word and "item_knn 0.060, popularity 0.010" in found.sentence
    assert (found.command == use) == (word == "good")


@pytest.mark.parametrize(("own", "by_chance", "word"), [(0.267, 0.23, "recognisable"), (0.24, 0.23, "noise")])
def test_only_recommendations_that_are_no_better_than_random_ones_are_called_so(
    own: float, by_chance: float, word: str
) -> None:
    marks = {"NDCG@10": own, "NDCG@10/item_knn": 0.4, "NDCG@10/popularity": 0.198, "random_NDCG@10": by_chance}
    scores = tuple(Score(name, v, v, v, 64, "higher") for name, v in marks.items())
    found = verdict(Measurement(card(), scores, {}, ()), replace(RUN, plural="histories"))
    assert found.word == word and ("hardly better than random" in found.sentence) == (word == "noise")


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (0.44, "have invented words: 44% of their letters are in words of the data, 71% of those of real ones."),
        (0.7, "70% of their letters are in words of the data, 71% of those of real ones, but they make little sense"),
    ],
)
def test_texts_of_invented_words_are_not_said_to_consist_of_words_of_the_data(own: float, said: str) -> None:
    marks = {"known_words": (own, 0.71, 0.2), "bits_per_byte": (2.5, None, 2.0)}
    scores = tuple(Score(name, v, v, v, 64, "none", floor, control) for name, (v, floor, control) in marks.items())
    found = verdict(Measurement(card(), scores, {}, ()), replace(RUN, plural="texts"))
    assert found.word == "recognisable" and said in found.sentence
    assert ("unseen ones take 2.50 bits a byte, 2.00 with a compressor" in found.sentence) == (own == 0.7)


def test_a_verdict_says_what_the_samples_copied_and_what_held_out_texts_did() -> None:
    marks = {"known_words": (0.57, 0.71, 0.3), "verbatim_50": (0.021, 0.03, None), "longest_copy": (1213.0, None, None)}
    scores = tuple(Score(name, v, v, v, 64, "lower", floor, control) for name, (v, floor, control) in marks.items())
    found = verdict(Measurement(card(), scores, {}, ()), replace(RUN, plural="texts"))
    assert found.sentence.endswith(
        " Copies: 2.1% of the runs of 50 bytes in the texts stand in the training data (3% with real texts); "
        "the longest run of bytes that does has 1,213."
    )


def test_a_verdict_that_was_left_out_to_keep_the_minutes_names_the_command() -> None:
    scores = (Score("known_words", 0.7, 0.7, 0.7, 64, "none", 0.71, 0.2),)
    left = {"bits_per_byte": LATE}
    found = verdict(Measurement(card(), scores, left, (), left), replace(RUN, plural="texts"))
    assert found.word == "cannot tell" and "left out: bits per byte" in found.sentence
    assert found.command == "afresh measure 'runs/my photos'"


def test_program_text_of_half_invented_words_is_recognisable() -> None:
    marks = {"known_words": (0.57, 0.91, 0.33), "distinct_3": (0.92, 0.85, None)}
    scores = tuple(Score(name, v, v, v, 64, "none", floor, control) for name, (v, floor, control) in marks.items())
    assert verdict(Measurement(card(), scores, {}, ()), replace(RUN, plural="texts")).word == "recognisable"
