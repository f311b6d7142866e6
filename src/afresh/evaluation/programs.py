"""Completions of held-out programs; and programming tasks with tests: what a model is asked, what is run, and the share
of tasks it solves."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.core import CondSpec, Evidence, ItemKind, Metric, Score, Space, UserError
from afresh.evaluation.estimate import Estimate, share
from afresh.evaluation.study import Study, Unmeasurable, study_of

RESAMPLED = 2000  # of a bootstrap interval
# Where a program that goes on after its answer has begun something else (Chen et al. 2021, section 2.1; for whole
# programs Fried et al. 2023, appendix A).
AFTER_A_BODY = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n@")
AFTER_A_PROGRAM = ("\nassert", '\n"""', "\n'''", "\nprint", "\nif __name__", "\n```", "\n<|")


@dataclass(frozen=True)
class Task:
    """One task: the `prompt` to go on from, a `reference` answer where there is one, and the tests.

    `kept` says whether the prompt is part of the program (HumanEval) or only says what is wanted (MBPP).
    """

    name: str
    prompt: str
    reference: str | None
    tests: str
    kept: bool

    def answer(self, text: str) -> str:
        """What of a continuation is the answer: up to where something else begins."""
        found = [i for i in (text.find(s) for s in (AFTER_A_BODY if self.kept else AFTER_A_PROGRAM)) if i >= 0]
        return text[: min(found)] if found else text

    def program(self, answer: str, mark: str) -> str:
        """What is run. It prints `mark` on a line of its own at its very end, when all tests have passed: a program
        that leaves early with exit code 0 has passed none."""
        whole = self.prompt + answer if self.kept else answer
        return f"{whole}\n{self.tests}\nprint(); print({mark!r})\n"


def new_mark() -> str:
    return secrets.token_hex(8)


def passed(stdout: str, mark: str) -> bool:
    return stdout.endswith(f"\n{mark}\n")


def task_of(row: Mapping[str, Any], number: int) -> Task:
    """A record of MBPP ({text or prompt, test_list[, code, test_setup_code, task_id]}) or of HumanEval ({prompt, test,
    entry_point[, canonical_solution, task_id]}). Raises UserError naming what is missing."""
    name = str(row.get("task_id", number))

    def text(*fields: str, needed: bool = True) -> str:
        for field in fields:
            if isinstance(row.get(field), str):
                return str(row[field]).replace("\r\n", "\n")
        if needed:
            raise UserError(
                f"Task {name} (line {number}) has no text in {' or '.join(fields)}. A task is {{text, test_list}} as "
                f"in MBPP or {{prompt, test, entry_point}} as in HumanEval. Given: {', '.join(row) or 'nothing'}."
            )
        return ""

    if "entry_point" in row:
        tests = f"{text('test')}\ncheck({text('entry_point')})"
        reference = text("canonical_solution", needed=False) or None
        return Task(name, text("prompt"), reference, tests, True)
    listed = row.get("test_list")
    if not isinstance(listed, list) or not listed or not all(isinstance(t, str) for t in listed):
        raise UserError(f"Task {name} (line {number}) needs test_list, a list of lines such as 'assert f(1) == 2'.")
    tests = "\n".join(listed)
    setup = row.get("test_imports")
    first = "\n".join(setup) if isinstance(setup, list) else text("test_setup_code", needed=False)
    prompt = f'"""\n{text("text", "prompt").strip()}\n{tests}\n"""\n'
    # After the answer, for what it sets up may be made of the answer's own classes (MBPP 927).
    return Task(name, prompt, text("code", needed=False) or None, f"{first}\n{tests}", False)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The probability that one of k answers is right, unbiased, when c = `correct` of n drawn were: 1 - C(n - c, k) /
    C(n, k) (Chen et al. 2021, eq. 1), as a product, which does not overflow.

    Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (1 <= k <= n and 0 <= correct <= n):
        raise ValueError(f"pass@{k} of {correct} right among {n}")
    if n - correct < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - correct + 1, n + 1)))


def over_tasks(values: NDArray[np.float64], seed: int = 0) -> Estimate:
    """The mean over tasks (N,) with its bootstrap interval, 2.5% to 97.5% (Efron and Tibshirani 1993, chapter 13).

    Where all tasks agree on 0 or 1, which resampling cannot doubt, Wilson's interval.
    """
    n, value = len(values), float(values.mean())
    if value in (0.0, 1.0):
        return share(round(value) * n, n)
    rows = np.random.default_rng(seed).integers(0, n, (RESAMPLED, n))
    low, high = np.quantile(values[rows].mean(1), [0.025, 0.975])
    return Estimate(value, float(low), float(high), n)


def pass_scores(
    correct: Sequence[int], n: int, ks: Sequence[int], floor: float | None, control: float | None
) -> list[Score]:
    """pass@k over tasks, for each k up to n. `floor`: reference answers; `control`: empty ones."""
    out = []
    for k in ks:
        if k <= n:
            found = over_tasks(np.array([pass_at_k(n, c, k) for c in correct]))
            out.append(found.score(f"pass@{k}", "higher", floor, control))
    return out


# --------------------------------------------------------------------------- completions

HOLES = 64
TRIES = 40  # places looked at for each hole
LONGEST = 20_000  # characters of a file that is completed; parsing longer ones takes long
MOST_LINES = 2  # that a hole goes on for


def filled_space(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for text with the marks of fill-in-the-middle; else why not."""
    marks = ("fim_prefix", "fim_suffix", "fim_middle")
    if space.kind == "tokens" and all(m in space.special for m in marks):
        return None
    return "measures models that were trained to fill in the middle (code, `data.fim_rate`)"


def draw_holes(study: Study) -> list[tuple[str, str, str, str]]:
    """Holes in held-out files that are valid: (before, after, file's name, what was there).

    From a random character to the end of its line or of one of the next two. Only holes that leave an invalid file
    when nothing fills them, which can tell something.
    """
    files = [(str(i.value), i.source) for i in study.heldout_items if 0 < len(i.value) <= LONGEST]
    files = [f for f in files if study.valid(f[0])]
    if not files:
        raise Unmeasurable(f"no held-out file of at most {LONGEST:,} characters is valid")
    u = study.rng.uniform("holes", torch.arange(HOLES * TRIES), (3,)).tolist()
    out: list[tuple[str, str, str, str]] = []
    for which, where, lines in u:
        text, name = files[int(which * len(files))]
        start = end = int(where * len(text))
        for _ in range(1 + int(lines * (MOST_LINES + 1))):
            end = text.find("\n", end + 1)
            end = len(text) if end < 0 else end
        middle = text[start:end]
        if len(middle.strip()) > 1 and not study.valid(text[:start] + text[end:]):
            out.append((text[:start], text[end:], name, middle))
        if len(out) == HOLES:
            break
    if len(out) < 8:
        raise Unmeasurable("nearly every text is valid in this modality, one with a hole in it too")
    return out


def completions(evidence: Evidence) -> list[Score]:
    """Shares of holes in held-out programs after which the file is valid, and which are filled as they were.

    Floor: what was there; control: nothing (see `draw_holes`).
    """
    study = study_of(evidence)
    holes = draw_holes(study)
    found = study.complete([(before, after, name) for before, after, name, _ in holes])
    if found is None:
        raise Unmeasurable("the model was not trained to fill in the middle")
    n = len(holes)
    valid = sum(study.valid(before + text + after) for (before, after, *_), text in zip(holes, found, strict=True))
    same = sum(middle.rstrip() == text.rstrip() for (*_, middle), text in zip(holes, found, strict=True))
    return [
        share(valid, n).score("completions_valid", "higher", 1.0, 0.0),
        share(same, n).score("completions_exact", "higher", 1.0, 0.0),
    ]


METRICS: tuple[Metric, ...] = (Metric("completions", filled_space, completions),)
