"""What a program must not do: each attempt is contained, and the outcome names it."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.runs.sandbox import processes as module
from afresh.runs.sandbox.processes import Outcome, Sandbox, SandboxLimits, descendants
from tests import needs

pytestmark = pytest.mark.slow

LIMITS = SandboxLimits(seconds=1.5, memory_mb=128, processes=8, output=10_000, files_mb=4)
BOX = Sandbox(LIMITS)


def run(program: str, **limits: float) -> Outcome:
    return Sandbox(replace(LIMITS, **limits)).run(program) if limits else BOX.run(program)  # type: ignore[arg-type]


def test_the_sandbox_works_if_the_kernel_supports_it() -> None:
    """On a Linux system that lets this user create namespaces, no test here may be skipped."""
    allowed = Path("/proc/sys/user/max_user_namespaces")
    restricted = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    free = allowed.exists() and int(allowed.read_text()) > 0
    free &= not restricted.exists() or restricted.read_text().strip() == "0"
    if free and os.geteuid() == 0:
        assert needs.WHY_NO_SANDBOX is None
    elif needs.WHY_NO_SANDBOX is not None:
        pytest.skip(needs.WHY_NO_SANDBOX)


@needs.sandbox
def test_what_a_program_prints_and_returns() -> None:
    outcome = run("import sys\nprint('héllo')\nprint('no', file=sys.stderr)\nsys.exit(3)")
    assert (outcome.status, outcome.code, outcome.signal, outcome.stdout) == ("error", 3, None, "héllo\n")
    assert outcome.stderr == "no\n" and not outcome.left
    assert run("import math, json, dataclasses, re; print(math.pi)").status == "ok"
    assert "ZeroDivisionError" in run("1 / 0").stderr
    assert "SyntaxError" in run("def f(:").stderr


@needs.sandbox
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_an_end_by_a_signal_is_reported(number: int) -> None:
    outcome = run(f"import os; os.kill(os.getpid(), {int(number)})")
    assert (outcome.status, outcome.code, outcome.signal) == ("error", None, number)


@needs.sandbox
@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import signal, time\nfor s in (1, 2, 3, 15, 24): signal.signal(s, signal.SIG_IGN)\nwhile True: time.sleep(1)",
        "import os, time\nif os.fork() == 0: os.setsid()\nwhile True: time.sleep(1)",
    ],
    ids=["endless loop", "sleep", "ignores signals", "another session"],
)
def test_time(program: str) -> None:
    outcome = run(program, seconds=0.7)
    assert outcome.status == "time" and outcome.code is None and 0.7 <= outcome.seconds < 3


@needs.sandbox
@pytest.mark.parametrize(
    ("program", "processes"),
    [
        ("x = bytearray(10**9)", 8),
        ("x = []\nwhile True: x.append(bytearray(10**6))", 8),
        (
            "import os, time\nfor i in range(5): \n    if os.fork() == 0: break\nx = b'x' * (60 << 20)\ntime.sleep(60)",
            8,
        ),
    ],
    ids=["at once", "bit by bit", "in many processes"],
)
def test_memory(program: str, processes: int) -> None:
    assert run(program, seconds=60).status == "memory"  # which a busy machine comes to late


@needs.sandbox
def test_a_fork_bomb() -> None:
    outcome = run("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass")
    assert outcome.status == "processes" and outcome.seconds < 3


@needs.sandbox
def test_threads_count_as_processes() -> None:
    outcome = run("import threading, time\nfor i in range(50): threading.Thread(target=time.sleep, args=(9,)).start()")
    assert outcome.status in ("error", "time") and "can't start new thread" in outcome.stderr


@needs.sandbox
def test_a_gigabyte_of_output_is_cut() -> None:
    outcome = run("import sys\nwhile True: sys.stdout.write('x' * 100000)")
    assert outcome.status == "output" and outcome.stdout == "x" * LIMITS.output
    assert run("import os\nwhile True: os.write(2, b'y' * 5000)").status == "output"


@needs.sandbox
@pytest.mark.parametrize(
    "connect",
    [
        "socket.socket()",
        "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_UNIX)",
        "socket.socket(40, socket.SOCK_STREAM)",  # vsock, which network namespaces do not hold
        "socket.create_connection(('127.0.0.1', PORT))",
    ],
)
def test_there_is_no_network_not_even_to_this_machine(connect: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        outcome = run(f"import socket\nPORT = {server.getsockname()[1]}\n{connect}")
    assert outcome.status == "error" and "PermissionError" in outcome.stderr


@needs.sandbox
def test_a_program_cannot_write_outside_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    places = [str(tmp_path / "mine"), "/usr/x", "/x", "/tmp/x", "/dev/x", "/dev/shm/x", f"{sys.base_prefix}/x"]
    program = f"""
