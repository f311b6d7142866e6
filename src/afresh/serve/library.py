"""The runs that a server offers: found in folders, loaded when first asked for, forgotten when memory is short."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from afresh.core import UserError
from afresh.runs.run import Run
from afresh.serve.lane import Lane
from afresh.training import checkpoint


class UnknownRun(UserError):
    """There is no run of this name."""


@dataclass(eq=False)
class Served:
    """A run whose weights are loaded, and the lane that draws from it. `users`: requests that use it now. `turn` is
    held by the one request that computes with the weights outside of the lane."""

    name: str
    run: Run
    lane: Lane
    version: str  # the checkpoint that was loaded
    bytes: int
    users: int = 0
    used: float = field(default_factory=time.monotonic)
    turn: threading.Lock = field(default_factory=threading.Lock)


class Library:
    """Runs by name. A folder among `places` offers every run in it, also those that appear later.

    At most `memory` bytes of weights are held, or one run: the run that was not used for the longest time is
    forgotten first. Raises UserError if a place is neither a run nor a folder.
    """

    def __init__(self, places: Sequence[Path], memory: int) -> None:
        for place in places:
            if not place.is_dir():
                raise UserError(
                    f"There is no folder {place}. Give runs, or folders of runs, as in `afresh serve runs/`.",
                    "not_a_run",
                )
        self.places, self.memory = tuple(places), memory
        self.held: dict[str, Served] = {}
        self.lock = threading.RLock()

    def paths(self) -> dict[str, Path]:
        """The folder of each run by its name, which is that of the folder; of several with one name, all but the first
        are numbered."""
        found: dict[str, Path] = {}
        for place in self.places:
            inside = [place] if (place / "run.json").is_file() else sorted(p.parent for p in place.glob("*/run.json"))
            for path in inside:
                name, number = path.resolve().name, 2
                while name in found and found[name].resolve() != path.resolve():
                    name, number = f"{path.resolve().name}-{number}", number + 1
                found[name] = path
        return found

    def path(self, name: str) -> Path:
        """The folder of a run. Raises UnknownRun."""
        paths = self.paths()
        if name not in paths:
            known = ", ".join(paths) or "none yet"
            raise UnknownRun(f"There is no run named {name!r} here. Runs: {known}.", "model_not_found")
        return paths[name]

    def offer(self, path: Path) -> str:
        """The name of a run, which is offered from now on if it was not. Raises UserError if there is none."""
        for name, known in self.paths().items():
            if known.resolve() == path.resolve():
                return name
        Run.open(path)
        self.places = (*self.places, path)
        return self.offer(path)

    def open(self, name: str) -> Run:
        """A run without its weights. Raises UnknownRun, and UserError if it cannot be read."""
        with self.lock:
            served = self.held.get(name)
        return served.run if served is not None else Run.open(self.path(name))

    def acquire(self, name: str) -> Served:
        """A run with its weights, to be given back with `release`. Newer weights are loaded if there are any.

        Raises UnknownRun, and UserError if it cannot be read.
        """
        path = self.path(name)
        with self.lock:
            served = self.held.get(name)
            if served is not None and served.version != newest(path) and not served.users:
                self._forget(name)
                served = None
            if served is None:
                served = self._load(name, path)
            served.users += 1
            served.used = time.monotonic()
            return served

    def forget(self, name: str) -> None:
        """Let go of the weights of a run that is to be removed. Raises UserError if a request uses them."""
        with self.lock:
            served = self.held.get(name)
            if served is not None and served.users:
                raise UserError(f"{name} is in use. Wait until what it makes is finished.", "run_in_use")
            if served is not None:
                self._forget(name)

    def release(self, served: Served) -> None:
        with self.lock:
            served.users -= 1
            served.used = time.monotonic()

    def _load(self, name: str, path: Path) -> Served:
        version, run = newest(path), Run.open(path)
        modules = run.modules
        size = sum(t.numel() * t.element_size() for m in modules.values() for t in (*m.parameters(), *m.buffers()))
        idle = sorted((s for s in self.held.values() if not s.users), key=lambda s: s.used)
        for other in idle:
            if size + sum(s.bytes for s in self.held.values()) <= self.memory:
                break
            self._forget(other.name)
        lane = Lane(run)
        run.shared_draw = lane.draw
        served = Served(name, run, lane, version, size)
        self.held[name] = served
        return served

    def _forget(self, name: str) -> None:
        self.held.pop(name).lane.close()
        gc.collect()

    def close(self) -> None:
        with self.lock:
            for served in self.held.values():
                served.lane.close()
            self.held.clear()
            gc.collect()


def newest(path: Path) -> str:
    """The name of the newest checkpoint of a run; empty if there is none."""
    steps = checkpoint.steps_in(path / "checkpoints")
    return steps[-1] if steps else ""
