"""What a person can ask of a run: the fields of the page on which one creates, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from annotated_types import Ge, Gt, Le

from afresh.core import registry
from afresh.engine.sampling.request import contains_prompts, converses, of_kind, writes_text
from afresh.engine.sampling.setting_words import WORDS
from afresh.runs.run import Run
from afresh.verbs.chat import takes_system
from afresh.verbs.creation_request import Form, form_of

CHIPS = 60  # classes that are shown as chips; more are searched


@dataclass(frozen=True)
class LabelChoice:
    """A label, with the classes that occurred in training."""

    name: str
    title: str
    classes: tuple[str, ...]

    @property
    def many(self) -> bool:
        return len(self.classes) > CHIPS


@dataclass(frozen=True)
class Slider:
    """A number within a range. `value` is where it begins; None: left to the model unless it is moved."""

    name: str
    title: str
    low: float
    high: float
    step: float
    value: float | None
    help: str = ""


@dataclass(frozen=True)
class Way:
    """Something that can be done with what exists already. `verb`: its name in the address of the page. `begins`:
    whether works begin with what exists, as they do for what a run has written itself."""

    verb: str
    title: str
    begins: bool = False


@dataclass(frozen=True)
class Controls:
    """What is asked of a run. `writes`: it writes texts; `builds`: on a part that is asked for; `talks`: it answers;
    `system`: it can be told something before the conversation; `ways`: what it does with pictures, sounds and tunes
    that exist; `factors`: by which it enlarges pictures; `voices` of its scores; `seconds` of its longest sound;
    `shape`: height and width of an image."""

    form: Form
    writes: bool
    builds: bool
    talks: bool
    system: bool
    labels: tuple[LabelChoice, ...]
    numbers: tuple[Slider, ...]
    caption: bool
    settings: tuple[Slider, ...]
    more: tuple[Slider, ...]
    ways: tuple[Way, ...]
    blends: bool
    factors: tuple[int, ...]
    voices: int
    seconds: float
    shape: tuple[int, int]


@dataclass(frozen=True)
class SettingControl:
    """How a setting of sampling is shown: its range, its step, and whether at once or only under more. Its words are
    those of afresh.engine.sampling.setting_words."""

    low: float
    high: float
    step: float
    first: bool = False


# Settings by their names in the families; those that are missing here are for programs.
SETTINGS: Mapping[str, SettingControl] = {
    "guidance": SettingControl(1, 8, 0.25, True),
    "temperature": SettingControl(0, 1.5, 0.05, True),
    "truncation": SettingControl(0, 1, 0.05, True),
    "length": SettingControl(16, 1024, 16, True),
    "steps": SettingControl(1, 100, 1),
    "top_p": SettingControl(0.05, 1, 0.05),
    "min_p": SettingControl(0, 0.5, 0.01),
    "frequency_penalty": SettingControl(0, 2, 0.1),
}


def controls_of(run: Run) -> Controls:
    """Raises UserError if the run cannot be read."""
    space, encoder = run.encoder.space, run.encoder
    writes = writes_text(encoder, run.space)
    form = form_of(run)
    settings = sliders(run)
    talks, blends = converses(encoder, run.space), space.kind == "field" and run.family.latents is not None
    shape = (space.shape[1], space.shape[2]) if space.pixels else (0, 0)
    return Controls(
        form=form,
        writes=writes and form in ("text", "code"),
        builds=contains_prompts(encoder),
        talks=talks,
        system=talks and takes_system(run),
        labels=tuple(LabelChoice(k, titled(k), run.conds[k].classes) for k in of_kind(run.conds, "label")),
        numbers=tuple(number(run, k) for k in of_kind(run.conds, "number")),
        caption=bool(of_kind(run.conds, "prompt", "vector")),
        settings=tuple(s for s in settings if SETTINGS[s.name].first),
        more=tuple(s for s in settings if not SETTINGS[s.name].first),
        ways=ways_of(run, form, blends),
        blends=blends,
        factors=tuple(f for f in range(2, min(shape) // 2 + 1) if shape[0] % f == 0 == shape[1] % f),
        voices=max((c.voices(run) for c in registry.creations().values() if c.voices and c.able(run)), default=0),
        seconds=space.longest,
        shape=shape,
    )


def ways_of(run: Run, form: Form, blends: bool) -> tuple[Way, ...]:
    """What a run does with pictures, sounds and tunes that exist."""
    ways = [
        Way(name, creation.title, creation.begins)
        for name, creation in registry.creations().items()
        if creation.able(run)
    ]
    if ways:
        return tuple(ways)
    if run.encoder.space.kind == "field" and run.family.edit is not None:
        if form == "sound":
            ways += [Way("edit", "Change"), Way("extend", "Lengthen"), Way("loop", "Loop")]
        else:
            ways += [Way("edit", "Paint or vary"), Way("outpaint", "Beyond the edges"), Way("enlarge", "Enlarge")]
    if blends and of_kind(run.conds, "label"):
        ways.append(Way("move", "Towards a label"))
    return tuple(ways)


def sliders(run: Run) -> list[Slider]:
    """The settings of the family that people change."""
    fields = run.family.sampling.settings.model_fields  # type: ignore[attr-defined]
    guidable = run.guided and run.family.sampling.guided
    out = []
    for name, known in SETTINGS.items():
        if name not in fields or (name == "guidance" and not guidable):
            continue
        if name == "length" and not writes_text(run.encoder, run.space):
            continue
        low, high = limits(fields[name], known)
        value = float(fields[name].default)
        if name == "length":
            high = max(low + known.step, min(high, 4 * run.space.shape[0]))
            value = min(value, high)
        words = WORDS[name]
        out.append(Slider(name, words.term, low, max(high, value), known.step, max(low, value), words.help))
    return out


def limits(field: Any, known: SettingControl) -> tuple[float, float]:
    """The range of a setting: what is shown, as far as the family accepts it."""
    low, high = known.low, known.high
    for limit in field.metadata:
        if isinstance(limit, Ge):
            low = max(low, float(str(limit.ge)))
        elif isinstance(limit, Gt):
            low = max(low, float(str(limit.gt)) + known.step)
        elif isinstance(limit, Le):
            high = min(high, float(str(limit.le)))
    return low, high


def number(run: Run, name: str) -> Slider:
    """A number, with the range that it had in the training data."""
    part, conditions = run.conds[name], run.conditions
    seen = conditions.parts[name][conditions.present[name]].double() * part.std + part.mean
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (part.mean - part.std, part.mean + part.std)
    whole = bool(len(seen)) and bool((seen - seen.round()).abs().max() < 1e-4)
    if whole:
        low, high = round(low), round(high)
    step = 1.0 if whole else float(f"{max((high - low) / 100, 1e-6):.1g}")
    return Slider(name, titled(name), low, max(high, low + step), step, None)


def titled(name: str) -> str:
    """The name of a condition for people: `main_colour` is Main colour."""
    words = name.replace("_", " ").replace("-", " ").strip()
    return words[:1].upper() + words[1:] or name
