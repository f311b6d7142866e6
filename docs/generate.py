"""Writes the generated parts of the documentation.

    python -m docs.generate             # write them (make docs)
    python -m docs.generate --check     # exit with 1, naming the parts that are stale

The reference comes from the command line's options, from the docstrings of what `import afresh` offers, and from the
pydantic models of the settings; the pages in docs/results come from what was measured (`make bench`, `make matrix`).
Other pages have generated parts between `<!-- generated: NAME -->` and `<!-- end -->`. Nothing depends on a terminal's
width, on the version of typer or on the machine.
"""

from __future__ import annotations

import argparse
import inspect
import io
import json
import re
import sys
import textwrap
import tokenize
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from benchmarks.common import results_page
from benchmarks.scale import page as scaling
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tests.contracts.rows import MODALITIES, SPACES
from tests.test_layers import LAYERS
from typer.models import ArgumentInfo, Context, OptionInfo

import afresh
from afresh import api
from afresh.core import Family, Question, registry
from afresh.core.plugins import own_plugins
from afresh.data.image.kind import ImageResultSettings
from afresh.data.preferences import Preferences, variable
from afresh.data.prepare import prepare
from afresh.engine.evaluation.verdict import MEANING
from afresh.engine.families.codecs.records import RecordsCodec, takes
from afresh.engine.sampling.setting_words import WORDS
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.logs.run_log import LOGS
from afresh.engine.training.options import FLAGS
from afresh.faces.cli import app, option_names
from afresh.faces.cli import commands as all_commands
from afresh.faces.cli.extras import EXTRAS
from afresh.faces.cli.options import COMMON, SETTINGS
from afresh.faces.http.app import ServeSettings, make_app
from afresh.faces.http.protocols.anthropic.messages import MessageForm
from afresh.faces.http.protocols.llama_cpp.infill import InfillForm
from afresh.faces.http.protocols.ollama.asking import OllamaOptions
from afresh.faces.http.protocols.ollama.chat import ChatForm
from afresh.faces.http.protocols.ollama.generate import GenerateForm
from afresh.faces.http.protocols.openai.chat import ChatCompletion
from afresh.faces.http.protocols.openai.completions import CompletionForm
from afresh.faces.http.protocols.responses.responses import ResponseForm
from afresh.faces.http.requests.forms import Form, TextConditions
from afresh.services.collect.licences import listed
from afresh.services.collect.rules import Rule, rules
from afresh.services.collect.rules import shown as written_value
from afresh.services.collect.sources.web import WebOptions
from tools import matrix, proved

ROOT = Path(__file__).parents[1]
DETAILED = ("--processes", "--set", "--json")  # common options that say more of a command
NOTE = "<!-- Written by `make docs`; do not edit. -->"


# --------------------------------------------------------------------------- Markdown


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; bars within cells are escaped."""
    lines = [head, ["---"] * len(head), *[[c.replace("|", "\\|").replace("\n", " ") for c in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def paragraphs(thing: Any) -> str:
    """The docstring of the thing itself, without its indentation; examples with prompts become blocks of code."""
    text = inspect.cleandoc(thing.__doc__ or "")
    return re.sub(r"(?m)(^(?:>>>|\.\.\.) .*\n?)+", lambda m: f"```pycon\n{m[0].rstrip()}\n```\n", text).rstrip()


def page(title: str, intro: str, parts: Sequence[str]) -> str:
    filled = textwrap.fill(intro, 120, break_long_words=False, break_on_hyphens=False)
    return "\n\n".join([f"# {title}", NOTE, filled, *parts]).rstrip() + "\n"


# --------------------------------------------------------------------------- types as people write them


def spelled(kind: Any) -> str:
    """`float`, `train or tune`, `list of str` for an annotation; None is left out."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return spelled(args[0])
    if origin is Literal:
        return " or ".join(map(str, args))
    if origin in (Union, types.UnionType):
        return " or ".join(spelled(a) for a in args if a is not type(None))
    if origin in (list, tuple):
        inner = [spelled(a) for a in args if a is not Ellipsis]
        return "list of " + (inner[0] if len(set(inner)) == 1 else ", ".join(inner))
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return f"{spelled(args[0])} to {spelled(args[1])}"
    return {Path: "path", str: "text", bool: "yes or no", int: "integer", float: "number"}.get(kind) or str(
        getattr(kind, "__name__", kind)
    )


