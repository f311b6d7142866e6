"""Training throughput of the 10M-parameter decoder against Hugging Face transformers, same shapes, same machine.

Both train a Llama-shaped decoder (6 layers, 384 wide, 6 heads, context 256, 32 sequences a step, vocabulary 65) with
AdamW (theirs) or the recipe's Muon (ours); whole steps are timed, warm-up and compilation apart and stated.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from afresh.core import Batch, Cond, Space
from afresh.core.rng import Rng
from afresh.engine.families.transformer import FAMILY, TransformerConfig
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import take_step
from afresh.engine.training.plan import make_learner
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.results import Row, save

WIDTH, LAYERS, HEADS, CONTEXT, BATCH, VOCAB = 384, 6, 6, 256, 32, 65
TOKENS = CONTEXT * BATCH


def timed(step: Callable[[], object], repeats: int) -> tuple[float, float]:
    """(seconds of the first call, tokens a second by the median of the next)."""
    start = time.perf_counter()
    step()
    first = time.perf_counter() - start
    step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return first, TOKENS / statistics.median(times)


def theirs(precision: str, repeats: int) -> tuple[float, float]:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=1024,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=CONTEXT,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x = torch.randint(VOCAB, (BATCH, CONTEXT))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(input_ids=x, labels=x).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return timed(step, repeats)


def ours(compiled: bool, repeats: int) -> tuple[float, float]:
    space = Space("tokens", (CONTEXT,), (VOCAB,), {"end": 0, "begin": 0}, stream=True)
    config = TransformerConfig(width=WIDTH, layers=LAYERS, heads=HEADS, kv_heads=HEADS)
    train = TrainConfig(
        steps=1000,
        batch=BATCH,
        micro_batch=1024
        // CONTEXT,  # as the planner does for a decoder of this size (afresh.engine.training.plan.micro_of)
        save_every=1000,
        precision="bfloat16",
        compile=compiled,
        threads=torch.get_num_threads(),
        **FAMILY.plan.recipe(space),
    )
    learner = make_learner(FAMILY, config, space, {}, train)
    batch = Batch(torch.randint(VOCAB, (BATCH, CONTEXT + 1)), Cond(BATCH), torch.arange(BATCH))
    rng = Rng(0)

    def step() -> None:
        take_step(learner, batch, rng)

    return timed(step, repeats)


def main() -> None:
    repeats = 5
    found = {
        "afresh, compiled": ours(True, repeats),
        "afresh, eager": ours(False, repeats),
        "float32": theirs("float32", repeats),
        "bfloat16": theirs("bfloat16", repeats),
    }
    for name, (first, rate) in found.items():
        print(f"{name}: {rate:,.0f} tokens/s; first step {first:.1f} s", flush=True)
    first, best = max((found["afresh, compiled"], found["afresh, eager"]), key=lambda f: f[1])
    rows = []
    for precision, goal in (("float32", 3.0), ("bfloat16", 1.5)):
        rate = found[precision][1]
        rows.append(
            Row(
                "10M decoder, training",
                f"tokens a second; compiling took {first:.0f} s",
                f"{best:,.0f}",
                f"{rate:,.0f} (transformers, {precision})",
                best / rate,
                f"at least {goal}x",
                best >= goal * rate,
                f"median of {repeats}",
            )
        )
    save("throughput", rows)


BENCHMARKS = (Benchmark("throughput", (), 2, main),)
