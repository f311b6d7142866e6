"""Messages as a person types them at the command line.

Errors and events are also raised in Python and over HTTP, so they name no option of the command line. What a person can
change stands in backticks as it is written in Python, `guidance=2`, `train.lr=0.001`, `data.size=32`,
`afresh.resume("runs/a")`, `model.measure()`, and becomes here --guidance 2, --set train.lr=0.001, --data size=32,
afresh train --resume runs/a, afresh measure RUN. Other text in backticks stays as it is.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Container
from typing import Any

import typer

SPAN = re.compile(r"`([^`\n]+)`")
ASSIGNED = re.compile(r"([a-z_]\w*(?:\.\w+)*)(?:=(.*))?", re.DOTALL)
SETTINGS = ("train", "family", "align", "sample")  # what --set takes
# Parameters whose option has another name.
OPTIONS = {"n": "-n", "to": "--to", "lora": "--lora", "settings": "--set", "data": "--data"}
OFF = {"lora": "--full", "measure": "--no-measure"}
VERBS = {"resume": "train --resume", "load": "sample", "inspect_data": "data", "interpolate": "blend"}


def options_of(group: Any) -> frozenset[str]:
    """Every option of every command of a click group, and of the groups in it: --guidance, -n, ..."""
    inner = (options_of(c) for c in group.commands.values() if isinstance(c, typer.core.TyperGroup))
    own = frozenset(o for command in group.commands.values() for p in command.params for o in p.opts)
    return own.union(*inner)


def as_typed(text: str, known: Container[str]) -> str:
    """The message with its code in backticks as options and commands of the command line. `known` are the options that
    exist, --guidance, -n, ..."""
    return SPAN.sub(lambda span: typed(span[1], known) or span[0], text)


def typed(code: str, known: Container[str]) -> str | None:
    """One piece of code as it is typed; None if it is neither a parameter nor a call of this package."""
    if assigned := ASSIGNED.fullmatch(code):
        return option(assigned[1], assigned[2], known)
    try:
        call = ast.parse(code, mode="eval").body
    except SyntaxError:
        return None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
        return None
    owner = ast.unparse(call.func.value)
    if owner not in ("afresh", "model"):
        return None
    words = ["afresh", VERBS.get(call.func.attr, call.func.attr), *(["RUN"] if owner == "model" else [])]
    words += [argument(a) for a in call.args]
    for keyword in call.keywords:
        name = keyword.arg or ""
        if isinstance(keyword.value, ast.Dict):  # data={"size": 32}, settings={"train.lr": 0.001}
            pairs = zip(keyword.value.keys, keyword.value.values, strict=True)
            words += [f"{OPTIONS.get(name, name)} {argument(k)}={argument(v)}" for k, v in pairs if k is not None]
        else:
            words.append(option(name, argument(keyword.value), known) or "")
    return " ".join(w for w in words if w)


def argument(node: ast.expr) -> str:
    """An argument as a word of a shell; a name (PATH, RUN) as it is."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return shell_word(node.value)
    return ast.unparse(node)


def shell_word(text: str) -> str:
    """The text as it is typed in a shell. Only text with unusual characters needs more than the standard library."""
    if text.isprintable():
        return shlex.quote(text)
    from afresh.core.safe_text import shell_word

    return shell_word(text)


def option(name: str, value: str | None, known: Container[str]) -> str | None:
    """`name=value` as an option; None if it is not one of the `known`."""
    head, dot, field = name.partition(".")
    assigned = field if value is None else f"{field}={value}"
    if dot and head in SETTINGS:
        return f"--set {head}.{assigned}"
    if dot and head == "settings":
        return f"--set {assigned}"
    if dot and head == "data":
        return f"--data {assigned}"
    flag = OPTIONS.get(name, f"--{name.replace('_', '-')}")
    if not dot and flag not in known:
        flag = f"--set {name}"
    if dot or flag not in known:
        return None
    if flag.startswith("--set "):
        words = {"True": "yes", "False": "no"}
        return flag if value is None else f"{flag}={words.get(value, value.strip(chr(34)))}"
    if value is None or value == "True":
        return flag
    if value == "False":
        return OFF.get(name, f"--no-{name}")
    return f"{flag} {value.strip(chr(34))}"
