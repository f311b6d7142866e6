"""Steering step by step beside TRL: the same weights, samples and optimiser give the same losses, margins, gradients.

A tiny Llama or Qwen3, made by transformers and opened here as any folder of weights is, learns here and in TRL's
trainers. What TRL's trainer was given in each step is written down and given to ours, so that the sequences are the
same: TRL puts the tokenizer's first token before a prompt and ends each answer of a pair with the end token. What
differs by design is converted, and the docstrings say how. Agreement is relative, and each step's is of weights that
all steps before it have moved.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from afresh import catalog
from afresh.control.advantages import grpo, rloo
from afresh.control.pairs import kto
from afresh.core import Batch, Cond, Family, Modules, Rollout, Space, Steered, Votes, World
from afresh.formats.base import decoder_of, load_base
from afresh.rng import Rng
from afresh.training.config import TrainConfig
from afresh.training.loop import Learner, take_step

trl = pytest.importorskip("trl", minversion="1.16")
datasets = pytest.importorskip("datasets")

from tests.formats.models import BPE, CONTEXT, made, transformers, write_tokenizer  # noqa: E402

STEPS, LR, BETAS, END = 5, 1e-3, (0.9, 0.95), BPE.special["end"]
PLAIN = "ignore::FutureWarning"


class Opened(NamedTuple):
    """The model as our program has it: what learns, what it is compared with."""

    family: Family
    config: Any
    space: Space
    modules: Modules
    reference: Modules

    @property
    def about(self) -> tuple[Any, ...]:
        return self.family, self.config, self.space, self.family.settings()


@pytest.fixture(scope="module", params=["llama"])
def folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """FOLDER/model and FOLDER/reference, which is not quite the same, so that margins are not 0 at first."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("trl")
    model = made(request.param)
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
    family = catalog.family("transformer")
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


def trained(kind: Any, *given: Any, **named: Any) -> tuple[list[dict[str, Any]], list[dict[str, float]], Any]:
    """What a trainer of this kind learnt from in each step, what it logged, and itself."""
    seen: list[dict[str, Any]] = []

    class Watched(kind):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: dict[str, Any], *more: Any, **how: Any) -> Any:
            seen.append(inputs)
            return super().compute_loss(model, inputs, *more, **how)

    trainer = Watched(*given, **named)
    trainer.train()
    return seen, [line for line in trainer.state.log_history if "loss" in line], trainer


def learner_of(method: str, found: Opened, batch: int, micro: int, **given: Any) -> tuple[Learner, Any, Any]:
    aligner = catalog.aligner(method, found.family)
    config = aligner.config(**given)
    train = TrainConfig(
        steps=STEPS,
        batch=batch,
        micro=micro,
        save_every=1,
        lr=LR,
        betas=BETAS,
        warmup=0,
        decay=0.0,
        clip=0.0,
        null_rate=0.0,
    )
    objective = aligner.objective(config, Steered(*found.about))
    return Learner(found.modules, objective, train, state=dict(aligner.first(config))), aligner, config


