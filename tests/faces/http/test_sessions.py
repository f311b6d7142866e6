"""Sessions and tickets: what lets a browser in, and when it no longer does."""

from __future__ import annotations

from pathlib import Path

import pytest

from afresh.faces.http import sessions
from afresh.faces.http.rights import USE, Holder
from afresh.faces.http.sessions import SECONDS, Sessions

ANN, BOB = Holder("ann"), Holder("bob", USE)


def test_a_ticket_is_spent_once() -> None:
    known = Sessions()
    ticket = known.ticket(ANN)
    assert known.redeem(f"{ticket}x") is None and known.redeem("") is None
    assert known.redeem(ticket) == ANN
    assert known.redeem(ticket) is None


def test_a_session_is_its_holders_until_it_is_ended() -> None:
    known = Sessions()
    first, second, other = known.begin(ANN), known.begin(ANN), known.begin(BOB)
    assert len({first, second, other}) == 3 and known.holder("") is None and known.holder(first[:-1]) is None
    known.end(first)
    assert [known.holder(s) for s in (first, second, other)] == [None, ANN, BOB]


def test_a_session_ends_after_a_month_and_is_forgotten() -> None:
    now = [1e9]
    known = Sessions(lambda: now[0])
    old = known.begin(ANN)
    now[0] += SECONDS - 1
    assert known.holder(old) == ANN
    now[0] += 1
    assert known.holder(old) is None
    known.begin(BOB)
    assert len(known.known) == 1


def test_what_is_kept_does_not_open_anything() -> None:
    known = Sessions()
    secret, ticket = known.begin(ANN), known.ticket(ANN)
    for kept in (*known.known, *known.tickets):
        assert kept not in (secret, ticket) and known.holder(kept) is None and known.redeem(kept) is None


def test_a_name_that_signs_in_again_and_again_ends_its_own_oldest_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST", 3)
    known = Sessions()
    other = known.begin(BOB)
    begun = [known.begin(ANN) for _ in range(5)]
    assert [known.holder(s) for s in begun] == [None, None, ANN, ANN, ANN] and known.holder(other) == BOB


def test_the_owners_sessions_go_on_after_a_restart_and_no_others_do(tmp_path: Path) -> None:
    file = tmp_path / "sessions.json"
    known = Sessions(kept=file, owner=ANN)
    own, other = known.begin(ANN), known.begin(BOB)
    assert own not in file.read_text() and file.stat().st_mode & 0o77 == 0
    again = Sessions(kept=file, owner=ANN)
    assert again.holder(own) == ANN and again.holder(other) is None
    less = Sessions(kept=file, owner=BOB)  # the rights are those that this server gives
    assert less.holder(own) == BOB
    again.end(own)
    assert Sessions(kept=file, owner=ANN).holder(own) is None
    file.write_text("[1")
    assert Sessions(kept=file, owner=ANN).known == {}
    assert Sessions().holder(own) is None
