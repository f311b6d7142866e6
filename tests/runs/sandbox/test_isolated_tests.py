"""Tests of an answer in another process: what a right answer may return, and that no answer can make a test hold."""

from __future__ import annotations

import pytest

from afresh.domains.code.metrics import held, new_mark, program_with_tests
from afresh.runs.sandbox.processes import Outcome, Sandbox, SandboxLimits
from tests import needs

pytestmark = [pytest.mark.slow, needs.sandbox]

BOX = Sandbox(SandboxLimits(seconds=5, memory_mb=256, processes=8))


def judged(answer: str, *tests: str, setup: str = "", given: str = "", entry: str = "") -> tuple[int, Outcome]:
    mark = new_mark()
    outcome = BOX.run(program_with_tests(answer, setup, tests, mark, given, entry))
    return held(outcome.stdout, mark, len(tests)), outcome


RIGHT = """
import math
from collections import Counter, deque, namedtuple
from dataclasses import dataclass
from enum import Enum, IntEnum
from fractions import Fraction

class Node:
    def __init__(self, value):
        self.value, self.next = value, None

@dataclass
class Vector:
    x: float
    y: float
    def __mul__(self, k): return Vector(self.x * k, self.y * k)
    def __add__(self, other): return Vector(self.x + other.x, self.y + other.y)
    def __len__(self): return 2
    def __iter__(self): return iter((self.x, self.y))
    def __lt__(self, other): return self.x < other.x

class Stack(list):
    def push(self, x):
        self.append(x)
        return self

class Wrong(ValueError): pass
class Colour(Enum):
    RED = 1
class Level(IntEnum):
    LOW = 3
Point = namedtuple("Point", "x y")
COUNT = 0
PRIMES = [2, 3]

def same(x): return x
def length(node): return 0 if node is None else 1 + length(node.next)
def sort_in_place(x): x.sort()
def count_up(n):
    for i in range(n): yield i
def fail(kind):
    raise Wrong("no") if kind == "own" else KeyError("k")
def apply(f, *xs): return [f(x) for x in xs]
def adder(n): return lambda x: x + n
def tally(x): return Counter(x)
def late(x): return re.sub("a", "b", x)
def values(node): return [node.value, *values(node.next)] if node else []
def root2(): return 2 ** 0.5
"""

HOLDS = [
    "same([1, (2.5, 'é\\ud800'), {3: {4}}, None, True, 1j, b'x', frozenset({5})]) "
    "== [1, (2.5, 'é\\ud800'), {3: {4}}, None, True, 1j, b'x', frozenset({5})]",
    "same(7 ** 9000) == 7 ** 9000 and same(float('inf')) > 1 and same(float('nan')) != same(float('nan'))",
    "isinstance(same((1,)), tuple) and type(same(True)) is bool and same(int) is int",
    "same(Fraction(1, 3)) == Fraction(1, 3) and same(range(3)) == range(3) and same(deque([1], 2)).maxlen == 2",
    "tally('aab') == {'a': 2, 'b': 1} and tally('aab').most_common(1) == [('a', 2)]",
    "Point(1, 2) == (1, 2) and Point(1, 2).x == 1 and [*Point(3, 4)] == [3, 4]",
    "Level.LOW == 3 and Colour.RED is Colour.RED and Colour.RED.name == 'RED' and Colour(1) == Colour.RED",
    "list(count_up(3)) == [0, 1, 2] and sum(count_up(4)) == 6 and next(count_up(1)) == 0",
    "Vector(1, 2) * 2 == Vector(2, 4) and Vector(1, 2) + Vector(0, 1) == Vector(1, 3) != Vector(0, 0)",
    "len(Vector(1, 2)) == 2 and [*Vector(1, 2)] == [1, 2] and Vector(1, 2).y == 2 and Vector(0, 0) < Vector(1, 0)",
    "isinstance(Vector(1, 2), Vector) and not isinstance(Node(1), Vector) and str(Vector(1, 2)) == 'Vector(x=1, y=2)'",
    "Stack().push(1).push(2) == [1, 2] and Stack([4]).push(5)[1] == 5 and 5 in Stack([5])",
    "apply(lambda x: x * 2, 1, 2) == [2, 4] and apply(len, 'ab') == [2] and adder(2)(3) == 5",
    "apply(adder(1), 1) == [2]",
    "raises(lambda: fail('own'), ValueError, 'no') and raises(lambda: fail('own'), Wrong, 'no')",
    "raises(lambda: fail(''), KeyError, 'k') and raises(lambda: apply(fail, 'x'), LookupError, 'k')",
    "raises(lambda: apply(lambda x: 1 / 0, 1), ZeroDivisionError, '') and raises(lambda: same(), TypeError, 'same')",
    "late('aba') == 'bbb'",  # by the import of the tests
    "length(root) == 2 and root.next.value == 2",
    "numbers == [1, 2, 3]",
    "COUNT == 0 and PRIMES == [2, 3]",
    "values(Own(1, Own(2))) == [1, 2]",
    "abs(root2() - 1.41421) < 1e-5 and round(root2(), 2) == 1.41 and math.isclose(root2(), math.sqrt(2))",
    "adder.__name__ == 'adder' and inspect.__name__ == 'inspect'",
]
SETUP = """
import re
import math
import inspect
from collections import deque
from fractions import Fraction

root = Node(1)
root.next = Node(2)
numbers = [3, 1, 2]
sort_in_place(numbers)

class Own:
    def __init__(self, value, next=None):
        self.value, self.next = value, next

def raises(act, kind, text):
    try:
        act()
    except kind as error:
        return text in str(error)
"""


