"""Ten thousand mixed requests to one server: nothing may fail, leak, or lose its place.

Of the requests 5% are malformed and 5% are cut off by the client; the others are texts, answers, streams and images of
small runs that are trained on the spot. Counted are answers with a status of 500 or more, well-formed requests that
were refused, the growth of the server's memory after the first tenth, and requests that are still active at the end.

    python -m benchmarks.soak [--requests N] [--clients N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from tests.serve.conftest import train_runs

from benchmarks.serving import free_port, process
from benchmarks.table import Row, save

TITLE = "server under mixed requests"
MALFORMED, CUT = 0.05, 0.05
GROWTH = 0.05  # of resident memory that is allowed
BAD: tuple[Any, ...] = (
    b"{",
    b"[" * 10_000,
    {"model": "stories", "prompt": "Once", "temperature": -1},
    {"model": "nothing", "prompt": "Once"},
    {"model": "stories", "prompt": "Once", "n": 10**6},
    {"model": "stories", "prompt": "Once", "stop": ["a"] * 1000},
    {"model": "digits", "prompt": "Once"},
    {"model": "stories", "prompt": "c" * 10_000},
)


def request(draw: random.Random) -> tuple[str, dict[str, Any]]:
    """A well-formed request: its path and body."""
    seed, length = draw.randrange(1000), draw.choice((1, 4, 16, 40))
    kind = draw.choices(("text", "stream", "chat", "image"), (5, 5, 4, 1))[0]
    if kind == "chat":
        ask = [{"role": "user", "content": f"Say {seed}?"}]
        return "/v1/chat/completions", {"model": "chat", "messages": ask, "max_tokens": length, "seed": seed}
    if kind == "image":
        return "/v1/images/generations", {"model": "digits", "prompt": "one", "n": 1, "seed": seed}
    body = {"model": "stories", "prompt": "Once", "max_tokens": length, "seed": seed, "temperature": draw.random() * 2}
    return "/v1/completions", {**body, "stream": kind == "stream", "n": draw.choice((1, 1, 2))}


def resident(pid: int) -> int:
    """Bytes of resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.split("\n") if line.startswith("VmRSS"))) * 1024


async def one(client: httpx.AsyncClient, draw: random.Random, seen: Counter[str]) -> None:
    chance = draw.random()
    path, body = request(draw)
    if chance < MALFORMED:
        bad = draw.choice(BAD)
        content = bad if isinstance(bad, bytes) else json.dumps(bad).encode()
        answer = await client.post("/v1/completions", content=content, headers={"content-type": "application/json"})
        seen[f"malformed {answer.status_code // 100}xx"] += 1
    elif chance < MALFORMED + CUT:
        try:
            async with client.stream("POST", path, json=body) as answer:
                async for _ in answer.aiter_bytes():
                    break
            seen["cut"] += 1
        except httpx.HTTPError:
            seen["cut"] += 1
    else:
        for _ in range(50):  # a busy server asks to come again
            answer = await client.post(path, json=body)
            if answer.status_code != 429:
                break
            seen["asked to come again"] += 1
            await asyncio.sleep(float(answer.headers["retry-after"]) * draw.random())
        seen[f"good {answer.status_code // 100}xx"] += 1
        if answer.status_code != 200:
            seen[answer.text[:200]] += 1


async def soak(address: str, pid: int, requests: int, clients: int) -> tuple[Counter[str], float, float]:
    """What was answered, the growth of memory after the first tenth, and requests a second."""
    seen: Counter[str] = Counter()
    draw, begun, memory = random.Random(0), time.monotonic(), 0
    left = iter(range(requests))

    async def worker(client: httpx.AsyncClient) -> None:
        nonlocal memory
        for i in left:
            await one(client, draw, seen)
            if i == requests // 10:
                memory = resident(pid)

    async with httpx.AsyncClient(base_url=address, timeout=120) as client:
        await asyncio.gather(*(worker(client) for _ in range(clients)))
        seconds = time.monotonic() - begun
        for _ in range(50):
            active = (await client.get("/metrics")).text
            if "afresh_requests_active 0\n" in active:
                break
            await asyncio.sleep(0.1)
        else:
            seen["still active at the end"] += 1
    return seen, resident(pid) / memory - 1, requests / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        runs = train_runs(folder / "runs")
        address = f"http://127.0.0.1:{(port := free_port())}"
        with process([sys.executable, "-m", "afresh", "serve", str(runs), "--port", str(port)], address) as pid:
            seen, growth, rate = asyncio.run(soak(address, pid, args.requests, args.clients))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(dict(seen), f"growth {growth:.3f}, {rate:.0f} requests a second")
    failed = sum(v for k, v in seen.items() if "5xx" in k)
    refused = sum(v for k, v in seen.items() if k.startswith("good") and "2xx" not in k)
    lost = seen["still active at the end"]
    n = f"{args.requests:,} requests of {args.clients} clients, 5% malformed, 5% cut off"
    rows = [
        Row(TITLE, "answers with a status of 500 or more", f"{failed}", "", None, "0", failed == 0, n),
        Row(TITLE, "well-formed requests that were refused", f"{refused}", "", None, "0", refused == 0, n),
        Row(TITLE, "requests still active at the end", f"{lost}", "", None, "0", lost == 0, n),
        Row(
            *(TITLE, "growth of memory after the first tenth", f"{growth:.1%}", "", None, "under 5%"),
            *(growth < GROWTH, f"{n}; {rate:.0f} a second"),
        ),
    ]
    if not args.no_save:
        save(TITLE, rows)


if __name__ == "__main__":
    main()
