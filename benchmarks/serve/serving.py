"""The server beside `sample` and beside llama.cpp's server: the same 11M weights, clients that stream; and images.

The server is a process of its own, as a user starts it; the clients are threads of another. All rates are of one run on
one machine, in rounds, so that the machine's drift hits all. `sample` is the same number of texts in one batch without
a server. llama.cpp's server reads the weights from our own export, with as many slots as there are clients.

    python -m benchmarks serving [--llama-server PATH] [--rounds N] [--tokens N]
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

import afresh
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.results import Row, save

CLIENTS = (1, 8, 32)
TOKENS = 128
PROMPT = "Once upon a time there was a little"
# One for all threads: making one loads certificates, which takes more processor time than an answer.
CLIENT = httpx.Client(timeout=600, limits=httpx.Limits(max_connections=64))
TITLE = "serving"
SHAPE = {"family.width": 384, "family.layers": 6, "family.heads": 6, "family.kv_heads": 6, "train.batch": 8}


def prepared(folder: Path) -> Path:
    """A run whose weights have the size of a real one; what it writes does not matter."""
    lines = [
        f"Once upon a time there was a little cat number {i}, who ran over the hill and sat down." for i in range(3000)
    ]
    (folder / "tales.txt").write_text("\n\n".join(lines))
    out = folder / "runs" / "decoder"
    afresh.train(folder / "tales.txt", steps=4, out=out, data={"context": 512}, settings=SHAPE, quiet=True)
    return out


def prepared_images(folder: Path) -> Path:
    """A flow over images of 32 pixels, of the size that the plan gives real ones."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    out = folder / "runs" / "images"
    afresh.train(images, family="flow", steps=2, out=out, settings={"train.batch": 8}, quiet=True)
    return out


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def process(command: Sequence[str], address: str) -> Iterator[int]:
    """The id of the process of a server that answers GET /health, ended with the block."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"{address}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            if time.monotonic() > until or child.poll() is not None:
                raise RuntimeError(f"{command[0]} does not answer")
            time.sleep(0.2)
        yield child.pid
    finally:
        child.terminate()
        child.wait(60)


def stream(address: str, body: dict[str, Any], first: list[float], counts: list[int]) -> None:
    """One client: notes the seconds to the first token, and how many tokens came."""
    begun, count = time.perf_counter(), 0
    with CLIENT.stream("POST", f"{address}/v1/completions", json=body) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            data = json.loads(line[6:])
            if count == 0:
                first.append(time.perf_counter() - begun)
            count += any(c.get("text") for c in data["choices"])
            if data.get("usage"):
                counts.append(data["usage"]["completion_tokens"])


def clients(address: str, number: int, tokens: int, more: dict[str, Any]) -> tuple[float, float]:
    """Tokens a second of so many clients together, and the 95th percentile of the seconds to the first token."""
    first: list[float] = []
    counts: list[int] = []
    body = {"prompt": PROMPT, "max_tokens": tokens, "temperature": 1.0, "stream": True, **more}
    body["stream_options"] = {"include_usage": True}
    threads = [
        threading.Thread(target=stream, args=(address, {**body, "seed": i}, first, counts)) for i in range(number)
    ]
    begun = time.perf_counter()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    rate = sum(counts) / (time.perf_counter() - begun)
    return rate, sorted(first)[max(0, -(-95 * len(first) // 100) - 1)]


def images(address: str, number: int) -> float:
    """Seconds until so many clients have one image each."""

    def ask(seed: int) -> None:
        body = {"model": "images", "prompt": "", "seed": seed, "response_format": "b64_json"}
        CLIENT.post(f"{address}/v1/images/generations", json=body).raise_for_status()

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(number)]
    begun = time.perf_counter()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return time.perf_counter() - begun


def batch(model: afresh.Model, number: int, tokens: int, bias: dict[int, float]) -> float:
    """Tokens a second of `sample` in one batch."""
    begun = time.perf_counter()
    model.sample(number, prompt=PROMPT, length=tokens, logit_bias=bias)
    return number * tokens / (time.perf_counter() - begun)


def main(*given: str) -> None:
    parser = parser_of("serving", __doc__)
    parser.add_argument("--llama-server", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args(given)
    folder = Path(tempfile.mkdtemp())
    try:
        rows = measured(folder, args.llama_server, args.rounds, args.tokens)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for row in rows:
        print(row)
    if not args.no_save:
        save("serving", rows)


def measured(folder: Path, llama: Path | None, rounds: int, tokens: int) -> list[Row]:
    run, flow = prepared(folder), afresh.load(prepared_images(folder))
    model = afresh.load(run)
    end = model.run.space.special["end"]
    threads = str(len(os.sched_getaffinity(0)))
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        ours = f"http://127.0.0.1:{(port := free_port())}"
        command = [sys.executable, "-m", "afresh", "serve", str(run.parent), "--port", str(port)]
        stack.enter_context(process(command, ours))
        servers: dict[str, tuple[str, dict[str, Any]]] = {
            "afresh serve": (ours, {"model": "decoder", "logit_bias": {str(end): -100}})
        }
        if llama is not None:
            precision = model.run.record.train.precision
            exported = model.export("gguf", folder / "gguf", precision=precision).folder
            file = str(next(exported.glob("*.gguf")))
            theirs = f"http://127.0.0.1:{(port := free_port())}"
            slots = max(CLIENTS)
            command = [str(llama), "-m", file, "--port", str(port), "-np", str(slots), "-c", str(512 * slots)]
            command += ["-t", threads, "--no-webui", "-fa", "on"]
            stack.enter_context(process(command, theirs))
            servers["llama.cpp server"] = (theirs, {"ignore_eos": True, "cache_prompt": False})
        for number in CLIENTS:  # the first requests load and warm
            for address, more in servers.values():
                clients(address, number, 8, more)
        batch(model, 1, 8, {end: -100.0})
        images(ours, 1)
        flow.sample(1)
        for _ in range(rounds):
            found.setdefault("afresh serve, images", []).append(images(ours, 8))
            begun = time.perf_counter()
            flow.sample(8)
            found.setdefault("sample, images", []).append(time.perf_counter() - begun)
            for number in CLIENTS:
                for name, (address, more) in servers.items():
                    rate, wait = clients(address, number, tokens, more)
                    found.setdefault(f"{name}, {number}", []).append(rate)
                    found.setdefault(f"{name}, {number}, wait", []).append(wait)
                found.setdefault(f"sample, {number}", []).append(batch(model, number, tokens, {end: -100.0}))
                print({k: [round(x, 3) for x in v] for k, v in found.items() if f", {number}" in k}, flush=True)
    return rows_of(found, llama is not None, rounds, tokens)


def rows_of(found: dict[str, list[float]], llama: bool, rounds: int, tokens: int) -> list[Row]:
    """Medians of the rounds; ratios are those within a round, whose median counts."""
    waited, alone = found["afresh serve, images"], found["sample, images"]
    ratio = statistics.median(a / b for a, b in zip(waited, alone, strict=True))
    shown = f"{statistics.median(waited):.2f} s", f"{statistics.median(alone):.2f} s (sample in one batch)"
    n = f"flow over images of 32 pixels, {rounds} rounds"
    rows = [Row(TITLE, "one image each for 8 clients", *shown, ratio, "at most 1.6x", ratio <= 1.6, n)]
    for number in CLIENTS:
        n = f"{number} clients x {tokens} tokens, {rounds} rounds"
        ours = found[f"afresh serve, {number}"]
        beside = {"sample in one batch": (found[f"sample, {number}"], 0.9)}
        if llama:
            beside["llama.cpp server"] = (found[f"llama.cpp server, {number}"], 3.0 if number == 8 else 1.0)
        for name, (theirs, goal) in beside.items():
            ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            rates = f"{statistics.median(ours):,.0f}", f"{statistics.median(theirs):,.0f} ({name})"
            rows.append(
                Row(TITLE, f"tokens a second, {number} streams", *rates, ratio, f"at least {goal}x", ratio >= goal, n)
            )
        wait = statistics.median(found[f"afresh serve, {number}, wait"])
        theirs_wait = found.get(f"llama.cpp server, {number}, wait")
        first = "" if theirs_wait is None else f"{1000 * statistics.median(theirs_wait):.0f} ms (llama.cpp server)"
        asked = "at most 150 ms" if number == 8 else "stated"
        rows.append(
            Row(
                TITLE,
                f"p95 of the first token, {number} streams",
                f"{1000 * wait:.0f} ms",
                first,
                goal=asked,
                reached=number != 8 or wait <= 0.15,
                n=n,
            )
        )
    return rows


BENCHMARKS = (Benchmark("serving", (), 10, main),)
