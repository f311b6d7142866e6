"""Ten thousand drawn requests to one server, each answer checked by the form that OpenAI publishes.

The requests go to every endpoint that OpenAI's API has too, as a whole and as streams; a quarter of them are spoilt.
Counted are answers that are not of the published form, streams that do not end as they should, and answers with a
status of 500 or more. Errors are checked as well. With `--schema` the form is OpenAI's OpenAPI description, which is
published as openapi.yaml in the repository openai/openai-openapi; without, it is that of the models of its Python
client, in strict mode.

    python -m benchmarks conformance [--requests N] [--clients N] [--seed N] [--schema openapi.yaml]
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from tests.faces.http.conftest import train_media, train_runs, train_tools
from tests.faces.http.drawn_requests import Drawn, drawn
from tests.faces.http.published import Check, of_client, of_file, verdict

from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.results import Row, save
from benchmarks.serve.serving import free_port, process

TITLE = "server by OpenAI's schema"


@dataclass
class Seen:
    """What was answered: by path and status, how many values were checked, and what was wrong with how many."""

    answers: Counter[str] = field(default_factory=Counter)
    checked: int = 0
    wrong: int = 0
    failed: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Drawn] = field(default_factory=dict)


async def ask(address: str, check: Check, requests: int, clients: int, seed: int, until: float) -> Seen:
    """Send so many requests, or as many as there is time for."""
    seen, draw = Seen(), random.Random(seed)
    left = iter(range(requests))

    async def worker(client: httpx.AsyncClient) -> None:
        for _ in left:
            if time.monotonic() > until:
                return
            request = drawn(draw)
            answer = await client.request(request.method, request.path, **request.arguments)
            found = verdict(check, request.path, answer)
            seen.answers[f"{request.path} {answer.status_code // 100}xx"] += 1
            seen.checked += found.checked
            seen.wrong += bool(found.faults)
            seen.failed += answer.status_code >= 500
            for fault in found.faults:
                seen.faults[f"{request.path} {fault}"] += 1
                seen.examples.setdefault(f"{request.path} {fault}", request)

    async with httpx.AsyncClient(base_url=address, timeout=120) as client:
        await asyncio.gather(*(worker(client) for _ in range(clients)))
    return seen


def main(*given: str) -> None:
    parser = parser_of("conformance", __doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="how long to go on at most")
    parser.add_argument("--schema", type=Path, help="OpenAI's OpenAPI description, in YAML or JSON")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args(given)
    check = of_client() if args.schema is None else of_file(args.schema)
    form = "models of the openai package, strict" if args.schema is None else "OpenAI's OpenAPI description"
    folder = Path(tempfile.mkdtemp())
    try:
        runs = train_tools(train_media(train_runs(folder / "runs")))
        address = f"http://127.0.0.1:{(port := free_port())}"
        command = [sys.executable, "-m", "afresh", "serve", str(runs), "--port", str(port)]
        with process(command, address):
            begun = time.monotonic()
            limit = begun + 60 * args.minutes
            seen = asyncio.run(ask(address, check, args.requests, args.clients, args.seed, limit))
            seconds = time.monotonic() - begun
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    asked = sum(seen.answers.values())
    for place, count in sorted(seen.answers.items()):
        print(f"{count:6,} {place}")
    for fault, count in seen.faults.most_common(40):
        print(f"{count:6,} {fault}\n       {str(seen.examples[fault])[:1000]}")
    good = sum(count for place, count in seen.answers.items() if place.endswith("2xx"))
    n = f"{asked:,} requests, {good:,} answered and the others refused; {seen.checked:,} values by {form}"
    print(f"{n}; {asked / seconds:.0f} a second")
    rows = [
        Row(TITLE, "answers of another form", f"{seen.wrong}", goal="0", reached=seen.wrong == 0, n=n),
        Row(TITLE, "answers with a status of 500 or more", f"{seen.failed}", goal="0", reached=seen.failed == 0, n=n),
    ]
    if not args.no_save:
        save("conformance", rows)


BENCHMARKS = (Benchmark("conformance", (), 30, main),)
