"""A model over fields (images, spectrograms) as files hold it: networks, space, conditions. Also the safetensors
format.

What the formats of fields share is here: the model, random requests to compare on, the proof.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save
from torch import Tensor, nn

from afresh.core import Cond, CondSpec, Family, Part, Space, UserError, registry
from afresh.core.options import current
from afresh.core.rng import Rng
from afresh.engine.families.codecs import pipeline, trained
from afresh.engine.families.codecs.pipeline import PipelineCodec
from afresh.engine.families.codecs.trained import TrainedCodec
from afresh.runs.formats.files import load_tensors, read_model, write_json
from afresh.runs.formats.model_card import README

WEIGHTS, ABOUT, CODEC = "model.safetensors", "model.json", "codec"
BATCHES = (1, 3)  # sizes of batches on which a proof compares
FieldCodec = PipelineCodec | TrainedCodec
CODECS: Mapping[str, Callable[[Path], FieldCodec]] = {"pipeline": pipeline.load, "trained": trained.load}


@dataclass(frozen=True)
class FieldModel:
    """A model over fields, of `cpu_copies` of its modules. `image`: whether -1 ... 1 stand for the bytes 0 ... 255.
    `codec`: by its name in CODECS; `space` is then that of its latents."""

    family: Family
    config: Any
    modules: Mapping[str, nn.Module]
    space: Space
    conds: CondSpec
    source: str
    image: bool
    codec: tuple[str, FieldCodec] | None = None

    @cached_property
    def decoder(self) -> nn.Module:
        """Maps x (B, *space.shape) to samples (B, *samples.shape)."""
        return nn.Identity() if self.codec is None else cpu_copies({"": self.codec[1].decoder})[""]

    @property
    def samples(self) -> Space:
        """The space of what is drawn."""
        return self.space if self.codec is None else self.codec[1].source

    def state(self) -> dict[str, Tensor]:
        """Tensors as {module.parameter: tensor}."""
        return {
            f"{m}.{k}": v.contiguous().clone() for m, net in self.modules.items() for k, v in net.state_dict().items()
        }


def cpu_copies(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Frozen copies of modules on any device, in float32 on the CPU."""
    nets = {k: copy.deepcopy(m).cpu().float().eval().requires_grad_(False) for k, m in modules.items()}
    # One memory layout for all: another one rounds differently, and proofs compare bit for bit.
    return {k: m.to(memory_format=torch.contiguous_format) for k, m in nets.items()}  # type: ignore[call-overload]


class FieldProof(BaseModel):
    """proof.json of a model over fields: the largest absolute difference of outputs, and the largest that is
    accepted."""

    model_config = ConfigDict(frozen=True)
    passed: bool
    format: str
    precision: str
    reader: str
    independent: bool  # another program has computed with the file
    compared: str
    batches: list[int]
    largest: float
    tolerance: float
    outputs: float  # the largest absolute output, as a scale for the difference
    notes: list[str]


def measure_pairs(
    pairs: Iterable[tuple[Tensor, Tensor]], tolerance: float, reader: str, compared: str, same: bool = True
) -> dict[str, Any]:
    """The measured fields of a `FieldProof` by another program: of outputs of the model and of the file.

    tolerance: relative to the largest output or 1. same: whether all is equal that must be equal bit for bit.
    """
    largest, outputs = 0.0, 0.0
    for ours, theirs in pairs:
        largest, outputs = max(largest, difference(ours, theirs)), max(outputs, float(ours.abs().max()))
    tolerance *= max(1.0, outputs)
    return {
        "passed": same and largest <= tolerance,
        "reader": reader,
        "independent": True,
        "compared": compared,
        "largest": largest,
        "tolerance": tolerance,
        "outputs": outputs,
    }


# --------------------------------------------------------------------------- requests to compare on


def random_requests(spec: CondSpec, n: int, rng: Rng) -> Cond:
    """n random requests; each part of the condition is left out of about a quarter of them."""
    rows = torch.arange(n)
    parts = {name: random_values(name, part, rows, rng) for name, part in spec.items()}
    return Cond(n, parts, {name: rng.uniform(f"export/{name}/present", rows) < 0.75 for name in spec})


def random_values(name: str, part: Part, rows: Tensor, rng: Rng) -> Tensor:
    """Random values of one part, (n, *part.row)."""
    if part.kind == "label":
        return (rng.uniform(f"export/{name}", rows) * len(part.classes)).long()
    if part.kind == "prompt":
        return (rng.uniform(f"export/{name}", rows, part.row) * (len(part.classes) + 2)).long()
    return rng.normal(f"export/{name}", rows, part.row)


def always(cond: Cond) -> Cond:
    """The same requests with every part present."""
    return Cond(cond.size, cond.parts, {k: torch.ones_like(v) for k, v in cond.present.items()})


