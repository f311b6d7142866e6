"""Sessions of browsers: a secret of its own for each browser that was let in, so that no key lies in a browser.

A session is known by the hash of its secret, in the memory of the server alone: it ends with the server, when it is
signed out of, and after a month. Tickets let one browser in, once.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from afresh.faces.http.rights import Holder

SECONDS = 30 * 86400  # after which a session ends
MOST = 50  # sessions of one name; a new one ends the oldest


@dataclass(frozen=True)
class BrowserSession:
    holder: Holder
    ends: float


class Sessions:
    """The sessions and tickets of a server."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """`now`: seconds since 1970."""
        self.now = now
        self.known: dict[str, BrowserSession] = {}  # by the hash of the secret, the oldest first
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
        return made

    def holder(self, secret: str) -> Holder | None:
        """Whose session it is; None if it has ended or never began."""
        session = self.known.get(hashed(secret))
        return None if session is None or session.ends <= self.now() else session.holder

    def end(self, secret: str) -> None:
        with self.lock:
            self.known.pop(hashed(secret), None)


def hashed(secret: str) -> str:
    """What a secret is looked up by: how long the look-up takes says nothing of it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
