"""How often a key may be tried, and how many requests may be sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest

from afresh.faces.http import tries
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.keys import Door, Keys
from afresh.faces.http.rights import Holder
from afresh.faces.http.sessions import Sessions
from afresh.faces.http.tries import MOST_WAITING, PAUSE, WRONG_FREE, WRONG_FREE_ALL, Allowances, network

KEY, WRONG, HERE, THERE = "k" * 20, "w" * 20, "203.0.113.5", "198.51.100.7"


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, none of which takes time; a minute never passes."""
    made: list[float] = []
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        made.append(seconds)
        await sleep(0)

    monkeypatch.setattr(tries, "asyncio", SimpleNamespace(sleep=pause))
    monkeypatch.setattr(tries, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    return made


@pytest.fixture
def door() -> Door:
    return Door(Keys({KEY: Holder("ann")}), Sessions())


async def wrong(door: Door, address: str, times: int) -> None:
    for _ in range(times):
        with pytest.raises(RefusedRequest) as error:
            await door.enter(WRONG, address)
        assert error.value.status == 401


def within(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))  # type: ignore[arg-type]


def test_after_some_wrong_keys_every_key_of_that_address_waits(door: Door, paused: list[float]) -> None:
    async def work() -> None:
        await wrong(door, HERE, int(WRONG_FREE))
        assert paused == []
        await wrong(door, HERE, 3)
        assert paused == [PAUSE] * 3
        assert (await door.enter(KEY, HERE)).name == "ann" and len(paused) == 4  # later, but not refused
        await wrong(door, THERE, 1)
        assert len(paused) == 4

    within(work)


def test_a_key_that_was_right_from_there_never_waits(door: Door, paused: list[float]) -> None:
    async def work() -> None:
        await door.enter(KEY, HERE)
        await wrong(door, HERE, 3 * int(WRONG_FREE))
        before = len(paused)
        assert (await door.enter(KEY, HERE)).name == "ann" and len(paused) == before

    within(work)


def test_so_many_wait_at_once_that_more_are_not_looked_at(
    door: Door, paused: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        await wrong(door, HERE, int(WRONG_FREE))
        looked: list[str] = []
        monkeypatch.setattr(Keys, "holder", lambda keys, key: looked.append(key))
        asked = [door.enter(WRONG, HERE) for _ in range(MOST_WAITING + 50)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        status = [a.status for a in answers if isinstance(a, RefusedRequest)]
        assert status.count(429) == 50 and len(looked) == status.count(401) == MOST_WAITING
        assert not door.tries.waiting

    within(work)


def test_many_addresses_together_wait_too_but_nobody_who_was_let_in_before(door: Door, paused: list[float]) -> None:
    async def work() -> None:
        await door.enter(KEY, THERE)
        for i in range(int(WRONG_FREE_ALL)):
            await wrong(door, f"192.0.2.{i}", 1)
        assert paused == []
        await wrong(door, "192.0.2.200", 1)
        assert paused == [PAUSE]
        await door.enter(KEY, THERE)
        assert paused == [PAUSE]

    within(work)


def test_one_has_many_addresses_of_the_new_kind() -> None:
    assert network("2001:db8:1:2:3::4") == network("2001:db8:1:2::ffff") != network("2001:db8:1:3::4")
    assert network(HERE) == HERE and network("no address") == "no address"


def test_an_allowance_comes_back_with_time() -> None:
    allowances = Allowances(60)
    for _ in range(60):
        allowances.spend("ann", 0.0)
    with pytest.raises(RefusedRequest):
        allowances.spend("ann", 0.5)
    allowances.spend("ann", 1.0)
    with pytest.raises(RefusedRequest):
        allowances.spend("ann", 1.5)


def test_an_allowance_is_never_more_than_that_of_a_minute() -> None:
    allowances = Allowances(5)
    allowances.spend("ann", 0.0)
    for _ in range(5):
        allowances.spend("ann", 1e6)
    with pytest.raises(RefusedRequest) as error:
        allowances.spend("ann", 1e6)
    assert error.value.retry == 12


def test_as_many_owners_are_remembered_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "MOST_KNOWN", 3)
    allowances = Allowances(2)
    for owner in "abcde":
        allowances.spend(owner, 0.0)
    assert list(allowances.known) == list("cde")
