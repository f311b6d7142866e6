"""The command line. One verb a file; this file puts them together and turns errors into exit codes.

Exit codes: 0 done, 1 `verify` found a fault, 2 bad usage or input, 3 training diverged, 70 a fault of this program,
130 interrupted and saved (docs/reference/exit-codes.md).
Nothing heavy is imported before a verb runs, so that --help answers at once.
"""

from __future__ import annotations

import errno
import gc
import inspect
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from functools import cache, wraps
from pkgutil import resolve_name
from typing import Annotated, Any

import typer

from afresh import __version__
from afresh.core import registry
from afresh.core.library_words import in_plain_words
from afresh.core.plugins import added, parts
from afresh.faces.cli.commands import command_of
from afresh.faces.cli.completion import names as listed
from afresh.faces.cli.group import RENAMED, RENAMED_OPTIONS, Command, Group, verb_name
from afresh.faces.cli.show import discard_output, fail, one_line, write_json
from afresh.faces.cli.wording import as_typed, options_of

TELLING = 5.0  # seconds until process 0 has told an error: torchrun ends it as soon as another one has failed
DONE, FAULT, USAGE, DIVERGED, CRASHED, INTERRUPTED = 0, 1, 2, 3, 70, 130  # 70: EX_SOFTWARE of sysexits.h
CODES = {USAGE: "usage", DIVERGED: "diverged", INTERRUPTED: "interrupted"}  # of events, for errors without a code

# The base of usage errors: click's, of which newer versions of typer hold a copy of their own.
UsageError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    name="afresh",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"afresh {__version__}")
        raise typer.Exit


@app.callback()
def afresh(
    show: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Turn your own data into a generative model, on your own machine."""


# The commands of this room, in the order of help: written in the file of its name, or made of a declared verb. Those
# that the records of plug-ins list come after them.
VERBS = (
    *("data", "train", "tune", "distill", "align", "launch", "compare", "sample", "chat", "edit", "blend", "complete"),
    *("compose", "measure", "score", "recommend", "solve", "practise", "propose", "export", "get", "serve", "open"),
    *("show", "rm", "doctor"),
)
FILES = {"show": "show_run", "tune": "train", "distill": "train", "align": "train"}  # those of another name
ENDS = {"compare": "compare:judge", "chat": "chat:talk"}  # functions of verbs that ask a person


def shown(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The verb with its events shown on standard error and, with --json, written to standard output. The listener is
    imported when the verb runs, not before: --help must answer at once."""

    @wraps(verb)
    def run_verb(*args: Any, **options: Any) -> Any:
        from afresh.core import events
        from afresh.data.preferences import preferences
        from afresh.engine.training.budget import use_preferred_threads
        from afresh.verbs.console import ConsoleListener

        use_preferred_threads()
        if not preferences().colour:
            os.environ["NO_COLOR"] = "1"  # which rich reads, for this process and those that it starts

        show = ConsoleListener(verbose=bool(options.get("verbose")))

        def listener(event: events.Event) -> None:
            worded = replace(event, text=as_typed(event.text, EveryOption()))
            show(worded)
            if options.get("as_json"):
                write_json(worded.json())

        with events.listening(listener):
            return verb(*args, **options)

    return run_verb


def names() -> list[str]:
    """The names of all commands, in the order of help."""
    added = (*(p.name for p in parts("commands", VERBS)), *registry.verb_names())
    return list(dict.fromkeys([*VERBS, *(name for name in added if name not in RENAMED)]))


def function_of(name: str) -> Any:
    """What a command runs: the function or the `Group` that is written by hand, or one made of a declared verb."""
    if added := [part for part in parts("commands", VERBS) if part.name == name]:
        return added[0].load()
    if name not in registry.verb_names():
        return resolve_name(f"{__name__}.{FILES.get(name, name)}:{name}".replace("-", "_"))
    verb = registry.verb(name)
    end = ENDS.get(name, "sample:deliver" if verb.draws else "")
    return command_of(verb, resolve_name(f"{__name__}.{end}") if end else None)


def commands() -> dict[str, Callable[..., Any]]:
    """The functions of all commands by name; those of a group have its name before their own."""
    found: dict[str, Callable[..., Any]] = {}
    for name in names():
        made = function_of(name)
        group = {f"{name} {verb_name(v)}": v for v in made.verbs} if isinstance(made, Group) else {}
        found |= group or {name: made}
    return found


class LazyCommands(dict[str, Any]):
    """The commands by name, each built when it is asked for: typer takes a tenth of a second for all.

    `brief`: whether only their names and what they do is needed, as in the help of all.
    """

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(names()))
        self.brief = False

    def __getitem__(self, name: str) -> Any:
        built = super().__getitem__(name)
        if built is None and self.brief:
            return brief_command(name)
        if built is None:
            built = self[name] = full_command(name)
        return built

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401 - builds the command

    def values(self) -> Any:
        return [self[name] for name in self]

    def items(self) -> Any:
        return [(name, self[name]) for name in self]


