"""The part of the sandbox that runs in its own process: a script that uses the standard library alone.

Usage: python -I -S sandbox_child.py CONFIG STATUS_FD < PROGRAM. CONFIG is a JSON object (see `sandbox.Sandbox`). The
script creates new user, mount, process, network, IPC and host-name namespaces, replaces the file system by read-only
system folders and one small folder in memory, drops all privileges, and runs the program as a child of process 1; when
that ends, the kernel ends every other process in the namespace. The result is written to STATUS_FD as a JSON object."""

# Without pathlib, whose import would delay every program.
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

# Namespaces of mounts, host name, IPC, users, processes, network. That of control groups is not changed.
NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
CGROUP = 0x02000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 4096, 16384, 1 << 18
MNT_DETACH, AT_FDCWD, AT_RECURSIVE = 2, -100, 0x8000
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
MOUNT_SETATTR = 442  # the same number on every architecture
NOBODY = 65534  # root becomes this user, since the kernel does not limit the number of root's processes
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
CAPSET = {"x86_64": 126, "aarch64": 91}
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE, CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
MMAP = {"x86_64": 9, "aarch64": 222}
MAP_SHARED, MAP_ANONYMOUS = 0x01, 0x20
# System calls that are refused: sockets (including those outside of network namespaces, such as vsock), io_uring, which
# can create sockets, access to other processes' memory and files, mounts and namespaces, keys, and calls that often had
# security holes; and memory that belongs to no process, so that it is in no process's resident memory: shmget, shmat,
# msgget, semget, mq_open and memfd_create.
REFUSED = {
    "x86_64": (41, 101, 310, 311, 272, 308, 165, 166, 155, 161, 321, 298, 323, 248, 249, 250, 29, 30, 68, 64, 240, 319),
    "aarch64": (
        198,
        117,
        270,
        271,
        97,
        268,
        40,
        39,
        41,
        51,
        280,
        241,
        282,
        217,
        218,
        219,
        194,
        196,
        186,
        190,
        180,
        279,
    ),
}
REFUSED_EVERYWHERE = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442, 447)  # 447: memfd_secret

libc = ctypes.CDLL(None, use_errno=True)


class SandboxUnavailable(Exception):
    """Raised if this machine does not provide a part of the sandbox."""


def check(failure: str, result: int) -> int:
    """The result of a system call. Raises Unavailable, with `failure`, if the call failed."""
    if result < 0:
        raise SandboxUnavailable(f"{failure}: {os.strerror(ctypes.get_errno())}")
    return result


def enter_namespaces() -> bool:
    """Enter new namespaces. Returns whether the process was root, so that it can become another user.

    Root is mapped together with user 65534, which only a process outside of the namespace may do.
    """
    root, uid, gid = os.geteuid() == 0, os.geteuid(), os.getegid()
    if not root:
        check("cannot create a user namespace", libc.unshare(NAMESPACES))
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
    check("cannot create a user namespace", libc.unshare(NAMESPACES))
    os.close(go)
    if os.waitpid(helper, 0)[1] != 0:
        raise SandboxUnavailable("the user namespace cannot have two users")
    return True


def write_maps(process: str, users: str, groups: str) -> None:
    """Write the maps of user and group ids of a process's user namespace."""
    for name, text in (("uid_map", users), ("gid_map", groups)):
        with open(f"/proc/{process}/{name}", "w") as f:
            f.write(text)


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    result = libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, data.encode() or None)
    check(f"cannot mount {source} on {target}", result)


def make_read_only(path: str, recursive: bool, devices: bool = False) -> None:
    """Make a mount read-only, without setuid programs and, unless `devices`, without devices."""
    attributes = MS_RDONLY | MS_NOSUID | (0 if devices else MS_NODEV)  # MOUNT_ATTR_* have the values of MS_* here
    attr = struct.pack("=QQQQ", attributes, 0, 0, 0)
    result = libc.syscall(MOUNT_SETATTR, AT_FDCWD, path.encode(), AT_RECURSIVE if recursive else 0, attr, len(attr))
    check(f"cannot make {path} read-only", result)


def change_root(visible: list[str], megabytes: int, owner: tuple[int, int]) -> None:
    """Set up a new root: `visible` folders read-only, three devices, and /box, the only writable folder."""
    root = "/tmp"  # any existing folder; it is covered in this namespace alone
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
            make_read_only(place, True)
    os.mkdir(f"{root}/dev")
    for name in ("null", "random", "urandom"):  # /dev/zero would give shared memory
        os.close(os.open(f"{root}/dev/{name}", os.O_CREAT | os.O_WRONLY))
        mount(f"/dev/{name}", f"{root}/dev/{name}", None, MS_BIND)
    os.mkdir(f"{root}/box")
    options = f"size={megabytes}m,nr_inodes=4096,mode=700,uid={owner[0]},gid={owner[1]}"
    mount("tmpfs", f"{root}/box", "tmpfs", MS_NOSUID | MS_NODEV, options)
    os.mkdir(f"{root}/old")
    os.chdir(root)
    check("cannot change the root", libc.syscall(PIVOT_ROOT[platform.machine()], b".", b"old"))
    os.chdir("/")
    check("cannot leave the old root", libc.umount2(b"/old", MNT_DETACH))
    os.rmdir("/old")
    make_read_only("/", False, devices=True)


