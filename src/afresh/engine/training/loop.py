"""The training loop, for objectives with one or more players (sets of modules that are trained in turn)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from afresh.core import Batch, Objective, State, events
from afresh.core.device import read, tensor_cores
from afresh.core.errors import Diverged, Interrupted, UserError
from afresh.core.plural import counted
from afresh.core.rng import Rng
from afresh.engine.nets.kernels import functions as kernels
from afresh.engine.training import checkpoint, ranks
from afresh.engine.training.budget import DOES_NOT_FIT, free_unused, is_out_of_memory
from afresh.engine.training.checkpoint import Progress, progress_of
from afresh.engine.training.checkpoint_saver import CheckpointSaver
from afresh.engine.training.compiling import first_reason, undo_compile
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.ema import Average, ema_decay, flat, follow, refill
from afresh.engine.training.looks import Looks, looks_until
from afresh.engine.training.network import precision
from afresh.engine.training.optim import AdamW, Muon, is_matrix
from afresh.engine.training.rank_pace import Paces, RankPace
from afresh.engine.training.schedule import rate, share_left
from afresh.engine.training.sharding import (
    Division,
    divided,
    own_part,
    total_norm,
    whole,
    whole_for_leader,
)
from afresh.engine.training.weights import learnt, load_learnt, under


@dataclass
class Learner:
    """Everything that changes during training, which is what a checkpoint holds."""

    modules: Mapping[str, nn.Module]
    objective: Objective
    config: TrainConfig
    averages: Average = field(default_factory=dict)
    optimizers: dict[str, list[Muon | AdamW]] = field(default_factory=dict)  # player -> optimisers
    state: State = field(default_factory=dict)
    division: Division | None = None  # of a network that is divided over processes
    step: int = 0
    since: int = 0  # the step at which the number of steps was last changed ...
    left: float = 1.0  # ... and the share of training that was left there (schedule.share_left)
    skipped: int = 0  # non-finite steps in a row
    rollbacks: int = 0
    lr_scale: float = 1.0
    sums: dict[str, float] = field(default_factory=dict)  # of metrics since the last logged step
    count: int = 0  # steps in `sums`
    stopped: str = ""  # why training was stopped before its last step, if it was ...
    stopped_at: int | None = None  # ... and the step; None where training went on all the same
    looks: Looks = field(default_factory=dict)  # what such a decision rests on
    scaler: torch.amp.GradScaler | None = None  # of losses in float16, whose small gradients would vanish
    overflows: int = 0  # steps that were skipped because the scaled gradient exceeded float16
    # Of batches that are grouped by length: player -> the targets of all that it took a step on, and their examples.
    seen_targets: dict[str, tuple[float, int]] = field(default_factory=dict)
    fitting: int | None = None  # examples of a micro-batch that fit the device's memory, once one did not

    def __post_init__(self) -> None:
        for player, names in self.objective.players.items():
            params = {f"{m}.{k}": p for m in names for k, p in self.modules[m].named_parameters() if p.requires_grad}
            self.optimizers[player] = make_optimizers(params, self.config)
        if self.config.ema_half_life > 0:
            self.averages = self.fresh_average()
        if self.config.precision == "float16":
            self.scaler = fresh_scaler(self.config.device)

    @property
    def early_due(self) -> bool:
        """Whether the last step was the one after which the early weights are stored."""
        config, after = self.config, 1 - self.config.early
        left = [share_left(s, config.steps, self.since, self.left) for s in (self.step - 1, self.step)]
        return config.early > 0 and left[0] > after >= left[1]

    @property
    def ended(self) -> bool:
        """Whether no step is left to take."""
        return self.step >= self.config.steps or self.step == self.stopped_at

    @property
    def micro_batch(self) -> int:
        """The examples of a micro-batch: as configured, or fewer where those did not fit the device's memory."""
        return self.config.micro_batch if self.fitting is None else min(self.config.micro_batch, self.fitting)

    def fresh_average(self) -> Average:
        """A copy of the weights that are averaged."""
        names = self.objective.averaged
        return {m: {k: v.detach().clone() for k, v in learnt(self.modules[m]).items()} for m in names}

    def on_device(self, tensors: Mapping[str, Tensor]) -> Average:
        """Averaged weights {module.parameter: tensor} by module, on the training device."""
        device = self.config.device
        return {m: {k: v.to(device) for k, v in under(tensors, m).items()} for m in self.objective.averaged}

    def params(self, player: str) -> list[nn.Parameter]:
        """The parameters that a player trains."""
        return [p for o in self.optimizers[player] for p in o.params.values()]

    def snapshot(self) -> checkpoint.Checkpoint:
        """The state as a checkpoint. Of a divided network, rank 0 gets it, and all processes have to ask for it."""
        tensors: dict[str, dict[str, Tensor]] = {
            "model": {
                f"{m}.{k}": whole_for_leader(v) for m, net in self.modules.items() for k, v in learnt(net).items()
            }
        }
        if self.averages:
            tensors["ema"] = flat(self.averages)
        tensors[checkpoint.OPTIMIZER] = {
            f"{player}.{k}": whole_for_leader(v)
            for player, os in self.optimizers.items()
            for o in os
            for k, v in o.state().items()
        }
        if self.state:
            tensors["state"] = dict(self.state)
        scaler = {} if self.scaler is None else self.scaler.state_dict()
        progress = Progress(
            steps=self.config.steps,
            since=self.since,
            left=self.left,
            skipped=self.skipped,
            rollbacks=self.rollbacks,
            lr_scale=self.lr_scale,
            loss_scale=scaler.get("scale"),
            scale_steps=scaler.get("_growth_tracker", 0),
            overflows=self.overflows,
            seen_targets=self.seen_targets,
            sums=self.sums,
            count=self.count,
            stopped=self.stopped,
            stopped_at=self.stopped_at,
            looks=self.looks,
            fitting=self.fitting,
        )
        return checkpoint.Checkpoint(self.step, tensors, progress.model_dump())

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Restore a checkpoint. Raises UserError if it belongs to another model."""
        progress = progress_of(saved)
        with group_of(saved, "model") as tensors:
            for m, net in self.modules.items():
                load_learnt(net, under(tensors, m))
        if self.averages:
            with group_of(saved, "ema") as tensors:
                refill(self.averages, tensors)
        if checkpoint.OPTIMIZER not in saved.tensors:
            events.warning(f"The checkpoint of step {saved.step} has no optimiser state: it starts from zero.")
        else:
            with group_of(saved, checkpoint.OPTIMIZER) as tensors:
                for player, optimizers in self.optimizers.items():
                    for o in optimizers:
                        o.load(under(tensors, player))
        if "state" in saved.tensors:
            with group_of(saved, "state") as tensors:
                check_state(self.state, tensors)
        self.state = dict(saved.tensors.get("state", {}))
        self.step = saved.step
        self.config = self.config.model_copy(update={"steps": progress.steps})
        self.since, self.left = progress.since, progress.left
        self.skipped, self.rollbacks, self.lr_scale = progress.skipped, progress.rollbacks, progress.lr_scale
        self.sums, self.count = dict(progress.sums), progress.count
        self.stopped, self.stopped_at = progress.stopped, progress.stopped_at
        # A checkpoint of an earlier version holds no looks.
        self.looks = looks_until(self.looks if progress.looks is None else progress.looks, saved.step)
        self.overflows, self.seen_targets = progress.overflows, dict(progress.seen_targets)
        known = [n for n in (self.fitting, progress.fitting) if n is not None]
        self.fitting = min(known, default=None)
        if self.scaler is not None and progress.loss_scale is not None:
            own = {"scale": progress.loss_scale, "_growth_tracker": progress.scale_steps}
            self.scaler = fresh_scaler(self.config.device)
            self.scaler.load_state_dict(self.scaler.state_dict() | own)

    def undivide(self) -> None:
        """Have whole networks with the averaged weights, in every process, and no optimisers: training has ended."""
        if self.division is not None:
            self.modules, self.averages, self.optimizers = whole_networks(self), {}, {}
            self.division = None


def whole_networks(learner: Learner) -> dict[str, nn.Module]:
    """The networks of a divided learner as whole ones, with the averaged weights where there are some. All processes
    have to ask for them."""
    assert learner.division is not None
    states = {m: net.state_dict() | learner.averages.get(m, {}) for m, net in learner.modules.items()}
    return learner.division.filled({m: {k: whole(v) for k, v in own.items()} for m, own in states.items()})


@contextmanager
def gathered(learner: Learner) -> Iterator[None]:
    """Within the block, a divided learner has whole networks with the averaged weights in every process, which any of
    them may use alone. Nothing changes for others."""
    if learner.division is None:
        yield
        return
    modules, averages = learner.modules, learner.averages
    learner.modules, learner.averages = whole_networks(learner), {}
    try:
        yield
    finally:
        learner.modules, learner.averages = modules, averages


@contextmanager
def group_of(saved: checkpoint.Checkpoint, name: str) -> Iterator[Mapping[str, Tensor]]:
    """A group of tensors of a checkpoint. Raises UserError, naming its file, if it is missing or, within the block, if
    a tensor is missing or of another shape or type."""
    try:
        yield saved.tensors[name]
    except (KeyError, RuntimeError) as e:
        reason = f"it lacks, or should not have, {e.args[0]}" if isinstance(e, KeyError) else e
        raise UserError(
            f"{name}.safetensors in the checkpoint of step {saved.step} does not fit this model: {reason}. Restore a "
            "copy of the checkpoint. Was run.json changed by hand?",
            "damaged",
        ) from e


@contextmanager
def averaged(learner: Learner) -> Iterator[None]:
    """Use the averaged weights instead of the current ones within the block, without torch.compile, since compiling
    again for other shapes and without gradients does not pay."""
    current = {m: {k: v.clone() for k, v in learnt(learner.modules[m]).items()} for m in learner.averages}
    for m, average in learner.averages.items():
        load_learnt(learner.modules[m], average)
    try:
        # Only if needed, since the first use of torch.compiler takes a second.
        with torch.compiler.set_stance("force_eager") if learner.config.compile else nullcontext():
            yield
    finally:
        for m, weights in current.items():
            load_learnt(learner.modules[m], weights)


def check_state(known: State, saved: Mapping[str, Tensor]) -> None:
    """Raises RuntimeError if a saved state of an objective has another shape than before the first step."""
    for name in known.keys() & saved.keys():
        if saved[name].shape != known[name].shape:
            raise RuntimeError(f"the state {name} has the shape {tuple(saved[name].shape)}")


def make_optimizers(params: Mapping[str, nn.Parameter], config: TrainConfig) -> list[Muon | AdamW]:
    """Muon for hidden matrices if the configuration selects it, and AdamW for all other parameters."""
    matrices = {k: p for k, p in params.items() if config.optimizer == "muon" and is_matrix(k, p)}
    rest = {k: p for k, p in params.items() if k not in matrices}
    optimizers: list[Muon | AdamW] = []
    if matrices:
        optimizers.append(Muon(matrices, config.weight_decay))
    if rest:
        optimizers.append(AdamW(rest, config.weight_decay if not matrices else 0.0, config.betas))
    return optimizers


def drop_conditions(batch: Batch, cond_dropout: float, rng: Rng) -> Batch:
    """Leave out each part of a condition, and all parts together, with probability `cond_dropout` each, so that
    guidance works on each part and on all of them (Ho and Salimans 2022, algorithm 1)."""
    names = list(batch.cond.parts)
    if not names or cond_dropout == 0:
        return batch
    everything = rng.bernoulli("null/all", batch.index, cond_dropout)
    keep = dict.fromkeys(names, ~everything)
    if len(names) > 1:
        keep = {k: v & ~rng.bernoulli(f"null/{k}", batch.index, cond_dropout) for k, v in keep.items()}
    return replace(batch, cond=batch.cond.drop(keep))


def fresh_scaler(device: str) -> torch.amp.GradScaler:
    """The scale of losses before the first step. It is halved when gradients overflow, and doubled after 2,000 steps in
    which they do not (Micikevicius et al. 2018, sec. 3.2). A loss is a sum over examples, so the first scale is low."""
    return torch.amp.GradScaler(torch.device(device).type, init_scale=256.0)


def play(learner: Learner, player: str, batch: Batch, rng: Rng, examples: int | None = None) -> dict[str, float] | None:
    """One step of one player on one batch. None, with the weights untouched, if the loss or the gradient is not finite.

    Sums over micro-batches are divided once by the summed weight, so that the gradient is that of the whole batch for
    any division into micro-batches; the gradient of a batch of examples of similar length by its `usual_weight`.
    """
    config, params = learner.config, learner.params(player)
    scaler = learner.scaler if config.precision == "float16" else None
    trained = {id(p) for p in params}
    others = [p for m in learner.modules.values() for p in m.parameters() if p.requires_grad and id(p) not in trained]
    for p in others:
        p.requires_grad_(False)
    try:
        sums, weight = fitting_gradients(learner, player, batch, rng)
    finally:
        for p in others:
            p.requires_grad_(True)
    grads = []
    for p in params:
        if p.grad is None:  # a part that this batch did not use
            p.grad = torch.zeros_like(p)
        grads.append(p.grad)
    # FSDP2 has added up the gradients of what is divided.
    weight = ranks.add_up([*(g for g in grads if not divided(g)), *sums.values()], weight)
    if scaler is not None:
        for o in learner.optimizers[player]:
            scaler.unscale_(o)  # type: ignore[arg-type]  # only the parameters are asked for
        scaler.update()
    norm = total_norm(grads).to(config.device) / weight
    out = read(
        {**sums, "gradient_norm": norm, **({"weight": weight} if isinstance(weight, Tensor) else {})}, norm.device
    )
    total = float(out.pop("weight", weight))
    if not math.isfinite(out["gradient_norm"]) or not math.isfinite(out["loss"]):
        learner.overflows += scaler is not None and scaler.get_scale() >= 1 and math.isfinite(out["loss"])
        return None
    usual = total
    if batch.by_length:
        usual = usual_weight(learner, player, total, len(batch.x) if examples is None else examples)
        out["gradient_norm"] *= total / usual
    shrink = min(1.0, config.clip / (out["gradient_norm"] + 1e-12)) if config.clip > 0 else 1.0
    torch._foreach_mul_([own_part(g) for g in grads], shrink / usual)
    shape = (config.warmup, config.decay, config.final_lr_ratio)
    factor = learner.lr_scale * rate(learner.step, config.steps, *shape, learner.since, learner.left)
    for o in learner.optimizers[player]:
        o.step(factor * (config.matrix_lr if isinstance(o, Muon) else config.lr))
    out |= {k: out[k] / total for k in sums}
    return out if len(learner.objective.players) == 1 else {f"{player}/{k}": v for k, v in out.items()}


def usual_weight(learner: Learner, player: str, weight: float, examples: int) -> float:
    """The mean weight of as many examples in all batches of a player so far, of which this is the next.

    If the gradient of each batch were divided by the number of its own targets, batches would count alike, and a token
    would count for the more the shorter its record: a model would learn records that are too short
    (docs/development/log.md, "Records that came out too short").
    """
    before, count = learner.seen_targets.get(player, (0.0, 0))
    learner.seen_targets[player] = before + weight, count + examples
    return (before + weight) / (count + examples) * examples


Gradients = tuple[dict[str, Tensor], float | Tensor]  # the sums of the metrics and the weight of a batch


def fitting_gradients(learner: Learner, player: str, batch: Batch, rng: Rng) -> Gradients:
    """`add_gradients` in micro-batches that fit the memory of the device: they are halved until they do, and stay so.

    A batch has the same gradient in any micro-batches. Processes that train together halve theirs together, so that
    all take the same part in what is exchanged. Raises UserError if a single example does not fit.
    """
    found = gradients_or_none(learner, player, batch, rng)
    while ranks.anywhere(found is None):
        found = None  # of a process whose own part did fit
        halve_micro_batch(learner, player)
        found = gradients_or_none(learner, player, batch, rng)
    assert found is not None
    return found


def gradients_or_none(learner: Learner, player: str, batch: Batch, rng: Rng) -> Gradients | None:
    """`add_gradients`, without torch.compile if it fails there; None if the memory of the device is exceeded."""
    try:
        try:
            return add_gradients(learner, player, batch, rng)
        except Exception as error:
            if is_out_of_memory(error) or not undo_compile(learner.modules.values()):
                raise
            reason = first_reason(str(error)) or type(error).__name__
            events.warning(f"torch.compile does not work for this network, so training goes on without it: {reason}")
            return add_gradients(learner, player, batch, rng)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if learner.division is not None:
            raise UserError(
                f"A step exceeds the memory of the device {learner.config.device}. Processes that divide a network "
                "exchange its parts within a step, so that none can repeat it. Make `train.micro_batch` (now "
                f"{learner.micro_batch}) smaller, or set `train.recompute=yes`, and train again.",
                DOES_NOT_FIT,
            ) from None
    return None


def halve_micro_batch(learner: Learner, player: str) -> None:
    """Let micro-batches have half as many examples, and free what the failed step used. Raises UserError if they have
    one already."""
    config = learner.config
    most = min(learner.micro_batch, -(-config.batch // ranks.world()))  # of the part of a batch that a process takes
    for p in learner.params(player):
        p.grad = None
    free_unused(config.device)
    if most == 1:
        raise UserError(
            f"A step on a single example exceeds the memory of the device {config.device}. Make the network smaller "
            "(`family.width`, `family.layers`), or the examples (`data.context`, `data.size`, `data.seconds`), compute "
            "in half precision (`train.precision=bfloat16`), or train on another device.",
            DOES_NOT_FIT,
        )
    learner.fitting = most // 2


def add_gradients(learner: Learner, player: str, batch: Batch, rng: Rng) -> Gradients:
    """Compute the gradient of a batch, summed over its micro-batches. Returns the sums of the metrics and the weight,
    which stay on the device."""
    config = learner.config
    for p in learner.params(player):
        p.grad = None
    scaler = learner.scaler if config.precision == "float16" else None
    weight: float | Tensor = 0.0
    sums: dict[str, Tensor] = {}
    objective, modules = learner.objective, learner.modules
    loss = partial(objective.loss, modules) if learner.division is None else partial(learner.division, objective)
    with tensor_cores(config.device), precision(config):  # around all, so that weights are converted only once
        for first, end in micro_batches(learner, len(batch.x)):
            rows = torch.arange(first, end, device=batch.x.device)
            part = batch if len(rows) == len(batch.x) else batch.select(rows)
            total, w, metrics = loss(part, player, learner.step, rng, learner.state)
            with torch.autocast(torch.device(config.device).type, enabled=False), kernels.added_in_place():
                (total if scaler is None else scaler.scale(total)).backward()
            weight = weight + w
            for k, v in {**metrics, "loss": total.detach()}.items():
                sums[k] = sums[k] + v if k in sums else v
    return sums, weight


def micro_batches(learner: Learner, count: int) -> list[tuple[int, int]]:
    """The first row of each micro-batch of `count` examples, and the one behind its last.

    Processes that divide a network gather its weights for each, so that all of them need the same number of
    micro-batches, though one may have an example more than another.
    """
    size = learner.micro_batch
    if learner.division is None:
        return [(a, min(a + size, count)) for a in range(0, count, size)]
    batch, world = learner.config.batch, ranks.world()
    pieces = min(math.ceil(math.ceil(batch / world) / size), batch // world)
    return list(pairwise(ranks.ends(count, pieces)))


def take_step(learner: Learner, batch: Batch, rng: Rng) -> dict[str, float] | None:
    """Let every player take a step on a batch, then update the averages. None, with nothing changed, if the loss or
    gradient of a player is not finite."""
    config, examples = learner.config, len(batch.x)
    batch = drop_conditions(ranks.part_of(batch), config.cond_dropout, rng)
    out: dict[str, float] = {}
    players = list(learner.objective.players)
    moving = [t for p in players[:-1] for o in learner.optimizers[p] for t in (*o.params.values(), *o.state().values())]
    before, seen = [t.detach().clone() for t in moving], dict(learner.seen_targets)
    for player in players:
        metrics = play(learner, player, batch, rng, examples)
        if metrics is None:
            with torch.no_grad():
                for t, old in zip(moving, before, strict=True):
                    t.copy_(old)
            learner.seen_targets = seen
            return None
        out.update(metrics)
    learner.state = learner.objective.update(learner.state, out)
    keep = ema_decay(config.ema_half_life, (learner.step + 1) * config.batch, config.batch)
    current = {m: learner.modules[m].state_dict() for m in learner.objective.averaged}
    follow(learner.averages, current, keep)
    return out


@dataclass
class Hooks:
    """Functions that the loop calls. They do not affect what is learnt."""

    evaluate: Callable[[Learner], dict[str, float]] = lambda learner: {}
    preview: Callable[[Learner], None] = lambda learner: None
    log: Callable[[int, dict[str, float]], None] = lambda step, metrics: None
    rewind: Callable[[int], None] = lambda step: None  # remove what was logged after `step`
    tick: Callable[[dict[str, float]], None] = lambda metrics: None
    early: Callable[[Learner], None] = lambda learner: None  # when `early_due`
    overhead: Callable[[str, float], None] = lambda kind, seconds: None
    interrupted: Callable[[], bool] = lambda: False
    stop_reason: Callable[[Learner], str] = lambda learner: ""  # why to stop here; called after each evaluation
    saved: Callable[[Path], None] = lambda folder: None  # after a checkpoint is complete, beside training
    replan: Callable[[Learner], int | None] = lambda learner: None  # another number of steps; called before each step
    paces: Callable[[list[RankPace]], None] = lambda paces: None  # when metrics are logged; empty for one process


def run(learner: Learner, batches: Callable[[int, int], Batch], root: Path, rng: Rng, hooks: Hooks) -> None:
    """Train from learner.step to config.steps, or until a hook stops it (`learner.stopped` holds the reason; it is
    stopped only once), with checkpoints in `root`, which are written while training goes on. Raises Diverged or
    Interrupted, with everything saved, and UserError if a checkpoint could not be written.

    Several processes (training/ranks.py) take the same steps; one of them saves, and decides what depends on the clock.
    """
    paces = Paces()
    with CheckpointSaver(root, hooks.saved) as saver:
        if ranks.from_leader(learner.step == 0 and not checkpoint.steps_in(root)):
            save(learner, saver)
            saver.wait()
        if ranks.leads():
            checkpoint.settle(root, learner.step, rotating=learner.skipped == 0)
        while not learner.ended:
            replan(learner, hooks)
            config = learner.config
            overflows, micro_batch = learner.overflows, learner.micro_batch
            with paces.step():
                batch = batches(learner.step * config.batch, config.batch).to(config.device)
                metrics = take_step(learner, batch, rng)
            if learner.micro_batch < micro_batch and ranks.leads():
                note_smaller_micro_batch(learner)
            if metrics is None and learner.overflows == overflows:
                learner.skipped += 1
                events.warning(f"step {learner.step}: the loss or its gradient is not finite; the step is skipped")
                if learner.skipped >= config.skip_limit:
                    roll_back(learner, saver, hooks)
                    continue
            learner.step += 1
            if metrics is not None:
                learner.skipped = 0
                learner.sums = {k: learner.sums.get(k, 0.0) + v for k, v in metrics.items()}
                learner.count += 1
                hooks.tick(metrics)
            if due(learner.step, config.log_every, learner.step == config.steps):
                hooks.paces(paces.exchange(config.batch))
            if learner.early_due:
                with gathered(learner):
                    hooks.early(learner)
            after_step(learner, saver, hooks)
    learner.undivide()


def note_smaller_micro_batch(learner: Learner) -> None:
    """Say that a step did not fit the memory of the device, and what became of it."""
    events.warning(
        f"A step exceeded the memory of the device {learner.config.device}. It was repeated in micro-batches of "
        f"{counted(learner.micro_batch, 'example')}, which are used from now on. A step still learns from "
        f"{counted(learner.config.batch, 'example')}, so that what is learnt is the same.",
        "micro_batch_halved",
        micro_batch=learner.micro_batch,
    )


def after_step(learner: Learner, saver: CheckpointSaver, hooks: Hooks) -> None:
    """Log, evaluate, decide whether training ends here, preview and save if due. Raises Interrupted after an
    interruption, once everything is saved."""
    config = learner.config
    last = learner.step == config.steps
    if due(learner.step, config.log_every, last) and learner.count:
        hooks.log(learner.step, {k: v / learner.count for k, v in learner.sums.items()})
        learner.sums, learner.count = {}, 0
    if due(learner.step, config.eval_every, last):
        with measure_overhead(hooks, "evaluation"), gathered(learner):
            scores = hooks.evaluate(learner)
        if scores:
            hooks.log(learner.step, scores)
        if (reason := ranks.from_leader(hooks.stop_reason(learner))) and not learner.stopped:
            learner.stopped, learner.stopped_at = reason, learner.step
    if due(learner.step, config.preview_every, last):
        with measure_overhead(hooks, "preview"), gathered(learner):
            hooks.preview(learner)
    interrupted = ranks.anywhere(hooks.interrupted())
    if due(learner.step, config.save_every, last) or interrupted or learner.ended:
        with measure_overhead(hooks, "save"):
            save(learner, saver)
    saver.check()
    if interrupted and not learner.ended:
        saver.wait()
        raise Interrupted(f"saved at step {learner.step} of {config.steps}")


def save(learner: Learner, saver: CheckpointSaver) -> None:
    """Begin to write a checkpoint, by rank 0. While steps are skipped, these weights may be unusable and must not
    replace older checkpoints."""
    if ranks.leads() or learner.division is not None:
        snapshot = learner.snapshot()
        if ranks.leads():
            saver.save(snapshot, rotating=learner.skipped == 0)


def replan(learner: Learner, hooks: Hooks) -> None:
    """Change the number of steps if the hook asks for it, so that a budget in minutes is kept if the machine becomes
    slower or faster. The next checkpoint saves it."""
    config, step = learner.config, learner.step
    steps = ranks.from_leader(hooks.replan(learner))
    if steps is not None:
        learner.left = share_left(step, config.steps, learner.since, learner.left)
        learner.since = step
        learner.config = config.model_copy(update={"steps": max(steps, step + 1)})


def due(step: int, every: int, last: bool) -> bool:
    """Whether something happens at `step`: every `every` steps (0: never) and at the last one."""
    return last or (every > 0 and step % every == 0)


@contextmanager
def measure_overhead(hooks: Hooks, kind: str) -> Iterator[None]:
    """Report the duration of the block to `hooks.overhead`."""
    start = time.perf_counter()
    yield
    hooks.overhead(kind, time.perf_counter() - start)


def roll_back(learner: Learner, saver: CheckpointSaver, hooks: Hooks) -> None:
    """After `skip_limit` skipped steps in a row, continue from the newest checkpoint before them, at half the rate.

    A checkpoint at the first skipped step holds the weights that have no finite gradient, so it does not count. Raises
    Diverged after `rollback_limit` rollbacks, or if there is no such checkpoint.
    """
    config, root = learner.config, saver.root
    rollbacks, scale = learner.rollbacks + 1, learner.lr_scale / 2
    saver.wait()
    ranks.wait()  # until what one of them saves is written
    saved = checkpoint.newest(root, before=learner.step - learner.skipped + 1)
    ranks.wait()  # until every process has read it
    if saved is not None and ranks.leads():
        checkpoint.go_back(root, saved.step)
    if rollbacks > config.rollback_limit or saved is None:
        raise Diverged(
            f"Training diverged at step {learner.step}: {learner.skipped} steps in a row were not finite, "
            f"after {learner.rollbacks} rollbacks to lower rates. The last good checkpoint is in {root}. "
            f"Try a lower rate (`train.lr`), or check the data for extreme values (`afresh.inspect_data(PATH)`)."
        )
    learner.restore(saved)
    learner.rollbacks, learner.lr_scale, learner.skipped = rollbacks, scale, 0
    hooks.rewind(learner.step)
    events.warning(f"rolled back to step {learner.step}; the learning rate is multiplied by {scale:g}")
