"""Embeddings through the official client."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import afresh
from tests import needs

openai = needs.package("openai", "openai")


@pytest.fixture
def client(address: str) -> Any:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def test_vectors_do_not_depend_on_their_form_or_neighbours(client: Any, http: httpx.Client, runs: Path) -> None:
    texts = ["Once there was a cat", "It ran", "Once there was a dog"]
    made = client.embeddings.create(model="stories", input=texts)  # base64, which the client asks for itself
    plain = client.embeddings.create(model="stories", input=texts, encoding_format="float")
    vectors = np.array([d.embedding for d in made.data], np.float32)
    assert vectors.shape == (3, 32) and np.array_equal(vectors, np.array([d.embedding for d in plain.data], np.float32))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1]
    encoder: Any = afresh.load(runs / "stories").run.encoder
    ids = [encoder.prompt(text).tolist() for text in texts]
    by_ids = client.embeddings.create(model="stories", input=ids)
    alone = client.embeddings.create(model="stories", input=ids[1])
    assert [d.embedding for d in by_ids.data] == [d.embedding for d in made.data]
    assert alone.data[0].embedding == made.data[1].embedding
    assert made.usage.total_tokens == made.usage.prompt_tokens == sum(map(len, ids))
    raw = http.post("/v1/embeddings", json={"model": "stories", "input": "It ran", "encoding_format": "base64"}).json()
    assert np.array_equal(np.frombuffer(base64.b64decode(raw["data"][0]["embedding"]), "<f4"), vectors[1])
    assert client.embeddings.create(model="stories", input="It ran", dimensions=32).data[0].embedding


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "long": ({"input": "c" * 100}, "100 tokens, and stories sees 63. Embed its parts"),
    "empty": ({"input": ""}, "is empty, so it has no embedding"),
    "none": ({"input": []}, "input"),
    "dimensions": ({"dimensions": 8}, "have 32 numbers, and a part of them says little"),
    "ids": ({"input": [10**6]}, "Token ids are from 0 to"),
    "format": ({"encoding_format": "int8"}, "encoding_format"),
    "images": ({"model": "digits"}, "no hidden states"),
    "many": ({"input": ["a"] * 5_000}, "input"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_with_advice(http: httpx.Client, name: str) -> None:
    change, message = BAD[name]
    answer = http.post("/v1/embeddings", json={"model": "stories", "input": "Once", **change})
    assert answer.status_code == 400 and re.search(message, answer.json()["error"]["message"]), answer.text
