"""What holds in every dialect: how requests are read, routes that clients look for, and advice in its own words."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

SAY = [{"role": "user", "content": "Say 3?"}]
# Each route of texts: a request for a run, what it calls the number of tokens and the form of an answer, and the route
# that lists models.
ROUTES: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "/v1/completions": ({"prompt": "Say"}, "max_tokens", "response_format", "/v1/models"),
    "/v1/chat/completions": ({"messages": SAY}, "max_completion_tokens", "response_format", "/v1/models"),
    "/v1/responses": ({"input": "Say 3?"}, "max_output_tokens", "text.format", "/v1/models"),
    "/v1/messages": ({"messages": SAY, "max_tokens": 4}, "max_tokens", "output_config.format", "/v1/models"),
    "/api/generate": ({"prompt": "Say", "stream": False}, "options.num_predict", "format", "/api/tags"),
    "/api/chat": ({"messages": SAY, "stream": False}, "options.num_predict", "format", "/api/tags"),
    "/infill": ({"input_prefix": "def a"}, "n_predict", "json_schema", "/v1/models"),
    "/completion": ({"prompt": "Say"}, "n_predict", "json_schema", "/v1/models"),
}
TALK = ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat")
TOOL: dict[str, Any] = {"name": "weather", "parameters": {"type": "object"}}
TOOLS = {
    "/v1/chat/completions": {"type": "function", "function": TOOL},
    "/v1/responses": {"type": "function", **TOOL},
    "/v1/messages": {"name": "weather", "input_schema": {"type": "object"}},
    "/api/chat": {"type": "function", "function": TOOL},
}


def said(answer: httpx.Response) -> str:
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    return str(error if isinstance(error, str) else error["message"])


def parameters(described: dict[str, Any], path: str) -> set[str]:
    """The parameters of a route by their paths, from its description."""
    schemas = described["components"]["schemas"]

    def inside(schema: dict[str, Any], where: str, depth: int) -> set[str]:
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        found = {where} if where else set()
        for part in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
            found |= inside(part, where, depth)
        for name, value in schema.get("properties", {}).items() if depth < 4 else ():
            found |= inside(value, f"{where}.{name}".lstrip("."), depth + 1)
        return found

    content = described["paths"][path]["post"]["requestBody"]["content"]
    return inside(content["application/json"]["schema"], "", 0)


@pytest.mark.parametrize("path", ROUTES)
def test_advice_names_the_parameters_and_routes_of_its_dialect(writers: httpx.Client, path: str) -> None:
    """Every advice that shared code gives in every dialect: what it names is a parameter of this route, or a route."""
    asked, tokens, form, listing = ROUTES[path]
    described = writers.get("/openapi.json").json()
    known = parameters(described, path) | set(described["paths"])
    assert {tokens, form, listing} <= known
    run = "code" if path == "/infill" else "tools"
    twice = said(writers.post(path, json={"model": run, **asked, "afresh": {"settings": {"length": 3}}}))
    assert f"`{tokens}`" in twice and "leave `length` out" in twice
    images = said(writers.post(path, json={"model": "digits", **asked}))
    assert f"GET {listing} " in images
    told = [twice, images]
    if path in TALK:
        told.append(said(writers.post(path, json={"model": "stories", **asked})))
        assert "/api/generate" in told[-1] if path.startswith("/api/") else "/v1/completions" in told[-1]
        told.append(said(writers.post(path, json={"model": "chat", **asked, "tools": [TOOLS[path]]})))
        assert f"`{form}`" in told[-1]
    for text in told:
        names = set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", text)) | set(re.findall(r"(?<!\w)/[a-z0-9]+/[\w/]+", text))
        assert {n for n in names if not any(n == k or k.endswith(f".{n}") for k in known)} == set(), text


@pytest.mark.parametrize("path", ROUTES)
def test_a_request_without_a_content_type_is_read_unless_a_page_sends_it(writers: httpx.Client, path: str) -> None:
    asked = ROUTES[path][0]
    few: dict[str, Any] = {"n_predict": 2} if path in ("/infill", "/completion") else {}
    body = json.dumps({"model": "code" if path == "/infill" else "tools", **asked, **few}).encode()
    assert "content-type" not in writers.build_request("POST", path, content=body).headers
    assert writers.post(path, content=body).status_code == 200
    own = str(writers.base_url).rstrip("/")
    for headers in ({"origin": own}, {"content-type": "text/plain"}, {"content-type": "text/plain", "origin": own}):
        assert writers.post(path, content=body, headers=headers).status_code == 415
    assert writers.post(path, content=body, headers={"origin": "https://elsewhere.example"}).status_code == 403


def test_head_is_answered_wherever_get_is(writers: httpx.Client) -> None:
    described = writers.get("/openapi.json").json()["paths"]
    paths = [p for p, methods in described.items() if "get" in methods and "{" not in p]
    assert {"/api/tags", "/v1/models", "/health", "/props"} <= set(paths)
    for path in (*paths, "/", "/studio/", "/v1/models/chat", "/v1/models/none", "/openapi.json"):
        whole, head = writers.get(path), writers.head(path)
        assert head.status_code == whole.status_code and head.content == b"", path
        assert head.headers.get("content-type") == whole.headers.get("content-type")
    assert writers.head("/v1/completions").status_code == 405


def test_what_ollama_holds_and_embeds(writers: httpx.Client) -> None:
    made = writers.post("/api/embed", json={"model": "stories:latest", "input": ["A cat.", "A dog."]}).json()
    theirs = writers.post("/v1/embeddings", json={"model": "stories", "input": ["A cat.", "A dog."]}).json()
    assert made["embeddings"] == [row["embedding"] for row in theirs["data"]]
    assert made["prompt_eval_count"] == theirs["usage"]["prompt_tokens"] and made["model"] == "stories:latest"
    one = writers.post("/api/embed", json={"model": "stories", "input": "A cat."}).json()
    assert one["embeddings"] == made["embeddings"][:1]
    assert "Leave dimensions out" in said(
        writers.post("/api/embed", json={"model": "stories", "input": "a", "dimensions": 3})
    )
    held = {m["name"]: m for m in writers.get("/api/ps").json()["models"]}
    listed = {m["name"]: m for m in writers.get("/api/tags").json()["models"]}
    assert held["stories"]["size"] > 10_000 and held["stories"]["context_length"] == 64
    assert held["stories"]["digest"] == listed["stories"]["digest"] and "digits" not in held


def test_a_completion_of_llama_cpp(writers: httpx.Client) -> None:
    asked = {"model": "stories", "prompt": "Once", "n_predict": 9, "seed": 4}
    theirs = writers.post(
        "/v1/completions", json={"model": "stories", "prompt": "Once", "max_tokens": 9, "seed": 4}
    ).json()
    made = writers.post("/completion", json=asked).json()
    assert made["content"] == theirs["choices"][0]["text"]
    assert (made["tokens_evaluated"], made["tokens_predicted"]) == (
        theirs["usage"]["prompt_tokens"],
        theirs["usage"]["completion_tokens"],
    )
    streamed = writers.post("/completion", json={**asked, "stream": True}).text
    events = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: ")]
    assert "".join(e["content"] for e in events) == made["content"]
    assert [e["stop"] for e in events] == [False] * (len(events) - 1) + [True]
    assert events[-1]["stop_type"] == made["stop_type"] and events[-1]["tokens_predicted"] == made["tokens_predicted"]
    stopped = writers.post("/completion", json={**asked, "stop": [made["content"][2]]}).json()
    assert stopped["stop_type"] == "word" and stopped["stopping_word"] == made["content"][2]
    read = writers.post("/completion", json={**asked, "n_predict": 0}).json()
    assert (
        read["content"] == "" and read["tokens_evaluated"] == made["tokens_evaluated"] and read["tokens_predicted"] == 0
    )
    assert "Name the run" in said(writers.post("/completion", json={"prompt": "Once"}))


def test_the_tokens_of_llama_cpp(writers: httpx.Client) -> None:
    text = "Once there was a cat."
    ids = writers.post("/tokenize", json={"model": "stories", "content": text}).json()["tokens"]
    assert writers.post("/detokenize", json={"model": "stories", "tokens": ids}).json()["content"] == text
    pieces = writers.post("/tokenize", json={"model": "stories", "content": text, "with_pieces": True}).json()["tokens"]
    assert [p["id"] for p in pieces] == ids and "".join(p["piece"] for p in pieces) == text
    made = writers.post("/completion", json={"model": "stories", "prompt": ids, "n_predict": 4, "seed": 1}).json()
    assert made["prompt"] == text and made["tokens_evaluated"] == len(ids)
    props = writers.get("/props", params={"model": "chat"}).json()
    assert props["default_generation_settings"]["n_ctx"] == 96 and "im_start" in props["chat_template"]
    assert props["model_path"] == "chat"
    assert writers.get("/props", params={"model": "digits"}).status_code == 400


VERSION = {"anthropic-version": "2023-06-01"}


def test_anthropics_list_request_id_and_errors(writers: httpx.Client) -> None:
    listed = writers.get("/v1/models", headers=VERSION)
    own = [m["id"] for m in writers.get("/v1/models").json()["data"]]
    made = listed.json()
    assert [m["id"] for m in made["data"]] == own and made["has_more"] is False
    assert (made["first_id"], made["last_id"]) == (own[0], own[-1])
    assert all(m["type"] == "model" and m["created_at"].endswith("Z") for m in made["data"])
    assert writers.get("/v1/models/chat", headers=VERSION).json()["display_name"] == "chat"
    assert listed.headers["request-id"] == listed.headers["x-request-id"]
    missing = writers.get("/v1/models/tales", headers=VERSION)
    assert missing.status_code == 404 and missing.json()["type"] == "error" and missing.headers["request-id"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("older", [False, True])
def test_structured_output_of_anthropic(writers: httpx.Client, stream: bool, older: bool) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "schema": schema}
    given = {"output_format": form} if older else {"output_config": {"format": form, "effort": "low"}}
    asked = {"model": "chat", "messages": SAY, "max_tokens": 30, "stream": stream, "seed": 1, **given}
    answer = writers.post("/v1/messages", json=asked).raise_for_status()
    if stream:
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        text = "".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta")
    else:
        text = answer.json()["content"][0]["text"]
    assert json.loads(text)["a"] in (1, 2)
    assert (answer.headers.get("x-afresh-ignored") == "output_config.effort") is not older