import os
for place in {places!r}:
    for act in (lambda: open(place, "w"), lambda: os.chmod(place, 0o777), lambda: os.unlink(place),
                lambda: os.mkdir(place), lambda: os.utime(os.path.dirname(place))):
        try:
            act()
        except OSError:
            continue
        print("did something to", place)
open("own", "w").write("x"); os.mkdir("sub"); os.rename("own", "sub/own")
print(open("/box/sub/own").read(), os.getcwd())
"""
    assert run(program).stdout == "x /box\n"
    assert (tmp_path / "mine").read_text() == "mine"


@needs.sandbox
def test_the_folder_is_small_and_new_each_time() -> None:
    fill = "import os\nfor i in range(9):\n    open(str(i), 'wb').write(b'x' * (1 << 20))"
    assert "No space left" in run(fill).stderr
    assert "No space left" in run("for i in range(5000): open(str(i), 'w').close()").stderr
    assert run("import os; print(os.listdir('.'))").stdout == "['main.py']\n"


@needs.sandbox
def test_a_program_sees_nothing_of_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "sesame")
    (tmp_path / "key").write_text("sesame")
    home = Path.home()
    program = f"""
import os, stat
print("SECRET" in os.environ, os.environ["HOME"], os.getpid() < 10)
print([p for p in ({str(tmp_path / "key")!r}, "/etc/passwd", "/proc/1/environ", "/home", "/work", {__file__!r})
       if os.path.exists(p)])
print([n for n in range(3, 1000) if os.path.exists(f"/dev/fd/{{n}}")], end=" ")
opened = []
for n in range(3, 64):
    try:
        os.fstat(n); opened.append(n)
    except OSError:
        pass
print(opened, os.read(0, 10))
print([n for n in os.listdir({str(home)!r}) if not {sys.base_prefix!r}.startswith(os.path.join({str(home)!r}, n))]
      if os.path.exists({str(home)!r}) else [])
"""
    outcome = run(program)
    assert outcome.stdout == "False /box True\n[]\n[] [] b''\n[]\n", outcome


@needs.sandbox
@pytest.mark.parametrize(
    "act",
    [
        "libc.unshare(0x10000000)",  # a user namespace of its own
        "libc.mount(b'none', b'/box', b'tmpfs', 0, None)",
        "libc.syscall(425, 8, ctypes.create_string_buffer(200))",  # io_uring, which can make sockets
        "libc.ptrace(16, 1, 0, 0)",
        "libc.setresuid(0, 0, 0)",
        "libc.chroot(b'/box')",
        "libc.setns(0, 0)",
        "libc.syscall(56, 0x10000011, 0, 0, 0, 0)",  # clone into a user namespace
        "libc.syscall(310, os.getppid(), 0, 0, 0, 0, 0)",  # reads the memory of another process
        "libc.syscall(311, os.getppid(), 0, 0, 0, 0, 0)",
        "libc.syscall(438, 3, 0, 0)",  # a descriptor of another process
        "libc.syscall(321, 0, 0, 0)",  # bpf
        "libc.syscall(298, 0, 0, 0, 0, 0)",  # performance counters
        "libc.syscall(323, 0)",  # userfaultfd
        "libc.syscall(250, 0, 0, 0, 0, 0)",  # keys
        "libc.syscall(0x40000000 | 41, 1, 1, 0)",  # a socket by the x32 convention
        "libc.mknod(b'/box/disk', 0o60600, 0x800)",
        "libc.sethostname(b'x', 1)",
        "libc.kill(1, 9) * 0 + libc.setuid(0)",  # process 1 does not end
    ],
)
def test_there_is_no_way_to_more_privileges(act: str) -> None:
    if "syscall(" in act and platform.machine() != "x86_64" and "425" not in act:
        pytest.skip("numbers of system calls of x86_64")
    program = f"import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nprint({act}, ctypes.get_errno())"
    assert run(program).stdout == "-1 1\n"


@needs.sandbox
def test_programs_of_other_users_bring_no_privileges() -> None:
    """Programs that act as their owner, such as su, do not; a copy of the shell cannot be made to."""
    program = """
