"""Fewer events, where a user asks for it: by rating, by kind, and of users and items with enough of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from afresh.core import Omission, UserError
from afresh.core.plural import counted
from afresh.domains.interactions.log import Log


def narrowed(log: Log, least_rating: float | None, kinds: str | None, core: int) -> tuple[Log, list[str]]:
    """The events that are wanted, and notes on what was left out. Raises UserError if none is left, or if there are no
    ratings or no such kinds of events."""
    notes = []
    rated = np.isfinite(log.rating)
    if rated.any() and least_rating is None:
        low, high = float(log.rating[rated].min()), float(log.rating[rated].max())
        if low < high:
            negative = f", of which {int((log.rating[rated] < 0).sum()):,} are negative" if low < 0 else ""
            notes.append(f"ratings from {low:g} to {high:g}{negative}: every event counts, whatever its rating")
    if least_rating is not None:
        if not rated.any():
            raise UserError("`data.least_rating` needs a column of ratings. Name it by `data.rating`.")
        log = _kept(log, ~(log.rating < least_rating), f"a rating below {least_rating:g}", notes)
    if kinds is not None:
        wanted = [k.strip() for k in kinds.split(",") if k.strip()]
        if unknown := [k for k in wanted if k not in log.events]:
            known = ", ".join(log.events) or "none"
            raise UserError(f"There are no events of the kind {', '.join(unknown)}. The kinds are: {known}.")
        ours = [i for i, name in enumerate(log.events) if name in wanted]
        log = _kept(log, np.isin(log.event, ours), "another kind of event", notes)
    elif len(log.events) > 1:
        counts = np.bincount(log.event, minlength=len(log.events))
        listed = ", ".join(f"{name} {n:,}" for name, n in zip(log.events, counts.tolist(), strict=True))
        notes.append(f"kinds of events, which all count: {listed}")
    if core > 1:
        log = _core(log, core, notes)
    return log, notes


def _kept(log: Log, keep: np.ndarray, why: str, notes: list[str]) -> Log:
    if not keep.any():
        raise UserError(f"Every event has {why}: nothing is left. Loosen the conditions.")
    if dropped := int((~keep).sum()):
        notes.append(Omission(f"{counted(dropped, 'event')} left out: {why}"))
    events = {name: getattr(log, name)[keep] for name in ("user", "item", "time", "rating", "event")}
    return replace(log, **events)


def _core(log: Log, core: int, notes: list[str]) -> Log:
    keep = np.ones(len(log), dtype=bool)
    while True:
        users = np.bincount(log.user[keep], minlength=len(log.users))
        items = np.bincount(log.item[keep], minlength=len(log.items))
        now = keep & (users[log.user] >= core) & (items[log.item] >= core)
        if now.sum() == keep.sum():
            return _kept(log, keep, f"of users or items with fewer than {core} events", notes)
        keep = now
