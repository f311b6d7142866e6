"""Runs a program, and ends its process group when the requesting process is gone, however that ended.

As a program: ALIVE PROBLEM COMMAND... ALIVE is the reading end of a pipe, which the asker holds open as long as it is
there; PROBLEM the writing end of one to which the number of the error goes if COMMAND cannot be started. This process
leads the group, does nothing but wait, and ends as the program does. It imports nothing else, so that it starts fast.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys


def main(alive: int, problem: int, command: list[str]) -> None:
    ended, end = os.pipe()
    os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(end)
    child = os.fork()
    if child == 0:
        run(alive, problem, command)
    os.close(problem)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):  # the program alone has them, so that they end with it
        os.dup2(nothing, stream)
    while True:
        ready, _, _ = select.select([alive, ended], [], [])
        if alive in ready:
            os.killpg(0, signal.SIGKILL)
        os.read(ended, 64)
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            end_as(os.waitstatus_to_exitcode(status))


def run(alive: int, problem: int, command: list[str]) -> None:
    """Become the program."""
    os.close(alive)
    os.set_inheritable(problem, False)  # closed when the program has started
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(problem, str(error.errno).encode())
    os._exit(127)


def end_as(code: int) -> None:
    """End with an exit code, or by the signal -code."""
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program itself may have left an image of its memory
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