def about(text: str) -> str:
    """A docstring as help: rich keeps its line ends, and a paragraph is to fill the terminal."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(text))


def brief_command(name: str) -> Any:
    """A command with what it does and without its options."""
    made = function_of(name)
    text = made.help if isinstance(made, Group) else made.__doc__ or ""
    return typer.core.TyperCommand(name, help=about(text), rich_markup_mode="rich")


def full_command(name: str) -> Any:
    made = function_of(name)
    group = made if isinstance(made, Group) else None
    alone = typer.Typer(
        name=name,
        help=about(group.help) if group else None,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for verb in group.verbs if group else (made,):
        alone.command(verb_name(verb) if group else name, cls=Command, help=about(verb.__doc__ or ""))(shown(verb))
    return (typer.main.get_group if group else typer.main.get_command)(alone)


@cache
def command() -> Any:
    """The command of all verbs."""
    group = typer.main.get_command(app)
    group.commands = LazyCommands()  # type: ignore[attr-defined]
    return group


@cache
def option_names() -> frozenset[str]:
    """Every option and setting of every verb: --guidance, -n, --set rank, ..."""
    return options_of(command()) | {new.partition("=")[0] for new in RENAMED_OPTIONS.values()}


class EveryOption(Container[str]):
    """`option_names()`, by a file that lists them: every command is built only if other packages add some."""

    def __contains__(self, option: object) -> bool:
        return option in listed()["options"] or (bool(added()) and option in option_names())


def postpone_garbage_collection(objects: int = 300_000) -> None:
    """Collects garbage for the first time when this many objects were made, most of them by imports, and then, as
    before, among the later ones. Importing what a verb needs takes 2.1 instead of 2.9 s, as the objects that stay are
    not looked through again and again."""
    before = gc.get_threshold()

    def collected(phase: str, info: Mapping[str, int]) -> None:
        if phase == "stop":
            gc.freeze()
            gc.set_threshold(*before)
            gc.callbacks.remove(collected)

    gc.callbacks.append(collected)
    gc.set_threshold(objects, *before[1:])


def main() -> None:
    """The console script."""
    postpone_garbage_collection()
    for stream in (sys.stdout, sys.stderr):  # a terminal of another encoding shows escapes, never a traceback
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = run(sys.argv[1:])
    except Exception:  # the traceback names what others have named, too
        fail(traceback.format_exc().rstrip())
        code = CRASHED
    sys.exit(code)


def run(argv: Sequence[str]) -> int:
    """Run one command line; returns its exit code. Errors are printed and, with --json, are the last line of standard
    output."""
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    if old := next((name for name in (" ".join(argv[:2]), *argv[:1]) if name in RENAMED), None):
        return failed(f"afresh {old} is now: afresh {RENAMED[old]}", USAGE, argv)
    completing = "_AFRESH_COMPLETE" in os.environ
    command().commands.brief = not completing and (not argv or argv[0] in ("-h", "--help"))
    try:
        code = command()(args=list(argv), prog_name="afresh", standalone_mode=False)
    except typer.Abort:
        code = INTERRUPTED
    except Exception as e:
        code, message = explained(e)
        if code is None:
            error_line(message, "fault", {}, argv)
            raise
        if follows(e):
            time.sleep(TELLING)
            return code
        return failed(message, code, argv, e) if message else code
    if code == INTERRUPTED:  # Ctrl-C outside training
        return failed("Stopped.", code, argv)
    return code if isinstance(code, int) else DONE


def follows(error: Exception) -> bool:
    """Whether this process is one of several that meet the same error, and not the one that tells it."""
    if os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1":
        return False
    if isinstance(error, UsageError):
        return True
    from afresh.core.errors import Diverged, Interrupted
    from afresh.engine.training.ranks import SHARED

    return isinstance(error, Diverged | Interrupted) or getattr(error, "code", "") in SHARED


def explained(error: Exception) -> tuple[int | None, str]:
    """The exit code of an error, None for a fault of this program, and its message, empty if nothing is to be said."""
    if isinstance(error, UsageError):
        return USAGE, usage_message(error)
    code = code_of(error)
    if code is None:
        return None, f"{type(error).__name__}: {error}"
    return code, message_of(error) if code else ""


def usage_message(error: Any) -> str:
    """What click found wrong, and where to read more; nothing when nothing was asked (help is shown then)."""
    if error.__class__.__name__ == "NoArgsIsHelpError":
        return str(error.format_message()).strip()
    context = getattr(error, "ctx", None)
    command = "afresh" if context is None else context.command_path
    text = in_plain_words(str(error.format_message()))
    return one_line(text if text.endswith((".", "?")) else f"{text}.") + f" See: {command} --help"


def code_of(error: Exception) -> int | None:
    """The exit code of an error that a person can do something about; None for a fault of this program."""
    from afresh.core import UserError
    from afresh.core.errors import Diverged, Interrupted

    if isinstance(error, BrokenPipeError):  # the reader of our output went away, which is its right
        discard_output()
        return DONE
    if isinstance(error, Interrupted):
        return INTERRUPTED
    if isinstance(error, Diverged):
        return DIVERGED
    outside = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)
    if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in outside):
        return USAGE
    return None


def message_of(error: Exception) -> str:
    """The error's message, with what a person can type."""
    if isinstance(error, OSError):
        name = one_line(str(error.filename or "A file"))
        return f"{name}: {error.strerror}. Make room, or choose a place that may be written."
    return as_typed(str(error), EveryOption())


def failed(message: str, code: int, argv: Sequence[str], error: Exception | None = None) -> int:
    fail(message)
    error_line(message, getattr(error, "code", CODES[code]), getattr(error, "fields", {}), argv)
    return code


def error_line(text: str, code: str, fields: Mapping[str, Any], argv: Sequence[str]) -> None:
    """With --json, the error that ended the command."""
    if "--json" in argv:
        from afresh.core.events import Event

        try:
            write_json(Event("error", code, text, fields).json())
        except OSError:  # the error may be that standard output cannot be written; standard error names it
            discard_output()
