"""Simulated learners: how well their answers are foreseen, and how soon they know what a course teaches.

A run is trained on the answers of 6,000 learners of one course (benchmarks/knowledge/learners.py). Foreseen are the
answers of others: beside ours, which is the network and the filter of what practice teaches together, the true model,
which nothing can beat, each of the two alone, and BKT, PFA and FSRS. Then learners begin from nothing, each time with
the same luck: the next exercise is drawn at random, by a fixed order, by ours, or by what the true model expects to
teach most by one answer. A fixed order is what a teacher would take: the skills in the order of the course, each after
those that it needs, with the best number of exercises a skill of those that were tried. What counts is the number of
answers until the true level of knowledge is three fifths of the way from none to all. Five seeds of learners;
AFRESH_COURSE chooses another course.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.core.plural import counted
from afresh.domains.exercises.history import FIRST, Answer, AnswerHistory, gap_of
from afresh.domains.exercises.knowledge import bkt, pfa
from afresh.domains.exercises.knowledge.answers import Answers, as_answers, tables
from afresh.domains.exercises.knowledge.learning import padded
from afresh.domains.exercises.knowledge_filter import pooled
from afresh.domains.exercises.metrics import auc, calibration_error, log_loss
from afresh.domains.exercises.practise import Policy, Tracer, choose, knowledge
from afresh.runs.run import Run
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import work_folder
from benchmarks.common.processes import ask
from benchmarks.common.results import Row, save
from benchmarks.knowledge.learners import (
    BLOCKED,
    EACH,
    SKILLS,
    SPEEDS,
    Array,
    Filter,
    Index,
    Learners,
    Log,
    World,
    csv_of,
    gaps,
    simulate,
    true_chances,
)
from benchmarks.knowledge.peers import dkt, pybkt

SEEDS = (0, 1, 2, 3, 4)
TRAIN, ANSWERS, HELD, TAUGHT = 6_000, 100, 100, 16
DKT_SECONDS = 110.0  # of a processor, as many as the run takes
FITTED = 500  # learners that the baselines are fitted to
STEPS, SIZE = 1_700, {"width": 64, "layers": 2, "heads": 2, "kv_heads": 2}
MOST, PART = 300, 0.6  # answers at most, and the part of the way from knowing nothing to knowing all
ORDERS = (1, 3, 6, 10, 15)  # exercises of a skill before the next, of fixed orders
# (step, histories, gaps, who has not reached the level yet) -> exercises (N,)
Chooser = Callable[[int, list[list[Answer]], Array, NDArray[np.bool_]], Index]


def name_of(item: int) -> str:
    return f"s{item // EACH}-{item % EACH}"


def answers_of(log: Log, i: int) -> tuple[Answer, ...]:
    rows = zip(log.items[i].tolist(), log.right[i].tolist(), log.gaps[i].tolist(), log.times[i].tolist(), strict=True)
    return tuple(
        Answer(name_of(j), r, f"s{j // EACH}", FIRST if t == 0 else gap_of(g), x) for t, (j, r, g, x) in enumerate(rows)
    )


def trained(world: World, folder: Path, seed: int) -> Run:
    """A transformer on the log of the course, which is kept; `seed` is that of both."""
    out = folder / f"run-{seed}"
    if not (out / "report.html").exists():
        log = folder / f"log-{seed}.csv"
        log.write_text(csv_of(simulate(world, TRAIN, ANSWERS, 1000 + seed)))
        argv = [sys.executable, "-m", "afresh", "train", str(log), "--family", "transformer", "--steps", str(STEPS)]
        argv += ["--seed", str(seed), "--no-measure", "--force", "--out", str(out), "--set", "train.batch=4"]
        argv += [f for name, value in SIZE.items() for f in ("--set", f"family.{name}={value}")]
        subprocess.run(argv, check=True, capture_output=True)
    return Run.open(out)


def ours_of(tracer: Tracer, histories: Sequence[AnswerHistory]) -> Array:
    """The chance of each answer from those before it, (N, T), with the whole history as one sequence."""
    encoder, out = tracer.encoder, []
    for part in (histories[i : i + 16] for i in range(0, len(histories), 16)):
        x = torch.tensor([encoder.tokens(h.answers) for h in part])
        logits = tracer.run.modules["decoder"](x[:, :-1], None)[:, 1::3]
        wrong = torch.tensor([[encoder.outcome(a.item, a.skill, False) for a in h.answers] for h in part])[..., None]
        both = logits.gather(2, torch.cat([wrong, wrong + 1], 2))
        out.append((both[..., 1] - both[..., 0]).sigmoid().double().numpy())
    return np.concatenate(out)


def scores(log: Log, chances: dict[str, Array]) -> dict[str, dict[str, float]]:
    y = log.right.ravel()
    return {
        name: {"auc": auc(y, p.ravel()), "nats": log_loss(y, p.ravel()), "calibration": calibration_error(y, p.ravel())}
        for name, p in chances.items()
    }


def foreseen(world: World, tracer: Tracer, seed: int) -> dict[str, dict[str, float]]:
    """AUC, log loss and calibration error of the answers of learners that nobody has seen."""
    log = simulate(world, HELD, ANSWERS, 2000 + seed)
    histories = [AnswerHistory(answers_of(log, i)) for i in range(HELD)]
    teaching = tracer.teaching
    assert teaching is not None
    with torch.no_grad():
        network = ours_of(tracer, histories)
    filtered = teaching.learning(padded(teaching.answers(histories), teaching.learning))[0].double().numpy()
    chances = {"true": true_chances(world, log), "network": network, "state": log.chance, "filter": filtered}
    return scores(log, chances | {"ours": pooled(network, filtered, teaching.weights)})


def baselines(world: World) -> dict[str, dict[str, float]]:
    """The same of models of knowledge that are neither, for the learners of the first seed."""
    from benchmarks.knowledge import forgetting  # here, so that the benchmarks are listed without its package

    log, train = simulate(world, HELD, ANSWERS, 2000), simulate(world, FITTED, ANSWERS, 1000)
    known = [AnswerHistory(answers_of(train, i)) for i in range(FITTED)]
    names = tables(known)
    fit_to: list[Answers] = [as_answers(h, *names) for h in known]
    asked: list[Answers] = [as_answers(AnswerHistory(answers_of(log, i)), *names) for i in range(HELD)]
    items, skills = map(len, names)
    fitted = {
        "bkt": bkt.fit(fit_to, skills),
        "bkt with forgetting": bkt.fit(fit_to, skills, forgets=True),
        "pfa": pfa.fit(fit_to, items, skills),
        "pfa in time": pfa.fit(fit_to, items, skills, pfa.WINDOWS),
        "fsrs": forgetting.fit(fit_to),
    }
    return scores(log, {name: np.array([predict(a) for a in asked]) for name, predict in fitted.items()})


def peers(world: World, folder: Path) -> dict[str, Any]:
    """AUC of other programs, beside our BKT of the same learners: an LSTM in as many seconds of a processor as our run
    takes, and pyBKT, if AFRESH_PYBKT is a Python that has it."""
    log, train = simulate(world, HELD, ANSWERS, 2000), simulate(world, TRAIN, ANSWERS, 1000)
    y, names = log.right.ravel(), tables([AnswerHistory(answers_of(train, i)) for i in range(FITTED)])
    fit_to = [as_answers(AnswerHistory(answers_of(train, i)), *names) for i in range(TRAIN)]
    asked = [as_answers(AnswerHistory(answers_of(log, i)), *names) for i in range(HELD)]
    ours = bkt.fit(fit_to[:FITTED], len(names[1]))
    chances = {
        "bkt": np.concatenate([ours(a) for a in asked]),
        "dkt": np.concatenate(list(map(dkt.fit(fit_to, len(names[0]), DKT_SECONDS), asked))),
    }
    found: dict[str, Any] = {}
    if python := os.environ.get("AFRESH_PYBKT"):
        few = Log(*(getattr(train, f.name)[:FITTED] for f in fields(Log)))
        (folder / "train.csv").write_text(csv_of(few))
        (folder / "test.csv").write_text(csv_of(log))
        logs = pybkt.Ask(str(folder / "train.csv"), str(folder / "test.csv"))
        answered = ask("benchmarks.knowledge.peers.pybkt", logs, folder / "pybkt", python=python)
        chances["pybkt"] = np.array(answered["chances"])
        found["difference"] = float(np.abs(chances["pybkt"] - chances["bkt"]).mean())
        found["nats"] = {k: log_loss(y, chances[k]) for k in ("bkt", "pybkt")}
    return found | {"auc": {name: auc(y, p) for name, p in chances.items()}}


def covered(world: World, tracer: Tracer, seed: int) -> dict[str, float]:
    """The share of skills of learners whose true chance, which is either that of knowing or that of guessing, lies in
    the interval that is shown, and the mean width of the intervals."""
    log = simulate(world, 100, ANSWERS, 2000 + seed)
    inside, wide = [], []
    for i in range(100):
        truth = world.correct(log.known[i : i + 1])[0].reshape(SKILLS, EACH).mean(1)
        for skill, k in zip(
            truth.tolist(), knowledge(tracer, [AnswerHistory(answers_of(log, i))], gap_of(60.0))[0], strict=True
        ):
            inside.append(k.low <= skill <= k.high)
            wide.append(k.high - k.low)
    return {"inside": float(np.mean(inside)), "width": float(np.mean(wide))}


def taught(world: World, chooser: Chooser, seed: int, n: int = TAUGHT) -> Index:
    """The answers that each learner needs to reach the level, (n,); MOST where it is not reached."""
    learners, between = Learners.begin(world, n, 3000 + seed), gaps(n, MOST, 3000 + seed)
    histories: list[list[Answer]] = [[] for _ in range(n)]
    ends = (world.level(np.full((1, SKILLS), k))[0] for k in (False, True))
    none, everything = ends
    wanted, needed = none + PART * (everything - none), np.full(n, MOST)
    for t in range(MOST):
        learners.wait(between[:, t])
        items = chooser(t, histories, between[:, t], needed == MOST)
        right = learners.answer(items)
        for i, j in enumerate(items.tolist()):
            gap = FIRST if t == 0 else gap_of(between[i, t])
            histories[i].append(Answer(name_of(j), bool(right[i]), f"s{j // EACH}", gap))
        needed = np.where((needed == MOST) & (world.level(learners.known) >= wanted), t + 1, needed)
        if (needed < MOST).all():
            break
    return needed


def at_random(seed: int) -> Chooser:
    rng = np.random.default_rng((seed, 9))
    return lambda t, histories, between, active: rng.integers(SKILLS * EACH, size=len(histories))


def in_order(each: int) -> Chooser:
    """The skills in the order of the course, `each` exercises of one before the next, and again from the first."""
    return lambda t, histories, between, active: np.full(len(histories), t // each % SKILLS * EACH + t % EACH)


def by_model(tracer: Tracer, policy: Policy, success: float) -> Chooser:
    place = {name_of(j): j for j in range(SKILLS * EACH)}

    def next_of(t: int, histories: list[list[Answer]], between: Array, active: NDArray[np.bool_]) -> Index:
        gap = FIRST if t == 0 else tracer.gap(float(np.median(between)))
        asked = [AnswerHistory(tuple(h)) for h, a in zip(histories, active, strict=True) if a]
        out = np.zeros(len(histories), np.int64)
        out[active] = [place[tracer.encoder.items[i]] for i in choose(tracer, asked, policy, success, gap).tolist()]
        return out

    return next_of


def by_teaching(tracer: Tracer) -> Chooser:
    """The skill that the policy `gain` takes, and its exercises in turn, as `by_truth` has them: in these courses, all
    exercises of a skill teach the same, and which of them is asked makes no difference to what is learnt."""
    skills = [tracer.place(group[0]) for _, group in tracer.groups]
    teaching = tracer.teaching
    assert teaching is not None and [name for name, _ in tracer.groups] == [f"s{k}" for k in range(SKILLS)]

    def next_of(t: int, histories: list[list[Answer]], between: Array, active: NDArray[np.bool_]) -> Index:
        gap = FIRST if t == 0 else tracer.gap(float(np.median(between)))
        later = teaching.gains([AnswerHistory(tuple(h)) for h in histories], skills, gap)[1]
        return later.argmax(1) * EACH + t % EACH

    return next_of


def by_truth(world: World, n: int = TAUGHT) -> Chooser:
    """What the true model expects to teach most skills by one answer."""
    exact, last = Filter(world, n), np.zeros(n, np.int64)

    def next_of(t: int, histories: list[list[Answer]], between: Array, active: NDArray[np.bool_]) -> Index:
        nonlocal last
        if t:
            exact.see(last, np.array([h[-1].correct for h in histories]))
        exact.wait(between)
        ready = np.where(exact.ready, 1.0, BLOCKED)  # (skills, states)
        chance = np.array(SPEEDS).reshape(1, -1, 1) * ready[:, None]
        learnt = [(exact.p * chance[k] * ~exact.states[:, k]).sum((1, 2)) for k in range(SKILLS)]
        last = np.stack(learnt, 1).argmax(1) * EACH + t % EACH
        return last

    return next_of


def measured(course: int, folder: Path) -> list[dict[str, Any]]:
    """Everything that is measured, by seed; kept in a file as it comes."""
    kept = folder / f"course-{course}.json"
    found: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else [{} for _ in SEEDS]
    world = World.make(course)
    tracer = Tracer(trained(world, folder, course))

    def part(seed: int, name: str, make: Callable[[], Any]) -> None:
        if name not in found[seed]:
            begun = time.monotonic()
            found[seed][name] = make()
            print(seed, name, found[seed][name], f"{time.monotonic() - begun:.0f} s", flush=True)
            kept.write_text(json.dumps(found, indent=1))

    def needs(seed: int, chooser: Chooser) -> Callable[[], list[int]]:
        return lambda: taught(world, chooser, seed).tolist()

    for seed in SEEDS:
        part(seed, "random", needs(seed, at_random(seed)))
        for each in ORDERS:
            part(seed, f"order {each}", needs(seed, in_order(each)))
        part(seed, "truth", needs(seed, by_truth(world)))
    for seed in SEEDS:
        part(seed, "gain", needs(seed, by_teaching(tracer)))
    for seed in SEEDS:
        part(seed, "foreseen", partial(foreseen, world, tracer, seed))
    part(0, "baselines", partial(baselines, world))
    part(0, "covered", partial(covered, world, tracer, 0))
    part(0, "peers", partial(peers, world, folder))
    for seed in SEEDS:
        part(seed, "success .7", needs(seed, by_model(tracer, "success", 0.7)))
        part(seed, "success .5", needs(seed, by_model(tracer, "success", 0.5)))
    return found


def main() -> None:
    torch.set_num_threads(1)
    folder = work_folder("knowledge")
    folder.mkdir(parents=True, exist_ok=True)
    save("knowledge", rows_of(measured(int(os.environ.get("AFRESH_COURSE", "0")), folder)))


def rows_of(found: Sequence[dict[str, Any]]) -> list[Row]:
    """The table of what was measured on each course."""

    def over(name: str, measure: str) -> Array:
        return np.array([f["foreseen"][name][measure] for f in found if "foreseen" in f])

    def spread(values: Array, form: str) -> str:
        return f"{values.mean():{form}} ({values.min():{form}} to {values.max():{form}})"

    seeds = sum("foreseen" in f for f in found)
    n = f"{counted(seeds, 'seed')}, {HELD * ANSWERS:,} answers each"
    below = over("true", "auc") - over("ours", "auc")
    beside = ", ".join(f"{k} alone {over(k, 'auc').mean():.3f}" for k in ("network", "filter"))
    if others := found[0].get("baselines"):
        beside += "; seed 0: " + ", ".join(f"{k} {v['auc']:.3f}" for k, v in others.items())
    rows = [
        Row(
            "simulated learners",
            "AUC of answers of unseen learners",
            spread(over("ours", "auc"), ".3f"),
            f"true model {spread(over('true', 'auc'), '.3f')}; {beside}",
            float((over("ours", "auc") / over("true", "auc")).mean()),
            "at most .01 below the true model",
            bool((below <= 0.01).all()),
            n,
        ),
        Row(
            "simulated learners",
            "calibration error of the chance of a right answer",
            spread(over("ours", "calibration"), ".3f"),
            f"true model {spread(over('true', 'calibration'), '.3f')}",
            goal="",
            n=n,
        ),
    ]
    if shown := found[0].get("covered"):
        made = f"{shown['inside']:.1%} of them hold the true chance; their mean width is {shown['width']:.2f}"
        rows.append(
            Row(
                "simulated learners",
                "95% intervals of what is known, seed 0",
                made,
                goal="90 to 98%",
                reached=0.9 <= shown["inside"] <= 0.98,
                n=f"{100 * SKILLS} intervals",
            )
        )
    if peer := found[0].get("peers"):
        beside = ", ".join(f"{name} {value:.3f}" for name, value in peer["auc"].items())
        same = f"; mean difference of pyBKT's chances and ours {peer['difference']:.4f}" if "difference" in peer else ""
        first = found[0]["foreseen"]["ours"]["auc"]
        rows.append(
            Row(
                "simulated learners",
                "AUC beside other programs, seed 0",
                f"{first:.3f}",
                beside + same,
                goal="above DKT and BKT",
                reached=first > max(peer["auc"].values()),
                n=f"{HELD * ANSWERS:,} answers",
            )
        )
    other = ("foreseen", "baselines", "peers", "covered")
    needed = {k: np.array([np.mean(f[k]) for f in found]) for k in found[-1] if k not in other}
    order = min((k for k in needed if k.startswith("order")), key=lambda k: needed[k].mean())
    for policy in (p for p in ("gain", "success .7", "success .5") if p in needed):
        faster = {k: 1 - needed[policy].mean() / needed[k].mean() for k in ("random", order)}
        beside = ", ".join(
            f"{k} {needed[k].mean():.0f} ({1 - needed[policy].mean() / needed[k].mean():.0%})" for k in faster
        )
        rows.append(
            Row(
                "simulated learners",
                f"answers until three fifths of a course are known, next by {policy}",
                spread(needed[policy], ".0f"),
                f"{beside} fewer; true model {needed['truth'].mean():.0f}",
                float(needed[policy].mean() / needed["random"].mean()),
                "20% fewer than at random and than in the best fixed order" if policy == "gain" else "",
                bool(policy != "gain" or min(faster.values()) >= 0.2),
                f"{len(found)} seeds, {TAUGHT} learners each, at most {MOST} answers",
            )
        )
    return rows


BENCHMARKS = (Benchmark("knowledge", (), 90, main),)
