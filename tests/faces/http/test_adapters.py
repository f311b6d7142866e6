"""Adapters of persons over one base: apart from each other, behind their own key, gone as soon as they are removed."""

from __future__ import annotations

import gc
import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import afresh
from afresh.core import UserError
from afresh.engine.sampling.request import Request
from afresh.faces.http.app import ServeSettings
from afresh.faces.http.keys import Keys
from afresh.faces.http.loaded_runs import Library, asking
from afresh.faces.http.rights import Holder
from afresh.runs.deletion import delete_adapter
from afresh.runs.run import Run
from tests.faces.http.conftest import serving

PERSONS = ("anna", "ben")
KEYS = {"a-key-of-annas-own": "anna", "a-key-of-bens-own": "ben"}


@pytest.fixture(scope="module")
def bases(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs `stories` and `digits`, each with an adapter of anna and of ben."""
    folder = tmp_path_factory.mktemp("persons") / "runs"
    for name, data in (("stories", "stories.txt"), ("digits", "digits")):
        shutil.copytree(runs / name, folder / name)
        for seed, person in enumerate(PERSONS, 1):
            tuned(folder / name, runs.parent / "runs-data" / data, person, seed)
    return folder


def tuned(base: Path, data: Path, person: str, seed: int) -> None:
    small = {"train.batch": 8, "train.precision": "float32"}
    afresh.tune(base, data, adapter=person, steps=4, rank=2, lr=0.05, seed=seed, settings=small, quiet=True)


@pytest.fixture
def folder(bases: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(bases, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def client(bases: Path) -> Iterator[httpx.Client]:
    server = serving(ServeSettings([bases], memory=2**30))
    with httpx.Client(base_url=next(server), timeout=60) as client:
        yield client
    next(server, None)


def texts(client: httpx.Client, model: str, seed: int = 1, key: str = "none") -> list[str]:
    headers = {"authorization": f"Bearer {key}"}
    asked = {"model": model, "prompt": "Once", "max_tokens": 30, "seed": seed, "n": 3}
    answer = client.post("/v1/completions", json=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    return [c["text"] for c in answer.json()["choices"]]


def images(client: httpx.Client, model: str) -> list[Any]:
    asked = {"model": model, "n": 2, "seed": 3, "settings": {"steps": 4}}
    answer = client.post("/afresh/v1/samples", json=asked)
    assert answer.status_code == 200, answer.text
    return [{k: v for k, v in s.items() if k != "id"} for s in answer.json()["samples"]]


def test_an_adapter_is_a_model_of_the_server(client: httpx.Client, bases: Path) -> None:
    names = [m["id"] for m in client.get("/v1/models").json()["data"]]
    assert names == ["digits", "digits:anna", "digits:ben", "stories", "stories:anna", "stories:ben"]
    shown = client.get("/v1/models/stories:anna").json()
    assert shown["parent"] == "stories" and client.get("/v1/models/stories").json()["parent"] is None
    own = list(afresh.load(bases / "stories" / "adapters" / "anna").sample(3, prompt="Once", length=30, seed=1))
    assert texts(client, "stories:anna") == own != texts(client, "stories") != texts(client, "stories:ben")


@pytest.mark.parametrize("model", ["stories:eve", "stories:../anna", "stories:", "stories:anna:ben", "eve:anna"])
def test_one_that_is_not_there(client: httpx.Client, model: str) -> None:
    answer = client.post("/v1/completions", json={"model": model, "prompt": "Once"})
    error = answer.json()["error"]
    assert answer.status_code == 404 and error["code"] == "model_not_found" and error["param"] == "model"


def test_what_one_gets_does_not_depend_on_the_others(client: httpx.Client) -> None:
    models = ["stories:anna", "stories:ben", "stories"]
    alone = {m: [texts(client, m, seed) for seed in range(4)] for m in models}
    with ThreadPoolExecutor(12) as pool:
        asked = [(m, seed) for seed in range(4) for m in models] * 3
        together = list(pool.map(lambda a: (a, texts(client, *a)), asked))
    assert all(made == alone[m][seed] for (m, seed), made in together), "bit for bit the same tokens"


def test_images_of_one_are_not_those_of_another(client: httpx.Client) -> None:
    models = ["digits:anna", "digits:ben", "digits"]
    alone = {m: images(client, m) for m in models}
    assert alone["digits:anna"] != alone["digits:ben"] != alone["digits"]
    with ThreadPoolExecutor(3) as pool:  # one request of each: every batch is the one that it is alone
        for _ in range(3):
            assert dict(zip(models, pool.map(lambda m: images(client, m), models), strict=True)) == alone


# ------------------------------------------------------------------------------------------------------------- access


@pytest.fixture(scope="module")
def keyed(bases: Path) -> Iterator[httpx.Client]:
    server = serving(ServeSettings([bases], memory=2**30, keys=Keys({key: Holder(name) for key, name in KEYS.items()})))
    with httpx.Client(base_url=next(server), timeout=60) as client:
        yield client
    next(server, None)


@pytest.mark.parametrize(
    ("key", "person", "other"), [(k, p, "ben" if p == "anna" else "anna") for k, p in KEYS.items()]
)
def test_nobody_reaches_the_adapter_of_another(keyed: httpx.Client, key: str, person: str, other: str) -> None:
    headers = {"authorization": f"Bearer {key}"}
    texts(keyed, f"stories:{other}", key=next(k for k, p in KEYS.items() if p == other))  # it is held from here on
    assert texts(keyed, f"stories:{person}", key=key) and texts(keyed, "stories", key=key)
    theirs = f"stories:{other}"
    asked = {"model": theirs, "prompt": "Once"}
    mixed = {"model": "stories", "prompt": "Once", "adapters": {theirs: 1.0}}
    refused = [
        keyed.post("/v1/completions", headers=headers, json=asked),
        keyed.post("/v1/completions", headers=headers, json={**asked, "stream": True}),
        keyed.post("/afresh/v1/samples", headers=headers, json=mixed),
        keyed.get(f"/v1/models/{theirs}", headers=headers),
        keyed.get(f"/afresh/v1/runs/{theirs}", headers=headers),
    ]
    assert [r.status_code for r in refused] == [404] * 5, [r.text for r in refused]
    for path in ("/v1/models", "/afresh/v1/runs", "/metrics"):
        shown = keyed.get(path, headers=headers).text
        assert theirs not in shown and f"stories:{person}" in shown


# ------------------------------------------------------------------------------------------------------------- memory


def test_the_base_is_held_once_and_adapters_beside_it(bases: Path) -> None:
    library = Library([bases], memory=2**30)
    held = [library.acquire(f"stories:{p}") for p in PERSONS]
    base = library.held["stories"]
    assert held[0].base is held[1].base is base and held[0].lane is base.lane
    assert all(0 < served.bytes < base.bytes / 2 for served in held)
    with pytest.raises(UserError, match="in use"):
        library.forget("stories")
    library.close()


def test_the_adapter_that_was_unused_for_longest_is_forgotten(bases: Path) -> None:
    library = Library([bases], memory=2**30)
    first = library.acquire("stories:anna")
    library.release(first)
    library.memory = sum(s.bytes for s in library.held.values())
    library.release(library.acquire("stories:ben"))
    assert list(library.held) == ["stories", "stories:ben"]
    library.release(library.acquire("stories:anna"))
    assert list(library.held) == ["stories", "stories:anna"]
    library.release(library.acquire("digits"))
    assert list(library.held) == ["digits"], "the base goes with its adapters"
    library.close()


def test_forgotten_weights_are_freed_at_once(bases: Path) -> None:
    """Without a collection of garbage: nothing that holds them is part of a cycle, also after they have drawn."""
    library = Library([bases], memory=2**30)
    gc.disable()
    try:
        for name in ("digits", "stories"):
            served = library.acquire(name)
            cond = served.run.condition(2, Request(), 0)[0]
            served.run.draw(served.run.modules, cond, 0, served.run.settings({}))
            weights = weakref.ref(next(p for m in served.run.modules.values() for p in m.parameters()))
            library.release(served)
            del served
            library.forget(name)
            assert weights() is None, name
    finally:
        gc.enable()
        library.close()


# ------------------------------------------------------------------------------------------------- added and removed


def test_adapters_come_and_go_while_it_serves(folder: Path, runs: Path) -> None:
    server = serving(ServeSettings([folder], memory=2**30))
    with httpx.Client(base_url=next(server), timeout=60) as client:
        before = texts(client, "stories:ben")
        tuned(folder / "stories", runs.parent / "runs-data" / "stories.txt", "eve", 3)
        assert texts(client, "stories:eve") != before
        delete_adapter(Run.open(folder / "stories" / "adapters" / "eve"))
        assert client.post("/v1/completions", json={"model": "stories:eve", "prompt": "x"}).status_code == 404
        assert texts(client, "stories:ben") == before
        shutil.rmtree(folder / "stories" / "adapters" / "ben")
        until = time.monotonic() + 30
        while "stories:ben" in client.get("/metrics").text:  # nobody asks for it
            assert time.monotonic() < until
            time.sleep(0.05)
    next(server, None)


def test_one_that_takes_the_name_of_another_is_not_the_other(folder: Path, runs: Path) -> None:
    library = Library([folder], memory=2**30)
    old = library.acquire("stories:anna")
    delete_adapter(Run.open(old.run.path))
    tuned(folder / "stories", runs.parent / "runs-data" / "stories.txt", "anna", 9)
    new = library.acquire("stories:anna")
    assert old.dropped and new is not old and new.version == old.version
    library.close()


def test_what_is_being_drawn_ends_when_its_adapter_is_removed(folder: Path) -> None:
    library = Library([folder], memory=2**30)
    anna, ben = library.acquire("stories:anna"), library.acquire("stories:ben")
    outcome: dict[str, Any] = {}
    begun, removed = threading.Event(), threading.Event()

    def draw(name: str, run: Run) -> None:
        def watch(*token: Any) -> bool:
            if name == "stories:anna":
                begun.set()
                removed.wait(30)  # neither draws on meanwhile: both have one lane
            return False

        settings = run.settings({"length": 200}).model_copy(update={"watch": watch})
        cond = run.condition(1, afresh.engine.sampling.request.Request(prompt="Once"), 0)[0]
        try:
            outcome[name] = run.draw(run.modules, cond, 0, settings)
        except UserError as error:
            outcome[name] = error

    threads = [threading.Thread(target=draw, args=(s.name, s.run)) for s in (anna, ben)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    shutil.rmtree(anna.run.path)
    library.prune()
    removed.set()
    for thread in threads:
        thread.join(60)
    assert isinstance(outcome["stories:anna"], UserError) and outcome["stories:anna"].code == "model_not_found"
    assert not isinstance(outcome["stories:ben"], Exception)
    library.close()


def test_a_server_is_given_bases(bases: Path) -> None:
    with pytest.raises(UserError, match="Give the run that it is of"):
        Library([bases / "stories" / "adapters" / "anna"], memory=2**30)
    library = Library([bases / "stories" / "adapters"], memory=2**30)
    assert library.paths() == {}
    library = Library([bases], memory=2**30)
    token = asking.set("eve")
    assert list(library.paths()) == ["digits", "stories"]
    asking.reset(token)
