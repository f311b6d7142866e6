"""The verb `export`: a run to a folder that other programs open, with the proof that they see the same model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

import torch

from afresh.core import Cond, UserError
from afresh.data.load import sweep
from afresh.data.text.documents import DocumentEncoder
from afresh.formats import gguf, gguf_tokenizer, huggingface, judges, plain
from afresh.formats.base import Base
from afresh.formats.fields import FieldProof
from afresh.formats.ours import base_of
from afresh.formats.parts import Precision
from afresh.formats.proof import FIXED, WINDOW, Proof, prove
from afresh.formats.tokenizer_differences import Excuse, unseen
from afresh.runs.run import Run
from afresh.sampling.request import Request, make_cond, of_kind
from afresh.tasks.measure import prepared_again
from afresh.training.checkpoint import free_bytes, sync_folder, write_json

Format = Literal["hf", "gguf", "safetensors"]
P = TypeVar("P", Proof, FieldProof)
WINDOWS = 4  # of the held-out split that the proof compares
PROOF = "proof.json"


@dataclass(frozen=True)
class Target:
    """A format: how it is written, the path in the folder that is read again, by whom (and what to install for it),
    in which precisions, and which texts cannot get the same ids."""

    write: Callable[[Base, Path, Precision], Sequence[str]]
    path: str
    judge: Callable[[Path, int], judges.Judge]
    install: str | None = None
    precisions: tuple[Precision, ...] = ("float32", "bfloat16", "float16")
    excuse: Excuse = unseen


def transformers_or_own(path: Path, context: int) -> judges.Judge:
    try:
        return judges.Transformers(path)
    except ImportError:
        return judges.Own(path, context)


def llama_or_own(path: Path, context: int) -> judges.Judge:
    try:
        return judges.LlamaCpp(path, context)
    except ImportError:
        return judges.Own(path, context)


TARGETS: Mapping[Format, Target] = {
    "hf": Target(huggingface.write, ".", transformers_or_own, "transformers", excuse=huggingface.excuse),
    "gguf": Target(gguf.write, gguf.FILE, llama_or_own, "llama-cpp-python", get_args(Precision), gguf_tokenizer.excuse),
    "safetensors": Target(plain.write, ".", judges.Own),
}


def export(
    run: Run, to: str, out: Path, precision: str = "float32", label: str | Mapping[str, str] | None = None
) -> tuple[Path, Proof | FieldProof]:
    """Write a run and prove it. Returns the folder (`out`, or where it is kept aside when the proof failed) and the
    proof.

    Raises UserError for an unknown format or precision, a folder that exists, a model that has no public
    architecture, and a label that was never seen.
    """
    if run.space.kind == "field":
        from afresh.tasks.export_fields import export_fields

        return export_fields(run, to, out, precision, label)
    documents(run)
    chosen(to, precision)
    claim(out)
    base, condition = base_of_run(run, label)
    rows, text = texts(run, base)
    return export_base(base, to, out, precision, rows, text, condition)


def export_base(
    base: Base,
    to: str,
    out: Path,
    precision: str,
    rows: Sequence[Sequence[int]],
    text: str,
    condition: str | None = None,
) -> tuple[Path, Proof]:
    """`export` for any base, proved on `rows` of ids, which `text` describes. Raises UserError like it."""
    target, kind = chosen(to, precision)

    def fill(folder: Path) -> Proof:
        notes = [*base.notes, *target.write(base, folder, kind)]
        measured = prove(
            base, folder / target.path, kind, rows, target.judge, lambda b, f: twin(target, b, f), target.excuse
        )
        if not measured["independent"] and target.install is not None:
            notes.append(f"no other program has read this export; to have it judged: pip install {target.install}")
        return Proof(**measured, format=to, text=text, condition=condition, notes=notes)

    return made(out, fill)


def made(out: Path, fill: Callable[[Path], P]) -> tuple[Path, P]:
    """A folder that `fill` writes into and proves, with proof.json beside: `out`, or where it is kept aside when the
    proof failed. Raises UserError when it exists, or cannot be written."""
    claim(out)
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        proof = fill(aside)
        write_json(aside / PROOF, proof.model_dump(mode="json"))
        place = out if proof.passed else aside_of(out)
        sync_files(aside)
        os.replace(aside, place)
        sync_folder(place.parent)
    except OSError as e:
        free = f"{free_bytes(out.parent):,} bytes are free there"
        raise UserError(f"Cannot write {out}: {e.strerror or e}; {free}. Make room or choose another --out.") from e
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return place, proof


def sync_files(folder: Path) -> None:
    """So that the folder gets its name only when all of it is on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


