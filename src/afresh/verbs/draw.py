"""The verbs that draw: `sample`, `edit` and `blend`, whose results are samples, and `compare` and `chat`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen

from afresh.core.verb import Absent, Argument, EncodedImage, EncodedItem, Option, RunWeights, Setting, verb
from afresh.verbs.options import (
    ASKED,
    TOKENS,
    Caption,
    ChatSettings,
    DrawnSeed,
    GuidedSettings,
    Label,
    Labels,
    Named,
    NegativeCaption,
    NegativeLabel,
    Number,
    SampleSettings,
    Seed,
    ServedSettings,
    Stop,
    Words,
)

if TYPE_CHECKING:
    from afresh.engine.sampling.samples import Samples
    from afresh.runs.run import Run
    from afresh.verbs.annotate import Session
    from afresh.verbs.chat import Chat

SAMPLES = "{verdict, samples}"
ITEMS = "A run on images or sounds, or a VAE, flow or GAN of molecules or texts."
PARSED = "afresh.faces.cli.words:"
# What options have in common, beside their help.
CLASS: dict[str, Any] = {"metavar": "CLASS", "complete": "classes", "json": Words | None}
CLASSES: dict[str, Any] = {**CLASS, "shell": list[str], "parse": f"{PARSED}labels", "json": Named}
FILE: dict[str, Any] = {"metavar": "FILE", "shell": Path}
IMAGE: dict[str, Any] = {**FILE, "panel": "What is wished for", "json": EncodedImage | None}
STRUCTURE: dict[str, Any] = {**FILE, "panel": "What each text must match (one of these)", "parse": f"{PARSED}file_text"}
REWARD: dict[str, Any] = {"panel": "What is wanted (without training)", "shell": str, "json": Words | None}


def cannot_blend(run: Run) -> str | None:
    """Why the server blends nothing with a run, or None."""
    from afresh.core import UserError
    from afresh.verbs.interpolate import latents_of

    if run.encoder.space.kind != "field":
        return f"{run.path} makes {run.encoder.kind.plural}, which are blended at the command line and in Python alone."
    try:
        latents_of(run)
    except UserError as error:
        return str(error)
    return None


VOTES = "Votes"
MATCH, CONTROL, MAY, WISHES = STRUCTURE["panel"], REWARD["panel"], "What may change", IMAGE["panel"]
MOST, MOST_CANDIDATES, MOST_CHARACTERS = (
    128,
    256,
    4_000_000,
)  # samples, candidates and characters of prompts of a request
Text = Annotated[str, MaxLen(1_000_000)]
Texts = Text | Annotated[list[Text], MaxLen(MOST)] | None
Seconds = Annotated[float, Gt(0), Le(600)] | None
Sides = dict[Literal["left", "right", "top", "bottom"], Annotated[int, Ge(1), Le(4_096)]] | None


def check_samples(form: Any) -> None:
    """Raises UserError for more candidates or text than the server takes, and for rewards that are more than words."""
    from afresh.core import UserError

    for name, text in (("prompt", form.prompt), ("infill", form.infill)):
        count = form.n * len(text) if isinstance(text, str) else sum(map(len, text or ()))
        if count > MOST_CHARACTERS:
            message = f"The {name}s of all samples have {count:,} characters, and at most {MOST_CHARACTERS:,} are read."
            raise UserError(f"{message} Ask for fewer, or shorten them.", "too_many", param=name)
    if form.n * form.best_of > MOST_CANDIDATES:
        message = f"At most {MOST_CANDIDATES} candidates are drawn for a request: n times best_of. Ask for fewer."
        raise UserError(message, "too_many", param="best_of")
    for words in (form.reward, form.reward_guidance):
        if words is not None:
            # Only then: rewards import scikit-learn, without which the server starts a second earlier.
            from afresh.engine.alignment.rewards.reward_paths import check_words

            check_words(words)


def check_edits(form: Any) -> None:
    """Raises UserError for more edits than the server takes."""
    from afresh.core import UserError

    if len(form.inputs) * form.each > MOST:
        message = f"At most {MOST} edits at once: inputs times each. Ask for fewer."
        raise UserError(message, "too_many", param="each")


@verb(
    "sample",
    result=SAMPLES,
    summary="Samples, with all that can be asked of them",
    served=False,
    draws="samples",
    check=check_samples,
    alone=lambda form: form.reward is not None or form.reward_guidance is not None or bool(form.adapters),
)
def sample(
    run: Run,
    n: Annotated[
        int | None,
        Option(
            "How many; 16 images or sounds, or 4 texts, by default.",
            flags=("-n",),
            json=Annotated[int, Ge(1), Le(MOST)],
            json_default=1,
            python="In Python 16 of everything.",
        ),
    ] = None,
    *,
    prompt: Annotated[
        str | Sequence[str] | None,
        Option(
            "Beginning of a text, what to answer, part of a molecule, or a caption; - reads standard input.",
            ASKED,
            shell=str,
            parse=f"{PARSED}prompt",
            json=Texts,
            python="One for all samples, or one each.",
        ),
    ] = None,
    infill: Annotated[
        str | Sequence[str] | None,
        Option("Text with holes to fill, [[N]] for N tokens (masked).", ASKED, shell=str, json=Texts),
    ] = None,
    raw: Annotated[bool, Option("Continue `prompt` instead of answering it (chat models).", ASKED)] = False,
    label: Label = None,
    number: Number = None,
    caption: Caption = None,
    image: Annotated[
        Any,
        Option(
            "An image to start from, or a sound whose curve to follow; NAME=FILE if there are several.",
            ASKED,
            metavar="FILE",
            shell=list[str],
            parse=f"{PARSED}images",
            json=EncodedItem | dict[str, EncodedItem] | None,
        ),
    ] = None,
    negative_label: Annotated[
        Labels | None, Option("A class that guidance steers away from.", ASKED, **CLASSES)
    ] = None,
    negative_caption: Annotated[
        str | None,
        Option("What guidance steers away from.", ASKED, flags=("--negative-caption", "--negative"), json=Words | None),
    ] = None,
    stop: Stop = (),
    logprobs: Annotated[bool, Option("How likely each token was, in nats.", TOKENS)] = False,
    json_schema: Annotated[
        Mapping[str, Any] | bool | str | None,
        Option("JSON that is valid under the schema in FILE.", **STRUCTURE, json=dict[str, Any] | bool | None),
    ] = None,
    regex: Annotated[
        str | None, Option("A regular expression, as a whole.", MATCH, json=Annotated[str, MaxLen(10_000)] | None)
    ] = None,
    grammar: Annotated[
        str | None, Option("A grammar: Lark or GBNF.", **STRUCTURE, json=Annotated[str, MaxLen(100_000)] | None)
    ] = None,
    best_of: Annotated[
        int,
        Option(
            "Keep the best of so many candidates for each, by `reward`.", CONTROL, json=Annotated[int, Ge(1), Le(MOST)]
        ),
    ] = 1,
    reward: Annotated[
        Any,
        Option("What is best: length:min=50, brightness, FILE.py:function, '!program', or a sum of them.", **REWARD),
    ] = None,
    reward_guidance: Annotated[
        Any,
        Option(
            "A reward whose gradient guides images and sounds: brightness, class:LABEL, ...", **REWARD, metavar="REWARD"
        ),
    ] = None,
    weight: Annotated[
        float | None,
        Option(
            "How hard `reward_guidance` pulls: 0 not at all, 1 if not given.",
            CONTROL,
            json=Annotated[float, Ge(0)] | None,
        ),
    ] = None,
    adapters: Annotated[
        Mapping[str, float] | None,
        Option(
            "A run tuned from this one with `lora`, or a LoRA; may be repeated.",
            CONTROL,
            flags=("--adapter",),
            metavar="PATH[=WEIGHT]",
            shell=list[str],
            parse=f"{PARSED}adapters",
            json=RunWeights,
            python="Each path with its weight.",
        ),
    ] = None,
    valid: Annotated[
        bool, Option("Draw again what is not valid (molecules, code, music).", CONTROL, json=Absent)
    ] = False,
    strength: Annotated[
        float | None, Option("Share of `prompt`, a molecule, that is drawn again (0 to 1).", ASKED, json=Absent)
    ] = None,
    on_text: Annotated[
        Callable[..., None] | None,
        Option(
            "Show one text as it is drawn.",
            TOKENS,
            flags=("--stream",),
            shell=bool,
            json=Absent,
            python="A function of (index, piece, row) that gets each piece of the texts.",
        ),
    ] = None,
    seed: DrawnSeed = 0,
    **settings: SampleSettings,
) -> Samples:
    """Draw samples from a run: images, sounds or texts, as many as you like, of what you ask for.

    Without `out`, images and sounds are shown in the terminal and texts are printed. With it, images are written as
    PNG and sounds as WAV, or FLAC where the data was read with format=flac, with samples.json and of sounds a page to
    play them; texts as samples.jsonl. What is not asked for is drawn as it occurs in the training data.

    Raises UserError for a label never seen, a setting that the family lacks, or n outside 1 to 1,000,000.
    """
    from afresh.engine.sampling.request import Request, unwanted
    from afresh.verbs.sample import Control, Sampler

    negative = unwanted(negative_label, negative_caption)
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    request = Request(prompt, label, number or {}, caption, raw, infill, stops, logprobs, image, negative, (), strength)
    control = Control(best_of, reward, reward_guidance, weight, adapters or {}, valid)
    if not (json_schema is regex is grammar is None):
        from afresh.engine.sampling.constrained import structure

        settings["constraint"] = structure(
            run.family, run.encoder, json_schema=json_schema, regex=regex, grammar=grammar
        )
    return Sampler(run, 16 if n is None else n, request, seed, settings, on_text, control)()


def cannot_edit(run: Run) -> str | None:
    """Why the server edits nothing with a run, or None."""
    able = run.family.edit is not None and run.encoder.space.kind == "field"
    return None if able else f"{run.path} changes no images and no sounds."


@verb(
    "edit",
    able=cannot_edit,
    result=SAMPLES,
    summary="Changed images and sounds",
    run_help=ITEMS,
    served=False,
    draws="edits",
    check=check_edits,
)
def edit(
    run: Run,
    inputs: Annotated[
        Sequence[Any],
        Argument(
            "Images or sounds to change, or molecules or texts themselves.",
            metavar="FILE ...",
            shell=list[Path],
            json=Annotated[list[EncodedItem], MinLen(1), MaxLen(16)],
            python="Files, arrays (H, W, C) of uint8, or Sounds.",
        ),
    ],
    *,
    each: Annotated[int, Option("Variations of each input.", flags=("-n",), json=Annotated[int, Ge(1), Le(MOST)])] = 1,
    strength: Annotated[
        float | None,
        Option(
            "How much may change, 0 to 1; 1 inside a mask, else 0.6 if not given.",
            MAY,
            json=Annotated[float, Ge(0), Le(1)] | None,
        ),
    ] = None,
    mask: Annotated[
        Any, replace(Option("An image, white where it may change; the rest stays.", **IMAGE), panel=MAY)
    ] = None,
    hole: Annotated[
        str | None,
        Option(
            "Seconds of a sound that may change: 0.2:0.5.",
            MAY,
            metavar="START:END",
            json=Annotated[str, MaxLen(64)] | None,
        ),
    ] = None,
    extend: Annotated[float | None, Option("Continue a sound for this many seconds.", MAY, json=Seconds)] = None,
    loop: Annotated[
        float | None,
        Option("Make a sound loop, with this many new seconds from its end to its beginning.", MAY, json=Seconds),
    ] = None,
    outpaint: Annotated[
        Mapping[str, int] | None,
        Option(
            "Continue beyond the edges: right=16,top=8 (pixels).",
            MAY,
            metavar="SIDES",
            shell=str,
            parse=f"{PARSED}outpaint",
            json=Sides,
        ),
    ] = None,
    upscale: Annotated[
        int, Option("The images are smaller by this factor: enlarge them.", MAY, json=Annotated[int, Ge(1), Le(64)])
    ] = 1,
    palette: Annotated[
        Sequence[str],
        Option(
            "Only these colours: '#102030,#ffeedd'.",
            WISHES,
            shell=str,
            parse=f"{PARSED}colours",
            json=Annotated[list[Words], MaxLen(64)],
        ),
    ] = (),
    edges: Annotated[Any, Setting("The edges of this image.", **IMAGE)] = None,
    style: Annotated[Any, Setting("The texture and colours of this image.", **IMAGE)] = None,
    function: Annotated[
        str | None,
        Setting("A function of x (B, C, H, W) in [-1, 1], to become small.", metavar="FILE.py:FUNCTION", json=Absent),
    ] = None,
    weight: Annotated[
        float, Option("Weight of the wishes; more = closer.", WISHES, json=Annotated[float, Gt(0)])
    ] = 1.0,
    label: Label = None,
    number: Number = None,
    caption: Caption = None,
    negative_label: NegativeLabel = None,
    negative_caption: NegativeCaption = None,
    seed: DrawnSeed = 0,
    settings: GuidedSettings = None,
) -> Samples:
    """Change existing images and sounds: fill a hole, vary them, continue them beyond their edges or their end, make
    them loop; enlarge images, give them a palette.

    Several wishes go together. What is not asked for (a label, a caption) is left open. Molecules and short texts are
    varied by `strength`, where the model has latents of them.

    Raises UserError if the model cannot do it.
    """
    from afresh.core import UserError
    from afresh.engine.sampling.request import Request, unwanted
    from afresh.verbs.edit import Change, Editor, changed

    if each < 1:
        raise UserError(f"`each` is the number of variations, from 1. Given: {each}.")
    request = Request(None, label, number or {}, caption, negative=unwanted(negative_label, negative_caption))
    change = Change(strength, mask, upscale, tuple(palette), edges, style, function, weight, hole)
    return changed(Editor(run, request, settings or {}, seed), inputs, change, each, extend, loop, outpaint)


@verb(
    "blend",
    able=cannot_blend,
    result=SAMPLES,
    summary="What lies between images or sounds",
    run_help=ITEMS,
    served=False,
    draws="interpolations",
)
def blend(
    run: Run,
    first: Annotated[
        Any,
        Argument("An image or a sound, or a molecule or text itself.", metavar="FILE", shell=Path, json=EncodedItem),
    ],
    second: Annotated[
        Any, Argument("Another one, to go to.", metavar="[OTHER]", shell=Path, json=EncodedItem | None)
    ] = None,
    n: Annotated[
        int, Option("How many on the way, both ends among them.", flags=("-n",), json=Annotated[int, Ge(1), Le(64)])
    ] = 9,
    *,
    label: Label = None,
    to_label: Annotated[Labels | None, Option("What the other one is; else the same.", **CLASSES)] = None,
    number: Annotated[dict[str, float] | None, Option("Numbers by name.", shell=Absent)] = None,
    caption: Caption = None,
    to_caption: Annotated[str | None, Setting("What the other one shows; else the same.", json=Words | None)] = None,
    negative_label: NegativeLabel = None,
    negative_caption: NegativeCaption = None,
    toward: Annotated[str | None, Option("Instead of another one: more of this label, by n amounts.", **CLASS)] = None,
    away: Annotated[
        str | None, Option("With `toward`: less of this label; of all others if not given.", **CLASS)
    ] = None,
    most: Annotated[
        float | None,
        Setting("With `toward`: the largest amount, 1.5 if not given; 1 = as far as the labels' means are apart."),
    ] = None,
    settings: ServedSettings = None,
) -> Samples:
    """Go from one image, sound, molecule or short text to another, or towards an attribute, through the model's
    latents.

    The ends are what the model makes of the two: a flow gives them back nearly as they are, a VAE smoother.

    Raises UserError if the family has no latents, and for options of the other of the two ways.
    """
    from afresh.engine.sampling.request import Request, check_negative, unwanted
    from afresh.verbs import interpolate

    asked = {"label": label, "to_label": to_label, "caption": caption, "to_caption": to_caption}
    interpolate.check_given(second, toward, asked, {"away": away, "most": most})
    begin = Request(None, label, number or {}, caption, negative=unwanted(negative_label, negative_caption))
    check_negative(begin, run.settings(settings or {}))
    end = Request(None, to_label or label, number or {}, to_caption or caption)
    blender = interpolate.Blender(run, settings)
    if toward is None:
        return blender.between(first, second, n, begin, end)
    return blender.towards(first, n, toward, away, most)


@verb("compare", result="{votes, ties, ...}", served=False)
def compare(
    run: Run,
    other: Annotated[
        Any,
        Argument(
            "A second run: each pair has a sample of each.",
            metavar="RUN2",
            complete="runs",
            shell=Path,
            parse=f"{PARSED}opened",
            json=Absent,
            python="A model.",
        ),
    ] = None,
    n: Annotated[int, Option("Pairs to judge.", flags=("-n",))] = 20,
    *,
    prompt: Annotated[
        str | Sequence[str],
        Option("Beginning of a text, or what to answer; several take turns.", ASKED, shell=list[str]),
    ] = (),
    raw: Annotated[bool, Option("Continue `prompt` instead of answering it (chat models).", ASKED)] = False,
    label: Label = None,
    caption: Caption = None,
    samples: Annotated[int | None, Setting("Samples of one run for each request; fewer = each is judged more.")] = None,
    active: Annotated[bool | None, Setting("Ask the most telling pairs; from the 11th vote on if not given.")] = None,
    question: Annotated[str | None, Setting('What is asked about each pair; "Which is better?" if not given.')] = None,
    rater: Annotated[str | None, Setting("Who votes.", metavar="NAME")] = None,
    seed: Annotated[int, Option("The same seed gives the same samples and sides.", "Which pairs")] = 0,
    out: Annotated[
        str | Path | None, Option("File of votes; RUN-votes.jsonl if not given.", VOTES, shell=Path, json=Absent)
    ] = None,
    settings: GuidedSettings = None,
) -> Session:
    """Choose between two samples, pair after pair: which texts, images or sounds of a run are liked, or which run.

    You judge texts in the terminal; without one, standard input gives one answer per line. Images and
    sounds are judged on a page of the studio alone, which is served to one browser of this machine. Each vote is on the
    disk before the next pair is shown. The same command goes on where it stopped.

    Raises UserError if the two make different kinds of items, and as `sample`.
    """
    from afresh.verbs.annotate import PairRequest, Session, default_votes, make_plan

    runs, votes = [run] if other is None else [run, other], default_votes(run) if out is None else Path(out)
    wish = PairRequest((prompt,) if isinstance(prompt, str) else tuple(prompt), label, caption, raw)
    plan = make_plan(runs, wish, n, samples=samples, seed=seed, settings=settings, votes=votes)
    return Session(plan, votes, rater, active, question)


def cannot_talk(run: Run) -> str | None:
    """Why a run holds no conversations, or None."""
    from afresh.engine.sampling.request import converses

    return None if converses(run.encoder, run.space) else f"{run.path} was not trained on conversations."


@verb("chat", able=cannot_talk, result="{messages}", served=False)
def chat(
    run: Run,
    system: Annotated[str, Option("The system prompt: text before the conversation.", metavar="TEXT")] = "",
    *,
    seed: Seed = 0,
    **settings: ChatSettings,
) -> Chat:
    """Talk to a model that was trained or tuned on conversations; each answer is shown as it is written.

    On a terminal, Ctrl-C ends an answer, and Ctrl-D the conversation. In a pipe, each line is a message.

    Raises UserError if the model was not trained on conversations.
    """
    from afresh.verbs.chat import Chat

    return Chat(run, system, seed, settings)
