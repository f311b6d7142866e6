"""`afresh sample`: new examples from a run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from afresh.engine.sampling.setting_words import WORDS
from afresh.faces.cli import options as o
from afresh.faces.cli.paths import run_path
from afresh.faces.cli.show import console, emit, note, say
from afresh.faces.cli.show_samples import led, note_labels, show_samples, show_texts, show_tokens

if TYPE_CHECKING:
    from afresh.core import CondSpec
    from afresh.engine.sampling.request import Request
    from afresh.engine.sampling.samples import Samples
    from afresh.runs.run import Run
    from afresh.verbs.sample import Control

TOKENS, FIELDS = "Transformers", "Flows, VAEs, GANs"
MATCH = "What each text must match (one of these)"
CONTROL = "What is wanted (without training)"
PICTURES, TEXTS = 16, 4  # samples if -n is not given


def sample(
    run: o.Run,
    n: Annotated[int | None, typer.Option("-n", help="How many; 16 images or sounds, or 4 texts, by default.")] = None,
    prompt: Annotated[
        str | None,
        o.option(
            "Beginning of a text, what to answer, part of a molecule, or a caption; - reads standard input.", o.ASKED
        ),
    ] = None,
    infill: Annotated[str | None, o.option("Text with holes to fill, [[N]] for N tokens (masked).", o.ASKED)] = None,
    raw: o.Raw = False,
    label: o.Label = None,
    number: o.Number = None,
    caption: o.Caption = None,
    image: Annotated[
        list[str] | None,
        o.option(
            "An image to start from, or a sound whose curve to follow; NAME=FILE if there are several.",
            o.ASKED,
            metavar="FILE",
        ),
    ] = None,
    guidance: o.Guidance = None,
    negative_label: Annotated[
        list[str] | None,
        o.class_option("A class that guidance steers away from.", o.ASKED),
    ] = None,
    negative_caption: Annotated[
        str | None, o.option("What guidance steers away from.", o.ASKED, "--negative-caption", "--negative")
    ] = None,
    temperature: Annotated[float | None, o.option(WORDS["temperature"].help, TOKENS)] = None,
    top_k: Annotated[int | None, o.option(WORDS["top_k"].help, TOKENS)] = None,
    top_p: Annotated[float | None, o.option(WORDS["top_p"].help, TOKENS)] = None,
    min_p: Annotated[float | None, o.option(WORDS["min_p"].help, TOKENS)] = None,
    length: Annotated[int | None, o.option(WORDS["length"].help, TOKENS)] = None,
    weights: Annotated[str | None, o.option("Precision on a CPU: auto, float32, bfloat16, int8.", TOKENS)] = None,
    stop: Annotated[
        list[str] | None,
        o.option("End before this text ($'\\n' in a shell: a line's end); may be repeated.", TOKENS, metavar="TEXT"),
    ] = None,
    logprobs: Annotated[bool, o.option("How likely each token was, in nats.", TOKENS, "--logprobs")] = False,
    stream: Annotated[bool, o.option("Show one text as it is drawn.", TOKENS, "--stream")] = False,
    json_schema: Annotated[
        Path | None, o.option("JSON that is valid under the schema in FILE.", MATCH, metavar="FILE")
    ] = None,
    regex: Annotated[str | None, o.option("A regular expression, as a whole.", MATCH)] = None,
    grammar: Annotated[Path | None, o.option("A grammar: Lark or GBNF.", MATCH, metavar="FILE")] = None,
    order: Annotated[str | None, o.option("random or confidence: which tokens first (masked).", TOKENS)] = None,
    steps: Annotated[
        int | None, o.option("Steps of the solver (flow); looks at a window, 0 = one a token (masked).", FIELDS)
    ] = None,
    solver: Annotated[str | None, o.option("ab2, dpmpp, heun, euler or sde (flow).", FIELDS)] = None,
    truncation: Annotated[float | None, o.option(f"{WORDS['truncation'].help} (vae, gan)", FIELDS)] = None,
    best_of: Annotated[int, o.option("Keep the best of so many candidates for each, by --reward.", CONTROL)] = 1,
    reward: Annotated[
        str | None,
        o.option("What is best: length:min=50, brightness, FILE.py:function, '!program', or a sum of them.", CONTROL),
    ] = None,
    reward_guidance: Annotated[
        str | None,
        o.option(
            "A reward whose gradient guides images and sounds: brightness, class:LABEL, ...", CONTROL, metavar="REWARD"
        ),
    ] = None,
    weight: Annotated[
        float | None, o.option("How hard --reward-guidance pulls: 0 not at all, 1 if not given.", CONTROL)
    ] = None,
    adapter: Annotated[
        list[str] | None,
        o.option(
            "A run tuned from this one with --lora, or a LoRA; may be repeated.", CONTROL, metavar="PATH[=WEIGHT]"
        ),
    ] = None,
    valid: Annotated[
        bool, o.option("Draw again what is not valid (molecules, code, music).", CONTROL, "--valid")
    ] = False,
    strength: Annotated[
        float | None, o.option("Share of --prompt, a molecule, that is drawn again (0 to 1).", o.ASKED)
    ] = None,
    setting: o.SampleSettings = None,
    seed: o.Seed = 0,
    out: o.SamplesOut = None,
    force: o.Force = False,
    no_marks: o.Unmarked = False,
    label_ai: o.LabelAi = False,
    as_json: Annotated[bool, o.json_of("{verdict, samples}")] = False,
) -> None:
    """Draw samples from a run: images, sounds or texts, as many as you like, of what you ask for.

    Without --out, images and sounds are shown in the terminal and texts are printed. With it, images are written as
    PNG and sounds as WAV, or FLAC where the data was read with format=flac, with samples.json and of sounds a page to
    play them; texts as samples.jsonl. What is not asked for is drawn as it occurs in the training data.
    """
    from afresh.core import UserError
    from afresh.engine.sampling.constrained import structure, text_of
    from afresh.engine.sampling.request import Request, converses, unwanted
    from afresh.engine.sampling.samples import check_out
    from afresh.runs.adapters import parse_adapters
    from afresh.runs.run import Run
    from afresh.verbs.sample import Control, Sampler, control_lines

    found = Run.open(run)
    found.marked = not no_marks
    if as_json and out is None and not found.encoder.kind.inline:
        plural = found.encoder.kind.plural
        raise UserError(f"This model makes {plural}, which JSON cannot hold. Say where to write them: --out DIR.")
    settings: dict[str, Any] = {
        "guidance": guidances(guidance),
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
    }
    settings |= {"length": length, "order": order, "steps": steps, "solver": solver, "truncation": truncation}
    settings["weights"] = weights
    settings["constraint"] = structure(
        found.family,
        found.encoder,
        json_schema=None if json_schema is None else text_of(json_schema, "--json-schema"),
        regex=regex,
        grammar=None if grammar is None else text_of(grammar, "--grammar"),
    )
    chosen, spec = with_set(settings, setting), found.conds
    request = Request(
        read_prompt(prompt), labels(label, spec=spec), numbers(number) or {}, caption, raw, infill, stop or (), logprobs
    )
    negative = unwanted(labels(negative_label, "--negative-label", spec), negative_caption)
    request = replace(request, image=labels(image, "--image"), negative=negative, strength=strength)
    between = "\n" if converses(found.encoder, found.space) and not raw else ""
    adapters = {str(run_path(Path(path))): scale for path, scale in parse_adapters(adapter or []).items()}
    control = Control(best_of, reward, reward_guidance, weight, adapters, valid)
    count = (TEXTS if found.encoder.kind.view == "text" else PICTURES) if n is None else n
    check_out(out, found.encoder, count, force)
    if stream and label_ai:
        raise UserError("The label of a text stands before all of it: leave --stream or --label-ai out.")
    if stream:
        samples = streamed(found, n, request, seed, chosen, between, as_json, control)
    else:
        samples = Sampler(found, count, request, seed, chosen, control=control)()
    note(*control_lines(samples.described, control))
    deliver(found, samples, out, as_json, between, stream, label_ai)


def read_prompt(prompt: str | None) -> str | None:
    """The prompt; `-` stands for standard input, of which one line end at its end is left out.

    Raises UserError if standard input is not UTF-8.
    """
    from afresh.core import UserError

    if prompt != "-":
        return prompt
    if sys.stdin.isatty():
        say("Type the prompt, then Ctrl-D on a line of its own.")
    try:
        return sys.stdin.read().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as e:
        raise UserError(f"The prompt on standard input is not UTF-8 text: {e.reason}. Convert it first.") from None


def labels(
    given: list[str] | None, flag: str = "--label", spec: CondSpec | None = None
) -> str | Mapping[str, str] | None:
    """One label (or file) as it is; several must each be NAME=CLASS, or a class that one part alone of `spec` knows."""
    from afresh.core.options import pairs
    from afresh.engine.sampling.request import several_labels

    if not given:
        return None
    if len(given) == 1:
        return given[0]
    return pairs(given, flag) if spec is None else several_labels(spec, given)


def with_set(flags: Mapping[str, Any], given: list[str] | None) -> dict[str, Any]:
    """Settings that flags of their own gave, and those of --set. Raises UserError for one that is given both ways."""
    from afresh.core import UserError
    from afresh.core.options import pairs

    own, more = {k: v for k, v in flags.items() if v is not None}, pairs(given or [], "--set")
    if twice := sorted(set(own) & set(more)):
        name = twice[0]
        raise UserError(f"{name} is given twice: by --{name.replace('_', '-')} and by --set {name}. Give it once.")
    return own | more


def guidances(given: list[str] | None) -> float | dict[str, float] | None:
    """One number for all, or by part: {"caption": 3, "": 2}, "" for the others. Raises UserError for no number."""
    from afresh.core import UserError

    out: dict[str, float] = {}
    for text in given or []:
        name, _, value = text.rpartition("=")
        if name in out:
            raise UserError(f"--guidance {name or value} is given twice. Give it once.")
        try:
            out[name] = float(value)
        except ValueError:
            raise UserError(f"--guidance takes a number, or PART=NUMBER as in caption=3. Given: {text!r}.") from None
    return out[""] if list(out) == [""] else out or None


def numbers(given: list[str] | None) -> dict[str, float] | None:
    from afresh.core import UserError
    from afresh.core.options import pairs

    if not given:
        return None
    out = {}
    for name, value in pairs(given, "--number").items():
        try:
            out[name] = float(value)
        except (TypeError, ValueError):
            raise UserError(f"--number {name}={value}: {value!r} is not a number.") from None
    return out


def streamed(
    run: Run,
    n: int | None,
    request: Request,
    seed: int,
    settings: dict[str, Any],
    between: str,
    as_json: bool,
    control: Control,
) -> Samples:
    """One text, shown while it is drawn: on standard output, or on standard error where JSON goes there."""
    from afresh.core import UserError
    from afresh.engine.sampling.stream import Stream
    from afresh.verbs.sample import Sampler

    if n not in (None, 1):
        raise UserError(
            f"--stream shows one text as it is drawn; -n {n} are drawn side by side. Leave one of them out."
        )
    stream = Stream(lambda on_text: Sampler(run, 1, request, seed, settings, on_text, control))
    if isinstance(request.prompt, str):
        show_prompt(request.prompt, between, as_json)
    show_pieces(stream, sys.stderr if as_json else sys.stdout)
    assert stream.samples is not None
    return stream.samples


def show_prompt(prompt: str, between: str, error: bool) -> None:
    """In bold, the cursor left behind it."""
    from rich.text import Text

    from afresh.core.safe_text import visible

    console(error).print(Text(led(visible(prompt), between), style="bold"), end="")


def show_pieces(pieces: Iterable[str], file: IO[str]) -> None:
    """Each as it comes; control characters as their pictures."""
    from afresh.core.safe_text import visible

    held = ""
    for piece in pieces:
        text = held + piece
        held = "\r" if text.endswith("\r") else ""  # with a line feed it is an end of line
        file.write(visible(text.removesuffix(held)))
        file.flush()
    file.write(visible(held) + "\n")
    file.flush()


def deliver(
    run: Run, samples: Samples, out: Path | None, as_json: bool, between: str, shown: bool, label_ai: bool = False
) -> None:
    """Write, print or show, unless it is `shown` already. label_ai: with the label that AI made it."""
    from afresh.core.plural import counted
    from afresh.engine.sampling.samples import replace_samples, text_records
    from afresh.runs.about import read_report

    kind, samples = run.encoder.kind, samples.labelled() if label_ai else samples
    records = replace_samples(samples, out) if out is not None else text_records(samples) if kind.inline else []
    if out is not None:
        say(f"{counted(len(records), 'sample')} in {out}")
        if kind.view == "sound" and out.is_dir():
            say(f"listen: {out / 'index.html'}")
    if as_json:
        emit({"verdict": (read_report(run.path).verdict or {}).get("word"), "samples": records})
    elif shown:
        show_tokens(records[0])
    elif kind.view == "text":
        show_texts(samples, records, between)
    elif kind.inline:
        show_samples(samples)
        show_texts(samples, records, between)
    elif show_samples(samples):
        note_labels(samples)
    elif out is None:
        drawn = counted(len(samples), kind.name, kind.plural)
        say(f"{drawn}, not shown because this is not a terminal with colours. Write files: --out DIR.")
