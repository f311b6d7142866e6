"""Calls a user's Python function as a reward. Run as a program, this file is the process that serves such a function.

The program is run by its path and imports only the standard library and numpy, so that it starts quickly. It reads JSON
lines from its standard input and answers each with one line on its standard output: first {path, file, module,
function, seconds, loading}, then any number of {items, requests}, each answered by {values, reasons}. The output of the
function itself is redirected to standard error.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
import inspect
import json
import math
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

LIST_ANNOTATION = re.compile(
    r"(typing\.|collections\.abc\.|t\.)?(list|List|Sequence|Iterable|Collection|tuple|Tuple)\b"
)
MAX_REASON_CHARACTERS = 600  # about one item of several
EXTRA_SECONDS = 5.0  # seconds beyond the limit after which the process ends itself, in case its parent no longer exists


Values = tuple[list[float], dict[int, str]]  # NaN for items without a value, and the reasons by index


class CallError(Exception):
    """A function that failed or returned no valid reward. Arguments: the reason; the index of the item, or None."""


class RewardCaller:
    """Calls a function of one item or of a list of items, and optionally of their requests.

    The function receives lists if its first parameter is annotated as a list (list, Sequence, Iterable, ...), and
    single items if it has any other annotation. Without an annotation, the first call decides: the function receives
    the list, and if it raises or does not return as many numbers, it receives single items in this and all later calls.
    A second parameter receives the request (a dict), or the list of requests, if it has no default or is named request
    or requests.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        try:
            parameters = [p for p in inspect.signature(function).parameters.values() if p.kind in (0, 1, 2)]
        except (TypeError, ValueError):  # some functions written in C have no signature
            parameters = []
        single = [p for p in parameters if p.kind != p.VAR_POSITIONAL]
        second = single[1] if len(single) > 1 else None
        self.with_requests = second is not None and (
            second.default is second.empty or second.name in ("request", "requests")
        )
        annotation = parameters[0].annotation if parameters else inspect.Parameter.empty
        text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        self.takes_lists: bool | None = None  # None: not known before the first call
        if annotation is not inspect.Parameter.empty:
            self.takes_lists = LIST_ANNOTATION.match(text) is not None

    def __call__(self, items: Sequence[Any], requests: Sequence[Any]) -> Values:
        """One number for each item, NaN for those that the function fails for, and the reasons by index.

        Raises CallError if it fails for all of them.
        """
        if self.takes_lists is None:
            try:
                values = numbers(self.call(list(items), list(requests)), len(items))
                self.takes_lists = True
                return values, {}
            except Exception as e:  # raised by the function, possibly only because it does not take a list
                listed = e.args[0] if isinstance(e, CallError) else described(e)
            try:
                found = self.one_by_one(items, requests)
            except CallError as e:
                raise CallError(f"{e.args[0]} Called with a list of all items: {listed}", e.args[1]) from None
            self.takes_lists = False
            return found
        return self.together(items, requests) if self.takes_lists else self.one_by_one(items, requests)

    def call(self, item: Any, request: Any) -> Any:
        return self.function(item, request) if self.with_requests else self.function(item)

    def together(self, items: Sequence[Any], requests: Sequence[Any]) -> Values:
        try:
            values = self.call(list(items), list(requests))
        except Exception as e:
            found = self.each(items, requests, lambda item, request: numbers(self.call([item], [request]), 1)[0])
            if not found[1]:  # the function fails, but not for any of the items
                raise CallError(described(e), None) from e
            return found
        return numbers(values, len(items)), {}

    def one_by_one(self, items: Sequence[Any], requests: Sequence[Any]) -> Values:
        return self.each(items, requests, lambda item, request: number(self.call(item, request)))

    def each(self, items: Sequence[Any], requests: Sequence[Any], value: Callable[[Any, Any], float]) -> Values:
        """The values of items one after another. Raises CallError if none exists."""
        values, reasons = [math.nan] * len(items), {}
        for i, (item, request) in enumerate(zip(items, requests, strict=True)):
            try:
                values[i] = value(item, request)
            except CallError as e:
                reasons[i] = e.args[0]
            except Exception as e:
                reasons[i] = described(e)[:MAX_REASON_CHARACTERS]
        if len(reasons) == len(items) > 0:
            raise CallError(reasons[0], 0)
        return values, reasons


