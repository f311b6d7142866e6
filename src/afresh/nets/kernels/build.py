"""Compiles the kernels for this very processor, once, and loads it. Without a compiler everything still works, in
PyTorch's own steps."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

SOURCES = tuple(Path(__file__).with_name(n) for n in ("decoder.cpp", "amx.cpp", "decode.cpp"))
HEADER = Path(__file__).with_name("numbers.h")
# Sums may be reordered so that they vectorise, but NaN and infinity keep their meaning: training looks for them.
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-mprefer-vector-width=512", "-fopenmp", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"),
)
LONGEST = 120  # seconds that compiling may take


def folder() -> Path:
    """Where compiled libraries are kept: $XDG_CACHE_HOME/afresh/kernels, by default in ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "afresh" / "kernels"


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++"))


def key(compiler: str) -> str:
    """Of source, flags, compiler and processor: whatever the library depends on."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else platform.processor()
    flags = next((line for line in cpu.splitlines() if line.startswith(("flags", "Features"))), cpu)
    version = subprocess.run([compiler, "-dumpfullversion"], capture_output=True, text=True).stdout
    parts = (*(s.read_text() for s in (*SOURCES, HEADER)), " ".join(FLAGS), version, flags, platform.machine())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def build(path: Path, compiler: str) -> None:
    """Compile aside, then rename. Raises OSError or subprocess.SubprocessError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=path.parent) as aside:
        made = Path(aside) / path.name
        command = [compiler, *FLAGS, *map(str, SOURCES), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=LONGEST)
        made.replace(path)


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where they cannot be had (no compiler, no place to keep them, AFRESH_KERNELS=0)."""
    found = compiler()
    if os.environ.get("AFRESH_KERNELS") == "0" or found is None:
        return None
    path = folder() / f"kernels-{key(found)}.so"
    try:
        if not path.exists():
            build(path, found)
        return ctypes.CDLL(str(path))  # after torch, whose OpenMP it then shares
    except (OSError, subprocess.SubprocessError):
        return None


@cache
def tiles() -> bool:
    """Whether the processor's matrix tiles (AMX) may be used."""
    lib = library()
    return lib is not None and bool(lib.amx_ready())