def world_of(found: Opened, learner: Learner, **more: Any) -> World:
    return World(
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


# --------------------------------------------------------------------------- pairs


def pairs(n: int) -> Any:
    """Prompts and two answers each, of different lengths."""
    r = random.Random(0)
    words = "The cat sat on the mat, and 12 dogs ran.".split()

    def text(low: int, high: int) -> str:
        return " ".join(r.choices(words, k=r.randint(low, high)))

    rows = [(text(2, 5), " " + text(1, 9), " " + text(1, 9)) for _ in range(n)]
    return datasets.Dataset.from_dict(dict(zip(("prompt", "chosen", "rejected"), zip(*rows, strict=True), strict=True)))


def sides(inputs: dict[str, Any]) -> tuple[Batch, Batch]:
    """Both sides of TRL's pairs, in one batch or apart, as rows of one width with a mask of what is an answer's."""
    if "input_ids" in inputs:
        x, counted = inputs["input_ids"], inputs["completion_mask"].bool()
        assert bool((x[:, 0] == END).all()), "the tokenizer's first token is before the prompt"
        halves = list(zip(x.chunk(2), counted.chunk(2), strict=True))
    else:
        halves = [(inputs[f"{k}_input_ids"], inputs[f"{k}_labels"] != -100) for k in ("chosen", "rejected")]
    width = max(x.shape[1] for x, _ in halves)
    out = []
    for x, counted in halves:
        more = (0, width - x.shape[1])
        x, counted = torch.nn.functional.pad(x, more, value=END), torch.nn.functional.pad(counted, more)
        last = counted.shape[1] - 1 - counted.flip(1).int().argmax(1)
        assert bool((x.gather(1, last[:, None]) == END).all()), "and the end token after the answer"
        out.append(Batch(x, Cond(len(x)), torch.arange(len(x)), counted[:, 1:]))
    return out[0], out[1]


def steered(method: str, found: Opened, seen: list[dict[str, Any]], **given: Any) -> Iterator[dict[str, float]]:
    """Our metrics of each step, on TRL's pairs in two micro-batches."""
    size = len(sides(seen[0])[0].x)
    learner, aligner, config = learner_of(method, found, size, -(-size // 2), **given)
    for inputs in seen:
        votes = Votes(*sides(inputs), torch.zeros(size, dtype=torch.bool))
        made = aligner.batches(config, world_of(found, learner, votes=votes))
        rows = torch.arange(size)
        metrics = take_step(learner, made.judged(made.at(rows, rows), rows), Rng(0))
        assert metrics is not None
        learner.step += 1
        yield metrics


def a_mean(found: Opened) -> Opened:
    """With log-probabilities divided by the number of steps."""
    policy = found.family.policy
    assert policy is not None and policy.score is not None
    score = policy.score

    def mean(modules: Modules, config: Any, space: Space, batch: Batch, rng: Rng) -> Tensor:
        assert batch.mask is not None
        return score(modules, config, space, batch, rng) / batch.mask.sum(1)

    return found._replace(family=replace(found.family, policy=replace(policy, score=mean)))


@pytest.mark.filterwarnings(PLAIN)
@pytest.mark.parametrize("folder", ["llama", "qwen3"], indirect=True)
def test_dpo(folder: Path, tmp_path: Path) -> None:
    check_pairs(folder, tmp_path, "dpo", {"loss_type": ["sigmoid"]}, {})


@pytest.mark.filterwarnings(PLAIN)
@pytest.mark.parametrize(
    ("method", "batch", "trls", "ours"),
    [
        ("robust", 4, {"loss_type": ["robust"], "label_smoothing": 0.2}, {"flipped": 0.2}),
        # TRL's sigmoid no longer knows label_smoothing. Of a single pair, AOT, which sorts a batch's, is cDPO.
        ("cdpo", 1, {"loss_type": ["aot"], "label_smoothing": 0.2}, {"flipped": 0.2}),
        # Of a single pair, since TRL's `sft` takes the mean over all tokens of a batch, and `keep` within each sample.
        ("dpo", 1, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}, {"keep": 0.5}),
    ],
)
def test_dpo_that_expects_wrong_votes_or_keeps_what_it_likes(
    folder: Path, tmp_path: Path, method: str, batch: int, trls: dict[str, Any], ours: dict[str, Any]
) -> None:
    check_pairs(folder, tmp_path, method, trls, ours, batch)


def check_pairs(
    folder: Path, out: Path, method: str, trls: dict[str, Any], ours: dict[str, Any], batch: int = 4
) -> None:
    config = trl.DPOConfig(**settings(out, batch), beta=0.1, **trls)
    seen, logged, _ = trained(
        trl.DPOTrainer,
        theirs(folder),
        theirs(folder, "reference"),
        config,
        train_dataset=pairs(STEPS * batch),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder / "model"),
    )
    found = list(steered(method, opened(folder), seen, beta=0.1, **ours))
    agree([m["loss"] for m in found], [m["loss"] for m in logged])
    agree([m["margin"] for m in found], [m["rewards/margins"] for m in logged])
    agree([0.1 * m["win_gain"] for m in found], [m["rewards/chosen"] for m in logged])
    agree([m["gradient_norm"] for m in found], [m["grad_norm"] for m in logged])


@pytest.mark.filterwarnings(PLAIN)
def test_ipo(folder: Path, tmp_path: Path) -> None:
    """TRL's IPO is of means over tokens: given log-probabilities divided by the lengths, ours is the same, as its
    docstring says. TRL logs margins of sums all the same, which are therefore not compared. Ours as it is, of sums,
    is another loss."""
    config = trl.DPOConfig(**settings(tmp_path, 4), beta=0.1, loss_type=["ipo"])
    seen, logged, _ = trained(
        trl.DPOTrainer,
        theirs(folder),
        theirs(folder, "reference"),
        config,
        train_dataset=pairs(STEPS * 4),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder / "model"),
    )
    found = list(steered("ipo", a_mean(opened(folder)), seen, beta=0.1))
    agree([m["loss"] for m in found], [m["loss"] for m in logged])
    agree([m["gradient_norm"] for m in found], [m["grad_norm"] for m in logged])
    of_sums = next(steered("ipo", opened(folder), seen, beta=0.1))
    assert abs(of_sums["loss"] / logged[0]["loss"] - 1) > 0.1


