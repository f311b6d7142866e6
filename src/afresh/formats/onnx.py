"""A model of fields as one ONNX file: a decoder or generator (z -> x), or the velocity of a flow (x, t -> v).

The steps of a flow from noise to data, and guidance, stay outside: they are a few lines of NumPy (README.md of the
export). Every other family's sampling is in the graph, by its default settings, and what it draws at random is given.

The graph comes from torch.export, with the batch as a symbol: a network that took its size for a constant is refused
there. The older exporter, by tracing, needs no onnxscript and is faster, but bakes such constants in silently.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from afresh.core import Cond, CondSpec, Part, UserError
from afresh.core.rng import Rng
from afresh.formats.fields import ABOUT, BATCHES, README, FieldModel, always, difference, requests
from afresh.formats.huggingface import write_json
from afresh.formats.onnx_guide import guide

FILE = "model.onnx"
OPSET = 18  # of July 2022: onnxruntime from 1.14
SEEN = 2  # rows of the batch that torch.export sees; 1 would be taken for a dimension to broadcast
TOLERANCE = 1e-4  # of the largest output, or of 1 where that is less
MOST = 2**31  # bytes that one ONNX file may have
INSTALL = "pip install 'afresh[onnx]'"


@dataclass(frozen=True)
class Input:
    """One of the graph's own float32 inputs, (B, *row): what it is drawn from, or a time in (0, 1)."""

    name: str
    row: tuple[int, ...]
    draw: Literal["normal", "uniform", "time"]

    def random(self, n: int, rng: Rng) -> Tensor:
        """(n, *row)."""
        rows = torch.arange(n)
        draw = rng.normal if self.draw == "normal" else rng.uniform
        return draw(f"export/{self.name}", rows, self.row)


@dataclass(frozen=True)
class Graph:
    """A function of inputs and a condition. `kind` says what comes out: x itself; the velocity at time t; the mean
    velocity from time t to s."""

    kind: Literal["picture", "velocity", "map"]
    inputs: tuple[Input, ...]
    output: str
    modules: Mapping[str, nn.Module]
    compute: Callable[[Sequence[Tensor], Cond], Tensor]


def graph_of(model: FieldModel) -> Graph:
    """What of the model becomes a graph: the velocity of a flow, the student of one in a few steps, and of any other
    family its sampling, in which all that is drawn at random becomes an input. Raises UserError where that is
    impossible."""
    x, t = Input("x", tuple(model.space.shape), "normal"), Input("t", (), "time")
    modules = model.modules
    if "velocity" in modules and set(modules) <= {"velocity", "moved"}:
        return Graph("velocity", (x, t), "velocity", modules, lambda g, cond: modules["velocity"](*g, cond))
    if "student" in modules:
        student = modules["student"]
        kept = {"student": student}
        return Graph("map", (x, t, Input("s", (), "time")), "velocity", kept, lambda g, cond: student(*g, cond))
    inputs = tuple(draws(model))

    def sampled(given: Sequence[Tensor], cond: Cond) -> Tensor:
        rng = Given({i.name: v for i, v in zip(inputs, given, strict=True)})
        rows = torch.arange(given[0].shape[0])
        return model.family.sampling.sample(
            modules, model.config, model.space, cond, rng, rows, model.family.sampling.settings()
        )

    return Graph("picture", inputs, "x", modules, sampled)


