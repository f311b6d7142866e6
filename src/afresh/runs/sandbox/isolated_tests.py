"""Runs the tests of an answer in another process than the answer: a script for the sandbox, of the standard library.

The process of the tests (`judge`) starts that of the answer (`serve_answer`). What the tests ask of the answer's
functions and objects is sent over a pipe as JSON and computed there; what comes back are numbers, texts and containers
of them, or a `Remote`, an object that stays with the answer. The answer thus sees neither the tests nor the results
that they expect, and whatever it does to Python or to its process, it can only return values. Where a test compares
such a value with one of its own, the comparison is made on the side of the tests.

The side of the tests treats every message as hostile.
"""

# Without pathlib and subprocess, whose imports would delay every program.
# ruff: noqa: PTH108, PTH123

from __future__ import annotations

import builtins
import importlib
import json
import math
import operator
import os
import sys
import types
from collections import deque
from collections.abc import Callable
from typing import Any, BinaryIO

SEQUENCES: dict[str, type] = {t.__name__: t for t in (list, tuple, set, frozenset)}
# Types of the standard library that are sent as what they are made of: the module and the arguments.
REBUILT: dict[str, tuple[str, Callable[[Any], tuple[Any, ...]]]] = {
    "bytes": ("builtins", lambda x: (list(x),)),
    "bytearray": ("builtins", lambda x: (list(x),)),
    "complex": ("builtins", lambda x: (x.real, x.imag)),
    "range": ("builtins", lambda x: (x.start, x.stop, x.step)),
    "slice": ("builtins", lambda x: (x.start, x.stop, x.step)),
    "deque": ("collections", lambda x: (list(x), x.maxlen)),
    "Counter": ("collections", lambda x: (dict(x),)),
    "OrderedDict": ("collections", lambda x: (list(x.items()),)),
    "Fraction": ("fractions", lambda x: (x.numerator, x.denominator)),
    "Decimal": ("decimal", lambda x: (str(x),)),
    "date": ("datetime", lambda x: (x.year, x.month, x.day)),
    "timedelta": ("datetime", lambda x: (x.days, x.seconds, x.microseconds)),
}
MUTABLE = (list, dict, set, bytearray, deque)
PLAIN = (int, str, float, complex, bytes, list, tuple, dict, set, frozenset)
BINARY = ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "lshift", "rshift", "and", "or", "xor")
UNARY = ("neg", "pos", "invert", "abs", "int", "float", "complex", "index", "round", "floor", "ceil", "trunc")
ORDER = ("lt", "le", "gt", "ge")
OTHER = ("len", "iter", "next", "bool", "str", "repr", "hash", "reversed", "format", "contains", "getitem", "setitem")
FORGED = (
    "a number that an object of the answer makes from a number of the tests by its own operators does not count, since "
    "it could be forged: return numbers from functions"
)


def function_of(name: str) -> Callable[..., Any]:
    """The function of an operation: of Python, of `operator`, or of `math` (floor, ceil, trunc)."""
    own: dict[str, Callable[..., Any]] = {
        "call": lambda f, *args, **named: f(*args, **named),
        "enter": lambda x: type(x).__enter__(x),
        "exit": lambda x, *error: type(x).__exit__(x, *error),
        "eq": operator.eq,
        "getattr": getattr,
        "setattr": setattr,
        "delattr": delattr,
        "delitem": operator.delitem,
        "isinstance": lambda kind, x: isinstance(x, kind),
    }
    if name in own:
        return own[name]
    if name not in (*BINARY, *UNARY, *ORDER, *OTHER):
        raise ValueError(f"no operation {name!r}")
    for module in (builtins, math, operator):
        if name in vars(module) and (name != "pow" or module is operator):
            return vars(module)[name]
    return vars(operator)[f"{name}_"]


