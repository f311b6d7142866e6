"""`collect` beside datatrove and datasketch: throughput, near duplicates against all pairs, memory, being killed, and
what cleaning is for.

AFRESH_DATATROVE names the Python of an environment with datatrove (see benchmarks/collect/peers/datatrove.py); without
it, its rows are left out. Parts can be chosen: `python -m benchmarks collect near memory`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from afresh.data.text.near_duplicates import THRESHOLD, bands_of, near_texts
from afresh.data.text.shingles import shingles_of
from benchmarks.collect.documents import PROCESSES, Ask, Maker, page
from benchmarks.collect.learning import learning
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import ROOT, data_folder, write_json
from benchmarks.common.results import Row, save

PAGES = 6_000
ROUNDS = 2
DOCUMENTS = 20_000
KILLS = 20
SIZES = (10.0, 1.0)  # GB of text for the memory
MINUTES = float(os.environ.get("AFRESH_MINUTES", "60"))  # to collect one of them
GIBIBYTE = 1 << 30


@dataclass(frozen=True)
class Used:
    """What a command took. processors: seconds of them. memory: GiB, the most that its processes had resident at one
    time, added, so that what they share counts in each."""

    seconds: float
    processors: float
    memory: float


# --------------------------------------------------------------------------- throughput


def timed(command: list[str]) -> Used:
    """Run a command. Each process of its session is looked up in /proc ten times a second; what else runs on the
    machine changes the seconds of processors little."""
    start, used, most = time.perf_counter(), dict[int, float](), 0
    tick, page_size = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while process.poll() is None:
            resident = 0
            for path in Path("/proc").glob("[0-9]*/stat"):
                try:
                    facts = path.read_text().rpartition(")")[2].split()
                except OSError:
                    continue  # it has ended
                if int(facts[3]) == process.pid:
                    used[int(path.parent.name)] = (int(facts[11]) + int(facts[12])) / tick
                    resident += int(facts[21]) * page_size
            most = max(most, resident)
            time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return Used(time.perf_counter() - start, sum(used.values()), most / GIBIBYTE)


def pages(folder: Path) -> list[Row]:
    return [throughput(folder, "text pipeline of web pages", "html")]


def texts(folder: Path) -> list[Row]:
    return [throughput(folder, "text pipeline of texts", "txt")]


def throughput(folder: Path, what: str, suffix: str) -> Row:
    """The text pipeline on the same documents and two processes, in turns with datatrove; the best of each."""
    made = list(Maker(data_folder()).documents(PAGES))
    size = sum(len(t.encode()) for t in made) / 1e6
    contents = [page(t, i) for i, t in enumerate(made)] if suffix == "html" else made
    ours, theirs = folder / "ours", folder / "theirs"
    ours.mkdir(parents=True)
    theirs.mkdir()
    for i, content in enumerate(contents):
        (ours / f"{i:06d}.{suffix}").write_text(content)
    for part in range(PROCESSES):
        with (theirs / f"{part}.jsonl").open("w") as file:
            for i in range(part, len(contents), PROCESSES):
                file.write(json.dumps({"id": str(i), "text": contents[i]}) + "\n")
    commands = {"ours": [sys.executable, "-m", "afresh", "collect", str(ours), "--processes", str(PROCESSES), "--into"]}
    if python := os.environ.get("AFRESH_DATATROVE"):
        commands["datatrove"] = [python, "-m", "benchmarks.collect.peers.datatrove", str(theirs), suffix]
    runs: dict[str, list[Used]] = {name: [] for name in commands}
    load = os.getloadavg()[0]
    for round_ in range(ROUNDS):
        for name, command in commands.items():
            runs[name].append(timed([*command, str(folder / f"{name}{round_}")]))
            print(what, name, runs[name][-1], f"load {os.getloadavg()[0]:.1f}", flush=True)
    best = {name: min(u.seconds for u in each) for name, each in runs.items()}
    used = {name: min(u.processors for u in each) for name, each in runs.items()}
    kept = sum(json.loads((folder / "ours0" / "dataset.json").read_text())["items"].values())
    shown = {
        n: f"{PAGES / s:.0f} ({size / s:.2f} MB of text a second, {used[n]:.0f} s of processors)"
        for n, s in best.items()
    }
    ratio = best["datatrove"] / best["ours"] if "datatrove" in best else None
    return Row(
        "collect",
        f"{what}, documents a second; rules, exact and near duplicates, two processes, the whole command",
        shown["ours"],
        f"datatrove {shown['datatrove']}" if ratio else "",
        ratio,
        "2x datatrove",
        bool(ratio and ratio >= 2),
        f"{PAGES:,} documents, {size:.0f} MB, {kept:,} kept; best of {ROUNDS} rounds in turns; load {load:.1f} before",
    )


# --------------------------------------------------------------------------- near duplicates


def all_pairs(sets: list[Any]) -> dict[tuple[int, int], float]:
    """The Jaccard similarity of all pairs from THRESHOLD on, by the product of the incidences with themselves."""
    _, columns = np.unique(np.concatenate(sets), return_inverse=True)
    lengths = np.array([len(s) for s in sets])
    rows = np.repeat(np.arange(len(sets)), lengths)
    table = sparse.csr_matrix((np.ones(len(rows), np.int32), (rows, columns)))
    found: dict[tuple[int, int], float] = {}
    for start in range(0, len(sets), 500):
        shared = (table[start : start + 500] @ table.T).tocoo()
        i, j = shared.row + start, shared.col
        similarity = shared.data / (lengths[i] + lengths[j] - shared.data)
        some = (i < j) & (similarity >= THRESHOLD)
        found |= dict(zip(zip(i[some].tolist(), j[some].tolist(), strict=True), similarity[some].tolist(), strict=True))
    return found


def near(folder: Path) -> list[Row]:
    """Recall and precision against all pairs, datasketch beside it."""
    from datasketch import MinHash, MinHashLSH

    texts = list(Maker(data_folder()).documents(DOCUMENTS))
    sets = shingles_of(texts)
    truth = all_pairs(sets)
    start = time.perf_counter()
    bands = np.concatenate([bands_of(texts[i : i + 256]) for i in range(0, len(texts), 256)])
    first, second = np.array(list(truth)).T
    proposed = (bands[first] == bands[second]).any(1)
    found = near_texts(texts)
    ours = time.perf_counter() - start
    later = {j for _, j in truth}
    right = sum((p.first, p.second) in truth for p in found)

    start = time.perf_counter()
    index, pairs = MinHashLSH(threshold=THRESHOLD, num_perm=128), set[tuple[int, int]]()
    for number, hashes in enumerate(sets):
        sketch = MinHash(num_perm=128)
        sketch.update_batch([h.tobytes() for h in hashes])
        pairs |= {(int(other), number) for other in index.query(sketch)}
        index.insert(str(number), sketch)
    theirs = time.perf_counter() - start
    agreed = len(pairs & set(truth))
    n = f"{DOCUMENTS:,} documents, {len(truth):,} pairs, {len(later):,} items"
    sketched = f"datasketch {agreed / len(truth):.4f}"
    return [
        Row(
            "collect",
            "near duplicates: recall of pairs with a Jaccard similarity of 0.8",
            f"{proposed.mean():.4f}",
            sketched,
            goal=">= 0.98",
            reached=bool(proposed.mean() >= 0.98),
            n=n,
        ),
        Row(
            "collect",
            "near duplicates: recall of items that are like an earlier one",
            f"{len({p.second for p in found} & later) / len(later):.4f}",
            f"datasketch {len({j for _, j in pairs} & later) / len(later):.4f}",
            goal=">= 0.98",
            reached=len({p.second for p in found} & later) >= 0.98 * len(later),
            n=n,
        ),
        Row(
            "collect",
            "near duplicates: precision",
            f"{right / len(found):.4f}",
            f"datasketch {agreed / len(pairs):.4f}",
            goal="1.000",
            reached=right == len(found),
            n=n,
        ),
        Row("collect", "near duplicates: seconds", f"{ours:.1f}", f"datasketch {theirs:.1f}", theirs / ours, "", n=n),
    ]


# --------------------------------------------------------------------------- memory


def memory(folder: Path) -> list[Row]:
    """The memory of collecting texts of several sizes, each in a process of its own, and its growth."""
    return memory_rows([collected_memory(folder / f"{size}", size) for size in SIZES])


def collected_memory(folder: Path, size: float, minutes: float = MINUTES) -> tuple[float, Used, dict[str, int]]:
    """(GB of text, what was used, what was collected) of so many GB, or less if the minutes are over before."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "ask.json", asdict(Ask(int(size * 1e9), minutes)))
    used = timed([sys.executable, "-m", "benchmarks.collect.documents", str(folder)])
    made = json.loads((folder / "answer.json").read_text())
    print(size, used, f"load {os.getloadavg()[0]:.1f}", flush=True)
    return made["characters"] / 1e9, used, made


