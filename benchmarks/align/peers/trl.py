"""TRL's GRPOTrainer and DPOTrainer on a folder in the Hugging Face layout; the steered model goes to FOLDER/model."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.processes import answer

WARM = 3  # steps that are not timed


@dataclass(frozen=True)
class Ask:
    """`pairs`: prompt, chosen, rejected; `prompts` for GRPO. It ends after `seconds` or `steps`, whichever is first."""

    model: str
    method: str
    prompts: list[str]
    pairs: list[list[str]]
    batch: int
    group: int
    length: int
    beta: float
    lr: float
    seconds: float
    steps: int
    threads: int
    bf16: bool = False
    wanted: str = ""  # a table of sentiments whose classifier is the reward; else the share of vowels
    seed: int = 0


@dataclass(frozen=True)
class Took:
    """Median seconds of a step, steps, seconds in all, and the largest resident memory in bytes."""

    step: float
    steps: int
    seconds: float
    memory: int


def vowels(text: str) -> float:
    return sum(c in "aeiouAEIOU" for c in text) / max(1, len(text))


def score_of(ask: Ask) -> Callable[[list[str]], list[float]]:
    """The reward of texts."""
    if ask.wanted:
        from benchmarks.align.judges import proxy

        return proxy(Path(ask.wanted))
    return lambda texts: [vowels(t) for t in texts]


def clock(limit: float) -> tuple[Any, list[float]]:
    """A callback that ends training after `limit` seconds, and the times at which steps ended."""
    from transformers import TrainerCallback

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            times.append(time.perf_counter())

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            times.append(time.perf_counter())
            control.should_training_stop = times[-1] - times[0] > limit

    return Clock(), times


def trainer(ask: Ask, callback: Any, folder: Path) -> Any:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(ask.model)
    model = AutoModelForCausalLM.from_pretrained(ask.model)
    shared: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": ask.batch,
        "max_steps": ask.steps,
        "learning_rate": ask.lr,
        "beta": ask.beta,
        "use_cpu": True,
        "bf16": ask.bf16,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1000,
        "seed": ask.seed,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
    }
    if ask.method == "grpo":
        config = GRPOConfig(**shared, num_generations=ask.group, max_completion_length=ask.length)
        data = Dataset.from_dict({"prompt": ask.prompts})
        score = score_of(ask)

        def reward(completions: list[str], **given: Any) -> list[float | None]:
            return [*score(completions)]

        return GRPOTrainer(model, reward, config, data, processing_class=tokenizer, callbacks=[callback])
    prompts, chosen, rejected = zip(*ask.pairs, strict=True)
    data = Dataset.from_dict({"prompt": list(prompts), "chosen": list(chosen), "rejected": list(rejected)})
    ref = AutoModelForCausalLM.from_pretrained(ask.model)
    return DPOTrainer(model, ref, DPOConfig(**shared), None, data, processing_class=tokenizer, callbacks=[callback])


def learn(ask: Ask, folder: Path) -> Took:
    """Steer for as long as was asked; the model goes to the folder."""
    import torch

    torch.set_num_threads(ask.threads)
    callback, times = clock(ask.seconds)
    made = trainer(ask, callback, folder)
    made.train()
    made.model.save_pretrained(folder / "model")
    made.processing_class.save_pretrained(folder / "model")
    gaps = sorted(b - a for a, b in zip(times[WARM:-1], times[WARM + 1 :], strict=True))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Took(gaps[len(gaps) // 2], len(times) - 1, times[-1] - times[0], memory)


if __name__ == "__main__":
    answer(Ask, learn)
