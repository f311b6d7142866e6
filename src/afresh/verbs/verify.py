"""The verb `verify`: check that a run is intact and reproducible. Each check returns a verdict with its numbers."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from afresh.core import Examples, Family, Space, UserError
from afresh.core.plural import counted
from afresh.core.rng import Rng
from afresh.core.space import evenly_spaced
from afresh.data.load import Loader
from afresh.data.prepare import Prepared
from afresh.data.storage.folders import new_folder
from afresh.data.storage.object_store import is_address
from afresh.engine.training import checkpoint
from afresh.engine.training.checkpoint import Checkpoint, progress_of
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner, take_step
from afresh.engine.training.network import precision
from afresh.engine.training.plan import make_learner
from afresh.engine.training.weights import read_weights
from afresh.runs.data import run_data
from afresh.runs.lock import FILE
from afresh.runs.manifest import FILE as MANIFEST
from afresh.runs.manifest import STORED, manifest_faults, read_manifest
from afresh.runs.run import Run, join
from afresh.runs.size_limits import bounded

CACHE = 1e-3  # nats by which a log-probability may differ with and without a key/value cache, in float32
BATCH = {"float32": 1e-3, "bfloat16": 0.1}  # tolerance for a field in [-1, 1] that is sampled alone and in a batch
STEPS = 4  # training steps, with and without a restart in the middle
EXAMPLES = 16  # maximum batch of these steps
ROWS, POSITIONS, LENGTH = 4, 32, 64  # samples, compared positions of the cache, and tokens of a text


@dataclass(frozen=True)
class Check:
    """One check: passed (True), failed (False) or not performed (None), with the numbers behind it."""

    name: str
    passed: bool | None
    detail: str


def verify(run: Run) -> list[Check]:
    """Perform all checks, even if some fail. The run's folder is not changed."""
    checks = [guarded("record", lambda: check_record(run)), guarded("hashes", lambda: check_hashes(run))]
    found: list[Prepared] = []
    checks.append(guarded("data", lambda: check_data(run, found)))
    saved = newest_intact(run)
    if saved is None:
        why = "there is no intact checkpoint"
        return checks + [Check(n, None, why) for n in ("weights", "resume", "cache", "samples")]
    checks.append(guarded("weights", lambda: check_weights(saved)))
    if run.record.align is not None:
        checks.append(Check("resume", None, "not checked for aligned runs, whose reward would have to run"))
    elif found:
        checks.append(guarded("resume", lambda: check_resume(run, saved, found[0])))
    else:
        checks.append(Check("resume", None, "the data is not available"))
    return [*checks, guarded("cache", lambda: check_cache(run)), guarded("samples", lambda: check_samples(run))]


def guarded(name: str, work: Callable[[], Check]) -> Check:
    """Run a check. Whatever it raises because of a damaged file, it counts as failed and the other checks still run."""
    try:
        return work()
    except UserError as e:
        return Check(name, False, str(e))
    except Exception as e:
        return Check(name, False, f"{type(e).__name__}: {e}")


def newest_intact(run: Run) -> Checkpoint | None:
    """The newest checkpoint that matches its hashes, or None. Damaged ones are reported by `check_hashes`."""
    root = run.path / "checkpoints"
    for name in reversed(checkpoint.steps_in(root)):
        if not checkpoint.check(root / name):
            with contextlib.suppress(UserError, ValueError):
                return checkpoint.read(root / name)
    return None


def check_record(run: Run) -> Check:
    """Check that run.json describes a model that can be built, with the recorded number of parameters."""
    recorded = run.record.parameters
    family = bounded(run.family, recorded, run.path / "run.json")
    config, space, conds = run.config, run.space, run.conds  # which read files, and compute
    with torch.device("meta"):
        modules = family.build(config, space, conds)
    parameters = [p for m in modules.values() for p in m.parameters()]
    count = sum(p.numel() for p in parameters)
    if recorded != count:  # a student's record is of what it samples with, and not of its frozen teacher
        count = sum(p.numel() for p in parameters if p.requires_grad)
    return Check("record", count == recorded, f"{run.record.family} of {count:,} parameters, {recorded:,} in run.json")