def memory_rows(runs: list[tuple[float, Used, dict[str, int]]]) -> list[Row]:
    least, before, _ = min(runs, key=lambda run: run[0])
    rows = []
    for size, used, made in sorted(runs, key=lambda run: run[0]):
        growth = f" ({1024 * (used.memory - before.memory) / (size - least):+.0f} MiB a GB)" if size > least else ""
        rows.append(
            Row(
                "collect",
                f"memory of all processes together at its highest, GiB, of {size:.1f} GB of text; prints, exact and "
                "near duplicates, no rules",
                f"{used.memory:.2f}{growth}",
                goal="<= 2",
                reached=used.memory <= 2,
                n=f"{made['documents']:,} documents, {made['kept']:,} kept",
            )
        )
    return rows


# --------------------------------------------------------------------------- killed


def killed(folder: Path) -> list[Row]:
    """A collection that is killed 20 times at points drawn by chance: the digest, and what was read again."""
    from tests.services.collect.killed import collected, log_of

    texts = folder / "texts"
    texts.mkdir(parents=True)
    for number, text in enumerate(Maker(data_folder()).documents(200)):
        (texts / f"{number:04d}.txt").write_text(text)
    ((_, whole, count),) = collected(texts, folder / "whole", 0)
    rng = np.random.default_rng(0)
    points = [int(p) for p in rng.integers(1, count // 16, KILLS)]
    *ends, last = collected(texts, folder / "set", *points, 0)
    deaths = sum(code < 0 for code, _, _ in ends)
    reads = log_of(folder / "set").read_text().splitlines()
    again = len(reads) - 200
    same = last[1] == whole and deaths == KILLS
    return [
        Row(
            "collect",
            "killed at points drawn by chance: the digest of an uninterrupted run",
            "same" if same else "another",
            goal="same",
            reached=same,
            n=f"{deaths} kills at {count} points, 200 documents, {again} reads of what was not yet written",
        ),
    ]


PARTS: dict[str, Callable[[Path], list[Row]]] = {
    "pages": pages,
    "texts": texts,
    "near": near,
    "memory": memory,
    "killed": killed,
    "learning": learning,
}


def main(*parts: str) -> None:
    """Each part is saved by itself, so that parts can be repeated."""
    if unknown := set(parts) - set(PARTS):
        raise SystemExit(f"No part {', '.join(sorted(unknown))}. Choose from: {', '.join(PARTS)}.")
    for name in parts or PARTS:
        print(f"-- {name}", flush=True)
        with tempfile.TemporaryDirectory(dir=os.environ.get("AFRESH_SCRATCH"), ignore_cleanup_errors=True) as folder:
            rows = PARTS[name](Path(folder))
        for row in rows:
            print(row, flush=True)
        save(f"collect_{name}", rows)


BENCHMARKS = (Benchmark("collect", ("gutenberg_books", "tinystories", "wikitext2"), 120, main),)
