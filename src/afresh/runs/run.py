"""A run: one folder with everything about a model, and the weights in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from afresh.core import Codec, Cond, CondSpec, Encoder, Family, Space, UserError, events, registry
from afresh.core.cost import check_cost
from afresh.core.device import computing_on
from afresh.core.options import current
from afresh.core.rng import Rng
from afresh.core.safe_json import faults, reading
from afresh.data.conditions import load_conditions, save_conditions
from afresh.data.files import check_links
from afresh.data.load import draw_conditions
from afresh.data.storage.files import free_bytes
from afresh.engine.sampling.condition_rows import extrapolations, with_matching_rows
from afresh.engine.sampling.request import (
    Request,
    check_fills,
    contains_prompts,
    describe,
    encode_holes,
    encode_parts,
    encode_prompts,
    make_cond,
    with_caption,
)
from afresh.engine.sampling.settings import of_guidance, of_results, of_sampling
from afresh.engine.training import checkpoint, lora, ranks
from afresh.engine.training.budget import devices, is_available
from afresh.engine.training.checkpoint import Checkpoint
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.metrics_log import read_rows
from afresh.engine.training.network import build_network, precision, to_device
from afresh.engine.training.weights import (
    FITTED,
    BaseWeights,
    check_finite,
    digest_of,
    early_modules,
    load_chosen,
    load_fitted,
    load_own,
    merge_adapters,
    read_base,
    read_weights,
    state_of,
    under,
    write_base,
)
from afresh.runs.manifest import write_record
from afresh.runs.names import near_runs, no_run
from afresh.runs.person_adapters import FOLDER, base_of
from afresh.runs.record import RunRecord, read_record
from afresh.runs.run_store import opened
from afresh.runs.size_limits import bounded, check_space

if TYPE_CHECKING:
    from afresh.engine.training.loop import Learner

Sampler = Callable[..., Tensor]  # with the signature of Family.sample
MOST = 1_000_000  # samples of one request


class Run:
    """An existing run. Opening it reads run.json; weights are loaded when first needed."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        self.path, self.record = path, record
        # (run, cond, seed, settings, numbers) -> x in the family's space; set by a server, which draws what several
        # requests ask for in one batch.
        self.marked = True  # whether its works are marked and signed, where the user's preferences do not forbid it
        self.shared_draw: Callable[[Run, Cond, int, Any, Tensor], Tensor] | None = None

    @staticmethod
    def open(path: str | Path, any_links: bool = False) -> Run:
        """Raises UserError if the folder is not a run, if its run.json is not valid, and if a symbolic link in it leads
        out of it, unless `any_links`: a run may come from anybody, and its links could name files of this user. Of a
        run that lives in a store (runs/run_store.py), the local copy is opened."""
        folder = opened(path)
        file = folder / "run.json"
        if not file.is_file():
            raise UserError(no_run(folder), "not_a_run", path=str(folder), near=near_runs(folder))
        if not any_links:
            check_links(folder, "run")
        try:
            return Run(folder, read_record(file.read_bytes()))
        except ValueError as e:
            raise UserError(
                f"{file} is not a run record that this version understands: {faults(e)}.", "invalid_record"
            ) from e

    @staticmethod
    def create(
        path: Path,
        record: RunRecord,
        encoder: Encoder,
        codec: Codec | None,
        cond: Cond,
        base: Mapping[str, Tensor] | None = None,
    ) -> Run:
        """Write everything but what is learnt, and run.json at last: a folder without it is not a run. It must not hold
        one (runs/output_dir.py). `base` holds the weights that training starts from, {module.name: tensor}; without it
        they are random."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            if base is not None:
                digest = digest_of(base) if record.personal else write_base(path, base)
                record = record.model_copy(update={"base_sha256": digest})
            encoder.save(path / "encoder")
            if codec is not None and not record.personal:
                codec.save(path / "codec")
            save_conditions(path / "conditions.safetensors", cond)
            write_record(path, record.model_dump(mode="json"))
        except OSError as e:
            raise UserError(
                f"Cannot write the run to {path}: {e.strerror or e}; {free_bytes(path):,} bytes are free there. Make "
                "room or choose another output folder: `out=DIR`.",
                "cannot_write",
                path=str(path),
            ) from e
        return Run(path, record)

    # ------------------------------------------------------------------------------------------------ what it is

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @cached_property
    def family(self) -> Family:
        """The family, by its record for the run's space."""
        family = registry.family(self.record.family)
        return family.for_space(self.space) if family.variants else family

    @cached_property
    def config(self) -> Any:
        """The configuration of the family. Raises UserError, naming the field, if it is not valid."""
        return self.values("config", self.family.config, self.record.config, self.family.retired)

    def values(
        self, part: str, model: type, values: Mapping[str, Any], retired: Mapping[str, Any] | None = None
    ) -> Any:
        """A part of run.json as a model of a plug-in, without `retired` settings (core.options.current). Raises
        UserError, naming the field, if it is not valid."""
        try:
            return model(**current(values, retired or {}))
        except (ValueError, TypeError, ArithmeticError) as e:
            raise UserError(
                f"{part} in {self.path / 'run.json'} is not what {model.__name__} accepts: {faults(e)}.",
                "invalid_record",
            ) from e

    @cached_property
    def encoder(self) -> Encoder:
        modality = registry.modality(self.record.modality)
        with reading(self.path / "encoder"), computing_on(self.train.device):
            encoder = modality.load(self.path / "encoder")
            check_space(encoder.space, self.path / "encoder")
        return encoder

    @cached_property
    def codec(self) -> Codec | None:
        if self.record.codec is None:
            return None
        if self.record.personal:
            return self.base.codec
        with reading(self.path / "codec"):
            codec = registry.load_codec(self.record.codec, self.path / "codec")
            check_space(codec.target, self.path / "codec")
        if (codec.source.kind, codec.source.shape) != (self.encoder.space.kind, self.encoder.space.shape):
            raise UserError(f"{self.path / 'codec'} is for other data than {self.path / 'encoder'}.", "damaged")
        return codec

    @property
    def space(self) -> Space:
        """The space that the family works in: the modality's or the codec's, in windows of the planned length."""
        space = self.encoder.space if self.codec is None else self.codec.target
        return space if self.record.window is None else replace(space, shape=(self.record.window,))

    @property
    def training_space(self) -> Space:
        """The space in the windows of training, which are shorter if the base model can look further back."""
        shorter = self.record.training_window
        return self.space if shorter is None else replace(self.space, shape=(shorter,))

    @property
    def conds(self) -> CondSpec:
        return self.encoder.conds

    @cached_property
    def conditions(self) -> Cond:
        """Conditions as they occurred in the training split (at most 4,096)."""
        space = self.encoder.space
        return load_conditions(self.path / "conditions.safetensors", self.conds, max(space.vocab, default=0))

    @property
    def train(self) -> TrainConfig:
        """How the run was trained, with the fastest device of this machine if its own is not available, and with at
        most as many threads as the machine has processors."""
        train = self.record.train
        if train.threads > (processors := os.cpu_count() or 1):
            train = train.model_copy(update={"threads": processors})
        if train.device == "cpu" or is_available(train.device):
            return train.model_copy(update={"device": ranks.own_device(train.device)})
        return train.model_copy(update={"device": devices()[0]})

    # ------------------------------------------------------------------------------------------------ its weights

    @cached_property
    def base(self) -> Run:
        """The run whose personal adapter this is. Raises UserError if this folder is not in that of a run."""
        folder = base_of(self.path.resolve())
        if folder is None:
            raise UserError(
                f"{self.path} is an adapter without its base, {self.record.base_model}. Move it back to the folder "
                f"{FOLDER} of that run.",
                "no_base",
            )
        return Run.open(folder)

    def check_base(self, sha256: str) -> None:
        """Raises UserError if the base of this personal adapter, whose weights have this SHA-256, is not as it was."""
        if sha256 != self.record.base_sha256:
            raise UserError(
                f"The weights of {self.base.path} are not those that {self.path} was tuned from. Tune it again, or "
                "restore the weights of that run.",
                "base_changed",
            )

    @property
    def base_weights(self) -> BaseWeights | None:
        """What a tuned run started from. Raises UserError if it is missing, damaged, or not as it was."""
        if self.record.base_sha256 is None:
            return None
        if self.record.personal:
            self.check_base(self.base.weights_sha256)
            return BaseWeights(state_of(self.base.modules), self.record.lora)
        return BaseWeights(read_base(self.path, self.record.base_sha256), self.record.lora)

    def bounded(self, saved: Checkpoint | None, base: BaseWeights | None) -> Family:
        """The family, which builds no larger network than a checkpoint and the base hold (runs/size_limits.py). Without
        both, run.json itself says how many weights there are."""
        stored = [] if saved is None else list(saved.tensors.get("model", {}).values())
        most = sum(t.numel() for t in stored) + (0 if base is None else base.count)
        held = base.bytes if base is not None and base.few_bits else None
        return bounded(self.family, most or self.record.parameters, self.path / "run.json", held)

    def learner(self) -> Learner:
        """Everything needed to go on training, as of the newest good checkpoint."""
        from afresh.engine.training.plan import make_learner

        saved, base = checkpoint.newest(self.path / "checkpoints"), self.base_weights
        family = self.bounded(saved, base)
        learner = make_learner(family, self.config, self.space, self.conds, self.train, base)
        if saved is not None:
            learner.restore(saved)
        return learner

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """The modules that sampling uses, with averaged weights where there are some and adapters merged.

        Raises UserError without a checkpoint.
        """
        modules = merge_adapters(self.modules_with_adapters())
        for module in modules.values():
            module.eval().requires_grad_(False)
        check_finite(modules, self.path)
        return modules

    def modules_with_adapters(self) -> dict[str, nn.Module]:
        """The same modules with adapters apart from the weights."""
        saved = checkpoint.newest(self.path / "checkpoints", ("model", "ema"))
        if saved is None:
            raise self.no_checkpoint()
        base = self.base_weights
        family, device, seed = self.bounded(saved, base), self.train.device, self.record.seed
        modules = build_network(family, self.config, self.space, self.conds, device, base, seed)
        return self.learnt_into(modules, saved)

    def no_checkpoint(self) -> UserError:
        return UserError(
            f"{self.path} has no checkpoint yet. Resume it: `afresh.resume({str(self.path)!r})`.", "no_checkpoint"
        )

    def learnt_into(self, modules: dict[str, nn.Module], saved: Checkpoint) -> dict[str, nn.Module]:
        """The modules with what the run has learnt, as sampling uses it."""
        averaged = self.family.objective(self.config, self.space).averaged
        for name, module in modules.items():
            average = under(saved.tensors.get("ema", {}), name) if name in averaged else {}
            load_own(module, average or under(saved.tensors.get("model", {}), name), self.path)
        load_chosen(self.path, modules)
        load_fitted(self.path, modules)
        return modules

    @cached_property
    def weights_sha256(self) -> str:
        """The SHA-256 of the weights that sampling uses, as a run that is tuned from them records it."""
        return digest_of(state_of(self.modules))

    def share(self, base: Run) -> None:
        """Use the loaded weights of the base of this personal adapter, which are not copied, and the adapter beside
        them. What it draws differs from what merged weights draw by rounding.

        Raises UserError if the base's weights are not those that the adapter was tuned from, or if it is damaged.
        """
        self.check_base(base.weights_sha256)
        assert self.record.lora is not None
        self.base = base
        saved = checkpoint.newest(self.path / "checkpoints", ("model", "ema"))
        if saved is None:
            raise self.no_checkpoint()
        modules = nn.ModuleDict(self.family.build(self.config, self.space, self.conds))
        own = {k for k, _ in modules.named_buffers()} | (read_weights(self.path, FITTED) or {}).keys()
        weights = state_of(base.modules)
        modules.load_state_dict({k: v.clone() if k in own else v for k, v in weights.items()}, assign=True)
        lora.attach(modules, self.record.lora, Rng(self.record.seed))
        device = next(iter(weights.values())).device
        shared = to_device(dict(modules.items()), str(device))  # tables that are no weights are still on the CPU
        self.modules = self.learnt_into(shared, saved)
        for module in self.modules.values():
            module.eval().requires_grad_(False)
        check_finite(self.modules, self.path)

    def reload(self) -> None:
        """Forget the loaded weights: training has written newer ones."""
        self.__dict__.pop("weights_sha256", None)
        self.__dict__.pop("modules", None)
        self.__dict__.pop("early", None)

    @cached_property
    def early(self) -> dict[str, nn.Module]:
        """Early weights as modules "early_NAME", of a personal adapter those of its base. Raises UserError if there are
        none."""
        if self.record.personal:
            return self.base.early
        return early_modules(self.path, self.family.build(self.config, self.space, self.conds))

    def modules_for(self, settings: Any, modules: Mapping[str, nn.Module] | None = None) -> Mapping[str, nn.Module]:
        """The run's modules, or `modules` in their place, and the early ones if sampling with these settings is guided
        away from them. Raises UserError if there are none."""
        modules = self.modules if modules is None else modules
        if not self.family.sampling.needs_early_weights(settings):
            return modules
        device = next(p for m in modules.values() for p in m.parameters()).device
        return {**modules, **{k: m.to(device) for k, m in self.early.items()}}

    # ------------------------------------------------------------------------------------------------ sampling

    def condition(self, n: int, request: Request, seed: int) -> tuple[Cond, list[dict[str, Any]], list[str]]:
        """The condition of n samples, a description of each, and notes for the user. Raises UserError if n is not from
        1 to 1,000,000 or the request does not fit the model."""
        if not 1 <= n <= MOST:
            raise UserError(f"The number of samples must be from 1 to {MOST:,}. Given: {n}.", "count", n=n)
        request = with_caption(self.conds, self.space, request)
        drawn = draw_conditions(self.conditions, n, Rng(seed), "sample/conditions")
        notes = extrapolations(self.conds, self.conditions, request)
        cond = make_cond(self.conds, drawn, request, self.encoder)
        cond, beside = with_matching_rows(self.conds, self.conditions, cond, request, seed)
        notes += beside
        contained = contains_prompts(self.encoder)
        if request.strength is not None and not (contained and request.prompt is not None):
            raise UserError(
                "`strength` is the share of a prompt, such as a molecule, that is drawn again. Leave it out."
            )
        if request.infill is not None:
            check_fills(self.family, request)
        if request.prompt is not None and self.encoder.space.kind == "tokens" and self.space.kind == "field":
            raise UserError(
                f"{self.path} draws latents of whole {self.encoder.kind.plural}, which do not begin with a prompt. "
                "Leave `prompt` out, or use a model of tokens, such as a transformer."
            )
        if request.prompt is not None and contained:
            cond = encode_parts(self.encoder, cond, request, seed)
        elif request.prompt is not None:
            cond, about = encode_prompts(self.encoder, self.space, cond, request.prompt, request.raw, request.turns)
            notes += about
        if request.infill is not None:
            cond = encode_holes(self.encoder, self.space, cond, request.infill)
        return cond, describe(self.encoder, self.space, cond, request), notes

    def settings(self, values: Mapping[str, Any]) -> Any:
        """The family's sampling settings, without those of results. They hold samples to the notation of the encoder,
        if it has one. Raises UserError naming those that exist."""
        kind, notation = self.encoder.kind, self.encoder.abilities.notation if self.codec is None else None
        values = of_guidance(self.family, self.conds, of_results(kind, values)[0])
        also = () if kind.result_settings is None else kind.result_settings.model_fields
        settings = of_sampling(self.family, values, self.guided, also)
        follows = notation is not None and getattr(settings, "notation", False)
        return settings.model_copy(update={"follows": notation}) if follows else settings

    def result_settings(self, values: Mapping[str, Any], columns: int | None = None) -> Any:
        """Those of `values` that arrange what was drawn (`ItemKind.result_settings`), in `columns` if they do not say
        in how many; None if the kind has none."""
        model = self.encoder.kind.result_settings
        if model is None:
            return None
        _, own = of_results(self.encoder.kind, values)
        return model(**({} if columns is None else {"columns": columns}) | own)

    @property
    def guided(self) -> bool:
        """Whether the model also knows what no condition means. An aligned one is told every condition while it learns,
        and has that branch of its base."""
        return bool(self.conds) and (self.record.train.cond_dropout > 0 or self.record.align is not None)

    @torch.no_grad()
    def draw(
        self,
        modules: Mapping[str, nn.Module],
        cond: Cond,
        seed: int,
        settings: Any,
        numbers: Tensor | None = None,
        sampler: Sampler | None = None,
        report: bool = False,
    ) -> Tensor:
        """x (B, ...) of every row of `cond` in the modality's space, computed in batches by the family's `sample`, or
        by `sampler` in its place. `numbers` (B,) int64 key the noise of the samples; 0, 1, ... by default. `report`:
        raise an event of progress after each of several batches.

        Raises UserError if the model gives numbers that are not finite, and if the samples cost more than is allowed.
        """
        each = self.family.evaluations.sample(self.space, settings)
        check_cost(cond.size * each, f"{cond.size:,} samples of {each:,} evaluations each")
        size = 256
        if self.space.kind == "tokens":  # as many positions as 64 windows of 256 tokens have
            size = min(512, max(64, 64 * 256 // self.space.shape[0]))
        numbers = torch.arange(cond.size) if numbers is None else numbers
        if self.shared_draw is not None and sampler in (None, self.family.sampling.sample) and modules is self.modules:
            return self.from_space(self.shared_draw(self, cond, seed, settings, numbers))
        sampler = self.family.sampling.sample if sampler is None else sampler
        parts = []
        modules = self.modules_for(settings, modules)
        device = next(p for m in modules.values() for p in m.parameters()).device
        for rows in torch.arange(cond.size).split(size):
            part, index = cond.select(rows).to(device), numbers[rows].to(device)
            with precision(self.train):
                x = sampler(modules, self.config, self.space, part, Rng(seed), index, settings)
            parts.append(x.cpu())
            if report and cond.size > size:
                done = int(rows[-1]) + 1
                events.advance(f"drawn: {done:,} of {cond.size:,}", "sampling", done, cond.size)
        return self.from_space(join(parts, self.space))

    def from_space(self, x: Tensor) -> Tensor:
        """Samples of the family's space in the modality's. Raises UserError if they are not finite."""
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise UserError("The model gives numbers that are not finite. Check it: `model.verify()`.", "not_finite")
        return x if self.codec is None else self.codec.decode(x)


def join(parts: Sequence[Tensor], space: Space) -> Tensor:
    """Concatenate batches; token rows of different lengths are padded with `end`."""
    if space.kind == "tokens":
        width = max(p.shape[1] for p in parts)
        parts = [nn.functional.pad(p, (0, width - p.shape[1]), value=space.special.get("end", 0)) for p in parts]
    return torch.cat(list(parts))


def list_runs(root: Path) -> list[Run]:
    """Runs directly below `root`, by name."""
    return [Run.open(p.parent) for p in sorted(root.glob("*/run.json"))]


def metrics_rows(run: Run) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without a last one that a crash may have cut short. Names of older versions are read
    as those of today. Raises UserError if a line holds something else than numbers."""
    rows = read_rows(run.path / "metrics.jsonl")
    return [{RENAMED_METRICS.get(name, name): value for name, value in row.items()} for row in rows]


RENAMED_METRICS = {
    "unseen": "heldout_reward",
    "unseen_error": "heldout_reward_error",
    "away": "distance_from_base",
    "likeness": "data_similarity",
    "likeness_error": "data_similarity_error",
}
