"""The runs that a server offers: found in folders, loaded when first asked for, forgotten when memory is short.

The adapter of a person is offered as RUN:NAME. It uses the loaded weights of RUN, so many are held beside one base.
Where clients have keys, only the key of this NAME may ask for it; to others it does not exist. One that is removed or
replaced is dropped at once: what is being made with it is not answered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from afresh.core import UserError
from afresh.engine.nets.transformer import Decoder
from afresh.engine.training import checkpoint
from afresh.faces.http.batching import Lane
from afresh.faces.http.turn import Turns
from afresh.runs.person_adapters import SEPARATOR, adapter_folder, adapters_in, base_of
from afresh.runs.run import Run

T = TypeVar("T")
DEMONSTRATION = "demonstration"  # in a folder of runs: what `afresh demo` made

# Set in the context of a request: the name of the key that it has; None where there are no keys.
asking: ContextVar[str | None] = ContextVar("asking", default=None)


def may_ask(person: str) -> bool:
    """Whether the adapter of this person may be asked for in this context."""
    return asking.get() in (None, person)


@dataclass(eq=False)
class Served:
    """A run whose weights are loaded, and the lane that draws from it. `users`: requests that use it now. `turns`:
    of those that compute with the weights outside of the lane.

    `base`: of the adapter of a person, the run whose weights and lane it uses; `dropped`: whether it was removed since.
    """

    name: str
    run: Run
    lane: Lane
    version: str  # the checkpoint that was loaded
    made: tuple[int, int]  # which run it was (`made_at`)
    weights: int  # bytes
    base: Served | None = None
    dropped: bool = False
    users: int = 0
    used: float = field(default_factory=time.monotonic)
    turns: Turns = field(default_factory=Turns)

    @property
    def bytes(self) -> int:
        """Of the weights, and of the copy of them that a decoder packs when it first writes on a CPU, which of an
        adapter is one of all weights."""
        return self.weights + packed_bytes(self.run)


class Library:
    """Runs by name. A folder among `places` offers every run in it and those of a demonstration in it, also those that
    appear later.

    At most `memory` bytes of weights are held, or one run: the run or adapter that was not used for the longest time is
    forgotten first. Raises UserError if a place is neither a run nor a folder, or is the adapter of a person.
    """

    def __init__(self, places: Sequence[Path], memory: int) -> None:
        for place in places:
            if not place.is_dir():
                raise UserError(
                    f"No folder {place}. Give runs, or folders of runs, as in `afresh serve runs/`.",
                    "not_a_run",
                )
            if base_of(place.resolve()) is not None:
                raise UserError(
                    f"{place} is an adapter. Give the run that it is of: it is served with it.", "not_a_run"
                )
        # Absolute, so that messages show none of them.
        self.places, self.memory = tuple(place.absolute() for place in places), memory
        self.held: dict[str, Served] = {}
        self.lock = threading.RLock()

    def runs(self) -> dict[str, Path]:
        """The folder of each run by its name, which is that of the folder; of several with one name, all but the first
        are numbered."""
        found: dict[str, Path] = {}
        for place in self.places:
            found_in = [*place.glob("*/run.json"), *place.glob(f"{DEMONSTRATION}/runs/*/run.json")]
            inside = [place] if (place / "run.json").is_file() else sorted(p.parent for p in found_in)
            for path in inside:
                if base_of(path.resolve()) is not None:
                    continue
                name, number = path.resolve().name, 2
                while name in found and found[name].resolve() != path.resolve():
                    name, number = f"{path.resolve().name}-{number}", number + 1
                found[name] = path
        return found

    def paths(self) -> dict[str, Path]:
        """The same, each run followed by its adapters that may be asked for in this context."""
        found: dict[str, Path] = {}
        for name, path in self.runs().items():
            own = {f"{name}{SEPARATOR}{person}": p for person, p in adapters_in(path).items() if may_ask(person)}
            found |= {name: path} | own
        return found

    def described(self, view: Callable[[str, Run], T]) -> list[T]:
        """A view of every run; those that cannot be read are left out, and GET /afresh/v1/runs says why."""
        out = []
        for name in self.paths():
            with suppress(UserError, OSError):
                out.append(view(name, self.open(name)))
        return out

    def visible(self) -> list[Served]:
        """The runs and adapters that are held and may be asked for in this context."""
        held = list(self.held.values())
        return [s for s in held if s.base is None or may_ask(s.name.rpartition(SEPARATOR)[2])]

    def path(self, name: str) -> Path:
        """The folder of a run or an adapter. Raises UserError if there is none."""
        runs = self.runs()
        if name in runs:
            return runs[name]
        base, separator, person = name.rpartition(SEPARATOR)
        if not separator or base not in runs:
            known = ", ".join(runs) or "none yet"
            raise UserError(f"No run named {name!r} here. Runs: {known}.", "model_not_found", param="model")
        try:
            path = adapter_folder(runs[base], person)
            if may_ask(person) and (path / "run.json").is_file():
                return path
        except UserError:
            pass
        whose = "" if asking.get() is None else ", or its key is another one"
        raise UserError(f"{base} has no adapter named {person!r}{whose}.", "model_not_found", param="model")

    def offer(self, path: Path) -> str:
        """The name of a run, which is offered from now on if it was not. Raises UserError if there is none."""
        for name, known in self.paths().items():
            if known.resolve() == path.resolve():
                return name
        Run.open(path)
        self.places = (*self.places, path)
        return self.offer(path)

    def open(self, name: str) -> Run:
        """A run without its weights. Raises UserError if there is none, or if it cannot be read."""
        path = self.path(name)
        with self.lock:
            self._prune()
            served = self.held.get(name)
        return served.run if served is not None else Run.open(path)

    def acquire(self, name: str) -> Served:
        """A run with its weights, to be given back with `release`. Newer weights are loaded if there are any.

        Raises UserError if there is none, or if it cannot be read.
        """
        path = self.path(name)
        with self.lock:
            self._prune()
            served = self._ready(name, path)
            served.users += 1
            return served

    def _ready(self, name: str, path: Path) -> Served:
        """A run that is held, with its newest weights unless others are in use."""
        served = self.held.get(name)
        if served is not None and served.version != newest(path) and not self._in_use(served):
            self._forget(served)
            served = None
        if served is None:
            served = self._load(name, path) if base_of(path.resolve()) is None else self._load_adapter(name, path)
        served.used = time.monotonic()
        if served.base is not None:
            served.base.used = served.used
        self._make_room(0, served, served.base)
        return served

    def prune(self) -> None:
        """Drop the adapters that were removed or replaced since they were loaded."""
        with self.lock:
            self._prune()

    def _prune(self) -> None:
        for served in [s for s in self.held.values() if s.base is not None and s.made != made_at(s.run.path)]:
            served.dropped = True
            served.lane.drop(served.run, gone(served))
            self._forget(served)

    def _in_use(self, served: Served) -> bool:
        return served.users > 0 or any(s.users for s in self.held.values() if s.base is served)

    def forget(self, name: str) -> None:
        """Let go of the weights of a run that is to be removed. Raises UserError if a request uses them."""
        with self.lock:
            served = self.held.get(name)
            if served is not None and self._in_use(served):
                raise UserError(f"{name} is in use. Wait until what it makes is finished.", "run_in_use")
            if served is not None:
                self._forget(served)

    def release(self, served: Served) -> None:
        with self.lock:
            served.users -= 1
            served.used = time.monotonic()

    def _load(self, name: str, path: Path) -> Served:
        version, run = newest(path), Run.open(path)
        size = bytes_of(run)
        self._make_room(size)
        lane = Lane(run)
        run.shared_draw = lane.draw
        self.held[name] = Served(name, run, lane, version, made_at(path), size)
        return self.held[name]

    def _load_adapter(self, name: str, path: Path) -> Served:
        """The adapter of a person over the weights of its base, which is loaded if it is not."""
        base_name = name.rpartition(SEPARATOR)[0]
        base = self._ready(base_name, self.path(base_name))
        made, version, run = made_at(path), newest(path), Run.open(path)
        run.share(base.run)
        size = bytes_of(run, {t.data_ptr() for m in base.run.modules.values() for t in m.parameters()})
        self._make_room(size, base)
        run.shared_draw = base.lane.draw
        self.held[name] = Served(name, run, base.lane, version, made, size, base, turns=base.turns)
        return self.held[name]

    def _make_room(self, size: int, *needed: Served | None) -> None:
        """Forget what was not used for the longest time until so many bytes fit, but for what is needed."""
        idle = [s for s in self.held.values() if s not in needed and not self._in_use(s)]
        for other in sorted(idle, key=lambda s: s.used):
            if size + sum(s.bytes for s in self.held.values()) <= self.memory:
                break
            self._forget(other)

    def _forget(self, served: Served) -> None:
        for adapter in [s for s in self.held.values() if s.base is served]:
            self._forget(adapter)
        if self.held.pop(served.name, None) is None:
            return
        if served.base is None:
            served.lane.close()
        else:
            served.lane.leave(served.run)

    def close(self) -> None:
        with self.lock:
            for served in [s for s in self.held.values() if s.base is None]:
                served.lane.close()
            self.held.clear()


def bytes_of(run: Run, shared: Collection[int] = ()) -> int:
    """The bytes of the weights of a run, but for those at these addresses."""
    tensors = [t for m in run.modules.values() for t in (*m.parameters(), *m.buffers())]
    return sum(t.numel() * t.element_size() for t in tensors if t.data_ptr() not in shared)


def packed_bytes(run: Run) -> int:
    """The bytes of the weights that the decoder of a loaded run has packed."""
    decoder = run.modules.get("decoder")
    if not isinstance(decoder, Decoder) or (packed := decoder.packed) is None or packed[1] is None:
        return 0
    shared = {p.data_ptr() for p in decoder.parameters()}
    return sum(t.nbytes for t in packed[1].tensors if t.data_ptr() not in shared)


def check_held(served: Served) -> None:
    """Raises UserError if an adapter was removed since it was acquired."""
    if served.dropped:
        raise gone(served)


def gone(served: Served) -> UserError:
    """The answer to a request for an adapter that was removed since."""
    return UserError(f"The adapter {served.name} was removed.", "model_not_found", param="model")


def made_at(path: Path) -> tuple[int, int]:
    """What tells a run from another one that takes its place: the file of its record, and when it was written."""
    try:
        status = (path / "run.json").stat()
    except OSError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def newest(path: Path) -> str:
    """The name of the newest checkpoint of a run; empty if there is none."""
    steps = checkpoint.steps_in(path / "checkpoints")
    return steps[-1] if steps else ""
