"""`afresh export`: write a run for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from afresh.core.verb import Option, Setting, verb
from afresh.verbs.options import Accept, Force, Labels, Licence

if TYPE_CHECKING:
    from afresh.runs.run import Run


@verb("export", result="{folder, passed, reader, ...}, or of a bundle {bundle, sha256, signer, ...}", served=False)
def export(
    run: Run,
    to: Annotated[
        str,
        Option(
            "Text: hf (transformers, vLLM), gguf (llama.cpp), peft (the adapter alone). Images and audio: onnx, "
            "diffusers (flows, and runs tuned from there). All: safetensors (names of afresh), hub-folder (what fits, "
            "with a page for the hub), bundle (one signed file, for `afresh get`)."
        ),
    ],
    out: Annotated[
        str | Path | None,
        Option("To create; RUN-FORMAT or RUN.bundle if not given.", flags=("--out", "-o"), shell=Path),
    ] = None,
    *,
    force: Force = False,
    precision: Annotated[str, Setting("float32, bfloat16, float16; for gguf also q8_0 (8 bits).")] = "float32",
    label: Annotated[
        Labels | None,
        Option(
            "For a model with labels: the class to fix; NAME=CLASS if there are several labels.",
            shell=list[str],
            parse="afresh.faces.cli.words:labels",
        ),
    ] = None,
    licence: Licence = None,
    accept: Accept = (),
) -> Any:
    """Export a model to a folder that other programs open, and prove that they see the same model.

    The files are read again. A language model is compared on held-out text by transformers or llama.cpp, if they are
    installed: log-probabilities, token ids, chat template. A model of images or audio is compared on random inputs by
    onnxruntime or diffusers: its outputs. The result is in proof.json. If the difference exceeds the stated tolerance,
    the exit code is 2 and the folder is named DIR.unproved. hub-folder adds samples, scores and what may be done with
    the model, ready for `hf upload`.

    A bundle holds what sampling needs, the record, the report and the licences, and is signed with your key. A run from
    which licences stand against sharing is refused, with a table that says why.

    Raises UserError for an unknown format or precision, for what is not accepted, for a folder that exists otherwise,
    and if the proof fails.
    """
    from afresh.core import UserError
    from afresh.verbs.exporting import Exported, ExportOptions, export_run
    from afresh.verbs.hub_folder import NAME, export_hub_folder
    from afresh.verbs.pack import pack

    if to == "bundle":
        if precision != "float32" or label is not None:
            raise UserError("A bundle holds the model as it is. Leave out `precision` and `label`.")
        return pack(run, out, force=force, licence=licence, accept=accept)

    home = run.path.resolve()
    target = home.with_name(f"{home.name}-{to}") if out is None else Path(out)
    options = ExportOptions(precision, label, force, licence, accept)
    if to == NAME:
        return Exported(*export_hub_folder(run, target, options)).checked(target)
    return Exported(*export_run(run, to, target, options)).checked(target)