@pytest.mark.filterwarnings(PLAIN)
def test_simpo(folder: Path, tmp_path: Path) -> None:
    """In TRL a variant of CPO without its likelihood term. Its margins are before gamma, as ours are."""
    cpo = pytest.importorskip("trl.experimental.cpo")
    config = cpo.CPOConfig(**settings(tmp_path, 4), beta=2.0, loss_type="simpo", simpo_gamma=1.0, cpo_alpha=0.0)
    seen, logged, _ = trained(
        cpo.CPOTrainer,
        theirs(folder),
        config,
        train_dataset=pairs(STEPS * 4),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder / "model"),
    )
    found = list(steered("simpo", opened(folder), seen, beta=2.0, gamma=1.0))
    agree([m["loss"] for m in found], [m["loss"] for m in logged])
    agree([m["margin"] for m in found], [m["rewards/margins"] for m in logged])
    agree([m["gradient_norm"] for m in found], [m["grad_norm"] for m in logged])


@pytest.mark.filterwarnings(PLAIN)
def test_kto(folder: Path, tmp_path: Path) -> None:
    """Loss, point of reference and gradient of one step.

    Not step by step, for TRL estimates the point of reference from answers to other prompts, `aligners.pairs` from the
    batch's own: `control.pairs.kto` is given TRL's, worked out here from the rows that TRL made for it.
    """
    rows = pairs(8)
    wanted = [True, False, True, True, False, True, True, False]
    answers = [row["chosen"] for row in rows]
    config = trl.KTOConfig(**settings(tmp_path, 8, 1), beta=0.1, desirable_weight=1.0, undesirable_weight=1.5)
    seen, logged, _ = trained(
        trl.KTOTrainer,
        theirs(folder),
        theirs(folder, "reference"),
        config,
        train_dataset=datasets.Dataset.from_dict({"prompt": rows["prompt"], "completion": answers, "label": wanted}),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder / "model"),
    )
    (inputs,), (line,) = seen, logged
    found = opened(folder)
    policy = found.family.policy
    assert policy is not None and policy.score is not None

    def score(modules: Modules, prefix: str) -> Tensor:
        x, mask = inputs[f"{prefix}input_ids"], inputs[f"{prefix}completion_mask"][:, 1:].bool()
        assert policy is not None and policy.score is not None
        return policy.score(modules, found.config, found.space, Batch(x, Cond(len(x)), torch.arange(len(x)), mask), R0)

    with torch.no_grad():
        ref = score(found.reference, "")
        z0 = (score(found.modules, "KL_") - score(found.reference, "KL_")).mean()
    losses, rewards = kto(score(found.modules, ""), ref, inputs["label"].bool(), z0, 0.1, (1.0, 1.5))
    losses.mean().backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in found.modules["decoder"].parameters() if p.grad is not None])
    assert line["kl"] > 0
    good = rewards[inputs["label"].bool()].mean()
    agree([float(losses.mean().detach()), float(z0)], [line["loss"], line["kl"]])
    agree([float(good), float(norm)], [line["rewards/chosen"], line["grad_norm"]])


R0 = Rng(0)

# --------------------------------------------------------------------------- policy gradients


class Given:
    """Answers that are given instead of drawn, and what they are worth: TRL and ours learn from the same."""

    def __init__(self, low: int, high: int, worth: float) -> None:
        self.r, self.low, self.high, self.worth = random.Random(1), low, high, worth
        self.made: list[tuple[list[list[int]], list[list[int]]]] = []

    def answers(self, prompts: list[list[int]]) -> list[list[int]]:
        """Of tokens of text alone, which begin where the special ones end."""
        tokens = [i for i in range(BPE.size) if i not in BPE.special.values()]
        found = [self.r.choices(tokens, k=self.r.randint(self.low, self.high)) for _ in prompts]
        self.made.append(([list(p) for p in prompts], found))
        return found

    def reward(self, completions: list[str], completion_ids: list[list[int]], **more: Any) -> list[float]:
        return [self.worth * (sum(ids) % 97) / 97 for ids in completion_ids]

    def trainer(self, kind: Any, with_logs: bool) -> Any:
        given = self

        class Fed(kind):  # type: ignore[misc]
            def _generate_single_turn(self, prompt_ids: list[list[int]], *more: Any) -> Any:
                found = given.answers(prompt_ids)
                return (found, None) if with_logs else found

        return Fed

    def family(self, found: Opened) -> tuple[Family, Callable[[Tensor, Cond], Tensor]]:
        """Ours, whose rollouts are those that TRL had, in turn; and their rewards."""
        policy, left = found.family.policy, list(self.made)
        assert policy is not None and policy.steps is not None
        steps, worth = policy.steps, []

        def rollout(modules: Modules, config: Any, space: Space, cond: Cond, *more: Any) -> Rollout:
            prompts, answers = left.pop(0)
            worth[:] = self.reward([], answers)
            width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
            x = torch.tensor([[*p, *a, *[END] * (width - len(p) - len(a))] for p, a in zip(prompts, answers, strict=True)])
            mask = torch.zeros(len(x), width - 1, dtype=torch.bool)
            for row, p, a in zip(mask, prompts, answers, strict=True):
                row[len(p) - 1 : len(p) - 1 + len(a)] = True
            batch = Batch(x, cond, torch.arange(len(x)), mask)
            return Rollout(x, batch, steps(modules, config, space, batch).logp.detach())

        return replace(found.family, policy=replace(policy, rollout=rollout)), lambda x, cond: torch.tensor(worth)