class RemoteLink:
    """One end of the pipes between tests and answer. `tests`: this is the end of the tests, which trusts nothing."""

    def __init__(self, read: BinaryIO, write: BinaryIO, tests: bool) -> None:
        self.read, self.write, self.tests = read, write, tests
        self.held: list[Any] = []  # objects of this side that the other side knows by their number
        self.numbers: dict[int, int] = {}  # the numbers by id()
        self.seen: dict[int, Any] = {}  # the other side's objects by their number

    def send(self, *message: Any) -> None:
        try:
            self.write.write(json.dumps(message).encode() + b"\n")
            self.write.flush()
        except OSError:
            raise Ended from None

    def receive(self) -> list[Any]:
        line = self.read.readline()
        if not line:
            raise Ended
        message = json.loads(line)
        if not isinstance(message, list) or not message:
            raise ValueError("not a message")
        return message

    def ask(self, operation: str, *args: Any, **named: Any) -> Any:
        """The result of an operation on the other side. Lists and other containers that it changed are changed here."""
        self.send("ask", operation, [self.encode(a) for a in args], {k: self.encode(v) for k, v in named.items()})
        while (message := self.receive())[0] == "ask":
            self.reply(*message[1:])
        if message[0] == "raise":
            raise self.error(*message[1:])
        _, result, changed = message
        mutable = [a for a in (*args, *named.values()) if type(a) in MUTABLE]
        for old, new in zip(mutable, map(self.decode, changed), strict=True):
            if type(new) is type(old) and new != old:
                replace(old, new)
        return self.decode(result)

    def reply(self, operation: str, args: list[Any], named: dict[str, Any]) -> None:
        """Answer what the other side asks."""
        try:
            values, options = [self.decode(a) for a in args], {str(k): self.decode(v) for k, v in named.items()}
            self.allow(operation, values)
            result = self.encode(function_of(operation)(*values, **options))
            changed = [self.encode(v) for v in (*values, *options.values()) if type(v) in MUTABLE]
        except BaseException as error:
            kind = error.reason if isinstance(error, RemoteError) else type(error)
            self.send("raise", self.encode(kind), str(error))
        else:
            self.send("reply", result, changed)

    def allow(self, operation: str, values: list[Any]) -> None:
        """Raise PermissionError for what the answer may not ask of the tests: only what they passed to it, by calls,
        operators and public attributes."""
        if not self.tests:
            return
        known = bool(values) and any(values[0] is held for held in self.held)
        named = operation in ("getattr", "setattr", "delattr", "enter", "exit", "isinstance", "format")
        public = operation in ("getattr", "setattr") and not str(values[1]).startswith("_") and is_own(values[0])
        if not known or (named and not public):
            raise PermissionError("the tests do not allow this")

    def error(self, kind: Any, text: Any) -> BaseException:
        """The exception that the other side raised."""
        found = self.decode(kind)
        if isinstance(found, type) and issubclass(found, BaseException):
            try:
                return found(str(text))
            except TypeError:  # such as UnicodeDecodeError, which has other arguments
                return RemoteError(f"{found.__name__}: {text}", found)
        return RemoteError(str(text), Exception)

    def encode(self, value: Any) -> Any:
        """A value as JSON: {type: content}, except for None, booleans, texts and floats, which are themselves."""
        kind = type(value)
        if value is None or kind in (bool, str, float):
            return value
        if kind is int:
            return {"int": hex(value)}
        name = kind.__name__
        if SEQUENCES.get(name) is kind:
            return {name: [self.encode(v) for v in value]}
        if kind is dict or (name == "defaultdict" and kind.__module__ == "collections"):
            return {"dict": [[self.encode(k), self.encode(v)] for k, v in value.items()]}
        if name in REBUILT and REBUILT[name][0] == kind.__module__:
            return {"made": [name, [self.encode(a) for a in REBUILT[name][1](value)]]}
        if isinstance(value, Remote):
            return {"yours": object.__getattribute__(value, "_number")}
        if isinstance(value, type) and issubclass(value, BaseException) and "afresh_number" in vars(value):
            return {"yours": vars(value)["afresh_number"]}
        path = library_path(value)
        if path is not None and (self.tests or (path[0] == "builtins" and isinstance(value, type))):
            return {"named": path}
        return self.hold(value)

    def hold(self, value: Any) -> dict[str, Any]:
        """The number under which the other side can ask for this object."""
        if self.tests and not (callable(value) or is_own(value) or iter_of(value)):
            raise TypeError(f"the tests cannot pass a {type(value).__name__} to the answer")
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.held)
            self.held.append(value)
        out: dict[str, Any] = {"mine": self.numbers[id(value)]}
        if isinstance(value, type) and issubclass(value, Exception):
            base = next(b for b in value.__mro__ if b.__module__ == "builtins")
            out |= {"exception": value.__name__, "base": base.__name__}
        elif not self.tests and (plain := next((t for t in PLAIN if isinstance(value, t)), None)) is not None:
            out["plain"] = self.encode(plain(value))
        return out

    def decode(self, data: Any) -> Any:
        """The value of `encode`. Raises ValueError for anything else."""
        if data is None or isinstance(data, bool | str | float):
            return data
        if not isinstance(data, dict) or not data:
            raise ValueError("not a value")
        kind, content = next(iter(data.items()))
        if kind == "int":
            return int(content, 16)
        if kind in SEQUENCES:
            return SEQUENCES[kind]([self.decode(v) for v in content])
        if kind == "dict":
            return {self.decode(k): self.decode(v) for k, v in content}
        if kind == "made":
            name, args = content
            return vars(importlib.import_module(REBUILT[name][0]))[name](*map(self.decode, args))
        if kind == "yours":
            return self.held[int(content)]
        if kind == "named":
            return self.named(*content)
        if kind == "mine":
            return self.remote(int(content), data)
        raise ValueError("not a value")

    def named(self, module: str, name: str) -> Any:
        """Something of the standard library. The tests accept only types of Python itself: others, such as
        `unittest.mock.ANY`, may be equal to everything."""
        if not self.tests:
            found: Any = importlib.import_module(module)
            return operator.attrgetter(name)(found) if name else found
        kind = vars(builtins).get(name) if module == "builtins" else None
        if not isinstance(kind, type):
            raise ValueError("not a type of Python")
        return kind

    def remote(self, number: int, data: dict[str, Any]) -> Any:
        """The stand-in for an object of the other side; the same for the same number."""
        if "exception" in data:
            base = vars(builtins).get(str(data.get("base")))
            bases = (base if isinstance(base, type) and issubclass(base, Exception) else Exception,)
            if number not in self.seen:
                self.seen[number] = type(str(data["exception"]), bases, {"afresh_number": number})
            return self.seen[number]
        if number not in self.seen:
            self.seen[number] = Remote(self, number)
        if "plain" in data:
            object.__setattr__(self.seen[number], "_plain", (self.decode(data["plain"]),))
        return self.seen[number]