def number(value: Any) -> float:
    """The number that an int, float, bool, or an array or tensor of one element holds. Raises CallError."""
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        hint = " (is a return statement missing?)" if value is None else ""
        raise CallError(f"it returned {value!r:.80}{hint}, which is not a number.", None) from None


def numbers(values: Any, n: int) -> list[float]:
    """The n numbers of an iterable. Raises CallError."""
    try:
        if isinstance(values, str | bytes):
            raise TypeError
        listed = list(values)
    except TypeError:
        raise CallError(f"it returned {values!r:.80}, but a list of {n} numbers is needed.", None) from None
    if len(listed) != n:
        raise CallError(f"it returned {len(listed)} numbers for {n} items.", None)
    out = []
    for i, value in enumerate(listed):
        try:
            out.append(number(value))
        except CallError as e:
            raise CallError(e.args[0], i) from None
    return out


def described(error: BaseException) -> str:
    """An exception and the line of the user's file that raised it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


@dataclass(frozen=True, eq=False)
class RewardSound:
    """Replaces core.Sound, whose import would take seconds: samples (T, C) float32, and the samples per second."""

    samples: Any
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def packed(item: Any, kind: Any) -> Any:
    """An item of a kind (core.ItemKind) as JSON.

    A text is unchanged, and so is any other item that is one, such as the SMILES of a molecule. Images and the samples
    of sounds become their shape and bytes; any other item becomes the content of a file, with the name of the function
    that decodes it.
    """
    return item if isinstance(item, str) else PACKED.get(kind.name, lambda item: by_file(item, kind))(item)


def by_file(item: Any, kind: Any) -> dict[str, Any]:
    content = base64.b64encode(kind.encode(item)).decode()
    return {"decode": [kind.decode.__module__, kind.decode.__qualname__], "bytes": content}


PACKED: dict[str, Callable[[Any], Any]] = {
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
    dtype = np.float32 if "rate" in item else np.uint8
    array = np.frombuffer(base64.b64decode(item["bytes"]), dtype).reshape(item["shape"]).copy()
    return RewardSound(array, item["rate"]) if "rate" in item else array


def load(file: str | None, module: str, name: str) -> Callable[..., Any]:
    """The named function of a file or of an installed module. Raises whatever importing the module raises."""
    if file is None:
        return getattr(importlib.import_module(module), name)
    sys.path.insert(0, str(Path(file).resolve().parent))  # so that it can import modules of its folder
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[Path(file).stem] = loaded
    spec.loader.exec_module(loaded)
    return getattr(loaded, name)


def main() -> None:
    """Answer messages until standard input ends."""
    messages, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    caller: RewardCaller | None = None
    limit = 0.0
    for line in messages:
        message = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if caller is None:
                sys.path[:], limit = message["path"], message["seconds"] + EXTRA_SECONDS
                signal.setitimer(signal.ITIMER_REAL, message["loading"] + EXTRA_SECONDS)
                function = load(message["file"], message["module"], message["function"])
                if not callable(function):
                    raise TypeError(f"{message['function']} is not a function but {type(function).__name__}")
                caller = RewardCaller(function)
            else:
                signal.setitimer(signal.ITIMER_REAL, limit)  # by default it ends the process, even inside C code
                values, reasons = caller([unpacked(item) for item in message["items"]], message["requests"])
                answer = {"values": values, "reasons": reasons}
        except CallError as e:
            answer["error"], answer["item"] = e.args
        except BaseException as e:  # the process has to answer even if the function calls sys.exit
            answer["error"], answer["item"] = described(e), None
        signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
