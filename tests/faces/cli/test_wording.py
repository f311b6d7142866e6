"""Messages of the package as a person types them."""

from __future__ import annotations

import pytest

from afresh.faces.cli import option_names
from afresh.faces.cli.wording import as_typed


@pytest.mark.parametrize(
    ("written", "typed"),
    [
        ("Leave `guidance` out.", "Leave --guidance out."),
        ("Add `guidance=2`.", "Add --guidance 2."),
        ("Try `train.lr=0.001` or `family.width=64`.", "Try --set train.lr=0.001 or --set family.width=64."),
        ("Read `data.size=32`.", "Read --data size=32."),
        ("`data.context`", "--data context"),
        ("`n=1`", "-n 1"),
        ("`force=True`", "--force"),
        ("`lora=False`", "--full"),
        ("`best_of=8`", "--best-of 8"),
        ('`label="cat"`', "--label cat"),
        ('Resume: `afresh.resume("runs/my run")`.', "Resume: afresh train --resume 'runs/my run'."),
        ("`afresh.train(PATH, minutes=10)`", "afresh train PATH --minutes 10"),
        ('`afresh.train(DATA, family="flow", data={"size": 32})`', "afresh train DATA --family flow --data size=32"),
        ("`model.measure()`", "afresh measure RUN"),
        ('`model.align(reward="length")`', "afresh align RUN --reward length"),
        ("`run.json` and `nothing` and `a b` stay", "`run.json` and `nothing` and `a b` stay"),
        ("no code at all", "no code at all"),
        ("a lone ` stays", "a lone ` stays"),
    ],
)
def test_code_becomes_what_is_typed(written: str, typed: str) -> None:
    assert as_typed(written, option_names()) == typed
