"""The documentation is held to the code: names resolve, links lead somewhere, worked examples run."""

from __future__ import annotations

import ast
import inspect
import math
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from docs import generate

import afresh
from afresh.core import Cond, Examples, Part, Space, plugins, registry
from afresh.core.rng import Rng
from afresh.data.image.kind import ImageResultSettings
from afresh.data.load import Loader, sweep
from afresh.engine.training import loop
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.plan import make_learner
from afresh.faces.cli import command
from afresh.runs.run import metrics_rows
from afresh.verbs.train import TrainSpec, start
from afresh.verbs.training_job import learn
from tests.contracts import rows
from tests.contracts import test_families as family_promises
from tests.contracts import test_modalities as modality_promises
from tests.heard import heard

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


# --------------------------------------------------------------------------- names, links, papers


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def member(owner: Any, name: str) -> Any:
    """An attribute, or the declared field of a class. Raises AttributeError."""
    if isinstance(owner, type):
        fields = {f for c in owner.__mro__ for f in inspect.get_annotations(c)}
        if name in fields:
            return None
    return getattr(owner, name)


def resolve(dotted: str) -> Any:
    """What a dotted name stands for. Raises ImportError or AttributeError where there is no such thing."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        try:
            found: Any = import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise
            continue
        for part in parts[length:]:
            found = member(found, part)
        return found
    raise ImportError(dotted)


def names(text: str) -> Iterator[str]:
    """Dotted names of this package in backticks, without arguments."""
    for quoted in re.findall(r"`([^`\n]+)`", text):
        if found := re.fullmatch(r"(afresh(?:\.\w+)+)(?:\(.*\))?", quoted):
            yield found[1]


@each_page
def test_every_name_exists(page: Path) -> None:
    missing = []
    for name in names(prose(page)):
        try:
            resolve(name)
        except (ImportError, AttributeError) as error:
            missing.append(f"{name}: {error}")
    assert not missing, "\n".join(missing)


def test_a_name_that_does_not_exist_is_found() -> None:
    assert list(names("`afresh.core.Space`, `afresh.core.rng.Rng.bits(purpose)`, `afresh train`")) == [
        "afresh.core.Space",
        "afresh.core.rng.Rng.bits",
    ]
    resolve("afresh.core.Family.accepts")
    for name in ("afresh.nothing", "afresh.core.Nothing", "afresh.core.Space.nothing"):
        with pytest.raises((ImportError, AttributeError)):
            resolve(name)


def test_everything_that_a_benchmark_imports_exists() -> None:
    """Benchmarks take hours, and nothing else would notice a name that has changed."""
    missing = set()
    for path in (ROOT / "benchmarks").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("afresh", "tools"):
                for name in (f"{node.module}.{alias.name}" for alias in node.names):
                    try:
                        resolve(name)
                    except (ImportError, AttributeError):
                        missing.add(f"{path.relative_to(ROOT)}: {name}")
    assert not missing, "\n".join(sorted(missing))


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in headings}


@each_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken, broken


@each_page
def test_every_path_in_the_repository_exists(page: Path) -> None:
    found = re.findall(r"`((?:src|tests|tools|docs|benchmarks)/[\w./-]+)`", prose(page))
    missing = [p for p in found if not (ROOT / p).exists()]
    assert not missing, missing


def test_every_page_that_the_code_names_exists() -> None:
    """In comments, docstrings and messages of the program, its tests and its benchmarks."""
    missing = set()
    for folder in ("src", "tests", "tools", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            named = re.findall(r"(?<![\w/.])docs/[\w./-]*\w", path.read_text(encoding="utf-8"))
            missing |= {f"{path.name}: {name}" for name in named if not (ROOT / name).exists()}
    assert not missing, missing


def paper_rows() -> list[list[str]]:
    lines = (ROOT / "docs" / "development" / "papers.md").read_text(encoding="utf-8").splitlines()
    table = [[c.strip() for c in line.strip().strip("|").split("|")] for line in lines if line.startswith("|")]
    return [r for r in table if r[0] != "Paper" and not set(r[0]) <= set("-: ")]


def test_every_paper_names_a_function_that_cites_it() -> None:
    """In the docstrings or comments of the module named, by the first author's name."""
    found = paper_rows()
    assert len(found) > 20
    for row in found:
        assert len(row) == 3, row
        named = list(names(row[1]))
        assert named, f"{row[0]} names no function"
        author = re.split(r"[ ,]", row[0])[0]
        sources = []
        for name in named:
            thing = resolve(name)
            sources.append(inspect.getsource(thing if isinstance(thing, ModuleType) else sys.modules[thing.__module__]))
        assert any(author in s for s in sources), f"{author} is cited in none of {named}"


