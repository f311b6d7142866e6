"""Compiles the kernels for the processor of this machine, once, and loads them.

Without a compiler everything works by PyTorch's own operations.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from afresh.data.preferences import preferences

SOURCES = tuple(Path(__file__).with_name(n) for n in ("decoder.cpp", "amx.cpp", "decode.cpp", "tournament.cpp"))
HEADER = Path(__file__).with_name("numbers.h")
# Sums may be reordered for vectorisation, but NaN and infinity must be preserved: training checks for them.
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-mprefer-vector-width=512", "-fopenmp", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"),
)
LONGEST = 120  # time limit of the compilation, seconds
unused = False  # by what this process trains now


def compiler() -> str | None:
    """The C++ compiler, $CXX or g++; None without one."""
    return shutil.which(os.environ.get("CXX", "g++"))


def key(compiler: str) -> str:
    """A hash of the sources, flags, compiler and processor."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else platform.processor()
    flags = next((line for line in cpu.splitlines() if line.startswith(("flags", "Features"))), cpu)
    version = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True).stdout
    parts = (*(s.read_text() for s in (*SOURCES, HEADER)), " ".join(FLAGS), version, flags, platform.machine())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def library() -> ctypes.CDLL | None:
    """The compiled kernels; None if they are not available (no compiler, no writable folder, or not wanted)."""
    return None if unused else compiled()


def version() -> str:
    """Which kernels compute here, as `key` names them; empty if none do."""
    path = compiler()
    return "" if library() is None or path is None else key(path)


@contextmanager
def without_kernels() -> Iterator[None]:
    """Compute as if there were none: for a run that began so."""
    global unused
    before, unused = unused, True
    try:
        yield
    finally:
        unused = before


@cache
def compiled() -> ctypes.CDLL | None:
    compiler_path = compiler()
    if not preferences().kernels or compiler_path is None:
        return None
    path = preferences().cache_folder / "kernels" / f"kernels-{key(compiler_path)}.so"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryDirectory(dir=path.parent) as aside:
                library_file = Path(aside) / path.name
                command = [compiler_path, *FLAGS, *map(str, SOURCES), "-o", str(library_file)]
                subprocess.run(command, check=True, capture_output=True, timeout=LONGEST)
                library_file.replace(path)
        return ctypes.CDLL(str(path))  # after torch, to share its OpenMP
    except (OSError, subprocess.SubprocessError):
        return None


@cache
def tiles() -> bool:
    """Whether the matrix tiles (AMX) of the processor can be used."""
    lib = compiled()
    return lib is not None and bool(lib.amx_ready())
