"""Ollama's API: its own client, and what editors send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

import afresh
from afresh.data.text.tool_calls import Call
from tests import needs

SAY = [{"role": "user", "content": "Say 3?"}]
OPTIONS = {"seed": 4, "num_predict": 12}
# What editors send with every request, whatever they ask.
USUAL = {"num_ctx": 4096, "num_keep": 5, "num_gpu": 1, "num_thread": 8, "use_mmap": True, "repeat_penalty": 1.0}
WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}


def post(writers: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    made: dict[str, Any] = writers.post(path, json={"stream": False, **body}).raise_for_status().json()
    return made


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_texts_and_answers_are_the_samples_of_the_run(writers: httpx.Client, runs: Path) -> None:
    text = post(writers, "/api/generate", model="stories:latest", prompt="Once", options=OPTIONS | USUAL)
    assert text["response"] == afresh.load(runs / "stories").sample(1, prompt="Once", length=12, seed=4)[0]
    own = afresh.load(runs / "chat").sample(1, prompt="Say 3?", length=12, seed=4)[0]
    assert post(writers, "/api/generate", model="chat", prompt="Say 3?", options=OPTIONS)["response"] == own
    answer = post(writers, "/api/chat", model="chat", messages=SAY, options=OPTIONS)
    assert answer["message"] == {"role": "assistant", "content": own} and answer["done"] is True
    assert answer["prompt_eval_count"] > 6 and 0 < answer["eval_count"] <= 12
    parts = sum(answer[f"{name}_duration"] for name in ("load", "prompt_eval", "eval"))
    assert answer["total_duration"] == parts > 0


def test_instructions_are_a_part_of_the_conversation(writers: httpx.Client) -> None:
    made = post(writers, "/api/generate", model="chat", prompt="Say 3?", system="Be brief.", options=OPTIONS)
    turns = [{"role": "system", "content": "Be brief."}, *SAY]
    chat = post(writers, "/api/chat", model="chat", messages=turns, options=OPTIONS)
    assert made["response"] == chat["message"]["content"]
    raw = post(writers, "/api/generate", model="chat", prompt="Say 3?", raw=True, options=OPTIONS)
    assert raw["prompt_eval_count"] < made["prompt_eval_count"]


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_a_stream_of_lines_is_the_whole(writers: httpx.Client, path: str) -> None:
    asked = {"model": "chat", "options": OPTIONS, "logprobs": True, "top_logprobs": 2}
    asked |= {"messages": SAY} if path == "/api/chat" else {"prompt": "Say 3?"}
    whole, parts = post(writers, path, **asked), lines(writers.post(path, json=asked))
    said = [p["message"]["content"] if path == "/api/chat" else p["response"] for p in parts]
    assert "".join(said) == (whole["message"]["content"] if path == "/api/chat" else whole["response"])
    assert [p["done"] for p in parts] == [False] * (len(parts) - 1) + [True]
    scores = [row["logprob"] for p in parts for row in p.get("logprobs", ())]
    assert scores == [row["logprob"] for row in whole["logprobs"]]
    assert len(whole["logprobs"]) == whole["eval_count"] and len(whole["logprobs"][0]["top_logprobs"]) == 2
    same = ("done_reason", "prompt_eval_count", "eval_count", "model")
    assert {k: parts[-1][k] for k in same} == {k: whole[k] for k in same}


def test_options_are_followed(writers: httpx.Client) -> None:
    def text(**options: Any) -> str:
        asked = {"model": "stories", "prompt": "Once", "options": OPTIONS | options}
        return str(post(writers, "/api/generate", **asked)["response"])

    likeliest = text(temperature=0)
    assert text(top_k=1) == text(top_p=0.01) == text(min_p=1.0) == likeliest != text()
    assert text(stop=[likeliest[3]], temperature=0) == likeliest[: likeliest.index(likeliest[3])]
    assert text(frequency_penalty=2.0, temperature=0) != likeliest or len(set(likeliest)) == len(likeliest)
    assert text(seed=5) != text()


@pytest.mark.parametrize("stream", [False, True])
def test_json_follows_its_schema(writers: httpx.Client, stream: bool) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    options = {"seed": 1, "num_predict": 30}
    asked = {"model": "chat", "messages": SAY, "options": options, "stream": stream}
    for form in (schema, "json"):
        answer = writers.post("/api/chat", json={**asked, "format": form}).raise_for_status()
        parts = lines(answer) if stream else [answer.json()]
        value = json.loads("".join(p["message"]["content"] for p in parts))
        assert value["a"] in (1, 2) if form == schema else isinstance(value, dict)
        assert parts[-1]["done_reason"] == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_a_suffix_is_filled_in(writers: httpx.Client, stream: bool) -> None:
    around = {"model": "code", "prompt": "def add(a, b):\n    total", "suffix": "\n    return total"}
    theirs = writers.post("/v1/completions", json={**around, "seed": 4, "max_tokens": 12}).json()
    answer = writers.post("/api/generate", json={**around, "options": OPTIONS, "stream": stream}).raise_for_status()
    parts = lines(answer) if stream else [answer.json()]
    assert "".join(p["response"] for p in parts) == theirs["choices"][0]["text"]
    assert parts[-1]["eval_count"] == theirs["usage"]["completion_tokens"]


@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_called_and_their_results_read(writers: httpx.Client, stream: bool) -> None:
    tools = [{"type": "function", "function": WEATHER}]
    call = {"function": {"name": "weather", "arguments": {"city": "Rome"}}}
    said = Call("weather", {"city": "Rome"}).text
    asked = {"model": "tools", "messages": SAY, "tools": tools, "stream": stream, "options": {"num_predict": 200}}
    pattern = {"regex": said.replace("{", "[{]").replace("}", "[}]")}
    answer = writers.post("/api/chat", json={**asked, "afresh": pattern}).raise_for_status()
    parts = lines(answer) if stream else [answer.json()]
    assert [c for p in parts for c in p["message"].get("tool_calls", ())] == [call]
    assert parts[-1]["done_reason"] == "stop"
    earlier = {"role": "assistant", "content": "", "tool_calls": [call, call]}
    results = [{"role": "tool", "tool_name": "weather", "content": text} for text in ("11", "12")]
    short = {"model": "tools", "tools": tools, "options": {"num_predict": 2}}
    assert post(writers, "/api/chat", messages=[*SAY, earlier, *results], **short)["prompt_eval_count"] > 100
    for many in ([*results, results[0]], [{"role": "tool", "tool_name": "other", "content": "1"}]):
        refused = writers.post("/api/chat", json={**short, "messages": [*SAY, earlier, *many]})
        assert refused.status_code == 400 and "belongs to a call in an earlier message" in refused.json()["error"]


def test_the_runs_that_write_texts_are_listed_and_shown(writers: httpx.Client) -> None:
    models = {m["name"]: m for m in writers.get("/api/tags").json()["models"]}
    assert set(models) == {"stories", "chat", "code", "tools"} and len({m["digest"] for m in models.values()}) == 4
    assert {n: m["capabilities"][1:] for n, m in models.items()} == {
        "stories": [],
        "chat": [],
        "code": ["insert"],
        "tools": ["tools"],
    }
    assert all(m["size"] > 10_000 and m["details"]["parameter_size"].endswith("K") for m in models.values())
    for asked in ({"model": "chat:latest"}, {"name": "chat"}):
        about = writers.post("/api/show", json=asked).raise_for_status().json()
        assert about["model_info"]["transformer.context_length"] == 96 and "im_start" in about["template"]
    assert writers.post("/api/show", json={"model": "digits"}).status_code == 400
    assert writers.post("/api/show", json={"model": "tales"}).status_code == 404
    version = writers.get("/api/version").json()
    assert tuple(map(int, version["version"].split("."))) >= (0, 6, 4) and version["afresh"] == afresh.__version__


def test_a_model_is_loaded_and_let_go(writers: httpx.Client) -> None:
    for path, more in (("/api/generate", {"prompt": ""}), ("/api/chat", {"messages": []})):
        for keep, reason in ((None, "load"), ("5m", "load"), (0, "unload")):
            made = post(writers, path, model="chat", keep_alive=keep, **more)
            assert made["done"] is True and made["done_reason"] == reason
        assert writers.post(path, json={"model": "tales", "keep_alive": 0, **more}).status_code == 404


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "thinking": ({"think": True}, "do not think"),
    "pictures": ({"images": ["aGk="]}, "read text only"),
    "template": ({"template": "x"}, "The template is that of the model"),
    "context": ({"context": [1, 2]}, "POST /api/chat"),
    "penalty": ({"options": {"repeat_penalty": 1.2}}, "options.repeat_penalty is not supported"),
    "window": ({"options": {"repeat_last_n": 9, "presence_penalty": 1}}, "Leave repeat_last_n out"),
    "unknown option": ({"options": {"frobnicate": 1}}, "options.frobnicate: This parameter is not known"),
    "instructions": ({"system": "Be brief."}, "follows no `system`"),
    "suffix": ({"suffix": "end"}, "without fill-in-the-middle"),
    "images": ({"model": "digits"}, "makes images, not texts"),
    "label": ({"afresh": {"label": "x"}}, "trained without labels"),
    "cut": ({"truncate": True}, "Nothing is cut in silence"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_effect_is_refused_in_its_form(writers: httpx.Client, name: str, stream: bool) -> None:
    change, message = REFUSED[name]
    answer = writers.post("/api/generate", json={"model": "stories", "prompt": "Once", "stream": stream, **change})
    assert answer.status_code == 400 and message in answer.json()["error"]


def test_what_is_not_there_is_said_in_its_form(writers: httpx.Client) -> None:
    for path in ("/api/pull", "/api/create"):
        answer = writers.post(path, json={"model": "stories"})
        assert answer.status_code == 404 and isinstance(answer.json()["error"], str)


def test_the_client_of_ollama(writers: httpx.Client) -> None:
    ollama = needs.package("ollama", "ollama")
    client = ollama.Client(host=str(writers.base_url))
    assert {m.model for m in client.list().models} >= {"stories", "chat"}
    assert client.show("code").capabilities == ["completion", "insert"]
    made = client.generate("stories", prompt="Once", options=OPTIONS)
    parts = client.generate("stories", prompt="Once", options=OPTIONS, stream=True)
    assert "".join(p.response for p in parts) == made.response
    chat = client.chat("chat", messages=SAY, options=OPTIONS)
    assert chat.message.content == client.generate("chat", prompt="Say 3?", options=OPTIONS).response
    with pytest.raises(ollama.ResponseError, match="No run named 'tales'"):
        client.generate("tales", prompt="x")
