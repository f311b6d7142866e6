"""Renders conversations as transformers or llama-cpp-python does. Run as a program, this file is the process that does
so, with limits on time, memory and length: a chat template may come from anybody.

It reads JSON from its standard input, {folder} of transformers or {template, begin, end} of llama.cpp with
{conversations}, and writes the list of their texts, each up to the answer.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from afresh.core import UserError

SECONDS, LOADING = 20, 120  # of rendering, and of imports
MEMORY, MOST = 4 << 30, 1 << 20  # bytes of data, and characters


def rendered(asked: Mapping[str, Any], seconds: int = SECONDS) -> list[str]:
    """What the program writes. Raises UserError, with the last line of what it says, if it fails or renders longer."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            input=json.dumps({**asked, "seconds": seconds}).encode(),
            capture_output=True,
            timeout=LOADING + seconds,
            start_new_session=True,
        )
        texts: list[str] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as e:
        said = [] if isinstance(e, subprocess.TimeoutExpired) else done.stderr.decode("utf-8", "replace").splitlines()
        why = said[-1][:300] if said else f"it takes more than {seconds} seconds"
        raise UserError(
            f"The chat template of this export cannot be rendered by the program it is for: {why}."
        ) from None
    return texts


def main() -> None:
    asked, options = json.load(sys.stdin), {"tokenize": False, "add_generation_prompt": True}
    if "folder" in asked:
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast.from_pretrained(asked["folder"], local_files_only=True)
    else:
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(asked["seconds"])
    if "folder" in asked:
        texts = [str(tokenizer.apply_chat_template(turns, **options)) for turns in asked["conversations"]]
    else:
        formatter = Jinja2ChatFormatter(asked["template"], eos_token=asked["end"], bos_token=asked["begin"])
        texts = [str(formatter(messages=turns).prompt) for turns in asked["conversations"]]
    if sum(map(len, texts)) > MOST:
        raise ValueError(f"it writes more than {MOST:,} characters")
    print(json.dumps(texts))


if __name__ == "__main__":
    main()