def prompts(n: int) -> Any:
    return datasets.Dataset.from_dict({"prompt": pairs(n)["prompt"]})


def rolled(method: str, found: Opened, given: Given, **how: Any) -> Iterator[tuple[dict[str, float], Batch]]:
    """Our metrics of each step on eight samples, and the batch."""
    family, reward = given.family(found)
    found = found._replace(family=family)
    learner, aligner, config = learner_of(method, found, 8, 4, **how)
    batches = aligner.batches(config, world_of(found, learner, reward=reward))
    for step in range(STEPS):
        batch = batches(step * 8, 8)
        metrics = take_step(learner, batch, Rng(0))
        assert metrics is not None
        learner.step += 1
        yield metrics, batch


def sorted_advantages(batches: list[Any]) -> list[Tensor]:
    """TRL shuffles a batch, which changes no mean."""
    return [(b["advantages"] if isinstance(b, dict) else b.extras["advantage"][:, 0]).sort().values for b in batches]


@pytest.mark.filterwarnings(PLAIN)
@pytest.mark.parametrize("loss_type", ["bnpo", "dapo"])
def test_grpo(folder: Path, tmp_path: Path, loss_type: str) -> None:
    """Each rollout is learnt from twice, so that ratios move and are clipped; `bnpo` and `dapo` are TRL's names for the
    mean over all tokens. Without a penalty, which TRL puts into the loss and `aligners.policy` into the reward. Rewards
    of hundreds make nothing of the 1e-4 that TRL adds to a deviation, and of the 1e-6 here."""
    given = Given(3, 9, 1000.0)
    config = trl.GRPOConfig(
        **settings(tmp_path, 8),
        num_generations=4,
        num_iterations=2,
        max_completion_length=16,
        loss_type=loss_type,
        epsilon=0.2,
        epsilon_high=0.28,
        beta=0.0,
    )
    seen, logged, _ = trained(
        given.trainer(trl.GRPOTrainer, True),
        str(folder / "model"),
        given.reward,
        config,
        train_dataset=prompts(8),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder / "model"),
    )
    found = list(rolled("grpo", opened(folder), given, beta=0.0, group=4, reuse=2, clip=0.2, clip_high=0.28))
    agree([m["loss"] for m, _ in found], [m["loss"] for m in logged])
    agree([m["gradient_norm"] for m, _ in found], [m["grad_norm"] for m in logged])
    for ours, trls in zip(sorted_advantages([b for _, b in found]), sorted_advantages(seen), strict=True):
        torch.testing.assert_close(ours, trls, rtol=1e-4, atol=1e-5)
    assert any(m["clipped"] > 0.05 for m, _ in found), "no ratio was clipped"
    assert any(m["clip_ratio/region_mean"] > 0.05 for m in logged)


@pytest.mark.filterwarnings(PLAIN)
def test_rloo_pays_for_the_divergence_in_the_reward(folder: Path, tmp_path: Path) -> None:
    """Advantages with the penalty in them, step by step. TRL's loss is a mean over samples of whole samples' ratios and
    ours over tokens: for samples of the policy itself, all of one length, its gradient is ours times that length, which
    AdamW does not see."""
    given, length = Given(6, 6, 1.0), 6
    config = trl.RLOOConfig(**settings(tmp_path, 8), num_generations=4, max_completion_length=16, beta=0.1)
    fed = given.trainer(trl.RLOOTrainer, False)

    class Compared(fed):  # type: ignore[misc, valid-type]
        """Its reference is the model as it was; here another."""

        def _prepare_inputs(self, batch: Any) -> Any:
            self.ref_model.load_state_dict(theirs(folder, "reference").state_dict())
            return super()._prepare_inputs(batch)

    seen, logged, _ = trained(
        Compared,
        str(folder / "model"),
        given.reward,
        config,
        train_dataset=prompts(16),
        processing_class=transformers.AutoTokenizer.from_pretrained(folder / "model"),
    )
    found = list(rolled("rloo", opened(folder), given, beta=0.1, group=4))
    for ours, trls in zip(sorted_advantages([b for _, b in found]), sorted_advantages(seen), strict=True):
        torch.testing.assert_close(ours, trls, rtol=1e-4, atol=1e-5)
    agree([m["kl"] / length for m, _ in found], [m["kl"] for m in logged])
    agree([length * m["gradient_norm"] for m, _ in found], [m["grad_norm"] for m in logged])