class Ended(Exception):
    """Raised if the other process has ended."""


class RemoteError(Exception):
    """An exception of the other side that cannot be made here. `reason`: its type, or a base of it."""

    def __init__(self, text: str, reason: type[BaseException]) -> None:
        super().__init__(text)
        self.reason = reason


def replace(old: Any, new: Any) -> None:
    """Give a container the content of another of the same type."""
    if isinstance(old, dict | set):
        old.clear()
        old.update(new)
    elif isinstance(old, deque):
        old.clear()
        old.extend(new)
    else:
        old[:] = new


def is_own(value: Any) -> bool:
    """Whether an object is of a class that the tests define."""
    return type(value).__module__ == TESTS


def iter_of(value: Any) -> bool:
    return type(value).__module__ in ("builtins", "itertools") and "__next__" in dir(type(value))


def library_path(value: Any) -> tuple[str, str] | None:
    """(module, name) of a module, class or function of the standard library; None for anything else."""
    if isinstance(value, types.ModuleType):
        return (value.__name__, "") if value.__name__.partition(".")[0] in sys.stdlib_module_names else None
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return None
    if module.partition(".")[0] not in sys.stdlib_module_names or module not in sys.modules:
        return None
    try:
        found = operator.attrgetter(name)(sys.modules[module])
    except AttributeError:
        return None
    return (module, name) if found is value else None


