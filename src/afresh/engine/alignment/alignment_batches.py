"""Alignment by a reward or by votes: the requests, rewards, batches and evaluations of an alignment run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from afresh.core import (
    AlignContext,
    Aligner,
    AlignTarget,
    Batch,
    Cond,
    Examples,
    Family,
    ItemKind,
    SearchSpace,
    Space,
    UserError,
    Votes,
    events,
    registry,
)
from afresh.core.device import tensor_cores, wide
from afresh.core.rng import Rng
from afresh.data.load import gather
from afresh.data.prepare import Prepared
from afresh.data.text.kind import TEXT
from afresh.engine.alignment.feedback.preference_pairs import encoded_votes
from afresh.engine.alignment.feedback.preferences import PreferenceData, kind_of_item, read_votes, scan
from afresh.engine.alignment.monitoring.data_similarity import DataSimilarity
from afresh.engine.alignment.monitoring.distance_limit import WithinDistance, within_distance
from afresh.engine.alignment.monitoring.health import alarms, kl_limit_for, reward_fell
from afresh.engine.alignment.reward_cache import ASKED, AskedMemory, write_best
from afresh.engine.alignment.rewards.classifier_reward import classifier_folder
from afresh.engine.alignment.rewards.classifier_reward import known as known_rewards
from afresh.engine.alignment.rewards.reward import Context, Reward, Scorer, described
from afresh.engine.alignment.rewards.reward_expression import build
from afresh.engine.alignment.rewards.reward_model import load_reward_model
from afresh.engine.alignment.search_space import search_space
from afresh.engine.evaluation.diversity import diversity
from afresh.engine.sampling.request import Request, describe, encode_prompts, known, prompts_of
from afresh.engine.training import checkpoint, ranks
from afresh.engine.training.batch_source import heldout_loss
from afresh.engine.training.best_checkpoint import REWARD, STOP_ERRORS, BestCheckpoint, best_by_reward
from afresh.engine.training.loop import Learner, averaged
from afresh.engine.training.network import precision, to_device
from afresh.engine.training.weights import BaseWeights, adapters_merged
from afresh.runs.record import AlignRecord
from afresh.runs.run import Run, join, metrics_rows
from afresh.runs.signature import base_model_here

ROLLOUT_SEED = 1_000_033  # added to the seed, so that samples for training differ from those of users and evaluations
EVALUATION_SEED = 2_000_003
FAILURES = "reward-failures.jsonl"  # items that the reward has no value for, and why
REWARD_MODEL = "reward-model"  # the folder of the reward model that was trained on the votes
EVALUATION_SAMPLES = 64


class AlignmentSource:
    """A `BatchSource` whose batches come from a reward or from votes. It depends only on the run's record and data, so
    that a run can be resumed."""

    def __init__(self, run: Run, prepared: Prepared) -> None:
        assert run.record.align is not None
        self.run, self.prepared = run, prepared
        self.record: AlignRecord = run.record.align
        self.family: Family = run.family
        self.aligner: Aligner = registry.aligner(self.record.method, self.family)
        self.config: Any = run.values("align.config", self.aligner.config, self.record.config)
        self.settings: Any = run.values("align.settings", self.family.sampling.settings, self.record.settings)
        self.rng = Rng(run.record.seed + ROLLOUT_SEED)
        self.alarmed: set[str] = set()
        self.best: BestCheckpoint | None = None
        self.within: WithinDistance | None = None
        self.first: dict[str, float] | None = None
        self.base: Tensor | None = None  # the reference's samples for evaluations
        self.memory: AskedMemory | None = None  # of a method that searches

    # ------------------------------------------------------------------------------------------- modules and batches

    def learner(self) -> Learner:
        """The learner of the newest valid checkpoint. The best evaluation is tracked from here on."""
        run, train = self.run, self.run.train
        torch.manual_seed(train.seed)
        base = self.base_weights
        saved = checkpoint.newest(run.path / "checkpoints")
        modules = to_device(run.bounded(saved, base).build(run.config, run.space, run.conds), train.device)
        modules = base.apply(modules, train.seed)
        modules |= to_device(self.aligner.modules(self.config, modules), train.device)
        objective = self.aligner.objective(self.config, AlignTarget(*self.steered))
        learner = Learner(modules, objective, train, state=dict(self.aligner.first(self.config)))
        if saved is not None:
            learner.restore(saved)
        if missing := self.aligner.first(self.config).keys() - learner.state.keys():
            raise UserError(
                f"The checkpoint of step {learner.step:,} in {run.path} lacks the state {', '.join(sorted(missing))}. "
                "Restore a copy of it.",
                "damaged",
            )
        rows = metrics_rows(run)
        self.best = best_by_reward(run.path, learner, rows)
        if self.record.distance is not None:
            self.within = within_distance(run.path, self.record.distance, learner, rows)
        return learner

    @property
    def base_weights(self) -> BaseWeights:
        """The weights of the base model. Raises UserError if they are missing or damaged."""
        base = self.run.base_weights
        if base is None:
            raise UserError(f"base_sha256 in {self.run.path / 'run.json'} is missing. Restore a copy of it.", "damaged")
        return base

    @property
    def steered(self) -> tuple[Family, Any, Space, Any, Callable[[Tensor], Tensor] | None]:
        """The fields of core.AlignTarget."""
        run = self.run
        field = None if self.reward is None or run.codec is not None else self.reward.on_field
        return self.family, run.config, run.space, self.settings, field

    @cached_property
    def reference(self) -> dict[str, nn.Module]:
        """The modules of the base model, which are not trained."""
        base = self.base_weights
        built = to_device(self.family.build(self.run.config, self.run.space, self.run.conds), self.run.train.device)
        modules = BaseWeights(base.weights, None).apply(built, 0)
        for module in modules.values():
            module.eval().requires_grad_(False)
        return modules

    def batches(self, learner: Learner) -> Callable[[int, int], Batch]:
        """The function that returns batches to the training loop, given the index of the first example and the size."""
        run = self.run
        context = AlignContext(
            *self.steered,
            modules=learner.modules,
            reference=self.reference,
            rng=self.rng,
            noise=Rng(run.train.seed),
            requests=self.requests,
            state=lambda: learner.state,
            steps=lambda: learner.config.steps,
            examples=self.examples,
            reward=None if self.scorer is None else self.scored,
            votes=None if self.votes is None else self.votes[0],
            search=self.search,
        )
        batches = self.aligner.batches(self.config, context)

        def batch(first: int, size: int) -> Batch:
            with tensor_cores(learner.config.device), precision(learner.config):
                return batches(first, size)

        return batch

    @cached_property
    def search(self) -> SearchSpace | None:
        """The items themselves, for methods that propose some."""
        if self.scorer is None or not self.aligner.searches:
            return None
        score = self.scorer

        def memory(calls: int) -> AskedMemory:
            self.memory = AskedMemory(self.run.encoder.kind, score, calls, self.run.path / ASKED)
            return self.memory

        return search_space(self.run, self.example_items, self.values, memory, self.train.vary)

    def may_checkpoint(self, step: int) -> bool:
        """Whether a checkpoint may be made here, which is not the case between two uses of the same rollouts."""
        return step % self.aligner.reuse(self.config) == 0

    # ---------------------------------------------------------------------------------------------------- requests

    def requests(self, first: int, n: int) -> Cond:
        """The requests first ... first + n - 1: conditions drawn as in training, and prompts of texts."""
        return self.requests_of(first, n, self.rng)

    def requests_of(self, first: int, n: int, rng: Rng) -> Cond:
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
            start = (rng.uniform("align/cut", number).double() * (len(x) - cut)).long()
            stretches = list(x[start[:, None] + torch.arange(cut)].long())
            prompts = prompts_of(self.run.encoder, self.space)
            return known(cond, stretches if prompts is None else [prompts.prompt_in(row) for row in stretches])
        return cond

    def examples(self, first: int, n: int) -> tuple[Tensor, Cond]:
        """The examples first ... first + n - 1, drawn from the training split with replacement, in the form of samples.

        Raises UserError if samples are answers or continue given prompts, which the data does not have.
        """
        train, number = self.train, torch.arange(first, first + n)
        u = self.rng.uniform("align/examples", number).double()
        if train.mask is not None or self.record.prompts:
            raise UserError(
                "`align.source=data` uses training examples, which are not answers to these requests. Leave out "
                "`prompts`, or use `align.source=reference`."
            )
        if train.bounds is None:
            rows = (u * train.count).long()
            batch = gather(train, self.run.space, rows, number)
            return (batch.x[:, 1:] if self.run.space.kind == "tokens" else batch.x), batch.cond
        cut, length = self.record.prompt_tokens, int(self.settings.length)
        start = (u * (len(train.x) - cut - length)).long()
        x = train.x[start[:, None] + torch.arange(cut + length)].long()
        cond = train.cond.select(torch.searchsorted(train.bounds, start, right=True) - 1)
        return x[:, cut:], known(cond, list(x[:, :cut])) if cut else cond

    def example_items(self, first: int, n: int) -> Sequence[Any]:
        """The items first ... first + n - 1 of the training split, drawn with replacement; of texts that are not
        records, pieces as long as samples."""
        if self.train.bounds is not None and self.train.mask is None:
            return self.values(self.examples(first, n)[0])
        items = self.prepared.train_items
        u = self.rng.uniform("align/examples", torch.arange(first, first + n)).double()
        return [items[i].value for i in (u * len(items)).long().tolist()]

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

    # ------------------------------------------------------------------------------------------- rewards and votes

    @cached_property
    def context(self) -> Context:
        """Of rewards of the run's items; trained classifiers are saved in a folder of its base."""
        prepared, record = self.prepared, self.record
        classifiers = classifier_folder(base_model_here(self.run), self.run.path)
        known = known_rewards(prepared, prepared.kind, events.note, classifiers)
        items = [i.value for i in prepared.train_items]
        return Context(prepared.kind, items, record.reward_seconds, known=known, folder=record.working_folder)

    @cached_property
    def reward(self) -> Reward | None:
        """The reward that is optimised: the one that was named, or the reward model in the run's folder."""
        if self.record.preferences is not None and self.aligner.feeds != "preferences":
            return load_reward_model(self.run.path / REWARD_MODEL)
        return None if self.record.reward is None else build(self.record.reward, self.context)

    @cached_property
    def heldout_reward(self) -> Reward | None:
        return None if self.record.heldout_reward is None else build(self.record.heldout_reward, self.context)

    @cached_property
    def votes(self) -> tuple[Votes, Votes | None] | None:
        """Training and held-out votes. Raises UserError if the file has changed."""
        r = self.record
        if r.preferences is None or self.aligner.feeds != "preferences":
            return None
        path = Path(r.preferences)
        preferences = votes_of(self.run, path, self.context.kind)
        if hashlib.sha256(path.read_bytes()).hexdigest() != r.preferences_sha256:
            raise UserError(f"{r.preferences} has changed since this run began. Restore it, or start a new run.")
        return encoded_votes(self.run, preferences, events.note)

    @cached_property
    def scorer(self) -> Scorer | None:
        return None if self.reward is None else Scorer(self.reward, note=events.note, failed=self.failed)

    @cached_property
    def heldout_scorer(self) -> Scorer | None:
        return None if self.heldout_reward is None else Scorer(self.heldout_reward, note=events.note)

    def failed(self, item: Any, reason: str) -> None:
        """List an item that the reward has no value for."""
        with (self.run.path / FAILURES).open("a", encoding="utf-8") as lines:
            text = item if isinstance(item, str) else described(self.run.encoder.kind, item)
            lines.write(json.dumps({"item": text, "reason": reason}) + "\n")

    def scored(self, x: Tensor, cond: Cond) -> Tensor:
        """The rewards (B,) float64 of samples in the family's space. Processes that train together divide them."""
        assert self.scorer is not None
        rows = ranks.rows(len(x))
        own = self.by(self.scorer, self.values(x[rows]), cond.select(rows))
        return torch.cat([torch.tensor(r, dtype=torch.float64) for r in ranks.from_all(own.tolist())])

    def values(self, x: Tensor) -> Sequence[Any]:
        return self.run.encoder.decode(self.decoded(x))

    def by(self, scorer: Scorer, values: Sequence[Any], cond: Cond) -> Tensor:
        run, requests = self.run, None
        if run.conds or cond.known is not None:
            requests = describe(run.encoder, run.space, cond.to("cpu"), Request())
        return torch.from_numpy(scorer(values, requests))

    def open(self) -> None:
        """Build the rewards and read the votes now, so that errors are raised before training. Raises UserError."""
        for source in (self.reward, self.heldout_reward, self.votes):
            assert source is None or source

    def logged(self, metrics: Mapping[str, float]) -> dict[str, float]:
        train = self.run.record.train
        return tidied(metrics, train.batch * train.log_every)

    def close(self) -> None:
        """End the processes of rewards."""
        for reward in (self.__dict__.get("reward"), self.__dict__.get("heldout_reward")):
            if reward is not None:
                reward.close()

    # -------------------------------------------------------------------------------------------------- evaluations

    def check(self) -> None:
        """Evaluate the initial model, so that a method that cannot use the rewards or votes, or a reward that fails,
        raises an error before training starts and before anything is replaced."""
        learner = self.learner()
        self.batches(learner)
        self.first = self.metrics(learner)

    @torch.no_grad()
    def metrics(self, learner: Learner) -> dict[str, float]:
        """Metrics of samples of the current model, with the same requests and noise each time: both rewards, the
        distance from the base, the similarity to the data, and the diversity."""
        if learner.step == 0 and self.first is not None:
            return dict(self.first)
        rng = Rng(self.run.record.seed + EVALUATION_SEED)
        cond = self.requests_of(0, EVALUATION_SAMPLES, rng)
        out: dict[str, float] = {}
        with averaged(learner), adapters_merged(learner.modules) as modules:
            own = {k: m for k, m in modules.items() if k in self.reference}
            x, distance = self.drawn(own, cond, rng)
            values = self.values(x)
            out |= distance
            if self.votes is not None and self.votes[1] is not None:
                out["accuracy"] = self.accuracy(own, self.votes[1])
            asked = None if self.aligner.searches else self.scorer  # a search keeps to its budget of calls
            for name, scorer in (("reward", asked), ("heldout_reward", self.heldout_scorer)):
                if scorer is not None:
                    r = self.by(scorer, values, cond)
                    out[name] = float(r.mean())
                    out[f"{name}_error"] = float(r.std() / math.sqrt(len(r)))
        out |= self.data_similarity(values, x)
        out["diversity"] = diversity(self.run.encoder.kind, values, self.decoded(x))
        return out if self.memory is None else out | self.memory.summary()

    @cached_property
    def data_similarity(self) -> DataSimilarity:
        return DataSimilarity(self.prepared, self.run.codec)

    def decoded(self, x: Tensor) -> Tensor:
        """Samples in the space of the modality."""
        x = x.detach().float().cpu() if x.is_floating_point() else x.cpu()
        return x if self.run.codec is None else self.run.codec.decode(x)

    def drawn(self, modules: Mapping[str, nn.Module], cond: Cond, rng: Rng) -> tuple[Tensor, dict[str, float]]:
        """Samples and their distance from the reference: the divergence in nats if the likelihood of each step is
        known, otherwise the distance from the reference's samples for the same requests and noise."""
        run, policy = self.run, self.family.policy
        index = torch.arange(cond.size)
        device = next(p for m in modules.values() for p in m.parameters()).device
        given = modules, run.config, run.space, cond.to(device), rng, index.to(device), self.settings
        with precision(run.train):
            if policy is None or policy.rollout is None or policy.steps is None:
                x = self.family.sampling.sample(*given).cpu()
                if self.base is None:
                    self.base = self.family.sampling.sample(self.reference, *given[1:]).cpu()
                return x, {"distance_from_base": distance_from_base(x, self.base, run.space)}
            rollout = policy.rollout(*given)
            ref = policy.steps(self.reference, run.config, run.space, rollout.batch)
        kl = (rollout.logp - ref.logp).masked_fill(~ref.mask, 0).sum(1)
        return rollout.x.cpu(), {"kl": float(kl.mean()), "kl_error": float(kl.std() / math.sqrt(len(kl)))}

    def accuracy(self, modules: Mapping[str, nn.Module], held: Votes) -> float:
        """The share of held-out pairs for which the log-probability of the preferred side rose more than the
        other's."""
        run, policy = self.run, self.family.policy
        assert policy is not None and policy.score is not None
        device, correct = next(p for m in modules.values() for p in m.parameters()).device, 0
        for rows in torch.arange(len(held)).split(64):
            gains = []
            for side in (held.win, held.lose):
                batch = replace(side.select(rows), index=rows).to(device)
                with precision(run.train):
                    now, base = (
                        policy.score(m, run.config, run.space, batch, Rng(EVALUATION_SEED))
                        for m in (modules, self.reference)
                    )
                gains.append(now - base)
            correct += int((gains[0] > gains[1]).sum())
        return correct / len(held)

    def evaluate(self, learner: Learner) -> dict[str, float]:
        """`metrics`, and the loss of the family's own objective on held-out data. Stores the best weights so far."""
        run, metrics = self.run, dict[str, float]()
        if self.family.likelihood is not None and not self.aligner.searches:  # which is meant to leave the data
            objective = self.family.objective(run.config, run.space)
            metrics["heldout_loss"] = heldout_loss(learner, objective, self.heldout, self.space)
        if not ranks.leads():
            return metrics
        metrics |= self.metrics(learner)
        for best in (self.best, self.within):
            if best is not None:
                best.update(learner, metrics)
        return metrics

    def stop_reason(self, learner: Learner) -> str:
        """The reason why training should end here, or an empty string. Raises a warning for each new alarm."""
        if learner.step == learner.config.steps:
            return ""
        for alarm in alarms(metrics_rows(self.run), kl_limit_for(self.record.asked_distance)):
            if alarm.name not in self.alarmed:
                self.alarmed.add(alarm.name)
                events.warning(alarm.message, "alarm", name=alarm.name)
        if self.within is not None and (reason := self.within.stop_reason(learner)):
            return reason
        return reward_fell(learner.looks.get(REWARD, []), errors=STOP_ERRORS)

    def replacement(self, learner: Learner) -> tuple[dict[str, Tensor], str] | None:
        """The weights that sampling should use instead of the last ones: those before the distance was exceeded, or
        those with the best held-out reward."""
        ways = (best.replacement(learner) for best in (self.within, self.best) if best is not None)
        return next((way for way in ways if way is not None), None)

    def finish(self, learner: Learner) -> None:
        """Write the best items of a search. Nothing else: fitting the base model's calibration to the data again would
        undo the alignment."""
        if self.memory is not None and self.memory.items:
            events.note(write_best(self.run, self.memory), "best_items")