def test_right_answers_pass() -> None:
    """Values of every kind, objects and classes, generators, functions as arguments, arguments changed in place, and
    exceptions cross between the two processes."""
    count, outcome = judged(RIGHT, *(f"assert {t}" for t in HOLDS), setup=SETUP)
    assert (count, outcome.status) == (len(HOLDS), "ok"), outcome.stderr


def test_a_name_of_python_is_the_answers_if_the_tests_use_no_other() -> None:
    assert judged("def sum(a, b): return a * b", "assert sum(3, 4) == 12")[0] == 1


def test_code_of_the_task_is_trusted_before_that_of_the_answer() -> None:
    given = "import math\n\ndef poly(x): return x * x - 4\n\ndef zero():\n    '''Find the zero of poly.'''\n"
    tests = "assert math.fabs(poly(zero())) < 1e-3"
    assert judged(f"{given}    return 2", tests, given=given, entry="zero")[0] == 1
    cheat = f"{given}    return 3\ndef poly(x): return 0\nclass math: fabs = abs"
    assert judged(cheat, tests, given=given, entry="zero")[0] == 0


CHEATS = {
    "reads the file": "print(open('main.py').read())",
    "looks for the text": """
import glob, os
for path in glob.glob('/box/**', recursive=True) + glob.glob('/proc/*/cmdline'):
    if os.path.isfile(path) and path != '/box/answer.py': print(open(path, errors='ignore').read())
""",
    "is equal to everything": """
class Any:
    def __eq__(self, other): return True
    __ne__ = __lt__ = __gt__ = __le__ = __ge__ = lambda self, other: True
    def __bool__(self): return True
    def __abs__(self): return self
    def __hash__(self): return 0
    __sub__ = __rsub__ = __add__ = __mul__ = __abs__ = __round__ = lambda self, *other: self
    __float__ = lambda self: 0.0
def f(x): return Any()
""",
    "makes differences small": """
class Near:
    def __sub__(self, other): return 0.0
    __rsub__ = __sub__
def f(x): return Near()
""",
    "makes small differences of differences": """
class Near:
    def __sub__(self, other): return self
    __rsub__ = __sub__
    def __abs__(self): return 0.0
    __float__ = __neg__ = __abs__
def f(x): return Near()
""",
    "is a number equal to everything": "class Any(int):\n    __eq__ = lambda a, b: True\ndef f(x): return Any(5)",
    "uses something equal to everything": "from unittest.mock import ANY, MagicMock\ndef f(x): return ANY",
    "replaces Python's functions": """
import builtins
abs = builtins.abs = lambda x: 0.0
builtins.isinstance = lambda *x: True
isclose = len = lambda *x: 1
def f(x): return 1000
""",
    "replaces modules": """
import sys, math
math.isclose = lambda *x: True
class math: isclose = fabs = lambda *x: True
open('/box/math.py', 'w').write('isclose = lambda *x: True')
def f(x): return 1000
""",
    "becomes another program": "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo 99; echo 99; exit 0'])",
    "becomes another program when asked": "import os\ndef f(x): os.execv('/bin/true', ['true'])",
    "leaves": "import os\ndef f(x): os._exit(0)",
    "leaves at once": "import sys; sys.exit(0)",
    "leaves politely": "def f(x): raise SystemExit(0)",
    "ends the tests": "import os, signal\ndef f(x): os.kill(os.getppid(), signal.SIGKILL)",
    "ends everything": "import os, signal\ndef f(x): os.kill(-1, signal.SIGKILL); os.kill(1, signal.SIGALRM)",
    "prints many results": "import re\ndef f(x):\n    for i in range(99): print(f'\\n{i} 5\\nMARK 5')\n    return 1",
    "skips the comparison": "import gc, sys\ndef f(x):\n    sys._getframe(1).f_globals['held'] = 99\n    return 1",
    "speaks for the other side": """
import gc, json, os
def f(x):
    link = next(o for o in gc.get_objects() if type(o).__name__ == 'Link')
    for kind in ({'named': ['unittest.mock', 'ANY']}, {'made': ['eval', ['1']]}, {'yours': -1}, {'list': 3}, [1],
                 {'named': ['afresh_tests', 'helper']}, {'mine': 5, 'plain': {'named': ['builtins', 'object']}}):
        link.send('reply', kind, [])
    link.send('ask', 'getattr', [{'yours': 0}, '__globals__'], {})
    link.send('ask', 'call', [{'named': ['builtins', 'eval']}, '1'], {})
    return 1
""",
    "walks from what it was given": """
def f(x):
    try: return x.__globals__['EXPECTED']
    except Exception: pass
    try: return x.__class__.__init__.__globals__['EXPECTED']
    except Exception: pass
    try: return x.__self__.EXPECTED
    except Exception: pass
    return 1
""",
    "changes what it was given": """
def f(x):
    try: x.__code__ = (lambda: 1).__code__
    except Exception: pass
    return 1
""",
}
TESTS = [
    "assert f(helper) == EXPECTED",
    "assert EXPECTED == f(helper)",
    "assert abs(f(helper) - 41.5) < 1e-6",
    "assert abs(41.5 - f(helper)) < 1e-6",
    "assert math.isclose(f(3), 41.5, rel_tol=1e-9)",
    "assert f(3) in (41.5, 42)",
    "assert [f(3), 1] == [41.5, 1]",
    "assert {1: f(3)} == {1: 41.5}",
    "assert not f(3) != 41.5",
    "assert 41 < f(3) < 42",
    "assert isinstance(f(3), float) and f(3) > 40 and f(3) < 42",
    "assert -(f(3) - 41.5) == 0 and float(f(3) - 41.5) == 0",
]


@pytest.mark.parametrize("name", CHEATS)
def test_no_answer_makes_a_test_hold(name: str) -> None:
    setup = "import math\nEXPECTED = 41.5\ndef helper(x=0): return EXPECTED\n"
    count, outcome = judged(CHEATS[name], *TESTS, setup=setup)
    assert count == 0, outcome
    assert "41.5" not in outcome.stdout


def test_a_forgery_is_named() -> None:
    _, outcome = judged(CHEATS["makes differences small"], "assert abs(f(1) - 41.5) < 1e-6")
    assert "could be forged" in outcome.stderr and outcome.status == "error"


def test_how_the_answer_ends_is_how_the_program_ends() -> None:
    assert judged("import sys; sys.exit(3)", "assert f(1)")[1].code == 3
    assert judged("import os; os.kill(os.getpid(), 11)", "assert f(1)")[1].signal == 11
    _, outcome = judged("def f(x):\n    return [0] * 10**10", "assert f(1)")
    assert outcome.status == "memory" and not outcome.left
    assert "line 2, in f" not in outcome.stdout
    assert "SyntaxError" in judged("def f(:", "assert f(1)")[1].stderr
