"""One run's folder: the truth about a model. Create, open, load, sample."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from afresh.alignment.reward_guidance import Sampler
from afresh.alignment.rewards.reward_factory import Wanted
from afresh.core import Codec, Cond, CondSpec, Encoder, Family, Space, UserError, registry
from afresh.core.options import of_guidance, of_sampling
from afresh.core.rng import Rng
from afresh.data.conditions import load_conditions, save_conditions
from afresh.data.load import draw_conditions
from afresh.runs.adapters import check_finite
from afresh.runs.record import RunRecord
from afresh.sampling.request import Request, check_fills, describe, encode_holes, encode_prompts, make_cond, unwanted
from afresh.sampling.samples import Samples
from afresh.sampling.stream import Stream
from afresh.sampling.text_stream import Tell
from afresh.tasks.sample import PLAIN, Control, Drawing, join
from afresh.training import checkpoint
from afresh.training.base_weights import Origin, folded, put_back, read_base, write_base
from afresh.training.config import TrainConfig
from afresh.training.loop import Learner, precision, under
from afresh.training.plan import make_learner, placed
from afresh.training.weights import with_average, with_early, with_finished


class Run:
    """An existing run. Opening reads run.json; weights are loaded when first needed."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        self.path, self.record = path, record

    @staticmethod
    def open(path: str | Path) -> Run:
        """Raises UserError when the folder is not a run or its run.json is not understood."""
        folder = Path(path)
        file = folder / "run.json"
        if not file.is_file():
            near = sorted(str(p.parent) for p in folder.parent.glob("*/run.json")) if folder.parent.is_dir() else []
            hint = f" Runs beside it: {', '.join(near[:8])}." if near else " Make one with: afresh train PATH."
            raise UserError(f"{folder} is not a run: it has no run.json.{hint}")
        try:
            return Run(folder, RunRecord.model_validate_json(file.read_bytes()))
        except ValidationError as e:
            problems = "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in e.errors()[:5])
            raise UserError(f"{file} is not a run record that this version understands: {problems}.") from e

    @staticmethod
    def create(
        path: Path,
        record: RunRecord,
        encoder: Encoder,
        codec: Codec | None,
        cond: Cond,
        base: Mapping[str, Tensor] | None = None,
    ) -> Run:
        """Write everything but what is learnt. The folder must not hold a run (afresh.runs.output_dir). `base`: the
        weights that training begins with, {module.name: tensor}; without, they are random."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            if base is not None:
                record = record.model_copy(update={"base_sha256": write_base(path, base)})
            encoder.save(path / "encoder")
            if codec is not None:
                codec.save(path / "codec")
            save_conditions(path / "conditions.safetensors", cond)
            checkpoint.write_json(path / "run.json", record.model_dump(mode="json"))
        except (OSError, UserError) as e:
            for part in ("encoder", "codec"):
                shutil.rmtree(path / part, ignore_errors=True)
            for file in ("conditions.safetensors", "base.safetensors"):
                (path / file).unlink(missing_ok=True)
            if isinstance(e, UserError):
                raise
            free = f"{checkpoint.free_bytes(path):,} bytes are free there"
            raise UserError(
                f"Cannot write the run to {path}: {e.strerror or e}; {free}. Make room or choose another --out."
            ) from e
        return Run(path, record)

    @cached_property
    def family(self) -> Family:
        return registry.family(self.record.family)

    @cached_property
    def config(self) -> Any:
        return self.family.config(**self.record.config)

    @cached_property
    def encoder(self) -> Encoder:
        return registry.modality(self.record.modality).load(self.path / "encoder")

    @cached_property
    def codec(self) -> Codec | None:
        return None if self.record.codec is None else registry.load_codec(self.record.codec, self.path / "codec")

    @property
    def space(self) -> Space:
        """The space that the family works in: the modality's or the codec's, in windows of the plan's length."""
        space = self.encoder.space if self.codec is None else self.codec.target
        return space if self.record.window is None else replace(space, shape=(self.record.window,))

    @property
    def training_space(self) -> Space:
        """The space in the windows that training sees: shorter than the model's where a base can look further."""
        return self.space if self.record.cut is None else replace(self.space, shape=(self.record.cut,))

    @property
    def conds(self) -> CondSpec:
        return self.encoder.conds

    @cached_property
    def conditions(self) -> Cond:
        """Requests as they occurred in the training split (at most 4,096)."""
        return load_conditions(self.path / "conditions.safetensors", self.conds)

    @property
    def train(self) -> TrainConfig:
        """How the run was trained, on the processor where its accelerator is not present."""
        train = self.record.train
        present = train.device == "cpu" or (train.device.startswith("cuda") and torch.cuda.is_available())
        return train if present else train.model_copy(update={"device": "cpu"})

    @property
    def origin(self) -> Origin | None:
        """What a tuned run began with. Raises UserError when it is gone or damaged."""
        if self.record.base_sha256 is None:
            return None
        return Origin(read_base(self.path, self.record.base_sha256), self.record.lora)

    def learner(self) -> Learner:
        """Everything needed to go on training, as of the newest good checkpoint."""
        train = self.train
        made = make_learner(self.family, self.config, self.space, self.conds, train, self.origin)
        saved = checkpoint.newest(self.path / "checkpoints")
        if saved is not None:
            made.restore(saved)
        return made

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """The modules that sampling uses, averaged weights where there are some, adapters added in.

        Raises UserError without a checkpoint.
        """
        built = folded(self.assembled())
        for module in built.values():
            module.eval().requires_grad_(False)
        check_finite(built, self.path)
        return built

    def assembled(self) -> dict[str, nn.Module]:
        """The same with adapters apart."""
        saved = checkpoint.newest(self.path / "checkpoints", ("model", "ema"))
        if saved is None:
            raise UserError(f"{self.path} has no checkpoint yet. Go on with: afresh train --resume {self.path}")
        torch.set_num_threads(self.record.train.threads)
        built = placed(self.family.build(self.config, self.space, self.conds), self.train.device)
        origin = self.origin
        if origin is not None:
            built = origin.begin(built, self.record.seed)
        averaged = self.family.objective(self.config, self.space).averaged
        for name, module in built.items():
            found = under(saved.tensors.get("ema", {}), name) if name in averaged else {}
            put_back(module, found or under(saved.tensors["model"], name), self.path)
        with_average(self.path, built)
        with_finished(self.path, built)
        return built

    @cached_property
    def early(self) -> dict[str, nn.Module]:
        """Early weights as modules "early_NAME". Raises UserError when none were kept."""
        return with_early(self.path, self.family.build(self.config, self.space, self.conds))

    def sample(
        self,
        n: int = 16,
        *,
        prompt: str | Sequence[str] | None = None,
        infill: str | Sequence[str] | None = None,
        label: str | Mapping[str, str] | None = None,
        number: Mapping[str, float] | None = None,
        caption: str | None = None,
        image: Any = None,
        negative_label: str | Mapping[str, str] | None = None,
        negative_caption: str | None = None,
        seed: int = 0,
        raw: bool = False,
        stop: str | Sequence[str] = (),
        logprobs: bool = False,
        best: int = 1,
        reward: Wanted | None = None,
        steer: Wanted | None = None,
        weight: float | None = None,
        adapters: Mapping[str, float] | None = None,
        **settings: Any,
    ) -> Samples:
        """Draw n samples. `settings` are the family's: guidance, temperature, steps, truncation, ...

        A model of conversations answers the prompt; with `raw` it goes on with it. `infill` is a text with holes, [[N]]
        for N tokens, which the family `masked` fills. A text ends before a `stop` string (x keeps all that was drawn);
        `written` says why each ended, with `logprobs` also how likely each token was (afresh.sampling.text_stream).
        `image` is the picture to make others from: a file, an array (H, W, C) of uint8, or several by name.
        `guidance` is one number, or one by part: {"caption": 3, "label": 1.5}, "" for all others; it steers away from
        `negative_label` and `negative_caption`, where they are given.
        Of `best` candidates for each the one with the highest `reward` is kept: words ("length:min=50") or a function
        of decoded items. `steer` is a reward whose gradient pulls pictures, `weight` times. `adapters`, {path: weight},
        were tuned or aligned from this run (afresh.tasks.sample.Control). What they did is told in `described`.
        What is not asked for is drawn as it occurred in the training split. Raises UserError for a label never
        seen, a setting the family lacks, or n outside 1 ... 1,000,000.
        """
        negative = unwanted(negative_label, negative_caption)
        request = Request(prompt, label, number or {}, caption, raw, infill, stop, logprobs, image, negative)
        return self.drawing(n, request, seed, settings, control=Control(best, reward, steer, weight, adapters or {}))()

    def stream(
        self,
        prompt: str | None = None,
        *,
        label: str | Mapping[str, str] | None = None,
        number: Mapping[str, float] | None = None,
        seed: int = 0,
        raw: bool = False,
        stop: str | Sequence[str] = (),
        logprobs: bool = False,
        **settings: Any,
    ) -> Stream:
        """The text that sample(1, ...) makes, in pieces as it is drawn: whole characters, never a part of a `stop`
        string. `for piece in run.stream("Once"): print(piece, end="", flush=True)`. Raises UserError as `sample`."""
        request = Request(prompt, label, number or {}, None, raw, None, stop, logprobs)
        return Stream(lambda tell: self.drawing(1, request, seed, settings, tell))

    def drawing(
        self,
        n: int,
        request: Request,
        seed: int,
        given: Mapping[str, Any],
        tell: Tell | None = None,
        control: Control = PLAIN,
    ) -> Callable[[], Samples]:
        """What draws n samples, `tell` being told each piece of the text. Raises UserError at once, as `sample`."""
        return Drawing(self, n, request, seed, given, tell, control)

    def sample_labels(self, labels: Sequence[str], *, seed: int = 0, **settings: Any) -> Samples:
        """One sample for each label in turn. Raises UserError as `sample` does."""
        conds = [self.request(1, Request(label=label), seed) for label in labels]
        cond = Cond.cat([c for c, _, _ in conds])
        x = self.draw(self.modules, cond, seed, self.settings(settings))
        return Samples(self.encoder.decode(x), x, cond, [d[0] for _, d, _ in conds], seed, self.encoder)

    def measure(self, data: str | Path | None = None, n: int | None = None) -> dict[str, Any]:
        """{card, metrics, skipped, notes}, on the held-out split or on `data`. Raises UserError as `measure_run`."""
        from afresh.tasks.measure import measure_run

        return measure_run(self, None if data is None else Path(data), n).json()

    def save(self, path: str | Path) -> Run:
        """A verified copy of the whole folder. Raises UserError when `path` exists or a checkpoint is damaged."""
        from afresh.tasks.verify import copy_run

        return copy_run(self, Path(path))

    def request(self, n: int, request: Request, seed: int) -> tuple[Cond, list[dict[str, Any]], list[str]]:
        """The condition of n samples, a description of each, and notes for the user."""
        if not 1 <= n <= 1_000_000:
            raise UserError(f"The number of samples must be from 1 to 1,000,000. Given: {n}.")
        base = draw_conditions(self.conditions, n, Rng(seed), "sample/conditions")
        cond = make_cond(self.conds, base, request, self.encoder)
        notes: list[str] = []
        if request.prompt is not None:
            cond, notes = encode_prompts(self.encoder, self.space, cond, request.prompt, request.raw)
        if request.infill is not None:
            check_fills(self.family, request)
            cond = encode_holes(self.encoder, self.space, cond, request.infill)
        return cond, describe(self.encoder, self.space, cond, request), notes

    def settings(self, given: Mapping[str, Any]) -> Any:
        """The family's sampling settings. Raises UserError naming those that exist."""
        given = of_guidance(self.family, self.conds, given)
        return of_sampling(self.family, given, bool(self.conds) and self.record.train.cond_dropout > 0)

    def needed(self, settings: Any, modules: Mapping[str, nn.Module] | None = None) -> Mapping[str, nn.Module]:
        """The run's modules, or those in their place, and the early ones where sampling with these settings steers away
        from them. Raises UserError when none were kept."""
        modules = self.modules if modules is None else modules
        if not self.family.sampling.needs_early_weights(settings):
            return modules
        device = next(p for m in modules.values() for p in m.parameters()).device
        return {**modules, **{k: m.to(device) for k, m in self.early.items()}}

    @torch.no_grad()
    def draw(
        self,
        modules: Mapping[str, nn.Module],
        cond: Cond,
        seed: int,
        settings: Any,
        numbers: Tensor | None = None,
        sampler: Sampler | None = None,
    ) -> Tensor:
        """x of every request in the modality's space, computed in batches: of the samples `numbers` (0, 1, ... if not
        given), by the family's own `sample` or one in its place."""
        size = 64 if self.space.kind == "tokens" else 256
        numbers = torch.arange(cond.size) if numbers is None else numbers
        sampler = self.family.sampling.sample if sampler is None else sampler
        parts = []
        modules = self.needed(settings, modules)
        device = next(p for m in modules.values() for p in m.parameters()).device
        for rows in torch.arange(cond.size).split(size):
            asked, index = cond.select(rows).to(device), numbers[rows].to(device)
            with precision(self.train):
                x = sampler(modules, self.config, self.space, asked, Rng(seed), index, settings)
            parts.append(x.cpu())
        x = join(parts, self.space)
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise UserError("The model produced numbers that are not finite. Check the run: afresh verify RUN.")
        return x if self.codec is None else self.codec.decode(x)


def list_runs(root: Path) -> list[Run]:
    """Runs directly below `root`, by name."""
    return [Run.open(p.parent) for p in sorted(root.glob("*/run.json"))]


def summary(run: Run) -> dict[str, Any]:
    """What a run is and how far it came: `steps` of `planned`."""
    found = checkpoint.steps_in(run.path / "checkpoints")
    return {
        "run": str(run.path),
        "modality": run.record.modality,
        "family": run.record.family,
        "parameters": run.record.parameters,
        "steps": int(found[-1]) if found else 0,
        "planned": planned_steps(run),
    }


def planned_steps(run: Run) -> int:
    """How many steps the newest checkpoint was heading for: a budget in minutes may have changed the plan's number."""
    root = run.path / "checkpoints"
    for name in reversed(checkpoint.steps_in(root)):
        if not checkpoint.check(root / name):
            return int(checkpoint.read(root / name, ()).scalars["steps"])
    return run.record.train.steps


def metrics_lines(run: Run) -> list[dict[str, Any]]:
    """metrics.jsonl, without a last line that a crash may have cut."""
    file = run.path / "metrics.jsonl"
    lines = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines
