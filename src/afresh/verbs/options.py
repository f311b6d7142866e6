"""Parameters that several verbs share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from annotated_types import MaxLen, MinLen

from afresh.core.verb import Absent, Option

ASKED = "What is asked for"
Words = Annotated[str, MaxLen(2_000)]

Text = Annotated[str, MaxLen(8 * 2**20)]
StopText = Annotated[str, MinLen(1), MaxLen(1_000)]
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
        json=Words | dict[str, Words] | None,
    ),
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
Stop = Annotated[
    str | Sequence[str],
    Option(
        "End before this text ($'\\n' in a shell: a line's end); may be repeated.",
        shell=list[str],
        json=StopText | Annotated[list[StopText], MaxLen(16)] | None,
    ),
]
Force = Annotated[bool, Option("Replace what is at the place of `out` already.", json=Absent)]
Settings = Annotated[
    Mapping[str, Any] | None,
    Option(
        "Any setting of sampling, as temperature=0.8 or steps=50.",
        flags=("--set",),
        metavar="KEY=VALUE",
        complete="sample_settings",
        shell=list[str],
        parse="afresh.faces.cli.words:settings",
        json=dict[str, Any] | None,
    ),
]
