"""What a caller may do. Rights come from a secret that a request shows, a key or a session, never from an address.

Every router declares the right that its routes need, among its dependencies: `APIRouter(dependencies=[needs(USE)])`. A
route inside that needs more declares that too.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from fastapi import Depends, Request

from afresh.faces.http.errors import RefusedRequest


class Right(IntEnum):
    """Each includes those before it."""

    NOTHING = 0  # ask whether the server answers, and sign in
    USE = 1  # draw samples, chat, edit, vote, and keep works in a gallery
    TRAIN = 2  # send data, train, learn from votes, go on with runs, export them
    OWN = 3  # remove runs, see the trainings and adapters of others
    LOCAL = 4  # name folders of the machine of the server


NOTHING, USE, TRAIN, OWN, LOCAL = Right
ROLES = {"use": USE, "train": TRAIN, "own": OWN}  # of a key
DEEDS = {
    USE: "use the models",
    TRAIN: "send data, train and export",
    OWN: "remove models and see what is of others",
    LOCAL: "name folders of the machine of the server",
}


@dataclass(frozen=True)
class Holder:
    """Who shows a secret, and what it lets them do. The name is empty for the server's owner, and on a server
    without keys for everybody."""

    name: str = ""
    right: Right = TRAIN

    def sees(self, owner: str) -> bool:
        """Whether what this owner began is shown."""
        return self.right >= OWN or self.name == owner


NOBODY = Holder("", NOTHING)


def holder_of(request: Request) -> Holder:
    """Who asks."""
    holder: Holder = getattr(request.state, "holder", NOBODY)
    return holder


def owner_of(request: Request) -> str:
    """The name of who asks; empty on a server without keys."""
    return holder_of(request).name


def check(request: Request, right: Right) -> None:
    """Raises Refused if the caller does not have the right."""
    if holder_of(request).right >= right:
        return
    if right == LOCAL:
        how = (
            "`afresh open` gives it to the browser that it opens; `afresh serve --set local_files=yes` to keys "
            "of the role `own`. Without it, send the files themselves."
        )
    else:
        role = next(name for name, given in ROLES.items() if given == right)
        how = (
            f"A key of the role `{role}` has it: a line `NAME KEY {role}` in the file that `afresh serve --key-file` "
            "reads. Without keys, the browser has it in which the address was opened that the terminal showed."
        )
    raise RefusedRequest(
        403, f"This needs the right to {DEEDS[right]}, which you do not have here. {how}", "not_permitted"
    )


def checking(right: Right) -> Callable[[Request], Coroutine[Any, Any, None]]:
    async def checked(request: Request) -> None:
        check(request, right)

    return checked


CHECKS = {right: checking(right) for right in Right}


def needs(right: Right) -> Any:
    """A dependency of a router or a route: the caller must have this right."""
    return Depends(CHECKS[right])