import os, shutil, subprocess
shutil.copy("/bin/sh", "sh")
os.chmod("sh", 0o6755)
user = subprocess.run(["/box/sh", "-p", "-c", "id -u"], capture_output=True, text=True).stdout.strip()
print(user == str(os.getuid()))
found = [os.path.join("/usr/bin", n) for n in os.listdir("/usr/bin") if os.path.isfile(os.path.join("/usr/bin", n))]
setuid = [p for p in found if os.stat(p).st_mode & 0o4000]
print(all(os.statvfs(p).f_flag & os.ST_NOSUID for p in setuid))
"""
    assert run(program, files_mb=16).stdout == "True\nTrue\n"


@needs.sandbox
@pytest.mark.parametrize(
    "get",
    [
        "libc.shmget(0, 1 << 20, 0o1600)",
        "libc.msgget(0, 0o1600)",
        "libc.semget(0, 1, 0o1600)",
        "libc.memfd_create(b'x', 0)",
        "libc.syscall(447, 0)",  # memfd_secret
        "ctypes.CDLL('librt.so.1', use_errno=True).mq_open(b'/x', 0o102, 0o600, None)",
        "libc.mmap(None, 1 << 20, 3, 0x21, -1, 0)",  # shared, of no file
    ],
)
def test_there_is_no_memory_that_belongs_to_no_process(get: str) -> None:
    """It would not be in the resident memory of any process, nor in the size of the folder."""
    program = f"import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nprint({get}, ctypes.get_errno())"
    assert run(program).stdout == "-1 1\n"
    assert run("import os; print(os.path.exists('/dev/zero'), os.path.exists('/dev/shm'))").stdout == "False False\n"


@needs.sandbox
def test_child_processes_of_a_thread_are_counted() -> None:
    hoard = "import os, threading, time\ndef hoard():\n    for i in range(4):\n        if os.fork() == 0:\n"
    hoard += "            x = b'x' * (60 << 20); time.sleep(60)\n    time.sleep(60)\n"
    assert run(f"{hoard}threading.Thread(target=hoard).start()").status == "memory"


@needs.sandbox
def test_nothing_goes_on_when_afresh_is_killed() -> None:
    """Process 1 and the process that made it end with the one that started them."""
    code = (
        "from afresh.runs.sandbox.processes import Sandbox, SandboxLimits\n"
        "box = Sandbox(SandboxLimits(seconds=60))\nbox.check()\n"
        "print('now', flush=True)\nbox.run('while True: pass')"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as afresh:
        assert afresh.stdout is not None and afresh.stdout.readline() == "now\n"
        while len(started := descendants(afresh.pid)) < 3 or not busy(started[-1]):
            time.sleep(0.05)
        afresh.kill()
    end = time.monotonic() + 10
    while any(Path(f"/proc/{p}").exists() and "Z" not in state(p) for p in started) and time.monotonic() < end:
        time.sleep(0.05)
    assert time.monotonic() < end


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def busy(pid: int) -> bool:
    """Whether a process runs the program: in the sandbox, every path of its own is out of sight."""
    try:
        return "main.py" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


@needs.sandbox
def test_nothing_goes_on_while_afresh_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 ends by itself: here, as the limit of time is never applied from outside."""
    monkeypatch.setattr(module, "GRACE", -0.5)
    monkeypatch.setattr(module.ProcessMonitor, "over", lambda self: None)
    outcome = run("import time; time.sleep(60)", seconds=1.2)
    assert (outcome.status, outcome.code) == ("error", None) and outcome.seconds < 1.2


