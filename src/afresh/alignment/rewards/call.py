"""Calling a person's Python function as a reward; and, run as a program, a process that does nothing else.

It is run by its path and imports only the standard library and numpy, so that it starts at once. The process reads JSON
lines from its standard input and answers each with one on its standard output: first {path, file, module, function,
seconds, loading}, then any number of {items, requests}. What the function itself prints goes to standard error.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
import inspect
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

MANY = re.compile(r"(typing\.|collections\.abc\.|t\.)?(list|List|Sequence|Iterable|Collection|tuple|Tuple)\b")
GRACE = 5.0  # seconds beyond the limit after which the process ends itself, should no one be left to end it


class Wrong(Exception):
    """(reason, number of the item or None)"""


class Caller:
    """A function of an item or of a list of items, and perhaps of its request or theirs.

    It is given lists when its first parameter is annotated as one (list, Sequence, Iterable, ...), single items when it
    is annotated otherwise. Without an annotation the first call tells: it is given the list; should it raise, or give
    anything but as many numbers, it is given one item after the other, and from then on. A second parameter gets the
    request (a dict) or their list when it has no default or is called request or requests.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        try:
            found = [p for p in inspect.signature(function).parameters.values() if p.kind in (0, 1, 2)]
        except (TypeError, ValueError):  # some that are written in C
            found = []
        single = [p for p in found if p.kind != p.VAR_POSITIONAL]
        second = single[1] if len(single) > 1 else None
        self.asked = second is not None and (second.default is second.empty or second.name in ("request", "requests"))
        note = found[0].annotation if found else inspect.Parameter.empty
        text = note if isinstance(note, str) else inspect.formatannotation(note)
        self.many: bool | None = None if note is inspect.Parameter.empty else MANY.match(text) is not None

    def __call__(self, items: Sequence[Any], requests: Sequence[Any]) -> list[float]:
        """One number an item. Raises Wrong."""
        if self.many is None:
            try:
                values = numbers(self.call(list(items), list(requests)), len(items))
                self.many = True
                return values
            except Exception as e:  # the function's own: perhaps no more than that it takes no list
                listed = e.args[0] if isinstance(e, Wrong) else said(e)
            try:
                values = self.one_by_one(items, requests)
            except Wrong as e:
                raise Wrong(f"{e.args[0]} Given all items in a list: {listed}", e.args[1]) from None
            self.many = False
            return values
        return self.together(items, requests) if self.many else self.one_by_one(items, requests)

    def call(self, item: Any, request: Any) -> Any:
        return self.function(item, request) if self.asked else self.function(item)

    def together(self, items: Sequence[Any], requests: Sequence[Any]) -> list[float]:
        try:
            found = self.call(list(items), list(requests))
        except Exception as e:
            raise Wrong(said(e), self.culprit(items, requests)) from e
        return numbers(found, len(items))

    def culprit(self, items: Sequence[Any], requests: Sequence[Any]) -> int | None:
        """The first item that raises also alone."""
        for i, (item, request) in enumerate(zip(items, requests, strict=True)):
            try:
                self.call([item], [request])
            except Exception:
                return i
        return None

    def one_by_one(self, items: Sequence[Any], requests: Sequence[Any]) -> list[float]:
        out = []
        for i, (item, request) in enumerate(zip(items, requests, strict=True)):
            try:
                out.append(number(self.call(item, request)))
            except Wrong as e:
                raise Wrong(e.args[0], i) from None
            except Exception as e:
                raise Wrong(said(e), i) from e
        return out


def number(value: Any) -> float:
    """Anything that is one number: int, float, bool, an array or tensor of one. Raises Wrong."""
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        hint = " (does it lack a return?)" if value is None else ""
        raise Wrong(f"it gave {value!r:.80}{hint}, which is no number.", None) from None


def numbers(values: Any, n: int) -> list[float]:
    """n numbers of what can be gone through. Raises Wrong."""
    try:
        if isinstance(values, str | bytes):
            raise TypeError
        found = list(values)
    except TypeError:
        raise Wrong(f"it gave {values!r:.80}, and a list of {n} numbers is needed.", None) from None
    if len(found) != n:
        raise Wrong(f"it gave {len(found)} numbers, and there are {n} items.", None)
    out = []
    for i, value in enumerate(found):
        try:
            out.append(number(value))
        except Wrong as e:
            raise Wrong(e.args[0], i) from None
    return out


def said(error: BaseException) -> str:
    """An exception and where in the person's file it came from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


@dataclass(frozen=True, eq=False)
class Sound:
    """What stands for core.Sound here, which would take seconds to import: samples (T, C) float32, samples a second."""

    samples: Any
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def packed(item: Any, kind: Any) -> Any:
    """An item of a kind (core.ItemKind) as JSON: a text as it is, an image or a sound's samples as their shape and
    bytes; any other as the content of a file, with the name of the function that decodes it."""
    return PACKED.get(kind.name, lambda item: by_file(item, kind))(item)


def by_file(item: Any, kind: Any) -> dict[str, Any]:
    content = base64.b64encode(kind.encode(item)).decode()
    return {"decode": [kind.decode.__module__, kind.decode.__qualname__], "bytes": content}


PACKED: dict[str, Callable[[Any], Any]] = {
    "text": lambda text: text,
    "image": lambda pixels: {"shape": pixels.shape, "bytes": encoded(pixels)},
    "sound": lambda sound: {
        "shape": sound.samples.shape,
        "rate": int(sound.rate),
        "bytes": encoded(sound.samples.astype(np.float32)),
    },
}


def encoded(array: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def unpacked(item: Any) -> Any:
    if isinstance(item, str):
        return item
    if "decode" in item:
        module, name = item["decode"]
        return attrgetter(name)(importlib.import_module(module))(base64.b64decode(item["bytes"]))
    kind = np.float32 if "rate" in item else np.uint8
    array = np.frombuffer(base64.b64decode(item["bytes"]), kind).reshape(item["shape"]).copy()
    return Sound(array, item["rate"]) if "rate" in item else array


def load(file: str | None, module: str, name: str) -> Callable[..., Any]:
    """Raises whatever the module raises."""
    if file is None:
        return getattr(importlib.import_module(module), name)
    sys.path.insert(0, str(Path(file).resolve().parent))  # its neighbours
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    sys.modules[Path(file).stem] = made
    spec.loader.exec_module(made)
    return getattr(made, name)


def main() -> None:
    """Serve until standard input ends."""
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    caller: Caller | None = None
    limit = 0.0
    for line in asked:
        message = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if caller is None:
                sys.path[:], limit = message["path"], message["seconds"] + GRACE
                signal.setitimer(signal.ITIMER_REAL, message["loading"] + GRACE)
                function = load(message["file"], message["module"], message["function"])
                if not callable(function):
                    raise TypeError(f"{message['function']} is no function but {type(function).__name__}")
                caller = Caller(function)
            else:
                signal.setitimer(signal.ITIMER_REAL, limit)  # its default is to end the process, also inside C code
                answer["values"] = caller([unpacked(item) for item in message["items"]], message["requests"])
        except Wrong as e:
            answer["error"], answer["item"] = e.args
        except BaseException as e:  # sys.exit too: the process is to answer
            answer["error"], answer["item"] = said(e), None
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
