"""What some tests need beyond the installation of `make test`. Every skip names what is missing and how to get it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from afresh.core import UserError
from afresh.engine.nets.kernels.build import compiler
from afresh.runs.sandbox.processes import Sandbox

NOBODY = 65534


def package(module: str, install: str, minversion: str | None = None) -> Any:
    """The imported module. Skips where `pip install INSTALL` has not been run; those of the dev extra are imported."""
    return pytest.importorskip(module, minversion, reason=f"{module} is not installed: pip install {install}")


def llama_cpp() -> Any:
    """The reference program for GGUF files, which is compiled for minutes when it is installed."""
    return package("llama_cpp", "llama-cpp-python (it is compiled: minutes)")


@contextmanager
def chromium() -> Iterator[Any]:
    """Chromium, as Playwright opens it. Skips where it or Playwright's Python package is missing."""
    playwright = package("playwright.sync_api", "playwright")
    path = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    if path is None:
        assert "BROWSER_REQUIRED" not in os.environ, "there is no Chromium: apt-get install chromium"
        pytest.skip("there is no Chromium: apt-get install chromium, or make test-browser")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


def no_sandbox() -> str | None:
    """Why programs cannot be run in the sandbox on this machine; None where they can."""
    try:
        Sandbox().check()
    except UserError as e:
        return str(e)
    return None


WHY_NO_SANDBOX = no_sandbox()
sandbox = pytest.mark.skipif(WHY_NO_SANDBOX is not None, reason=str(WHY_NO_SANDBOX))
kernels = pytest.mark.skipif(compiler() is None, reason="the kernels need the C++ compiler g++: apt-get install g++")


@contextmanager
def folder_of_a_user() -> Iterator[Path]:
    """An empty folder that belongs to a user whom file permissions bind: to `nobody` where the superuser runs this."""
    folder = Path(tempfile.mkdtemp())
    try:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Acts as the user `nobody` where the superuser, who may read and write everything, runs this."""
    superuser = os.geteuid() == 0
    if superuser:
        os.setresuid(NOBODY, NOBODY, 0)  # os.access asks for the real user
    try:
        yield
    finally:
        if superuser:
            os.setresuid(0, 0, 0)
