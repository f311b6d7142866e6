"""Runs abc2midi, a program in C that malformed tunes can crash, in the sandbox, and nowhere else.

Many files are converted in one sandbox, since starting one takes longer than converting a file.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from afresh.core import UserError
from afresh.runs.sandbox.processes import Sandbox, SandboxLimits

PATIENCE = 20  # seconds for one text
MOST = 100  # texts in one sandbox
# The program in the sandbox. It prints a line of JSON: a conversion of each text, or null for one that took too long.
PROGRAM = """
import base64, json, os, subprocess
task = json.loads({task!r})
with open("abc2midi", "wb") as f:
    f.write(base64.b64decode(task["abc2midi"]))
os.chmod("abc2midi", 0o700)
out = []
for number, text in enumerate(task["texts"]):
    os.mkdir(str(number))
    with open(f"{{number}}/t.abc", "w", encoding="utf-8", errors="replace") as f:
        f.write(text)
    try:
        ended = subprocess.run(["../abc2midi", "t.abc"], cwd=str(number), capture_output=True, timeout=task["seconds"])
    except subprocess.TimeoutExpired:
        out.append(None)
        continue
    files = {{}}
    for name in os.listdir(str(number)):
        if name.endswith(".mid"):
            with open(f"{{number}}/{{name}}", "rb") as f:
                files[name] = base64.b64encode(f.read()).decode()
    lines = ended.stdout.decode("utf-8", "replace").split("\\n")
    out.append([files, [line for line in lines if line.startswith("Error")]])
    for name in os.listdir(str(number)):
        os.unlink(f"{{number}}/{{name}}")
print(json.dumps(out))
"""


@dataclass(frozen=True)
class Conversion:
    """What abc2midi made of a text: MIDI files by the number of the tune (its line X:), and its error messages."""

    midi: dict[int, bytes]
    errors: list[str]


def convert(texts: Sequence[str]) -> list[Conversion | str]:
    """The conversion of each text, or why there is none."""
    if not texts:
        return []
    if len(texts) > MOST:
        return convert(texts[:MOST]) + convert(texts[MOST:])
    limits = SandboxLimits(PATIENCE * len(texts) + 10.0, memory_mb=512, output=128 << 20, files_mb=64)
    program = Path(os.environ["SYMUSIC_ABC2MIDI"]).read_bytes()
    task = {"abc2midi": base64.b64encode(program).decode(), "texts": list(texts), "seconds": PATIENCE}
    try:
        outcome = Sandbox(limits).run(PROGRAM.format(task=json.dumps(task)))
    except UserError as error:
        why = f"ABC is converted in the sandbox alone: give MIDI, which any program for ABC writes. {error}"
        return [why] * len(texts)
    if outcome.status == "ok":
        return [_conversion(found) for found in json.loads(outcome.stdout)]
    if len(texts) > 1:  # one of them is to blame
        half = len(texts) // 2
        return convert(texts[:half]) + convert(texts[half:])
    return [f"abc2midi needed more {outcome.status} than it may have: divide the file"]


def _conversion(found: tuple[dict[str, str], list[str]] | None) -> Conversion | str:
    if found is None:
        return f"abc2midi took more than {PATIENCE} seconds: divide the file"
    files, errors = found
    numbers = {name: name.removeprefix("t").removesuffix(".mid") for name in files}
    midi = {int(n): base64.b64decode(files[name]) for name, n in numbers.items() if n.isdecimal()}
    return Conversion(midi, errors)
