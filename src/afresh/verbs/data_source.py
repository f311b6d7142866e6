"""Training on data: batches of a data set, the held-out loss, and the detection of copies of training examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from afresh.core import Batch, Cond, Examples, Space, UserError
from afresh.core.errors import left_out
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.data.prepare import Prepared
from afresh.engine.evaluation.memorisation_monitor import MemorisationMonitor, memorisation_monitor
from afresh.engine.evaluation.tuning_monitor import TuningMonitor, comparison_of
from afresh.engine.training import ranks
from afresh.engine.training.batch_source import heldout_loss
from afresh.engine.training.best_checkpoint import BestCheckpoint, best_by_gain, best_by_loss
from afresh.engine.training.loop import Learner, averaged
from afresh.engine.training.network import precision
from afresh.engine.training.prefetch import prefetched
from afresh.engine.training.preserving import FILE as PATHS
from afresh.engine.training.preserving import Preserving, paths_of, read_paths, write_paths
from afresh.engine.training.weights import FITTED, adapters_merged, write_weights
from afresh.runs.latents import heldout_latents, training_latents
from afresh.runs.run import Run, metrics_rows


class DataSource:
    """A `BatchSource` over a run's own data, in the space of its family."""

    def __init__(self, run: Run, prepared: Prepared, space: Space, train: Examples, heldout: Examples) -> None:
        self.run, self.prepared, self.space, self.train, self.heldout = run, prepared, space, train, heldout
        self.best: BestCheckpoint | None = None
        self.monitor: MemorisationMonitor | None = None
        self.tuning: TuningMonitor | None = None

    def learner(self) -> Learner:
        """Restore the newest intact checkpoint, with the evaluations so far."""
        learner, rows = self.run.learner(), metrics_rows(self.run)
        likelihood = self.run.family.likelihood
        # Ranks of a catalogue's items still improve when the likelihood of rare ones falls (docs/development/log.md).
        if likelihood is None or (likelihood.selects and not self.run.space.catalogue):
            self.best = best_by_loss(self.run.path, learner, rows)
        if (comparison := comparison_of(self.run, self.prepared.train_items, self.heldout)) is not None:
            self.tuning, self.best = TuningMonitor(self.run, comparison), best_by_gain(self.run.path, learner)
            hold_base(self.run, learner, comparison.others)
        self.monitor = memorisation_monitor(self.run, (self.prepared.train, self.prepared.heldout), learner, rows)
        return learner

    def batches(self, learner: Learner) -> Callable[[int, int], Batch]:
        config = learner.config
        return prefetched(Loader(self.train, self.space, Rng(config.seed), config.batch).batch, config.device)

    def evaluate(self, learner: Learner) -> dict[str, float]:
        """Evaluate {heldout_loss}, if the family has a likelihood or an error, and by one process for all what tuning
        has changed and the share of near copies."""
        metrics: dict[str, float] = {}
        if self.run.family.likelihood is not None and self.tuning is None:
            metrics["heldout_loss"] = heldout_loss(learner, learner.objective, self.heldout, self.space)
        if not ranks.leads():
            return metrics
        if self.tuning is not None:
            metrics |= self.tuning.update(learner)
        if self.best is not None:
            parts = () if self.tuning is None else self.tuning.comparison.latest
            self.best.update(learner, metrics, store=learner.step > 0, parts=parts)  # step 0 is the base model itself
        if self.monitor is not None and learner.step > 0:
            with left_out(f"Near copies were not looked for at step {learner.step:,}."):
                metrics |= self.monitor.update(learner)
        return metrics

    def stop_reason(self, learner: Learner) -> str:
        reasons = (watch.stop_reason(learner) for watch in (self.monitor, self.best) if watch is not None)
        return next((reason for reason in reasons if reason), "")

    def replacement(self, learner: Learner) -> tuple[dict[str, Tensor], str] | None:
        return None if self.best is None else self.best.replacement(learner)

    def logged(self, metrics: Mapping[str, float]) -> dict[str, float]:
        return dict(metrics)

    def may_checkpoint(self, step: int) -> bool:
        return True

    def finish(self, learner: Learner) -> None:
        """Fit the tensors that the family fits to its data after training, and write them.

        Raises UserError if the weights are such that nothing can be fitted, as they are if a checkpoint was changed.
        """
        run = self.run
        if run.family.finish is None:
            return
        with averaged(learner), adapters_merged(learner.modules) as modules, torch.no_grad(), precision(learner.config):
            try:
                fitted = run.family.finish(modules, run.config, self.space, self.train, Rng(learner.config.seed))
            except (ValueError, torch.linalg.LinAlgError) as e:
                raise UserError(
                    f"The weights of step {learner.step:,} in {run.path} give values to which the family "
                    f"{run.record.family} cannot be fitted after training ({' '.join(str(e).split())[:200]}). Were its "
                    "checkpoints changed? Train again, or restore a copy of the run.",
                    "not_fitted",
                ) from e
        write_weights(run.path, FITTED, fitted)

    def close(self) -> None:
        """Do nothing, since a data set holds no resources."""


def hold_base(run: Run, learner: Learner, texts: Cond) -> None:
    """Let a learner also hold the base's answers to other texts, if its plan says so (`train.preserve`). They are
    computed before the first step."""
    config, velocity = learner.config, run.family.velocity
    if not config.preserve or velocity is None:
        return
    device = torch.device(config.device)
    if learner.step == 0 and not (run.path / PATHS).exists() and ranks.leads():
        with precision(config):
            write_paths(run.path, paths_of(velocity(learner.modules), run.training_space, texts, device))
    ranks.wait()
    paths = read_paths(run.path)
    learner.objective = Preserving(learner.objective, velocity, paths, texts, config.preserve, device)


def data_source(run: Run, prepared: Prepared) -> DataSource:
    """The data source of an existing run. The data is encoded by the run's codec, if it has one."""
    codec = run.codec
    train = prepared.train if codec is None else training_latents(codec, prepared)
    heldout = prepared.heldout if codec is None else heldout_latents(codec, prepared)
    return DataSource(run, prepared, run.training_space, train, heldout)