def test_every_paper_cited_in_the_code_is_in_the_table() -> None:
    listed = " ".join(r[0] for r in paper_rows())
    cited = re.compile(r"\b([A-Z][a-z]+(?:-[A-Z][a-z]+)?)(?: et al\.| and [A-Z][a-z]+)[,\s]+(\d{4})\b")
    missing = set()
    for path in (ROOT / "src").rglob("*.py"):
        for author, year in cited.findall(path.read_text(encoding="utf-8")):
            if author not in listed or year not in listed:
                missing.add(f"{path.name}: {author} {year}")
    assert not missing, sorted(missing)


# --------------------------------------------------------------------------- commands

CLI = command()
HISTORY = ("CHANGELOG.md", "log.md")  # these name what was, too
SAMPLING = ("sample", "edit", "blend", "compare", "compose", "assimilate")


def command_lines(page: Path) -> list[list[str]]:
    """The words of every line in a block of bash that calls afresh."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [w for w in words if w and Path(w[0]).name == "afresh"]


def quoted_commands(page: Path) -> list[list[str]]:
    """The words of every command in backticks within the text; these may be parts of commands."""
    quoted = [" ".join(q.split()) for q in re.findall(r"`(afresh [^`]+)`", prose(page))]
    return [q.replace("'", "").replace('"', "").split() for q in quoted]


def unknown_settings(verb: str, words: list[str]) -> list[str]:
    """Keys of --set and --data that no model of settings has."""
    pairs = [(flag, word.partition("=")[0]) for flag, word in pairwise(words)]
    data = {k for m in registry.own_modalities() for k in registry.modality(m).options.model_fields}
    families = [registry.family(f) for f in (*registry.FAMILIES, *registry.FOREIGN)]
    drawn = {k for f in families for k in f.sampling.settings.model_fields} | set(ImageResultSettings.model_fields)
    known = {f"train.{k}" for k in TrainConfig.model_fields}
    known |= {f"family.{k}" for f in families for v in (f, *f.variants) for k in v.config.model_fields}
    known |= {f"align.{k}" for a in registry.aligners().values() for k in a.config.model_fields}
    known |= {f"sample.{k}" for k in drawn}
    own = getattr(CLI.commands[verb], "settings", {}).keys()
    wanted = {"--set": own | (drawn if verb in SAMPLING else known), "--data": data}
    if verb in ("measure", "rm"):
        del wanted["--data"]  # a path
    if verb in ("catalogue", "demo"):
        del wanted["--set"]  # of a catalogue, or of a maker of data
    return [f"{flag} {key}" for flag, key in pairs if flag in wanted and key not in wanted[flag]]


@pytest.fixture(autouse=True)
def every_path_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the documentation name data that a reader has, and buckets that are not asked."""
    monkeypatch.setattr("afresh.faces.cli.paths.is_missing", lambda path: False)
    monkeypatch.setattr("afresh.faces.cli.paths.is_address", lambda path: False)


def problem(words: list[str]) -> str | None:
    """Why the command line would be refused as it stands; None where it would not."""
    verb = words[1]
    if verb.startswith("-"):
        return None
    if verb not in CLI.commands:
        return f"there is no command {verb}"
    try:
        context = CLI.commands[verb].make_context(verb, list(words[2:]))
        if subcommands(verb):  # which checks the words of its commands when it runs
            name, command, rest = CLI.commands[verb].resolve_command(context, list(words[2:]))
            command.make_context(name, rest, parent=context)
    except Exception as error:
        return str(error) or type(error).__name__
    if verb == "launch":  # and another command behind --
        return problem(["afresh", *words[words.index("--") + 1 :]])
    return ", ".join(unknown_settings(verb, words)) or None


@each_page
def test_every_command_is_accepted(page: Path) -> None:
    found = {" ".join(words): problem(words) for words in command_lines(page)}
    assert not any(found.values()), {line: why for line, why in found.items() if why}


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in HISTORY], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_option_that_is_mentioned_exists(page: Path) -> None:
    wrong = []
    for _, *words in quoted_commands(page):
        verb = words[0]
        if verb not in CLI.commands:
            if re.fullmatch(r"[a-z]+", verb):
                wrong.append(verb)
            continue
        wrong += [f"{verb} {w}" for w in words[1:] if not known_option(verb, w)]
    assert not wrong, wrong


