"""Commands that are made from the declarations of verbs (afresh.core.verb)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from annotated_types import Ge, Gt, Le, Lt

from afresh.core.verb import Absent, Argument, Heading, Line, Parameter, Remark, Result, Setting, Table, Verb
from afresh.faces.cli import completion
from afresh.faces.cli import options as o
from afresh.faces.cli.show import answer, emit, note, say, table
from afresh.faces.cli.wording import OPTIONS, as_typed

JSON, OUT = "as_json", "out"


def command_of(verb: Verb[Any, Any], end: Callable[..., None] | None = None) -> Callable[..., None]:
    """The command of a verb, with `--json`, and with `--out` and `--force` if its result has files.

    `end`: does the verb and shows its result in its own way, given the run, the verb, the options that were typed,
    whether JSON is wanted, and options of its own.
    """
    offered = [p for p in verb.offered if p.option.shell is not Absent]
    own = [] if end is None else list(inspect.signature(end).parameters.values())[4:]
    extras = [p.replace(annotation=eval(p.annotation, vars(inspect.getmodule(end)))) for p in own]
    flags = flags_of(offered) | ({"--out"} if verb.files or extras else set())

    def command(**values: Any) -> None:
        from afresh.data.storage.folders import check_free
        from afresh.runs.run import Run
        from afresh.runs.works import signed_files

        if end is not None:
            run, more = Run.open(values["run"]), {p.name: values[p.name] for p in extras}
            end(run, verb, {p.name: value_of(run, p, values[p.name]) for p in offered}, values[JSON], **more)
            return
        path, as_json, out = values.pop("run"), values.pop(JSON), values.pop(OUT, None) if verb.files else None
        if out is not None:
            check_free(out, values.pop("force"))
        run = Run.open(path)
        run.marked = not values.pop("no_marks", False)
        result = verb.of(run, {p.name: value_of(run, p, values[p.name]) for p in offered})
        note(*result.notes)
        if out is not None:
            write_files(out, signed_files(verb, run, result))
        if as_json:
            emit({"run": str(path), **result.json()})
        elif out is None or verb.shown:
            show_result(result)

    run_type = Annotated[Path, o.run_argument(verb.run_help)]
    parameters = [keyword("run", run_type, inspect.Parameter.empty), *(parameter_of(p, flags) for p in offered)]
    if verb.files:
        out_type = Annotated[Path | None, o.option(verb.files)]
        parameters += [keyword(OUT, out_type, None), keyword("force", o.Force)]
    if verb.works:
        parameters.append(keyword("no_marks", o.Unmarked))
    parameters += [*extras, keyword(JSON, Annotated[bool, o.json_of(as_typed(verb.result, flags))])]
    return named(command, verb.name, as_typed(verb.help, flags), parameters)


def flags_of(offered: Sequence[Parameter]) -> frozenset[str]:
    """The options as they are written, --guidance, -n, ..., which messages then use."""
    known = {p.name: (flag_of(p),) if isinstance(p.option, Setting) else declared(p) for p in offered}
    OPTIONS.update({name: flags[0] for name, flags in known.items() if not {" ", "/"} & {*flags[0]}})
    return frozenset(part for flags in known.values() for flag in flags for part in flag.split("/"))


def declared(p: Parameter) -> tuple[str, ...]:
    return p.option.flags or (f"--{p.name.replace('_', '-')}",)


def flag_of(p: Parameter) -> str:
    return f"--set {p.name}" if isinstance(p.option, Setting) else declared(p)[0]


def keyword(name: str, kind: Any, default: Any = False) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def named(
    command: Callable[..., None], name: str, help: str, parameters: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """The command with the name, help and parameters that typer reads."""
    command.__name__ = command.__qualname__ = name.replace("-", "_")
    command.__doc__ = help
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def parameter_of(p: Parameter, flags: frozenset[str], early: bool = False) -> inspect.Parameter:
    """The parameter as typer takes it. early: the value is checked before anything heavy is loaded."""
    option, kind = p.option, typed(p)
    complete = None if not option.complete else vars(completion)[option.complete]
    common: dict[str, Any] = {
        "help": as_typed(option.help, flags),
        "metavar": option.metavar or None,
        "rich_help_panel": o.SETTINGS if isinstance(option, Setting) else option.panel or None,
        "autocompletion": complete,
        "parser": option.shell if inspect.isfunction(option.shell) else None,
        "callback": (lambda given: value_of(None, p, given)) if early and one_word(p) else None,
        **bounds(p),
    }
    if isinstance(option, Argument):
        info = typer.Argument(**common)
    else:
        info = typer.Option(
            *option.flags or (declared(p) if kind is bool and p.default is False else ()),
            **common,
        )
    default = p.default if isinstance(p.default, bool | int | float | str) else None
    needed = inspect.Parameter.empty if p.required or option.typed else default
    return keyword(p.name, Annotated[kind, info], needed)


def typed(p: Parameter) -> Any:
    """The type of a parameter on the command line."""
    kind = p.plain if p.option.shell is None or inspect.isfunction(p.option.shell) else p.option.shell
    origin = get_origin(kind)
    alone = [a for a in get_args(kind) if a is not NoneType] if origin in (Union, UnionType) else [kind]
    first, needed = alone[0], p.required or p.option.typed or p.option.shell is bool
    if inspect.isclass(get_origin(first)) and issubclass(get_origin(first), Sequence | Mapping):
        inner = str if issubclass(get_origin(first), Mapping) else get_args(first)[0]
        return list[inner] if needed else list[inner] | None  # type: ignore[valid-type]
    return first if needed or p.default is not None else first | None


def bounds(p: Parameter) -> dict[str, Any]:
    """The limits of a number. Those that exclude the limit itself are left to the verb."""
    named = {Ge: "min", Le: "max"}
    exact = [m for m in p.ranges if isinstance(m, Gt | Lt)]
    return {} if exact else {named[type(m)]: getattr(m, type(m).__name__.lower()) for m in p.ranges if type(m) in named}


def one_word(p: Parameter) -> bool:
    """Whether a value is one word that is read by a function, which typer can call."""
    return bool(p.option.parse) and p.option.shell in (Path, str)


def value_of(run: Any, p: Parameter, given: Any) -> Any:
    """What was typed, as the verb takes it."""
    if given is None:
        return p.default
    return resolve_name(p.option.parse)(run, given, flag_of(p)) if p.option.parse else given


# --------------------------------------------------------------------------- results


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of a result into a folder. Raises UserError if it cannot be written to."""
    from afresh.core import UserError
    from afresh.core.plural import counted
    from afresh.data.storage.files import replace_file

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            replace_file(folder / name, content)
    except OSError as error:
        raise UserError(f"Cannot write to {folder}: {error.strerror or error}. Choose another folder.") from None
    say(f"{counted(len(files), 'file')} in {folder}")


def show_result(result: Result) -> None:
    """Print the lines of a result."""
    for line in result.lines():
        show_line(line)


def show_line(line: Line) -> None:
    from rich.rule import Rule
    from rich.text import Text

    from afresh.core.safe_text import visible

    match line:
        case Remark(text):
            say(text)
        case Heading(text):
            answer(Rule(text, style="dim"))
        case Table(columns, rows, right, wrap):
            answer(table(columns, rows, right, wrap))
        case str():
            answer(Text(visible(line)))
