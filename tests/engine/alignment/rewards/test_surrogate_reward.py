"""The reward of a table of measured values: read, cautious, and least for what is not valid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from afresh.core import UserError
from afresh.data.text.kind import TEXT
from afresh.domains.molecule.kind import MOLECULE
from afresh.engine.alignment.rewards.reward import Context, checked
from afresh.engine.alignment.rewards.reward_expression import build
from afresh.engine.alignment.rewards.reward_paths import anchored, check_words, files_in

CHAINS = [f"{'C' * n}{end}" for n in range(1, 9) for end in ("O", "N", "F")]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "results.csv"
    path.write_text("smiles,logS\n" + "".join(f"{s},{-len(s) / 2}\n" for s in CHAINS))
    return path


def rewards(words: str, items: list[str]) -> np.ndarray:
    return checked(build(words, Context(MOLECULE)), items, [{}] * len(items))


def test_expected_values_are_rewarded_with_caution(table: Path) -> None:
    found = rewards(f"surrogate:{table}:logS", ["CO", "CCCCCCO", "c1ccc", ""])
    assert found[0] > found[1] > found[2] == found[3] and found[0] == pytest.approx(-1, abs=0.5)
    assert np.all(rewards(f"surrogate:{table}", ["CO", "CCCCCCO"]) == found[:2])
    bold = rewards(f"surrogate:{table}:logS:caution=0", ["CO", "c1ccc2[nH]ccc2c1"])
    careful = rewards(f"surrogate:{table}:logS:caution=2", ["CO", "c1ccc2[nH]ccc2c1"])
    assert np.all(bold > careful) and bold[1] - careful[1] > bold[0] - careful[0]
    low = rewards(f"surrogate:{table}:logS:goal=minimise", ["CO", "CCCCCCO", "c1ccc"])
    near = rewards(f"surrogate:{table}:logS:goal=-2.5,caution=0", ["CO", "CCCCO", "CCCCCCCCO"])
    assert low[1] > low[0] > low[2] and near.argmax() == 1


def test_texts_are_learnt_too(tmp_path: Path) -> None:
    path = tmp_path / "liked.csv"
    texts = [f"{'good ' * a}{'bad ' * b}day" for a in range(5) for b in range(5)]
    path.write_text("text,liked\n" + "".join(f"{t},{t.count('good') - t.count('bad')}\n" for t in texts))
    reward = build(f"2*surrogate:{path}", Context(TEXT))
    assert np.diff(checked(reward, ["bad bad day", "day", "good good day"], [{}] * 3)).min() > 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("surrogate", "needs a table"),
        ("surrogate:{}:logP", "No column 'logP'"),
        ("surrogate:{}:logS:goal=up", "maximise, minimise"),
        ("surrogate:{}:logS:mode=up", "does not accept"),
        ("surrogate:gone.csv", "does not exist"),
    ],
)
def test_wrong_words_are_refused(words: str, why: str, table: Path) -> None:
    with pytest.raises(UserError, match=why):
        build(words.format(table), Context(MOLECULE))


def test_the_table_is_a_file_of_the_words(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(table.parent)
    assert str(table) in anchored("surrogate:results.csv:logS") and anchored("surrogate:results.csv:logS").count("logS")
    assert files_in("surrogate:results.csv:logS") == [Path("results.csv")]
    with pytest.raises(UserError, match="only in words"):
        check_words("surrogate:results.csv:logS")
