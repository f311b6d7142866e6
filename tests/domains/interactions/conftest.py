"""Runs on one log, which no test changes but for what recommending keeps in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from afresh.domains.interactions.recommend import Recommender
from afresh.runs.run import Run
from tests.domains.interactions.shop import shop


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def masked_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shop(tmp_path_factory.mktemp("shop"), family="masked")


@pytest.fixture(scope="session")
def recommender(run: Path) -> Recommender:
    return Recommender(Run.open(run))
