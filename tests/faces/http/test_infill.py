"""POST /infill, as the editors that llama.cpp's server is made for send it (llama.vim, llama.vscode)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from afresh.faces.http.app import ServeSettings
from afresh.faces.http.protocols.llama_cpp import infill
from afresh.faces.http.protocols.llama_cpp.infill import Clock, indented
from tests.faces.http.conftest import serving

HERE = {"input_prefix": "def add(a, b):\n", "input_suffix": "\n    return total\n", "prompt": "    total"}
# What llama.vim sends at every key, and while nobody types.
VIM = {
    **HERE,
    "id_slot": 0,
    "input_extra": [
        {"text": "def add(a, b):\n    total = a\n", "time": [1, 2], "filename": "b.py"},
        {"text": "    return total\n", "time": [1, 3], "filename": "b.py"},
    ],
    "n_predict": 256,
    "n_indent": 4,
    "top_k": 40,
    "top_p": 0.99,
    "stream": False,
    "samplers": ["top_k", "top_p", "infill"],
    "stop": [],
    "cache_prompt": True,
    "t_max_prompt_ms": 500,
    "t_max_predict_ms": 60_000,
    "response_fields": ["content", "timings/prompt_n", "timings/predicted_per_second", "truncated", "tokens_cached"],
    "model": "",
}
IDLE = {"input_prefix": "", "input_suffix": "", "input_extra": VIM["input_extra"], "prompt": "", "n_predict": 0}
IDLE |= {"temperature": 0.0, "stream": False, "samplers": [], "t_max_predict_ms": 1, "response_fields": [""]}


@pytest.fixture(scope="module")
def editor(code: Path, runs: Path) -> Iterator[httpx.Client]:
    """A client of a server on which one run fills in the middle."""
    server = serving(ServeSettings([code, runs], memory=2**30))
    with httpx.Client(base_url=next(server), timeout=60) as client:
        yield client
    next(server, None)


def ask(editor: httpx.Client, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = editor.post("/infill", json={**HERE, "seed": 1, **more}).raise_for_status().json()
    return made


def test_what_an_editor_sends_is_answered(editor: httpx.Client) -> None:
    made = editor.post("/infill", json=VIM).raise_for_status().json()
    assert list(made) == VIM["response_fields"] and made["truncated"] is False and made["timings/prompt_n"] > 40
    assert editor.post("/infill", json=IDLE).raise_for_status().json() == {}


def test_the_text_is_that_of_openais_completions(editor: httpx.Client) -> None:
    more = {"temperature": 0.8, "top_k": 5, "frequency_penalty": 0.5, "logit_bias": {"20": 1.5}}
    asked = {"model": "code", "prompt": HERE["input_prefix"] + HERE["prompt"], "suffix": HERE["input_suffix"]}
    theirs = editor.post("/v1/completions", json={**asked, **more, "seed": 1, "max_tokens": 20}).json()
    made = ask(editor, **more | {"logit_bias": [[20, 1.5]]}, n_predict=20)
    assert made["content"] == theirs["choices"][0]["text"]
    counts = theirs["usage"]["prompt_tokens"], theirs["usage"]["completion_tokens"]
    assert (made["tokens_evaluated"], made["tokens_predicted"]) == counts
    assert (made["timings"]["prompt_n"], made["timings"]["predicted_n"]) == counts
    assert made["model"] == "code" and made["generation_settings"]["n_ctx"] == 128


def test_a_stream_is_a_piece_and_the_rest(editor: httpx.Client) -> None:
    whole = ask(editor)
    answer = editor.post("/infill", json={**HERE, "seed": 1, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    first, last = (json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: "))
    assert (first["content"], first["stop"], last["content"], last["stop"]) == (whole["content"], False, "", True)
    assert last["stop_type"] == whole["stop_type"] and last["tokens_predicted"] == whole["tokens_predicted"]


def test_samplers_that_are_left_out_do_not_apply(editor: httpx.Client) -> None:
    plain = ask(editor)
    assert ask(editor, samplers=["temperature"], top_k=1)["content"] == plain["content"]
    assert ask(editor, samplers=["top_k"], temperature=0)["content"] == plain["content"]
    assert ask(editor, samplers=["top_k"], top_k=1)["content"] == ask(editor, temperature=0)["content"]


def test_texts_match_and_stop(editor: httpx.Client) -> None:
    made = ask(editor, json_schema={"enum": ["ab"]})
    assert (made["content"], made["stop_type"]) == ('"ab"', "eos")
    assert re.fullmatch("[ab]{3}", ask(editor, grammar="root ::= [ab] [ab] [ab]")["content"])
    made = ask(editor, afresh={"regex": "a = bc"}, stop=["b"])
    assert (made["content"], made["stop_type"], made["stopping_word"]) == ("a = ", "word", "b")
    assert "a" not in ask(editor, logit_bias=[[20, False]], n_predict=30, seed=2)["content"]


def test_the_beginning_of_the_text_follows_the_prefix(editor: httpx.Client) -> None:
    one = ask(editor)
    other = ask(editor, input_prefix=HERE["input_prefix"] + HERE["prompt"], prompt="")
    assert one["content"] == other["content"] and one["prompt"] == other["prompt"]


def test_a_text_ends_before_a_line_that_is_indented_less() -> None:
    text = " = a\n    b\n\n      c\n  d\n    e"
    assert indented(text, 4) == " = a\n    b\n\n      c"
    assert indented(text, 0) == indented(text, 2) == text
    assert indented("\td\ne", 1) == "\td"


def test_a_text_ends_when_its_time_is_up_once_it_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 1.5, 9.0, 9.5, 10.0])
    monkeypatch.setattr(infill, "time", SimpleNamespace(monotonic=lambda: next(now)))
    clock = Clock([b"a", b"\n"], 2.0)
    assert [clock.watch(0, token, 0.0, ()) for token in (0, 0, 0, 1)] == [False, False, False, True]
    timings = clock.timings(10, 4)
    assert (timings["prompt_ms"], timings["predicted_ms"], timings["predicted_n"]) == (1000.0, 9000.0, 4)


REFUSED = {
    "penalty": ({"repeat_penalty": 1.1}, "Use frequency_penalty"),
    "window": ({"repeat_last_n": 64, "presence_penalty": 1}, "Leave repeat_last_n out"),
    "probabilities": ({"n_probs": 3}, "its tokens are not told"),
    "adapters": ({"lora": [{"id": 0, "scale": 1}]}, "RUN:NAME"),
    "unknown": ({"frobnicate": 1}, "not known here"),
    "another kind": ({"model": "digits"}, "makes images, not texts"),
    "conversations": ({"model": "chat", "input_suffix": ""}, "makes conversations"),
    "no suffix": ({"model": "stories"}, "without fill-in-the-middle"),
    "too much": ({"input_extra": [{"text": "a" * 4_000_001, "filename": "a"}]}, "at most 4,000,000 are read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_in_its_form(editor: httpx.Client, name: str) -> None:
    change, message = REFUSED[name]
    answer = editor.post("/infill", json={**HERE, **change})
    error = answer.json()["error"]
    assert answer.status_code == error["code"] == 400 and message in error["message"]
    assert error["type"] == "invalid_request_error"


def test_values_that_change_nothing_are_taken(editor: httpx.Client) -> None:
    off = {"repeat_penalty": 1.0, "repeat_last_n": 64, "typical_p": 1.0, "mirostat": 0, "n_probs": 0, "lora": []}
    off |= {"dry_multiplier": 0.0, "xtc_probability": 0.0, "min_keep": 0, "ignore_eos": False, "return_tokens": False}
    assert ask(editor, **off)["content"] == ask(editor)["content"]


def test_a_model_is_named_where_none_or_several_fill_in(runs: Path) -> None:
    server = serving(ServeSettings([runs], memory=2**30))
    answer = httpx.post(f"{next(server)}/infill", json=HERE)
    assert answer.status_code == 400 and "Name the run that is asked as `model`" in answer.json()["error"]["message"]
    assert httpx.post(f"{answer.url}", json={**HERE, "model": "tales"}).json()["error"]["code"] == 404
    next(server, None)