def alignment_source(run: Run, prepared: Prepared) -> AlignmentSource:
    """The batch source of an alignment run. Raises UserError if its reward or its votes cannot be used."""
    source = AlignmentSource(run, prepared)
    source.open()
    return source


def votes_of(run: Run, path: Path, kind: ItemKind) -> PreferenceData:
    """The votes of a file. Raises UserError if they are on another kind of items than those of the run."""
    for vote in scan(path, TEXT).votes[:8]:  # read as texts, because texts may look like paths
        other = kind_of_item(vote.a, None if kind.inline else kind)
        if other is not kind and (not kind.inline or (not other.inline and (path.parent / vote.a).is_file())):
            raise UserError(
                f"{path} has votes on {other.plural}, but {run.path} makes {kind.plural}. Give votes on {kind.plural}."
            )
    return read_votes(path, kind)


def distance_from_base(x: Tensor, base: Tensor, space: Space) -> float:
    """The distance of samples (B, ...) from the base's samples from the same noise.

    For fields it is the mean squared difference, in variances of the data, which is about 2 for independent samples;
    for tokens, the share of different ones, where the longest of the one may be longer than that of the other.
    """
    if not x.is_floating_point():
        now, then = join((x, base), space).split(len(x))
        return float(wide(now != then).mean())
    return float((wide(x) - wide(base)).square().mean() / space.std**2)


def tidied(metrics: Mapping[str, float], samples: int) -> dict[str, float]:
    """The metrics of a step, means over `samples` samples, as they are logged: without the prefixes of players, and
    with deviations and standard errors instead of mean squares."""
    out = {k.removeprefix("policy/"): v for k, v in metrics.items()}
    out |= {name: v for k, v in metrics.items() if (name := k.rpartition("/")[2]) in ("reward", "best")}
    for name, spread_name in (("reward", "reward_deviation"), ("kl", "kl_error")):
        if f"{name}2" in out and name in out:
            spread = math.sqrt(max(0.0, out.pop(f"{name}2") - out[name] ** 2))
            out[spread_name] = spread if name == "reward" else spread / math.sqrt(max(1, samples))
    return out
