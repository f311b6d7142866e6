"""The inside of the sandbox: run as a script of its own, with nothing but the standard library.

Usage: python -I -S sandbox_child.py CONFIG STATUS_FD < PROGRAM. CONFIG is a JSON object (see `sandbox.Sandbox`). It
makes new user, mount, process, network, IPC and host-name namespaces, puts a file system of read-only system folders
and one small folder in memory in place of the old one, gives up every privilege, and runs the program there as a child
of process 1, with whose end the kernel ends every other process in the namespace. What happened goes to STATUS_FD as
one JSON object."""

# Without pathlib, whose import every program would wait for.
# ruff: noqa: PTH103, PTH112, PTH114, PTH115, PTH120, PTH123, PTH211, PTH102, PTH106

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys
from typing import Any

# Namespaces of mounts, host name, IPC, users, processes, network; and that of control groups, which is left as it is.
NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
CGROUP = 0x02000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
MNT_DETACH, AT_FDCWD, AT_RECURSIVE = 2, -100, 0x8000
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
MOUNT_SETATTR = 442  # the same number on every processor
NOBODY = 65534  # whom root becomes: the kernel bounds no number of processes of root
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
CAPSET = {"x86_64": 126, "aarch64": 91}
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE, CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
# Calls that are refused: sockets (also those that no network namespace holds, such as vsock), rings that make sockets,
# other processes' memory and files, mounts and namespaces, keys, and what has often been a way into the kernel.
REFUSED = {
    "x86_64": (41, 101, 310, 311, 272, 308, 165, 166, 155, 161, 321, 298, 323, 248, 249, 250),
    "aarch64": (198, 117, 270, 271, 97, 268, 40, 39, 41, 51, 280, 241, 282, 217, 218, 219),
}
REFUSED_ANYWHERE = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442)

libc = ctypes.CDLL(None, use_errno=True)


class Unable(Exception):
    """A part of the sandbox that this machine does not give."""


def call(what: str, result: int) -> int:
    if result < 0:
        raise Unable(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def enter_namespaces() -> bool:
    """Leave the machine's namespaces for new ones; whether we are root outside, and so may become another user.

    Root is mapped together with NOBODY, which only a process that stayed outside may write.
    """
    root, uid, gid = os.geteuid() == 0, os.geteuid(), os.getegid()
    if not root:
        call("no new user namespace", libc.unshare(NAMESPACES))
        with open("/proc/self/setgroups", "w") as f:
            f.write("deny")
        write_maps("self", f"{uid} {uid} 1", f"{gid} {gid} 1")
        return False
    me = os.getpid()
    ready, go = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.close(go)
        os.read(ready, 1)
        code = 0
        try:
            write_maps(str(me), f"0 0 1\n{NOBODY} {NOBODY} 1", f"0 0 1\n{NOBODY} {NOBODY} 1")
        except OSError:
            code = 1
        os._exit(code)
    call("no new user namespace", libc.unshare(NAMESPACES))
    os.close(go)
    if os.waitpid(helper, 0)[1] != 0:
        raise Unable("the user namespace cannot be given two users")
    return True


def write_maps(process: str, users: str, groups: str) -> None:
    for name, text in (("uid_map", users), ("gid_map", groups)):
        with open(f"/proc/{process}/{name}", "w") as f:
            f.write(text)


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    made = libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, data.encode() or None)
    call(f"cannot mount {source} on {target}", made)


def read_only(path: str, recursive: bool, devices: bool = False) -> None:
    attributes = MS_RDONLY | MS_NOSUID | (0 if devices else MS_NODEV)  # MOUNT_ATTR_* have the values of MS_* here
    attr = struct.pack("=QQQQ", attributes, 0, 0, 0)
    done = libc.syscall(MOUNT_SETATTR, AT_FDCWD, path.encode(), AT_RECURSIVE if recursive else 0, attr, len(attr))
    call(f"cannot make {path} read-only", done)