def strings(tree: ast.AST) -> Iterator[str]:
    """The strings of a module; what is put into a formatted string is an X."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_commands_in_messages_and_docstrings_have_options_that_exist() -> None:
    wrong = []
    for path in (ROOT / "src").rglob("*.py"):
        for text in strings(ast.parse(path.read_text(encoding="utf-8"))):
            for hit in re.finditer(r"\bafresh ([a-z]+)((?: [^\s.,;:()`]+)*)", text):
                commands = f"{hit[1]}{hit[2]}".split(" -- ")  # the second of them is launched by the first
                for verb, *words in (c.split() for c in commands if c):
                    if verb in CLI.commands:
                        wrong += [f"{path.name}: {hit[0]}: {w}" for w in words if not known_option(verb, w)]
    assert not wrong, "\n".join(wrong)


def subcommands(verb: str) -> dict[str, Any]:
    """The commands of a group by name; none of another command."""
    return dict(getattr(CLI.commands[verb], "commands", {}))


def known_option(verb: str, word: str) -> bool:
    """Whether a word is not an option, or one of the command."""
    commands = [CLI.commands[verb], *subcommands(verb).values()]
    names = {name for c in commands for p in c.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
    return re.fullmatch(r"--?[a-z][a-z-]*", word) is None or word in names


def test_a_command_that_would_be_refused_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\nafresh train x \\\n  --minutes 1  # so\n.venv/bin/afresh show\nls\n```\n", encoding="utf-8"
    )
    assert command_lines(page) == [["afresh", "train", "x", "--minutes", "1"], [".venv/bin/afresh", "show"]]
    assert problem(["afresh", "train", "x", "--minutes", "1", "--set", "train.lr=0.1", "--data", "size=8"]) is None
    for line in (
        "afresh learn x",
        "afresh train x --hours 1",
        "afresh train x --minutes soon",
        "afresh sample",
        "afresh train x --set train.speed=1",
        "afresh sample x --set train.lr=1",
        "afresh train x --data sighs=8",
        "afresh catalogue sell x",
        "afresh catalogue publish x",
        "afresh catalogue add x --price free --cost 1",
    ):
        assert problem(line.split()), line


# --------------------------------------------------------------------------- Python


def python_blocks(page: Path) -> list[str]:
    """The blocks of Python that use afresh as a user does."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [b for b in blocks if re.search("^import afresh$", b, re.MULTILINE)]


def python_problems(text: str) -> list[str]:
    """Calls of `afresh.NAME(...)`, and of methods of the models that these return, which would raise TypeError or
    AttributeError, or ask for a setting of sampling that no family has."""
    tree, wrong, models = ast.parse(text), [], {"model"}
    drawn = {
        k for f in (*registry.FAMILIES, *registry.FOREIGN) for k in registry.family(f).sampling.settings.model_fields
    } | set(ImageResultSettings.model_fields)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and is_model(node.value, models):
            models |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner, name = node.func.value, node.func.attr
        if isinstance(owner, ast.Name) and owner.id == "afresh":
            parameters: tuple[Any, ...] = (*node.args,)
            target = getattr(afresh, name, None) if name in afresh.__all__ else None
        elif is_model(owner, models):
            parameters = (None, *node.args)
            target = getattr(afresh.Model, name, None) or verb_of_a_domain(name)
        else:
            continue
        if target is None:
            wrong.append(f"{name} does not exist")
            continue
        try:
            bound = inspect.signature(target).bind(*parameters, **{str(k.arg): k.value for k in node.keywords})
        except TypeError as error:
            wrong.append(f"{name}: {error}")
            continue
        others = bound.arguments.get("settings")  # of **settings
        wrong += [f"{name}: no family has {k}" for k in others if k not in drawn] if isinstance(others, dict) else []
    return wrong


def verb_of_a_domain(name: str) -> Any:
    """The function of a verb that models have by their kind of data; None if there is none."""
    return registry.verb(name).function if name in registry.verbs() else None


def is_model(node: ast.expr, models: set[str]) -> bool:
    """Whether an expression is a name of a model, or a call of afresh that returns one."""
    if isinstance(node, ast.Name):
        return node.id in models
    call = node.func if isinstance(node, ast.Call) else None
    return (
        isinstance(call, ast.Attribute)
        and isinstance(call.value, ast.Name)
        and call.value.id == "afresh"
        and call.attr in ("load", "train", "tune", "resume")
    )


@each_page
def test_every_call_from_python_is_accepted(page: Path) -> None:
    wrong = [problem for block in python_blocks(page) for problem in python_problems(block)]
    assert not wrong, wrong


