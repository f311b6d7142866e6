"""Learning from a reward or from votes: the requests, rewards, batches and evaluations of a run that is aligned."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from afresh.alignment.feedback.preference_pairs import encoded_votes
from afresh.alignment.feedback.preferences import Preferences, kind_of_item, read_votes, scan
from afresh.alignment.monitoring.data_similarity import DataSimilarity
from afresh.alignment.monitoring.health import alarms, stop_reason
from afresh.alignment.rewards.build import build
from afresh.alignment.rewards.classifier_reward import classifier_folder
from afresh.alignment.rewards.classifier_reward import known as known_rewards
from afresh.alignment.rewards.reward import Context, Reward, Scorer
from afresh.alignment.rewards.reward_model import load_reward_model
from afresh.core import (
    AlignContext,
    Aligner,
    AlignTarget,
    Batch,
    Cond,
    Examples,
    Family,
    ItemKind,
    Space,
    UserError,
    Votes,
    events,
    registry,
)
from afresh.core.rng import Rng
from afresh.data.load import gather
from afresh.data.prepare import Prepared
from afresh.data.text.kind import TEXT
from afresh.evaluation.diversity import diversity
from afresh.runs.record import AlignRecord
from afresh.runs.run import Run, metrics_rows
from afresh.sampling.request import Request, describe, encode_prompts, known
from afresh.training import checkpoint
from afresh.training.batch_source import heldout_loss
from afresh.training.best_checkpoint import STOP_ERRORS, BestCheckpoint, best_by_reward
from afresh.training.loop import Learner, averaged, precision
from afresh.training.plan import placed
from afresh.training.weights import BaseWeights, adapters_merged

ROLLOUTS = 1_000_033  # added to the seed: what is learnt from is not what a user, a preview or a judge draws
LOOKS = 2_000_003
REWARD_MODEL = "reward-model"  # the folder of a model of the votes
LOOKED_AT = 64  # samples of an evaluation


class AlignmentSource:
    """A `BatchSource` whose batches come from a reward or from votes. Everything is made from the run's record and its
    data, so that it can be resumed."""

    def __init__(self, run: Run, prepared: Prepared) -> None:
        assert run.record.align is not None
        self.run, self.prepared = run, prepared
        self.record: AlignRecord = run.record.align
        self.family: Family = run.family
        self.aligner: Aligner = registry.aligner(self.record.method, self.family)
        self.config: Any = self.aligner.config(**self.record.config)
        self.settings: Any = self.family.sampling.settings(**self.record.settings)
        self.rng = Rng(run.record.seed + ROLLOUTS)
        self.alarmed: set[str] = set()
        self.best: BestCheckpoint | None = None
        self.first: dict[str, float] | None = None
        self.base: Tensor | None = None  # what the reference draws at a look

    # ------------------------------------------------------------------------------------------------ what is learnt

    def learner(self) -> Learner:
        """Everything needed to go on, as of the newest good checkpoint; from here on evaluations are followed."""
        run, train = self.run, self.run.train
        torch.manual_seed(train.seed)
        base = run.base_weights
        assert base is not None
        modules = placed(self.family.build(run.config, run.space, run.conds), train.device)
        modules = base.apply(modules, train.seed)
        modules |= placed(self.aligner.modules(self.config, modules), train.device)
        objective = self.aligner.objective(self.config, AlignTarget(*self.steered))
        made = Learner(modules, objective, train, state=dict(self.aligner.first(self.config)))
        saved = checkpoint.newest(run.path / "checkpoints")
        if saved is not None:
            made.restore(saved)
        self.best = best_by_reward(run.path, metrics_rows(run))
        return made

    @property
    def steered(self) -> tuple[Family, Any, Space, Any, Callable[[Tensor], Tensor] | None]:
        """The fields of core.AlignTarget."""
        run = self.run
        field = None if self.reward is None or run.codec is not None else self.reward.on_field
        return self.family, run.config, run.space, self.settings, field

    @cached_property
    def reference(self) -> dict[str, nn.Module]:
        """What the run began as."""
        base = self.run.base_weights
        assert base is not None
        built = placed(self.family.build(self.run.config, self.run.space, self.run.conds), self.run.train.device)
        made = BaseWeights(base.weights, None).apply(built, 0)
        for module in made.values():
            module.eval().requires_grad_(False)
        return made

    def batches(self, learner: Learner) -> Callable[[int, int], Batch]:
        """The stream of batches that the loop asks for, by the number of the first draw."""
        run = self.run
        world = AlignContext(
            *self.steered,
            modules=learner.modules,
            reference=self.reference,
            rng=self.rng,
            noise=Rng(run.train.seed),
            requests=self.requests,
            state=lambda: learner.state,
            examples=self.examples,
            reward=None if self.scorer is None else self.scored,
            votes=None if self.votes is None else self.votes[0],
        )
        made = self.aligner.batches(self.config, world)

        def batch(first: int, size: int) -> Batch:
            with precision(learner.config):
                return made(first, size)

        return batch

    def may_checkpoint(self, step: int) -> bool:
        """Whether a checkpoint may be made here: rollouts that are learnt from several times are not parted."""
        return step % self.aligner.reuse(self.config) == 0

    # ------------------------------------------------------------------------------------------------ what is asked

    def requests(self, first: int, n: int) -> Cond:
        """Requests number first ... first + n - 1: conditions as in training, and the beginnings of texts."""
        return self.asked(first, n, self.rng)

    def asked(self, first: int, n: int, rng: Rng) -> Cond:
        conditions = self.run.conditions
        number = torch.arange(first, first + n)
        rows = (rng.uniform("align/conditions", number) * conditions.size).long()
        cond = conditions.select(rows)
        if self.record.prompts:
            which = (rng.uniform("align/prompts", number) * len(self.record.prompts)).long().tolist()
            texts = [self.record.prompts[i] for i in which]
            return encode_prompts(self.run.encoder, self.run.space, cond, texts)[0]
        if self.record.prompt_tokens:
            x, cut = self.train.x, self.record.prompt_tokens
            at = (rng.uniform("align/cut", number).double() * (len(x) - cut)).long()
            return known(cond, list(x[at[:, None] + torch.arange(cut)].long()))
        return cond

    def examples(self, first: int, n: int) -> tuple[Tensor, Cond]:
        """Examples of the training split number first ... first + n - 1, drawn with replacement, as samples would be.

        Raises UserError where samples are answers or go on with given prompts: the data has none of those.
        """
        train, number = self.train, torch.arange(first, first + n)
        u = self.rng.uniform("align/examples", number).double()
        if train.mask is not None or self.record.prompts:
            raise UserError(
                "source=data learns from what the data holds, which has no answers to these requests. Leave out "
                "`prompts`, or take `align.source=reference`."
            )
        if train.bounds is None:
            rows = (u * len(train.x)).long()
            x = gather(train, self.run.space, rows, number).x
            return (x[:, 1:] if self.run.space.kind == "tokens" else x), train.cond.select(rows)
        cut, length = self.record.prompt_tokens, int(self.settings.length)
        at = (u * (len(train.x) - cut - length)).long()
        x = train.x[at[:, None] + torch.arange(cut + length)].long()
        cond = train.cond.select(torch.searchsorted(train.bounds, at, right=True) - 1)
        return x[:, cut:], known(cond, list(x[:, :cut])) if cut else cond

    @property
    def space(self) -> Space:
        return self.run.training_space

    @cached_property
    def train(self) -> Examples:
        codec = self.run.codec
        return self.prepared.train if codec is None else codec.encode(self.prepared.train)

    @cached_property
    def heldout(self) -> Examples:
        codec = self.run.codec
        return self.prepared.heldout if codec is None else codec.encode(self.prepared.heldout)

    # ------------------------------------------------------------------------------------------------ what is wanted

    @cached_property
    def context(self) -> Context:
        judges = classifier_folder(self.run.record.base_model, self.run.path)
        return context_of(self.prepared, self.record.reward_seconds, events.note, judges)

    @cached_property
    def reward(self) -> Reward | None:
        """What is learnt from: as it was named, or the model of the votes in the run's folder."""
        if self.record.preferences is not None and self.aligner.feeds != "preferences":
            return load_reward_model(self.run.path / REWARD_MODEL)
        return None if self.record.reward is None else build(self.record.reward, self.context)

    @cached_property
    def heldout_reward(self) -> Reward | None:
        return None if self.record.heldout_reward is None else build(self.record.heldout_reward, self.context)

    @cached_property
    def votes(self) -> tuple[Votes, Votes | None] | None:
        """What is learnt from, and what is held out. Raises UserError where the file is not what it was."""
        r = self.record
        if r.preferences is None or self.aligner.feeds != "preferences":
            return None
        path = Path(r.preferences)
        found = votes_of(self.run, path, self.context.kind)
        if hashlib.sha256(path.read_bytes()).hexdigest() != r.preferences_sha256:
            raise UserError(f"{r.preferences} is not what this run began with. Restore it, or align anew.")
        return encoded_votes(self.run, found, events.note)

    @cached_property
    def scorer(self) -> Scorer | None:
        return None if self.reward is None else Scorer(self.reward, note=events.note)

    @cached_property
    def heldout_scorer(self) -> Scorer | None:
        return None if self.heldout_reward is None else Scorer(self.heldout_reward, note=events.note)

    def scored(self, x: Tensor, cond: Cond) -> Tensor:
        """The reward of samples in the family's space, (B,) float64."""
        assert self.scorer is not None
        return self.by(self.scorer, self.values(x), cond)

    def values(self, x: Tensor) -> Sequence[Any]:
        return self.run.encoder.decode(self.decoded(x))

    def by(self, scorer: Scorer, values: Sequence[Any], cond: Cond) -> Tensor:
        run, said = self.run, None
        if run.conds or cond.known is not None:
            said = describe(run.encoder, run.space, cond.to("cpu"), Request())
        return torch.from_numpy(scorer(values, said))

    def open(self) -> None:
        """Make what is learnt from now: what is wrong with it shows before anything is spent. Raises UserError."""
        for made in (self.reward, self.heldout_reward, self.votes):
            assert made is None or made

    def logged(self, metrics: Mapping[str, float]) -> dict[str, float]:
        train = self.run.record.train
        return tidied(metrics, train.batch * train.log_every)

    def close(self) -> None:
        """End what rewards keep running."""
        for reward in (self.__dict__.get("reward"), self.__dict__.get("heldout_reward")):
            if reward is not None:
                reward.close()

    # ------------------------------------------------------------------------------------------------ how it goes

    def first_look(self) -> None:
        """Look at what the run begins as: a method that can learn nothing from what there is, and a reward that fails,
        say so before anything is spent, or replaced."""
        learner = self.learner()
        self.batches(learner)
        self.first = self.look(learner)

    @torch.no_grad()
    def look(self, learner: Learner) -> dict[str, float]:
        """The model as it is now, on the same requests and noise each time: both rewards, how far it has come from the
        base, how like the data its samples are, how unlike one another."""
        if learner.step == 0 and self.first is not None:
            return dict(self.first)
        rng = Rng(self.run.record.seed + LOOKS)
        cond = self.asked(0, LOOKED_AT, rng)
        found: dict[str, float] = {}
        with averaged(learner), adapters_merged(learner.modules) as modules:
            own = {k: m for k, m in modules.items() if k in self.reference}
            x, far = self.drawn(own, cond, rng)
            values = self.values(x)
            found |= far
            if self.votes is not None and self.votes[1] is not None:
                found["accuracy"] = self.ordered(own, self.votes[1])
            for name, scorer in (("reward", self.scorer), ("heldout_reward", self.heldout_scorer)):
                if scorer is not None:
                    r = self.by(scorer, values, cond)
                    found[name] = float(r.mean())
                    found[f"{name}_error"] = float(r.std() / math.sqrt(len(r)))
        found |= self.likeness(values, x)
        found["diversity"] = diversity(self.run.encoder.kind, values, self.decoded(x))
        return found

    @cached_property
    def likeness(self) -> DataSimilarity:
        return DataSimilarity(self.prepared, self.run.codec)

    def decoded(self, x: Tensor) -> Tensor:
        """Samples in the modality's space."""
        x = x.detach().float().cpu() if x.is_floating_point() else x.cpu()
        return x if self.run.codec is None else self.run.codec.decode(x)

    def drawn(self, modules: Mapping[str, nn.Module], cond: Cond, rng: Rng) -> tuple[Tensor, dict[str, float]]:
        """Samples, and how far they are from the reference: in nats where each step's likelihood is known, and else by
        what the reference draws for the same requests of the same noise."""
        run, policy = self.run, self.family.policy
        index = torch.arange(cond.size)
        device = next(p for m in modules.values() for p in m.parameters()).device
        given = modules, run.config, run.space, cond.to(device), rng, index.to(device), self.settings
        with precision(run.train):
            if policy is None or policy.rollout is None or policy.steps is None:
                x = self.family.sampling.sample(*given).cpu()
                if self.base is None:
                    self.base = self.family.sampling.sample(self.reference, *given[1:]).cpu()
                return x, {"distance_from_base": distance_from_base(x, self.base, run.space.std)}
            made = policy.rollout(*given)
            ref = policy.steps(self.reference, run.config, run.space, made.batch)
        kl = (made.logp - ref.logp).masked_fill(~ref.mask, 0).sum(1)
        return made.x.cpu(), {"kl": float(kl.mean()), "kl_error": float(kl.std() / math.sqrt(len(kl)))}

    def ordered(self, modules: Mapping[str, nn.Module], held: Votes) -> float:
        """The share of pairs held out whose preferred side gained more than the other."""
        run, policy = self.run, self.family.policy
        assert policy is not None and policy.score is not None
        device, right = next(p for m in modules.values() for p in m.parameters()).device, 0
        for rows in torch.arange(len(held)).split(64):
            gains = []
            for side in (held.win, held.lose):
                batch = replace(side.select(rows), index=rows).to(device)
                with precision(run.train):
                    now, base = (
                        policy.score(m, run.config, run.space, batch, Rng(LOOKS)) for m in (modules, self.reference)
                    )
                gains.append(now - base)
            right += int((gains[0] > gains[1]).sum())
        return right / len(held)

    def evaluate(self, learner: Learner) -> dict[str, float]:
        """`look`, and the loss of the family's own objective on held-out data; stores the best weights so far."""
        run, metrics = self.run, dict[str, float]()
        if self.family.likelihood is not None:
            objective = self.family.objective(run.config, run.space)
            metrics["heldout_loss"] = heldout_loss(learner, objective, self.heldout, self.space)
        metrics |= self.look(learner)
        if self.best is not None:
            self.best.update(learner, metrics)
        return metrics

    def stop_reason(self, learner: Learner) -> str:
        """Why training should end here, by what was seen so far, or an empty string; each alarm is raised once."""
        if learner.step == learner.config.steps:
            return ""
        rows = metrics_rows(self.run)
        for alarm in alarms(rows):
            if alarm.name not in self.alarmed:
                self.alarmed.add(alarm.name)
                events.warning(alarm.message, "alarm", name=alarm.name)
        return stop_reason(rows, errors=STOP_ERRORS)

    def rewind(self, step: int) -> None:
        if self.best is not None:
            self.best.rewind(step)

    def replacement(self, learner: Learner) -> tuple[dict[str, Tensor], str] | None:
        return None if self.best is None else self.best.replacement(learner)

    def finish(self, learner: Learner) -> None:
        """What the base model fitted to its data is kept: fitted again, it would undo the alignment."""


