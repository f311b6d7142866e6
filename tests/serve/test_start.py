"""The server starts without what only some requests need."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from afresh.serve.app import ServeSettings
from afresh.serve.run import server_of


def test_nothing_heavy_but_torch_is_imported_before_it_answers() -> None:
    code = "import sys, afresh.serve.run; print([m for m in ('sklearn', 'matplotlib', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_log_handlers_of_the_process_stay_open(tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "log")
    server_of(ServeSettings([tmp_path], memory=2**20))
    assert handler.stream is not None, "uvicorn's own configuration of logging closes every handler"
    handler.close()