def test_a_call_that_would_be_refused_is_found() -> None:
    assert python_problems("m = afresh.train('x', minutes=1)\nm.sample(4, guidance=2.0).save('x')") == []
    for text in (
        "afresh.learn('x')",
        "afresh.train('x', hours=1)",
        "m = afresh.load('x')\nm.draw(4)",
        "afresh.load('x').sample(4, speed=2)",
        "model.edit(['x'], masks='y')",
    ):
        assert python_problems(text), text


# --------------------------------------------------------------------------- generated parts


def test_the_generated_parts_are_fresh() -> None:
    assert not generate.stale(), "run: make docs"


def test_every_setting_is_explained() -> None:
    """By a comment behind the field, or by its name in backticks in the docstring of its class."""
    missing = {model.__name__: names for model in generate.models() if (names := generate.unexplained(model))}
    assert not missing, missing


def test_a_part_that_is_stale_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "generated", lambda: {page: "new"})
    assert generate.stale() == ["page.md"]
    page.write_text("old", encoding="utf-8")
    assert generate.stale() == ["page.md"]
    page.write_text("new", encoding="utf-8")
    assert generate.stale() == []


# --------------------------------------------------------------------------- worked examples


def block(page: str, file: str) -> str:
    """The code on a page that begins with the comment `# file`."""
    text = (ROOT / "docs" / "development" / page).read_text(encoding="utf-8")
    found = re.findall(rf"^```python\n# {re.escape(file)}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{page} has {len(found)} blocks of {file}"
    return str(found[0])


def install(page: str, file: str, patch: pytest.MonkeyPatch) -> tuple[str, Any]:
    """Make a page's plug-in, its line in the registry or its record, and its row part of the program; returns (name,
    row)."""
    parts = Path(file).with_suffix("").parts[1:]
    module = ModuleType(".".join(parts))
    patch.setitem(sys.modules, module.__name__, module)
    exec(compile(block(page, file), file, "exec"), module.__dict__)
    line: dict[str, Any] = {}
    if parts[1] == "domains":
        name = parts[2]
        exec(block(page, f"src/afresh/domains/{name}/__init__.py"), line)
        everything = {**plugins.own_plugins(), name: line["PLUGIN"]}
        package = patch_package(f"afresh.domains.{name}", patch)
        package.modality = module  # type: ignore[attr-defined]
        patch.setattr(plugins, "own_plugins", lambda: everything)
    else:
        name = parts[-1]
        exec(block(page, "src/afresh/core/registry.py"), line)
        assert line["FAMILIES"] == (*registry.FAMILIES, name), f"the line of {page} in the registry is stale"
        patch.setattr(registry, "FAMILIES", line["FAMILIES"])
    plugins.forget()
    *before, last = block(page, "tests/contracts/rows.py").strip().split("\n\n\n")
    space = dict(rows.__dict__)
    for part in before:
        exec(part, space)
    return name, eval(last, space)


def patch_package(name: str, patch: pytest.MonkeyPatch) -> ModuleType:
    """An empty package under a name."""
    package = ModuleType(name)
    package.__path__ = []
    patch.setitem(sys.modules, name, package)
    return package


def promises(module: ModuleType) -> list[Callable[..., None]]:
    return [
        f for n, f in inspect.getmembers(module, inspect.isfunction) if n.startswith("test_") and takes(f) >= {"row"}
    ]


def takes(f: Callable[..., None]) -> set[str]:
    return set(inspect.signature(f).parameters)


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any]]:
    yield install("add-a-family.md", "src/afresh/engine/families/mixture.py", monkeypatch)
    plugins.forget()


@pytest.fixture
def modality(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any]]:
    yield install("add-a-modality.md", "src/afresh/domains/series/modality.py", monkeypatch)
    plugins.forget()


@pytest.mark.parametrize("promise", promises(family_promises), ids=lambda f: f.__name__[5:])
def test_the_family_keeps_what_families_promise(
    promise: Callable[..., None], family: tuple[str, Any], tmp_path: Path
) -> None:
    _, row = family
    wanted = takes(promise)
    able = getattr(promise, "able", lambda family, space: True)
    for i, space in enumerate(row.spaces if "space" in wanted else row.spaces[:1]):
        if not able(row.family(rows.SPACES[space]), rows.SPACES[space]):
            continue
        (tmp_path / str(i)).mkdir()
        given = {"row": row, "space": rows.SPACES[space], "tmp_path": tmp_path / str(i), "guidance": 2.0}
        for name in rows.SPACES if "name" in wanted else ("",):
            promise(**{k: v for k, v in {**given, "name": name}.items() if k in wanted})


