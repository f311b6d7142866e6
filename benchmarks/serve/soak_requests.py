"""Runs of every kind, tiny ones that are trained on the spot, and requests of every kind for them.

A request is (method, path, what httpx takes). All of them are in order; the malformed ones are in `MALFORMED`.
"""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.domains.exercises.learners import train_practice
from tests.faces.http.conftest import train_media, train_runs, train_tools

import afresh
from afresh.core import Sound
from afresh.data.audio.views import wav_bytes
from afresh.domains.music.files import midi_bytes
from afresh.domains.music.score import MusicScore, Note

Ask = tuple[str, str, dict[str, Any]]
SMILES = ("C", "CC", "CCO", "c1ccccc1", "CC(=O)O", "CCN", "COC", "CC(C)C", "CCCl", "OCC=C")


def train_everything(folder: Path) -> Path:
    """Runs on texts, conversations, tools, images, sounds, music, molecules, choices and exercises, in `folder`."""
    train_runs(folder)
    train_media(folder)
    train_tools(folder)
    train_practice(folder)
    data = folder.parent / f"{folder.name}-log"
    data.mkdir()
    events = [f"u{u},i{(u + e) % 9},{1_700_000_000 + 1000 * e + u}" for u in range(40) for e in range(6)]
    (data / "log.csv").write_text("\n".join(["user,item,time", *events, ""]))
    tiny = {"family.width": 16, "family.layers": 1, "family.heads": 1, "family.kv_heads": 1, "train.compile": False}
    afresh.train(data, steps=30, out=folder / "shop", settings=tiny, quiet=True)
    table = folder.parent / f"{folder.name}-molecules.csv"
    table.write_text("\n".join(["smiles", *(s + "C" * k for s in SMILES for k in range(6)), ""]))
    afresh.train(table, family="transformer", steps=30, out=folder / "molecules", settings=tiny, quiet=True)
    return folder


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def png(seed: int, shape: tuple[int, ...] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def wav(seed: int) -> bytes:
    samples = np.random.default_rng(seed).uniform(-0.4, 0.4, (1_600, 1)).astype(np.float32)
    return wav_bytes(Sound(samples, 8_000))


MELODY = b64(midi_bytes(MusicScore(tuple(Note(4 * i, 0, 72 + i % 5, 4) for i in range(8)), steps=4)))


def completion(draw: random.Random, seed: int) -> Ask:
    length, stream = draw.choice((1, 4, 16, 40)), draw.random() < 0.5
    body = {"model": "stories", "prompt": f"Once {seed}", "max_tokens": length, "seed": seed, "stream": stream}
    return "POST", "/v1/completions", {"json": {**body, "temperature": draw.random() * 2, "n": draw.choice((1, 1, 2))}}


def chat(draw: random.Random, seed: int) -> Ask:
    ask = [{"role": "user", "content": f"Say {seed}?"}]
    path = draw.choice(("/v1/chat/completions", "/v1/messages", "/v1/responses"))
    limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    said = {"input": ask} if path == "/v1/responses" else {"messages": ask}
    return "POST", path, {"json": {"model": "chat", limit: draw.choice((4, 16)), **said, "stream": draw.random() < 0.3}}


def structure(draw: random.Random, seed: int) -> Ask:
    schema = {
        "type": "object",
        "properties": {f"name{seed % 20}": {"type": "integer"}},
        "required": [f"name{seed % 20}"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return (
        "POST",
        "/v1/completions",
        {"json": {"model": "stories", "prompt": "a", "max_tokens": 48, "seed": seed, "response_format": form}},
    )


def image(draw: random.Random, seed: int) -> Ask:
    body = {
        "model": draw.choice(("digits", "captioned", "codes")),
        "prompt": "",
        "n": draw.choice((1, 2)),
        "seed": seed,
    }
    if draw.random() < 0.3:
        body |= {"stream": True, "partial_images": 2}
    return "POST", "/v1/images/generations", {"json": body}


def image_edit(draw: random.Random, seed: int) -> Ask:
    model = draw.choice(("captioned", "codes"))
    change = draw.choice(({"strength": 0.5}, {"mask": b64(png(1))}, {"outpaint": {"right": 2}}, {"palette": ["#000"]}))
    settings = {"settings": {"steps": 4}} if model == "captioned" else {}
    if model == "codes":
        change = {"strength": 0.5}
    return (
        "POST",
        "/afresh/v1/edits",
        {"json": {"model": model, "inputs": [b64(png(seed))], "seed": seed, **change, **settings}},
    )


def image_form(draw: random.Random, seed: int) -> Ask:
    form = {"model": "digits", "prompt": "one", "afresh[strength]": "0.5", "seed": str(seed)}
    return "POST", "/v1/images/edits", {"data": form, "files": {"image": png(seed)}}


def blend(draw: random.Random, seed: int) -> Ask:
    body = {"model": "codes", "first": b64(png(seed)), "second": b64(png(seed + 1)), "n": 3}
    return "POST", "/afresh/v1/interpolations", {"json": body}


def speech(draw: random.Random, seed: int) -> Ask:
    form = draw.choice(("mp3", "wav", "flac", "opus"))
    return (
        "POST",
        "/v1/audio/speech",
        {"json": {"model": "sounds", "input": "beep", "seed": seed, "response_format": form}},
    )


def sound_edit(draw: random.Random, seed: int) -> Ask:
    change = draw.choice(({"extend": 0.1}, {"strength": 0.4}))
    body = {"model": "sounds", "inputs": [b64(wav(seed))], "settings": {"steps": 4}, **change}
    return "POST", "/afresh/v1/edits", {"json": body}


def music(draw: random.Random, seed: int) -> Ask:
    body = {"model": "tunes", "score": MELODY, "seed": seed, "settings": {"length": 16}}
    return "POST", "/afresh/v1/compose", {"json": body}


def molecules(draw: random.Random, seed: int) -> Ask:
    return "POST", "/afresh/v1/samples", {"json": {"model": "molecules", "n": 2, "seed": seed}}


def recommend(draw: random.Random, seed: int) -> Ask:
    history = [f"i{draw.randrange(9)}" for _ in range(draw.randrange(6))]
    more = draw.choice(({}, {"explore": 1.0}, {"because": 1}, {"diversity": 0.5}))
    return "POST", "/afresh/v1/recommend", {"json": {"model": "shop", "history": history, "k": 3, "seed": seed, **more}}


def practise(draw: random.Random, seed: int) -> Ask:
    history = [{"item": f"add-{draw.randrange(3)}", "correct": draw.random() < 0.5} for _ in range(draw.randrange(8))]
    return "POST", "/afresh/v1/practise", {"json": {"model": "practice", "history": history}}


def score(draw: random.Random, seed: int) -> Ask:
    if draw.random() < 0.3:
        return "POST", "/afresh/v1/score", {"json": {"model": "codes", "items": [b64(png(seed))]}}
    return (
        "POST",
        "/afresh/v1/score",
        {"json": {"model": "stories", "items": [f"Once {seed}." * draw.randrange(1, 20)]}},
    )


def embed(draw: random.Random, seed: int) -> Ask:
    return "POST", "/v1/embeddings", {"json": {"model": "stories", "input": [f"Once {seed}", "It ran"]}}


def vote(draw: random.Random, seed: int) -> Ask:
    model = draw.choice(("stories", "digits"))
    return "POST", "/afresh/v1/comparisons", {"json": {"model": model, "n": 2, "seed": seed % 30}}


PAGES = (
    "/",
    "/studio/",
    "/studio/create?run=stories",
    "/studio/create?run=digits",
    "/studio/gallery",
    "/studio/runs",
    "/studio/vote",
    "/studio/recommend?run=shop",
    "/studio/practise?run=practice",
    "/studio/static/studio.css",
    "/v1/models",
    "/afresh/v1/runs",
    "/afresh/v1/runs/digits",
    "/openapi.json",
    "/health",
    "/metrics",
)


def page(draw: random.Random, seed: int) -> Ask:
    return "GET", draw.choice(PAGES), {}


KINDS: Mapping[Callable[[random.Random, int], Ask], int] = {
    completion: 8,
    chat: 6,
    structure: 2,
    image: 4,
    image_edit: 3,
    image_form: 1,
    blend: 1,
    speech: 2,
    sound_edit: 1,
    music: 2,
    molecules: 2,
    recommend: 4,
    practise: 2,
    score: 3,
    embed: 2,
    vote: 1,
    page: 6,
}

TEXT = {"model": "stories", "prompt": "Once"}
EDIT = {"model": "captioned", "inputs": [b64(png(0))]}
MALFORMED: tuple[Ask, ...] = (
    ("POST", "/v1/completions", {"content": b"{", "headers": {"content-type": "application/json"}}),
    ("POST", "/v1/completions", {"content": b"[" * 10_000, "headers": {"content-type": "application/json"}}),
    ("POST", "/v1/completions", {"json": {**TEXT, "temperature": -1}}),
    ("POST", "/v1/completions", {"json": {**TEXT, "model": "nothing"}}),
    ("POST", "/v1/completions", {"json": {**TEXT, "model": "a" * 300}}),
    ("POST", "/v1/completions", {"json": {**TEXT, "n": 10**6}}),
    ("POST", "/v1/completions", {"json": {**TEXT, "stop": ["a"] * 1000}}),
    ("POST", "/v1/completions", {"json": {**TEXT, "model": "digits"}}),
    ("POST", "/v1/completions", {"json": {**TEXT, "prompt": "c" * 1_000_000}}),
    ("POST", "/v1/images/edits", {"data": {"model": "digits", "prompt": "one"}, "files": {"image": b"none"}}),
    ("POST", "/afresh/v1/edits", {"json": {**EDIT, "outpaint": {"left": 4096, "right": 4096, "top": 4096}}}),
    ("POST", "/afresh/v1/edits", {"json": {**EDIT, "hole": "0:1"}}),
    ("POST", "/afresh/v1/compose", {"json": {"model": "tunes", "score": "aaaa"}}),
    ("POST", "/afresh/v1/recommend", {"json": {"model": "shop", "k": 0}}),
    ("POST", "/afresh/v1/practise", {"json": {"model": "practice", "success": 2}}),
    ("POST", "/studio/vote", {"data": {"run": "nothing"}}),
    ("GET", "/studio/static/%00", {}),
    ("GET", "/studio/runs/" + "a" * 300, {}),
)


def request(draw: random.Random) -> tuple[str, Ask]:
    """A request in order, with the name of its kind."""
    (kind,) = draw.choices(list(KINDS), list(KINDS.values()))
    return kind.__name__, kind(draw, draw.randrange(1000))
