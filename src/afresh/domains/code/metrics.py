"""Metrics of programs: completions of held-out files, and programming tasks that are checked by running tests."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afresh.core import CondSpec, Evidence, ItemKind, Judgement, Metric, Question, Score, ScoreWords, Space, UserError
from afresh.engine.evaluation.estimate import bootstrap, share
from afresh.engine.evaluation.study import Study, Unmeasurable, study_of
from afresh.engine.evaluation.text_scores import copied_share, predicts_well, repeated
from afresh.engine.evaluation.verdict import place
from afresh.runs.run import Run
from afresh.runs.sandbox import isolated_tests
from afresh.verbs.cursor import FILL_IN, Hole, complete_many, mode_of

TESTS = Path(isolated_tests.__file__)
LIKELIEST = {"temperature": 0.0}
# Strings at which an answer ends because something else begins (Chen et al. 2021, section 2.1; for complete programs
# Fried et al. 2023, appendix A).
AFTER_A_BODY = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n@")
AFTER_A_PROGRAM = ("\nassert", '\n"""', "\n'''", "\nprint", "\nif __name__", "\n```", "\n<|")


@dataclass(frozen=True)
class CodeTask:
    """A programming task: the `prompt` to continue, a `reference` answer if there is one, and the tests.

    `prompt_is_code`: whether the prompt is part of the program (HumanEval) or only describes the task (MBPP). `entry`:
    the function to complete, if the task names it. `setup` is run before the tests.
    """

    name: str
    prompt: str
    reference: str | None
    tests: str
    prompt_is_code: bool
    setup: str = ""
    entry: str = ""

    def answer(self, text: str) -> str:
        """The part of a continuation that is the answer: up to where something else begins."""
        stops = AFTER_A_BODY if self.prompt_is_code else AFTER_A_PROGRAM
        ends = [i for i in (text.find(s) for s in stops) if i >= 0]
        return text[: min(ends)] if ends else text

    def program(self, answer: str, mark: str) -> str:
        """The program that tests an answer (see `program_with_tests`): its one test stands for all of the task's."""
        code = self.prompt + answer if self.prompt_is_code else answer
        given = self.prompt if self.prompt_is_code else ""
        return program_with_tests(code, self.setup, [self.tests], mark, given, self.entry)


def program_with_tests(
    answer: str, setup: str, tests: Sequence[str], mark: str, given: str = "", entry: str = ""
) -> str:
    """A program that runs an answer, and in another process the setup and each of the tests (isolated_tests.py).

    `mark`, which the answer cannot see, is printed before the number of tests that hold. `given`: code of the task that
    the tests may use, but for the function `entry`, which the answer defines.
    """
    source = TESTS.read_text("utf-8")
    task: dict[str, Any] = {"source": source, "answer": answer, "given": given, "entry": entry}
    task |= {"setup": setup, "tests": list(tests), "mark": mark}
    return f"{source}\n\njudge(json.loads({json.dumps(task)!r}))\n"


def new_mark() -> str:
    """A random mark, which a program cannot guess."""
    return secrets.token_hex(8)


def held(stdout: str, mark: str, most: int) -> int:
    """How many of at most `most` tests held, from the output of a `program_with_tests`; 0 if it ended before."""
    found = re.search(rf"(?m)^{mark} ([0-9]{{1,9}})$", stdout)
    return min(int(found[1]), most) if found else 0


def task_of(row: Mapping[str, Any], number: int) -> CodeTask:
    """A task from a record of MBPP ({text or prompt, test_list[, code, test_setup_code, task_id]}) or of HumanEval
    ({prompt, test, entry_point[, canonical_solution, task_id]}). Raises UserError naming the missing fields."""
    name = str(row.get("task_id", number))

    def text(*fields: str, needed: bool = True) -> str:
        for field in fields:
            if isinstance(row.get(field), str):
                return str(row[field]).replace("\r\n", "\n")
        if needed:
            raise UserError(
                f"Task {name} (line {number}) has no text in {' or '.join(fields)}. A task has {{text, test_list}} as "
                f"in MBPP or {{prompt, test, entry_point}} as in HumanEval. Given: {', '.join(row) or 'nothing'}."
            )
        return ""

    if "entry_point" in row:
        entry = text("entry_point")
        reference = text("canonical_solution", needed=False) or None
        return CodeTask(name, text("prompt"), reference, f"{text('test')}\ncheck({entry})", True, entry=entry)
    listed = row.get("test_list")
    if not isinstance(listed, list) or not listed or not all(isinstance(t, str) for t in listed):
        raise UserError(f"Task {name} (line {number}) needs test_list, a list of lines such as 'assert f(1) == 2'.")
    tests = "\n".join(listed)
    setup = row.get("test_imports")
    first = "\n".join(setup) if isinstance(setup, list) else text("test_setup_code", needed=False)
    prompt = f'"""\n{text("text", "prompt").strip()}\n{tests}\n"""\n'
    # The setup is run after the answer, since it may use classes of the answer (MBPP 927).
    return CodeTask(name, prompt, text("code", needed=False) or None, tests, False, first)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of the probability that one of k answers is right, if c = `correct` of n samples are right.

    1 - C(n - c, k) / C(n, k) (Chen et al. 2021, eq. 1), as a product, which does not overflow. Raises ValueError unless
    0 <= c <= n and 1 <= k <= n.
    """
    if not (1 <= k <= n and 0 <= correct <= n):
        raise ValueError(f"pass@{k} is not defined for {correct} right answers of {n}")
    if n - correct < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - correct + 1, n + 1)))


def pass_scores(
    correct: Sequence[int], n: int, ks: Sequence[int], floor: float | None, control: float | None
) -> list[Score]:
    """pass@k over tasks, for each k up to n. `floor`: that of reference answers; `control`: that of empty answers."""
    out = []
    for k in ks:
        if k <= n:
            estimate = bootstrap(np.array([pass_at_k(n, c, k) for c in correct]))
            out.append(estimate.score(f"pass@{k}", "higher", floor, control))
    return out


# --------------------------------------------------------------------------- completions

HOLES = 64
TRIES = 40  # random positions per hole
MAX_FILE = 20_000  # characters of a file that is completed; parsing longer ones is slow
MAX_LINES = 2  # after the first line of a hole


def filled_space(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for text with the special tokens of fill-in-the-middle, else the reason why not."""
    marks = ("fim_prefix", "fim_suffix", "fim_middle")
    if space.kind == "tokens" and all(m in space.special for m in marks):
        return None
    return "measures models that were trained to fill in the middle (code, `data.fim_rate`)"


def draw_holes(study: Study) -> list[tuple[str, str, str, str]]:
    """Holes in valid held-out files, as (text before, text after, name of the file, original text).

    A hole reaches from a random character to the end of its line or of one of the next two. Only holes that make the
    file invalid when they stay empty are used, since others are not informative. Raises Unmeasurable if there are few.
    """
    files = [(str(i.value), i.source) for i in study.heldout_items if 0 < len(i.value) <= MAX_FILE]
    files = [f for f in files if study.valid(f[0])]
    if not files:
        raise Unmeasurable(f"no held-out file of at most {MAX_FILE:,} characters is valid")
    u = study.rng.uniform("holes", torch.arange(HOLES * TRIES), (3,)).tolist()
    out: list[tuple[str, str, str, str]] = []
    for which, where, lines in u:
        text, name = files[int(which * len(files))]
        start = end = int(where * len(text))
        for _ in range(1 + int(lines * (MAX_LINES + 1))):
            end = text.find("\n", end + 1)
            end = len(text) if end < 0 else end
        middle = text[start:end]
        if len(middle.strip()) > 1 and not study.valid(text[:start] + text[end:]):
            out.append((text[:start], text[end:], name, middle))
        if len(out) == HOLES:
            break
    if len(out) < 8:
        raise Unmeasurable("nearly every text is valid in this modality, even with a hole in it")
    return out


def completer_of(run: Run, evidence: Evidence) -> Callable[[Sequence[Hole]], list[str]] | None:
    """The function that fills holes with the likeliest text; None for a run trained without fill-in-the-middle."""
    if mode_of(run) != FILL_IN:
        return None
    return lambda holes: [c.text for c in complete_many(run, holes, seed=evidence.rng.seed, settings=LIKELIEST)[0]]


def completions(evidence: Evidence) -> list[Score]:
    """Shares of holes in held-out programs whose completion makes the file valid, and equals the original.

    Floor: the original text. Control: empty completions (see `draw_holes`).
    """
    study = study_of(evidence)
    holes = draw_holes(study)
    fill = study.tool(completer_of)
    if fill is None:
        raise Unmeasurable("the model was not trained to fill in the middle")
    filled = fill([Hole(before, after, name) for before, after, name, _ in holes])
    n = len(holes)
    valid = sum(study.valid(before + text + after) for (before, after, *_), text in zip(holes, filled, strict=True))
    same = sum(middle.rstrip() == text.rstrip() for (*_, middle), text in zip(holes, filled, strict=True))
    return [
        share(valid, n).score("completions_valid", "higher", 1.0, 0.0),
        share(same, n).score("completions_exact", "higher", 1.0, 0.0),
    ]


# --------------------------------------------------------------------------- verdict

SPELT = 1 / 3  # noise: the place of known words, of which half are names that models alter, is below this
PARSED = 0.2  # noise: the place of programs that are valid so far is below this
MOSTLY = 0.7  # good: that place is above this


def judge_programs(scores: Mapping[str, Score], plural: str) -> Judgement | None:
    """The judgement on programs; None where validity does not tell programs from other texts."""
    parsed = place(scores.get("parses"))
    if parsed is None:
        return None
    real = scores["parses"].floor or 0.0
    found = f"{scores['parses'].value:.0%} of the programs are valid so far, {real:.0%} of real ones"
    if (distinct := repeated(scores)) is not None:
        return "collapsed", f"The programs repeat themselves: they have {distinct:.0%} of the variety of real ones."
    known = place(scores.get("known_words"))
    if parsed < PARSED and (known is None or known < SPELT):
        return "noise", f"The programs are letters rather than words of a language: {found}."
    if (copied := copied_share(scores)) is not None:
        return "memorised", f"{copied:.0%} of the programs occur in the training programs word for word."
    if not any(name.startswith("bits_per_byte") for name in scores) and parsed > MOSTLY:
        return "cannot tell", f"{found}. Only a likelihood tells the rest."
    well, foreseen = predicts_well(scores)
    if well and parsed > MOSTLY:
        return "good", f"The programs are like real ones: {found}, and {foreseen}."
    return "recognisable", f"The programs are in the language of the data, but not like real ones: {found}; {foreseen}."


WORDS = {
    "completions_valid": ScoreWords(
        "valid completions", "The share of holes filled so that the file is valid.", Question.FOLLOWS
    ),
    "completions_exact": ScoreWords(
        "exact completions", "The share of holes filled as in the original.", Question.FOLLOWS
    ),
}
METRICS: tuple[Metric, ...] = (Metric("completions", filled_space, completions, words=WORDS, judge=judge_programs),)