@pytest.mark.parametrize("promise", promises(modality_promises), ids=lambda f: f.__name__[5:])
def test_the_modality_keeps_what_modalities_promise(
    promise: Callable[..., None], modality: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"row": modality[1], "tmp_path": tmp_path, "monkeypatch": monkeypatch}
    promise(**{k: v for k, v in given.items() if k in takes(promise)})


def two_sided(n: int, purpose: str) -> Examples:
    """Class 0: (1, 1) or (-1, -1); class 1: (1, -1) or (-1, 1), each as often, with noise of deviation 0.1."""
    index = torch.arange(n)
    label = index % 2
    side = torch.where(Rng(0).bernoulli(f"{purpose}/side", index, 0.5), 1.0, -1.0)
    centre = torch.stack([side, side * (1 - 2 * label)], 1)[:, None]  # (N, 1, 2)
    x = centre + 0.1 * Rng(0).normal(f"{purpose}/noise", index, (1, 2))
    return Examples(x, Cond(n, {"label": label}, {"label": torch.ones(n, dtype=torch.bool)}))


def true_log_density(x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Of `two_sided`: nats, (N,)."""
    centre = torch.stack([torch.ones(len(x)), 1.0 - 2 * label], 1)
    each = [-0.5 * ((x[:, 0] - s * centre) / 0.1).square().sum(1) for s in (1, -1)]
    return torch.logsumexp(torch.stack(each), 0) - math.log(2) - 2 * (0.5 * math.log(2 * math.pi) + math.log(0.1))


def test_the_family_learns_a_density_that_is_known(family: tuple[str, Any], tmp_path: Path) -> None:
    """By the program's loop: within 0.05 nats of the true density on new data, both sides of each class drawn."""
    found, space, spec = registry.family(family[0]), Space("field", (1, 2)), {"label": Part("label", ("same", "other"))}
    config = found.config(components=8)
    told = TrainConfig(**found.plan.recipe(space), steps=400, batch=64, micro_batch=64, save_every=400)
    learner = make_learner(found, config, space, spec, told)
    rng = Rng(0)
    loop.run(learner, Loader(two_sided(2000, "train"), space, rng).batch, tmp_path / "checkpoints", rng, loop.Hooks())
    (held,) = sweep(two_sided(1000, "heldout"), space, 1000)
    label = held.cond.parts["label"]
    assert found.likelihood is not None
    with torch.no_grad():
        short = true_log_density(held.x, label) - found.likelihood.score(learner.modules, config, space, held, rng)
    assert abs(float(short.mean())) < 0.05
    x = found.sampling.sample(
        learner.modules, config, space, held.cond, rng, torch.arange(1000), found.sampling.settings()
    )
    sign = x[:, 0].sign()  # (N, 2)
    assert float((sign.prod(1) == 1 - 2 * label).float().mean()) > 0.99
    assert 0.4 < float((sign[:, 0] > 0).float().mean()) < 0.6


def test_a_new_family_learns_a_new_modality(family: tuple[str, Any], modality: tuple[str, Any], tmp_path: Path) -> None:
    """From a file on the disk to samples, with nothing but the two pages' code added."""
    data = tmp_path / "waves.dat"
    data.write_text("".join(f"{20 + 5 * math.sin(i / 2.5):.1f}\n" for i in range(4000)), encoding="ascii")
    spec = TrainSpec(data, family=family[0], steps=300, out=tmp_path / "run", device="cpu", data={"length": 16})
    with heard("^data: series"):
        job = start(spec)
    assert job.source.space.shape == (1, 16)
    learn(job)
    held = [row["heldout_loss"] for row in metrics_rows(job.run) if "heldout_loss" in row]
    apart = 16 * (
        0.5 * math.log(2 * math.pi * math.e) + math.log(job.source.space.std)
    )  # each number by itself, a Gaussian
    assert held[-1] < apart - 5
    samples = afresh.load(job.run.path).sample(20, seed=1)
    assert all(job.run.encoder.valid(v) for v in samples.values)
    assert [r["text"] for r in samples.save(tmp_path / "out")] == list(samples.values)


def test_the_families_of_fields_take_the_new_modality(modality: tuple[str, Any]) -> None:
    space = Space("field", (1, 8))
    families = [registry.family(f) for f in registry.FAMILIES]
    taking = [f.name for f in families if f.accepts(space) is None]
    assert taking == list(modality[1].families)
