"""A client that was not written for this server: the program llm, as its documentation says to add a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import afresh
from tests import needs

needs.package("llm", "llm")


def test_llm_asks_a_run(address: str, runs: Path, tmp_path: Path) -> None:
    text = f"- model_id: mine\n  model_name: chat\n  api_base: {address}/v1\n"
    (tmp_path / "extra-openai-models.yaml").write_text(text)
    own = afresh.load(runs / "chat").sample(1, prompt="Say 3?", length=12, seed=4)[0]
    for how in ([], ["--no-stream"]):
        options = ["-o", "seed", "4", "-o", "max_tokens", "12", *how]
        command = [sys.executable, "-m", "llm", "-m", "mine", "Say 3?", *options]
        environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.decode().removesuffix("\n") == own