# --------------------------------------------------------------------------- safetensors


class SavedSpace(BaseModel):
    """A space of fields in model.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    shape: tuple[int, ...] = Field(min_length=2)
    std: float = Field(gt=0, allow_inf_nan=False)


class _Saved(BaseModel):
    """model.json of the safetensors export."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal["afresh.fields"] = "afresh.fields"
    version: Literal[1] = 1
    family: str
    config: dict[str, Any]
    space: SavedSpace
    conds: CondSpec
    image: bool
    source: str
    codec: Literal["pipeline", "trained"] | None = None


def write(model: FieldModel, folder: Path) -> list[str]:
    """Write model.safetensors, model.json, README.md and the codec into an empty folder; returns notes (none)."""
    saved = _Saved(
        family=model.family.name,
        config=model.config.model_dump(mode="json"),
        space=SavedSpace(shape=model.space.shape, std=model.space.std),
        conds=model.conds,
        image=model.image,
        source=Path(model.source).name,
        codec=None if model.codec is None else model.codec[0],
    )
    if model.codec is not None:
        model.codec[1].save(folder / CODEC)
    (folder / WEIGHTS).write_bytes(save(model.state(), {"format": "pt"}))
    write_json(folder / ABOUT, saved.model_dump(mode="json"))
    (folder / README).write_text(guide(model), encoding="utf-8")
    return []


def read(folder: Path, family_named: Callable[[str], Family]) -> FieldModel:
    """Read what `write` wrote. Raises UserError, naming fields or tensors, if the files do not fit together."""
    saved = read_model(folder / ABOUT, _Saved)
    codec = None if saved.codec is None else (saved.codec, CODECS[saved.codec](folder / CODEC))
    space = Space("field", saved.space.shape, std=saved.space.std) if codec is None else codec[1].target
    if space.shape != saved.space.shape:
        raise UserError(f"{folder / CODEC} makes latents of another shape than {ABOUT} states. Export the run again.")
    family = family_named(saved.family).for_space(space)
    try:
        config = family.config(**current(saved.config, family.retired))
    except ValueError as e:
        raise UserError(f"{folder / ABOUT} holds sizes that the family {saved.family} does not accept: {e}.") from None
    modules = family.build(config, space, saved.conds)
    try:
        nn.ModuleDict(modules).load_state_dict(load_tensors(folder / WEIGHTS))
    except RuntimeError as e:
        raise UserError(f"{folder / WEIGHTS} does not fit {ABOUT}: {e}.") from None
    nets = cpu_copies(modules)
    return FieldModel(family, config, nets, space, saved.conds, saved.source, saved.image, codec)


def guide(model: FieldModel) -> str:
    """README.md: how to load the model and sample from it."""
    return f"""# {Path(model.source).name}

A model of the family `{model.family.name}` in afresh's own names: `model.safetensors` holds its tensors as
`module.parameter`, `model.json` its sizes, space and conditions. If it learnt the latents of a codec, `{CODEC}/` holds
what decodes them. `proof.json` states how it was checked. To sample:

```python
from pathlib import Path

from afresh.core import Cond, registry
from afresh.runs.formats.fields import read, sample

model = read(Path("."), registry.family)  # this folder
x = sample(model, Cond.unconditional(model.conds, 4))  # four samples, unconditional
print(x.shape, float(x.min()), float(x.max()))
```
"""


def prove(model: FieldModel, folder: Path) -> dict[str, Any]:
    """The measured fields of a `FieldProof`: the model that is read again has the same tensors and gives the same
    samples, bit for bit."""
    again = read(folder, registry.family)
    same = same_tensors(model.state(), again.state())
    same &= same_tensors(model.decoder.state_dict(), again.decoder.state_dict())
    requests = (random_requests(model.conds, n, Rng(n)) for n in BATCHES)
    pairs = ((sample(model, cond), sample(again, cond)) for cond in requests)
    reader = "afresh, reading the file again"
    return measure_pairs(pairs, 0.0, reader, "all tensors, and samples of random requests", same) | {
        "independent": False
    }


@torch.no_grad()
def sample(model: FieldModel, cond: Cond, **settings: Any) -> Tensor:
    """Samples (n, *samples.shape) with the family's default settings but those given."""
    rows, chosen = torch.arange(cond.size), model.family.sampling.settings(**settings)
    x = model.family.sampling.sample(model.modules, model.config, model.space, cond, Rng(0), rows, chosen)
    decoded: Tensor = model.decoder(x)
    return decoded


def same_tensors(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two states have the same names and, bit for bit, the same tensors."""
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference; NaN counts as infinite."""
    return float((a.double() - b.double()).abs().nan_to_num(torch.inf, torch.inf).max())
