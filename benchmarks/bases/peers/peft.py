"""LoRA by PEFT and the Trainer of transformers, on the folder of a model: `python -m benchmarks.bases.peers.peft
FOLDER` takes the steps that FOLDER/ask.json asks for, in turns."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.folders import write_json
from benchmarks.common.turns import Turns

PACKAGES = ("peft", "accelerate")


@dataclass(frozen=True)
class Ask:
    """`turns` of so many `steps`, each of `batch` examples of `length` tokens. `targets`: the names of the layers in
    transformers that get an adapter."""

    model: str
    targets: list[str]
    rank: int
    alpha: float
    batch: int
    length: int
    precision: str
    turns: int
    steps: int
    rate: float = 1e-4

    @property
    def total(self) -> int:
        return self.turns * self.steps


def train(ask: Ask, folder: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from tests.peak import peak_memory
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    turns = Turns(folder, ask.steps)

    class InTurn(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            turns.begin(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            turns.end(state.global_step - 1)

    model = AutoModelForCausalLM.from_pretrained(ask.model, dtype=torch.float32)
    vocab = model.config.vocab_size
    tokens = torch.randint(vocab, (ask.total * ask.batch, ask.length), generator=torch.Generator().manual_seed(0))
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=ask.batch,
        max_steps=ask.total,
        learning_rate=ask.rate,
        weight_decay=0.0,
        lr_scheduler_type="constant",
        use_cpu=True,
        bf16=ask.precision == "bfloat16",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    adapter = LoraConfig(r=ask.rank, lora_alpha=ask.alpha, target_modules=ask.targets, task_type="CAUSAL_LM")
    trainer = Trainer(
        get_peft_model(model, adapter),
        arguments,
        train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
        callbacks=[InTurn()],
    )
    trainer.train()
    learnt = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    write_json(folder / "answer.json", {"memory": peak_memory(), "learnt": learnt})


if __name__ == "__main__":
    import json

    where = Path(sys.argv[1])
    train(Ask(**json.loads((where / "ask.json").read_text())), where)
