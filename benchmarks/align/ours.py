"""Our side of the benchmark `steer`, `python -m benchmarks.align.ours FOLDER`, and the judge of both sides."""

from __future__ import annotations

import json
import math
import resource
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tests.named_settings import named
from torch import nn

from afresh.core import Cond
from afresh.core.rng import Rng
from afresh.engine.alignment.alignment_batches import AlignmentSource
from afresh.engine.sampling.request import encode_prompts
from afresh.engine.training.loop import averaged, take_step
from afresh.engine.training.network import precision
from afresh.runs.formats.load import load_base
from afresh.runs.run import Run
from afresh.verbs.align import AlignSpec, start
from benchmarks.align.judges import unseen
from benchmarks.align.peers.trl import WARM, Ask, Took, score_of
from benchmarks.common.processes import answer

HALF = 2000  # samples: of the average of the weights, in the place of a rate that goes down
JUDGED = 512  # samples that a steered model is judged on


def learn(ask: Ask, folder: Path) -> Took:
    """Steer, by the parts of `afresh align`, for as long as was asked; the weights go to the folder."""
    torch.set_num_threads(ask.threads)
    (folder / "votes.jsonl").write_text(
        "".join(json.dumps({"prompt": p, "a": a, "b": b, "winner": "a"}) + "\n" for p, a, b in ask.pairs)
    )
    (folder / "reward.py").write_text(
        "def share(texts: list[str]) -> list[float]:\n"
        "    return [sum(c in 'aeiouAEIOU' for c in t) / max(1, len(t)) for t in texts]\n"
    )
    rewarded = ask.method != "dpo"
    wanted = f"class:positive@{ask.wanted}" if ask.wanted else f"{folder / 'reward.py'}:share"
    spec = AlignSpec(
        Path(ask.model),
        method=ask.method,
        reward=wanted if rewarded else None,
        preferences=None if rewarded else folder / "votes.jsonl",
        prompt_tokens=16 if rewarded else 0,
        settings=named(
            sample={"length": ask.length},
            align={"beta": ask.beta, **({"group": ask.group} if rewarded else {})},
            train={"batch": ask.batch, "lr": ask.lr, "threads": ask.threads, "ema_half_life": HALF if rewarded else 0},
        ),
        steps=ask.steps,
        seed=ask.seed,
        out=folder / "run",
        force=True,
    )
    job = start(spec)
    assert isinstance(job.source, AlignmentSource)
    learner = job.source.learner()
    batches = job.source.batches(learner)
    begun, gaps = time.perf_counter(), []
    while learner.step < ask.steps and time.perf_counter() - begun < ask.seconds:
        now = time.perf_counter()
        take_step(learner, batches(learner.step * ask.batch, ask.batch), Rng(ask.seed))
        learner.step += 1
        gaps.append(time.perf_counter() - now)
    seconds = time.perf_counter() - begun
    with averaged(learner):
        decoder = learner.modules["decoder"].state_dict()
        save_file({k: v.contiguous() for k, v in decoder.items()}, folder / "ours.safetensors")
    job.source.close()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    timed = sorted(gaps[WARM:]) or [0.0]
    return Took(timed[len(timed) // 2], len(gaps), seconds, memory)


def weights(folder: Path, base: Run) -> dict[str, nn.Module]:
    """The steered model: ours, or TRL's as our reader of such folders sees it."""
    built = base.family.build(base.config, base.space, base.conds)
    if (folder / "ours.safetensors").is_file():
        built["decoder"].load_state_dict(load_file(folder / "ours.safetensors"))
    else:
        rows = {k: len(w) for k, w in built["decoder"].state_dict().items()}
        read = load_base(str(folder / "model"))  # with tokens for single bytes behind the base's own
        built["decoder"].load_state_dict({k: w[: rows[k]] for k, w in read.weights.items()})
    return {k: m.eval().requires_grad_(False) for k, m in built.items()}


def judge(folder: Path, base: Run) -> dict[str, float]:
    """What a model's texts earn after beginnings of 16 characters that it has not seen, and KL to the base in nats a
    sample, both with standard errors; float32. Beside a table of sentiments lies that of the judge nobody learnt
    from."""
    policy = base.family.policy
    assert policy is not None and policy.rollout is not None and policy.steps is not None
    modules = weights(folder, base)
    ask = Ask(**json.loads((folder / "ask.json").read_text()))
    torch.set_num_threads(ask.threads)
    held = held_of(base)
    score = score_of(ask)
    prompts = [held[i : i + 16] for i in range(0, 16 * 6 * JUDGED, 96)][:JUDGED]
    cond = encode_prompts(base.encoder, base.space, Cond(JUDGED), prompts)[0]
    far: list[torch.Tensor] = []
    texts: list[str] = []
    plain = base.train.model_copy(update={"precision": "float32"})
    with torch.no_grad(), precision(plain):
        for rows in torch.arange(JUDGED).split(64):
            settings = base.family.sampling.settings(length=ask.length)
            made = policy.rollout(modules, base.config, base.space, cond.select(rows), Rng(77), rows, settings)
            now, ref = (policy.steps(m, base.config, base.space, made.batch) for m in (modules, base.modules))
            far.append((now.logp - ref.logp).sum(1))
            texts += base.encoder.decode(made.x)
    shares, kl, error = score(texts), torch.cat(far), math.sqrt(JUDGED)
    found: dict[str, list[float]] = {"share": shares, "kl": kl.tolist()}
    if ask.wanted:
        found["heldout_reward"] = unseen(Path(ask.wanted).with_name("unseen.jsonl"))(texts)
    (folder / "texts.json").write_text(json.dumps(texts[:40], indent=1))
    out = {k: float(np.mean(v)) for k, v in found.items()}
    return out | {f"{k}_error": float(np.std(v)) / error for k, v in found.items()}


def held_of(base: Run) -> str:
    """Text that the base was not trained on, nor a side steered on: the end of its file."""
    return Path(base.record.data.path).read_text()[-100_000:]


if __name__ == "__main__":
    answer(Ask, learn)
