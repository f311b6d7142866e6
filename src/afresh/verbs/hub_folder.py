"""The format `hub-folder`: an export with all that a page on the Hugging Face hub shows, ready to be uploaded.

The weights, or the adapter, are those of the format that fits the run, with its proof. Added are samples, the measured
scores and the verdict, and what may be done with the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from afresh.core.safe_text import visible
from afresh.data.storage.folders import folder_aside, put_in_place
from afresh.engine.families.diffusers import DiffusersConfig
from afresh.engine.families.text_to_image import TextToImageConfig
from afresh.engine.sampling.request import Request
from afresh.engine.sampling.samples import write_samples
from afresh.runs.about import read_report
from afresh.runs.formats.fields import FieldProof
from afresh.runs.formats.folder import check_new, unproved
from afresh.runs.formats.model_card import README, extended_card
from afresh.runs.formats.proof import Proof
from afresh.runs.run import Run
from afresh.verbs.exporting import ADAPTER, ExportOptions, export_run
from afresh.verbs.model_card import card_of
from afresh.verbs.sample import Sampler
from afresh.verbs.sharing_licence import check_release

NAME = "hub-folder"
SAMPLES, SHOWN = "samples", 4
TOKENS, CHARACTERS = 120, 600  # of a sample of a text, as it is drawn and as it is shown


def export_hub_folder(run: Run, out: Path, options: ExportOptions) -> tuple[Path, Proof | FieldProof]:
    """Write the folder and prove it; returns as `export_run`. Raises UserError as it does, and if no licence is
    stated for the base, or it does not allow sharing derived works."""
    check_release(run.path, run.record, options.licence, options.accept, published=True)
    check_new(out, options.force)
    with folder_aside(out) as aside:
        aside.mkdir(parents=True)
        place, proof = weights(run, aside / out.name, options)
        to = out if proof.passed else unproved(out)
        if proof.passed:
            complete(run, place)
        put_in_place(place, to, replace=True)
    if not proof.passed:
        return to, proof
    return to, proof.model_copy(update={"notes": [*proof.notes, *advice(run, out, options)]})


def weights(run: Run, out: Path, options: ExportOptions) -> tuple[Path, Proof | FieldProof]:
    """What the library of the run's kind of weights reads."""
    if run.space.kind == "tokens":
        to = "hf" if run.record.lora is None else ADAPTER
    else:
        to = "diffusers" if isinstance(run.config, TextToImageConfig | DiffusersConfig) else "safetensors"
    return export_run(run, to, out, replace(options, force=False))


# --------------------------------------------------------------------------- the page


def complete(run: Run, folder: Path) -> None:
    """Add samples to the folder, and to its README.md what the page shows of them, with the verdict."""
    trigger = str(run.record.data.options.get("trigger") or "")
    records = drawn(run, folder / SAMPLES, trigger)
    page = (folder / README).read_text(encoding="utf-8")
    entries: dict[str, Any] = {"instance_prompt": trigger} if trigger else {}
    # The examples of the hub's page: images with the words that they were made of.
    images = [r["file"] for r in records if str(r.get("file", "")).endswith(".png")] if trigger else []
    if widget := [{"text": trigger, "output": {"url": f"{SAMPLES}/{name}"}} for name in images]:
        entries["widget"] = widget
    text = "\n\n".join([*said_of(run, trigger), "## Samples", *map(shown, records)])
    (folder / README).write_text(extended_card(page, entries, text), encoding="utf-8")


def drawn(run: Run, folder: Path, trigger: str) -> list[dict[str, Any]]:
    """Samples of the run, written into a folder. Returns their records: a file, or a text, and what was asked for."""
    request = Request(caption=trigger) if trigger else Request()
    given = {} if run.encoder.abilities.texts is None else {"length": TOKENS}
    records = write_samples(Sampler(run, SHOWN, request, run.record.seed, given)(), folder)
    return [{**r, "caption": trigger} for r in records[:SHOWN]]


def shown(record: Mapping[str, Any]) -> str:
    """A sample in Markdown."""
    if "text" in record:
        lines = visible(str(record["text"])[:CHARACTERS]).splitlines() or [""]
        return "\n".join(f"    {line}" for line in lines)
    name = f"{SAMPLES}/{record['file']}"
    return f"![]({name})" if name.endswith(".png") else f"[{record['file']}]({name})"


def said_of(run: Run, trigger: str) -> list[str]:
    """Sentences about the words that call the subject, how good the model is, and its data."""
    found = read_report(run.path).verdict
    out = [f"Trigger: `{visible(trigger)}` in a prompt calls what it has learnt."] if trigger else []
    if found is not None:
        out.append(f"Verdict of the measurement: **{visible(found['word'])}**. {visible(found['sentence'])}")
    else:
        out.append("It was not measured.")
    if run.record.data.collected is None:
        out.append("No licence of its data is recorded: its maker is responsible for them.")
    return out


def advice(run: Run, out: Path, options: ExportOptions) -> list[str]:
    """What to do before the folder is uploaded, and how."""
    base = card_of(run).base_model
    notes = []
    if options.licence is None and not run.record.base_licences:
        notes.append("no licence is stated in README.md: give one with `licence`")
    if base is not None and "/" not in base:
        notes.append(
            f"README.md names the base {base}, without its owner on the hub: write OWNER/{base} if it is there"
        )
    if read_report(run.path).verdict is None:
        notes.append("it was not measured: `afresh measure` adds scores and a verdict to the page")
    login = "" if find_spec("huggingface_hub") else " (pip install huggingface-hub)"
    return [*notes, f"to upload it: hf upload YOUR-NAME/{out.name} {out}{login}"]
