"""A network beside its base: closed forms of gain and drift, and the verdict on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from afresh.core import Batch, Cond, Examples, Modules, Score, Space, registry
from afresh.core.rng import Rng
from afresh.domains.image.taught import judge_taught
from afresh.engine.evaluation.base_comparison import DRIFT, BaseComparison, read_answers, write_answers
from afresh.engine.evaluation.tuning_monitor import MOST, USUAL, other_texts
from afresh.engine.training.best_checkpoint import GAIN, GAIN_ERROR, LOSS

SPACE = Space("field", (1, 2, 2))
OWN, OTHERS = 5.0, (1.0, 2.0, 3.0, 4.0)


class Shift(nn.Module):
    """The velocity is `text + own` for the text OWN, and `text + other` for others, whatever x is."""

    def __init__(self, own: float = 0.0, other: float = 0.0) -> None:
        super().__init__()
        self.own, self.other = nn.Parameter(torch.tensor(own)), other

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        text = cond.parts["caption"]
        value = text + torch.where(text == OWN, self.own, torch.full_like(text, self.other))
        return value.view(-1, 1, 1, 1).expand_as(x)


def velocity(modules: Modules) -> Any:
    return lambda x, t, cond, state: (modules["velocity"](x, cond), state)


def score(modules: Modules, config: Any, space: Space, batch: Batch, rng: Rng) -> Tensor:
    """The error is that of the velocity from 9."""
    return -(modules["velocity"](batch.x, batch.cond) - 9.0).square().flatten(1).mean(1)


def told(texts: tuple[float, ...]) -> Cond:
    return Cond(len(texts), {"caption": torch.tensor(texts)}, {"caption": torch.ones(len(texts), dtype=torch.bool)})


def comparison() -> BaseComparison:
    flow = registry.family("flow")
    assert flow.likelihood is not None
    family = replace(flow, likelihood=replace(flow.likelihood, score=score), velocity=velocity)
    heldout = Examples(torch.zeros(3, 1, 2, 2), told((OWN,) * 3))
    return BaseComparison(family, None, SPACE, heldout, told(OTHERS))


def after(own: float, other: float) -> dict[str, float]:
    about = comparison()
    about.measure({"velocity": Shift()})
    return about.measure({"velocity": Shift(own, other)})


def test_the_base_itself_has_changed_nothing() -> None:
    found = after(0.0, 0.0)
    assert found == {LOSS: 16.0, GAIN: 0.0, GAIN_ERROR: 0.0, DRIFT: 0.0}


def test_what_is_learnt_for_its_text_alone_is_gain_without_drift() -> None:
    found = after(2.0, 0.0)
    assert found[GAIN] == pytest.approx(1 - 4 / 16) and found[DRIFT] == 0


def test_what_is_learnt_for_every_text_drifts() -> None:
    found = after(2.0, 2.0)
    apart = ((1**2 * 3 + 3**2) / 4) ** 0.5  # of the texts 1, 2, 3, 4 from the one before each
    assert found[DRIFT] == pytest.approx(2 / apart)


def test_what_the_base_answered_is_read_again(tmp_path: Path) -> None:
    first, second = comparison(), comparison()
    first.measure({"velocity": Shift()})
    assert read_answers(tmp_path) is None and first.base is not None
    write_answers(tmp_path, first.base)
    second.base = read_answers(tmp_path)
    taught = {"velocity": Shift(1.0, 0.5)}
    assert first.measure(taught) == second.measure(taught)


def test_other_texts_are_captions_without_the_trigger_and_usual_ones() -> None:
    captions = ["sks dog on a beach", "SKS, a dog", "sks"]
    assert other_texts(captions, "sks", None) == ["dog on a beach", "a dog", *USUAL][:MOST]
    assert other_texts(captions, None, None) == list(USUAL)[:MOST]
    assert other_texts(captions, "sks", "a cat; a cow ;") == ["a cat", "a cow"]


def scores(gain: float, drift: float = 0.1, copies: float = 0.0) -> dict[str, Score]:
    found = {GAIN: Score(GAIN, gain, gain - 0.02, gain + 0.02, 3, "higher", control=0.0)}
    for name, value in ((DRIFT, drift), ("near_copies", copies)):
        found[name] = Score(name, value, None, None, 3, "lower")
    return found


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (scores(-0.01), "unchanged"),
        (scores(0.3, copies=0.5), "memorised"),
        (scores(0.3), "cannot tell"),
    ],
)
def test_the_verdict_follows_from_gain_and_copies(given: dict[str, Score], word: str) -> None:
    judged = judge_taught(given, "images")
    assert judged is not None and judged[0] == word


def test_images_that_were_not_taught_to_a_base_are_judged_otherwise() -> None:
    assert judge_taught({}, "images") is None
