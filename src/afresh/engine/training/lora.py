"""Low-rank adapters for the linear layers and convolutions of any network (Hu et al. 2022, LoRA, ICLR).

A layer W becomes W + s B A with A (rank, in) random, B (out, rank) zero and s = alpha / rank (section 4.1): exactly W
at the start, with far fewer parameters to train and to save. `attach` replaces each adapted layer by an `Adapted`
module, and `plain` puts the layers back.

A layer that consists of several maps in one matrix (q, k and v; gate and up; the groups of a convolution) gets a pair
of matrices for each, as separate layers would, so that adapters can be exchanged with programs that have separate
layers (formats/peft.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from afresh.core import UserError
from afresh.core.rng import Rng
from afresh.data.storage.files import replace_file
from afresh.data.storage.tensor_file import read_tensors
from afresh.engine.nets.causal_lm import CausalLM
from afresh.engine.nets.frozen_linear import FrozenLinear
from afresh.engine.nets.transformer import Attention, Linear, SwiGLU
from afresh.engine.training.optim import is_matrix

Layer = nn.Linear | FrozenLinear | nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLVE = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}  # by the number of dimensions of the weight
DEFAULT = "default"


class LoraConfig(BaseModel):
    """Settings of an adapter.

    `targets`: patterns of names of layers, such as `*attention*`. Without patterns, every hidden linear layer and
    convolution is adapted, but no embedding, head, norm, condition, first or last layer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    rank: int = Field(16, ge=1, le=4096)
    alpha: float = Field(32.0, gt=0)
    targets: tuple[str, ...] = ()

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class Adapter(nn.Module):
    """The change of one layer, scale * B A for each part: a (parts * rank, in, *kernel), b (out, rank)."""

    def __init__(self, a: Tensor, b: Tensor, scale: float) -> None:
        super().__init__()
        self.a, self.b, self.scale = nn.Parameter(a), nn.Parameter(b), scale

    @property
    def rank(self) -> int:
        return self.b.shape[1]


class AdaptedProduct(torch.autograd.Function):
    """x W^T + scale * B A x for x (N, in): (N, out). The change is added in place, part by part, since its passes over
    the output would take as long as its products. `weight` is that of `layer`, or None where it is in few bits."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        a: Tensor,
        b: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        layer: nn.Linear | FrozenLinear,
        parts: Sequence[int],
        scale: float,
    ) -> Tensor:
        dense = dense_weight(layer, x.dtype)
        y = F.linear(x, dense, None if bias is None else bias.to(x.dtype))
        h = x @ a.mT
        for yp, hp, bp in zip(y.split(parts, -1), h.split(b.shape[1], -1), b.split(parts), strict=True):
            yp.addmm_(hp, bp.mT, alpha=scale)
        ctx.save_for_backward(x, a, b, h, None if weight is None else dense)
        ctx.layer, ctx.parts, ctx.scale = layer, parts, scale
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, h, dense = ctx.saved_tensors
        dy, parts = grads[0], ctx.parts
        h = x @ a.mT if torch.is_grad_enabled() else h  # on which gradients of this gradient depend
        each = list(zip(dy.split(parts, -1), h.split(b.shape[1], -1), b.split(parts), strict=True))
        dh = torch.cat([dyp @ bp for dyp, _, bp in each], -1) * ctx.scale
        db = torch.cat([dyp.mT @ hp for dyp, hp, _ in each]) * ctx.scale
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = dy @ (dense_weight(ctx.layer, dy.dtype) if dense is None else dense)
            dx.addmm_(dh, a)
        if ctx.needs_input_grad[3]:
            dw = (dy.mT @ x).to(ctx.layer.weight.dtype)
        dbias = dy.sum(0).to(ctx.layer.bias.dtype) if ctx.needs_input_grad[4] else None
        return dx, dh.mT @ x, db, dw, dbias, None, None, None


def adapted_product(
    x: Tensor, a: Tensor, b: Tensor, layer: nn.Linear | FrozenLinear, parts: Sequence[int], scale: float
) -> Tensor:
    """A layer with an adapter, in the precision of x or of autocast: x (..., in) -> (..., out)."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    rows = x.reshape(-1, x.shape[-1]).to(dtype)
    weight = None if isinstance(layer, FrozenLinear) else layer.weight
    y: Tensor = AdaptedProduct.apply(rows, a.to(dtype), b.to(dtype), weight, layer.bias, layer, parts, scale)
    return y.view(*x.shape[:-1], y.shape[-1])


