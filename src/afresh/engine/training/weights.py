"""The weights that a run stores in addition to its checkpoints.

`base` are the weights from which tuning started. They are copied in full, so that the run remains usable if the base is
trained further, moved or removed from the hub; a copy is smaller than the two checkpoints of a full run. The other
files are written during and after training, and may be missing:

early      the weights after a share of the steps, for guidance by a weaker model
averaged   the weights that sampling uses instead of the last ones (training/best_checkpoint.py)
finished   tensors that the family fitted to its data after training, such as a density of latents
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from afresh.core import CondSpec, UserError
from afresh.core.rng import Rng
from afresh.data.storage.files import replace_file
from afresh.data.storage.tensor_file import map_tensors, read_tensors
from afresh.engine.nets.frozen_linear import BLOCK, FrozenLinear, Kind, packed
from afresh.engine.training import lora
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.lora import LoraConfig
from afresh.engine.training.optim import is_matrix
from afresh.engine.training.sharding import divided_like

ROWS = ("embedding.weight", "head.weight", "head.bias")  # ends of the names of tensors with a row for each token
CODES, SCALES = ".codes", ".scales"  # ends of the names of tensors of layers in few bits
BASE, EARLY, CHOSEN, FITTED = "base", "early", "averaged", "finished"  # file names in a run's folder
LOWEST, HIGHEST = "lowest", "highest"  # ... of the weights of its best checkpoint


def learnt(net: nn.Module) -> dict[str, Tensor]:
    """The state of a network without its frozen parameters, which are not part of a checkpoint."""
    frozen = {k for k, p in net.named_parameters(remove_duplicate=False) if not p.requires_grad}
    return {k: v for k, v in net.state_dict().items() if k not in frozen}


def load_learnt(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load a state from `learnt`. Raises KeyError or RuntimeError if it belongs to another network."""
    known = learnt(net)
    if known.keys() != tensors.keys():
        raise KeyError(", ".join(sorted(known.keys() ^ tensors.keys())[:4]))
    net.load_state_dict({k: divided_like(known[k], v) for k, v in tensors.items()}, strict=False)


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix.`, with this prefix removed."""
    return {k[len(prefix) + 1 :]: v for k, v in tensors.items() if k.startswith(prefix + ".")}


def serialised(tensors: Mapping[str, Tensor]) -> bytes:
    """The content of a safetensors file, with each tensor in its own precision."""
    return save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of weights as `write_base` writes them."""
    return hashlib.sha256(serialised(tensors)).hexdigest()


def state_of(modules: Mapping[str, nn.Module], names: tuple[str, ...] | None = None) -> dict[str, Tensor]:
    """The state of the named modules (all by default) as one mapping {module.name: tensor}. Layers in few bits are
    unpacked, with their adapters in use."""
    return {f"{m}.{k}": v for m in (names or tuple(modules)) for k, v in unpacked_state(modules[m]).items()}


@torch.no_grad()
def unpacked_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a network, with layers in few bits as those that they stand for."""
    state, within = module.state_dict(), lora.adapted(module)
    for name, frozen in {k: m for k, m in module.named_modules() if isinstance(m, FrozenLinear)}.items():
        outer = name.removesuffix(".base") if name.removesuffix(".base") in within else name
        bias = frozen.bias
        state = {k: v for k, v in state.items() if not k.startswith(f"{outer}.")}
        state[f"{outer}.weight"] = within[outer].weight if outer in within else frozen.weight
        if bias is not None:
            state[f"{outer}.bias"] = bias
    return state


# ---------------------------------------------------------------------------------------------- early, chosen, fitted


def write_weights(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Write NAME.safetensors with {module.name: tensor}, and its SHA-256 in NAME.sha256.

    Raises UserError if the files cannot be written.
    """
    data, hashed = serialised(tensors), folder / f"{name}.sha256"
    digest = f"{hashlib.sha256(data).hexdigest()}\n".encode()
    old = hashed.read_bytes()[: len(digest)] if hashed.is_file() else b""
    replace_file(hashed, digest + old)  # until the weights are replaced, the old ones and the new ones are valid
    replace_file(folder / f"{name}.safetensors", data)
    if old:
        replace_file(hashed, digest)


def read_weights(folder: Path, name: str) -> dict[str, Tensor] | None:
    """The tensors of NAME.safetensors, or None if there is no such file. Raises UserError if it is damaged."""
    file = folder / f"{name}.safetensors"
    if not file.exists():
        return None
    try:
        data, digests = file.read_bytes(), (folder / f"{name}.sha256").read_text("ascii").split()
        if hashlib.sha256(data).hexdigest() not in digests:
            raise ValueError("its SHA-256 differs")
    except (OSError, ValueError) as e:
        raise UserError(
            f"{file} is damaged ({e}). Restore a copy of it, or write it again: `afresh.resume({str(folder)!r})`.",
            "damaged",
            file=str(file),
        ) from None
    return read_tensors(file, data)


def early_modules(folder: Path, built: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Modules named "early_NAME" with the early weights. `built` are fresh modules of the same family, which receive
    them. Raises UserError if the run has no early weights."""
    tensors = read_weights(folder, EARLY)
    if tensors is None:
        raise UserError(
            f"{folder} has no early weights, which guidance by a weaker model requires: the run is older than "
            "this feature, or was stopped too soon. Leave autoguidance out, or train again.",
            "no_early_weights",
        )
    early = {}
    for name, module in built.items():
        if own := under(tensors, name):
            load_own(module, own, folder / f"{EARLY}.safetensors")
            early[f"early_{name}"] = module.eval().requires_grad_(False)
    return early


def load_chosen(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Load the weights that were chosen for sampling instead of the last ones, if there are any."""
    tensors = read_weights(folder, CHOSEN)
    for name, module in modules.items():
        if tensors and (own := under(tensors, name)):
            load_own(module, own, folder / f"{CHOSEN}.safetensors")


def forget_chosen(folder: Path) -> bool:
    """Return to the last weights. Returns whether others had been chosen."""
    files = [f for f in (folder / f"{CHOSEN}{s}" for s in (".safetensors", ".sha256", ".json")) if f.exists()]
    for file in files:  # the weights first, since without them the other two files have no effect
        file.unlink()
    return bool(files)


def load_fitted(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Load the tensors that were fitted after training, if there are any."""
    tensors = read_weights(folder, FITTED) or {}
    known = state_of(modules) if tensors else {}
    for full, tensor in tensors.items():
        if full not in known or known[full].shape != tensor.shape:
            raise UserError(
                f"{folder / FITTED}.safetensors does not fit this network: {full} of shape {tuple(tensor.shape)}. "
                "Restore a copy of it.",
                "weights_mismatch",
            )
        module, name = full.split(".", 1)
        modules[module].load_state_dict({name: tensor}, strict=False)


@torch.no_grad()
def check_finite(modules: Mapping[str, nn.Module], folder: Path) -> None:
    """Raises UserError naming the first weight that is not finite, by itself or with the adapters of its layer."""
    for m, module in modules.items():
        together = ((f"{k} with its adapters", layer.weight) for k, layer in lora.adapted(module).items())
        for k, v in chain(module.state_dict().items(), together):
            if v.is_floating_point() and not bool(v.isfinite().all()):
                raise UserError(
                    f"The weights of {folder} are not finite ({m}.{k}). Train again from an earlier state.",
                    "not_finite",
                )


def load_own(module: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Load a run's own weights, from its folder or a file in it.

    Raises UserError if they do not fit the network that the run describes.
    """
    try:
        load_learnt(module, tensors)
    except (KeyError, RuntimeError) as e:
        why = " ".join(str(e).split())[:300]
        raise UserError(
            f"The weights of {folder} do not fit its other files (run.json, tokenizer, labels): {why}. Restore "
            "the folder from a copy.",
            "weights_mismatch",
        ) from None


# ------------------------------------------------------------------------------------------------- base and adapters


@dataclass(frozen=True)
class BaseWeights:
    """The weights {module.name: tensor} from which a tuned run starts, and its adapter, or None to train all weights.
    The planner asks how they were trained, if that is known, and whether on far more data than a run."""

    weights: Mapping[str, Tensor]
    lora: LoraConfig | None
    recipe: TrainConfig | None = None
    seasoned: bool = False

    @property
    def few_bits(self) -> bool:
        """Whether layers are in few bits: `network.build_network` then builds the network without memory."""
        return any(k.endswith(CODES) for k in self.weights)

    @property
    def count(self) -> int:
        """The number of weights; of layers in few bits, whole blocks."""
        sizes = {k: v.numel() for k, v in self.weights.items()}
        return sum(BLOCK * n if k.endswith(SCALES) else n for k, n in sizes.items() if not k.endswith(CODES))

    @property
    def bytes(self) -> int:
        """The memory of a network with these weights."""
        stored = {
            k: v.numel() * v.element_size() if k.endswith((CODES, SCALES)) else 4 * v.numel()
            for k, v in self.weights.items()
        }
        return sum(stored.values())

    def apply(self, modules: Mapping[str, nn.Module], seed: int) -> dict[str, nn.Module]:
        """Load the base's weights and, with `lora`, add a new adapter and freeze everything else.

        Raises UserError if the weights belong to another network, or if no layer can be adapted.
        """
        together = nn.ModuleDict(dict(modules))
        try:
            if self.few_bits:
                load_few_bits(together, self.weights)
            else:
                together.load_state_dict(dict(self.weights))
        except (RuntimeError, AttributeError) as e:
            raise UserError(
                f"The weights of the base model do not fit this network: {e}.", "weights_mismatch"
            ) from None
        if self.lora is not None:
            lora.attach(together, self.lora, Rng(seed))
        return dict(together.items())


def in_few_bits(network: nn.Module, weights: Mapping[str, Tensor], kind: Kind) -> dict[str, Tensor]:
    """The weights with those of the hidden linear layers of `network`, whose numbers are not read, in few bits. They
    are converted one at a time. The embeddings and the head, of which the output depends more directly, and all else
    stay as they are. Raises UserError if there is no such layer."""
    layers = {
        k
        for k, m in network.named_modules()
        if isinstance(m, nn.Linear) and m.in_features % 2 == 0 and is_matrix(k, m.weight)
    }
    if not layers:
        raise UserError(
            "This base has no hidden linear layers to hold in few bits. Leave `train.frozen` out.", "frozen"
        )
    out: dict[str, Tensor] = {}
    for name, weight in weights.items():
        layer = name.removesuffix(".weight")
        if name.endswith(".weight") and layer in layers:
            out[layer + CODES], out[layer + SCALES] = packed(weight, kind)
        else:
            out[name] = weight
    return out


def load_few_bits(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put layers in few bits in place of dense ones, and load all weights, the others in float32. Parameters may be
    without memory. Raises RuntimeError if they do not fit."""
    for name in [k.removesuffix(CODES) for k in weights if k.endswith(CODES)]:
        owner, last = lora.owner_of(network, name)
        dense = getattr(owner, last, None)
        if not isinstance(dense, nn.Linear):
            raise RuntimeError(f"{name} is not a linear layer")
        rows, columns = dense.weight.shape
        kind: Kind = "int8" if weights[name + CODES].shape[1:] == (columns,) else "nf4"
        setattr(owner, last, FrozenLinear(rows, columns, kind, dense.bias is not None))
    kept = {k: v if k.endswith((CODES, SCALES)) or not v.is_floating_point() else v.float() for k, v in weights.items()}
    network.load_state_dict(kept, assign=True)


def merge_adapters(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Return the modules with their adapters merged into the weights permanently."""
    together = nn.ModuleDict(dict(modules))
    lora.merge(together)
    lora.plain(together)
    return dict(together.items())


@contextmanager
def adapters_merged(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, nn.Module]]:
    """Merge adapters into the weights within the block."""
    together = nn.ModuleDict(dict(modules))
    with lora.folded(together):
        yield dict(together.items())


def write_base(folder: Path, weights: Mapping[str, Tensor]) -> str:
    """Write the weights of the base model in their own precision. Returns the SHA-256 of the file.

    Raises UserError if the file cannot be written.
    """
    data = serialised(weights)
    replace_file(folder / f"{BASE}.safetensors", data)
    return hashlib.sha256(data).hexdigest()


def read_base(folder: Path, sha256: str) -> dict[str, Tensor]:
    """The weights of the base model. Raises UserError if the file is missing or was changed."""
    file = folder / f"{BASE}.safetensors"
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as e:
        raise UserError(
            f"{file}, which this run was tuned from, cannot be read: {e.strerror or e}.", "missing"
        ) from None
    if digest != sha256:
        raise UserError(
            f"{file} does not match the SHA-256 in run.json: it is damaged. Restore a copy of it.", "damaged"
        )
    return map_tensors(file)


def has_rows_of_classes(weights: Mapping[str, Tensor]) -> bool:
    """Whether labels are embedded by tables of our own, to which `with_new_classes` adds rows."""
    return any(".part_" in k and k.endswith(".table.weight") for k in weights)


def with_new_classes(weights: Mapping[str, Tensor], base: CondSpec, conds: CondSpec) -> dict[str, Tensor]:
    """Weights for labels of which `conds` has more classes than `base`: each new row is the mean of the others."""
    out = dict(weights)
    for name, part in base.items():
        new = len(conds[name].classes) - len(part.classes) if part.kind == "label" else 0
        for key in [k for k in weights if new and k.endswith(f"part_{name}.table.weight")]:
            out[key] = torch.cat([weights[key], weights[key].mean(0, keepdim=True).expand(new, -1)])
    return out


def with_vocabulary(weights: Mapping[str, Tensor], size: int, first_rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Weights for a vocabulary that has grown from `size` to len(first_rows) tokens.

    Each row is the mean of these rows of before, or of all where there are none. Rows behind those of the vocabulary,
    as of a mask, stay behind.
    """
    if [list(b) for b in first_rows] == [[i] for i in range(size)]:
        return dict(weights)
    out = dict(weights)
    for name, weight in weights.items():
        if name.endswith(ROWS) and len(weight) >= size:
            mean = weight[:size].mean(0)
            rows = [weight[list(b)].mean(0) if b else mean for b in first_rows]
            out[name] = torch.cat([torch.stack(rows), weight[size:]])
    return out
