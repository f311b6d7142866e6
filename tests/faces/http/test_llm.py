"""A client that was not written for this server: the program llm, as its documentation says to add a server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import afresh
from tests import needs

needs.package("llm", "llm")
ROOT = Path(__file__).parents[3]


def yaml_of_the_guide(run: str, address: str) -> str:
    """What the guide says to write into extra-openai-models.yaml, for a run at an address."""
    guide = (ROOT / "docs" / "guides" / "serving.md").read_text(encoding="utf-8")
    text = next(block for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) if "model_id" in block)
    return str(text).replace("notes", run).replace("http://127.0.0.1:8080", address)


def test_llm_asks_a_run(address: str, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(yaml_of_the_guide("chat", address))
    own = afresh.load(runs / "chat").sample(1, prompt="Say 3?", length=12, seed=4)[0]
    for how in ([], ["--no-stream"]):
        options = ["-o", "seed", "4", "-o", "max_tokens", "12", *how]
        command = [sys.executable, "-m", "llm", "-m", "chat", "Say 3?", *options]
        environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.decode().removesuffix("\n") == own


@pytest.mark.slow
def test_llm_gets_json_by_a_schema(address: str, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(yaml_of_the_guide("chat", address))
    command = [sys.executable, "-m", "llm", "-m", "chat", "Say 3?", "--schema", "legs int", "-o", "max_tokens", "30"]
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert isinstance(json.loads(done.stdout)["legs"], int)
