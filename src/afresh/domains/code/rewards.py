"""The reward of programs: the share of tests that they pass, each in the sandbox of `afresh solve`."""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from afresh.core import UserError
from afresh.data.text.kind import TEXT
from afresh.domains.code.metrics import held, new_mark, program_with_tests
from afresh.engine.alignment.rewards.reward import Builtin, Context, Request, Reward, required, whole_file
from afresh.runs.sandbox.processes import Sandbox

NAME = "passes"


def passing(path: Path) -> Reward:
    """The share of the assertions of a Python file that hold when they are run after a prompt and its text.

    All other statements of the file, such as imports and functions, are run before the assertions. Raises UserError for
    a file without assertions, and if no sandbox is available.
    """
    try:
        body = ast.parse(path.read_text("utf-8")).body
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError) as e:
        raise UserError(
            f"{NAME}:{path}: the tests cannot be read ({e}). Name a Python file with assert statements."
        ) from e
    tests = [ast.unparse(s) for s in body if isinstance(s, ast.Assert)]
    if not tests:
        raise UserError(f"{NAME}:{path} has no assert statement outside functions: there is nothing to pass.")
    first = "\n".join(ast.unparse(s) for s in body if not isinstance(s, ast.Assert))
    sandbox = Sandbox()
    sandbox.check()

    def one(pair: tuple[Any, Request]) -> float:
        text, request = pair
        mark = new_mark()
        outcome = sandbox.run(program_with_tests(f"{request.get('prompt') or ''}{text}", first, tests, mark))
        return held(outcome.stdout, mark, len(tests)) / len(tests)

    def score(items: Sequence[Any], requests: Sequence[Request]) -> list[float]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(one, zip(items, requests, strict=True)))

    return Reward(f"{NAME}:{path}", score, TEXT)


def passes(argument: str | None, context: Context) -> Reward:
    """The share of the assertions of a Python file that hold when they are run after a program."""
    return passing(Path(required(NAME, "TESTS.py", argument)))


HELP = "passes:TESTS.py, share of the assertions of a Python file that hold after a program"
REWARDS = {TEXT.name: {NAME: Builtin(passes, HELP, file=whole_file)}}
