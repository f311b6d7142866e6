"""What is private is shown nowhere: in no example of a change, and in no excerpt or reason of what is left out.

Rules say what they find that is private. A rule that comes before them has judged a text in which it still stands, and
may even have mended the characters that hid it: so what is shown of an item is not what that rule saw, but what the
item is, or would be, after the private rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from afresh.data.files import FileError
from afresh.data.limits import parsing
from afresh.services.collect.record import EXCERPT, Record, Rejection
from afresh.services.collect.rules import rules


class Veil:
    """Masks what the chosen rules find that is private. `private`: the names of these rules."""

    def __init__(self, chosen: Mapping[str, Any]) -> None:
        applied = [rule for rule in rules() if rule.name in chosen]
        concealing = {r.name: r.concealing(chosen[r.name]) for r in applied if r.concealing is not None}
        self.masks = {name: mask for name, mask in concealing.items() if mask is not None}
        self.private = frozenset(self.masks)
        last = max((i for i, rule in enumerate(applied, 1) if rule.name in self.private), default=0)
        before = [rule for rule in applied[:last] if rule.name not in self.private]
        self.changes = [(rule.kinds, rule.with_value(chosen[rule.name])) for rule in before]

    def record(self, record: Record) -> Record:
        """The record as it may be shown: changed by the rules before the private ones, whether or not one of them would
        leave it out, and masked."""
        return self._through(record)[0]

    def hides(self, record: Record) -> bool:
        """Whether anything in the record, as it is or as it becomes, is private."""
        return self._through(record)[1]

    def rejection(self, rejection: Rejection, record: Record | None = None) -> Rejection:
        """The rejection as it may be written, with an excerpt of the record that was left out."""
        if not self.private:
            return rejection
        if record is not None:
            rejection = replace(rejection, excerpt=(self.record(record).text or "")[:EXCERPT])
        told = Record("text", rejection.source, rejection.where, text=rejection.reason)
        try:
            with parsing("reason"):
                return replace(rejection, reason=self._masked(told).text or "")
        except FileError as error:
            return replace(rejection, reason=f"the reason is not shown: {error}")

    def _through(self, record: Record) -> tuple[Record, bool]:
        if not self.private:
            return record, False
        try:
            with parsing("item"):
                return self._judged(record)
        except FileError:  # a rule fails on it: nothing of it is shown
            return replace(record, text=""), True

    def _judged(self, record: Record) -> tuple[Record, bool]:
        first = self._masked(record)  # before a rule takes half of it away
        changed = first
        for kinds, judge in self.changes:
            verdict = judge(changed) if changed.kind in kinds else changed
            changed = verdict if isinstance(verdict, Record) else changed
        last = self._masked(changed)
        return last, first is not record or last is not changed

    def _masked(self, record: Record) -> Record:
        for mask in self.masks.values():
            record = mask(record)
        return record
