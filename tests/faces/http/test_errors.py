"""What an error of a request becomes: a status, the kind of it in the words of the API, and when to try again."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from afresh.core import UserError
from afresh.faces.http.app import ServeSettings
from afresh.faces.http.errors import RefusedRequest, answer, refused
from tests.faces.http.conftest import serving


@pytest.mark.parametrize(
    ("status", "kind", "of_messages"),
    [
        (400, "invalid_request_error", "invalid_request_error"),
        (404, "not_found_error", "not_found_error"),
        (409, "invalid_request_error", "invalid_request_error"),
        (499, "invalid_request_error", "invalid_request_error"),
        (500, "server_error", "api_error"),
        (502, "server_error", "api_error"),
        (503, "overloaded_error", "overloaded_error"),
    ],
)
def test_the_kind_of_an_error_follows_from_its_status(status: int, kind: str, of_messages: str) -> None:
    error = RefusedRequest(status, "No.")
    assert json.loads(bytes(answer(error, "/v1/completions").body))["error"]["type"] == kind
    assert json.loads(bytes(answer(error, "/v1/messages").body))["error"]["type"] == of_messages


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (MemoryError(), 503, "10"),
        (UserError("No."), 400, None),
        (OSError(errno.ENAMETOOLONG, "long"), 400, None),
        (OSError(errno.EIO, "the disk"), 500, None),
        (ValueError("embedded null byte"), 400, None),
        (ValueError("the weights melted"), 500, None),
    ],
)
def test_an_error_has_a_status_and_says_when_to_try_again(error: Exception, status: int, retry: str | None) -> None:
    given = answer(refused(error), "/v1/completions")
    assert given.status_code == status and given.headers.get("retry-after") == retry
    assert b"melted" not in bytes(given.body)


def test_paths_in_errors_become_names_and_routes_stay(tmp_path: Path) -> None:
    folder = tmp_path / "my runs" / "notes"
    folder.mkdir(parents=True)
    for text, shown in {
        f"{folder} is not a run. Give one.": "notes is not a run. Give one.",
        f"No folder {tmp_path}/none.": "No folder none.",
        f"Cannot read '{folder}/weights.bin': it is cut.": "Cannot read 'weights.bin': it is cut.",
        f"{tmp_path}/a.npz and {tmp_path}/b.npz differ.": "a.npz and b.npz differ.",
        "Use POST /afresh/v1/score, or /v1/completions.": "Use POST /afresh/v1/score, or /v1/completions.",
        "Frequencies of 1/2 and 3 km/h/s.": "Frequencies of 1/2 and 3 km/h/s.",
    }.items():
        for error in (UserError(text), RefusedRequest(400, text)):
            assert str(refused(error)) == shown


def least(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """A value of a JSON schema with nothing that is not required."""
    if "$ref" in schema:
        return least(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        return least(one, schemas)
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type", "string")
    if kind == "object":
        return {name: least(schema["properties"][name], schemas) for name in schema.get("required", ())}
    if kind == "array":
        return [least(schema.get("items", {}), schemas)] * schema.get("minItems", 1)
    return {"integer": 1, "number": 1.0, "boolean": False}.get(kind, "x")


def test_no_answer_of_any_route_shows_where_the_runs_are(runs: Path, tmp_path: Path) -> None:
    """Every route is asked for runs that are damaged in several ways, and with a value that it cannot read."""
    place = tmp_path / "my runs"
    shutil.copytree(runs, place)
    (place / "stories" / "run.json").write_text("{")
    shutil.rmtree(place / "chat" / "checkpoints")
    for weights in (place / "digits").rglob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:100])
    server = serving(ServeSettings([place], memory=2**30))
    told, failed = "", 0
    with httpx.Client(base_url=next(server), timeout=60) as http:
        described = http.get("/openapi.json").json()
        for path, methods in described["paths"].items():
            for run in ("stories", "chat", "digits", "none"):
                if "get" in methods:
                    asked = path.replace("{model}", run).replace("{run}", run).replace("{step}", "1")
                    answers = [http.get(asked, params={"model": run})]
                else:
                    content = methods.get("post", {}).get("requestBody", {}).get("content", {})
                    schema = content.get("application/json", {"schema": {"type": "object"}})["schema"]
                    body = least(schema, described["components"]["schemas"]) | {"model": run}
                    answers = [http.post(path, json=b) for b in (body, {**body, "settings": {"x": str(place)}})]
                for given in answers:
                    failed += given.status_code >= 400
                    told += given.text
    next(server, None)
    assert str(tmp_path) not in told and "my runs" not in told
    assert failed > 60 and "run.json" in told
