"""The shape of the house: who may import whom, how long a file and a function may be, what must not be there.

docs/design says why; this file is the rule itself. A new folder needs a line in ALLOWED.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import afresh
from afresh import catalog

SOURCE = Path(afresh.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
MAX_FILE, MAX_FUNCTION = 400, 60  # lines

# Who may import whom. `program` is every module directly in afresh/; a folder may import itself, but a plug-in never
# imports a plug-in beside it. The catalog names plug-ins and loads them when asked, so that even it imports none.
BASE = {"core", "rng"}
ALLOWED = {
    "rng": set[str](),
    "core": {"rng"},
    "kernels": BASE,
    "nets": BASE | {"kernels"},
    "data": BASE | {"nets"},  # a text encoder makes vectors of captions
    "sampling": BASE,
    "training": BASE | {"kernels"},
    "modalities": BASE | {"data"},
    "codecs": BASE | {"nets"},
    "families": BASE | {"kernels", "nets", "sampling"},
    "measure": BASE | {"nets", "training"},
    "control": BASE | {"nets", "training"},
    "aligners": BASE | {"control"},
    "formats": BASE | {"nets", "families", "data"},
    "program": BASE | {"kernels", "data", "training", "measure", "control", "sampling", "formats"},
    "cli": BASE | {"data", "training", "measure", "control", "formats", "program"},
}
PLUGINS = {
    "modalities": catalog.MODALITIES,
    "families": (*catalog.FAMILIES, *catalog.FOREIGN),
    "codecs": catalog.CODECS,
    "aligners": catalog.ALIGNERS,
    "measure": catalog.METRICS,
}
FORBIDDEN = {
    r"\bpickle\b": "pickle runs code when it is read",
    r"torch\.(load|save)\b": "torch.load reads pickles: use safetensors",
    r"\b(if|elif) [\w.]*(modality|family)(\.name)? ==": "what depends on a plug-in belongs in the plug-in's file",
    r"\bhasattr\(": "say in the type what an object can do",
}


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(("afresh", *(p for p in parts if p != "__init__")))


MODULES = {module_of(p): p for p in FILES}


def layer_of(module: str) -> str:
    parts = module.split(".")
    if len(parts) > 1 and parts[1] in ALLOWED:
        return parts[1]
    return "cli" if parts[1:] == ["__main__"] else "program"


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module of afresh that is named in an import, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "afresh")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module and node.module.split(".")[0] == "afresh":
                names = (f"{node.module}.{a.name}" for a in node.names)
                yield from (n if n in MODULES else node.module for n in names)


def is_plugin(module: str) -> bool:
    parts = module.split(".")
    return len(parts) == 3 and parts[2] in PLUGINS.get(parts[1], ())


def test_imports_follow_the_layers() -> None:
    wrong = []
    for module, path in MODULES.items():
        here = layer_of(module)
        for other in imports(ast.parse(path.read_text())):
            there = layer_of(other)
            siblings = is_plugin(module) and is_plugin(other) and other != module
            version = other == "afresh"  # `from afresh import __version__`
            if not version and (siblings or (there != here and there not in ALLOWED[here])):
                wrong.append(f"{module} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_every_plugin_is_in_the_catalog() -> None:
    for folder in ("modalities", "families", "codecs"):
        found = {p.stem for p in (SOURCE / folder).glob("*.py")} - {"__init__"}
        assert found == set(PLUGINS[folder]), folder


def test_modules_do_not_import_in_circles() -> None:
    """Imports at the top of modules; one inside a function, or for types only, is a choice."""
    graph = {}
    for module, path in MODULES.items():
        body = ast.parse(path.read_text()).body
        top = ast.Module([n for n in body if isinstance(n, ast.Import | ast.ImportFrom)], [])
        graph[module] = set(imports(top)) - {"afresh"}
    TopologicalSorter(graph).prepare()  # raises CycleError, naming the circle


def test_the_waist_knows_only_torch() -> None:
    for path in (SOURCE / "rng.py", *(SOURCE / "core").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for full in names:
                ours = full == "afresh.rng" or full.startswith("afresh.core")
                assert ours or full.split(".")[0] in {"torch", *sys.stdlib_module_names}, full


def test_files_and_functions_are_short() -> None:
    long = []
    for path in FILES:
        text = path.read_text()
        if (lines := text.count("\n")) > MAX_FILE:
            long.append(f"{path.name} has {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.body[0].lineno + 1  # a command's options are in its signature
                if lines > MAX_FUNCTION:
                    long.append(f"{path.name}: {node.name} has {lines} lines")
    assert not long, "\n".join(long)


def code_only(text: str) -> str:
    """The source without comments, docstrings and other strings."""
    return ast.unparse(_NoStrings().visit(ast.parse(text)))


class _NoStrings(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("") if isinstance(node.value, str) else node


def test_what_must_not_be_there() -> None:
    found = []
    for path in FILES:
        for line in code_only(path.read_text()).splitlines():
            found += [f"{path.name}: {line.strip()} ({why})" for p, why in FORBIDDEN.items() if re.search(p, line)]
    assert not found, "\n".join(found)
