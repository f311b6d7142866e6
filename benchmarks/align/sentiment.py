"""A model of TinyStories steered to positive sentiment, beside TRL's GRPO in the same minutes of a core.

The base is a Transformer trained here on a piece of TinyStories; TRL opens the same weights from our export. The reward
is a classifier of words trained on half of sentiment_rt; another, of characters and trained on the other half, is the
judge that nobody learns from. Each side has the same batch (64 texts of 32 tokens, 8 for a beginning of 16 characters)
and time; TRL runs with two penalties. What counts is what is earned at a divergence: ours is to be above the line
between the base and each of TRL's points, by both judges.
"""

from __future__ import annotations

import gzip
from dataclasses import replace

from benchmarks.align.judges import halves
from benchmarks.align.peers.trl import Ask
from benchmarks.align.steer import Side, base_of, prompts_of, side
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import data_folder, work_folder
from benchmarks.common.results import Row, save

SECONDS = 120.0
END = "<|endoftext|>"


def shown(s: Side) -> str:
    return (
        f"{s.share:.3f} ± {2 * s.share_error:.3f} "
        f"(unseen {s.heldout_reward:.3f} ± {2 * s.heldout_reward_error:.3f}) "
        f"at {s.kl:.1f} ± {2 * s.kl_error:.1f} nats"
    )


def above(ours: Side, theirs: Side, base: Side) -> bool:
    """Whether ours earns more than a mixture of base and theirs would at our divergence, by both judges; theirs itself
    where it is nearer to the base than ours."""
    share = min(1.0, ours.kl / max(theirs.kl, 1e-9))
    return all(
        getattr(ours, k) > getattr(base, k) + share * (getattr(theirs, k) - getattr(base, k))
        for k in ("share", "heldout_reward")
    )


def main() -> None:
    data, folder = data_folder(), work_folder("sentiment")
    folder.mkdir(parents=True, exist_ok=True)
    packed = gzip.decompress((data / "tinystories" / "tinystories_train.txt.gz").read_bytes()).decode()
    text = folder / "stories.txt"
    if not text.exists():
        text.write_text(packed.replace(END, ""))
    seen, _ = halves(data, folder)
    base = base_of(folder, text)
    prompts = prompts_of(text.read_text(), 2000)
    ask = Ask(str(folder / "hf"), "grpo", prompts, [], 64, 8, 32, 0.04, 3e-4, SECONDS, 100_000, 1, wanted=str(seen))
    own = replace(ask, model=str(base.path), method="rloo", lr=2e-4)
    sides = {
        "base": side("base", "benchmarks.align.ours", replace(own, steps=1, seconds=0.0), folder, base),
        "trl .04": side("trl_04", "benchmarks.align.peers.trl", ask, folder, base),
        "trl .2": side("trl_2", "benchmarks.align.peers.trl", replace(ask, beta=0.2), folder, base),
        "ours .05": side("ours_05", "benchmarks.align.ours", replace(own, beta=0.05), folder, base),
        "ours .1": side("ours_1", "benchmarks.align.ours", replace(own, beta=0.1), folder, base),
    }
    rows = []
    for name in ("ours .05", "ours .1"):
        beside = "; ".join(f"{k}: {shown(sides[k])}" for k in ("base", "trl .04", "trl .2"))
        ahead = all(above(sides[name], sides[k], sides["base"]) for k in ("trl .04", "trl .2"))
        what = f"probability of positive, beta {name.split()[1]}, {SECONDS:g} s of a core"
        rows.append(
            Row(
                "steering, sentiment",
                what,
                shown(sides[name]),
                beside,
                goal="above TRL at that KL",
                reached=ahead,
                n="512",
            )
        )
    save("sentiment", rows)


BENCHMARKS = (Benchmark("sentiment", ("tinystories", "sentiment_rt"), 20, main),)
