"""The keys of a server, and the door at which a secret is shown."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from afresh.core import UserError
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.rights import LOCAL, OWN, ROLES, TRAIN, USE, Holder
from afresh.faces.http.sessions import Sessions
from afresh.faces.http.tries import Tries

SHORTEST = 16  # characters of a key


@dataclass(frozen=True)
class Keys:
    """Who has which key. `everybody`: the holder of no key, if the server is open."""

    holders: Mapping[str, Holder] = field(default_factory=dict)
    everybody: Holder | None = None

    def holder(self, key: str) -> Holder | None:
        """Who has this key. Each comparison takes the same time."""
        given, found = key.encode("utf-8", "surrogateescape"), None
        for known, holder in self.holders.items():
            if hmac.compare_digest(known.encode(), given):
                found = holder
        return found


NO_KEYS = Keys(everybody=Holder("", USE))  # everybody who reaches the port may use the models


def read_keys(file: Path, local_files: bool = False) -> Keys:
    """The keys in a file, one a line: `NAME KEY ROLE`, `NAME KEY` or the key alone. The role is one of ROLES; a line
    without one has the role `train`. `local_files`: keys of the role `own` may also name folders of this machine.

    Raises UserError for a file without a key and for a line that is none of these.
    """
    try:
        lines = [line.split() for line in file.read_text(encoding="utf-8").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The keys in {file} cannot be read: {error}.") from None
    holders: dict[str, Holder] = {}
    for number, words in enumerate(lines, 1):
        if not words or words[0].startswith("#"):
            continue
        name, key, *role = words if len(words) > 1 else (f"key {len(holders) + 1}", words[0])
        if len(role) > 1 or len(key) < SHORTEST:
            raise UserError(
                f"Line {number} of {file} is not `NAME KEY ROLE` with a key of at least {SHORTEST} characters. The "
                f"role may be left out; it is one of {', '.join(ROLES)}."
            )
        if role and role[0] not in ROLES:
            raise UserError(f"Line {number} of {file}: there is no role {role[0]!r}. Known: {', '.join(ROLES)}.")
        if key in holders:
            raise UserError(f"Line {number} of {file} has the key of an earlier line. Give each person another one.")
        right = ROLES[role[0]] if role else TRAIN
        holders[key] = Holder(name, LOCAL if right == OWN and local_files else right)
    if not holders:
        raise UserError(f"No key in {file}. Write one a line: `NAME KEY ROLE`.")
    return Keys(holders)


@dataclass(frozen=True)
class Door:
    """Where secrets are looked at."""

    keys: Keys
    sessions: Sessions
    tries: Tries = field(default_factory=Tries)

    async def enter(self, key: str, address: str) -> Holder:
        """Who has this key, which came from an address. Raises Refused."""
        await self.tries.wait(address, key)
        holder = self.keys.holder(key)
        self.tries.note(address, key, holder is not None)
        if holder is None:
            raise RefusedRequest(401, "The key is wrong.", "invalid_api_key")
        return holder