class Remote:
    """An object of the other side. Operations on it are asked of the other side, except for comparisons with values of
    this side: it is compared as the number, text or container that it is a subclass of, or equals nothing."""

    __slots__ = ("_link", "_number", "_plain", "_told")

    def __init__(self, link: RemoteLink, number: int) -> None:
        for name, value in (("_link", link), ("_number", number), ("_plain", ()), ("_told", False)):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        ask("delattr", self, name)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return object.__getattribute__(self, "_link").ask("call", self, *args, **named)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        mine, theirs = plain_of(self), plain_of(other)
        if mine and theirs:
            return bool(mine[0] == theirs[0])
        return isinstance(other, Remote) and bool(ask("eq", self, other))

    def __hash__(self) -> int:
        return ask("hash", self)

    def __instancecheck__(self, value: Any) -> bool:
        return bool(ask("isinstance", self, value))


def ask(operation: str, remote: Remote, *args: Any) -> Any:
    return object.__getattribute__(remote, "_link").ask(operation, remote, *args)


def plain_of(value: Any) -> tuple[Any, ...]:
    """(value,) of this side or of a remote that has one, or ()."""
    return object.__getattribute__(value, "_plain") if isinstance(value, Remote) else (value,)


def compute(name: str, *args: Any, number: bool = True) -> Any:
    """An operation of which at least one argument is a remote.

    With a value of the tests, only an object comes out, or what this side computes. Raises TypeError for a forgery.
    """
    plain = [plain_of(a) for a in args]
    if all(plain):
        return function_of(name)(*(p[0] for p in plain))
    told = any(not isinstance(a, Remote) or object.__getattribute__(a, "_told") for a in args)
    if not number and told:
        return NotImplemented
    link = next(object.__getattribute__(a, "_link") for a in args if isinstance(a, Remote))
    result = link.ask(name, *args)
    if told and link.tests:
        if number and not isinstance(result, Remote):
            raise TypeError(FORGED)
        if isinstance(result, Remote):
            object.__setattr__(result, "_told", True)
    return result


def define_operators() -> None:
    """Give `Remote` Python's operators."""
    for name in BINARY:
        setattr(Remote, f"__{name}__", lambda self, other, name=name: compute(name, self, other))
        setattr(Remote, f"__r{name}__", lambda self, other, name=name: compute(name, other, self))
    for name in ORDER:
        setattr(Remote, f"__{name}__", lambda self, other, name=name: compute(name, self, other, number=False))
    for name in UNARY:
        setattr(Remote, f"__{name}__", lambda self, *args, name=name: unary(name, self, *args))
    for name in (*OTHER, "delitem", "enter", "exit"):
        if name != "hash":
            setattr(Remote, f"__{name}__", lambda self, *args, name=name: ask(name, self, *args))


def unary(name: str, remote: Remote, *args: Any) -> Any:
    """A conversion to a number. `args`: the digits of `round`."""
    if plain := plain_of(remote):
        return function_of(name)(plain[0], *args)
    if object.__getattribute__(remote, "_told"):
        return compute(name, remote)
    return ask(name, remote, *args)


define_operators()


# --------------------------------------------------------------------------- the two processes

TESTS = "afresh_tests"  # the module of what the tests define


def wanted_names(loaded: set[str], defined: set[str]) -> tuple[set[str], set[str]]:
    """The names that the answer is to define, and the modules to import for the tests.

    `loaded`: the names that the tests use; `defined`: those that they define somewhere. Names of Python and of its
    library are the answer's only where the tests use no others, as in `assert sum(10, 15) == 6`: an answer could make
    `abs(f(2) - 1.41) < 1e-6` hold by an `abs` of its own.
    """
    known = {n for n in loaded if n in vars(builtins) or n in sys.stdlib_module_names}
    if loaded - defined - known:
        return loaded - known, {n for n in known - defined if n not in vars(builtins)}
    return loaded, set()


