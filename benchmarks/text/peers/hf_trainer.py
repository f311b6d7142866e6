"""The peer of the language benchmarks: Hugging Face Trainer with a small Qwen3, its own bf16 option, tuned lightly.

As its language-modelling examples do it, the text is one stream cut into blocks; AdamW at 2e-3 with warm-up and linear
decay, 4 blocks of 256 tokens a step, which beat larger batches, lower rates and larger networks at budgets of minutes.
The budget pays for training alone: measuring how many steps fit, which sets the decay, is free.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common.processes import answer
from torch import Tensor

CONTEXT, BATCH, TRIAL = 256, 4, 40


@dataclass(frozen=True)
class Ask:
    """Token ids in .npy files; what is held out, by name; the network's sizes; the seconds it may train."""

    train: str
    heldout: dict[str, str]
    vocab: int
    width: int
    layers: int
    heads: int
    seconds: float
    lr: float = 2e-3
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """Nats, summed over every held-out token but the first, by name."""

    parameters: int
    steps: int
    seconds: float
    nats: dict[str, float] = field(default_factory=dict)


class Blocks(torch.utils.data.Dataset):
    def __init__(self, ids: Tensor) -> None:
        self.x = ids[: len(ids) // CONTEXT * CONTEXT].view(-1, CONTEXT)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"input_ids": self.x[i], "labels": self.x[i]}


def network(ask: Ask) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(ask.seed)
    config = Qwen3Config(
        vocab_size=ask.vocab,
        hidden_size=ask.width,
        intermediate_size=-(-ask.width * 8 // 3 // 32) * 32,
        num_hidden_layers=ask.layers,
        num_attention_heads=ask.heads,
        num_key_value_heads=ask.heads,
        head_dim=ask.width // ask.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        use_cache=False,
    )
    return Qwen3ForCausalLM(config)


def fit(ask: Ask, blocks: Blocks, steps: int, folder: Path) -> tuple[Any, int, float]:
    """(model, steps taken, seconds) of a training of `steps`, or until the seconds are over."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    model = network(ask)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=ask.lr,
        lr_scheduler_type="linear",
        warmup_steps=min(100, max(1, steps // 20)),
        adam_beta2=0.95,
        weight_decay=0.1,
        bf16=True,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        logging_steps=10**9,
        disable_tqdm=True,
        seed=ask.seed,
    )

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if time.perf_counter() - begun > ask.seconds:
                control.should_training_stop = True

    trainer = Trainer(model, arguments, train_dataset=blocks, callbacks=[Clock()])
    begun = time.perf_counter()
    trainer.train()
    return model, trainer.state.global_step, time.perf_counter() - begun


@torch.no_grad()
def nats(model: Any, ids: Tensor) -> float:
    """Of every token but the first, in windows that do not overlap."""
    total = 0.0
    count = -(-(len(ids) - 1) // CONTEXT)
    for first in range(0, count, 16):
        rows = [ids[i * CONTEXT : (i + 1) * CONTEXT + 1] for i in range(first, min(first + 16, count))]
        for length in {len(r) for r in rows}:
            x = torch.stack([r for r in rows if len(r) == length])
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(input_ids=x[:, :-1]).logits
            total += float(torch.nn.functional.cross_entropy(logits.float().mT, x[:, 1:], reduction="sum"))
    return total


def learn(ask: Ask, folder: Path) -> Answer:
    ids = torch.from_numpy(np.load(ask.train).astype(np.int64))
    blocks, out = Blocks(ids), folder / "trainer"
    _, steps, seconds = fit(ask, blocks, TRIAL, out)
    model, steps, seconds = fit(ask, blocks, math.ceil(ask.seconds / seconds * steps), out)
    model.eval()
    found = {k: nats(model, torch.from_numpy(np.load(p).astype(np.int64))) for k, p in ask.heldout.items()}
    return Answer(sum(p.numel() for p in model.parameters()), steps, seconds, found)


if __name__ == "__main__":
    answer(Ask, learn)
