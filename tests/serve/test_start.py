"""The server starts without what only some requests need."""

from __future__ import annotations

import subprocess
import sys


def test_nothing_heavy_but_torch_is_imported_before_it_answers() -> None:
    code = "import sys, afresh.serve.run; print([m for m in ('sklearn', 'matplotlib', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