def alignment_source(run: Run, prepared: Prepared) -> AlignmentSource:
    """The source of a run that is aligned. Raises UserError if its reward or its votes cannot be used."""
    source = AlignmentSource(run, prepared)
    source.open()
    return source


def context_of(prepared: Prepared, limit: float, note: Callable[[str], None], judges: Path | None = None) -> Context:
    """What rewards of a run's items are made from; `judges` is where classifiers are kept."""
    items, kind = [i.value for i in prepared.train_items], prepared.kind
    return Context(kind, items, limit, known=known_rewards(prepared, kind, note, judges))


def votes_of(run: Run, path: Path, kind: ItemKind) -> Preferences:
    """The votes of a file. Raises UserError for those on what the run does not make."""
    for vote in scan(path, TEXT).votes[:8]:  # taken for texts: those that look like paths may be texts
        other = kind_of_item(vote.a, None if kind.inline else kind)
        if other is not kind and (not kind.inline or (other is not TEXT and (path.parent / vote.a).is_file())):
            raise UserError(
                f"{path} has votes on {other.plural}, and {run.path} makes {kind.plural}. Give votes on {kind.plural}."
            )
    return read_votes(path, kind)


def distance_from_base(x: Tensor, base: Tensor, std: float) -> float:
    """How far samples (B, ...) are from the base's of the same noise: of fields the mean squared difference, in
    variances of the data, which is about 2 between samples that have nothing to do with one another; of tokens the
    share that are others."""
    if not x.is_floating_point():
        return float((x != base).double().mean())
    return float((x.double() - base.double()).square().mean() / std**2)


def tidied(metrics: Mapping[str, float], samples: int) -> dict[str, float]:
    """What is logged of a step's means: deviations instead of squares, one name for one thing. `samples`: how many."""
    out = {k.removeprefix("policy/"): v for k, v in metrics.items()}
    out |= {name: v for k, v in metrics.items() if (name := k.rpartition("/")[2]) in ("reward", "best")}
    for name, said in (("reward", "reward_deviation"), ("kl", "kl_error")):
        if f"{name}2" in out and name in out:
            spread = math.sqrt(max(0.0, out.pop(f"{name}2") - out[name] ** 2))
            out[said] = spread if name == "reward" else spread / math.sqrt(max(1, samples))
    return out
