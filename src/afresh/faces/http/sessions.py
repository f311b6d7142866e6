"""Sessions of browsers: a secret of its own for each browser that was let in, so that no key lies in a browser.

A session is known by the hash of its secret. It ends when it is signed out of, after a month, and with the server; on
a server without keys, whose owner has no other secret than the session, the owner's go on after a restart. Tickets let
one browser in, once.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from afresh.core import UserError
from afresh.data.storage.files import write_json
from afresh.faces.http.rights import Holder

SECONDS = 30 * 86400  # after which a session ends
MOST = 50  # sessions of one name; a new one ends the oldest


@dataclass(frozen=True)
class BrowserSession:
    holder: Holder
    ends: float


class Sessions:
    """The sessions and tickets of a server."""

    def __init__(
        self, now: Callable[[], float] = time.time, kept: Path | None = None, owner: Holder | None = None
    ) -> None:
        """`now`: seconds since 1970. `kept`: the file for the sessions of the owner that go on after a restart."""
        self.now, self.kept, self.owner = now, kept, owner
        self.known: dict[str, BrowserSession] = {}  # by the hash of the secret, the oldest first
        if kept is not None and owner is not None:
            self.known = {k: BrowserSession(owner, ends) for k, ends in read_sessions(kept).items()}
        self.tickets: dict[str, Holder] = {}  # by the hash of the ticket
        self.lock = threading.Lock()

    def ticket(self, holder: Holder) -> str:
        """What begins one session of this holder."""
        made = secrets.token_urlsafe(24)
        self.tickets[hashed(made)] = holder
        return made

    def redeem(self, ticket: str) -> Holder | None:
        """Whom a ticket lets in. It is spent then; None for one that is spent or was never given."""
        return self.tickets.pop(hashed(ticket), None)

    def begin(self, holder: Holder) -> str:
        """The secret of a new session."""
        made = secrets.token_urlsafe(32)
        with self.lock:
            now = self.now()
            self.known = {k: s for k, s in self.known.items() if s.ends > now}
            own = [k for k, s in self.known.items() if s.holder.name == holder.name]
            for oldest in own[: len(own) - MOST + 1]:
                del self.known[oldest]
            self.known[hashed(made)] = BrowserSession(holder, now + SECONDS)
            self.keep()
        return made

    def keep(self) -> None:
        """Write the sessions of the owner. Where the disk is full they end with the server."""
        if self.kept is not None:
            with suppress(OSError, UserError):
                self.kept.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.kept, {k: s.ends for k, s in self.known.items() if s.holder == self.owner})
                self.kept.chmod(0o600)

    def holder(self, secret: str) -> Holder | None:
        """Whose session it is; None if it has ended or never began."""
        session = self.known.get(hashed(secret))
        return None if session is None or session.ends <= self.now() else session.holder

    def end(self, secret: str) -> None:
        with self.lock:
            self.known.pop(hashed(secret), None)
            self.keep()


def read_sessions(file: Path) -> dict[str, float]:
    """When the sessions in a file end; empty where it cannot be read."""
    try:
        return {str(k): float(v) for k, v in json.loads(file.read_bytes()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def hashed(secret: str) -> str:
    """What a secret is looked up by: how long the look-up takes says nothing of it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
