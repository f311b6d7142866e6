"""What a benchmark is, and which there are: each module that measures something says so in its BENCHMARKS."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1]


@dataclass(frozen=True)
class Benchmark:
    """`needs`: the data sets in AFRESH_DATA that it reads, and in capitals the words that are given by hand. `minutes`:
    about how long it takes on two cores. `run` takes the words that follow the name. Its results are kept under `name`,
    or under names that begin with it."""

    name: str
    needs: tuple[str, ...]
    minutes: float
    run: Callable[..., Any]


@dataclass(frozen=True)
class Entry:
    """A benchmark as its module's source describes it: nothing of it is imported yet."""

    name: str
    needs: tuple[str, ...]
    minutes: float
    module: str
    about: str  # the beginning of the module's docstring

    @property
    def subject(self) -> str:
        return self.module.split(".")[1]

    @property
    def words(self) -> tuple[str, ...]:
        """What must be given by hand."""
        return tuple(n for n in self.needs if n.isupper())

    @property
    def data(self) -> tuple[str, ...]:
        return tuple(n for n in self.needs if not n.isupper())

    def load(self) -> Benchmark:
        return next(b for b in import_module(self.module).BENCHMARKS if b.name == self.name)


def entries() -> list[Entry]:
    """Every benchmark, by subject and name. The records are read and not executed, so that a list costs no import of
    torch: `name`, `needs` and `minutes` are literals."""
    out = []
    for path in sorted(FOLDER.glob("*/*.py")):
        source = path.read_text("utf-8")
        if "\nBENCHMARKS = " not in source:
            continue
        tree = ast.parse(source)
        module = ".".join(("benchmarks", path.parent.name, path.stem))
        about = (ast.get_docstring(tree) or "").partition("\n\n")[0].replace("\n", " ")
        for node in tree.body:
            if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["BENCHMARKS"]:
                assert isinstance(node.value, ast.Tuple)
                for record in node.value.elts:
                    assert isinstance(record, ast.Call)
                    name, needs, minutes = map(ast.literal_eval, record.args[:3])
                    out.append(Entry(name, needs, minutes, module, about))
    return sorted(out, key=lambda e: (e.subject, e.name))


def parser_of(name: str, docstring: str | None) -> argparse.ArgumentParser:
    """The parser of a benchmark's words, described by the beginning of its module's docstring."""
    about = (docstring or "").partition("\n\n")[0].replace("\n", " ")
    return argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=about)


def subject_title(subject: str) -> str:
    """The first line of the docstring of a subject's folder."""
    docstring = ast.get_docstring(ast.parse((FOLDER / subject / "__init__.py").read_text("utf-8"))) or subject
    return docstring.partition("\n")[0].removesuffix(".")
