"""Functions and programs that people bring: right ones give their numbers, wrong ones are stopped and named."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afresh.core import ItemKind, RewardError, UserError
from afresh.data.image.kind import IMAGE
from afresh.data.text.kind import TEXT
from afresh.domains.molecule.kind import MOLECULE
from afresh.engine.alignment.rewards.callable_reward import RewardCaller
from afresh.engine.alignment.rewards.programs import Process, end, of_function
from afresh.engine.alignment.rewards.reward import Context, Reward, Scorer, attempted, checked
from afresh.engine.alignment.rewards.reward_expression import build
from tests.heard import heard
from tests.warm import Warm

pytestmark = pytest.mark.slow

WORDS = ["a", "bb", "ccc"]
ASKED = [{"prompt": "p" * i, "label": "cat"} for i in range(3)]
ROWS = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)

MINE = '''
import os, sys, time
import numpy as np
import beside

loaded = []

def vowels(text: str) -> float:
    """Of one text."""
    print("this goes to standard error")
    return sum(c in "aeiou" for c in text)

def all_at_once(texts: list[str]):
    loaded.append(1)
    return [len(t) + 100 * len(loaded) for t in texts]

def asked(text, request):
    return len(request["prompt"])

def mean(picture):
    assert picture.shape == (4, 5, 3) and picture.dtype == np.uint8
    return picture.mean()

def bad(text: str):
    return 1 / (len(text) - 2)

def hangs(text: str):
    if text == "bb":
        while True:
            try:
                time.sleep(1)
            except BaseException:
                pass
    return os.getpid()

def crashes(text: str):
    if text == "bb":
        os.kill(os.getpid(), 11)
    return len(text)

def dies(text: str):
    os.kill(os.getpid(), 11)

def leaves(text: str):
    sys.exit(3)

def nothing(text: str):
    len(text)

number = beside.NUMBER
'''


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rewards")
    (folder / "beside.py").write_text("NUMBER = 3\n")
    (folder / "mine.py").write_text(MINE)
    return folder / "mine.py"


def scores(reward: Reward, items: Any = WORDS, requests: Any = ASKED) -> list[float]:
    try:
        return [float(v) for v in checked(reward, items, requests)]
    finally:
        reward.close()


def named(file: Path, function: str, seconds: float = 60, kind: ItemKind = TEXT) -> Reward:
    return build(f"'{file}:{function}'", Context(kind, seconds=seconds))


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


# ------------------------------------------------------------------------------------------------------- functions


def test_a_function_is_found_by_its_file_and_keeps_its_state(mine: Path) -> None:
    reward = named(mine, "all_at_once")
    assert checked(reward, WORDS, ASKED).tolist() == [101, 102, 103]
    assert scores(reward) == [201, 202, 203]


def test_functions_of_texts_requests_and_pictures(mine: Path) -> None:
    assert scores(named(mine, "vowels"), ["aei", "", "\ud800x"]) == [3, 0, 0]
    assert scores(named(mine, "asked")) == [0, 1, 2]
    assert scores(named(mine, "mean", kind=IMAGE), ROWS) == pytest.approx(list(ROWS.mean((1, 2, 3))))


def test_a_function_of_a_module_that_is_installed() -> None:
    assert scores(build("0.5*builtins:len", Context(TEXT))) == [0.5, 1, 1.5]


def test_an_exception_names_the_item_and_the_line(mine: Path) -> None:
    line = MINE.splitlines().index("    return 1 / (len(text) - 2)") + 1
    with pytest.raises(RewardError, match=rf"item 1, 'bb': ZeroDivisionError.*mine.py, line {line}"):
        scores(named(mine, "bad"))
    with pytest.raises(RewardError, match=r"item 0, 'a': it returned None .is a return statement missing"):
        scores(named(mine, "nothing"))
    with pytest.raises(RewardError, match="items 0 to 2: SystemExit"):
        scores(named(mine, "leaves"))


def test_a_function_that_hangs_is_ended_and_goes_on_in_a_new_process(mine: Path) -> None:
    reward = named(mine, "hangs", seconds=3)
    first = int(checked(reward, ["a"], [{}])[0])
    with pytest.raises(RewardError, match="item 1, 'bb': it did not finish within 3 s"):
        checked(reward, WORDS, ASKED)
    assert gone(first)
    second = int(scores(reward, ["a"], [{}])[0])
    assert second != first and gone(second)


def test_a_function_that_crashes_ends_only_its_own_process(mine: Path) -> None:
    with pytest.raises(RewardError, match="ended by the signal SIGSEGV"):
        scores(named(mine, "dies"))


@pytest.mark.parametrize(
    ("function", "why"), [("missing", "no attribute 'missing'"), ("number", "not a function but int")]
)
def test_what_cannot_be_loaded(mine: Path, function: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        named(mine, function)


def test_a_function_that_is_not_there_is_told_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text("def long(text):\n    return 1\n\n\ndef short(text):\n    return 0\n")
    with pytest.raises(UserError, match=r"'shrot'\. Functions in .*r\.py: long, short\. Name a function as"):
        build(f"{tmp_path / 'r.py'}:shrot", Context(TEXT))


def test_a_module_that_is_not_there_may_be_a_slip() -> None:
    with pytest.raises(UserError, match=r"No module named 'lenght'.*Did you mean length"):
        build("lenght:words", Context(TEXT))


def one(text):  # type: ignore[no-untyped-def]
    return len(text) / 10 if isinstance(text, str) else text.no_list


def many(texts):  # type: ignore[no-untyped-def]
    return np.array([len(t) / 10 for t in texts])


def both(text):  # type: ignore[no-untyped-def]
    """Takes either, and of a list gives one number: their count."""
    return len(text) / 10


def listed(texts: list[str], requests: Any = None) -> list[float]:
    assert isinstance(texts, list) and len(requests) == len(texts)
    return [len(t) / 10 for t in texts]


def single(text: str, other: int = 0) -> float:
    assert isinstance(text, str) and other == 0
    return len(text) / 10


@pytest.mark.parametrize("function", [one, many, both, listed, single])
def test_lists_and_single_items(function: Callable[..., Any]) -> None:
    """Whatever a function takes, annotated or not, its numbers are the same, in batches of one too."""
    assert scores(of_function(function)) == pytest.approx([0.1, 0.2, 0.3])
    reward = of_function(function)
    found = [float(checked(reward, [w], [r])[0]) for w, r in zip(WORDS, ASKED, strict=True)]
    assert found == pytest.approx([0.1, 0.2, 0.3])


def test_of_a_list_the_item_that_fails_is_found() -> None:
    def bad(texts: list[str]) -> list[float]:
        return [1 / (len(t) - 3) for t in texts]

    with pytest.raises(RewardError, match="The reward bad failed for item 2, 'ccc': ZeroDivisionError"):
        scores(of_function(bad))


def test_annotations_in_words() -> None:
    def f(x: Any) -> float:
        return 0.0

    for words, many in [("list[str]", True), ("Sequence[str]", True), ("typing.List[str]", True), ("str", False)]:
        f.__annotations__["x"] = words
        assert RewardCaller(f).takes_lists is many


def test_a_function_at_hand_is_stopped_whatever_it_catches() -> None:
    def hangs(text: str) -> float:
        while True:
            with suppress(Exception):
                time.sleep(3600)  # which would be longer than a test may take

    handler = signal.getsignal(signal.SIGALRM)
    with pytest.raises(RewardError, match=r"not finish within 0.2 s"):
        scores(of_function(hangs, seconds=0.2))
    assert signal.getsignal(signal.SIGALRM) is handler


def test_a_regular_expression_for_ever() -> None:
    with pytest.raises(RewardError, match="not finish within"):
        scores(build("matches:(a|aa)+$", Context(TEXT, seconds=0.3)), ["a" * 200 + "b"], [{}])


def test_another_thread_has_no_limit_but_its_numbers() -> None:
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.extend(scores(of_function(single, seconds=0.5))))
    thread.start()
    thread.join()
    assert found == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(("function", "failing"), [("hangs", "bb"), ("crashes", "bb"), ("bad", "aa")])
def test_items_that_a_function_fails_for_cost_the_others_nothing(mine: Path, function: str, failing: str) -> None:
    words = ["a", failing, "ccc", "dddd"]
    reward = named(mine, function, seconds=3)
    values, reasons = attempted(reward, words, [{}] * 4)
    reward.close()
    assert list(reasons) == [1] and np.isfinite(values).tolist() == [True, False, True, True]


def test_molecules_are_given_to_a_function_as_text_valid_or_not(mine: Path) -> None:
    assert scores(named(mine, "vowels", kind=MOLECULE), ["CCO", "C1CC", "oo"]) == [0, 0, 2]


# -------------------------------------------------------------------------------------------------------- programs


def program(folder: Path, body: str, seconds: float = 60, workers: int = 1, kind: ItemKind = TEXT) -> Reward:
    """A program in Python, which starts fast with -I -S, that has `lines`, the objects it was given."""
    file = folder / "prog"
    file.write_text(
        f"#!{sys.executable} -IS\nimport json, os, sys, time\nlines = [json.loads(l) for l in sys.stdin]\n{body}\n"
    )
    file.chmod(0o755)
    return build(f"!{file} -n '-'", Context(kind, seconds=seconds, workers=workers))


def test_a_program_reads_objects_and_prints_numbers(tmp_path: Path) -> None:
    body = (
        "for l in lines: print(len(l['text']) + 10 * len(l['request']['prompt']))\nassert sys.argv[1:] == ['-n', '-']"
    )
    assert scores(program(tmp_path, body)) == [1, 12, 23]
    assert scores(program(tmp_path, body), ["\ud800\n"], [{"prompt": ""}]) == [2]


def test_a_program_is_given_pictures_as_files(tmp_path: Path) -> None:
    """Width and height stand in a PNG's header."""
    body = "for l in lines:\n    h = open(l['file'], 'rb').read()[16:24]\n    print(100 * h[3] + h[7])"
    assert scores(program(tmp_path, body, kind=IMAGE), [*ROWS, ROWS[0, :2, :, :1]], [{}] * 4) == [
        504,
        504,
        504,
        502,
    ]


