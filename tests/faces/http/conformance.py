"""Every answer has the form that /openapi.json describes, whatever is sent, and none is the server's own fault.

Run by `make nightly`, which installs schemathesis.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.timeout(3600)  # four minutes of a core for 24 endpoints
def test_answers_conform_to_the_description(everything: str, tmp_path: Path) -> None:
    needs.package("schemathesis", "schemathesis")
    examples = os.environ.get("EXAMPLES", "50")
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{everything}/openapi.json",
        "--checks",
        CHECKS,
    ]
    command += ["--phases", "coverage,fuzzing", "--max-examples", examples, "--seed", "1", "--request-timeout", "60"]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "tests.faces.http.schemathesis_hooks",
        "NO_COLOR": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
