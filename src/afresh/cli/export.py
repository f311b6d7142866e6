"""`afresh export`: write a run for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afresh.cli import options as o
from afresh.cli.sample import labels
from afresh.cli.show import answer, emit, note, say

if TYPE_CHECKING:
    from afresh.formats.fields import FieldProof
    from afresh.formats.proof import Difference, Proof


def export(
    run: o.Run,
    to: Annotated[
        str,
        typer.Option(
            help="Text: hf (transformers, vLLM), gguf (llama.cpp). Images and audio: onnx, diffusers (flows, and runs "
            "tuned from there). All: safetensors (names of afresh)."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to create; RUN-FORMAT if not given.", metavar="DIR")] = None,
    force: o.Force = False,
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16, float16; for gguf also q8_0 (8 bits).")
    ] = "float32",
    label: Annotated[
        list[str] | None,
        typer.Option(help="For a model with labels: the class to fix; NAME=CLASS if there are several labels."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of the model, as Apache-2.0; checked against those of its data.")
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            help="Share the model although the licences of some of its data are unknown (unknown-licences), no consent "
            "is known of persons whom its data shows (missing-consent), or its licence is one that those of its data "
            "do not allow (licence-conflict).",
            metavar="NAME",
        ),
    ] = None,
    as_json: Annotated[bool, o.json_of("{folder, passed, reader, ...}")] = False,
) -> None:
    """Export a model to a folder that other programs open, and prove that they see the same model.

    The files are read again. A language model is compared on held-out text by transformers or llama.cpp, if they are
    installed: log-probabilities, token ids, chat template. A model of images or audio is compared on random inputs by
    onnxruntime or diffusers: its outputs. The result is in proof.json. If the difference exceeds the stated tolerance,
    the exit code is 2 and the folder is named DIR.unproved.
    """
    from afresh.core import UserError
    from afresh.formats.fields import FieldProof
    from afresh.runs.run import Run
    from afresh.verbs.export import export as write

    opened = Run.open(run)
    target = run.resolve().with_name(f"{run.resolve().name}-{to}") if out is None else out
    place, proof = write(opened, to, target, precision, labels(label, spec=opened.conds), force, licence, accept or ())
    made = {"folder": str(place), **proof.model_dump(mode="json")}
    if not as_json:
        show_fields(proof) if isinstance(proof, FieldProof) else show(proof)
    if not proof.passed:
        text = f"The proof failed: the export is in {place} instead of {target}. Its proof.json states what differs."
        raise UserError(text, "not_proved", proof=made)
    say(f"{place}: proved by {proof.reader}")
    if as_json:
        emit(made)


def show(proof: Proof) -> None:
    """Print what was compared, line by line."""
    t, nats = proof.tokenizer, proof.nats_per_token
    lines = [
        f"{'reader':14}{proof.reader}",
        f"{'text':14}{proof.text}: {proof.tokens:,} tokens",
        f"{'layout':14}{difference(proof.layout)}, float32, whole vocabulary",
        f"{'rounding':14}{difference(proof.rounding)}, {proof.precision}, at the text's tokens",
        f"{'nats a token':14}{nats['model']:.4f} the model, {nats['file']:.4f} the file",
        f"{'tokenizer':14}{t.same} of {t.texts} texts have the same ids"
        + (f"; {len(t.expected)} differ as expected ({t.reason})" if t.expected else "")
        + (f"; differ: {', '.join(map(repr, t.unexpected))}" if t.unexpected else ""),
        f"{'first token':14}{proof.first_token['feed']}",
    ]
    if proof.chat is not None:
        c = proof.chat
        lines.append(f"{'chat':14}{c['same']} of {c['conversations']} conversations are the same")
    if proof.condition is not None:
        lines.append(f"{'condition':14}{proof.condition}")
    for line in lines:
        answer(line)
    note(*proof.notes)


def show_fields(proof: FieldProof) -> None:
    """Print what was compared of a model of images or audio, line by line."""
    allowed = f"allowed {proof.tolerance:.2g}" if proof.tolerance else "none is allowed"
    lines = [
        f"{'reader':14}{proof.reader}",
        f"{'compared':14}{proof.compared}; batches of {' and '.join(map(str, proof.batches))}, {proof.precision}",
        f"{'difference':14}{'' if proof.passed else 'FAILED: '}at most {proof.largest:.2g} ({allowed}), "
        f"of outputs up to {proof.outputs:.3g}",
    ]
    for line in lines:
        answer(line)
    note(*proof.notes)


def difference(d: Difference) -> str:
    failed = "" if d.passed else "FAILED: "
    return f"{failed}log-probabilities differ by at most {d.largest:.2g} nats (allowed {d.tolerance:g})"
