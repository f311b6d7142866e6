"""Small runs of several kinds, and a server of them on the loopback."""

from __future__ import annotations

import faulthandler
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image

import afresh
from afresh.faces.http.app import ServeSettings, server_of
from afresh.faces.http.keys import Keys
from afresh.faces.http.listen import DRAIN_SECONDS, bound
from afresh.faces.http.rights import LOCAL, Holder

TINY = {"family.width": 32, "family.layers": 1, "family.heads": 2, "family.kv_heads": 2, "train.compile": False}
OWNER = Keys(everybody=Holder("", LOCAL))  # everybody may do everything
TEMPLATE = (  # a chat template with a place for tools
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ '\nCall as "
    "<tool_call></tool_call><|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train_runs(folder: Path) -> Path:
    """Runs named `stories`, `chat` and `digits`, in `folder`."""
    data = folder.parent / f"{folder.name}-data"
    data.mkdir(parents=True)
    stories = "\n\n".join(f"Once there was a cat number {i}. It ran, and it sat." for i in range(200))
    (data / "stories.txt").write_text(stories)
    afresh.train(data / "stories.txt", steps=8, out=folder / "stories", data={"context": 64}, settings=TINY, quiet=True)
    rows = [
        {"messages": [{"role": "user", "content": f"Say {i}?"}, {"role": "assistant", "content": f"It is {i}."}]}
        for i in range(80)
    ]
    (data / "chat.jsonl").write_text("\n".join(map(json.dumps, rows)))
    afresh.train(data / "chat.jsonl", steps=8, out=folder / "chat", data={"context": 96}, settings=TINY, quiet=True)
    rng = np.random.default_rng(0)
    for label in ("one", "two"):
        (data / "digits" / label).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(data / "digits" / label / f"{i}.png")
    small = {"family.widths": [8, 16], "train.batch": 16}
    # Enough steps that what is predicted on the way to an image differs from it.
    afresh.train(data / "digits", family="flow", steps=40, out=folder / "digits", settings=small, quiet=True)
    return folder


def train_media(folder: Path) -> Path:
    """Runs named `sounds`, `tunes`, `voices`, `captioned` and `codes`, in `folder`."""
    data, rng = folder.parent / f"{folder.name}-data", np.random.default_rng(0)
    for i in range(40):
        place = data / "sounds" / ("beep" if i % 2 else "hiss")
        place.mkdir(parents=True, exist_ok=True)
        t = np.arange(1_600) / 8_000
        wave = 0.5 * np.sin(2 * np.pi * (300 + 10 * i) * t) if i % 2 else rng.uniform(-0.4, 0.4, len(t))
        soundfile.write(place / f"{i:02d}.wav", wave * np.hanning(len(t)), 8_000)
    small = {"family.widths": [8, 16], "train.batch": 16}
    afresh.train(data / "sounds", family="flow", steps=2, out=folder / "sounds", settings=small, quiet=True)
    pieces = [[[60 + (i + k // 4) % 7, 48 + (i * k // 4) % 5] for k in range(32)] for i in range(24)]
    (data / "pieces.json").write_text(json.dumps(pieces))
    tiny = {"family.width": 16, "family.layers": 1, "family.heads": 2, "train.batch": 4, "train.compile": False}
    notes: dict[str, Any] = {"context": 64, "form": "events", "steps": 4}
    left = {**tiny, "family.kv_heads": 2}
    afresh.train(data / "pieces.json", steps=4, out=folder / "tunes", data=notes, settings=left, quiet=True)
    masked: dict[str, Any] = {"family": "masked", "data": {"context": 64}, "settings": tiny}
    afresh.train(data / "pieces.json", steps=4, out=folder / "voices", quiet=True, **masked)
    (data / "captioned").mkdir()
    lines = []
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(data / "captioned" / f"{i}.png")
        said = f"a {['red', 'blue'][i % 2]} {['cat', 'dog'][i // 2 % 2]}"
        lines.append(json.dumps({"file_name": f"{i}.png", "text": said, "size": i / 4}))
    (data / "captioned" / "metadata.jsonl").write_text("\n".join(lines))
    words: dict[str, Any] = {"family": "flow", "data": {"captions": "words"}, "settings": small}
    afresh.train(data / "captioned", steps=2, out=folder / "captioned", quiet=True, **words)
    narrow = {"family.width": 8, "family.latent": 4, "train.batch": 16}
    afresh.train(data / "captioned", family="vae", steps=2, out=folder / "codes", settings=narrow, quiet=True)
    return folder


def train_tools(folder: Path) -> Path:
    """A run named `tools`, whose chat template has tools, in `folder`."""
    data = folder.parent / f"{folder.name}-tools.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"Say {i}?"}, {"role": "assistant", "content": f"It is {i}."}]}
        for i in range(40)
    ]
    data.write_text("\n".join(map(json.dumps, rows)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("afresh.data.text.documents.CHATML", TEMPLATE)
        longer = {"context": 1024}
        afresh.train(data, steps=2, out=folder / "tools", data=longer, settings=TINY, quiet=True)
    return folder


def train_code(folder: Path) -> Path:
    """A run named `code`, which fills in the middle, in `folder`."""
    data = folder.parent / f"{folder.name}-code"
    data.mkdir(parents=True)
    for i in range(40):
        functions = (f"def add_{i}_{k}(a, b):\n    total = a + b\n    return total * {k}\n" for k in range(4))
        (data / f"{i}.py").write_text("\n".join(functions))
    options = {"context": 128, "fim_rate": 0.5}
    afresh.train(data, steps=8, out=folder / "code", data=options, settings=TINY, quiet=True)
    return folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_runs(tmp_path_factory.mktemp("served") / "runs")


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_media(tmp_path_factory.mktemp("served") / "media")


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tools(tmp_path_factory.mktemp("served") / "tools")


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_code(tmp_path_factory.mktemp("served") / "code")


@pytest.fixture(scope="session")
def media_address(media: Path) -> Iterator[str]:
    yield from serving(ServeSettings([media], memory=2**30))


def wait_for_active(http: httpx.Client, number: int) -> None:
    """Wait until so many requests are being answered, which a client that goes away no longer is."""
    until = time.monotonic() + 600  # of a busy machine; the event ends the wait
    while f"afresh_requests_active {number}.0\n" not in http.get("/metrics", timeout=60).text:
        assert time.monotonic() < until
        time.sleep(0.02)


def serving(settings: ServeSettings, prepare: Callable[[Any], None] | None = None) -> Iterator[str]:
    """The address of a server in a thread of this process, which ends with the fixture. `prepare` is given its
    application before it starts."""
    sock = bound("127.0.0.1", 0)
    server = server_of(settings)
    if prepare is not None:
        prepare(server.config.app)
    thread = threading.Thread(target=lambda: server.run(sockets=[sock]), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    thread.join(DRAIN_SECONDS + 30)  # requests that a test left unanswered are waited for
    if thread.is_alive():
        faulthandler.dump_traceback()  # says what the server waits for
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def address(runs: Path) -> Iterator[str]:
    yield from serving(ServeSettings([runs], memory=2**30))


@pytest.fixture(scope="session")
def writers(runs: Path, code: Path, tools: Path) -> Iterator[httpx.Client]:
    """A client of a server of all runs that write texts, and one of images."""
    server = serving(ServeSettings([runs, code, tools], memory=2**30))
    with httpx.Client(base_url=next(server), timeout=60) as client:
        yield client
    next(server, None)


@pytest.fixture(scope="session")
def everything(runs: Path, media: Path, tools: Path) -> Iterator[str]:
    """The address of a server of all these runs."""
    yield from serving(ServeSettings([runs, media, tools], memory=2**30))


@pytest.fixture
def http(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client