def check_hashes(run: Run) -> Check:
    """Check every file of the run against its SHA-256."""
    root = run.path / "checkpoints"
    steps = checkpoint.steps_in(root)
    if not steps:
        return Check("hashes", False, "there is no checkpoint")
    faults = [f for name in steps for f in checkpoint.check(root / name)]
    files = sum(1 for name in steps for _ in (root / name).iterdir())
    good = f"{counted(files, 'file')} of the checkpoints {', '.join(steps)}: all match their SHA-256"
    pointer = run.path / "latest"
    if pointer.is_file() and pointer.read_bytes() not in [f"{name}\n".encode() for name in steps]:
        faults.append("latest does not name a checkpoint")
    sums = read_manifest(run.path)
    faults += manifest_faults(run.path)
    for name in STORED:  # also if training goes on, when they are not in the list of the run
        try:
            read_weights(run.path, name)
        except UserError as e:
            faults.append(str(e))
    if run.record.base_sha256 is not None:
        assert run.base_weights is not None  # reading them checks them
        good += ", and so does the base"
    if sums is None:
        good += f"; the run has no {MANIFEST}, so its other files cannot be checked"
    else:
        good += f", and so do {counted(len(sums), 'other file')}"
    return Check("hashes", not faults, "; ".join(faults) or good)


def check_data(run: Run, found: list[Prepared]) -> Check:
    """Check that the data exists and is that of training. It is appended to `found`."""
    record = run.record.data
    missing = [p for p in (record.path, record.validation) if p is not None and not (is_address(p) or Path(p).exists())]
    if missing:
        return Check("data", None, f"{', '.join(missing)} does not exist any more")
    try:
        found.append(run_data(run))
    except UserError as error:
        if error.code != "not_trusted":
            raise
        return Check("data", None, str(error))
    return Check("data", True, f"{record.train:,} + {counted(record.heldout, 'item')}, split {record.split_hash[:16]}")


def check_weights(saved: Checkpoint) -> Check:
    """Check that all numbers of the newest checkpoint are finite: weights, averages and the state of the optimiser."""
    bad, count = [], 0
    for group, tensors in saved.tensors.items():
        for name, tensor in tensors.items():
            count += tensor.numel()
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                bad.append(f"{group}/{name}")
    detail = f"{count:,} numbers at step {saved.step:,} are finite"
    return Check("weights", not bad, f"not finite: {', '.join(bad[:5])}" if bad else detail)


# --------------------------------------------------------------------------- resume