class Seen(Rng):
    """Draws, and remembers what was drawn."""

    def __init__(self) -> None:
        super().__init__(0)
        object.__setattr__(self, "inputs", {})

    inputs: dict[str, Input]

    def normal(self, purpose: str, index: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        self.inputs[input_name(purpose)] = Input(input_name(purpose), tuple(shape), "normal")
        return super().normal(purpose, index, shape)

    def uniform(self, purpose: str, index: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        self.inputs[input_name(purpose)] = Input(input_name(purpose), tuple(shape), "uniform")
        return super().uniform(purpose, index, shape)


class Given(Rng):
    """Answers with what is given, by name."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__(0)
        object.__setattr__(self, "values", values)

    values: Mapping[str, Tensor]

    def normal(self, purpose: str, index: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        return self.values[input_name(purpose)]

    uniform = normal


def input_name(purpose: str) -> str:
    """`sample/noise` -> z; `sample/pick` -> pick."""
    name = purpose.removeprefix("sample/").replace("/", "_")
    return "z" if name == "noise" else name


@torch.no_grad()
def draws(model: FieldModel) -> list[Input]:
    """What sampling draws at random. Raises UserError for a family whose sampling draws nothing that could be given."""
    rng, cond = Seen(), Cond.nothing(model.conds, SEEN)
    settings = model.family.sampling.settings()
    model.family.sampling.sample(model.modules, model.config, model.space, cond, rng, torch.arange(SEEN), settings)
    if not rng.inputs:
        raise UserError(
            f"Sampling from the family {model.family.name} has no inputs that ONNX could have. Use --to safetensors."
        )
    return list(rng.inputs.values())


# --------------------------------------------------------------------------- names and inputs


def condition_names(spec: CondSpec, taken: Sequence[str]) -> dict[str, tuple[str, str]]:
    """{part: (input of its value, input of its presence)}; one that is called like another input is CONDITION_NAME."""
    out: dict[str, tuple[str, str]] = {}
    used = set(taken)
    for part in spec:
        name = part
        while {name, f"{name}_present"} & used:
            name = f"condition_{name}"
        out[part] = name, f"{name}_present"
        used |= set(out[part])
    return out


def inputs_of(graph: Graph, n: int, rng: Rng) -> list[Tensor]:
    """Random values of the graph's own inputs."""
    return [i.random(n, rng) for i in graph.inputs]


def flat(given: Sequence[Tensor], cond: Cond) -> tuple[Tensor, ...]:
    """The graph's inputs in order: its own, then the value and the presence of each part."""
    return (*given, *(t for k in cond.parts for t in (cond.parts[k], cond.present[k])))


class Named(nn.Module):
    """The graph as a module of tensors alone: `flat` -> output."""

    def __init__(self, graph: Graph, spec: CondSpec) -> None:
        super().__init__()
        self.graph, self.spec = graph, spec
        self.nets = nn.ModuleDict(dict(graph.modules))

    def forward(self, *tensors: Tensor) -> Tensor:
        own = len(self.graph.inputs)
        rest = tensors[own:]
        parts = dict(zip(self.spec, rest[::2], strict=True))
        present = dict(zip(self.spec, rest[1::2], strict=True))
        return self.graph.compute(tensors[:own], Cond(tensors[0].shape[0], parts, present))


# --------------------------------------------------------------------------- out


def write(model: FieldModel, folder: Path) -> list[str]:
    """model.onnx, model.json and README.md into an empty folder; returns notes. Raises UserError when a package is
    missing, or for a model that has no such network."""
    onnx, _ = packages()
    graph = graph_of(model)
    if sum(v.numel() * v.element_size() for m in graph.modules.values() for v in m.state_dict().values()) >= MOST:
        raise UserError("The network is larger than the 2 GiB that one ONNX file can hold. Use --to safetensors.")
    about = description(model, graph)
    found = exported(model, graph)
    onnx.helper.set_model_props(found, {"afresh": json.dumps(about, ensure_ascii=False)})
    onnx.checker.check_model(found)
    (folder / FILE).write_bytes(found.SerializeToString())
    write_json(folder / ABOUT, about)
    (folder / README).write_text(guide(about), encoding="utf-8")
    return [] if model.picture else ["values are as the encoder made them: no scale to bytes is known"]


@torch.no_grad()
def exported(model: FieldModel, graph: Graph) -> Any:
    """The graph as onnx.ModelProto, for any batch. Raises UserError when torch cannot make it."""
    names = [
        *(i.name for i in graph.inputs),
        *(n for pair in condition_names(model.conds, reserved(graph)).values() for n in pair),
    ]
    given = flat(inputs_of(graph, SEEN, Rng(0)), always(requests(model.conds, SEEN, Rng(0))))
    batch = torch.export.Dim.DYNAMIC  # no constant; code may choose by its size, as long as all ways are the same
    quiet = logging.getLogger("torch.onnx"), logging.getLogger("torch.export")
    levels = [log.level for log in quiet]
    try:
        for log in quiet:
            log.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages about each other
            found = torch.export.export(
                Named(graph, model.conds).eval(), given, dynamic_shapes=(tuple({0: batch} for _ in given),)
            )
            program = torch.onnx.export(
                found,
                input_names=names,
                output_names=[graph.output],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except (RuntimeError, TypeError, ValueError) as e:  # those of torch.export, and of the exporter
        cause: BaseException = e
        while cause.__cause__ is not None:
            cause = cause.__cause__
        why = str(cause).strip().splitlines()[0][:300]
        raise UserError(
            f"torch {torch.__version__} cannot make an ONNX graph of this network: {why}. Use --to safetensors."
        ) from e
    finally:
        for log, level in zip(quiet, levels, strict=True):
            log.setLevel(level)
    assert program is not None
    return tidied(program.model_proto)


def tidied(found: Any) -> Any:
    """With `batch` as the name of the batch's size, and without where in whose files each node comes from, which the
    exporter writes beside it."""
    for part in (found.graph, *found.functions):
        for node in part.node:
            del node.metadata_props[:]
            node.doc_string = ""
        del part.metadata_props[:]
        del part.value_info[:]
    del found.metadata_props[:]
    for value in (*found.graph.input, *found.graph.output):
        del value.metadata_props[:]
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return found


def reserved(graph: Graph) -> list[str]:
    return [*(i.name for i in graph.inputs), graph.output]


def description(model: FieldModel, graph: Graph) -> dict[str, Any]:
    """model.json, also in the metadata of model.onnx under `afresh`: all that a program needs to draw."""
    names = condition_names(model.conds, reserved(graph))
    return {
        "format": "afresh.onnx",
        "version": 1,
        "kind": graph.kind,
        "family": model.family.name,
        "source": Path(model.source).name,
        "opset": OPSET,
        "inputs": {i.name: {"type": "float32", "shape": ["batch", *i.row], "draw": i.draw} for i in graph.inputs},
        "output": {"name": graph.output, "type": "float32", "shape": ["batch", *model.space.shape]},
        "space": {"shape": list(model.space.shape), "std": model.space.std},
        "bytes": "round((x + 1) * 127.5), clipped to 0 ... 255" if model.picture else None,
        "conditions": {k: described(p, *names[k]) for k, p in model.conds.items()},
    }


def described(part: Part, value: str, present: str) -> dict[str, Any]:
    """One part: its two inputs, and what a value means."""
    words = {
        "label": "the place of the class in `classes`",
        "number": "(number - mean) / std",
        "prompt": "ids of words: 0 padding, 1 unknown, 2 + the word's place in `classes`",
        "vector": "the text encoder's vector of a caption",
        "aligned": "a field on the grid of x, about -1 ... 1",
    }
    out: dict[str, Any] = {
        "kind": part.kind,
        "value": {"name": value, "type": str(part.dtype).removeprefix("torch."), "shape": ["batch", *part.row]},
        "present": {"name": present, "type": "bool", "shape": ["batch"]},
        "means": words[part.kind],
    }
    if part.classes:
        out["classes"] = list(part.classes)
    if part.kind == "number":
        out |= {"mean": part.mean, "std": part.std}
    return out


def packages() -> tuple[Any, Any]:
    """onnx and onnxruntime, with onnxscript at hand. Raises UserError saying how to install them."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx calls it
    except ImportError as e:
        raise UserError(f"ONNX needs a package that is not installed ({e.name}): {INSTALL}.") from None
    return onnx, onnxruntime


# --------------------------------------------------------------------------- proof


def prove(model: FieldModel, folder: Path) -> dict[str, Any]:
    """The measured fields of a `FieldProof`: onnxruntime against torch in float32, on random inputs of several batches,
    with conditions present and absent."""
    _, onnxruntime = packages()
    graph = graph_of(model)
    session = onnxruntime.InferenceSession(str(folder / FILE), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    net = Named(graph, model.conds).eval()
    largest, outputs = 0.0, 0.0
    for n in BATCHES:
        given, asked = inputs_of(graph, n, Rng(n)), requests(model.conds, n, Rng(n))
        for cond in (always(asked), asked, asked.null()):
            tensors = flat(given, cond)
            with torch.no_grad():
                ours = net(*tensors)
            theirs = session.run([graph.output], {k: v.numpy() for k, v in zip(names, tensors, strict=True)})[0]
            outputs = max(outputs, float(ours.abs().max()))
            largest = max(largest, difference(ours, torch.from_numpy(theirs)))
    tolerance = TOLERANCE * max(1.0, outputs)
    return {
        "passed": largest <= tolerance,
        "reader": f"onnxruntime {onnxruntime.__version__}",
        "independent": True,
        "compared": "outputs for random inputs, conditions present, mixed and absent",
        "largest": largest,
        "tolerance": tolerance,
        "outputs": outputs,
    }