def twin(target: Target, base: Base, folder: Path) -> Path:
    """The same in float32; returns what is to be read."""
    target.write(base, folder, "float32")
    return folder / target.path


def chosen(to: str, precision: str) -> tuple[Target, Precision]:
    """Raises UserError naming what there is."""
    for name, target in TARGETS.items():
        if name == to:
            for kind in target.precisions:
                if kind == precision:
                    return target, kind
            raise UserError(f"--precision {precision}: {to} is written in {', '.join(target.precisions)}.")
    fields = " It is for models of pictures and sounds." if to in ("onnx", "diffusers") else ""
    raise UserError(f"--to {to}: models of text and code go to {', '.join(TARGETS)}.{fields}")


def claim(out: Path) -> None:
    """Raises UserError when `out` exists, or an unproved export beside it."""
    for path in (out, aside_of(out)):
        if path.exists():
            raise UserError(f"{path} exists. Remove it, or choose another --out, so that nothing is overwritten.")


def aside_of(out: Path) -> Path:
    """Where an export is kept whose proof failed."""
    return out.with_name(f"{out.name}.unproved")


def base_of_run(run: Run, label: str | Mapping[str, str] | None = None) -> tuple[Base, str | None]:
    """The run's model under one condition, and that condition in words (None for a model that has none).

    Raises UserError for a model without a public architecture, for an unknown label, and for one without a label
    when the model never learnt to do without.
    """
    encoder = documents(run)
    cond = make_cond(run.conds, Cond.nothing(run.conds, 1), Request(label=label))
    asked = {n: run.conds[n].classes[int(cond.parts[n][0])] for n in of_kind(run.conds, "label") if cond.present[n][0]}
    left = [n for n in run.conds if not cond.present[n][0]]
    if left and run.record.train.cond_dropout == 0:
        raise UserError(
            f"This model never learnt to do without {', '.join(left)}. Say what it is to be: --label NAME=CLASS."
        )
    words = [f"{n} = {c}" for n, c in asked.items()] + [f"{n} left open (the learnt null)" for n in left]
    base = base_of(run.modules, run.config, run.space, encoder.tokenizer, cond, str(run.path))
    return base, "; ".join(words) or None


def documents(run: Run) -> DocumentEncoder:
    """The encoder of a run on text or code. Raises UserError for a model of tokens of another kind."""
    encoder = run.encoder
    if not isinstance(encoder, DocumentEncoder) or run.codec is not None:
        through = "" if run.codec is None else f" through a codec ({run.record.codec})"
        raise UserError(
            f"{run.path} ({run.record.family} on {run.record.modality}{through}) goes to no format: exported are "
            "models of text and code, and of pictures and sounds without a codec (flow, vae, gan, autoencoder). Copy "
            "the run's folder instead: afresh opens it anywhere."
        )
    return encoder


def texts(run: Run, base: Base) -> tuple[list[list[int]], str]:
    """Ids to compare on, each row with its first token: windows of the held-out split, or a fixed text when that is
    not there any more."""
    length = min(WINDOW, base.context)
    try:
        heldout = prepared_again(run).heldout
        batch = next(iter(sweep(heldout, run.space, WINDOWS, WINDOWS)), None)
    except UserError as e:
        batch, reason = None, str(e)
    else:
        reason = "the held-out split is empty"
    if batch is not None:
        counted = torch.ones_like(batch.x[:, 1:], dtype=torch.bool) if batch.mask is None else batch.mask
        last = [int(m.nonzero()[-1]) if bool(m.any()) else 0 for m in counted]  # the rest is padding
        rows = [r[: min(length, n + 2)] for r, n in zip(batch.x.tolist(), last, strict=True)]
        return rows, f"{len(rows)} windows of the held-out split"
    start = [] if base.first is None else [base.first]
    ids = [*start, *base.tokenizer.encode(FIXED)][:length]
    return [ids], f"a fixed text ({reason})"
