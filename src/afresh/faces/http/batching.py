"""What several requests ask of one run and the adapters on it, drawn in shared batches by one thread.

A batch is of one run or one adapter: those of several persons take turns step by step, and nothing is computed for two
of them at once, so that what one gets does not depend on the others.

Sequences of a family that draws step by step join and leave a batch at any step. Requests of other families whose
settings agree are solved together. The random numbers of a sample depend on its seed and number only, so that a text is
the one that it would be alone; an image or sound is too, but for the rounding that the size of a batch changes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from afresh.core import Cond
from afresh.core.rng import MixedRng, Rng
from afresh.core.solver_progress import Follower, Step, follower, following
from afresh.engine.sampling.tokens import Decoding, TokenSequence
from afresh.engine.training.network import precision
from afresh.runs.run import Run, join

PROCESSORS = torch.get_num_threads()  # that a lane computes with
KEPT_BATCHES = 2  # without a sequence
SEQUENCES = 64  # drawn side by side
EXAMPLES = 16  # solved together; more are no faster each on a processor, and others would wait for longer
TOGETHER = 2_048  # evaluations for all examples that are solved together, as others wait for the last
GATHERING, GATHERINGS = 0.015, 6  # seconds that an idle lane waits for another call before it solves, and how often

# Set in the thread of a request: whether nobody waits for its result any longer.
cancelled: ContextVar[threading.Event | None] = ContextVar("cancelled", default=None)
# Set in the thread of a request: whether its examples are solved without those of others. The size of a batch changes
# how numbers are rounded, so that only then the same bytes can be made again.
alone: ContextVar[bool] = ContextVar("alone", default=False)


class Cancelled(Exception):
    """The result is no longer wanted."""


@dataclass(eq=False)
class LaneCall:
    """A call of `Run.draw`, and its result as soon as `done`."""

    run: Run
    cond: Cond
    seed: int
    settings: Any
    numbers: Tensor
    gone: threading.Event
    follow: Follower | None = None
    alone: bool = False
    dropped: Exception | None = None  # that its adapter was removed
    done: threading.Event = field(default_factory=threading.Event)
    x: Tensor | None = None
    error: BaseException | None = None
    sequences: list[TokenSequence] = field(default_factory=list)  # of a family that draws step by step
    begun: int = 0  # rows that are drawn, or were
    parts: list[Tensor] = field(default_factory=list)  # x of the rows that were solved

    def end(self, error: BaseException | None = None) -> None:
        self.error = error
        self.done.set()

    def told(self, step: Step) -> None:
        """Report a step to the followers. An error of theirs concerns this call alone."""
        if self.follow is not None and self.error is None:
            try:
                self.follow(step)
            except Exception as error:
                self.error = error


@dataclass(frozen=True)
class Alike:
    """What the calls of a batch have in common: their run or adapter, and settings."""

    run: Run
    settings: Hashable


class Lane:
    """Draws for a run and the adapters that use its weights. `draw` is called by the threads of the requests, and waits
    for its result."""

    def __init__(self, run: Run) -> None:
        self.changed = threading.Condition()
        self.calls: deque[LaneCall] = deque()  # those that are not done
        self.batches: dict[Alike, Decoding] = {}
        self.owner: dict[int, LaneCall] = {}  # by id of the sequence
        self.closed = False
        self.left: WeakSet[Run] = WeakSet()  # adapters that are not held any more
        self.stepwise = run.family.sampling.stepwise
        self.thread = threading.Thread(target=self._work, name=f"lane of {run.path.name}", daemon=True)
        self.thread.start()

    def draw(self, run: Run, cond: Cond, seed: int, settings: Any, numbers: Tensor) -> Tensor:
        """x (B, ...) in the family's space, as `run.draw` without sharing gives it, for the run or an adapter on it.

        Raises Cancelled if the request is, and what drawing raises.
        """
        call = LaneCall(
            run, cond, seed, settings, numbers, cancelled.get() or threading.Event(), followed(), alone.get()
        )
        if self.stepwise is not None:
            call.sequences = self.stepwise.sequences(run.space, cond, Rng(seed), numbers, settings)
            for s in call.sequences:
                s.watch = guarded(call, s.watch) if s.watch is not None else None
        with self.changed:
            if self.closed:
                raise Cancelled
            self.calls.append(call)
            self.changed.notify()
        call.done.wait()
        if call.error is not None:
            raise call.error
        if self.stepwise is not None:
            return self.stepwise.gather(run.space, call.sequences)
        assert call.x is not None
        return call.x

    def wake(self) -> None:
        """Look again which calls were cancelled."""
        with self.changed:
            self.changed.notify()

    def drop(self, run: Run, error: Exception) -> None:
        """End what is being drawn with an adapter, with this error."""
        with self.changed:
            for call in self.calls:
                if call.run is run:
                    call.dropped = error
            self.changed.notify()

    def leave(self, run: Run) -> None:
        """Forget what is kept of an adapter for further requests."""
        with self.changed:
            self.left.add(run)
            self.changed.notify()

    def close(self) -> None:
        """End the thread, and what is being drawn."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.thread.join()
        self.batches.clear()  # they hold the run, which holds this lane

    # ------------------------------------------------------------------------------------------------ its thread

    def _work(self) -> None:
        torch.set_num_threads(PROCESSORS)
        with torch.no_grad():
            while True:
                with self.changed:
                    idle = not self.calls
                    while not self.calls and not self._leaving() and not self.closed:
                        self.changed.wait()
                    if self.closed:
                        break
                    if idle and self.stepwise is None:
                        self._gather()
                    self._drop_cancelled()
                    calls = list(self.calls)
                if calls:
                    self._advance(calls)
                with self.changed:
                    self.calls = deque(c for c in self.calls if not c.done.is_set())
        for call in self.calls:
            call.end(Cancelled())

    def _gather(self) -> None:
        """Wait for other calls for as long as they keep coming."""
        known = 0
        for _ in range(GATHERINGS):
            if len(self.calls) == known or self.closed:
                break
            known = len(self.calls)
            self.changed.wait(GATHERING)

    def _advance(self, calls: list[LaneCall]) -> None:
        try:
            if self.stepwise is None:
                self._solve(calls)
            else:
                self._join(calls)
                self._step()
        except Exception as error:
            for call in calls:
                if call.begun:
                    call.end(error)
            self.batches.clear()
            self.owner.clear()

    def _drop_cancelled(self) -> None:
        for call in [c for c in self.calls if (c.dropped or c.gone.is_set()) and not c.done.is_set()]:
            self._abandon(call, call.dropped or Cancelled())
        for key in self._leaving():
            del self.batches[key]
        self.calls = deque(c for c in self.calls if not c.done.is_set())

    def _leaving(self) -> list[Alike]:
        """The idle batches of adapters that are not held any more."""
        return [key for key, batch in self.batches.items() if key.run in self.left and not batch.active]

    def _abandon(self, call: LaneCall, error: BaseException) -> None:
        for batch in self.batches.values():
            batch.leave(call.sequences)
        for s in call.sequences:
            self.owner.pop(id(s), None)
        call.end(error)

    # ------------------------------------------------------------------------------------------------ step by step

    def _join(self, calls: list[LaneCall]) -> None:
        """Let sequences join as long as there is room, one of each call in turn."""
        stepwise = self.stepwise
        assert stepwise is not None
        room = SEQUENCES - sum(len(b.active) + len(b.late) for b in self.batches.values())
        joining: dict[Alike, list[tuple[LaneCall, int]]] = {}
        waiting = [c for c in calls if c.begun < len(c.sequences)]
        while room > 0 and waiting:
            for call in waiting[:room]:
                guided = call.cond.negative is None, call.cond.toward is None
                key = Alike(call.run, (stepwise.shared(call.settings), *guided))
                joining.setdefault(key, []).append((call, call.begun))
                call.begun += 1
                room -= 1
            waiting = [c for c in waiting if c.begun < len(c.sequences)]
        for key, rows in joining.items():
            if key not in self.batches:
                settings, run = rows[0][0].settings, key.run
                try:
                    batch = stepwise.batch(run.modules_for(settings), run.config, run.space, settings)
                except Exception as error:  # of these settings
                    for call in dict.fromkeys(call for call, _ in rows):
                        self._abandon(call, error)
                    continue
                self.batches[key] = batch
            self._join_batch(self.batches[key], rows)

    def _join_batch(self, batch: Decoding, rows: list[tuple[LaneCall, int]]) -> None:
        each: dict[int, list[int]] = {}
        for call, row in rows:
            each.setdefault(id(call), []).append(row)
        for call in dict.fromkeys(call for call, _ in rows):
            index = torch.tensor(each[id(call)])
            sequences = [call.sequences[row] for row in each[id(call)]]
            try:
                batch.join(sequences, call.cond.select(index).to(batch.device))
            except Exception as error:  # a constraint that cannot be met
                self._abandon(call, error)
                continue
            for s in sequences:
                self.owner[id(s)] = call

    def _step(self) -> None:
        idle = [k for k, b in self.batches.items() if not b.active]
        for key in idle[:-KEPT_BATCHES]:  # the newest keep the prefixes that they know
            del self.batches[key]
        for key, batch in [(k, b) for k, b in self.batches.items() if b.active]:
            try:
                with precision(key.run.train):
                    ended = batch.step()
            except Exception as error:  # of the model, not of one request: whoever shares the batch gets it
                sharing = {self.owner[id(s)] for s in (*batch.active, *(late for late, _ in batch.late))}
                for shared in sharing:
                    self._abandon(shared, error)
                del self.batches[key]
                continue
            for s in ended:
                call = self.owner.pop(id(s), None)
                if call is None or call.done.is_set():
                    continue
                if s.error is not None or call.error is not None:
                    self._abandon(call, call.error or s.error or Cancelled())
                elif call.begun == len(call.sequences) and not any(id(other) in self.owner for other in call.sequences):
                    call.end()

    # ------------------------------------------------------------------------------------------------ at once

    def _solve(self, calls: list[LaneCall]) -> None:
        """Solve the next rows of the first call, and those of others that can be solved with them."""
        key = shared_settings(calls[0])
        alike = [c for c in calls if shared_settings(c) == key]
        rows: list[tuple[LaneCall, int]] = []
        run, settings = calls[0].run, calls[0].settings
        most = max(1, min(EXAMPLES, TOGETHER // run.family.evaluations.sample(run.space, settings)))
        while len(rows) < most and (waiting := [c for c in alike if c.begun < c.cond.size]):
            for call in waiting[: most - len(rows)]:
                rows.append((call, call.begun))
                call.begun += 1
        modules = run.modules_for(settings)
        device = next(p for m in modules.values() for p in m.parameters()).device
        cond = Cond.cat([call.cond.select(torch.tensor([row])) for call, row in rows]).to(device)
        rng = MixedRng([call.seed for call, _ in rows], [int(call.numbers[row]) for call, row in rows])
        index = torch.arange(len(rows), device=device)
        places: dict[LaneCall, list[int]] = {}
        for place, (call, _) in enumerate(rows):
            places.setdefault(call, []).append(place)

        def stepped(step: Step) -> None:
            if all(call.gone.is_set() or call.error is not None for call in places):
                raise Cancelled
            for call, own in places.items():
                call.told(replace(step, estimate=rows_of(step, own), first=call.begun - len(own)))

        try:
            with following(stepped), precision(run.train):
                x = run.family.sampling.sample(modules, run.config, run.space, cond, rng, index, settings).cpu()
        except Cancelled as error:
            for call in places:
                call.end(call.error or error)
            return
        except Exception as error:
            for call in alike:
                call.end(error)
            return
        for call, own in places.items():
            call.parts.append(x[own])
            if call.error is not None or call.begun == call.cond.size:
                call.x = join(call.parts, run.space)
                call.end(call.error)
        for call in alike:  # other calls have their turn
            if not call.done.is_set():
                self.calls.rotate(-1)
                break


def rows_of(step: Step, rows: list[int]) -> Callable[[], Tensor] | None:
    """What is predicted of some rows of a batch, if anything is."""
    estimate = step.estimate
    return None if estimate is None else lambda: estimate()[rows].cpu()


def followed() -> Follower | None:
    """Who follows the steps in the thread of a request, to be called in its context from the thread of the lane."""
    follow, context = follower(), copy_context()
    return None if follow is None else lambda step: context.run(follow, step)


def guarded(call: LaneCall, watch: Callable[..., bool]) -> Callable[..., bool]:
    """The watch, whose error ends its own call only."""

    def watched(*token: Any) -> bool:
        try:
            return watch(*token)
        except Exception as error:
            call.error = error
            return True

    return watched


def shared_settings(call: LaneCall) -> Hashable:
    """Calls with equal values can be solved together. One with callbacks can only be solved alone, and so
    does one that asks for it."""
    callbacks = [name for name in ("watch", "constraint") if getattr(call.settings, name, None) is not None]
    known = None if call.cond.known is None else tuple(call.cond.known.shape[1:])
    settings = replace(call.cond, parts={}, present={}, known=None, known_mask=None)
    parts = settings.negative is None, settings.toward is None
    watermark = getattr(call.settings, "watermark", None)  # which no dump has, as it holds a secret
    alone = id(call) if callbacks or call.alone else 0
    return (call.run, *parts, known, call.settings.model_dump_json(), watermark, alone)
