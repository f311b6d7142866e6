"""Ten thousand mixed requests of every kind to one server: nothing may fail, leak, or lose its place.

Of the requests 5% are malformed and 5% are cut off by the client, some within their body; the others are texts,
answers, streams, images, sounds, music, molecules, edits, recommendations, exercises, likelihoods, votes and pages of
small runs that are trained on the spot (benchmarks/serve/soak_requests.py). Counted are answers with a status of 500 or
more, well-formed requests that were refused, the growth of the server's memory after the first tenth, and requests that
are still active at the end.

    python -m benchmarks soak [--requests N] [--clients N] [--minutes M]
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx

from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.results import Row, save
from benchmarks.serve.serving import free_port, process
from benchmarks.serve.soak_requests import MALFORMED, Ask, request, train_everything

TITLE = "server under mixed requests"
SHARE_MALFORMED, SHARE_CUT = 0.05, 0.05
GROWTH = 0.05  # of resident memory that is allowed
WARM = 1_000  # requests after which memory must not grow


def resident(pid: int) -> int:
    """Bytes of resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.split("\n") if line.startswith("VmRSS"))) * 1024


async def one(client: httpx.AsyncClient, draw: random.Random, seen: Counter[str]) -> None:
    chance, (kind, ask) = draw.random(), request(draw)
    if chance < SHARE_MALFORMED:
        method, path, more = draw.choice(MALFORMED)
        answer = await client.request(method, path, **more)
        seen[f"malformed {answer.status_code // 100}xx"] += 1
        if answer.status_code >= 500:
            seen[f"{path[:40]}: {answer.text[:200]}"] += 1
    elif chance < SHARE_MALFORMED + SHARE_CUT:
        await (left_within_body if draw.random() < 0.3 else left_within_answer)(client, ask)
        seen["cut"] += 1
    else:
        await asked(client, draw, kind, ask, seen)


async def asked(client: httpx.AsyncClient, draw: random.Random, kind: str, ask: Ask, seen: Counter[str]) -> None:
    method, path, more = ask
    for _ in range(50):  # a busy server asks to come again
        answer = await client.request(method, path, **more)
        if answer.status_code != 429:
            break
        seen["asked to come again"] += 1
        await asyncio.sleep(float(answer.headers["retry-after"]) * draw.random())
    # What was drawn may be silent, or no molecule: this is said, and no fault.
    fine = answer.status_code < 400 or '"silent"' in answer.text
    seen["good 2xx" if fine else f"good {answer.status_code // 100}xx"] += 1
    seen[f"of {kind}"] += 1
    if not fine:
        seen[f"{kind} {path}: {answer.text[-300:]}"] += 1


async def left_within_answer(client: httpx.AsyncClient, ask: Ask) -> None:
    method, path, more = ask
    try:
        async with client.stream(method, path, timeout=0.3, **more) as answer:
            async for _ in answer.aiter_bytes():
                break
    except httpx.HTTPError:
        pass


async def left_within_body(client: httpx.AsyncClient, ask: Ask) -> None:
    """Say that more comes than is sent, and close the connection."""
    method, path, more = ask
    content = json.dumps(more["json"]) if "json" in more else "--x"
    kind = "application/json" if "json" in more else "multipart/form-data; boundary=x"
    head = f"{method} {path} HTTP/1.1\r\nhost: {client.base_url.host}\r\ncontent-type: {kind}\r\n"
    assert client.base_url.port is not None
    _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    writer.write(f"{head}content-length: {len(content) + 100}\r\n\r\n{content}".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def soak(
    address: str, pid: int, requests: int, clients: int, minutes: float
) -> tuple[Counter[str], list[tuple[int, int]], float]:
    """What was answered, resident memory after so many requests (n, bytes), and requests a second."""
    seen: Counter[str] = Counter()
    draw, begun = random.Random(0), time.monotonic()
    memory: list[tuple[int, int]] = []
    left = iter(range(requests))

    async def worker(client: httpx.AsyncClient) -> None:
        for i in left:
            if time.monotonic() - begun > 60 * minutes:
                break
            await one(client, draw, seen)
            if i and i % 250 == 0:
                memory.append((i, resident(pid)))
                print(f"{i:,} requests, {memory[-1][1] / 2**20:.1f} MiB, {time.monotonic() - begun:.0f} s", flush=True)

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
    done = sum(v for k, v in seen.items() if k.startswith(("good", "malformed", "cut")))
    return seen, [*memory, (done, resident(pid))], done / seconds


def growth_of(memory: list[tuple[int, int]]) -> float:
    """By what share memory grew after the first WARM requests: the mean of the last four looks against that of the
    four from there on, as each depends on what is being answered."""
    after = [size for n, size in memory if n >= WARM] or [size for _, size in memory]
    first, last = after[:4], after[-4:]
    return (sum(last) / len(last)) / (sum(first) / len(first)) - 1


def main(*given: str) -> None:
    parser = parser_of("soak", __doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=60.0, help="After which it ends in any case.")
    parser.add_argument("--runs", type=Path, default=None, help="A folder with the runs of an earlier time.")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args(given)
    folder = Path(tempfile.mkdtemp())
    try:
        runs = (
            args.runs
            if args.runs is not None and args.runs.is_dir()
            else train_everything(args.runs or folder / "runs")
        )
        address = f"http://127.0.0.1:{(port := free_port())}"
        with process([sys.executable, "-m", "afresh", "serve", str(runs), "--port", str(port)], address) as pid:
            seen, memory, rate = asyncio.run(soak(address, pid, args.requests, args.clients, args.minutes))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    growth = growth_of(memory)
    print(json.dumps(dict(seen), indent=1), f"growth {growth:.3f}, {rate:.0f} requests a second")
    failed = sum(v for k, v in seen.items() if "5xx" in k)
    refused = sum(v for k, v in seen.items() if k.startswith("good") and "2xx" not in k)
    lost = seen["still active at the end"]
    n = f"{memory[-1][0]:,} requests of {args.clients} clients, 5% malformed, 5% cut off"
    rows = [
        Row(TITLE, "answers with a status of 500 or more", f"{failed}", goal="0", reached=failed == 0, n=n),
        Row(TITLE, "well-formed requests that were refused", f"{refused}", goal="0", reached=refused == 0, n=n),
        Row(TITLE, "requests still active at the end", f"{lost}", goal="0", reached=lost == 0, n=n),
        Row(
            TITLE,
            f"growth of memory after the first {WARM:,}",
            f"{growth:.1%}",
            goal="under 5%",
            reached=growth < GROWTH,
            n=f"{n}; {rate:.0f} a second",
        ),
    ]
    if not args.no_save:
        save("soak", rows)


BENCHMARKS = (Benchmark("soak", (), 40, main),)
