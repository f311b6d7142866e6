"""A model of fields (pictures) as files hold it: networks, space, conditions. And its plainest form: safetensors.

What the formats of pictures have in common: the model at rest, random requests to compare on, the proof.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save
from torch import Tensor, nn

from afresh.core import Cond, CondSpec, Family, Part, Space, UserError
from afresh.core.rng import Rng
from afresh.data.conditions import SavedPart
from afresh.formats.huggingface import opened, read_json, write_json

WEIGHTS, ABOUT, README = "model.safetensors", "model.json", "README.md"
BATCHES = (1, 3)  # sizes that a proof compares


@dataclass(frozen=True)
class FieldModel:
    """A model over fields, at rest: float32, on the CPU. `picture`: whether -1 ... 1 are the bytes 0 ... 255."""

    family: Family
    config: Any
    modules: Mapping[str, nn.Module]
    space: Space
    conds: CondSpec
    source: str
    picture: bool

    @staticmethod
    def of(
        family: Family,
        config: Any,
        modules: Mapping[str, nn.Module],
        space: Space,
        conds: CondSpec,
        source: str,
        picture: bool,
    ) -> FieldModel:
        """From modules on any device, which stay as they are."""
        still = {k: copy.deepcopy(m).cpu().float().eval().requires_grad_(False) for k, m in modules.items()}
        # One layout for all: another rounds otherwise, and what is read back is compared bit for bit.
        still = {k: m.to(memory_format=torch.contiguous_format) for k, m in still.items()}  # type: ignore[call-overload]
        return FieldModel(family, config, still, space, conds, source, picture)

    def state(self) -> dict[str, Tensor]:
        """{module.name: tensor}."""
        return {
            f"{m}.{k}": v.contiguous().clone() for m, net in self.modules.items() for k, v in net.state_dict().items()
        }


class FieldProof(BaseModel):
    """proof.json of a model of fields: the largest absolute difference of outputs, and how large it may be."""

    model_config = ConfigDict(frozen=True)
    passed: bool
    format: str
    precision: str
    reader: str
    independent: bool  # whether another program has computed the file
    compared: str
    batches: list[int]
    largest: float
    tolerance: float
    outputs: float  # the largest absolute output, to see the difference against
    notes: list[str]


# --------------------------------------------------------------------------- requests to compare on


def requests(spec: CondSpec, n: int, rng: Rng) -> Cond:
    """n random requests; each part is left out of about a quarter of them."""
    rows = torch.arange(n)
    parts = {name: values(name, part, rows, rng) for name, part in spec.items()}
    present = {name: rng.uniform(f"export/{name}/present", rows) < 0.75 for name in spec}
    return Cond(n, parts, present)


def values(name: str, part: Part, rows: Tensor, rng: Rng) -> Tensor:
    """Random values of one part, (n, *part.row)."""
    if part.kind == "label":
        return (rng.uniform(f"export/{name}", rows) * len(part.classes)).long()
    if part.kind == "prompt":
        return (rng.uniform(f"export/{name}", rows, part.row) * (len(part.classes) + 2)).long()
    return rng.normal(f"export/{name}", rows, part.row)


def always(cond: Cond) -> Cond:
    """The same requests with every part named."""
    return Cond(cond.size, cond.parts, {k: torch.ones_like(v) for k, v in cond.present.items()})


# --------------------------------------------------------------------------- safetensors


class SavedSpace(BaseModel):
    """A space of fields in a file."""

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
    conds: dict[str, SavedPart]
    picture: bool
    source: str


def write(model: FieldModel, folder: Path) -> list[str]:
    """model.safetensors, model.json and README.md into an empty folder; returns notes (none)."""
    saved = _Saved(
        family=model.family.name,
        config=model.config.model_dump(mode="json"),
        space=SavedSpace(shape=model.space.shape, std=model.space.std),
        conds={k: SavedPart.of(p) for k, p in model.conds.items()},
        picture=model.picture,
        source=Path(model.source).name,
    )
    (folder / WEIGHTS).write_bytes(save(model.state(), {"format": "pt"}))
    write_json(folder / ABOUT, saved.model_dump(mode="json"))
    (folder / README).write_text(guide(model), encoding="utf-8")
    return []


def read(folder: Path, family_named: Callable[[str], Family]) -> FieldModel:
    """What `write` wrote. Raises UserError, naming fields or tensors, for what does not fit."""
    try:
        saved = _Saved.model_validate(read_json(folder / ABOUT))
    except ValidationError as e:
        problems = "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in e.errors()[:5])
        raise UserError(f"{folder / ABOUT} is no export that this version can read: {problems}.") from None
    family = family_named(saved.family)
    try:
        config = family.config(**saved.config)
    except ValidationError as e:
        raise UserError(f"{folder / ABOUT} holds sizes that the family {saved.family} does not know: {e}.") from None
    space = Space("field", saved.space.shape, std=saved.space.std)
    conds = {k: p.part() for k, p in saved.conds.items()}
    modules = family.build(config, space, conds)
    with opened(folder / WEIGHTS) as f:
        found = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - no mapping
    try:
        nn.ModuleDict(modules).load_state_dict(found)
    except RuntimeError as e:
        raise UserError(f"{folder / WEIGHTS} does not fit what model.json says: {e}.") from None
    return FieldModel.of(family, config, modules, space, conds, saved.source, saved.picture)


def guide(model: FieldModel) -> str:
    """README.md: how to load the model and sample from it."""
    return f"""# {Path(model.source).name}

A model of the family `{model.family.name}` in afresh's own names: `model.safetensors` holds its tensors as
`module.parameter`, `model.json` its sizes, space and conditions. `proof.json` states how it was checked. To sample:

```python
from pathlib import Path

import torch

from afresh.core import Cond, registry
from afresh.core.rng import Rng
from afresh.formats.fields import read

model = read(Path("."), registry.family)  # this folder
cond = Cond.nothing(model.conds, 4)  # four samples, unconditional
with torch.no_grad():
    x = model.family.sampling.sample(
        model.modules, model.config, model.space, cond, Rng(0), torch.arange(4), model.family.sampling.settings()
    )
print(x.shape, float(x.min()), float(x.max()))
```
"""


def prove(model: FieldModel, folder: Path, family_named: Callable[[str], Family]) -> dict[str, Any]:
    """The measured fields of a `FieldProof`: tensors and samples of what is read again, bit for bit."""
    again = read(folder, family_named)
    before, after = model.state(), again.state()
    same = before.keys() == after.keys() and all(torch.equal(v, after[k]) for k, v in before.items())
    largest, outputs = 0.0, 0.0
    for n in BATCHES:
        cond = requests(model.conds, n, Rng(n))
        ours, theirs = (drawn(m, cond) for m in (model, again))
        largest, outputs = max(largest, difference(ours, theirs)), max(outputs, float(ours.abs().max()))
    return {
        "passed": same and largest == 0,
        "reader": "afresh, reading the file again",
        "independent": False,
        "compared": "all tensors, and samples of random requests",
        "largest": largest,
        "tolerance": 0.0,
        "outputs": outputs,
    }


@torch.no_grad()
def drawn(model: FieldModel, cond: Cond) -> Tensor:
    """Samples by the family's own settings."""
    rows = torch.arange(cond.size)
    return model.family.sampling.sample(
        model.modules, model.config, model.space, cond, Rng(0), rows, model.family.sampling.settings()
    )


def difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference; NaN counts as infinite."""
    return float((a.double() - b.double()).abs().nan_to_num(torch.inf, torch.inf).max())
