"""Recommendations over HTTP: those of Python, for histories that are sent, and errors that teach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import afresh
from afresh.serve.app import ServeSettings
from tests.serve.conftest import serving


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shops")
    events = [f"u{u},i{(u + e) % 9},{1_700_000_000 + 1000 * e + u}" for u in range(40) for e in range(6)]
    (folder / "log.csv").write_text("\n".join(["user,item,time", *events, ""]))
    settings = {f"family.{k}": v for k, v in {"width": 16, "layers": 1, "heads": 1, "kv_heads": 1}.items()}
    afresh.train(folder / "log.csv", steps=30, out=folder / "runs" / "shop", settings=settings)
    return folder / "runs"


@pytest.fixture(scope="module")
def address(shop: Path) -> Iterator[str]:
    yield from serving(ServeSettings([shop], memory=2**30))


def ask(address: str, **form: Any) -> httpx.Response:
    return httpx.post(f"{address}/afresh/v1/recommend", json={"model": "shop", **form}, timeout=60)


def test_lists_are_those_of_python(shop: Path, address: str) -> None:
    model = afresh.load(shop / "shop")
    histories = [["i1", "i2"], [], ["i5"]]
    own = model.recommend(histories=histories, k=4, because=1)
    made = ask(address, histories=histories, k=4, because=1).json()["lists"]
    assert [[r["item"] for r in found] for found in made] == [[r.item for r in found] for found in own]
    for found, mine in zip(made, own, strict=True):
        assert [r["probability"] for r in found] == pytest.approx([r.probability for r in mine], abs=1e-5)
    alone = ask(address, history=["i1", "i2"], k=4).json()["lists"]
    assert [r["item"] for r in alone[0]] == [r["item"] for r in made[0]]


def test_the_same_seed_explores_alike_and_says_how_likely_it_was(address: str) -> None:
    first, second, other = (ask(address, history=["i1"], explore=3, seed=s).json() for s in (1, 1, 2))
    assert first == second and first["lists"] != other["lists"]
    assert all(0 < r["drawn"] <= 1 for r in first["lists"][0])


def test_sequences_and_sessions_are_those_of_python(shop: Path, address: str) -> None:
    own = afresh.load(shop / "shop").recommend(sessions=[["i1", "i2"]], k=3, playlist=True)[0]
    for form in ({"session": ["i1", "i2"]}, {"history": ["i1"], "session": ["i2"]}):
        made = ask(address, k=3, playlist=True, **form).json()["lists"][0]
        assert [r["item"] for r in made] == [r.item for r in own]


@pytest.mark.parametrize(
    ("form", "status", "said"),
    [
        ({}, 400, "Say for whom"),
        ({"history": ["i1"], "where": {"colour": "red"}}, 400, "no feature 'colour'"),
        ({"history": ["i1"], "only": ["nothing"]}, 400, "No item of the catalogue fits"),
        ({"history": ["i1"], "k": 0}, 400, "k"),
        ({"history": ["i1"], "share": 0.5}, 400, "Add `playlist`"),
        ({"history": ["i1"], "playlist": True, "total": {"price": 9}}, 400, "Columns of numbers: none"),
        ({"history": ["i1"], "colour": 1}, 400, "colour"),
        ({"model": "none", "history": []}, 404, "none"),
    ],
)
def test_wrong_requests_say_what_is_wrong(address: str, form: dict[str, Any], status: int, said: str) -> None:
    answer = ask(address, **form)
    assert answer.status_code == status and said in answer.text
