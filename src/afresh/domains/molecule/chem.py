"""RDKit as it is used here: molecules of SMILES, with the reason why one cannot be read."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from afresh.core import UserError

LONGEST = 5_000  # characters of a SMILES; longer ones are no small molecules, and RDKit needs minutes for some of them
BRACKETS = re.compile(r"\[[^\]]*\]")
OPEN = re.compile(r"\*|\[\d*R(#|\d+)?\]")  # R groups, and any atom
STAMP = re.compile(r"^\[\d\d:\d\d:\d\d\] ")  # of RDKit's log
REASON = 300  # characters of what RDKit says that are repeated
LOCK = threading.Lock()  # RDKit has one log for the process


class MoleculeError(Exception):
    """A text that is not a molecule. The message is the reason."""


def require(module: str = "rdkit") -> None:
    """Raises UserError if a library of the extra `chem` is missing."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise UserError(f"Molecules need {module}: pip install 'afresh[chem]'.", "missing_package", package=module)


@cache
def chem() -> Any:
    """The module rdkit.Chem, whose log is off. It is asked for with every molecule."""
    require()
    from rdkit import Chem, rdBase

    rdBase.DisableLog("rdApp.*")
    return Chem


def molecule(text: str) -> Any:
    """The molecule of a SMILES, sanitised. Raises MoleculeError with the reason."""
    if (reason := not_one_molecule(text)) is not None:
        raise MoleculeError(reason)
    with surviving():
        found = chem().MolFromSmiles(text)
        if found is None:
            raise MoleculeError(reason_of(text))
    if found.GetNumAtoms() == 0:
        raise MoleculeError("no atoms")
    return found


@contextmanager
def surviving() -> Iterator[None]:
    """Whatever RDKit raises within, as for numbers that its own checks do not foresee, becomes a MoleculeError."""
    try:
        yield
    except MoleculeError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise MoleculeError(f"RDKit cannot read it: {lines[-1].strip()[:REASON]}") from None


def canonical(text: str) -> str | None:
    """The canonical SMILES of a text, or None if it is not a molecule."""
    with suppress(MoleculeError), surviving():
        found = _read(text)
        return None if found is None else str(chem().MolToSmiles(found))
    return None


def readable(text: str) -> bool:
    """Whether a text is a molecule, which takes half as long as its canonical SMILES."""
    with suppress(MoleculeError), surviving():
        return _read(text) is not None
    return False


def _read(text: str) -> Any:
    """None if it is not a molecule."""
    if not text or len(text) > LONGEST:
        return None
    found = chem().MolFromSmiles(text)
    return None if found is None or found.GetNumAtoms() == 0 else found


def not_one_molecule(text: str) -> str | None:
    """Why a text cannot be the SMILES of one molecule, by its characters alone; None if it may be."""
    if not text.strip():
        return "empty"
    if len(text) > LONGEST:
        return f"{len(text):,} characters, but at most {LONGEST:,} are read: not a small molecule"
    if ">" in BRACKETS.sub("", text).replace("->", ""):  # -> is a dative bond
        return "a reaction, not a molecule: give its products or its reactants"
    if OPEN.search(text):
        return "R groups or attachment points (*): an open structure, such as a polymer or a scaffold, not a molecule"
    return None


def reason_of(text: str) -> str:
    """What RDKit says about a SMILES that it cannot read."""
    library = chem()
    unclean = library.MolFromSmiles(text, sanitize=False)
    if unclean is not None:
        problems = [p.Message() for p in library.DetectChemistryProblems(unclean)]
        if problems:
            return " ".join(problems[0].split())
    lines = logged(text)
    return lines[0] if lines else "RDKit cannot read it"


def logged(text: str) -> list[str]:
    """The lines of RDKit's log while it reads a SMILES."""
    from rdkit import Chem, rdBase

    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(STAMP.sub("", record.getMessage()))

    log = logging.getLogger("rdkit")
    with LOCK:
        before, log.handlers = log.handlers, [Collect()]
        propagates, log.propagate = log.propagate, False
        rdBase.LogToPythonLogger()
        rdBase.EnableLog("rdApp.error")
        try:
            Chem.MolFromSmiles(text)
        finally:
            rdBase.LogToCppStreams()
            rdBase.DisableLog("rdApp.*")  # afterwards, as the streams begin anew
            log.handlers, log.propagate = before, propagates
    own = [line for line in lines if text in line]  # others were read in other threads meanwhile
    return [shortened(line) for line in own or lines]


def shortened(line: str) -> str:
    """A line of the log without the SMILES itself, which stands beside it."""
    return re.sub(r"( for input: '.*'| while parsing: .*)$", "", line).removeprefix("SMILES Parse Error: ").strip()