def test_processes_share_a_batch_in_order(tmp_path: Path) -> None:
    reward = program(tmp_path, "for l in lines: print(int(l['text']) + 1e6 * len(lines))", workers=3)
    assert scores(reward, [str(i) for i in range(30)], [{}] * 30) == [1e7 + i for i in range(30)]
    body = "for l in lines: print('x' if l['text'] == '25' else 1)"
    with pytest.raises(RewardError, match="item 25, '25'"):
        scores(program(tmp_path, body, workers=3), [str(i) for i in range(30)], [{}] * 30)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("print(1)", "items 0 to 2: the program printed 1 lines for 3 items"),
        ("print('1\\n' * 4)", "printed 5 lines for 3 items"),
        ("print(1); print(); print(3)", "item 1, 'bb': the program printed '', which is not a number"),
        ("print(1); print('nan'); print(3)", "item 1, 'bb': it returned nan"),
        ("print(1); raise ValueError('out of it')", "item 1, 'bb': .* exit code 1 after 1 of(?s:.*)out of it"),
        ("os.kill(os.getpid(), 9)", "SIGKILL after 0 of 3 lines. It wrote nothing"),
        ("os.close(0)\nwhile True: print('much ' * 99)", "far more than 3 numbers"),
    ],
)
def test_programs_that_do_wrong(tmp_path: Path, body: str, why: str) -> None:
    with pytest.raises(RewardError, match=why):
        scores(program(tmp_path, body))


