"""Forks behave as processes that Python was started for."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.warm import Warm


def test_a_fork_is_a_process_of_its_own(warm: Warm, tmp_path: Path) -> None:
    code = "import os, sys; print(sys.stdin.read(), os.getcwd(), sys.argv[1:], file=sys.stderr); sys.exit(3)"
    with warm.start("-c", code, 1, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write("héllo")
        process.stdin.close()
        assert process.stderr.read() == f"héllo {Path.cwd()} ['1']\n"
        assert process.wait() == 3


def test_a_fork_is_killed_and_interrupted_like_any_other(warm: Warm) -> None:
    code = "import time; print(1, flush=True); time.sleep(60)"
    for number, expected in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 1)):
        with warm.start("-c", code, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None and process.stdout.readline() == "1\n"
            process.send_signal(number)
            assert process.wait() == expected