# --------------------------------------------------------------------------- docs/reference/cli.md


def cli_page() -> str:
    intro = (
        "Every command and option, as `afresh COMMAND --help` shows them; options that mean the same for every command "
        "that has them are the [common options](#common-options). With `--json`, every line of standard output "
        "is a JSON object, and the last one is [the result or the error](exit-codes.md#json). What a command's [exit "
        "code](exit-codes.md) means and what `--set` and `--data` accept ([settings](settings.md)) is on pages of "
        "their own, as are [settings for every command](configuration.md)."
    )
    return page("Commands", intro, [shared_part(), *(command_part(name, verb) for name, verb in commands().items())])


def shared_part() -> str:
    """The options of `afresh` itself."""
    callback = app.registered_callback
    assert callback is not None and callback.callback is not None
    _, options = described(callback.callback)
    common = table(("Option", "Meaning"), [(code(flag), about) for flag, about in COMMON.items()])
    return "\n\n".join(
        [
            "```text\nafresh [OPTIONS] COMMAND ...\n```",
            table(("Option", "Value", "Meaning", "Default"), options),
            "## Common options",
            "Each command names those that it has.",
            common,
        ]
    )


def commands() -> dict[str, Callable[..., None]]:
    """The functions of the command line by the name of their command."""
    return {name.replace("_", "-"): callback for name, callback in all_commands().items()}


def described(verb: Callable[..., None]) -> tuple[list[tuple[str, str]], list[tuple[str, str, str, str]]]:
    """The arguments of a command, (name, meaning), and its options, (names, value, meaning, default); settings have
    their name."""
    hints, parameters = get_type_hints(verb, include_extras=True), inspect.signature(verb).parameters
    arguments, options = [], []
    for key, parameter in parameters.items():
        if hints[key] is Context:
            continue
        kind, info = get_args(hints[key])
        if isinstance(info, ArgumentInfo):
            many = " ..." if get_origin(kind) is list else ""
            label = (info.metavar or key.upper()).strip("[]").removesuffix(" ...") + many
            optional = parameter.default is not inspect.Parameter.empty
            arguments.append((f"[{label}]" if optional else label, info.help or ""))
        elif isinstance(info, OptionInfo) and not info.hidden:
            names = code(f"--set {key}") if info.rich_help_panel == SETTINGS else flags(key, kind, info)
            value = value_of(kind, info) or ("yes or no" if info.rich_help_panel == SETTINGS else "")
            options.append((names, value, info.help or "", shown(parameter.default)))
    return arguments, options


def command_part(name: str, verb: Callable[..., None]) -> str:
    arguments, options = described(verb)
    usage = " ".join(["afresh", name, *(a for a, _ in arguments), "[OPTIONS]"])
    parts = [f"## {name}", paragraphs(verb), f"```text\n{usage}\n```"]
    if arguments:
        parts.append("\n".join(f"- `{label.strip('[]')}`: {about}" for label, about in arguments))
    settings = [o for o in options if o[0].startswith("`--set ")]
    common = [o for o in options if o[0].strip("`") in COMMON]
    if rows := [o for o in options if o not in settings + common]:
        parts.append(table(("Option", "Value", "Meaning", "Default"), rows))
    if common:
        parts.append(f"[Common options](#common-options): {', '.join(o[0] for o in common)}.")
        said = {
            o[0].strip("`"): o[2].removeprefix("Write each event as a line of JSON, and the result last: ")
            for o in common
        }
        parts.append("\n".join(f"- `{flag}`: {said[flag]}" for flag in DETAILED if flag in said))
    if settings:
        names = ", ".join(code(o[0].strip("`").removeprefix("--set ")) for o in settings)
        where = f"settings.md#{name.replace(' ', '-')}"
        parts.append(f"[Settings of the command]({where}), as `--set NAME=VALUE`: {names}.")
    return "\n\n".join(filter(None, parts))


def flags(key: str, kind: Any, info: OptionInfo) -> str:
    """`--measure/--no-measure`, `-n`, `--json`: how the option is written."""
    written = [d for d in (info.default, *(info.param_decls or ())) if isinstance(d, str) and d.startswith("-")]
    if not written:
        name = f"--{key.replace('_', '-')}"
        written = [f"{name}/--no-{name[2:]}" if kind is bool else name]
    return ", ".join(code(w) for w in written)