def check_resume(run: Run, saved: Checkpoint, prepared: Prepared) -> Check:
    """Check that STEPS steps from the checkpoint give the same bits with and without a restart in the middle.

    The steps run on the CPU, without torch.compile, with batches of at most EXAMPLES.
    """
    codec = run.codec
    train = prepared.train if codec is None else codec.encode(prepared.train)
    end = max(progress_of(saved).steps, saved.step + STEPS)  # so that a finished run has steps left
    uninterrupted = trained(run, saved, train, STEPS, end)
    half = trained(run, saved, train, STEPS // 2, end)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "checkpoints"
        checkpoint.save(root, half)
        middle = checkpoint.newest(root)
    assert middle is not None
    restarted = trained(run, middle, train, STEPS - STEPS // 2, end)
    differ = [
        f"{group}/{name}"
        for group, tensors in uninterrupted.tensors.items()
        for name, tensor in tensors.items()
        if not torch.equal(tensor, restarted.tensors[group][name])
    ]
    count = sum(t.numel() for g in uninterrupted.tensors.values() for t in g.values())
    result = f"differ in {', '.join(differ[:3])}" if differ else f"{count:,} numbers equal to the bit"
    detail = f"{STEPS} steps from step {saved.step:,}, with and without a restart after {STEPS // 2}: {result}"
    return Check("resume", not differ, detail)


def trained(run: Run, saved: Checkpoint, examples: Examples, steps: int, end: int) -> Checkpoint:
    """The checkpoint after `steps` further steps from `saved`, in a run of `end` steps."""
    learner = restored(run, saved, end)
    rng = Rng(learner.config.seed)
    size = learner.config.batch
    loader = Loader(examples, run.training_space, rng, size)
    for _ in range(steps):
        take_step(learner, loader.batch(learner.step * size, size), rng)
        learner.step += 1
    return learner.snapshot()


def restored(run: Run, saved: Checkpoint, end: int) -> Learner:
    """A learner restored from `saved`, in a run of `end` steps."""
    batch = min(run.record.train.batch, EXAMPLES)
    small: Mapping[str, Any] = {"device": "cpu", "compile": False, "batch": batch, "micro_batch": max(1, batch // 2)}
    config: TrainConfig = run.record.train.model_copy(update=small)
    learner = make_learner(run.family, run.config, run.space, run.conds, config, run.base_weights)
    learner.restore(saved)
    learner.config = learner.config.model_copy(update={"steps": end})
    return learner


# --------------------------------------------------------------------------- sampling


def settings_of_length(family: Family, space: Space, length: int) -> Any:
    """Settings of sampling, of so many tokens where a sample has no length of its own."""
    return family.sampling.settings(**({"length": length} if space.stream else {}))


@torch.no_grad()
def check_cache(run: Run) -> Check:
    """Compare the log-probabilities of sampled tokens with a key/value cache to those without one, as in training."""
    family, space, policy = run.family, run.space, run.family.policy
    none = Check("cache", None, f"{run.record.family} has no key/value cache")
    if space.kind != "tokens" or family.predict is None or policy is None:
        return none
    if policy.rollout is None or policy.steps is None:
        return none
    device, index = run.train.device, torch.arange(2, device=run.train.device)
    cond = run.conditions.select(torch.arange(2) % run.conditions.size)
    if cond.known is not None:  # only the first token of a record is needed
        mask = None if cond.known_mask is None else cond.known_mask[:, :1]
        cond = replace(cond, known=cond.known[:, :1], known_mask=mask)
    room = space.shape[0] - (0 if cond.known is None else cond.known.shape[1])
    settings = settings_of_length(family, space, room)
    rollout = policy.rollout(run.modules, run.config, space, cond.to(device), Rng(0), index, settings)
    assert rollout.batch.mask is not None
    positions = evenly_spaced(rollout.logp.shape[1], POSITIONS)
    some = torch.zeros_like(rollout.batch.mask).index_fill(1, positions.to(device), True) & rollout.batch.mask
    full = policy.steps(run.modules, run.config, space, replace(rollout.batch, mask=some)).logp
    worst = float((full - rollout.logp)[some].abs().max())
    detail = f"log-probabilities differ by at most {worst:.2g} nats (tolerance {CACHE:g})"
    return Check("cache", worst <= CACHE, detail)


@torch.no_grad()
def check_samples(run: Run) -> Check:
    """Check that samples are reproducible: twice with the same seed, and alone and in a batch within a tolerance."""
    space, family, train = run.space, run.family, run.train
    cond = run.conditions.select(torch.arange(ROWS) % run.conditions.size)
    settings = settings_of_length(family, space, min(LENGTH, space.shape[0]))

    def drawn(rows: Tensor, config: TrainConfig) -> Tensor:
        with precision(config):
            part, index = cond.select(rows).to(train.device), rows.to(train.device)
            return family.sampling.sample(run.modules, run.config, space, part, Rng(0), index, settings).cpu()

    def both_ways(config: TrainConfig) -> tuple[Tensor, Tensor]:
        """Samples drawn in a batch and alone, with texts padded to one length."""
        parts = [drawn(everything, config), *(drawn(everything[i : i + 1], config) for i in range(ROWS))]
        x = join(parts, space)
        return x[:ROWS], x[ROWS:]

    everything = torch.arange(ROWS)
    if not torch.equal(drawn(everything, train), drawn(everything, train)):
        return Check("samples", False, "the same seed gave different samples the second time")
    repeated = "the same seed twice: equal to the bit; alone and in a batch: "
    if space.kind == "tokens":  # in bfloat16, rounding may change the choice of a token
        together, alone = both_ways(train.model_copy(update={"precision": "float32"}))
        equal = int((together == alone).all(1).sum())
        return Check("samples", equal == ROWS, f"{repeated}{equal} of {ROWS} have the same tokens, in float32")
    together, alone = both_ways(train)
    worst, limit = float((together - alone).abs().max()), BATCH[train.precision]
    return Check("samples", worst <= limit, f"{repeated}within {worst:.2g} (tolerance {limit:g} in {train.precision})")


# --------------------------------------------------------------------------- copies


def copy_run(run: Run, path: Path) -> Run:
    """Copy the run's folder to `path`. The copy gets this name after its hashes were checked.

    Raises UserError if `path` exists or cannot be written, or if a checkpoint is damaged.
    """
    if path.exists():
        raise UserError(f"{path} exists and would be overwritten. Choose another path.")
    if path.resolve().is_relative_to(run.path.resolve()):
        raise UserError(f"{path} is inside the run itself. Choose a path outside {run.path}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(path) as unchecked:
            shutil.copytree(run.path, unchecked, ignore=shutil.ignore_patterns(FILE))
            copied = check_hashes(Run(unchecked, run.record))
            if not copied.passed:
                raise UserError(
                    f"The copy is damaged and was removed: {copied.detail}. Check the run with `model.verify()`."
                )
    except OSError as e:
        reason = e.strerror or e
        raise UserError(f"Cannot copy {run.path} to {path}: {reason}. Make room or choose another path.") from e
    return Run.open(path)
