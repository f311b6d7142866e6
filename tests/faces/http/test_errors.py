"""What an error of a request becomes: a status, the kind of it in the words of the API, and when to try again."""

from __future__ import annotations

import errno
import json

import pytest

from afresh.core import UserError
from afresh.faces.http.errors import RefusedRequest, answer, refused


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
