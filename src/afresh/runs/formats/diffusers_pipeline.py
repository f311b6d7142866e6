"""The format `diffusers`: a folder of diffusers as it came, for what was tuned from one; a pipeline with code of its
own (formats/flow_pipeline.py) around an ONNX graph, for a flow of afresh.

No class of diffusers computes the networks of afresh. A graph needs no code for the network, so that the folder's own
code is one short file, which diffusers runs only with `trust_remote_code=True`.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from afresh.core import Cond, CondSpec, UserError
from afresh.core.rng import Rng
from afresh.engine.families.diffusers import DiffusersConfig
from afresh.engine.nets.autoencoder import LatentDecoder
from afresh.engine.nets.pipelines import diffusers, quiet
from afresh.runs.formats import diffusers as own
from afresh.runs.formats import onnx
from afresh.runs.formats.autoencoders import as_diffusers
from afresh.runs.formats.fields import BATCHES, FieldModel, always, measure_pairs, random_requests, sample
from afresh.runs.formats.files import write_json
from afresh.runs.formats.model_card import README, least_version

CODE, CLASS, NETWORK = "pipeline.py", "AfreshFlowPipeline", "velocity"
AUTOENCODER, DECODER = "vae", "decoder"  # parts that make images of latents: one or none of them is there
GRAPH = ["diffusers", "OnnxRuntimeModel"]
TOLERANCE = 1e-3  # relative to the largest output or 1, after all steps


def write(model: FieldModel, folder: Path) -> list[str]:
    """Write the folder; returns notes. Raises UserError for models that do not sample by a velocity, and where a
    package is missing."""
    if isinstance(model.config, DiffusersConfig):
        return own.write(model, folder)
    graph = onnx.graph_of(model)
    if graph.kind == "sample":
        raise UserError(
            f"A model of the family {model.family.name} samples without steps, so diffusers has no use for it. Use "
            "`to='onnx'` for other programs, or `to='safetensors'`."
        )
    (folder / NETWORK).mkdir()
    part, more = write_decoder(model, graph, folder)
    index = {
        "_class_name": [CODE.removesuffix(".py"), CLASS],
        "_diffusers_version": diffusers().__version__,
        NETWORK: GRAPH,
        **part,
        "about": onnx.write_graph(model, graph, folder / NETWORK / onnx.FILE, more),
    }
    write_json(folder / own.INDEX, index)
    (folder / CODE).write_text((files("afresh.runs.formats") / "flow_pipeline.py").read_text("utf-8"), encoding="utf-8")
    (folder / README).write_text(guide(model), encoding="utf-8")
    return [f"diffusers runs {CODE} of the folder, so it asks for trust_remote_code=True; the network is an ONNX graph"]


def write_decoder(model: FieldModel, graph: onnx.Graph, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write what decodes the latents of a codec, if there is one: an autoencoder of diffusers where it has the class,
    else an ONNX graph. Returns its entry of the index, and the statistics of the latents if a graph does not have
    them."""
    decoder, net = onnx.decoder_of(model, graph), model.decoder
    if decoder is None or not isinstance(net, LatentDecoder):
        return {}, {}
    tiny = as_diffusers(net.net)
    if tiny is not None:
        tiny.save_pretrained(folder / AUTOENCODER)
        statistics = {"mean": net.mean.tolist(), "std": net.std.tolist()}
        return {AUTOENCODER: ["diffusers", type(tiny).__name__]}, {"latents": statistics}
    (folder / DECODER).mkdir()
    onnx.write_graph(*decoder, folder / DECODER / onnx.FILE)
    return {DECODER: GRAPH}, {}


def guide(model: FieldModel) -> str:
    """README.md: how to open the folder with diffusers."""
    label = next((k for k, p in model.conds.items() if p.kind == "label"), None)
    asked = "" if label is None else f", conditions={{{label!r}: {model.conds[label].classes[0]!r}}}"
    save = 'images[0].save("0.png")' if model.image else "images[0]  # an array"
    names = ", ".join(f"`{k}` ({p.kind})" for k, p in model.conds.items()) or "none"
    return f"""# {Path(model.source).name}

A flow of afresh as a pipeline of diffusers: `{NETWORK}/model.onnx` is the network, `{CODE}` the code of the pipeline,
which you may read before you trust it. If it learnt latents, `{AUTOENCODER}/` (an autoencoder of diffusers) or
`{DECODER}/model.onnx` decodes them. It needs diffusers and {least_version("onnxruntime")}. Conditions: {names};
what is not named is left open. `proof.json` states how it was compared.

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained(".", trust_remote_code=True)  # this folder
pipeline(batch_size=4{asked}).{save}
```
"""


@torch.no_grad()
def prove(model: FieldModel, folder: Path) -> dict[str, Any]:
    """The measured fields of a `FieldProof`: samples of the pipeline that diffusers opens against those of the run from
    the same noise, with conditions present, mixed and absent, and with guidance."""
    if isinstance(model.config, DiffusersConfig):
        return own.prove(model, folder)
    with quiet():
        pipeline = diffusers().DiffusionPipeline.from_pretrained(folder, local_files_only=True, trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    graph, pairs = onnx.graph_of(model), []
    for n in BATCHES:
        request = random_requests(model.conds, n, Rng(n))
        noise = Rng(0).normal("sample/noise", torch.arange(n), model.space.shape)
        for cond in (always(request), request, request.null()):
            values = values_of(model.conds, cond)
            for guidance in (1.0, 2.0) if model.conds and graph.kind == "velocity" else (1.0,):
                guided = {"guidance": guidance} if graph.kind == "velocity" else {}  # that of a student is learnt
                ours = sample(model, cond, steps=graph.steps, **guided)
                made = pipeline(n, values, guidance_scale=guidance, latents=noise, output_type="np").images
                pairs.append((ours, torch.from_numpy(made)))
    compared = f"samples of {graph.steps} steps from the same noise, conditions present, mixed and absent"
    return measure_pairs(pairs, TOLERANCE, f"diffusers {diffusers().__version__}, {CODE} of the folder", compared)


def values_of(spec: CondSpec, cond: Cond) -> dict[str, list[Any]]:
    """The condition as the pipeline takes it, None where a part is absent."""
    out: dict[str, list[Any]] = {}
    for name, part in spec.items():
        rows = cond.parts[name].tolist()
        if part.kind == "number":
            rows = [v * part.std + part.mean for v in cond.parts[name].double().tolist()]
        out[name] = [v if p else None for v, p in zip(rows, cond.present[name].tolist(), strict=True)]
    return out
