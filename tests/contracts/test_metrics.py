"""The contract of metrics: where they apply, and finite values within their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import scipy.stats
import torch

from afresh.core import Cond, Drawn, Item, Metric, Question, Score, registry
from afresh.data.image.kind import IMAGE
from afresh.data.text.kind import TEXT
from afresh.domains.exercises.encoder import fit_answers
from afresh.domains.exercises.history import ANSWERS, Answer, AnswerHistory
from afresh.domains.image.taught import beside_base
from afresh.domains.molecule.chem import canonical, chem
from afresh.domains.molecule.kind import MOLECULE
from afresh.domains.molecule.modality import MoleculeOptions
from afresh.domains.molecule.properties import numbers_of
from afresh.domains.series.kind import SERIES
from afresh.domains.series.metrics import Forecaster, forecaster_of
from afresh.domains.series.modality import MODALITY as series
from afresh.domains.series.modality import SeriesOptions
from afresh.domains.table.reading import ReadingOptions
from afresh.domains.table.row import ROW, Header, Row
from afresh.engine.evaluation.base_comparison import DRIFT
from afresh.engine.evaluation.encoders import EncoderRecipe
from afresh.engine.evaluation.score_descriptions import words_of
from afresh.engine.evaluation.study import Study
from afresh.engine.training.best_checkpoint import GAIN, GAIN_ERROR
from tests.contracts.rows import METRICS, SPACES, MetricRow
from tests.domains.field.rollouts import forecaster
from tests.domains.interactions.histories import ITEMS, circle, history_evidence
from tests.domains.music.scores import composer
from tests.engine.evaluation.evidence import (
    Evidence,
    code_evidence,
    digits,
    image_evidence,
    library_code,
    modules_evidence,
)
from tests.plugin.package.afresh_walks import WALK, Encoder, Walk

ALL = registry.metrics()
every_metric = pytest.mark.parametrize("metric", ALL, ids=lambda m: m.name)


def writer() -> Evidence:
    """A model of Python that knows a little: pieces of held-out modules, at two nats a token."""
    text = library_code()[1][0]
    return code_evidence([text[i : i + 300] for i in range(0, 6000, 300)], nats=1e5)


def painter() -> Evidence:
    """A model as good as the data: digits unseen in training, averaged down to 4x4."""
    x, y = digits()
    small = x.reshape(-1, 1, 4, 2, 4, 2).mean((3, 5)).astype(np.uint8)
    label = torch.from_numpy(y[520:640].astype(np.int64))
    cond = Cond(120, {"label": label}, {"label": torch.ones(120, dtype=torch.bool)})
    fake = torch.from_numpy(small[520:640]).float() * (2 / 255) - 1
    return image_evidence((small[:400], small[400:520]), (y[:400], y[400:520]), fake, cond)


def pupil() -> Evidence:
    """A model that was taught a little, for its text alone."""
    beside = {GAIN: 0.3, GAIN_ERROR: 0.02, DRIFT: 0.2}
    return replace(painter(), tools={beside_base: beside})


def filler() -> Evidence:
    """A model that puts a number into every hole."""
    return modules_evidence(lambda before, after: "0")


def assessor() -> Evidence:
    """The same digits, each with 60 nats."""
    return replace(painter(), nats=(torch.full((64,), 60.0), torch.full((64,), 16.0)))


def walker() -> Evidence:
    """A model as good as the data, of a kind of items that a package adds, at one nat a token."""
    draw = np.random.default_rng(0)
    items = [Item(Walk(tuple(draw.choice([-1, 0, 1], 8).tolist()))) for _ in range(640)]
    encoder = Encoder(field=False, classes=())
    train, heldout, fake = items[:400], items[400:520], items[520:]
    drawn = Drawn(encoder.encode(fake).x, [i.value for i in fake], Cond(len(fake)))
    nats = (torch.full((120,), 8.0), torch.full((120,), 8.0))
    splits = encoder.encode(train), encoder.encode(heldout)
    return Evidence(encoder.space, {}, *splits, train, heldout, lambda n: drawn, nats, encoder.valid, kind=WALK)


def chemist() -> Evidence:
    """A model as good as the data: two rings, a link and an end, every tenth of which is broken."""
    rings, links = ("c1ccccc1", "c1ccncc1", "C1CCNCC1", "c1ccoc1", "c1ccsc1"), ("C", "CO", "CN", "C(=O)N", "CCO", "CC")
    ends = ("F", "Cl", "O", "N", "C", "OC", "C#N", "CO")
    both = [f"{a[:-2]}(C{e}){a[-2:]}{k}{b}" for a in rings for b in rings for k in links for e in ends]
    order = np.random.default_rng(0).permutation(len(both))
    items = [
        Item(s, numbers=numbers_of(chem().MolFromSmiles(s), ("logP",))) for i in order if (s := canonical(both[i]))
    ]
    train, heldout, fake = items[:400], items[400:520], items[520:640]
    encoder = registry.modality("molecule").fit(train, MoleculeOptions())
    values = [i.value if n % 10 else i.value[1:] + "(" for n, i in enumerate(fake)]
    drawn = Drawn(encoder.encode(fake).x, values, encoder.encode(fake).cond)
    splits = encoder.encode(train), encoder.encode(heldout)
    return Evidence(
        encoder.space, encoder.conds, *splits, train, heldout, lambda n: drawn, None, encoder.valid, kind=MOLECULE
    )


def recommender() -> Evidence:
    """A model that knows the order of a circle of items."""
    return history_evidence(circle, [([s, (s + 1) % ITEMS, (s + 2) % ITEMS], 1) for s in range(ITEMS)])


def tutor() -> Evidence:
    """A model that knows how likely each answer was; learners are right ever more often."""
    draw = np.random.default_rng(0)
    chances = np.linspace(0.3, 0.9, 20)
    right = draw.random((60, 20)) < chances
    items = [
        Item(AnswerHistory(tuple(Answer(f"e{j % 5}", bool(r), f"s{j % 2}") for j, r in enumerate(row))))
        for row in right
    ]
    encoder = fit_answers(items[:40], 80, 1, {}, 100)
    splits = encoder.encode(items[:40]), encoder.encode(items[40:])
    nats = torch.from_numpy(-np.log(np.where(right[40:], chances, 1 - chances))).flatten().float()
    drawn = Drawn(splits[1].x[None], [items[40].value], Cond(1))
    return Evidence(
        encoder.space,
        {},
        *splits,
        items[:40],
        items[40:],
        lambda n: drawn,
        kind=ANSWERS,
        each=nats,
        accepts=encoder.valid,
    )


def forecast() -> Evidence:
    """A model whose members differ from waves as the truth does."""
    with TemporaryDirectory() as folder:
        return forecaster(Path(folder))


def clerk() -> Evidence:
    """A model as good as the data: rows of a table, a category of which says which numbers are likely."""
    draw = np.random.default_rng(0)
    town = draw.integers(0, 3, 640)
    rooms = (town + draw.normal(size=640)).round(2).tolist()
    cells = zip(["abc"[t] for t in town], rooms, strict=True)
    header = Header(("town", "rooms"), ("category", "number"))
    items = [Item(Row(header, row)) for row in cells]
    encoder = registry.modality("table").fit(items[:400], ReadingOptions())
    splits = encoder.encode(items[:400]), encoder.encode(items[400:520])
    drawn = Drawn(encoder.encode(items[520:]).x, [i.value for i in items[520:]], Cond(120))
    return Evidence(
        encoder.space, {}, *splits, items[:400], items[400:520], lambda n: drawn, None, encoder.valid, kind=ROW
    )


def meteorologist() -> Evidence:
    """Forecasts of two columns that repeat, with the noise that they have."""
    draw, turns = np.random.default_rng(0), 2 * np.pi * np.arange(60) / 12
    starts = draw.integers(0, 12, 80)
    clean = np.stack([np.stack([np.sin(turns + s), 3 + np.cos(turns + s)]) for s in starts])
    windows = clean + 0.1 * draw.standard_normal(clean.shape)
    none = np.zeros((0, 60), np.float32)
    items = [
        Item(np.asarray(w, np.float32), f"step {60 * i}", images={"known": none, "place": ("series", 60 * i)})
        for i, w in enumerate(windows)
    ]
    encoder = series.fit(items[:60], SeriesOptions(context=48, horizon=12, period=12))
    spread = 0.1 * scipy.stats.norm.ppf((np.arange(64) + 0.5) / 64).reshape(-1, 1, 1, 1)
    clean_after = {i.images["place"][1]: c[:, 48:] for i, c in zip(items, clean, strict=True)}

    def draw(windows: Sequence[Item]) -> np.ndarray:
        return spread + np.stack([clean_after[w.images["place"][1]] for w in windows])[None]

    splits = encoder.encode(items[:60]), encoder.encode(items[60:])
    drawn = Drawn(splits[1].x[:1], [items[60].value], splits[1].cond.select(torch.tensor([0])))
    tools = {forecaster_of: Forecaster(encoder, draw)}
    return Evidence(
        encoder.space,
        {},
        *splits,
        items[:60],
        items[60:],
        lambda n: drawn,
        kind=SERIES,
        accepts=encoder.valid,
        tools=tools,
    )


MAKERS: dict[str, Callable[[], Evidence]] = {
    "text": writer,
    "code": filler,
    "image": painter,
    "taught": pupil,
    "likelihood": assessor,
    "music": composer,
    "molecule": chemist,
    "tokens": walker,
    "feature_metrics": walker,
    "interactions": recommender,
    "exercises": tutor,
    "field": forecast,
    "table": clerk,
    "series": meteorologist,
}


def measured(row: MetricRow, folder: Path) -> dict[str, list[Score]]:
    """Every metric of a row on its evidence; trained encoders are stored in the folder."""
    study = Study(MAKERS[row.variant or row.name](), 120, folder)
    return {m.name: m.compute(study) for m in ALL if m.name in row.metrics}


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Score]]:
    """Of all metrics. Each module is measured twice: with judges trained (for a few steps), then with those kept."""
    found: dict[str, list[Score]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("afresh.engine.evaluation.image_sets.EncoderRecipe", partial(EncoderRecipe, steps=30))
        patch.setattr("afresh.engine.evaluation.label_classifier.STEPS", 30)
        for row in METRICS:
            folder = tmp_path_factory.mktemp(row.name)
            first = measured(row, folder)
            assert_same(first, measured(row, folder))
            found |= first
    return found


def assert_same(first: dict[str, list[Score]], again: dict[str, list[Score]]) -> None:
    """To the last bits: products of one process are not equal bit by bit on every processor."""
    assert again.keys() == first.keys()
    for name, rows in first.items():
        for a, b in zip(rows, again[name], strict=True):
            for x, y in zip(astuple(a), astuple(b), strict=True):
                near = pytest.approx(x, rel=1e-6, abs=1e-9) if isinstance(x, float) else x
                assert y == near, f"measuring again gave another {name}"


@every_metric
def test_a_metric_applies_or_says_why_not(metric: Metric) -> None:
    row = next(r for r in METRICS if metric.name in r.metrics)
    for name, space in SPACES.items():
        kind = row.kind or (TEXT if space.kind == "tokens" else IMAGE)
        reason = metric.applies(kind, space, row.conds)
        assert (reason is None) == (name in row.spaces), (name, reason)
        assert reason is None or len(reason) > 10


@pytest.mark.slow
@every_metric
def test_scores_are_finite_and_lie_in_their_intervals(metric: Metric, scores: dict[str, list[Score]]) -> None:
    assert scores[metric.name]
    for s in scores[metric.name]:
        assert math.isfinite(s.value) and s.n > 0 and s.better in ("lower", "higher", "none")
        assert s.low is None or s.low <= s.value + 1e-9
        assert s.high is None or s.value <= s.high + 1e-9
        for other in (s.floor, s.control, s.low, s.high):
            assert other is None or math.isfinite(other)


@pytest.mark.slow
@every_metric
def test_every_score_has_words_of_its_metric(metric: Metric, scores: dict[str, list[Score]]) -> None:
    names = [s.name for s in scores[metric.name] if s.name != f"unique_at_{s.n}"]  # of fewer samples than are wanted
    assert all(name.partition("/")[0] in metric.words for name in names)
    for name, words in words_of(names).items():
        assert words.question != Question.OTHER and words.meaning and "_" not in words.name, name


@pytest.mark.slow
def test_no_two_scores_share_a_name(scores: dict[str, list[Score]]) -> None:
    names = [s.name for found in scores.values() for s in found]
    assert len(names) == len(set(names))