def value_of(kind: Any, info: OptionInfo) -> str:
    if kind is bool:
        return ""
    several = any(get_origin(k) is list for k in (kind, *get_args(kind)))
    name = info.metavar or spelled(kind).removeprefix("list of ")
    return f"{name}, repeatable" if several else name


def shown(default: Any) -> str:
    """What a user sees as the default; nothing for what is not set."""
    if default in (None, inspect.Parameter.empty, (), [], ""):
        return ""
    if isinstance(default, bool):
        return "yes" if default else ""
    return code(str(default))


# --------------------------------------------------------------------------- docs/reference/python.md


def python_page() -> str:
    intro = (
        "What `import afresh` offers. Everything else is internal and may change; the [tour](../development/tour.md) "
        "shows it. Functions raise `UserError` for what a user can put right."
    )
    names = sorted((n for n in afresh.__all__ if n != "__version__"), key=lambda n: (n[0].isupper(), n))
    parts = [public_part(name, getattr(afresh, name)) for name in names]
    return page("Python", intro, [aliases(), *parts, verbs_part()])


def aliases() -> str:
    """The names of types that the signatures use, from the lines of afresh.api that define them."""
    lines = re.findall(r"^([A-Z]\w+) = (.+?)(?:  # (.+))?$", inspect.getsource(api), re.MULTILINE)
    return table(("In signatures", "is", "Meaning"), [(code(name), code(kind), about) for name, kind, about in lines])


def verbs_part() -> str:
    """The verbs of kinds of data, which a model has as methods too."""
    methods = {getattr(member, "__name__", name) for name, member in vars(api.Model).items()}
    own = [(name, verb) for name, verb in registry.verbs().items() if name not in methods]
    intro = "Methods of every model that are declared with a kind of data. Those of a plug-in are methods likewise."
    parts = [f"### Model.{n}\n\n{signature(f'Model.{n}', method_of(v))}\n\n{paragraphs(method_of(v))}" for n, v in own]
    return "\n\n".join(["## Verbs of kinds of data", intro, *parts])


def method_of(verb: Any) -> Callable[..., Any]:
    """A function with the signature and the docstring of a verb's method."""

    def method(*args: Any, **kwargs: Any) -> Any:
        return verb(*args, **kwargs)

    method.__doc__, method.__signature__ = verb.doc, verb.signature  # type: ignore[attr-defined]
    return method


def public_part(name: str, thing: Any) -> str:
    if not inspect.isclass(thing):
        return f"## {name}\n\n{signature(f'afresh.{name}', thing)}\n\n{paragraphs(thing)}"
    if issubclass(thing, Exception):
        return f"## {name}\n\n{paragraphs(thing)}"
    parts = [f"## {name}", paragraphs(thing)]
    for key, member in inspect.getmembers_static(thing):
        if key.startswith("_") or not (member.__doc__ if hasattr(member, "__doc__") else None):
            continue
        inner = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if isinstance(inner, property):
            parts.append(f"### {name}.{key}\n\n{paragraphs(inner)}")
        elif inspect.isfunction(inner):
            parts.append(f"### {name}.{key}\n\n{signature(f'{name}.{key}', inner)}\n\n{paragraphs(inner)}")
    return "\n\n".join(parts)


def signature(name: str, function: Callable[..., Any]) -> str:
    """The call as in a stub: on one line where it fits 100 characters, otherwise a parameter a line."""
    known = inspect.signature(function)
    chosen = list(known.parameters.values())[int(name[0].isupper()) :]  # without the object of a method
    result = "" if known.return_annotation is inspect.Signature.empty else f" -> {known.return_annotation}"
    words: list[str] = []
    for kind, group in groupby(chosen, lambda p: p.kind):
        if kind is inspect.Parameter.KEYWORD_ONLY and not any(w.startswith("*") for w in words):
            words.append("*")
        words += map(written, group)
    line = f"{name}({', '.join(words)}){result}"
    if len(line) > 100:
        line = f"{name}(\n" + "".join(f"    {w},\n" for w in words) + f"){result}"
    return f"```python\n{line}\n```".replace("_local.Path", "Path")  # which is what Python 3.13 calls it


