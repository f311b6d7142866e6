"""A model over fields as ONNX: a decoder or generator (z -> x), or the velocity of a flow (x, t -> v).

The steps of a flow from noise to data, and guidance, are not part of the graph: they are a few lines of NumPy, which
are in the README.md of the export. For every other family, sampling with its default settings is in the graph, and its
random numbers are inputs. What decodes the latents of a codec is in the same graph, or for a flow in a second file.

The graph comes from torch.export with a symbolic batch size: a network that treats the size as a constant is refused
there. The older exporter, by tracing, needs no onnxscript and is faster, but writes such constants without an error.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from afresh.core import Cond, CondSpec, Part, Space, UserError
from afresh.core.rng import Rng
from afresh.runs.formats.fields import ABOUT, BATCHES, FieldModel, always, measure_pairs, random_requests, sample
from afresh.runs.formats.files import write_json
from afresh.runs.formats.model_card import README
from afresh.runs.formats.onnx_guide import guide

FILE, DECODER = "model.onnx", "decoder.onnx"
OPSET = 18  # released in July 2022; onnxruntime 1.14 or newer
EXAMPLES = 2  # rows of the batch for torch.export; it would treat 1 as a dimension to broadcast
TOLERANCE = 1e-4  # relative to the largest output or 1
LARGEST = 2**31  # bytes that one ONNX file can hold
STEPS = 20  # of a flow
INSTALL = "pip install 'afresh[onnx]'"


@dataclass(frozen=True)
class Input:
    """A float32 input (B, *row) of the graph besides the condition: its distribution, or a time in (0, 1)."""

    name: str
    row: tuple[int, ...]
    draw: Literal["normal", "uniform", "time"]

    def random(self, n: int, rng: Rng) -> Tensor:
        """Random values (n, *row)."""
        rows = torch.arange(n)
        draw = rng.normal if self.draw == "normal" else rng.uniform
        return draw(f"export/{self.name}", rows, self.row)


@dataclass(frozen=True)
class Graph:
    """A function of inputs and a condition. `kind` is its output: a sample, the velocity at time t, the mean velocity
    from time t to s ("map"), or the sample that latents stand for ("decoder"). `space`: of the output. `steps`: from
    noise to data, by default."""

    kind: Literal["sample", "velocity", "map", "decoder"]
    inputs: tuple[Input, ...]
    output: str
    space: Space
    modules: Mapping[str, nn.Module]
    compute: Callable[[Sequence[Tensor], Cond], Tensor]
    steps: int = 1


def graph_of(model: FieldModel) -> Graph:
    """The part of a model that becomes a graph: the velocity of a flow, the student of a distilled flow, and for any
    other family its sampling, in which all random numbers become inputs. Raises UserError if it has none."""
    x, t = Input("x", tuple(model.space.shape), "normal"), Input("t", (), "time")
    modules = model.modules
    if "velocity" in modules and set(modules) <= {"velocity", "moved"}:
        net = modules["velocity"]
        return Graph(
            "velocity", (x, t), "velocity", model.space, {"velocity": net}, lambda g, cond: net(*g, cond), STEPS
        )
    if "student" in modules:
        student = modules["student"]
        given = (x, t, Input("s", (), "time"))
        nets, steps = {"student": student}, model.config.finest
        return Graph("map", given, "velocity", model.space, nets, lambda g, cond: student(*g, cond), steps)
    inputs, decoder = tuple(random_inputs(model)), model.decoder

    def draw(values: Sequence[Tensor], cond: Cond) -> Tensor:
        rng = ReplayRng({i.name: v for i, v in zip(inputs, values, strict=True)})
        rows = torch.arange(values[0].shape[0])
        x = model.family.sampling.sample(
            modules, model.config, model.space, cond, rng, rows, model.family.sampling.settings()
        )
        decoded: Tensor = decoder(x)
        return decoded

    return Graph("sample", inputs, "x", model.samples, {**modules, "codec": decoder}, draw)


def decoder_of(model: FieldModel, graph: Graph) -> tuple[FieldModel, Graph] | None:
    """What decodes the latents that a program draws with the graph of a model, as a model without conditions and its
    graph; None if they are samples."""
    if model.codec is None or graph.kind == "sample":
        return None
    net, latents = model.decoder, Input("latents", tuple(model.space.shape), "normal")
    decoder = Graph("decoder", (latents,), "x", model.samples, {"decoder": net}, lambda g, cond: net(*g))
    return replace(model, conds={}), decoder


class RecordingRng(Rng):
    """Draws random numbers and records the name, shape and distribution of each."""

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


class ReplayRng(Rng):
    """Returns the given values, by name, in place of random numbers."""

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
def random_inputs(model: FieldModel) -> list[Input]:
    """The random numbers that sampling draws, as inputs. Raises UserError if it draws none."""
    rng, cond = RecordingRng(), Cond.unconditional(model.conds, EXAMPLES)
    settings = model.family.sampling.settings()
    model.family.sampling.sample(model.modules, model.config, model.space, cond, rng, torch.arange(EXAMPLES), settings)
    if not rng.inputs:
        raise UserError(
            f"Sampling from the family {model.family.name} has no inputs for an ONNX graph. Export to safetensors "
            f"instead."
        )
    return list(rng.inputs.values())


# --------------------------------------------------------------------------- names and inputs


def condition_names(spec: CondSpec, taken: Sequence[str]) -> dict[str, tuple[str, str]]:
    """{part: (name of the value's input, name of the presence's input)}; on a clash with `taken`, condition_NAME."""
    out: dict[str, tuple[str, str]] = {}
    used = set(taken)
    for part in spec:
        name = part
        while {name, f"{name}_present"} & used:
            name = f"condition_{name}"
        out[part] = name, f"{name}_present"
        used |= set(out[part])
    return out


def random_values(graph: Graph, n: int, rng: Rng) -> list[Tensor]:
    """Random values of the graph's inputs, without those of the condition."""
    return [i.random(n, rng) for i in graph.inputs]


