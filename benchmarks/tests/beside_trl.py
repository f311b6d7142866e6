"""A tiny model that learns here and in TRL's trainers, from the same weights, samples and optimiser.

It is build by transformers and opened here as any folder of weights is. What TRL's trainer was given in each step is
written down (`trained`), for ours to be given the same.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tests.runs.formats.models import BPE, CONTEXT, build, transformers, write_tokenizer

from afresh.core import AlignContext, Aligner, AlignTarget, Cond, Family, Modules, Space, registry
from afresh.core.rng import Rng
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner
from afresh.runs.formats.base import decoder_of
from afresh.runs.formats.load import load_base
from tests import needs

trl = needs.package("trl", "'trl>=1.16'", minversion="1.16")
datasets = needs.package("datasets", "datasets")

STEPS, LR, BETAS, END = 5, 1e-3, (0.9, 0.95), BPE.special["end"]


class Opened(NamedTuple):
    """The model as our program has it: what learns, what it is compared with."""

    family: Family
    config: Any
    space: Space
    modules: Modules
    reference: Modules

    @property
    def about(self) -> tuple[Any, ...]:
        return self.family, self.config, self.space, self.family.sampling.settings()


def saved(root: Path, kind: str) -> Path:
    """ROOT/model and ROOT/reference, which is not quite the same, so that margins are not 0 at first."""
    torch.set_num_threads(1)
    model = build(kind)
    for name in ("model", "reference"):
        model.save_pretrained(root / name)
        write_tokenizer(BPE, root / name, CONTEXT, END)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.02 * torch.randn_like(p))
    return root


def opened(folder: Path) -> Opened:
    """TRL's policy gives every token its chance, and ours none to those that begin and pad: it is told of none here."""
    base, reference = (load_base(folder / name) for name in ("model", "reference"))
    space = replace(base.space, special={"end": END})
    family = registry.family("transformer")
    return Opened(family, base.config, space, {"decoder": decoder_of(base)}, {"decoder": decoder_of(reference)})


def theirs(folder: Path, name: str = "model") -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32)


def settings(folder: Path, batch: int, steps: int = STEPS) -> dict[str, Any]:
    """Of a TRL trainer: float32, AdamW at a constant rate, no decay, and a clip that is only there to be logged."""
    return {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": batch,
        "max_steps": steps,
        "learning_rate": LR,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch",
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "adam_epsilon": 1e-8,
        "weight_decay": 0.0,
        "max_grad_norm": 1e9,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def trained(kind: Any, folder: Path, *given: Any, data: Any) -> tuple[list[dict[str, Any]], list[dict[str, float]]]:
    """What a trainer of this kind learnt from in each step, and what it logged."""
    seen: list[dict[str, Any]] = []

    class Watched(kind):
        def compute_loss(self, model: Any, inputs: dict[str, Any], *more: Any, **how: Any) -> Any:
            seen.append(inputs)
            return super().compute_loss(model, inputs, *more, **how)

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    trainer = Watched(*given, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    return seen, [line for line in trainer.state.log_history if "loss" in line]


def learner_of(method: str, found: Opened, batch: int, micro: int, **given: Any) -> tuple[Learner, Aligner, Any]:
    """Our learner of the same settings, what its batches are build by, and its config."""
    aligner = registry.aligner(method, found.family)
    config = aligner.config(**given)
    train = TrainConfig(
        steps=STEPS,
        batch=batch,
        micro_batch=micro,
        save_every=1,
        lr=LR,
        betas=BETAS,
        warmup=0,
        decay=0.0,
        clip=0.0,
        cond_dropout=0.0,
    )
    objective = aligner.objective(config, AlignTarget(*found.about))
    return Learner(found.modules, objective, train, state=dict(aligner.first(config))), aligner, config


def world_of(found: Opened, learner: Learner, **more: Any) -> AlignContext:
    return AlignContext(
        *found.about,
        modules=found.modules,
        reference=found.reference,
        rng=Rng(0),
        noise=Rng(0),
        requests=lambda first, n: Cond(n),
        state=lambda: learner.state,
        **more,
    )


def agree(ours: list[float], trls: list[float], atol: float = 1e-5) -> None:
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(trls), rtol=1e-4, atol=atol)
    assert len(set(trls)) == len(trls), "nothing was learnt"


def pairs(n: int) -> Any:
    """Prompts and two answers each, of different lengths."""
    r = random.Random(0)
    words = ["The", "cat", "sat", "on", "the", "mat,", "and", "12", "dogs", "ran."]

    def text(low: int, high: int) -> str:
        return " ".join(r.choices(words, k=r.randint(low, high)))

    rows = [(text(2, 5), " " + text(1, 9), " " + text(1, 9)) for _ in range(n)]
    return datasets.Dataset.from_dict(dict(zip(("prompt", "chosen", "rejected"), zip(*rows, strict=True), strict=True)))