def written(parameter: inspect.Parameter) -> str:
    """`name: type = default`, with the stars of *args and **kwargs."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    kind = "" if parameter.annotation is inspect.Parameter.empty else f": {parameter.annotation}"
    equals = " = " if kind else "="  # as ruff writes them
    default = "" if parameter.default is inspect.Parameter.empty else f"{equals}{parameter.default!r}"
    return f"{stars}{parameter.name}{kind}{default}"


# --------------------------------------------------------------------------- docs/reference/settings.md


def own_families() -> tuple[str, ...]:
    """The families of this package, those of its domains last."""
    return (*registry.FAMILIES, *(name for plugin in own_plugins().values() for name in plugin.families))


def settings_page() -> str:
    intro = (
        "What `--set KEY=VALUE` and `--data KEY=VALUE` accept (in Python: `settings=` and `data=`). Defaults are those "
        "of the models; the planner and a family's recipe change some of them, and `run.json` holds what a run used."
    )
    families = [registry.family(name) for name in (*own_families(), *registry.FOREIGN)]
    own = {name: [o for o in described(verb)[1] if o[0].startswith("`--set ")] for name, verb in commands().items()}
    parts = [
        "## Commands\n\n`--set NAME=VALUE` of the command.",
        *(
            f"### {name}\n\n" + table(("Setting", "Value", "Meaning", "Default"), rows)
            for name, rows in own.items()
            if rows
        ),
        "## Training\n\n`--set train.NAME=VALUE` of `afresh train`, `tune`, `distill` and `align`.",
        model_table(TrainConfig, tuple(FLAGS)),
        "## Families\n\n`--set family.NAME=VALUE` of `afresh train`: the network and its objective.",
        *(f"### Family {f.name}\n\n" + "\n\n".join(map(model_part, configs(f))) for f in families),
        "## Sampling\n\n`--set NAME=VALUE` of `afresh sample`, `edit`, `blend`, `compare` and `compose`, by family.",
        *(f"### Sampling from {f.name}\n\n{model_part(f.sampling.settings)}" for f in families),
        "### Grids and edits\n\n`columns`, `scale` and `captions` of images, sounds, molecules, fields and series; "
        f"`full_size` of images.\n\n{model_part(ImageResultSettings)}",
        "## Alignment\n\n`--set align.NAME=VALUE` of `afresh align`, by method.",
    ]
    methods = sorted(registry.aligners().values(), key=lambda a: a.config.__name__)
    for config, group in groupby(methods, lambda a: a.config):
        every = sorted(a.name for a in group)
        parts.append(f"### Method {', '.join(every)}\n\n{model_part(config)}")
    parts.append("## Data\n\n`--data NAME=VALUE` of `afresh data`, `train` and `tune`, by modality.")
    for name in registry.own_modalities():
        parts.append(f"### Data of modality {name}\n\n{model_part(registry.modality(name).options)}")
    return page("Settings", intro, parts)


def configs(family: Family) -> list[type]:
    """The configurations of a family: of each of its variants that has one of its own."""
    return list(dict.fromkeys(f.config for f in (*family.variants, family)))


def of_model(model: type) -> type[BaseModel]:
    assert issubclass(model, BaseModel)
    return model


def model_part(model: type) -> str:
    model = of_model(model)
    return f"{paragraphs(model)}\n\n{model_table(model)}" if model.model_fields else paragraphs(model)


def models() -> Iterator[type[BaseModel]]:
    """Every model of settings that the page shows."""
    families = [registry.family(name) for name in (*own_families(), *registry.FOREIGN)]
    yield TrainConfig
    for family in families:
        yield from (*configs(family), family.sampling.settings)
    yield ImageResultSettings
    yield from (a.config for a in registry.aligners().values())
    yield from (registry.modality(name).options for name in registry.own_modalities())


def unexplained(model: type[BaseModel]) -> list[str]:
    """The fields that no comment, description or docstring speaks of."""
    texts = " ".join(part.__doc__ or "" for part in model.__mro__ if part is not BaseModel)
    known = comments(model)
    fields = model_fields(model, tuple(FLAGS)).items()
    return [n for n, info in fields if not (info.description or known.get(n) or f"`{n}`" in texts)]


def model_fields(model: type[BaseModel], without: Sequence[str] = ()) -> dict[str, FieldInfo]:
    """The fields that can be set by hand: functions cannot."""
    fields = model.model_fields.items()
    return {n: info for n, info in fields if n not in without and "Callable" not in str(info.annotation)}


def model_table(model: type[BaseModel], without: Sequence[str] = ()) -> str:
    help_texts = comments(model)
    rows = [
        (
            code(name),
            spelled(info.annotation),
            limits(info),
            default_of(info),
            info.description or help_texts.get(name, ""),
        )
        for name, info in model_fields(model, without).items()
    ]
    return table(("Name", "Value", "Range", "Default", "Meaning"), rows)


def limits(info: FieldInfo) -> str:
    """`0 to 1`, `above 0`, `at least 1`."""
    low = [f"above {m.gt}" for m in info.metadata if isinstance(m, Gt)]
    low += [str(m.ge) for m in info.metadata if isinstance(m, Ge)]
    high = [f"below {m.lt}" for m in info.metadata if isinstance(m, Lt)]
    high += [str(m.le) for m in info.metadata if isinstance(m, Le)]
    if low and high:
        return f"{low[0]} to {high[0]}"
    if low:
        return low[0] if low[0].startswith("above") else f"at least {low[0]}"
    return "" if not high else high[0] if high[0].startswith("below") else f"at most {high[0]}"


def default_of(info: FieldInfo) -> str:
    if info.is_required():
        return "chosen by the plan"
    value = info.get_default(call_default_factory=True)
    return "" if value is None or value in ((), "") else code(json.dumps(value, default=str))


def comments(model: type[BaseModel]) -> dict[str, str]:
    """The comments that stand behind the fields of a model and of those that it extends."""
    found: dict[str, str] = {}
    for part in reversed(model.__mro__):
        if part is not BaseModel and issubclass(part, BaseModel):
            source = inspect.cleandoc("\n" + inspect.getsource(part))
            lines: dict[int, list[tokenize.TokenInfo]] = {}
            for token in tokenize.generate_tokens(io.StringIO(source).readline):
                lines.setdefault(token.start[0], []).append(token)
            found |= dict(commented(lines.values()))
    return found


def commented(lines: Iterator[list[tokenize.TokenInfo]] | Any) -> Iterator[tuple[str, str]]:
    for tokens in lines:
        words = [t for t in tokens if t.type not in (tokenize.INDENT, tokenize.DEDENT, tokenize.NL, tokenize.NEWLINE)]
        if len(words) > 2 and words[1].string == ":" and words[-1].type == tokenize.COMMENT:
            yield words[0].string, words[-1].string.lstrip("# ")


# --------------------------------------------------------------------------- docs/results


def support_page() -> str:
    return matrix.page(json.loads(matrix.JSON.read_text(encoding="utf-8")))


# --------------------------------------------------------------------------- docs/reference/rules.md


def rules_page() -> str:
    """The rules that `afresh collect` cleans by."""
    intro = (
        "What `afresh collect` cleans by, in this order. `--rule NAME` or `--rule NAME=VALUE` switches a rule on, "
        "`--no-rule NAME` off; `afresh collect --rules` shows this list, with `--into DATASET` as it is for that data "
        "set, which keeps its rules. Gopher is Rae et al. 2021 (arXiv 2112.11446), C4 Raffel et al. 2020 (arXiv "
        "1910.10683), FineWeb Penedo et al. 2024 (arXiv 2406.17557)."
    )
    rows = [
        (code(r.name), "on" if r.default else "off", value_of_rule(r), ", ".join(r.kinds), r.about) for r in rules()
    ]
    return page("Rules of cleaning", intro, [table(("Rule", "By default", "Value", "Of", "What it does"), rows)])


def value_of_rule(rule: Rule) -> str:
    return code(written_value(rule.value)) if rule.value not in (None, []) else ""


# --------------------------------------------------------------------------- docs/reference/scores.md


def scores_page() -> str:
    """Every score by the question that it answers, and the words of verdicts."""
    intro = (
        "What `afresh measure` and the report say. Each score stands with n and an interval, beside what real data "
        "scores (the floor) and what something trivial scores (the control): "
        "[concepts](../concepts.md#honest-measuring). Which ones there are depends on the kind of data and the family."
    )
    asked: dict[Question, dict[str, tuple[str, str, str]]] = {q: {} for q in Question}
    for metric in registry.metrics():
        for name, words in metric.words.items():
            asked[words.question].setdefault(name, (words.name, words.meaning, code(name)))
    tables = [
        f"## {question}\n\n{table(('Score', 'Says', 'In JSON'), list(rows.values()))}"
        for question, rows in asked.items()
        if rows
    ]
    verdicts = table(("Verdict", "Says"), list(MEANING.items()))
    about = (
        "A verdict says in one word what the scores mean, and then the one thing that would help most, with its "
        "command. The thresholds hold for models that were made to deserve each word "
        "(`tests/engine/evaluation/test_verdict.py`)."
    )
    return page("Scores and verdicts", intro, [f"## Verdicts\n\n{textwrap.fill(about, 120)}\n\n{verdicts}", *tables])


# --------------------------------------------------------------------------- docs/reference/formats.md


def formats_page() -> str:
    """Each format, the program that proved it, and the test that does so."""
    words = {"out": "afresh writes", "in": "afresh reads", "both": "there and back"}
    rows = [
        (
            code(r["format"]),
            r["of"],
            words[r["direction"]],
            f"{r['program']} {r['version']}".strip(),
            r["what"],
            test_link(r["test"]),
        )
        for r in proved.rows()
    ]
    intro = (
        "With which other program, in which version and in which direction each format was proved, and by which test. "
        "A program without a version was not installed when the versions were written "
        "(`python -m tools.proved`): its tests are skipped without it. How to export: "
        "[the guide](../guides/export.md)."
    )
    head = ("Format", "Of", "Direction", "Program", "What is the same", "Test")
    return page("Formats and their proofs", intro, [table(head, rows)])


def test_link(test: str) -> str:
    file, _, name = test.partition("::")
    return f"[{name.removeprefix('test_').replace('_', ' ')}](../../{file})"


# --------------------------------------------------------------------------- parts of the README and of other pages


TEXT_FORMS: Mapping[str, type[Form]] = {  # by endpoint
    "POST /v1/completions": CompletionForm,
    "POST /v1/chat/completions": ChatCompletion,
    "POST /v1/responses": ResponseForm,
    "POST /v1/messages": MessageForm,
    "POST /infill": InfillForm,
    "POST /api/generate": GenerateForm,
    "POST /api/chat": ChatForm,
    "`options` of Ollama's": OllamaOptions,
}


def http_page() -> str:
    intro = (
        "What `afresh serve` answers, beside the pages for people ([the guide](../guides/serving.md)). "
        "`GET /openapi.json` describes every request and answer in full. A parameter that is not named here is refused."
    )
    described = make_app(ServeSettings((), 1)).openapi()["paths"]
    groups: dict[str, list[tuple[str, str]]] = {}
    for path, methods in described.items():
        for method, about in methods.items() if not path.startswith("/studio") else ():
            tag = about.get("tags", ["Server"])[0]
            groups.setdefault(tag, []).append((code(f"{method.upper()} {path}"), about.get("summary", "")))
    parts = [f"## {tag}\n\n{table(('Endpoint', 'What'), rows)}" for tag, rows in groups.items()]
    parts.append("## Parameters of texts")
    parts += [f"### {name}\n\n{parameters_part(form)}" for name, form in TEXT_FORMS.items()]
    parts.append(f"### `afresh`\n\n{model_table(TextConditions)}")
    return page("HTTP", intro, parts)


def parameters_part(form: type[Form]) -> str:
    """What becomes of each parameter of a request."""
    lines = [f"- Followed: {', '.join(map(code, form.model_fields))}."]
    lines += [
        f"- Only {' or '.join(code(json.dumps(v)) for v in accepted.values)}: {code(name)}. {accepted.instead}"
        for name, accepted in form.only.items()
    ]
    return "\n".join(
        [*lines, *([f"- Without an effect: {', '.join(map(code, form.ignored))}."] if form.ignored else [])]
    )


def families_part() -> str:
    """Modalities, what they read, and the families that take what they make of the toy data of their contract."""
    rows = []
    plugins = {name: plugin for plugin in own_plugins().values() for name in plugin.modalities}
    for row in MODALITIES:
        with TemporaryDirectory() as folder:
            row.write(Path(folder))
            space = prepare(Path(folder), row.name, row.options).encoder.space
        # Documents are also learnt as records.
        spaces = [space, *([RecordsCodec(space, 64).target] if space.stream and takes(space) else [])]
        plugin = plugins[row.name]
        taken = [f for f in own_families() if any(registry.family(f).accepts(s) is None for s in spaces)]
        through = [f for f in registry.FAMILIES if f not in taken] if "autoencoder" in taken else []
        via = f"; through a codec {', '.join(map(code, through))}" if through else ""
        rows.append((f"**{plugin.items}**", plugin.reads, f"{', '.join(map(code, taken))}{via}"))
    assert set(plugins) == {row.name for row in MODALITIES}
    return table(("You have", "afresh reads", "Families"), rows)


def kinds_part() -> str:
    """The modalities, each with what it makes a model of."""
    rows = [
        (code(name), p.items) for p in sorted(own_plugins().values(), key=lambda p: p.items) for name in p.modalities
    ]
    return table(("`--modality`", "Reads"), rows)


def takes_part() -> str:
    """The families: the kinds of spaces that each takes, how it makes a sample, and the command that trains it."""
    kinds = {
        "fields": ("line", "plane", "solid"),
        "streams": ("stream",),
        "records": ("records",),
        "choices": ("bags",),
    }
    rows = []
    for family in (registry.family(name) for name in (*own_families(), *registry.FOREIGN)):
        taken = [k for k, names in kinds.items() if any(family.accepts(SPACES[n]) is None for n in names)]
        rows.append((code(family.name), ", ".join(taken), family.how, code(f"afresh {family.made_by or 'train'}")))
    return table(("Family", "Takes", "Makes a sample so", "Made by"), rows)


def layers_part() -> str:
    """The folders of the package in the rows that imports follow, each with the first line of its docstring."""
    rows = []
    for number, folders in enumerate(LAYERS, 1):
        for folder in folders:
            about = paragraphs(import_module(f"afresh.{folder}")).partition("\n")[0]
            rows.append((str(number), code(folder), about))
    return table(("Row", "Folder", "Holds"), rows)


def settings_part() -> str:
    """The settings of sampling that people change, in words."""
    return table(["Setting", "Name", "What it does"], [[w.term, code(name), w.help] for name, w in WORDS.items()])


def extras_part() -> str:
    """The extras, what each opens, and how it is installed."""
    rows = [(code(e.name), e.opens, code(e.command)) for e in EXTRAS]
    rows.append((f"{code('dev')}, {code('bench')}", "the tests and the benchmarks of this repository", "`make test`"))
    return table(("Extra", "Opens", "Install"), rows)


def licences_part() -> str:
    """What licences of data ask for, and which licences of a model they allow; without those of single countries."""
    rows = []
    for names, terms in listed():
        plain = [n for n in names if not re.search(r"-(AU|AT|DE|FR|IGO|JP|NL|UK|US|EngWalesScot\S*)$", n)]
        allowed = "any" if terms.models is None else ", ".join(terms.models) or "none"
        rows.append((", ".join(plain), ", ".join(terms.duties) or "nothing", allowed))
    return table(("Data under", "asks for", "and allows a model under"), rows)


def completion_file() -> str:
    """What the command line completes: names of families, modalities and settings. No plug-in of another package."""
    families = [registry.family(name) for name in (*own_families(), *registry.FOREIGN)]
    methods = registry.aligners().values()
    found = {
        "families": own_families(),
        "modalities": registry.own_modalities(),
        "logs": LOGS,
        "options": sorted(option_names()),
        "train": list(model_fields(TrainConfig, tuple(FLAGS))),
        "family": {
            f.name: list(dict.fromkeys(n for config in configs(f) for n in model_fields(of_model(config))))
            for f in families
        },
        "sampling": {f.name: list(model_fields(of_model(f.sampling.settings))) for f in families},
        "results": list(model_fields(ImageResultSettings)),
        "align": sorted({name for m in methods for name in model_fields(of_model(m.config))}),
        "data": {n: list(model_fields(of_model(registry.modality(n).options))) for n in registry.own_modalities()},
    }
    return json.dumps(found, indent=1) + "\n"


def configuration_page() -> str:
    """Environment variables and the keys of the configuration file."""
    intro = (
        "What a user sets once for every command and for Python: in `config.toml` of the configuration folder "
        "(`~/.config/afresh` on Linux, `$XDG_CONFIG_HOME/afresh` where that is set), or by an environment variable. An "
        "option or an argument comes before the environment, the environment before the file, the file before the "
        "default. An unknown key and a value that is not accepted are errors that name the line or the variable. "
        "`afresh doctor` shows which settings are in force, and where each comes from."
    )
    example = '```toml\ndevice = "cuda:1"\nminutes = 20\nruns = "~/models"\n```'
    rows = [
        (
            code(name),
            code(variable(name)),
            spelled(info.annotation),
            limits(info),
            CHOSEN.get(name) or default_of(info),
            info.description or "",
        )
        for name, info in Preferences.model_fields.items()
    ]
    settings = table(("Key", "Variable", "Value", "Accepted", "Default", "Meaning"), rows)
    others = table(("Variable", "Why it is none of these settings"), OTHER_VARIABLES)
    return page("Configuration", intro, [example, settings, "## Variables of other programs that are read", others])


# Defaults that are folders of the user, as they are on Linux.
CHOSEN = {
    "cache_folder": "`~/.cache/afresh`",
    "data_folder": "`~/.local/share/afresh/data`",
    "jobs_folder": "`~/.local/share/afresh/jobs`",
    "works_folder": "`~/.local/share/afresh/works`",
    "stores_folder": "`~/.local/share/afresh/stores`",
    "key_folder": "`~/.config/afresh`",
}
OTHER_VARIABLES = (
    ("`CXX`", "the compiler of C++, as every build reads it; `g++` without it"),
    ("`NO_COLOR`, `FORCE_COLOR`, `TERM`, `COLORTERM`", "colours, as every program on a terminal reads them"),
    (
        "`OMP_NUM_THREADS`",
        "threads of torch and of every other library with OpenMP; the key `threads` is torch's alone",
    ),
    (
        "`GOMP_SPINCOUNT`",
        "how long waiting threads of OpenMP spin; 5000 if it is not set, for which torch needs it early",
    ),
    ("`XDG_CONFIG_HOME`, `XDG_CACHE_HOME`, `XDG_DATA_HOME`", "where the folders of the user are, for every program"),
    ("`HF_HUB_CACHE`, `HF_HOME`, `LLAMA_CACHE`, `OLLAMA_MODELS`", "where other programs keep public weights"),
    ("`DISPLAY`, `WAYLAND_DISPLAY`", "whether a browser can open a window, for `afresh compare`"),
    ("`SYMUSIC_ABC2MIDI`", "set by symusic itself: where its program is"),
)


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"families": families_part, "headlines": results_page.headlines},
    "docs/start.md": {"extras": extras_part},
    "docs/concepts.md": {"kinds": kinds_part, "takes": takes_part, "settings": settings_part},
    "docs/guides/collecting.md": {"web": lambda: model_table(WebOptions), "licences": licences_part},
    "docs/development/design/0010-verbs-and-domains.md": {"layers": layers_part},
}
PAGES: dict[str, Callable[[], str]] = {
    "docs/reference/cli.md": cli_page,
    "docs/reference/python.md": python_page,
    "docs/reference/settings.md": settings_page,
    "docs/reference/configuration.md": configuration_page,
    "src/afresh/faces/cli/completion.json": completion_file,
    "docs/reference/formats.md": formats_page,
    "docs/reference/rules.md": rules_page,
    "docs/reference/http.md": http_page,
    "docs/reference/scores.md": scores_page,
    "docs/results/benchmarks.md": results_page.page,
    "docs/results/scaling.md": scaling.page,
    "docs/results/support.md": support_page,
}


def renewed(file: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """A page that is written by hand, with its generated parts renewed."""
    text = (ROOT / file).read_text(encoding="utf-8")
    for name, write in parts.items():
        start = f"<!-- generated: {name} -->"
        before, marker, rest = text.partition(start)
        assert marker and "<!-- end -->" in rest, f"{file} lacks {start} ... <!-- end -->"
        text = f"{before}{start}\n{write()}\n<!-- end -->{rest.split('<!-- end -->', 1)[1]}"
    return text


def generated() -> dict[Path, str]:
    """Every file with generated parts, and what it should hold."""
    partly = {ROOT / file: renewed(file, parts) for file, parts in PARTS.items()}
    return partly | {ROOT / file: write() for file, write in PAGES.items()}


def stale() -> list[str]:
    """The files that do not hold what they should."""
    return [
        str(path.relative_to(ROOT))
        for path, text in generated().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the generated parts of the documentation.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a part is stale")
    if parser.parse_args().check:
        old = stale()
        print("\n".join(f"stale: {name}" for name in old) + "\nRun: make docs" if old else "docs are up to date")
        return 1 if old else 0
    for path, text in generated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
