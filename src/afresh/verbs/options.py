"""Parameters that several verbs share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt, MaxLen, MinLen

from afresh.core.verb import Absent, Option
from afresh.engine.sampling.setting_words import WORDS

ASKED, TOKENS, FIELDS = "What is asked for", "Transformers", "Flows, VAEs, GANs"
Words = Annotated[str, MaxLen(2_000)]
Named = Words | dict[str, Words] | None  # labels in JSON

Text = Annotated[str, MaxLen(8 * 2**20)]
StopText = Annotated[str, MinLen(1), MaxLen(1_000)]
TableFormat = Literal["csv", "parquet"]
Labels = str | Mapping[str, str]  # a class, or classes by the label's name

Label = Annotated[
    Labels | None,
    Option(
        "A class; NAME=CLASS if there are several labels.",
        panel=ASKED,
        metavar="CLASS",
        complete="classes",
        shell=list[str],
        parse="afresh.faces.cli.words:labels",
        json=Named,
    ),
]
NegativeLabel = Annotated[
    Labels | None,
    Option("A class that guidance steers away from.", ASKED, shell=Absent, json=Named),
]
NegativeCaption = Annotated[
    str | None, Option("What guidance steers away from.", ASKED, shell=Absent, json=Words | None)
]
Number = Annotated[
    Mapping[str, float] | None,
    Option(
        "A number by its name.",
        panel=ASKED,
        metavar="NAME=X",
        shell=list[str],
        parse="afresh.faces.cli.words:numbers",
        json=dict[str, float] | None,
    ),
]
Caption = Annotated[str | None, Option("What is to be seen or heard, in words.", panel=ASKED, json=Words | None)]
Seed = Annotated[int, Option("Seed of all random numbers: the same seed gives the same result.")]
DrawnSeed = Annotated[
    int,
    Option(
        "Seed of all random numbers: the same seed gives the same result.",
        json=Annotated[int, Ge(-(2**63)), Lt(2**63)] | None,
        json_default=None,
    ),
]
Stop = Annotated[
    str | Sequence[str],
    Option(
        "End before this text ($'\\n' in a shell: a line's end); may be repeated.",
        metavar="TEXT",
        shell=list[str],
        json=StopText | Annotated[list[StopText], MaxLen(16)] | None,
    ),
]
Licence = Annotated[str | None, Option("Of the model, as Apache-2.0; checked against those of its data.")]
Accept = Annotated[
    Sequence[str],
    Option(
        "Share the model although the licences of some of its data are unknown (unknown-licences), no consent is known "
        "of persons whom its data shows (missing-consent), or licences do not agree (licence-conflict).",
        metavar="NAME",
    ),
]
Force = Annotated[bool, Option("Replace what is at the place of `out` already.", json=Absent)]
SETTINGS = Option(
    "Any setting of sampling, as temperature=0.8 or steps=50.",
    flags=("--set",),
    metavar="KEY=VALUE",
    complete="sample_settings",
    shell=list[str],
    parse="afresh.faces.cli.words:settings",
    json=dict[str, Any] | None,
)
Settings = Annotated[Mapping[str, Any] | None, SETTINGS]
Guidance = Annotated[
    list[str] | None,
    Option(
        f"{WORDS['guidance'].help} PART=X for one part: caption=3.",
        ASKED,
        metavar="X",
        parse="afresh.faces.cli.words:guidances",
        json=float | None,
    ),
]
ServedGuidance = Annotated[float | None, Option(WORDS["guidance"].help, shell=Absent, json=float | None)]
ServedSettings = Annotated[Mapping[str, Any] | None, replace(SETTINGS, also={"guidance": ServedGuidance})]
GuidedSettings = Annotated[Mapping[str, Any] | None, replace(SETTINGS, also={"guidance": Guidance})]


def setting(kind: Any, help: str, panel: str = TOKENS) -> Any:
    """A setting that has an option of its own on the command line."""
    return Annotated[kind | None, Option(help, panel, json=Absent)]


OWN_OPTIONS = {
    "guidance": Guidance,
    "temperature": setting(float, WORDS["temperature"].help),
    "length": setting(int, WORDS["length"].help),
    "steps": setting(int, "Steps of the solver (flow); looks at a window, 0 = one a token (masked).", FIELDS),
}
SampleSettings = Annotated[Any, replace(SETTINGS, also=OWN_OPTIONS)]
ChatSettings = Annotated[Any, replace(SETTINGS, also={k: OWN_OPTIONS[k] for k in ("temperature", "length")})]
