"""The layers of the package: which folder may import which, that no imports form a circle, and what must not occur.

docs/development/design says why; this file is the rule itself. Every import counts: at the top of a module, inside a
function and for types only. A new folder needs a row in LAYERS.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import afresh
from afresh.core import Space

SOURCE = Path(afresh.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# A module may import modules of its own folder and of the rows above its own. Folders that share a row, such as
# sampling and training, do not import each other. Plug-ins are found through `core.registry`, by name, so that nothing
# imports them statically except `formats`, which converts the configuration of one family.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("core",),
    ("data.preferences",),
    ("data.storage",),
    ("runs.sandbox", "engine.nets", "engine.pages", "services.provenance"),
    ("data", "services.watermark"),
    ("services.disclosure",),
    ("engine.sampling", "engine.training"),
    ("engine.families",),
    ("runs.formats", "services.collect"),
    ("runs", "services.bundles"),
    ("engine.evaluation", "services.labels"),
    ("engine.alignment",),
    ("verbs",),
    ("services.catalogue",),
    ("api",),
    ("services.demo", "faces"),
    ("faces.cli",),
    ("domains",),
)
ROW = {folder: row for row, folders in enumerate(LAYERS) for folder in folders}
ROOMS = {"core", "engine", "data", "runs", "verbs", "domains", "services", "faces"}
ROOT_MODULES = {"__init__", "__main__", "api"}
FORBIDDEN = {
    r"\bpickle\b": "pickle executes code when it is read",
    r"torch\.(load|save)\b": "torch.load reads pickles: use safetensors",
    r"\b(if|elif|and|or|not) [\w.]*(modality|family)(\.name)? ==": "what depends on a plug-in belongs in its own file",
    r"\bhasattr\(": "say in the type what an object can do",
    r"\bwarnings\.warn\b": "messages are events: use core.events",
}


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(("afresh", *(p for p in parts if p != "__init__")))


MODULES = {module_of(p): p for p in FILES}


def layer_of(module: str) -> str:
    parts = module.split(".")
    inner = ".".join(parts[1:3])
    return "faces.cli" if inner == "__main__" else inner if inner in ROW else inner.split(".")[0]


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module of afresh that is named in an import, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "afresh")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module and node.module.split(".")[0] == "afresh":
                names = (f"{node.module}.{a.name}" for a in node.names)
                yield from (n if n in MODULES else node.module for n in names)


@cache
def graph() -> dict[str, set[str]]:
    """What each module imports. `afresh` itself is `__version__`, and its lazy attributes, which are those of
    `afresh.api`."""
    return {
        module: set(imports(ast.parse(path.read_text()))) - {"afresh"}
        for module, path in MODULES.items()
        if module != "afresh"
    }


def test_the_root_holds_eight_rooms_and_the_python_interface_only() -> None:
    assert {p.stem for p in SOURCE.glob("*.py")} == ROOT_MODULES
    assert {p.name for p in SOURCE.iterdir() if p.is_dir() and any(p.rglob("*.py"))} == ROOMS


def test_modules_import_only_from_rows_above_their_own() -> None:
    wrong = []
    for module, others in graph().items():
        here = layer_of(module)
        for other in others:
            there = layer_of(other)
            if there != here and not ROW[there] < ROW[here]:
                wrong.append(f"{module} imports {other}")
    assert not wrong, "\n".join(sorted(wrong))


def test_modules_do_not_import_in_circles() -> None:
    TopologicalSorter(graph()).prepare()  # raises CycleError, naming the circle


def test_each_folder_has_one_row() -> None:
    folders = [folder for row in LAYERS for folder in row]
    assert len(folders) == len(set(folders))


def test_a_domain_does_not_import_a_domain_nor_a_family_a_family() -> None:
    for folder in ("domains", "engine.families"):
        assert any(module.startswith(f"afresh.{folder}.") for module in graph()), folder
        for module, others in graph().items():
            if module.startswith(f"afresh.{folder}."):
                beside = {o for o in others if o.startswith(f"afresh.{folder}.")} - {f"afresh.{folder}.codecs"}
                package = ".".join(module.split(".")[: folder.count(".") + 3])  # a plug-in may be a folder
                assert all(o == package or o.startswith(f"{package}.") for o in beside), (module, beside)


# What depends on a kind of data is asked of its encoder (`Encoder.abilities`), of its kind of items (`ItemKind`) or of
# its space, so that no file outside of domains and families knows another one. The flags of a space are asked for no
# more often than this outside of domains: the number may only become smaller.
FLAGS = {
    *(f.name for f in fields(Space) if f.name not in ("kind", "shape", "vocab", "special", "grid", "std", "axes")),
    "pixels",
    "serial",
    "timed",
    "fixed",
}
FLAGS_USED = 114


def engine(*without: str) -> Iterator[tuple[str, ast.AST]]:
    """The modules outside of these folders, by default domains, families and networks, by their path."""
    for path in FILES:
        name = path.relative_to(SOURCE)
        if layer_of(module_of(path)) not in (without or ("domains", "engine.families", "engine.nets")):
            yield str(name), ast.parse(path.read_text())


@cache
def kinds_of_items() -> dict[str, str]:
    """The names of kinds of items, by the modules that define them."""
    out = {}
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            match node:
                case ast.Assign(targets=[ast.Name(name)], value=ast.Call(func=ast.Name("ItemKind"))):
                    out[module] = name
    return out


def test_no_file_of_the_engine_imports_a_domain() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in graph().items()
        for other in others
        if other.startswith("afresh.domains.") and not module.startswith("afresh.domains.")
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_an_encoder_is_asked_what_it_can_do_and_not_for_its_class() -> None:
    protocols = {"Encoder", "Prompts", "Texts", "Tunable", "Recombines"}
    wrong = []
    for name, tree in engine():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass", "type"):
                asked = ast.unparse(node.args[0])
                classes = set(re.findall(r"\w+", ast.unparse(node.args[1]))) if len(node.args) > 1 else set()
                if asked.endswith("encoder") or classes & protocols or any(c.endswith("Encoder") for c in classes):
                    wrong.append(f"{name}: {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


def test_a_kind_of_items_is_asked_what_its_items_are_and_not_which_it_is() -> None:
    assert set(kinds_of_items().values()) >= {"TEXT", "IMAGE", "SOUND"}
    wrong = []
    for name, tree in engine():
        imported = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if kinds_of_items().get(str(node.module)) == alias.name
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
            elif isinstance(node, ast.Dict):  # a table by kind
                sides = [key for key in node.keys if key is not None]
            else:
                continue
            parts = [part for side in sides for part in getattr(side, "elts", [side])]
            named = {part.id for part in parts if isinstance(part, ast.Name)} & imported
            if named or any(isinstance(p, ast.Attribute) and ast.unparse(p).endswith("kind.name") for p in parts):
                wrong.append(f"{name}: {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


def test_flags_of_a_space_are_asked_seldom() -> None:
    used = [
        f"{name}: {ast.unparse(node)}"
        for name, tree in engine("domains")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in FLAGS and ast.unparse(node.value).endswith("space")
    ]
    assert len(used) <= FLAGS_USED, "\n".join([f"{len(used)} are more than {FLAGS_USED}:", *used])


def test_the_waist_knows_only_torch_numpy_and_pydantic() -> None:
    accepted = {"torch", "numpy", "pydantic", "pydantic_core", "annotated_types", *sys.stdlib_module_names}
    for path in (SOURCE / "core").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            for full in names:
                assert full.startswith("afresh.core") or full.split(".")[0] in accepted, (path.name, full)


def code_only(text: str) -> str:
    """The source without comments, docstrings and other strings."""
    return ast.unparse(_NoStrings().visit(ast.parse(text)))


class _NoStrings(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("") if isinstance(node.value, str) else node


def test_what_must_not_occur() -> None:
    wrong = []
    for path in FILES:
        for line in code_only(path.read_text()).splitlines():
            wrong += [f"{path.name}: {line.strip()} ({why})" for p, why in FORBIDDEN.items() if re.search(p, line)]
    assert not wrong, "\n".join(wrong)


# Programs of others that a message quotes, commands that a page tells to type, and CSS.
OF_AFRESH = tuple(
    f"afresh {verb} "
    for verb in ("anomalies", "sample", "train", "measure", "recommend", "practise", "serve", "rm", "forecast")
)
TYPED = ("llama-gguf-split --merge", "hf download", *OF_AFRESH, "var(--")
# Files that run programs of others: git, torchrun, sky. A text that is one option is what these are run with.
RUN_OTHERS = (
    "services/collect/sources/repository.py",
    "verbs/processes.py",
    *(f"verbs/launch/{f}.py" for f in ("kubernetes", "render", "sky")),
)
ONE_OPTION = re.compile(r"(f')?--[a-z-]+(=\S*)?")


def strings(tree: ast.AST) -> Iterator[str]:
    """The string constants of a module, without docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):  # the flags of a verb's parameter, in its declaration
        if isinstance(node, ast.keyword) and node.arg == "flags":
            parts |= {id(part) for part in ast.walk(node.value)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | parts:
            yield node.value


def test_messages_name_options_as_python_does() -> None:
    """Only the command line knows its own options: it words `guidance=2` as --guidance 2 (cli/wording.py)."""
    wrong = []
    for path in FILES:
        if layer_of(module_of(path)) != "faces.cli":
            for text in strings(ast.parse(path.read_text())):
                if ONE_OPTION.fullmatch(text) and path.relative_to(SOURCE).as_posix() in RUN_OTHERS:
                    continue
                if re.search(r"(?<![\w-])--[a-z]", text) and not any(t in text for t in TYPED):
                    wrong.append(f"{path.relative_to(SOURCE)}: {text[:100]}")
    assert not wrong, "\n".join(wrong)


def test_no_test_patches_the_clock_of_the_whole_process() -> None:
    """Servers of other tests run beside it, whose timers would wait for what another clock said."""
    patched = re.compile(
        r"""\.(time|asyncio), ["'](monotonic|sleep)["']|["'](time|asyncio|[\w.]+\.time)\.(monotonic|sleep)["']"""
    )
    wrong = [path.name for path in (SOURCE.parents[1] / "tests").rglob("*.py") if patched.search(path.read_text())]
    assert not wrong