DOCKING = """
for number, line in enumerate(lines):
    if line["text"] == "hangs":
        time.sleep(100)
    if line["text"] == "crashes":
        os.kill(os.getpid(), 11)
    if line["text"] == "none":
        print("no pose found")
        continue
    print(float("nan") if line["text"] == "nan" else -len(line["text"]), flush=FLUSH)
    asked.write(line["text"] + "\\n")
    asked.flush()
"""


@pytest.mark.parametrize("flush", [True, False])
def test_molecules_that_a_program_fails_for_cost_the_others_nothing(tmp_path: Path, flush: bool) -> None:
    items = ["CC", "hangs", "CCC", "crashes", "CCCC", "none", "nan", "C"]
    body = f"asked = open({str(tmp_path / 'asked')!r}, 'a')\n{DOCKING.replace('FLUSH', str(flush))}"
    reward = program(tmp_path, body, seconds=2, kind=MOLECULE)
    values, reasons = attempted(reward, items, [{}] * len(items))
    assert values[[0, 2, 4, 7]].tolist() == [-2, -3, -4, -1]
    assert sorted(reasons) == [1, 3, 5, 6]
    said = ["not finish within 2 s", "SIGSEGV", "'no pose found', which is not a number", "returned nan"]
    assert all(part in reasons[i] for i, part in zip((1, 3, 5, 6), said, strict=True))
    if flush:  # what was printed before is not asked for again
        assert (tmp_path / "asked").read_text().split().count("CC") == 1
    with heard("has no value for 4 of 8 items so far"):
        found = Scorer(reward)(items).tolist()
    assert found == [-2, -4, -3, -4, -4, -4, -4, -1]


