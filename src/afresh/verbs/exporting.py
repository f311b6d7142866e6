"""The verb `export`: write a run to a folder that other programs open, with a proof that they see the same model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from afresh.core import Cond, Encoder, UserError, events
from afresh.core.verb import Line, Remark, ShownResult
from afresh.data.load import sweep
from afresh.data.text.tokenizer import Tokenizer
from afresh.engine.families.text_to_image import TextToImageConfig
from afresh.engine.sampling.next_token import inputs_of
from afresh.engine.sampling.request import Request, make_cond, of_kind
from afresh.engine.training.lora import DEFAULT, use
from afresh.runs.data import run_data
from afresh.runs.formats import diffusers_pipeline, fields, gguf, gguf_tokenizer, huggingface, onnx, plain, readers
from afresh.runs.formats.base import Base
from afresh.runs.formats.byte_fallback import with_bytes
from afresh.runs.formats.decoder import base_of
from afresh.runs.formats.fields import FieldCodec, FieldModel, FieldProof, cpu_copies
from afresh.runs.formats.fields import difference as largest_difference
from afresh.runs.formats.folder import check_new, write_proved
from afresh.runs.formats.model_card import Card, add_card
from afresh.runs.formats.parts import Precision
from afresh.runs.formats.peft import LanguageModel, read_peft
from afresh.runs.formats.proof import FIXED, LAYOUT, WINDOW, Difference, Proof, TextFormat, nats_between, prove
from afresh.runs.formats.public import write_adapter
from afresh.runs.run import Run
from afresh.verbs.export_pipeline import export_pipeline
from afresh.verbs.model_card import card_of
from afresh.verbs.sharing_licence import check_release

ADAPTER = "peft"  # the format of the adapter of a language model alone
WINDOWS = 4  # of the held-out split that a proof compares


@dataclass(frozen=True)
class FieldFormat:
    """A format for models of images and audio: how it is written into a folder, and compared with the model. `library`
    is the program that opens it, as the hub names it."""

    write: Callable[[FieldModel, Path], Sequence[str]]
    prove: Callable[[FieldModel, Path], Mapping[str, Any]]
    library: str


TEXT_FORMATS: Mapping[Literal["hf", "gguf", "safetensors"], TextFormat] = {
    "hf": TextFormat(
        huggingface.write,
        ".",
        readers.transformers_or_afresh,
        "transformers",
        explain=huggingface.explain_difference,
        prepare=with_bytes,
        library="transformers",
    ),
    "gguf": TextFormat(
        gguf.write,
        gguf.FILE,
        readers.llama_cpp_or_afresh,
        "llama-cpp-python",
        get_args(Precision),
        gguf_tokenizer.explain_difference,
        with_bytes,
        "gguf",
    ),
    "safetensors": TextFormat(plain.write, ".", readers.Afresh),
}
FIELD_FORMATS: Mapping[str, FieldFormat] = {
    "safetensors": FieldFormat(fields.write, fields.prove, "afresh"),
    "onnx": FieldFormat(onnx.write, onnx.prove, "onnx"),
    "diffusers": FieldFormat(diffusers_pipeline.write, diffusers_pipeline.prove, "diffusers"),
}


@dataclass(frozen=True)
class ExportOptions:
    """What the command takes beside the format. licence: of the model, an expression of SPDX. accept: names of
    `release.ACCEPTED`, what does not stand against sharing the model."""

    precision: str = "float32"
    label: str | Mapping[str, str] | None = None
    force: bool = False
    licence: str | None = None
    accept: Sequence[str] = ()


def export_run(run: Run, to: str, out: Path, options: ExportOptions) -> tuple[Path, Proof | FieldProof]:
    """Write a run in the format `to` and prove that the files hold the same model. Returns the folder (`out`, or
    `out.unproved` if the proof failed) and the proof.

    Raises UserError if the format or precision is unknown, the folder exists and is not an export to be replaced
    (`force`), no public architecture computes the model, the label did not occur in training, or if something stands
    against sharing it.
    """
    card = card_of(run, check_release(run.path, run.record, options.licence, options.accept))
    if run.space.kind == "field":
        return export_fields(run, to, out, options, card)
    exported_tokenizer(run)
    if to == ADAPTER:
        return export_adapter(run, out, options, card)
    text_format(to, options.precision)
    check_new(out, options.force)  # before the work of building the base
    base, condition = base_of_run(run, options.label)
    rows, text = proof_rows(run, base)
    return export_base(base, to, out, options.precision, rows, text, condition, card, options.force)


@dataclass(frozen=True)
class Exported(ShownResult):
    """An export: its folder, which stands for it where a path is expected, and the proof that it is the same model."""

    folder: Path
    proof: Proof | FieldProof

    def __fspath__(self) -> str:
        return str(self.folder)

    def checked(self, target: Path) -> Exported:
        """The export itself. Raises UserError, after notes of what differs, if the proof failed."""
        if self.proof.passed:
            return self
        for line in self.lines()[:-1]:
            events.note(str(line), "proof")
        raise UserError(
            f"The proof failed: the export is in {self.folder} instead of {target}. Its proof.json states what "
            "differs.",
            "not_proved",
            proof=self.json(),
        )

    @property
    def notes(self) -> Sequence[str]:
        return self.proof.notes

    def json(self) -> dict[str, Any]:
        """{folder, passed, reader, ...}: the content of proof.json and the folder."""
        return {"folder": str(self.folder), **self.proof.model_dump(mode="json")}

    def lines(self) -> list[Line]:
        """What was compared, line by line."""
        proof = self.proof
        rows = field_rows(proof) if isinstance(proof, FieldProof) else text_rows(proof)
        return [*(f"{name:14}{words}" for name, words in rows), Remark(f"{self.folder}: proved by {proof.reader}")]


def text_rows(proof: Proof) -> list[tuple[str, str]]:
    """What was compared of a language model."""
    t, nats = proof.tokenizer, proof.nats_per_token
    ids = f"{t.same} of {t.texts} texts have the same ids"
    ids += f"; {len(t.expected)} differ as expected ({t.reason})" if t.expected else ""
    ids += f"; differ: {', '.join(map(repr, t.unexpected))}" if t.unexpected else ""
    rows = [
        ("reader", proof.reader),
        ("text", f"{proof.text}: {proof.tokens:,} tokens"),
        ("layout", f"{difference(proof.layout)}, float32, whole vocabulary"),
        ("rounding", f"{difference(proof.rounding)}, {proof.precision}, at the text's tokens"),
        ("nats a token", f"{nats['model']:.4f} the model, {nats['file']:.4f} the file"),
        ("tokenizer", ids),
        ("first token", str(proof.first_token["feed"])),
    ]
    if proof.chat is not None:
        rows.append(("chat", f"{proof.chat['same']} of {proof.chat['conversations']} conversations are the same"))
    return rows if proof.condition is None else [*rows, ("condition", proof.condition)]


def difference(d: Difference) -> str:
    failed = "" if d.passed else "FAILED: "
    return f"{failed}log-probabilities differ by at most {d.largest:.2g} nats (allowed {d.tolerance:g})"


def field_rows(proof: FieldProof) -> list[tuple[str, str]]:
    """What was compared of a model of images or audio."""
    allowed = f"allowed {proof.tolerance:.2g}" if proof.tolerance else "none is allowed"
    failed = "" if proof.passed else "FAILED: "
    return [
        ("reader", proof.reader),
        ("compared", f"{proof.compared}; batches of {' and '.join(map(str, proof.batches))}, {proof.precision}"),
        ("difference", f"{failed}at most {proof.largest:.2g} ({allowed}), of outputs up to {proof.outputs:.3g}"),
    ]


def with_sentences(card: Card, *sentences: str) -> Card:
    """The card with more sentences, each begun and ended as one."""
    more = [f"{s[0].upper()}{s[1:].rstrip('.')}." for s in sentences]
    return replace(card, sentences=[*card.sentences, *more])


def proved(proof: Proof | FieldProof) -> str:
    how = "gave the same" if proof.passed else "did NOT give the same"
    return f"Read by {proof.reader}, the files {how} as the model (`proof.json`)"


# --------------------------------------------------------------------------- text and code


def export_base(
    base: Base,
    to: str,
    out: Path,
    precision: str,
    rows: Sequence[Sequence[int]],
    text: str,
    condition: str | None = None,
    card: Card | None = None,
    force: bool = False,
) -> tuple[Path, Proof]:
    """`export` for any base, proved on `rows` of token ids, which `text` describes. Raises UserError as `export`."""
    card = Card(Path(base.source).name, "text-generation") if card is None else card
    target, dtype = text_format(to, precision)
    held = target.prepare(base)

    def write(folder: Path) -> Proof:
        notes = [*held.notes, *target.write(held, folder, dtype)]
        measured = prove(held, folder, target, dtype, rows)
        notes += measured.pop("notes")
        if held.tokenizer.size > base.tokenizer.size:
            notes.append(f"the added tokens cost {nats_between(base, held, rows):.2g} nats a token of that text")
        if not measured["independent"] and target.package is not None:
            notes.append(
                f"no other program has read this export; for an independent proof: pip install {target.package}"
            )
        proof = Proof(**measured, format=to, text=text, condition=condition, notes=notes)
        under = [] if condition is None else [f"Exported under the condition {condition}"]
        add_card(folder, with_sentences(card, *under, *notes, proved(proof)), target.library)
        return proof

    return write_proved(out, write, force)


def text_format(to: str, precision: str) -> tuple[TextFormat, Precision]:
    """A format and a precision by name. Raises UserError listing those that exist."""
    for name, target in TEXT_FORMATS.items():
        if name == to:
            for dtype in target.precisions:
                if dtype == precision:
                    return target, dtype
            raise UserError(f"No precision {precision} in the format {to}: {', '.join(target.precisions)}.")
    hint = " That format is for models of images and audio." if to in FIELD_FORMATS else ""
    raise UserError(
        f"Models of text and code cannot be exported to {to}, only to {', '.join(TEXT_FORMATS)}.{hint} An adapter "
        f"alone: {ADAPTER}."
    )


def base_of_run(run: Run, label: str | Mapping[str, str] | None = None) -> tuple[Base, str | None]:
    """The run's model under one condition, and that condition in words (None if the model has no conditions).

    Raises UserError if no public architecture computes the model, if the label is unknown, or if it is missing and the
    model was never trained without one.
    """
    tokenizer = exported_tokenizer(run)
    cond = make_cond(run.conds, Cond.unconditional(run.conds, 1), Request(label=label))
    fixed = {n: run.conds[n].classes[int(cond.parts[n][0])] for n in of_kind(run.conds, "label") if cond.present[n][0]}
    open_parts = [n for n in run.conds if not cond.present[n][0]]
    if open_parts and run.record.train.cond_dropout == 0:
        raise UserError(
            f"This model was never trained without {', '.join(open_parts)}. Choose a class of each with `label`."
        )
    words = [f"{n} = {c}" for n, c in fixed.items()] + [f"{n} left open (the learnt null)" for n in open_parts]
    base = base_of(run.modules, run.config, run.space, tokenizer, cond, str(run.path))
    return base, "; ".join(words) or None


def exported_tokenizer(run: Run) -> Tokenizer:
    """The tokenizer of a run on text or code. Raises UserError for a model of other tokens."""
    texts = run.encoder.abilities.texts
    if texts is None or run.codec is not None:
        through = "" if run.codec is None else f" through a codec ({run.record.codec})"
        raise UserError(
            f"{run.path} ({run.record.family} on {run.record.modality}{through}) cannot be exported. Exports exist for "
            "models of text and code, and for models of images and audio that draw real numbers (flow, vae, gan, "
            "autoencoder). Copy the run's folder instead: afresh opens it anywhere."
        )
    tokenizer: Tokenizer = texts.tokenizer
    return tokenizer


def proof_rows(run: Run, base: Base) -> tuple[list[list[int]], str]:
    """Rows of token ids to compare on, each with its first token: windows of the held-out split, or a fixed text if
    the data is no longer available. Also returns a description of them."""
    length = min(WINDOW, base.context)
    try:
        batch = next(iter(sweep(run_data(run).heldout, run.space, WINDOWS, WINDOWS)), None)
    except UserError as e:
        batch, reason = None, str(e)
    else:
        reason = "the held-out split is empty"
    if batch is not None:
        counted = torch.ones_like(batch.x[:, 1:], dtype=torch.bool) if batch.mask is None else batch.mask
        last = [int(m.nonzero()[-1]) if bool(m.any()) else 0 for m in counted]  # the rest is padding
        tokens = torch.cat([inputs_of(run.space, batch)[:, :1], batch.x[:, 1:]], 1)
        rows = [r[: min(length, n + 2)] for r, n in zip(tokens.tolist(), last, strict=True)]
        return rows, f"{len(rows)} windows of the held-out split"
    ids = [*([] if base.first is None else [base.first]), *base.tokenizer.encode(FIXED)][:length]
    return [ids], f"a fixed text ({reason})"


def export_adapter(run: Run, out: Path, options: ExportOptions, card: Card) -> tuple[Path, FieldProof]:
    """The adapter of a language model in PEFT's format, read again and compared. Raises UserError if the run has
    none."""
    if run.record.lora is None:
        raise UserError(
            f"{run.path} has no adapter: all of its weights were trained. Export it as a whole: "
            f"{', '.join(TEXT_FORMATS)}."
        )
    if options.precision != "float32" or options.label is not None:
        raise UserError("An adapter is exported in float32, and for every class. Leave out `precision` and `label`.")
    modules = run.modules_with_adapters()
    net = modules.get("decoder")
    if not isinstance(net, LanguageModel):
        raise UserError(
            f"PEFT has no names for the layers of {run.record.family}. Its adapter is in {run.path}/adapter."
        )

    def write(folder: Path) -> FieldProof:
        write_adapter(folder, modules, card)
        return proof_of_adapter(run, net, folder)

    return write_proved(out, write, options.force)


@torch.no_grad()
def proof_of_adapter(run: Run, net: LanguageModel, folder: Path) -> FieldProof:
    """The log-probabilities of a text with the adapter of the run, and with that in the folder."""
    ids = exported_tokenizer(run).encode(FIXED)[: min(WINDOW, run.space.shape[0])]
    tokens = torch.tensor([ids], device=next(net.parameters()).device)
    net.eval()
    use(net, {DEFAULT: 1.0})
    ours = net(tokens, None).float().log_softmax(-1)
    read_peft(folder, net, "read")
    theirs = net(tokens, None).float().log_softmax(-1)
    largest = largest_difference(ours, theirs)
    return FieldProof(
        passed=largest <= LAYOUT,
        format="peft",
        precision="float32",
        reader="afresh",
        independent=False,
        compared=f"log-probabilities of {len(ids):,} tokens",
        batches=[1],
        largest=largest,
        tolerance=LAYOUT,
        outputs=float(ours.abs().max()),
        notes=[],
    )


# --------------------------------------------------------------------------- images and audio


def export_fields(run: Run, to: str, out: Path, options: ExportOptions, card: Card) -> tuple[Path, FieldProof]:
    """`export` for a model over fields (images, spectrograms). Raises UserError as `export`."""
    target = field_format(to, options)
    check_new(out, options.force)  # before the work of copying the model
    if isinstance(run.config, TextToImageConfig):
        if target.library != "diffusers":
            raise UserError(
                f"{run.path} needs the text encoders of its base, which the format {to} does not hold. Export it with "
                "`to='diffusers'`."
            )
        return export_pipeline(run, out, card, options.force)
    model = field_model(run)

    def write(folder: Path) -> FieldProof:
        notes = [*target.write(model, folder)]
        measured = target.prove(model, folder)
        proof = FieldProof(**measured, format=to, precision="float32", batches=list(fields.BATCHES), notes=notes)
        add_card(folder, with_sentences(card, *notes, proved(proof)), target.library)
        return proof

    return write_proved(out, write, options.force)


def field_model(run: Run) -> FieldModel:
    """The model of a run over fields. Raises UserError if its samples are not fields."""
    codec, name = run.codec, run.record.codec
    if codec is not None and not isinstance(codec, FieldCodec):
        raise UserError(
            f"{run.path} draws latents that its codec {name} decodes to {codec.source.kind}, and exports hold only "
            f"codecs of images and sounds ({', '.join(fields.CODECS)}). Copy the run's folder instead: afresh opens it "
            "anywhere."
        )
    named = None if codec is None or name is None else (name, codec)
    nets, image = cpu_copies(run.modules), decodes_to_bytes(run.encoder)
    return FieldModel(run.family, run.config, nets, run.space, run.conds, str(run.path), image, named)


def field_format(to: str, options: ExportOptions) -> FieldFormat:
    """A format by name. Raises UserError listing those that exist, and for a precision or label, which none takes."""
    if to not in FIELD_FORMATS:
        hint = " That format is for models of text and code." if to in TEXT_FORMATS else ""
        raise UserError(
            f"Models of images and audio cannot be exported to {to}, only to {', '.join(FIELD_FORMATS)} (the last for "
            f"flows and for runs tuned from a diffusers folder).{hint}"
        )
    if options.precision != "float32":
        raise UserError(f"Models of images and audio are exported in float32 only, not in {options.precision}.")
    if options.label is not None:
        raise UserError("Conditions remain inputs of an exported model of images or audio. Leave out `label`.")
    return FIELD_FORMATS[to]


def decodes_to_bytes(encoder: Encoder) -> bool:
    """Whether decoded values are images in which -1 and 1 become the bytes 0 and 255."""
    ends = encoder.decode(
        torch.tensor([-1.0, 1.0]).view(2, *[1] * len(encoder.space.shape)).expand(2, *encoder.space.shape)
    )
    return encoder.kind.medium == "image" and bool(np.all(ends[0] == 0) and np.all(ends[1] == 255))
