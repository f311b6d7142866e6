"""Renders chat templates of other people's models. Run as a program, this file is the process that does so.

Jinja's immutable sandbox keeps a template away from Python and files, but not from `'a' * 10**10`, nested loops or a
format of 10**10 columns. Therefore it runs in a process with limits on time, memory and the length of what it writes.
The process reads JSON lines from its standard input, {template, variables, most}, and answers each with {text} or
{error} on its standard output. It is run by its path and imports only the standard library and Jinja.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

SECONDS = 10.0  # of one conversation
MEMORY_MB = 1024  # of the address space of the process
TODAY = "01 January 2025"  # for templates that insert the date: a run must see the same text every day


class RenderError(Exception):
    """Raised with the reason if a template is not valid, rejects a conversation or exceeds a limit."""


@lru_cache(8)
def compiled(source: str) -> Any:
    """The compiled template, in Jinja's sandbox. Raises RenderError if it is not valid Jinja."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    # {% generation %} marks answers for transformers. Jinja does not know it, and it is not needed here.
    source = re.sub(r"{%(-?)\s*generation\s*(-?)%}", r"{%\1 if true \2%}", source)
    source = re.sub(r"{%(-?)\s*endgeneration\s*(-?)%}", r"{%\1 endif \2%}", source)
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    env.filters["tojson"] = lambda x, **k: json.dumps(x, ensure_ascii=False)
    env.globals["raise_exception"] = refuse
    if "strftime_now is defined" not in source:
        env.globals["strftime_now"] = lambda form: TODAY
    try:
        return env.from_string(source)
    except (TemplateError, RecursionError, MemoryError) as e:
        raise RenderError(f"it is not valid Jinja: {e or type(e).__name__}") from None


def render(source: str, variables: Mapping[str, Any], most: int) -> str:
    """The text that a template writes. Raises RenderError, also for a text of more than `most` characters."""
    template = compiled(source)
    parts, length = [], 0
    try:
        for part in template.generate(**variables):
            length += len(part)
            if length > most:
                raise RenderError(f"it writes more than {most:,} characters")
            parts.append(part)
    except (MemoryError, OverflowError):
        raise RenderError(f"it needs more than {MEMORY_MB:,} MB of memory") from None
    except RecursionError:
        raise RenderError("its macros call each other without end") from None
    except RenderError:
        raise
    except Exception as e:  # templates can raise anything
        raise RenderError(str(e)) from None
    return "".join(parts)


class Renderer:
    """The process that renders templates, which is started when it is first needed, and again after it has ended."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.owner = 0  # the process that started it
        self.lock = threading.Lock()

    def render(self, source: str, variables: Mapping[str, Any], most: int) -> str:
        """`render`, with limits on time and memory too."""
        line = json.dumps({"template": source, "variables": variables, "most": most}).encode() + b"\n"
        with self.lock:
            process = self.started()
            assert process.stdin and process.stdout
            answer = b""
            try:
                with suppress(BrokenPipeError):
                    process.stdin.write(line)
                    process.stdin.flush()
                answer = process.stdout.readline()
            finally:
                if not answer.endswith(b"\n"):  # it has ended, or this process is interrupted
                    self.end()
        if not answer.endswith(b"\n"):
            late = process.returncode == -signal.SIGALRM
            raise RenderError(f"it takes more than {SECONDS:g} seconds" if late else "its process ended")
        found = json.loads(answer)
        if "error" in found:
            raise RenderError(found["error"])
        return str(found["text"])

    def started(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
            command = [sys.executable, "-P", __file__, str(SECONDS), str(MEMORY_MB)]
            pipe, null = subprocess.PIPE, subprocess.DEVNULL
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null, start_new_session=True)
            self.owner = os.getpid()
            atexit.register(self.end)
        return self.process

    def end(self) -> None:
        """End the process, if this one has started it."""
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                with suppress(OSError):
                    stream.close()  # type: ignore[union-attr]
        self.process = None


RENDERER = Renderer()


def main(seconds: float, megabytes: int) -> None:
    """Answer every line of the standard input. A line that takes too long ends the process by a signal."""
    import resource

    compiled("")  # imports Jinja before the limits apply
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        asked = json.loads(line)
        try:
            answer = json.dumps({"text": render(asked["template"], asked["variables"], asked["most"])})
        except RenderError as e:
            answer = json.dumps({"error": str(e)[:2000]})
        except MemoryError:
            answer = json.dumps({"error": f"it needs more than {megabytes:,} MB of memory"})
        sys.stdout.buffer.write(answer.encode() + b"\n")
        sys.stdout.buffer.flush()
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