def test_a_program_that_fails_for_every_item_is_given_up_soon(tmp_path: Path) -> None:
    body = f"open({str(tmp_path / 'starts')!r}, 'a').write('x')\nos.kill(os.getpid(), 11)"
    with pytest.raises(RewardError, match="the program was ended by the signal SIGSEGV after 0 of 100 lines"):
        Scorer(program(tmp_path, body), batch=100)(["C"] * 100)
    assert len((tmp_path / "starts").read_text()) == 4


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    body = f"""
pid = os.fork()
if pid:
    open({str(tmp_path / "pid")!r}, "w").write(f"{{pid}} {{os.getpid()}}")
    print("still at it", file=sys.stderr, flush=True)
time.sleep(100)
"""
    begun = time.monotonic()
    with pytest.raises(RewardError, match=r"not finish within 2 s.*still at it"):
        scores(program(tmp_path, body, seconds=2))
    assert time.monotonic() - begun < 60
    assert all(gone(int(pid)) for pid in (tmp_path / "pid").read_text().split())


def test_a_program_need_not_read_all_of_its_input(tmp_path: Path) -> None:
    text = "x" * 1_000_000
    assert scores(build("!sh -c 'echo 1; echo 2'", Context(TEXT, workers=1)), [text, text], [{}] * 2) == [1, 2]


def test_a_program_that_cannot_run(tmp_path: Path) -> None:
    (tmp_path / "prog").write_text("no script")
    with pytest.raises(UserError, match=r"chmod \+x"):
        build(f"!{tmp_path}/prog", Context(TEXT))
    (tmp_path / "prog").chmod(0o755)
    with pytest.raises(RewardError, match="#!/bin/sh"):
        scores(build(f"!{tmp_path}/prog", Context(TEXT)))


# ------------------------------------------------------------------------------------------------ who asked is gone

ASKING = """
import sys
from pathlib import Path
from afresh.engine.alignment.rewards.programs import python_function, shell_program
from afresh.engine.alignment.rewards.reward import Context
from afresh.data.text.kind import TEXT

folder, kind = Path(sys.argv[1]), sys.argv[2]
context = Context(TEXT, [], 600.0, folder=folder, workers=1)
if kind == "program":
    reward = shell_program("!x", ["sh", "-c", "sleep 600 & echo $$ $! > told.tmp; mv told.tmp told; wait"], context)
else:
    reward = python_function("hangs", str(folder / "hangs.py"), "hangs", context)
reward.score(["a"], [{}])
"""
HANGS = """
import os, subprocess
def hangs(text: str) -> float:
    child = subprocess.Popen(["sleep", "600"])
    with open("told.tmp", "w") as told:
        told.write(f"{os.getpid()} {child.pid}")
    os.rename("told.tmp", "told")
    child.wait()
"""


def is_there(pid: int) -> bool:
    """Whether a process runs: one that has ended and is not waited for by anybody does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("kind", ["program", "function"])
def test_a_program_ends_with_the_process_that_asked_it_however_that_ends(kind: str, tmp_path: Path, warm: Warm) -> None:
    (tmp_path / "hangs.py").write_text(HANGS)
    asking = warm.start("-c", ASKING, tmp_path, kind)
    told = tmp_path / "told"
    while not told.exists():
        assert asking.poll() is None
        time.sleep(0.02)
    own = [int(pid) for pid in told.read_text().split()]
    assert all(map(is_there, own))
    asking.kill()
    asking.wait()
    for _ in range(3000):
        if not any(map(is_there, own)):
            break
        time.sleep(0.02)
    assert not any(map(is_there, own))


def test_a_program_ends_as_it_would_alone(tmp_path: Path) -> None:
    for script, code in (("exit 3", 3), ("kill -9 $$", -9), ("kill -15 $$", -15), ("exec true", 0)):
        process = Process(["sh", "-c", script], None, tmp_path)
        assert process.wait() == code
        end(process)
    with pytest.raises(FileNotFoundError, match="nothing-of-the-kind"):
        Process(["nothing-of-the-kind"], None, tmp_path)