def dense_weight(layer: nn.Linear | FrozenLinear, dtype: torch.dtype) -> Tensor:
    """The weight of a layer, (out, in)."""
    if isinstance(layer, FrozenLinear):
        return layer.unpacked(dtype)
    if isinstance(layer, Linear) and dtype is torch.bfloat16 and layer.weight.dtype is torch.float32:
        return layer.converted()
    return layer.weight.to(dtype)


class Adapted(nn.Module):
    """A layer with adapters. `parts`: numbers of rows of its separate maps; `used`: the weight of each adapter in use.

    While the adapters are merged into the layer, `unmerged` holds the layer's own weight.
    """

    def __init__(self, base: Layer, parts: Sequence[int]) -> None:
        super().__init__()
        self.base, self.parts = base, tuple(parts)
        self.adapters = nn.ModuleDict()
        self.used: dict[str, float] = {}
        self.unmerged: Tensor | None = None

    def adapter(self, name: str) -> Adapter:
        adapter = self.adapters[name]
        assert isinstance(adapter, Adapter)
        return adapter

    def forward(self, x: Tensor) -> Tensor:
        alone = self.unmerged is None and len(self.used) == 1 and not torch.compiler.is_compiling()
        if alone and isinstance(self.base, nn.Linear | FrozenLinear):
            (name, weight), *_ = self.used.items()
            adapter = self.adapter(name)
            return adapted_product(x, adapter.a, adapter.b, self.base, self.parts, weight * adapter.scale)
        y = self.base(x)
        if self.unmerged is None:
            for name, weight in self.used.items():
                adapter = self.adapter(name)
                y = y + (weight * adapter.scale) * self.change(adapter, x)
        return y

    def change(self, adapter: Adapter, x: Tensor) -> Tensor:
        """B A x without the scale, in the shape of the layer's output."""
        if isinstance(self.base, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            h = self.base._conv_forward(x, adapter.a, None)  # with the layer's stride, padding and groups
            b = adapter.b.view(*adapter.b.shape, *[1] * (adapter.a.dim() - 2))
            return CONVOLVE[adapter.a.dim()](h, b, groups=self.base.groups)
        h = F.linear(x, adapter.a).split(adapter.rank, -1)
        b = adapter.b.split(self.parts)
        return torch.cat([F.linear(hp, bp) for hp, bp in zip(h, b, strict=True)], -1)

    @property
    def weight(self) -> Tensor:
        """The layer's weight with the adapters in use, for code that uses the weight directly."""
        weight = self.base.weight
        if self.unmerged is None:
            for name, share in self.used.items():
                weight = weight + share * self.delta(self.adapter(name)).to(weight.dtype)
        return weight

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    def delta(self, adapter: Adapter) -> Tensor:
        """The change of the layer's weight by an adapter, in the weight's shape."""
        a, b = adapter.a.flatten(1).split(adapter.rank), adapter.b.split(self.parts)
        product = torch.cat([bp @ ap for ap, bp in zip(a, b, strict=True)])
        return (adapter.scale * product).view(shape_of(self.base))

    @torch.no_grad()
    def merge(self) -> None:
        if isinstance(self.base, FrozenLinear):  # its numbers are too few for the sum
            return
        if self.unmerged is None:
            merged = self.weight
            self.unmerged = self.base.weight.detach().clone()
            self.base.weight.copy_(merged)

    @torch.no_grad()
    def unmerge(self) -> None:
        if self.unmerged is not None and not isinstance(self.base, FrozenLinear):
            self.base.weight.copy_(self.unmerged)
            self.unmerged = None


# --------------------------------------------------------------------------- layers


def adaptable(module: nn.Module, targets: Sequence[str] = ()) -> dict[str, Layer]:
    """The layers that an adapter would adapt, by name, including adapted ones. Raises UserError if there are none."""
    matching: dict[str, Layer] = {}
    # The names of the layers in modules of transformers that PEFT leaves as they are.
    nets = ((path, m) for path, m in module.named_modules() if isinstance(m, CausalLM))
    kept = {f"{path}.{name}" if path else name for path, net in nets for name in net.kept}
    layers = {k: m.base if isinstance(m, Adapted) else m for k, m in module.named_modules() if not _inside(module, k)}
    for name, layer in layers.items():
        if isinstance(layer, Layer):
            hidden = isinstance(layer, FrozenLinear) or (is_matrix(name, layer.weight) and name not in kept)
            wanted = any(fnmatchcase(name, t) for t in targets) if targets else hidden
            if wanted and name:
                matching[name] = layer
    if not matching:
        known = [k for k, m in layers.items() if k and isinstance(m, Layer)]
        listed = ", ".join(known[:8]) + (" ..." if len(known) > 8 else "") or "none"
        raise UserError(f"No layer to adapt matches {', '.join(targets) or 'the default'}. Layers: {listed}.")
    return matching


def _inside(module: nn.Module, name: str) -> bool:
    """Whether a name is within an `Adapted` module."""
    path = name.split(".")
    return any(isinstance(module.get_submodule(".".join(path[:i])), Adapted) for i in range(1, len(path)))


def shape_of(layer: Layer) -> torch.Size:
    """The shape of a layer's weight, without unpacking it."""
    return layer.shape if isinstance(layer, FrozenLinear) else layer.weight.shape


def parts_of(owner: nn.Module, name: str, layer: Layer) -> tuple[int, ...]:
    """Number of rows of each separate map of `layer`, which is `owner.name`."""
    rows = shape_of(layer)[0]
    if isinstance(owner, Attention) and name == "qkv":
        s = owner.s
        return s.heads * s.dim, s.kv_heads * s.dim, s.kv_heads * s.dim
    if isinstance(owner, SwiGLU) and name == "gate_up":
        return rows // 2, rows // 2
    groups = 1 if isinstance(layer, nn.Linear | FrozenLinear) else layer.groups
    return (rows // groups,) * groups


def adapted(module: nn.Module) -> dict[str, Adapted]:
    """The adapted layers by name."""
    return {k: m for k, m in module.named_modules() if isinstance(m, Adapted)}


def owner_of(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that contains `name`, and the name within it."""
    path, _, last = name.rpartition(".")
    return module.get_submodule(path), last


# --------------------------------------------------------------------------- adapters


def attach(module: nn.Module, config: LoraConfig, rng: Rng, name: str = DEFAULT) -> int:
    """Add a new adapter to `module`, use it alone, and freeze everything else.

    A is uniform in +-1 / sqrt(fan-in), as in the authors' code. Returns the number of trainable parameters. Raises
    UserError if no layer matches, or an adapter of that name exists.
    """
    tensors: dict[str, Tensor] = {}
    for path, layer in adaptable(module, config.targets).items():
        shape, parts = shape_of(layer), parts_of(*owner_of(module, path), layer)
        rows = torch.arange(len(parts) * config.rank)
        fan_in = math.prod(shape[1:])
        u = rng.uniform(f"lora/{path}", rows, (fan_in,))
        tensors[f"{path}.a"] = ((2 * u - 1) / fan_in**0.5).view(len(rows), *shape[1:])
        tensors[f"{path}.b"] = torch.zeros(shape[0], config.rank)
        tensors[f"{path}.scale"] = torch.tensor(config.scale, dtype=torch.float64)
    put(module, tensors, name)
    module.requires_grad_(False)
    trainable = [
        p for layer in adapted(module).values() if name in layer.adapters for p in layer.adapter(name).parameters()
    ]
    for p in trainable:
        p.requires_grad_(True)
    return sum(p.numel() for p in trainable)


def put(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Add an adapter from tensors as in `adapter_state`, frozen, and use it alone. Raises UserError, leaving the module
    unchanged, if it does not fit."""
    if not name or "." in name:
        raise UserError(f"An adapter's name must be a word without dots. Given: {name!r}.")
    if name in names(module):
        raise UserError(f"There is an adapter named {name!r} already. Choose another name.")
    layers = adaptable(module, [k.removesuffix(".a") for k in tensors if k.endswith(".a")] or ["(nothing)"])
    unknown = sorted({k.rpartition(".")[0] for k in tensors} - set(layers))
    if unknown:
        raise UserError(f"The adapter belongs to another network: this one has no layer {', '.join(unknown[:4])}.")
    fitting: dict[str, tuple[Adapter, tuple[int, ...]]] = {}
    for path, layer in layers.items():
        parts = parts_of(*owner_of(module, path), layer)
        fitting[path] = fitted(path, layer, parts, tensors), parts
    for path, (adapter, parts) in fitting.items():
        owner, last = owner_of(module, path)
        target = getattr(owner, last)
        if not isinstance(target, Adapted):
            target = Adapted(target, parts)
            setattr(owner, last, target)
        target.adapters[name] = adapter
    use(module, {name: 1.0})


def fitted(path: str, layer: Layer, parts: Sequence[int], tensors: Mapping[str, Tensor]) -> Adapter:
    """The adapter of one layer, on its device, in float32. Raises UserError if it does not fit the layer."""
    shape, device = shape_of(layer), next(layer.parameters()).device
    try:
        a, b, scale = (tensors[f"{path}.{k}"] for k in ("a", "b", "scale"))
    except KeyError as e:
        raise UserError(f"The adapter is incomplete: it has no tensor {e}.") from None
    rank = b.shape[1] if b.dim() == 2 else 0
    if b.shape != (shape[0], rank) or a.shape != (len(parts) * rank, *shape[1:]):
        raise UserError(
            f"The adapter does not fit the layer {path}: A {tuple(a.shape)} and B {tuple(b.shape)} for a weight "
            f"{tuple(shape)} of {len(parts)} parts. It belongs to a network of another size."
        )
    if not all(bool(torch.isfinite(t).all()) for t in (a, b, scale)):
        raise UserError(f"The adapter of {path} has numbers that are not finite.")
    a, b = (t.detach().to(device, torch.float32, copy=True).contiguous() for t in (a, b))
    return Adapter(a, b, float(scale)).requires_grad_(False)


def names(module: nn.Module) -> list[str]:
    """The names of all adapters, in the order in which they were added."""
    return list(dict.fromkeys(n for layer in adapted(module).values() for n in layer.adapters))


def use(module: nn.Module, weights: Mapping[str, float]) -> None:
    """Use adapters with weights: {"mine": 1.0}, a mixture {"mine": 0.7, "formal": 0.3}, or {} for the base alone.

    Merged layers stay merged, with the new weights. Raises UserError if a name is unknown.
    """
    known = names(module)
    unknown = sorted(set(weights) - set(known))
    if unknown:
        raise UserError(f"No adapter {', '.join(unknown)}. Known: {', '.join(known) or 'none'}.")
    for layer in adapted(module).values():
        merged = layer.unmerged is not None
        layer.unmerge()
        layer.used = {n: float(w) for n, w in weights.items() if n in layer.adapters and w}
        if merged:
            layer.merge()


def merge(module: nn.Module) -> None:
    """Add the adapters in use to the layers' weights: the same function up to rounding, without extra cost."""
    for layer in adapted(module).values():
        layer.merge()


def plain(module: nn.Module) -> None:
    """Replace the adapted layers by plain ones, with any merged weights, and remove the adapters. Layers in few bits,
    into which nothing can be merged, keep theirs."""
    for name, layer in adapted(module).items():
        if isinstance(layer.base, FrozenLinear):
            continue
        owner, last = owner_of(module, name)
        setattr(owner, last, layer.base)


@contextmanager
def folded(module: nn.Module) -> Iterator[None]:
    """Merge the adapters into plain layers within the block, for code that accesses layers directly."""
    layers = adapted(module)
    merge(module)
    plain(module)
    try:
        yield
    finally:
        for name, layer in layers.items():
            owner, last = owner_of(module, name)
            setattr(owner, last, layer)
            layer.unmerge()


# --------------------------------------------------------------------------- files


def adapter_state(module: nn.Module, name: str = DEFAULT) -> dict[str, Tensor]:
    """LAYER.a, LAYER.b and LAYER.scale of every layer of an adapter. Raises UserError if there is no such adapter."""
    if name not in (known := names(module)):
        raise UserError(f"No adapter {name}. Known: {', '.join(known) or 'none'}.")
    out: dict[str, Tensor] = {}
    for path, layer in adapted(module).items():
        if name in layer.adapters:
            adapter = layer.adapter(name)
            out[f"{path}.a"], out[f"{path}.b"] = adapter.a.detach().clone(), adapter.b.detach().clone()
            out[f"{path}.scale"] = torch.tensor(adapter.scale, dtype=torch.float64)
    return out


def save_adapter(path: Path, module: nn.Module, name: str = DEFAULT) -> None:
    """Save an adapter as one safetensors file. Raises UserError if it cannot be written."""
    tensors = {k: v.contiguous().cpu() for k, v in adapter_state(module, name).items()}
    replace_file(path, save_bytes(tensors, {"format": "afresh.lora"}))


def load_adapter(path: Path, module: nn.Module, name: str = DEFAULT) -> None:
    """Add the adapter that `save_adapter` wrote, frozen, and use it alone. Raises UserError if it is damaged or belongs
    to another network."""
    put(module, read_tensors(path), name)