def drop_privileges(root: bool) -> None:
    """Drop all privileges: root becomes user 65534, and neither this process nor a program that it starts has
    capabilities."""
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break
    if root:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    head, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    check("cannot drop capabilities", libc.syscall(CAPSET[platform.machine()], head, none))
    check("cannot forbid new privileges", libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    end_with_parent()


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends. A change of user cancels this."""
    check("cannot be ended with its parent", libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def set_limits(config: dict[str, Any]) -> None:
    """Limit memory, time, files and processes."""
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
    """Install a seccomp filter (classic BPF) of the calls in REFUSED. A call in another architecture's convention ends
    the process."""
    machine = platform.machine()
    allow, no, absent, end = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38, 0x80000000
    load, equal, at_least, any_bit, give, mask = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
    code = [(load, 0, 0, 4), (equal, 1, 0, AUDIT[machine]), (give, 0, 0, end), (load, 0, 0, 0)]
    code += [(at_least, 0, 1, 0x40000000), (give, 0, 0, no)]  # x32
    for number in (*REFUSED[machine], *REFUSED_EVERYWHERE):
        code += [(equal, 0, 1, number), (give, 0, 0, no)]
    code += [(equal, 0, 1, CLONE3), (give, 0, 0, absent)]  # its flags are in memory; the C library falls back to clone
    code += [(equal, 0, 3, CLONE[machine]), (load, 0, 0, 16), (any_bit, 0, 1, NAMESPACES | CGROUP), (give, 0, 0, no)]
    # Memory that is shared without a file remains while nobody has it resident. After the load above, the number is
    # loaded again; of the flags, the fourth argument, the lower half is looked at.
    both = MAP_SHARED | MAP_ANONYMOUS
    code += [(load, 0, 0, 0), (equal, 0, 4, MMAP[machine]), (load, 0, 0, 40), (mask, 0, 0, both)]
    code += [(equal, 0, 1, both), (give, 0, 0, no)]
    code += [(give, 0, 0, allow)]
    packed = b"".join(struct.pack("=HBBI", *c) for c in code)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    program = struct.pack("@HxxxxxxP", len(code), ctypes.addressof(buffer))
    check("cannot filter system calls", libc.prctl(PR_SET_SECCOMP, 2, program, 0, 0))


def run(config: dict[str, Any], text: bytes) -> dict[str, Any]:
    """As process 1, start the program and wait for it. Returns {code, signal, left: whether children still run}."""
    with open("/box/main.py", "wb") as f:
        f.write(text)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir("/box")
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
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


def run_in_sandbox(config: dict[str, Any], root: bool, text: bytes, status_fd: int) -> None:
    """Set up the sandbox, run the program and write the result to `status_fd`; does not return."""
    try:
        owner = (NOBODY, NOBODY) if root else (os.getuid(), os.getgid())
        change_root(config["visible"], config["megabytes"], owner)
        drop_privileges(root)
        # End process 1 after so many seconds, even if its parent is suspended. Signals that have no handler do not
        # reach process 1.
        signal.signal(signal.SIGALRM, lambda number, frame: os._exit(1))
        signal.setitimer(signal.ITIMER_REAL, config["alarm"])
        set_limits(config)
        refuse_calls()
        result = run(config, text)
    except (SandboxUnavailable, OSError, ValueError) as error:
        result = {"error": str(error)}
    os.write(status_fd, json.dumps(result).encode())
    os._exit(0)


def main() -> None:
    config, status_fd = json.loads(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(status_fd, False)
    end_with_parent()
    if os.getppid() != config["parent"]:  # it ended before
        return
    text = sys.stdin.buffer.read()
    try:
        if platform.machine() not in AUDIT:
            raise SandboxUnavailable(f"the architecture {platform.machine()} is not supported")
        root = enter_namespaces()
        end_with_parent()
        first = os.fork()  # the first process of the new process namespace
    except (SandboxUnavailable, OSError) as error:
        os.write(status_fd, json.dumps({"error": str(error)}).encode())
        return
    if first == 0:
        run_in_sandbox(config, root, text, status_fd)
    os.waitpid(first, 0)


if __name__ == "__main__":
    main()
