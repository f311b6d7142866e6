"""Settings of sampling have the same words everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from afresh.engine.sampling.setting_words import WORDS
from afresh.faces.http.requests.forms import Conditions
from afresh.faces.studio.controls import SETTINGS

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("name", ["guidance", "temperature", "truncation", "top_p", "min_p"])
def test_the_page_the_shell_and_the_documentation_use_the_same_words(name: str) -> None:
    assert name in SETTINGS and WORDS[name].term.lower().replace("-", "_") == name
    pages = ["concepts.md", *(["reference/cli.md"] if name in ("guidance", "temperature") else [])]  # others: --set
    for page in pages:  # which are written from the program
        assert WORDS[name].help in (DOCS / page).read_text(encoding="utf-8")


def test_every_setting_of_the_page_has_words() -> None:
    assert set(SETTINGS) <= set(WORDS)
    assert Conditions.model_fields["guidance"].description == WORDS["guidance"].help
