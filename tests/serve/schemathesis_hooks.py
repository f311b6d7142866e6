"""Hooks for schemathesis: requests name runs that exist, and ask for little, so that the model itself is reached."""

from __future__ import annotations

from typing import Any

import schemathesis

SHORT = {"max_tokens": 3, "max_completion_tokens": 3, "max_output_tokens": 3, "n": 2, "best_of": 2, "partial_images": 1}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    if not isinstance(body, dict):
        return body
    path = context.operation.path
    if isinstance(body.get("model"), str):
        kinds = {"/v1/completions": "stories", "images": "digits", "audio": "tones"}
        body["model"] = next((run for part, run in kinds.items() if part in path), "chat")
    for name, most in SHORT.items():
        if isinstance(body.get(name), int) and body[name] > most:
            body[name] = most
    return body