def change_root(visible: list[str], megabytes: int, owner: tuple[int, int]) -> None:
    """A new root: `visible` folders read-only, four devices, and /box, which alone can be written."""
    root = "/tmp"  # any folder that is there: it is covered in this namespace alone
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path in visible:
        place = root + path
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), place)
        elif os.path.isdir(path):
            os.makedirs(place, exist_ok=True)
            mount(path, place, None, MS_BIND | MS_REC)
            read_only(place, True)
    os.mkdir(f"{root}/dev")
    for name in ("null", "zero", "random", "urandom"):
        os.close(os.open(f"{root}/dev/{name}", os.O_CREAT | os.O_WRONLY))
        mount(f"/dev/{name}", f"{root}/dev/{name}", None, MS_BIND)
    os.mkdir(f"{root}/box")
    options = f"size={megabytes}m,nr_inodes=4096,mode=700,uid={owner[0]},gid={owner[1]}"
    mount("tmpfs", f"{root}/box", "tmpfs", MS_NOSUID | MS_NODEV, options)
    os.mkdir(f"{root}/old")
    os.chdir(root)
    call("cannot change the root", libc.syscall(PIVOT_ROOT[platform.machine()], b".", b"old"))
    os.chdir("/")
    call("cannot leave the old root", libc.umount2(b"/old", MNT_DETACH))
    os.rmdir("/old")
    read_only("/", False, devices=True)


def give_up(root: bool) -> None:
    """Every privilege: another user where we were root, no capability now or through any program started."""
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break
    if root:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    head, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    call("capabilities stay", libc.syscall(CAPSET[platform.machine()], head, none))
    call("privileges could come back", libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    call("cannot end with its parent", libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def limit(config: dict[str, Any]) -> None:
    for what, value in (
        (resource.RLIMIT_AS, config["memory"]),
        (resource.RLIMIT_CPU, config["cpu"]),
        (resource.RLIMIT_FSIZE, config["file"]),
        (resource.RLIMIT_NPROC, config["processes"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(what, (value, value))


def refuse_calls() -> None:
    """A seccomp filter (classic BPF): see REFUSED; a call in the convention of another processor ends the process."""
    machine = platform.machine()
    allow, no, absent, end = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38, 0x80000000
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    code = [(load, 0, 0, 4), (equal, 1, 0, AUDIT[machine]), (give, 0, 0, end), (load, 0, 0, 0)]
    code += [(at_least, 0, 1, 0x40000000), (give, 0, 0, no)]  # x32
    for number in (*REFUSED[machine], *REFUSED_ANYWHERE):
        code += [(equal, 0, 1, number), (give, 0, 0, no)]
    code += [(equal, 0, 1, CLONE3), (give, 0, 0, absent)]  # its flags lie in memory: the C library then takes clone
    code += [(equal, 0, 3, CLONE[machine]), (load, 0, 0, 16), (any_bit, 0, 1, NAMESPACES | CGROUP), (give, 0, 0, no)]
    code += [(give, 0, 0, allow)]
    packed = b"".join(struct.pack("=HBBI", *c) for c in code)
    keep = ctypes.create_string_buffer(packed, len(packed))
    program = struct.pack("@HxxxxxxP", len(code), ctypes.addressof(keep))
    call("no filter of system calls", libc.prctl(PR_SET_SECCOMP, 2, program, 0, 0))


def run(config: dict[str, Any], text: bytes) -> dict[str, Any]:
    """As process 1: start the program, wait for it; {code, signal, left: whether children of it are still there}."""
    with open("/box/main.py", "wb") as f:
        f.write(text)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir("/box")
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.execve(config["python"], [config["python"], "-s", "-B", "main.py"], config["environment"])
    while True:
        pid, status = os.wait()
        if pid == child:
            break
    try:
        left = os.waitpid(-1, os.WNOHANG)[0] == 0
    except ChildProcessError:
        left = False
    code = os.waitstatus_to_exitcode(status)
    return {"code": code if code >= 0 else None, "signal": -code if code < 0 else None, "left": left}


def inside(config: dict[str, Any], root: bool, text: bytes, tell: int) -> None:
    try:
        owner = (NOBODY, NOBODY) if root else (os.getuid(), os.getgid())
        change_root(config["visible"], config["megabytes"], owner)
        give_up(root)
        limit(config)
        refuse_calls()
        said = run(config, text)
    except (Unable, OSError, ValueError) as error:
        said = {"error": str(error)}
    os.write(tell, json.dumps(said).encode())
    os._exit(0)


def main() -> None:
    config, tell = json.loads(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(tell, False)
    text = sys.stdin.buffer.read()
    try:
        if platform.machine() not in AUDIT:
            raise Unable(f"no list of system calls for the processor {platform.machine()}")
        root = enter_namespaces()
        first = os.fork()  # the first process of the new process namespace
    except (Unable, OSError) as error:
        os.write(tell, json.dumps({"error": str(error)}).encode())
        return
    if first == 0:
        inside(config, root, text, tell)
    os.waitpid(first, 0)


if __name__ == "__main__":
    main()
