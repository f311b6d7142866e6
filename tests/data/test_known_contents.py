"""Copies are found by 64 bits of digests, as many as there is room for."""

from __future__ import annotations

import hashlib

from afresh.data.token_parts import KnownContents, fingerprints_of


def test_copies_are_found_among_contents_and_among_those_before() -> None:
    known = KnownContents()
    first = fingerprints_of([hashlib.sha256(c.encode()).hexdigest() for c in "abca"])
    new = known.new(first)
    assert new.tolist() == [True, True, True, False]
    known.add(first[new])
    again = fingerprints_of([hashlib.sha256(c.encode()).hexdigest() for c in "xbyx"])
    assert known.new(again).tolist() == [True, False, True, False]
    assert known.new(again[:0]).tolist() == []


def test_what_there_is_no_room_for_is_not_known() -> None:
    known = KnownContents(most=2)
    contents = fingerprints_of([hashlib.sha256(c.encode()).hexdigest() for c in "abc"])
    known.add(contents)
    assert known.full and known.new(contents).tolist() == [False, False, True]
