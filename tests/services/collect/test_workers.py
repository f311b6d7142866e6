"""The processes that clean batches."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "pyarrow", "sklearn", "scipy", "pandas")


def test_what_a_process_that_cleans_needs_is_loaded_at_once() -> None:
    """Torch takes seconds and some 200 MB in each process, and cleaning does not need it."""
    code = (
        "import sys\n"
        "import afresh.services.collect.workers\n"
        "from afresh.services.collect.process import process\n"
        "from afresh.services.collect.record import Found\n"
        "from afresh.services.collect.rules import chosen\n"
        "found = [Found('a', b'<p>a few words of a page</p>', 'a.html'), Found('b', b'some more words', 'b.txt')]\n"
        "part = process('here', found, chosen(off=['words_few']))\n"
        "assert part.found == 2\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
