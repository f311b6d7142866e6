"""Rewards that are models or programs of their own: a classifier of the data's labels, tests in the sandbox."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from afresh.core import UserError
from afresh.data.image.kind import IMAGE
from afresh.data.prepare import prepare
from afresh.data.text.kind import TEXT
from afresh.domains.code.rewards import passing
from afresh.engine.alignment.rewards.classifier_reward import classifier_folder, known
from afresh.engine.alignment.rewards.reward import Context
from afresh.engine.alignment.rewards.reward_expression import build
from afresh.engine.evaluation import label_classifier
from tests import needs


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of a few steps: light and dark are easily told apart."""
    monkeypatch.setattr(label_classifier, "STEPS", 40)


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """Light and dark pictures in class folders."""
    for name, base in (("light", 200), ("dark", 40)):
        (tmp_path / "shades" / name).mkdir(parents=True)
        for i in range(40):
            noise = np.random.default_rng(i).integers(-30, 30, (12, 12))
            Image.fromarray((base + noise).astype(np.uint8)).save(tmp_path / "shades" / name / f"{i}.png")
    return tmp_path / "shades"


def test_a_class_of_pictures_is_a_reward_with_a_gradient(shades: Path) -> None:
    told: list[str] = []
    context = Context(IMAGE, known=known(prepare(shades), IMAGE, told.append))
    reward = build("class:light", context)
    light, dark = (np.full((12, 12, 1), v, np.uint8) for v in (210, 30))
    values = np.asarray(reward.score([light, dark], [{}, {}]))
    assert values[0] > 0.9 and values[1] < 0.1
    assert reward.on_field is not None
    x = torch.zeros(2, 1, 12, 12, requires_grad=True)
    (slope,) = torch.autograd.grad(reward.on_field(x).sum(), x)
    assert float(slope.sum()) > 0  # lighter is surer to be light
    assert "held-out items" in told[0]


def test_a_classifier_is_trained_once_for_its_data(
    shades: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    assert classifier_folder(run) is None  # no run
    (run / "run.json").write_text("{}")
    folder = classifier_folder(None, tmp_path / "gone", run)
    assert folder == run / "judges"
    pictures = [np.full((12, 12, 1), v, np.uint8) for v in (210, 110, 30)]

    def values() -> np.ndarray:
        context = Context(IMAGE, known=known(prepare(shades), IMAGE, lambda line: None, folder))
        return np.asarray(build("class:light", context).score(pictures, [{}] * 3))

    first = values()
    (file,) = folder.glob("*.safetensors")

    def trained(*args: object) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(label_classifier, "draw_rows", trained)
        assert np.array_equal(values(), first)
    Image.fromarray(np.full((12, 12), 215, np.uint8)).save(shades / "light" / "new.png")
    values()
    assert len(list(folder.glob("*.safetensors"))) == 2 and file.exists()  # other data


def test_a_class_of_texts_is_a_reward(tmp_path: Path) -> None:
    rows = [f'{{"text": "{w} {i} thing", "label": "{c}"}}' for i in range(60) for w, c in (("good", "p"), ("bad", "n"))]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    context = Context(
        TEXT, known=known(prepare(tmp_path / "t.jsonl", "text", {"label_column": "label"}), TEXT, lambda line: None)
    )
    good, bad = build("class:p", context).score(["a good day", "a bad day"], [{}, {}])
    assert good > 0.7 and bad < 0.3
    assert build(f"class:p@{tmp_path / 't.jsonl'}", context).score(["good"], [{}])[0] > 0.7


def test_a_class_that_is_not_there_names_those_that_are(shades: Path) -> None:
    context = Context(IMAGE, known=known(prepare(shades), IMAGE, lambda line: None))
    with pytest.raises(UserError, match=r"needs a class 'pale'.*classes: dark, light"):
        build("class:pale", context)


def test_labels_that_say_nothing_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f'{{"text": "{" ".join(map(str, rng.integers(0, 50, 6)))}", "label": "{"ab"[i % 2]}"}}' for i in range(200)]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    context = Context(
        TEXT, known=known(prepare(tmp_path / "t.jsonl", "text", {"label_column": "label"}), TEXT, lambda line: None)
    )
    with pytest.raises(UserError, match="cannot serve as a reward"):
        build("class:a", context)


@needs.sandbox
def test_programs_earn_the_share_of_tests_that_they_pass(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("import math\nassert f(1) == 2\nassert f(4) == 5\nassert f(math.pi) > 4\n")
    reward = passing(tmp_path / "t.py")
    programs = ["def f(x):\n    return x + 1", "def f(x):\n    return 2", "def f(x", "import sys; sys.exit(0)", "x"]
    asked = [{}, {}, {}, {}, {"prompt": "def f(x):\n    return 1 + "}]
    assert reward.score(programs, asked) == [1.0, pytest.approx(1 / 3), 0.0, 0.0, 1.0]


def test_a_file_without_tests_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("def f():\n    assert True\n")
    with pytest.raises(UserError, match="has no assert statement outside functions"):
        passing(tmp_path / "t.py")
