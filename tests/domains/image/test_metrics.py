"""Metrics of images on models of known quality; encoders, classifier, copies and the protocol card."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from afresh.core import Cond, Part, Space, UserError
from afresh.core.rng import Rng
from afresh.data.image.kind import IMAGE
from afresh.domains.image.metrics import METRICS
from afresh.engine.evaluation.card import ProtocolCard, compare, split_hash
from afresh.engine.evaluation.encoders import MAX_SIDE, EncoderRecipe, PixelPCA, add_flaws, downscaled, train_encoder
from afresh.engine.evaluation.image_sets import pixel_gaussian
from afresh.engine.evaluation.label_classifier import shifted
from afresh.engine.evaluation.memorisation import near_copies, nearest, nearest_ratio
from afresh.engine.evaluation.study import Study, Unmeasurable, measure
from tests.engine.evaluation.evidence import digit_evidence, digits

pytestmark = pytest.mark.slow

QUICK = EncoderRecipe(steps=20, width=16)


def some_digits(n: int = 200) -> tuple[torch.Tensor, Cond]:
    x, y = digits()
    cond = Cond(n, {"label": torch.from_numpy(y[:n])}, {"label": torch.ones(n, dtype=torch.bool)})
    return torch.from_numpy(x[:n]).float() / 127.5 - 1, cond


SPEC = {"label": Part("label", tuple("0123456789"))}


def test_encoder_is_a_function_of_its_arguments(tmp_path) -> None:  # type: ignore[no-untyped-def]
    x, cond = some_digits()
    a = train_encoder("domain", x, cond, SPEC, Rng(0), QUICK, tmp_path)
    torch.manual_seed(77)  # the state of torch's own generator must not matter, nor change
    before = torch.get_rng_state()
    b = train_encoder("domain", x, cond, SPEC, Rng(0), QUICK)
    assert a.hash == b.hash and (a.features(x) == b.features(x)).all()
    assert (torch.get_rng_state() == before).all()
    assert len({a.hash, train_encoder("domain", x, cond, SPEC, Rng(1), QUICK).hash}) == 2
    assert a.features(x).shape == (200, 64) and a.features(x).dtype == np.float64
    # Whitened on the training images: variances at most 1, none of the leading ones near 0.
    variance = a.features(x).var(0)
    assert variance.max() < 1.01 and np.sort(variance)[-10:].min() > 0.5


def test_encoder_is_cached_and_a_damaged_file_is_trained_again(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    x, cond = some_digits()
    a = train_encoder("domain", x, cond, SPEC, Rng(0), QUICK, tmp_path)
    (path,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("afresh.engine.evaluation.encoders._fit", lambda *_: pytest.fail("trained again"))
        assert train_encoder("domain", x, cond, SPEC, Rng(0), QUICK, tmp_path).hash == a.hash
    path.write_bytes(path.read_bytes()[:100])
    assert train_encoder("domain", x, cond, SPEC, Rng(0), QUICK, tmp_path).hash == a.hash
    other = replace(cond, parts={"label": cond.parts["label"].flip(0)})
    train_encoder("domain", x, other, SPEC, Rng(0), QUICK, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # other labels, other weights


def test_encoder_takes_any_size_and_colour_and_no_labels() -> None:
    for shape in ((3, 40, 28), (1, 5, 7), (3, 100, 80)):
        x = Rng(0).uniform("x", torch.arange(24), shape) * 2 - 1
        encoder = train_encoder(
            "domain", x, Cond(24), {}, Rng(0), EncoderRecipe(steps=2, batch=8, width=8, features=16)
        )
        assert encoder.features(x).shape == (24, 16) and np.isfinite(encoder.features(x)).all()
        pca = PixelPCA(x)
        assert pca.features(x).shape == (24, 24) and pca.hash == PixelPCA(x).hash
    assert max(downscaled(torch.zeros(1, 3, 200, 100)).shape[2:]) == MAX_SIDE


def test_flaws() -> None:
    x = Rng(0).uniform("x", torch.arange(5), (1, 4, 4))
    out = add_flaws(x, torch.arange(5), torch.ones(5), torch.ones_like(x))
    assert (out[0] == x[0]).all() and torch.allclose(out[2], x[2] + 0.3)
    assert out[1].var() < x[1].var() and torch.allclose(out[3], (x[3] + x[2]) / 2)
    assert (out[4, :, :2] == x[4, :, :2]).all() and (out[4, :, 2:] == x[3, :, 2:]).all()


def test_shifts_move_images() -> None:
    one = torch.arange(9.0).view(1, 1, 3, 3)
    assert (shifted(one, torch.tensor([[1, 1]]), 1) == one).all()
    assert shifted(one, torch.tensor([[2, 1]]), 1)[0, 0].tolist() == [[3, 4, 5], [6, 7, 8], [6, 7, 8]]


def test_pixel_gaussian_has_the_moments_of_its_label() -> None:
    g = np.random.default_rng(0)
    x = torch.from_numpy(np.concatenate([g.normal(size=(300, 1, 2, 2)), g.normal(size=(300, 1, 2, 2)) * 3 + 5])).float()
    label = torch.arange(600) // 300
    drawn = pixel_gaussian(x, label, torch.ones(4000, dtype=torch.int64), Rng(0)).flatten(1)
    own = x[300:].flatten(1)
    assert torch.allclose(drawn.mean(0), own.mean(0), atol=0.2)
    assert torch.allclose(torch.cov(drawn.T), torch.cov(own.T), atol=0.6)
    with pytest.raises(ValueError, match="label 7"):
        pixel_gaussian(x, label, torch.tensor([7]), Rng(0))


def test_nearest_is_exact_and_copies_are_at_zero() -> None:
    g = np.random.default_rng(0)
    table = g.normal(size=(5000, 30)) * 100
    x = np.concatenate([table[:20], table[:20] + 1e-3])
    distance = nearest(x, table)
    assert (distance[:20] == 0).all() and distance[20:] == pytest.approx(np.full(20, 1e-3 * 30**0.5), rel=1e-6)


def test_near_copies_counts_as_defined() -> None:
    heldout = np.arange(1, 201.0)  # the 1% nearest are 1 and 2
    assert near_copies(np.array([0.0, 0.5, 1.5, 2.0, 50.0]), heldout).value == pytest.approx(4 / 5)
    assert near_copies(heldout, heldout).value == pytest.approx(0.01)  # the floor, by construction
    assert near_copies(np.zeros(10), heldout).value == 1.0
    ratio = nearest_ratio(heldout / 2, heldout, seed=0)
    assert ratio.value == 0.5 and ratio.low < 0.5 < ratio.high
    with pytest.raises(ValueError, match="half of the held-out"):
        nearest_ratio(heldout, np.zeros(5), 0)


def test_scores_order_models_of_known_quality(tmp_path) -> None:  # type: ignore[no-untyped-def]
    scores = {}
    for model in ("real", "copies", "noise", "blurred"):
        result = measure(digit_evidence(model), METRICS, 180, modality="image", sampling={}, folder=tmp_path)
        assert not result.skipped
        scores[model] = {s.name: s for s in result.scores}
        json.dumps(result.json())
    real, copies, noise, blurred = (scores[k] for k in ("real", "copies", "noise", "blurred"))
    for bad in (noise, blurred):
        for name in ("frechet", "frechet/pixel_pca", "frechet/random_net", "kid", "two_sample"):
            assert bad[name].low > real[name].high, name
        for name in ("precision", "recall", "density", "coverage", "conditional_accuracy"):
            assert bad[name].high < real[name].low, name
    assert real["frechet"].value < 1.5 * real["frechet"].floor
    assert real["frechet/pixel_gaussian"].value > 3 * real["frechet"].floor
    assert real["kid"].low < 0 < real["kid"].high and real["kid/pixel_gaussian"].low > real["kid"].high
    assert real["two_sample"].low < 0.55 and real["conditional_accuracy"].value > 0.97
    assert real["conditional_accuracy"].control < 0.25
    assert copies["near_copies"].value == copies["near_copies/features"].value == 1.0
    assert real["near_copies"].value < 0.06 and real["near_copies"].control == 1.0
    assert abs(real["nearest_ratio"].value - 1) < 0.2 and copies["nearest_ratio"].value == 0


def test_what_does_not_apply_is_listed_with_its_reason() -> None:
    evidence = digit_evidence("real")
    evidence.conds = {}
    text = replace(evidence, space=Space("tokens", (64,), (256,)))
    result = measure(text, METRICS, 10, modality="text", sampling={})
    assert not result.scores and len(result.skipped) == len(METRICS)
    labelled = [m for m in METRICS if m.name == "conditional_accuracy"]
    skipped = measure(evidence, labelled, 5, modality="image", sampling={}).skipped
    assert "at least two classes" in skipped["conditional_accuracy"]
    evidence.heldout = replace(
        evidence.heldout, x=evidence.heldout.x[:5], cond=evidence.heldout.cond.select(torch.arange(5))
    )
    assert "20 held-out" in measure(evidence, METRICS[:1], 5, modality="image", sampling={}).skipped["frechet"]
    with pytest.raises(ValueError, match="at least 2 samples"):
        Study(evidence, 1)


def card(**changes: object) -> ProtocolCard:
    fields = {
        "version": "0.1.0",
        "modality": "image",
        "split": "ab",
        "train_size": 10,
        "heldout_size": 5,
        "samples": 4,
        "reference": "held-out split",
        "reference_size": 4,
        "judges": {"domain": "cd"},
        "seed": 0,
        "sampling": {"steps": 10},
    }
    return ProtocolCard(**{**fields, **changes})  # type: ignore[arg-type]


def test_different_cards_are_not_compared() -> None:
    compare(card(), card())
    assert card().id == card().id and len(card().id) == 16
    other = card(judges={"domain": "ef"}, samples=8)
    assert other.id != card().id
    with pytest.raises(UserError, match=r"(?s)samples: 4 and 8.*judges"):
        compare(card(), other)
    compare(card(), card(sampling={"steps": 20}), differing=("sampling",))
    with pytest.raises(UserError, match="has no field smapling"):
        compare(card(), card(), differing=("smapling",))
    assert json.loads(card().model_dump_json())["id"] == card().id
    with pytest.raises(ValueError):
        card(extra=1)


def test_split_hash_is_of_contents_not_of_order() -> None:
    evidence = digit_evidence("real")
    a, b = evidence.train_items[:9], evidence.heldout_items[:5]
    assert split_hash(a, b, IMAGE) == split_hash(a[::-1], b, IMAGE) != split_hash(b, a, IMAGE)


@pytest.mark.parametrize("name,needed", [("variety", 3), ("precision", 3), ("coverage", 5)])
def test_metrics_of_neighbours_say_how_many_samples_they_need(name: str, needed: int) -> None:
    (metric,) = (m for m in METRICS if m.name == name)
    study = Study(digit_evidence("real"), needed)
    with pytest.raises(Unmeasurable, match=f"more than {needed} samples"):
        metric.compute(study)
