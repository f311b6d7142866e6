"""Steering a character model of 1.8M parameters, beside TRL's trainers: speed, and reward against divergence.

Base: a Transformer trained here on tiny-Shakespeare; TRL opens the same weights from our export. The reward is the
share of vowels in 32 characters after 16 of the text. Both sides have one core, the same batch and lengths, one after
the other; a side is judged by what its model writes after 512 beginnings it has not seen, in float32. Speed is the
median step, without the first three.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from afresh.core import Cond
from afresh.engine.sampling.request import encode_prompts
from afresh.runs.run import Run
from benchmarks.align.ours import judge
from benchmarks.align.peers.trl import Ask, Took, vowels
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import data_folder, work_folder, write_json
from benchmarks.common.processes import ask, run
from benchmarks.common.results import Row, save

STEPS = 600  # of the base
SECONDS, LONGER = 150.0, 400.0  # of steering, and of one more run of ours
MOST_KL, LEAST_SHARE = 4.0, 0.39
PAIRS = 2000


@dataclass(frozen=True)
class Side:
    """What a contender took and how its model was judged."""

    took: Took
    share: float
    share_error: float
    kl: float
    kl_error: float
    heldout_reward: float = 0.0  # of a judge that no side learns from
    heldout_reward_error: float = 0.0


def base_of(folder: Path, text: Path) -> Run:
    """The model that is steered, and its export."""
    out, exported = folder / "base", folder / "hf"
    if not (folder / "ready").exists():
        argv = ["afresh", "train", str(text), "--family", "transformer", "--steps", str(STEPS), "--out", str(out)]
        argv += ["--set", "family.width=192", "--set", "family.layers=4", "--no-measure", "--force"]
        run(argv, folder / "base.log", core=0)
        argv = ["afresh", "export", str(out), "--to", "hf", "--out", str(exported)]
        run(argv, folder / "export.log", core=0)
        (folder / "ready").touch()
    return Run.open(out)


def prompts_of(text: str, n: int) -> list[str]:
    """n beginnings of 16 characters from the first nine tenths."""
    drawn = random.Random(0)
    return [text[i : i + 16] for i in (drawn.randrange(int(0.9 * len(text)) - 16) for _ in range(n))]


def pairs_of(base: Run, prompts: list[str]) -> list[list[str]]:
    """prompt, chosen, rejected: of two samples of the base that with more vowels is preferred; equal ones are out."""
    cond = encode_prompts(base.encoder, base.space, Cond(2 * len(prompts)), [p for p in prompts for _ in range(2)])[0]
    torch.set_num_threads(1)
    x = base.draw(base.modules, cond, 3, base.settings({"length": 32}))
    texts = base.encoder.decode(x)
    pairs = zip(prompts, texts[::2], texts[1::2], strict=True)
    return [[p, *sorted((a, b), key=vowels, reverse=True)] for p, a, b in pairs if vowels(a) != vowels(b)]


def side(name: str, module: str, request: Ask, folder: Path, base: Run) -> Side:
    """One contender, made and judged as far as that was not done before."""
    own = folder / name
    judged = own / "judged.json"
    if not judged.exists():
        took = ask(module, request, own, core=0)
        write_json(judged, {"took": took, **judge(own, base)})
    found: dict[str, Any] = json.loads(judged.read_text())
    made = Side(Took(**found.pop("took")), **found)
    print(name, made, flush=True)
    return made


def speed(what: str, ours: Side, whole: Side, half: Side, goal: float) -> Row:
    """Beside the faster of TRL in float32 and in bfloat16; ours is in what the plan of the base found faster."""
    a = ours.took
    name, b = min((("float32", whole.took), ("bfloat16", half.took)), key=lambda p: p[1].step)
    return Row(
        "steering, speed",
        f"{what}, seconds a step",
        f"{a.step:.3f} ({a.memory / 2**20:.0f} MiB)",
        f"{b.step:.3f} ({b.memory / 2**20:.0f} MiB) (TRL in {name})",
        b.step / a.step,
        f"at least {goal:g}x as fast",
        b.step >= goal * a.step,
        f"{a.steps} and {b.steps} steps",
    )


def frontier(what: str, ours: Side, theirs: Side, goal: bool, seconds: float = SECONDS) -> Row:
    def shown(s: Side) -> str:
        return f"{s.share:.3f} ± {2 * s.share_error:.3f} at {s.kl:.2f} ± {2 * s.kl_error:.2f} nats"

    reached = ours.share >= LEAST_SHARE and ours.kl <= MOST_KL
    return Row(
        "steering, share of vowels",
        f"{what}, {seconds:g} s of a core",
        shown(ours),
        f"{shown(theirs)} (TRL, {SECONDS:g} s)",
        goal=f"at least {LEAST_SHARE:g} at {MOST_KL:g} nats at most" if goal else "stated",
        reached=reached or not goal,
        n="512",
    )


def main() -> None:
    text = data_folder("tinyshakespeare") / "input.txt"
    folder = work_folder("steer")
    base = base_of(folder, text)
    prompts = prompts_of(text.read_text(), PAIRS)
    many = 100_000  # steps: the seconds end it
    grpo = Ask(str(folder / "hf"), "grpo", prompts, [], 64, 8, 32, 0.04, 3e-4, SECONDS, many, 1)
    dpo = replace(grpo, method="dpo", prompts=[], pairs=pairs_of(base, prompts), batch=32, beta=0.1, lr=1e-4)
    own = str(base.path)
    sides = {
        "trl_grpo": side("trl_grpo", "benchmarks.align.peers.trl", grpo, folder, base),
        "grpo": side(
            "grpo", "benchmarks.align.ours", replace(grpo, model=own, method="rloo", beta=0.0138, lr=2e-4), folder, base
        ),
        "grpo_longer": side(
            "grpo_longer",
            "benchmarks.align.ours",
            replace(grpo, model=own, method="rloo", beta=0.014, lr=2e-4, seconds=LONGER),
            folder,
            base,
        ),
        "trl_dpo": side("trl_dpo", "benchmarks.align.peers.trl", dpo, folder, base),
        "trl_grpo_bf16": side(
            "trl_grpo_bf16", "benchmarks.align.peers.trl", replace(grpo, bf16=True, seconds=30.0), folder, base
        ),
        "trl_dpo_bf16": side(
            "trl_dpo_bf16", "benchmarks.align.peers.trl", replace(dpo, bf16=True, seconds=30.0), folder, base
        ),
        "dpo": side("dpo", "benchmarks.align.ours", replace(dpo, model=own), folder, base),
    }
    save(
        "steer",
        [
            speed(
                "GRPO of 64 completions of 32 characters", sides["grpo"], sides["trl_grpo"], sides["trl_grpo_bf16"], 3.0
            ),
            speed("DPO of 32 pairs of 16 + 32 characters", sides["dpo"], sides["trl_dpo"], sides["trl_dpo_bf16"], 2.0),
            frontier("policy gradient", sides["grpo"], sides["trl_grpo"], True),
            frontier("policy gradient", sides["grpo_longer"], sides["trl_grpo"], True, LONGER),
            frontier("DPO", sides["dpo"], sides["trl_dpo"], False),
        ],
    )


BENCHMARKS = (Benchmark("steer", ("tinyshakespeare",), 20, main),)