def judge(task: dict[str, Any]) -> None:
    """As the process of the tests, run them and print the mark and how many hold; does not return.

    `task`: source, the text of this file; answer; given, code that comes with the task, with `entry` the function that
    the answer defines instead; setup and tests, code; mark. The tests are not run if the setup fails.
    """
    import ast

    os.unlink("main.py")  # the text with the tests and the mark
    sys.path[:] = [p for p in sys.path if p not in ("", "/box")]  # where the answer can write
    module = sys.modules[TESTS] = types.ModuleType(TESTS)
    space = vars(module)
    codes = [task["setup"], *task["tests"]]
    nodes = [n for code in codes for n in ast.walk(ast.parse(code))]
    names = [n for n in nodes if isinstance(n, ast.Name)]
    imports = [n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    defined = {n.id for n in names if not isinstance(n.ctx, ast.Load)} | {
        n.arg for n in nodes if isinstance(n, ast.arg)
    }
    defined |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    defined |= {(a.asname or a.name).partition(".")[0] for i in imports for a in i.names}
    try:
        exec(compile(task["given"], "given", "exec"), space)
    except BaseException:  # such as a prompt that is not a complete program by itself
        space.clear()
    space["__name__"] = TESTS
    space.pop(task["entry"], None)
    wanted, modules = wanted_names({n.id for n in names if isinstance(n.ctx, ast.Load)} - set(space), defined)
    space.update({name: importlib.import_module(name) for name in sorted(modules)})
    child, link = start_answer(task["source"])
    try:
        # Answers may rely on the imports of the tests, since all of it is one program elsewhere.
        link.send(task["answer"], [ast.unparse(i) for i in imports], sorted(wanted))
        found = dict(zip(*link.receive(), strict=True))
        space.update({name: link.decode(found[name]) for name in wanted & set(found)})
    except (Ended, TypeError, ValueError):
        end_like(child)
    held, failure = 0, None
    for number, code in enumerate(codes):
        try:
            exec(compile(code, "tests", "exec"), space)
            held += number > 0
        except Ended:
            end_like(child)
        except BaseException as error:
            failure = failure or error
            if number == 0:
                break
    os.kill(child, 9)
    os.waitpid(child, 0)
    os.write(1, f"\n{task['mark']} {held}\n".encode())
    if failure is not None:
        sys.excepthook(type(failure), failure, failure.__traceback__)
        sys.stderr.flush()
    os._exit(0 if failure is None else 1)


def start_answer(source: str) -> tuple[int, RemoteLink]:
    """Start the process of the answer, which keeps nothing of the memory of this one. Returns its id and the link."""
    ask_read, ask_write = os.pipe()
    tell_read, tell_write = os.pipe()
    child = os.fork()
    if child == 0:
        os.set_inheritable(ask_read, True)
        os.set_inheritable(tell_write, True)
        program = f"{source}\nserve_answer({ask_read}, {tell_write})"
        os.execv(sys.executable, [sys.executable, "-s", "-B", "-c", program])
    os.close(ask_read)
    os.close(tell_write)
    return child, RemoteLink(os.fdopen(tell_read, "rb"), os.fdopen(ask_write, "wb"), tests=True)


def end_like(child: int) -> None:
    """End as the process of the answer does; does not return."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve_answer(read: int, write: int) -> None:
    """As the process of the answer, run it and then what the tests ask; does not return."""
    link = RemoteLink(os.fdopen(read, "rb"), os.fdopen(write, "wb"), tests=False)
    text, imports, wanted = link.receive()
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    space = vars(module)
    with open("answer.py", "w", encoding="utf-8", errors="surrogatepass") as f:  # for tracebacks and `inspect`
        f.write(text)
    exec(compile(text, "answer.py", "exec"), space)
    for line in imports:
        try:
            exec(line, space)
        except ImportError:
            continue
    names = [n for n in wanted if n in space]
    link.send(names, [link.encode(space[n]) for n in names])
    while True:
        try:
            message = link.receive()
        except Ended:
            os._exit(0)
        link.reply(*message[1:])
