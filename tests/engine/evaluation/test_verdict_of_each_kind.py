"""Models that were made to deserve a word are given it, whatever their kind of data; where numbers do not tell, it is
said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from afresh.core import Item, Score, Word, registry
from afresh.domains.exercises.encoder import fit_answers
from afresh.domains.interactions.history import History
from afresh.domains.molecule.chem import canonical
from afresh.domains.molecule.modality import MoleculeOptions
from afresh.domains.molecule.verdict import judge_molecules
from afresh.engine.evaluation.doubt import doubt_of
from afresh.engine.evaluation.study import Measurement
from afresh.engine.evaluation.verdict import KnownFacts, verdict
from tests.domains.music.scores import tune
from tests.engine.evaluation.deserved import MAKERS, Splits, judged, learners
from tests.engine.evaluation.test_verdict import card, image_scores, measured


def molecules() -> Splits:
    """Two rings, a link and an end."""
    rings, links = ("c1ccccc1", "c1ccncc1", "C1CCNCC1", "c1ccoc1", "c1ccsc1"), ("C", "CO", "CN", "C(=O)N", "CCO", "CC")
    ends = ("F", "Cl", "O", "N", "C", "OC", "C#N", "CO")
    both = [f"{a[:-2]}(C{e}){a[-2:]}{k}{b}" for a in rings for b in rings for k in links for e in ends]
    order = np.random.default_rng(0).permutation(len(both))
    items = [Item(s) for i in order if (s := canonical(both[i])) is not None]
    encoder = registry.modality("molecule").fit(items[:500], MoleculeOptions())
    return Splits(encoder, items[:500], items[500:620], items[620:])


def tunes() -> Splits:
    modality = registry.modality("music")
    items = [Item(tune(i)) for i in range(180)]
    return Splits(modality.fit(items[:100], modality.options()), items[:100], items[100:140], items[140:])


def answers() -> Splits:
    items = learners(160, 40, 7)
    return Splits(fit_answers(items[:100], 300, 1, {}, 100), items[:100], items[100:], ())


def choices() -> Splits:
    """Users choose items of one of eight groups."""
    draw = np.random.default_rng(0)
    items = []
    for i in range(300):
        group = draw.permutation(15)[:9] + 15 * (i % 8)
        items.append(Item(History(f"u{i}", tuple(f"i{k}" for k in group), context=0 if i < 240 else 6)))
    modality = registry.modality("interactions")
    return Splits(modality.fit(items[:240], modality.options()), items[:240], items[240:], ())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("kind", "splits", "n"),
    [("molecule", molecules, 120), ("music", tunes, 32), ("exercises", answers, 32), ("interactions", choices, 32)],
)
def test_models_made_to_deserve_each_word(kind: str, splits: Callable[[], Splits], n: int, seed: int) -> None:
    data, said_of = splits(), list[tuple[Word, int, Word, str]]()
    for word, models in MAKERS[kind](data, seed, n).items():
        for i, model in enumerate(models):
            found, _ = judged(data, model, n, seconds=0.0)
            said_of.append((word, i, found.word, found.sentence))
    assert [row for row in said_of if row[2] not in (row[0], "cannot tell")] == []
    assert sum(row[2] == row[0] for row in said_of) >= len(said_of) - 1


# --------------------------------------------------------------------------- what the numbers do not tell


def molecule_scores(n: int, **values: float) -> dict[str, Score]:
    """Scores of a model of molecules that is nearly as good as the data, but for the given values."""
    marks = {"valid_molecules": (0.92, 1.0, None), "unique_at_1000": (1.0, 1.0, None), "novel": (0.98, 1.0, 0.0)}
    marks |= {"fcd": (0.87, 0.73, 34.0), "frag": (0.999, 0.999, 0.55), "int_div": (0.86, 0.86, None)}
    half = {"valid_molecules": 1.0, "novel": 1.0}
    out = {}
    for name, (value, floor, control) in marks.items():
        own, width = values.get(name, value), half.get(name, 0.0) / n**0.5
        out[name] = Score(name, own, max(0.0, own - width), min(1.0, own + width), n, "none", floor, control)
    return out


def said(scores: dict[str, Score], samples: int) -> tuple[str, str, str, str]:
    measurement = Measurement(card().model_copy(update={"samples": samples}), tuple(scores.values()), {}, ())
    found = verdict(measurement, KnownFacts("molecules", run="runs/m"))
    return found.word, found.sentence, found.help, found.command


def test_molecules_of_which_nine_in_ten_are_valid_and_whose_distance_is_that_of_real_ones_are_good() -> None:
    word, sentence, _, _ = said(molecule_scores(10_000), 10_000)
    assert word == "good" and "92% are valid" in sentence and "FCD 0.87 where real ones have 0.73" in sentence


@pytest.mark.parametrize(
    ("valid", "word", "said_so"),
    [
        (0.19, "noise", "Bad: 19% of the samples are molecules. The others break the rules of chemistry"),
        (0.6, "recognisable", "The valid molecules resemble real ones, and the other 40% of the samples break"),
        (0.95, "good", "close to real ones"),
    ],
)
def test_molecules_resemble_real_ones_only_as_far_as_they_are_valid(valid: float, word: str, said_so: str) -> None:
    found, sentence, _, _ = said(molecule_scores(10_000, valid_molecules=valid), 10_000)
    assert found == word and said_so in sentence


def test_molecules_that_are_not_valid_are_noise_and_not_collapsed() -> None:
    alike = {"unique_at_1": Score("unique_at_1", 1.0, None, None, 1, "higher", 1.0)}
    none = Score("valid_molecules", 1 / 400, 0.0, 0.01, 400, "higher", 1.0)
    found = judge_molecules({"valid_molecules": none, **alike}, "molecules")
    assert found is not None and found[0] == "noise" and "0% of the samples are molecules" in found[1]


def test_molecules_of_which_too_few_are_valid_to_be_compared_are_bad_and_not_uncertain() -> None:
    few = Score("valid_molecules", 0.4, 0.35, 0.45, 400, "higher", 1.0)
    found = judge_molecules({"valid_molecules": few}, "molecules")
    assert found is not None and found[0] == "noise" and found[1].startswith("Bad: 40% of the samples are molecules.")


def test_where_intervals_allow_two_words_neither_is_said_but_how_many_samples_would_decide() -> None:
    few = molecule_scores(100, valid_molecules=0.83)  # 0.73 to 0.93; good begins at 0.8
    word, sentence, help_, command = said(few, 100)
    assert word == "cannot tell" and "recognisable" not in sentence
    assert '"good" is not settled' in sentence and "above 0.8: valid molecules. Measured on 100, it is 0.83" in sentence
    assert command == "afresh measure runs/m -n 2000" and "2,000 samples instead of 100" in help_
    enough = molecule_scores(2_000, valid_molecules=0.83)
    assert said(enough, 2_000)[0] == "good"


def test_a_word_is_not_doubted_because_more_valid_samples_would_be_too_few_to_compare() -> None:
    few = Score("valid_molecules", 0.073, 0.05, 0.104, 384, "higher", 1.0)
    assert said({"valid_molecules": few}, 384)[0] == "noise"


def test_a_value_on_the_border_of_two_words_is_not_measured_for_ever() -> None:
    word, _, help_, command = said(molecule_scores(100, valid_molecules=0.801), 100)
    assert word == "cannot tell" and "border" in help_ and command == ""


def test_no_doubt_without_intervals_or_where_all_of_them_say_the_same() -> None:
    scores = {s.name: s for s in image_scores()}
    judge = next(m.judge for m in registry.metrics() if m.name == "likeness")
    assert judge is not None and doubt_of(judge, scores, "images", "good") is None
    near = scores["kid"]
    wide = {**scores, "kid": replace(near, low=-0.5, high=0.09)}
    assert doubt_of(judge, wide, "images", "good") is None
    found = doubt_of(judge, {**scores, "kid": replace(near, high=0.37)}, "images", "good")
    assert found is not None and found.word == "recognisable"
    assert found.times == pytest.approx((0.36 / 0.09) ** 2, rel=0.01)


def test_a_run_whose_training_ended_itself_is_not_told_to_train_longer() -> None:
    rough = measured(density=0.1)
    run = KnownFacts("images", "flow", "runs/a", "/a", 1.0, 2_000, 400_000, 64)
    assert "64 times as long" in verdict(rough, run).help
    assert "by heart" in verdict(rough, replace(run, ended=True)).help