def flatten(inputs: Sequence[Tensor], cond: Cond) -> tuple[Tensor, ...]:
    """All inputs in order: those of the graph, then the value and the presence of each part of the condition."""
    return (*inputs, *(t for k in cond.parts for t in (cond.parts[k], cond.present[k])))


class GraphModule(nn.Module):
    """The graph as a module that takes the tensors of `flatten`."""

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


# --------------------------------------------------------------------------- write


def write(model: FieldModel, folder: Path) -> list[str]:
    """Write model.onnx, decoder.onnx for a flow over latents, model.json and README.md into an empty folder; returns
    notes. Raises UserError if a package is missing, or the model has no network that ONNX can hold."""
    packages()
    graph = graph_of(model)
    decoder = decoder_of(model, graph)
    more = {} if decoder is None else {"decoder": write_graph(*decoder, folder / DECODER)}
    about = write_graph(model, graph, folder / FILE, more)
    write_json(folder / ABOUT, about)
    (folder / README).write_text(guide(about), encoding="utf-8")
    return [] if model.image else ["values are those of the encoder: there is no scale to bytes"]


def write_graph(model: FieldModel, graph: Graph, file: Path, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write an ONNX file; returns its description, with `more`. Raises UserError as `write`."""
    onnx, _ = packages()
    if sum(v.numel() * v.element_size() for m in graph.modules.values() for v in m.state_dict().values()) >= LARGEST:
        raise UserError("The network is larger than the 2 GiB that one ONNX file can hold. Use `to='safetensors'`.")
    about = {**description(model, graph), **(more or {})}
    proto = to_proto(model, graph)
    onnx.helper.set_model_props(proto, {"afresh": json.dumps(about, ensure_ascii=False)})
    onnx.checker.check_model(proto)
    file.write_bytes(proto.SerializeToString())
    return about


@torch.no_grad()
def to_proto(model: FieldModel, graph: Graph) -> Any:
    """The graph as an onnx.ModelProto for any batch size. Raises UserError if torch cannot export it."""
    names = [
        *(i.name for i in graph.inputs),
        *(n for pair in condition_names(model.conds, reserved(graph)).values() for n in pair),
    ]
    example = flatten(random_values(graph, EXAMPLES, Rng(0)), always(random_requests(model.conds, EXAMPLES, Rng(0))))
    batch = torch.export.Dim.DYNAMIC  # not a constant
    quiet = logging.getLogger("torch.onnx"), logging.getLogger("torch.export")
    levels = [log.level for log in quiet]
    try:
        for log in quiet:
            log.setLevel(logging.ERROR)
        with warnings.catch_warnings(action="ignore"):  # of packages about each other
            exported = torch.export.export(
                GraphModule(graph, model.conds).eval(), example, dynamic_shapes=(tuple({0: batch} for _ in example),)
            )
            program = torch.onnx.export(
                exported,
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
        reason = str(cause).strip().splitlines()[0][:300]
        raise UserError(
            f"torch {torch.__version__} cannot export this network to ONNX: {reason}. Use `to='safetensors'`."
        ) from e
    finally:
        for log, level in zip(quiet, levels, strict=True):
            log.setLevel(level)
    assert program is not None
    return clean(program.model_proto)


def clean(proto: Any) -> Any:
    """Name the batch size `batch`, and remove the source file and line that the exporter records for each node."""
    for part in (proto.graph, *proto.functions):
        for node in part.node:
            del node.metadata_props[:]
            node.doc_string = ""
        del part.metadata_props[:]
        del part.value_info[:]
    del proto.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return proto


def reserved(graph: Graph) -> list[str]:
    """Names that parts of the condition cannot have."""
    return [*(i.name for i in graph.inputs), graph.output]


def description(model: FieldModel, graph: Graph) -> dict[str, Any]:
    """model.json, also in the metadata of model.onnx under `afresh`: all that a program needs to sample."""
    names = condition_names(model.conds, reserved(graph))
    return {
        "format": "afresh.onnx",
        "version": 1,
        "kind": graph.kind,
        "family": model.family.name,
        "source": Path(model.source).name,
        "opset": OPSET,
        "inputs": {i.name: {"type": "float32", "shape": ["batch", *i.row], "draw": i.draw} for i in graph.inputs},
        "output": {"name": graph.output, "type": "float32", "shape": ["batch", *graph.space.shape]},
        "space": {"shape": list(graph.space.shape), "std": graph.space.std},
        "steps": graph.steps,
        "bytes": "round((x + 1) * 127.5), clipped to 0 ... 255" if model.image else None,
        "conditions": {k: described(p, *names[k]) for k, p in model.conds.items()},
    }


def described(part: Part, value: str, present: str) -> dict[str, Any]:
    """One part of the condition: its two inputs, and what a value means."""
    meanings = {
        "label": "the index of the class in `classes`",
        "number": "(number - mean) / std",
        "prompt": "ids of words: 0 padding, 1 unknown, 2 + the word's index in `classes`",
        "vector": "the text encoder's vector of a caption",
        "aligned": "a field on the grid of x, about -1 ... 1",
    }
    out: dict[str, Any] = {
        "kind": part.kind,
        "value": {"name": value, "type": str(part.dtype).removeprefix("torch."), "shape": ["batch", *part.row]},
        "present": {"name": present, "type": "bool", "shape": ["batch"]},
        "means": meanings[part.kind],
    }
    if part.classes:
        out["classes"] = list(part.classes)
    if part.kind == "number":
        out |= {"mean": part.mean, "std": part.std}
    return out


def packages() -> tuple[Any, Any]:
    """onnx and onnxruntime. Raises UserError, saying what to install, if one of them or onnxscript is missing."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx calls it
    except ImportError as e:
        raise UserError(f"ONNX needs a package that is not installed ({e.name}): {INSTALL}.") from None
    return onnx, onnxruntime


# --------------------------------------------------------------------------- proof


class OnnxNetwork(nn.Module):
    """A network whose outputs onnxruntime computes from the file of a graph."""

    def __init__(self, graph: Graph, file: Path) -> None:
        super().__init__()
        _, onnxruntime = packages()
        self.graph = graph
        self.session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def forward(self, *inputs: Any) -> Tensor:
        """The output for the inputs of the graph, of which times may be one for all rows, and a condition."""
        *values, cond = inputs
        rows = [v.expand(cond.size, *i.row) for v, i in zip(values, self.graph.inputs, strict=True)]
        names = [i.name for i in self.session.get_inputs()]
        given = {k: v.numpy() for k, v in zip(names, flatten(rows, cond), strict=True)}
        return torch.from_numpy(self.session.run([self.graph.output], given)[0])


@torch.no_grad()
def prove(model: FieldModel, folder: Path) -> dict[str, Any]:
    """The measured fields of a `FieldProof`: onnxruntime against torch in float32, on random inputs in batches of
    several sizes, with conditions present and absent. If a second file decodes latents, also samples, which
    onnxruntime draws and decodes."""
    graph = graph_of(model)
    net, decoder = OnnxNetwork(graph, folder / FILE), decoder_of(model, graph)
    pairs = outputs_of(model, graph, net)
    compared = "outputs for random inputs, conditions present, mixed and absent"
    if decoder is not None:
        decoding = OnnxNetwork(decoder[1], folder / DECODER)
        pairs += outputs_of(*decoder, decoding)
        drawing = replace(model, modules={**model.modules, **dict.fromkeys(graph.modules, net)}, codec=None)
        for n in BATCHES:
            request = random_requests(model.conds, n, Rng(n))
            pairs.append((sample(model, request), decoding(sample(drawing, request), Cond(n))))
        compared += ", and decoded samples"
    return measure_pairs(pairs, TOLERANCE, f"onnxruntime {packages()[1].__version__}", compared)


def outputs_of(model: FieldModel, graph: Graph, net: OnnxNetwork) -> list[tuple[Tensor, Tensor]]:
    """The outputs of a graph by torch and by onnxruntime for random inputs."""
    pairs = []
    for n in BATCHES:
        values, request = random_values(graph, n, Rng(n)), random_requests(model.conds, n, Rng(n))
        for cond in (always(request), request, request.null()):
            pairs.append((graph.compute(values, cond), net(*values, cond)))
    return pairs