def test_the_sandbox_is_proved_even_if_python_ignores_assert() -> None:
    code = (
        "import sys\nfrom afresh.core import UserError\nfrom afresh.runs.sandbox.processes import Sandbox\n"
        "sys.platform = 'darwin'\ntry: Sandbox().run('')\nexcept UserError as e: print(e)"
    )
    out = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True).stdout
    assert "needs Linux, and this is darwin" in out


@needs.sandbox
def test_remaining_child_processes_are_ended_and_reported() -> None:
    before = set(descendants(os.getpid()))
    outcome = run("import os, time\nif os.fork() == 0:\n    os.setsid(); os.close(1); os.close(2); time.sleep(60)")
    assert (outcome.status, outcome.left) == ("ok", True) and outcome.seconds < 1.5
    assert set(descendants(os.getpid())) <= before


@needs.sandbox
def test_a_program_can_kill_only_its_own_processes() -> None:
    """Process ids inside differ from those outside."""
    outcome = run("import os, signal\ntry: os.kill(-1, signal.SIGKILL)\nexcept ProcessLookupError: print('alone')")
    assert outcome.stdout == "alone\n"
    outcome = run(f"import os\nos.kill({os.getpid()}, 9)")
    assert "ProcessLookupError" in outcome.stderr


@needs.sandbox
def test_ordinary_programs_work() -> None:
    program = """
import asyncio, concurrent.futures, subprocess, sys, tempfile
print(asyncio.run(asyncio.sleep(0, "a")), list(concurrent.futures.ThreadPoolExecutor(2).map(abs, [-1])))
print(subprocess.run([sys.executable, "-c", "print(2)"], capture_output=True, text=True).stdout.strip())
with tempfile.TemporaryFile() as f: print(f.write(b"abc"))
"""
    assert run(program).stdout == "a [1]\n2\n3\n"


def test_without_a_sandbox_no_program_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If any part of the sandbox is missing, the error names it and what is needed, and the program leaves no trace."""
    trace = tmp_path / "ran"
    broken = tmp_path / "child.py"
    text = module.CHILD.read_text()
    for old, new in (
        ("libc.unshare(NAMESPACES)", "libc.unshare(-1)"),
        ("PIVOT_ROOT[platform.machine()]", "9999"),
        ("PR_SET_SECCOMP, 2", "PR_SET_SECCOMP, 99"),
    ):
        assert old in text
        broken.write_text(text.replace(old, new))
        monkeypatch.setattr(module, "CHILD", broken)
        with pytest.raises(UserError, match=r"because the sandbox is not available: .*Linux 5.14"):
            Sandbox(LIMITS).run(f"open({str(trace)!r}, 'w')")
    broken.write_text("import sys; exec(sys.stdin.read())")  # the probe detects a sandbox that confines nothing
    with pytest.raises(UserError, match="the test program ended with"):
        Sandbox(LIMITS).run(f"open({str(trace)!r}, 'w')")
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UserError, match="needs Linux, and this is darwin"):
        Sandbox(LIMITS).run("")
    assert not trace.exists()


@needs.sandbox
def test_time_of_a_run() -> None:
    begun = time.perf_counter()
    for _ in range(3):
        assert run("print(1)").status == "ok"
    assert time.perf_counter() - begun < 3
