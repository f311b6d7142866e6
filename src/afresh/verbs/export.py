"""`afresh export`: write a run for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from afresh.core.verb import Option, verb
from afresh.verbs.options import Force, Labels

if TYPE_CHECKING:
    from afresh.runs.run import Run
    from afresh.verbs.exporting import Exported


@verb("export", result="{folder, passed, reader, ...}", served=False)
def export(
    run: Run,
    to: Annotated[
        str,
        Option(
            "Text: hf (transformers, vLLM), gguf (llama.cpp), peft (the adapter alone). Images and audio: onnx, "
            "diffusers (flows, and runs tuned from there). All: safetensors (names of afresh), hub-folder (what fits, "
            "with a page for the hub)."
        ),
    ],
    out: Annotated[
        str | Path | None, Option("Folder to create; RUN-FORMAT if not given.", metavar="DIR", shell=Path)
    ] = None,
    *,
    force: Force = False,
    precision: Annotated[str, Option("float32, bfloat16, float16; for gguf also q8_0 (8 bits).")] = "float32",
    label: Annotated[
        Labels | None,
        Option(
            "For a model with labels: the class to fix; NAME=CLASS if there are several labels.",
            shell=list[str],
            parse="afresh.faces.cli.words:labels",
        ),
    ] = None,
    licence: Annotated[str | None, Option("Of the model, as Apache-2.0; checked against those of its data.")] = None,
    accept: Annotated[
        Sequence[str],
        Option(
            "Share the model although the licences of some of its data are unknown (unknown-licences), no consent is "
            "known of persons whom its data shows (missing-consent), or its licence is one that those of its data do "
            "not allow (licence-conflict).",
            metavar="NAME",
        ),
    ] = (),
) -> Exported:
    """Export a model to a folder that other programs open, and prove that they see the same model.

    The files are read again. A language model is compared on held-out text by transformers or llama.cpp, if they are
    installed: log-probabilities, token ids, chat template. A model of images or audio is compared on random inputs by
    onnxruntime or diffusers: its outputs. The result is in proof.json. If the difference exceeds the stated tolerance,
    the exit code is 2 and the folder is named DIR.unproved. hub-folder adds samples, scores and what may be done with
    the model, ready for `hf upload`.

    Raises UserError for an unknown format or precision, for what is not accepted, for a folder that exists otherwise,
    and if the proof fails.
    """
    from afresh.verbs.exporting import Exported, ExportOptions, export_run
    from afresh.verbs.hub_folder import NAME, export_hub_folder

    home = run.path.resolve()
    target = home.with_name(f"{home.name}-{to}") if out is None else Path(out)
    options = ExportOptions(precision, label, force, licence, accept)
    if to == NAME:
        return Exported(*export_hub_folder(run, target, options)).checked(target)
    return Exported(*export_run(run, to, target, options)).checked(target)
