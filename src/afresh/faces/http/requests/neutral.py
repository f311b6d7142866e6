"""Parameters of other servers that are accepted at the value that changes nothing, and refused at another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from afresh.faces.http.errors import RefusedRequest


@dataclass(frozen=True)
class Neutral:
    """Values that change nothing, and what to do instead of another one."""

    values: tuple[Any, ...]
    instead: str = "Leave it out."


NO_REPEAT = Neutral((1,), "Use frequency_penalty or presence_penalty.")
# What samplers of several servers have, and those of this package do not.
SAMPLERS = {
    "typical_p": Neutral((1,), "Use top_p or min_p."),
    "mirostat": Neutral((0,), "Use top_p or min_p."),
    "repeat_penalty": NO_REPEAT,
}


def check_neutral(form: BaseModel, neutral: Mapping[str, Neutral], where: str = "") -> None:
    """Raises Refused for a parameter that has another value. `where`: what stands before its name."""
    for name, accepted in neutral.items():
        value = getattr(form, name)
        if value is not None and value not in accepted.values:
            only = ", ".join(map(repr, accepted.values))
            raise RefusedRequest(
                400,
                f"{where}{name} is not supported here, other than {only}. {accepted.instead} Given: {value!r}.",
                "unsupported_parameter",
                f"{where}{name}",
            )


def check_window(last: int | None, penalised: bool, where: str = "") -> None:
    """Raises Refused for a number of last tokens that penalties look at, which are all of the text here."""
    if penalised and last not in (None, -1):
        raise RefusedRequest(
            400,
            "Penalties count every token of the text that is written. Leave repeat_last_n out.",
            "unsupported_parameter",
            f"{where}repeat_last_n",
        )
