"""Control while sampling: the best of several, a reward's gradient, adapters mixed. What is promised, and what is
refused."""

from __future__ import annotations

import functools
import json
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import afresh
from afresh.api import Model
from afresh.core import UserError
from afresh.engine.alignment.reward_guidance import energy_of
from afresh.engine.alignment.rewards.reward import Reward
from afresh.engine.alignment.rewards.reward_factory import reward_of
from afresh.engine.sampling.samples import Samples
from afresh.engine.training.lora import save_adapter
from afresh.faces.cli import run as command
from afresh.runs.adapters import parse_adapters, with_adapters
from afresh.runs.run import Run
from tests.contracts.rows import write_pictures
from tests.heard import heard, silence

pytestmark = pytest.mark.slow

TEXT = "the cat sat on the mat and the dog ran to the red barn where a hen had laid one egg\n"
SMALL = {
    "transformer": ["family.width=32", "family.layers=2", "family.heads=2", "family.kv_heads=1"],
    "flow": ["family.widths=[16]"],
    "gan": ["family.width=8"],
    "vae": ["family.width=8", "family.latent=4"],
    "masked": ["family.width=16", "family.layers=1", "family.heads=2"],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a few steps on texts and on light and dark pictures, and adapters that were tuned from two of them."""
    root = tmp_path_factory.mktemp("control")
    (root / "text.txt").write_text(TEXT * 60)
    (root / "other.txt").write_text("one red hen and one red egg on a red mat\n" * 60)
    (root / "pictures").mkdir()
    write_pictures(root / "pictures")
    for family, settings in SMALL.items():
        words = family == "transformer"
        argv = ["train", root / ("text.txt" if words else "pictures"), "--family", family, "--no-measure"]
        steps = 60 if family in ("flow", "vae") else 20
        argv += ["--steps", steps, "--out", root / family, "--set", "train.batch=16"]
        argv += [a for k in ("eval", "preview", "save") for a in ("--set", f"train.{k}_every={steps}")]
        argv += [a for s in settings for a in ("--set", s)]
        argv += ["--data", "context=16"] if words else ["--data", "size=6"]
        assert command([str(a) for a in argv]) == 0
    for name, base, data, seed in (
        ("anna", "transformer", "text.txt", 1),
        ("formal", "transformer", "other.txt", 2),
        ("sharp", "flow", "pictures", 1),
    ):
        tuned = {"settings": {"train.batch": 8}, "steps": 8, "lr": 0.01, "rank": 4, "seed": seed, "quiet": True}
        afresh.tune(root / base, root / data, out=root / name, **tuned)  # type: ignore[arg-type]
    return root


def opened(root: Path, name: str) -> Model:
    return afresh.load(root / name)


def quick(model: Model) -> dict[str, Any]:
    """Settings that are quick."""
    return {"transformer": {"length": 12}, "flow": {"steps": 8}}.get(model.run.record.family, {})


def light(items: Sequence[Any]) -> list[float]:
    return [float(np.mean(i)) if isinstance(i, np.ndarray) else i.count("e") for i in items]


def same(a: Samples, b: Samples) -> bool:
    return torch.equal(a.x, b.x) and all(map(np.array_equal, a.values, b.values))


# --------------------------------------------------------------------------- the best of several


@pytest.mark.parametrize("family", list(SMALL))
def test_the_best_is_kept_and_told(root: Path, family: str) -> None:
    model = opened(root, family)
    made = model.sample(6, best_of=4, reward=light, seed=3, **quick(model))
    plain = model.sample(6, seed=3, **quick(model))
    assert [dict(d)["reward"] for d in made.described] == light(made.values)
    assert [d.get("label") for d in made.described] == [d.get("label") for d in plain.described]
    rewards = torch.tensor([(d["reward"], d["reward_mean"]) for d in made.described])
    assert bool((rewards[:, 0] >= rewards[:, 1]).all()) and float((rewards[:, 0] - rewards[:, 1]).mean()) > 0
    first = torch.tensor(light(plain.values))
    assert bool((rewards[:, 0] >= first - 1.0).all())  # the plain sample is a candidate; alone as in a batch to a grey


@pytest.mark.parametrize("family", ["transformer", "flow"])
def test_candidates_do_not_depend_on_how_many_are_asked_for(root: Path, family: str) -> None:
    model = opened(root, family)
    many = model.sample(5, best_of=6, reward=light, seed=2, **quick(model))
    few = model.sample(2, best_of=6, reward=light, seed=2, **quick(model))
    for a, b in zip(many.described[:2], few.described, strict=True):
        assert a["candidate"] == b["candidate"] and a["reward"] == pytest.approx(b["reward"], abs=1.0)
    more = model.sample(5, best_of=7, reward=light, seed=2, **quick(model))
    assert all(b["reward"] >= a["reward"] - 1.0 for a, b in zip(many.described, more.described, strict=True))


def test_many_candidates_are_drawn_in_parts(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened(root, "transformer")
    whole = model.sample(5, best_of=3, reward="length:max=3", stop="hen", prompt="the", **quick(model))
    monkeypatch.setattr("afresh.engine.alignment.best_of_n.BATCH_SIZE", 6)
    parts = model.sample(5, best_of=3, reward="length:max=3", stop="hen", prompt="the", **quick(model))
    assert list(parts.values) == list(whole.values) and parts.described == whole.described
    assert [w.finish for w in parts.written] == [w.finish for w in whole.written]


def test_all_alike_leaves_the_plain_samples(root: Path) -> None:
    model = opened(root, "transformer")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = model.sample(4, best_of=3, reward=lambda items: [1.0] * len(items), **quick(model))
    assert {d["candidate"] for d in made.described} == {0}
    assert list(made.values) == list(model.sample(4, **quick(model)).values)


def test_a_reward_sees_the_request(root: Path) -> None:
    model, seen = opened(root, "transformer"), []

    def by_request(items: list[str], requests: list[dict[str, Any]]) -> list[float]:
        seen.extend(r["prompt"] for r in requests)
        return [float(len(i)) for i in items]

    model.sample(2, best_of=2, reward=by_request, prompt=["the cat", "a hen"], **quick(model))
    assert seen == ["the cat", "a hen"] * 2


def test_the_gain_of_a_known_reward_is_that_of_its_order_statistics(root: Path) -> None:
    """Of uniform numbers the largest of n has mean n / (n + 1)."""
    rng, model = np.random.default_rng(0), opened(root, "vae")
    made = model.sample(400, best_of=4, reward=lambda items: rng.uniform(size=len(items)).tolist())
    found = np.array([d["reward"] for d in made.described])
    assert abs(found.mean() - 4 / 5) < 4 * math.sqrt(4 / (25 * 6) / 400)


# --------------------------------------------------------------------------- a reward's gradient


@pytest.mark.parametrize("family", ["flow", "vae", "gan"])
def test_the_reward_rises_with_the_weight(root: Path, family: str) -> None:
    model = opened(root, family)

    def mean(weight: float) -> float:
        made = model.sample(16, reward_guidance="brightness", weight=weight, seed=1, **quick(model))
        assert len(made.values) == 16
        return float(np.mean([d["guided_reward"] for d in made.described]))

    if family == "flow":
        found = [mean(w) for w in (0.0, 10.0, 100.0)]
        plain = float(np.mean(light(model.sample(16, seed=1, **quick(model)).values))) / 255
        assert found[0] == pytest.approx(plain, abs=1e-6)
        assert found[0] + 0.01 < found[1] < found[2] - 0.01
    else:  # they go to what is most probable at any weight above 0: that is what to begin from
        assert mean(1.0) + 0.003 < mean(3000.0)


@pytest.mark.parametrize("family", ["flow", "vae", "gan"])
def test_weight_nothing_is_nothing(root: Path, family: str) -> None:
    model = opened(root, family)
    assert same(
        model.sample(5, seed=4, **quick(model)),
        model.sample(5, reward_guidance="symmetry", weight=0, seed=4, **quick(model)),
    )


def test_a_class_counts_by_its_logarithm() -> None:
    """Of p = sigmoid(sum of x): log p, whose slope is 1 - p however small p is."""

    def p(x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x.flatten(1).sum(1))

    x = torch.tensor([[-30.0], [0.0], [2.0]]).view(3, 1, 1, 1).requires_grad_()
    energy = energy_of(Reward("class:light", light, "picture", p))(x)
    (slope,) = torch.autograd.grad(energy.sum(), x)
    torch.testing.assert_close(energy, -torch.nn.functional.logsigmoid(x.flatten()))
    torch.testing.assert_close(slope.flatten(), p(x) - 1)
    parts = ((2.0, Reward("class:light", light, "picture", p)), (-0.5, Reward("sum", light, "picture", p)))
    both = energy_of(Reward("both", light, "picture", p, parts))(x)
    torch.testing.assert_close(both, 2 * energy + 0.5 * p(x))


def test_a_class_is_steered_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the request for dark pictures: how likely they are to be light rises with the weight."""
    model, made = opened(root, "flow"), functools.cache(reward_of)  # one classifier for all
    monkeypatch.setattr("afresh.engine.alignment.rewards.reward_factory.reward_of", made)

    def mean(weight: float) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # how often the classifier is right
            found = model.sample(
                8, label="dark", reward_guidance="class:light", weight=weight, **quick(model)
            ).described
        return float(np.mean([math.log(max(1e-9, d["guided_reward"])) for d in found]))

    means = [mean(w) for w in (0.0, 2.0, 10.0)]
    assert means[0] < means[1] < means[2]


def test_the_best_of_steered_samples(root: Path) -> None:
    model = opened(root, "flow")
    steer = {"reward_guidance": "brightness", "weight": 20.0}
    alone, both = (
        model.sample(6, **steer, **more, **quick(model)) for more in ({}, {"best_of": 3, "reward": "sharpness"})
    )
    assert all(d["reward"] >= d["reward_mean"] and d["reward_guidance"] == "brightness" for d in both.described)
    score = reward_of(model.run, "sharpness").score
    assert sum(score(both.values, [])) > sum(score(alone.values, []))


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("transformer", {"reward_guidance": "length:50"}, "tokens have no gradient.*best_of"),
        ("masked", {"reward_guidance": "brightness"}, "codec.*best_of"),
        ("flow", {"reward_guidance": light}, "light: a reward without a gradient.*brightness, .*class:LABEL"),
        ("flow", {"reward_guidance": "brightness + nowhere:f"}, "nowhere"),
        ("flow", {"reward_guidance": "length:50"}, "length is for texts"),
        ("flow", {"reward_guidance": "class:grey"}, "needs a class 'grey'.*dark, light"),
        ("flow", {"reward_guidance": "brightness", "weight": -1.0}, "from 0.*Given: -1"),
        ("flow", {"reward_guidance": "brightness", "weight": math.nan}, "from 0.*Given: nan"),
        ("flow", {"weight": 2.0}, "Give both"),
        ("flow", {"best_of": 4}, "best_of=4. requires a reward"),
        ("flow", {"reward": "brightness"}, "best_of"),
        ("flow", {"best_of": 0, "reward": "brightness"}, "1 to 10,000.*Given: 0"),
        ("flow", {"best_of": 2, "reward": 3}, "string.*or a function"),
        ("flow", {"best_of": 2, "reward": lambda items: [math.inf] * len(items)}, "finite number"),
        ("transformer", {"best_of": 2, "reward": "brightness"}, "brightness is for images and sounds"),
        ("flow", {"adapters": {"nowhere": 1.0}}, "No adapter in nowhere.*lora"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(root: Path, name: str, given: dict[str, Any], said: str) -> None:
    model = opened(root, name)
    with pytest.raises(UserError) as error:
        model.sample(2, **given, **quick(model))
    assert re.search(said, str(error.value), re.DOTALL), error.value


def test_a_family_without_edits_names_those_that_have_them(root: Path) -> None:
    student = afresh.load(root / "flow").distill(finest=1, steps=2, out=root / "student", quiet=True)
    with pytest.raises(UserError, match=r"fewstep cannot be guided.*vae, gan, flow.*best_of"):
        student.sample(1, reward_guidance="brightness")


# --------------------------------------------------------------------------- personal models


def weights(modules: dict[str, nn.Module]) -> torch.Tensor:
    return torch.cat([p.flatten() for m in modules.values() for p in m.parameters()])


@pytest.mark.parametrize(("base", "name"), [("transformer", "anna"), ("flow", "sharp")])
@pytest.mark.parametrize("inside", ["", "adapter"])
def test_one_adapter_is_the_tuned_run(root: Path, base: str, name: str, inside: str) -> None:
    model, tuned = opened(root, base), opened(root, name)
    with silence():
        made = model.sample(3, adapters={str(root / name / inside): 1.0}, seed=1, **quick(model))
        none = model.sample(3, adapters={str(root / name / inside): 0.0}, seed=1, **quick(model))
    assert same(made, tuned.sample(3, seed=1, **quick(model)))
    assert same(none, model.sample(3, seed=1, **quick(model)))
    assert not torch.equal(weights(dict(model.run.modules)), weights(dict(tuned.run.modules)))


def test_adapters_mix_by_weight_in_any_order(root: Path) -> None:
    model, anna, formal = opened(root, "transformer"), str(root / "anna"), str(root / "formal")
    base, a, b = (weights(dict(Run.open(p).modules)) for p in (model.path, anna, formal))
    mixed = weights(with_adapters(model.run, {anna: 0.7, formal: 0.3}))
    torch.testing.assert_close(mixed, base + 0.7 * (a - base) + 0.3 * (b - base), rtol=0, atol=1e-6)
    assert torch.equal(mixed, weights(with_adapters(model.run, {formal: 0.3, anna: 0.7})))
    half = weights(with_adapters(model.run, {anna: 0.5}))
    assert float((half - base).norm()) == pytest.approx(0.5 * float((a - base).norm()), rel=1e-3)
    assert torch.equal(weights(dict(model.run.modules)), base)  # the run itself stays as it is


def test_a_lora_file_goes_on_too(root: Path, tmp_path: Path) -> None:
    model, tuned = opened(root, "transformer"), opened(root, "anna")
    save_adapter(tmp_path / "anna.safetensors", nn.ModuleDict(tuned.run.modules_with_adapters()))
    made = model.sample(2, adapters={str(tmp_path / "anna.safetensors"): 1.0}, **quick(model))
    assert same(made, tuned.sample(2, **quick(model)))


def test_adapters_of_others_are_refused_or_warned_of(root: Path, tmp_path: Path) -> None:
    words, flow = opened(root, "transformer"), opened(root, "flow")
    for model, adapter, said in (
        (flow, root / "anna", "is a transformer and .* is a flow"),
        (words, root / "flow", "has no adapter, because all of its weights were trained"),
        (words, root / "sharp" / "adapter" / "adapter.safetensors", "sharp is a flow|another network"),
    ):
        with pytest.raises(UserError, match=said):
            model.sample(1, adapters={str(adapter): 1.0}, **quick(model))
    argv = ["train", root / "text.txt", "--family", "transformer", "--steps", 3, "--no-measure", "--data", "context=16"]
    for name, width, seed in (("twin", 32, 5), ("wide", 64, 0)):
        settings = [f"family.width={width}", *SMALL["transformer"][1:], "train.batch=4"]
        more = [a for s in settings for a in ("--set", s)]
        assert command([str(a) for a in (*argv, "--out", tmp_path / name, "--seed", seed, *more)]) == 0
    with heard("was tuned from .*transformer, whose weights differ from those of .*twin"):
        afresh.load(tmp_path / "twin").sample(1, adapters={str(root / "anna"): 1.0}, length=4)
    with heard(), pytest.raises(UserError, match=r"anna cannot be used on .*wide: .*network"):
        afresh.load(tmp_path / "wide").sample(1, adapters={str(root / "anna"): 1.0}, length=4)
    for given in ({"anna": math.inf}, {"anna": math.nan}):
        with pytest.raises(UserError, match="finite number"):
            words.sample(1, adapters={str(root / k): v for k, v in given.items()}, length=4)
    twice = {str(root / "anna"): 1.0, str(root / "formal" / ".." / "anna"): 0.5}
    with pytest.raises(UserError, match="given twice"):
        words.sample(1, adapters=twice, length=4)


def test_paths_with_weights(tmp_path: Path) -> None:
    odd = tmp_path / "lr=3"
    odd.mkdir()
    assert parse_adapters(["a", "b=0.5"]) == {"a": 1.0, "b": 0.5}
    assert parse_adapters([str(odd)]) == {str(odd): 1.0} and parse_adapters([f"{odd}=-2"]) == {str(odd): -2.0}
    for given, said in ((["a=much"], "PATH=WEIGHT"), (["a", "a=2"], "given twice")):
        with pytest.raises(UserError, match=said):
            parse_adapters(given)


# --------------------------------------------------------------------------- the command line


def test_the_command_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    argv = ["sample", root / "flow", "-n", 3, "--steps", 3, "--best-of", 4, "--reward", "sharpness", "--out", out]
    argv += ["--reward-guidance", "brightness", "--weight", 5, "--adapter", f"{root / 'sharp'}=0.5"]
    capsys.readouterr()
    assert command([str(a) for a in argv]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "best of 4 by sharpness: mean reward" in said and "at most 0.636 nats" in said  # log 4 - 3/4
    assert "guided by brightness, weight 5" in said and "sharp x 0.5" in said
    records = json.loads((out / "samples.json").read_text())
    assert len(records) == 3 and all(r["reward"] >= r["reward_mean"] and r["best_of"] == 4 for r in records)
    assert {r["reward_guidance"] for r in records} == {"brightness"} and records[0]["adapters"] == {
        str(root / "sharp"): 0.5
    }
    words = ["sample", root / "transformer", "--stream", "--best-of", 2, "--reward", "length", "--length", 4]
    assert command([str(a) for a in words]) == 2
    assert "give --stream, or --best-of or --valid" in " ".join(capsys.readouterr().err.split())
