"""Verbs: what can be asked of a run, each declared once, as a function with described parameters.

The command, the method of a model, the route of the server and the form of the studio are made from the declaration:

    @verb("score", able=why_not, result="{mean, items}")
    def score(
        run: Run,
        items: Annotated[Any, Argument("Files or folders of items.")] = (),
        draws: Annotated[int, Ge(1), Option("Draws of noise that an estimate is the mean of.")] = 1,
    ) -> Scores:
        \"\"\"Score items: how likely the model finds each.

        Raises UserError if the family has no likelihood.
        \"\"\"

The function is the declaration, and not a class of options, because a type checker then knows the parameters of the
method, too; `Verb.options` is the pydantic model of the same parameters. A module with declarations imports nothing
heavy, since `--help` reads all of them: what a verb needs is imported inside of its function.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from pkgutil import resolve_name
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from annotated_types import MaxLen

from afresh.core.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
RAISES = re.compile(r"\n\nRaises\b.*", re.DOTALL)


# --------------------------------------------------------------------------- results


@dataclass(frozen=True)
class Table:
    """Rows of words under named columns. `right`: numbers of the columns that are aligned to the right, `wrap`: of
    those whose cells may take several lines."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[int] = ()
    wrap: Sequence[int] = ()


@dataclass(frozen=True)
class Heading:
    """The title of what follows."""

    text: str


@dataclass(frozen=True)
class Remark:
    """Notes for the user that are not part of the result."""

    text: str


Line = str | Heading | Table | Remark  # a part of a result as people read it; a str may have several lines


class Result(Protocol):
    """What a verb returns.

    `notes`: what is to be known about the result. `json`: the result as plain values. `lines`: the result for people.
    `files`: the contents of the files that it consists of, by name; empty if it is not files.
    """

    @property
    def notes(self) -> Sequence[str]: ...
    def json(self) -> dict[str, Any]: ...
    def lines(self) -> Sequence[Line]: ...
    def files(self) -> Mapping[str, bytes]: ...


class ShownResult:
    """A result without files."""

    def files(self) -> dict[str, bytes]:
        return {}


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """A result that consists of files, which are made once: `written`. `values`: its JSON but for their names and the
    notes. `seconds`: that it took. `format`: of its tables or arrays."""

    seconds: float = 0.0
    format: str

    @property
    def notes(self) -> Sequence[str]:
        return ()

    def values(self) -> dict[str, Any]:
        raise NotImplementedError

    @cached_property
    def written(self) -> Mapping[str, bytes]:
        raise NotImplementedError

    def files(self) -> Mapping[str, bytes]:
        return self.written

    def json(self) -> dict[str, Any]:
        return {**self.values(), "files": sorted(self.files()), "notes": list(self.notes)}


# --------------------------------------------------------------------------- parameters


class Absent:
    """Stands for the type of a parameter that does not exist on the command line, or not in JSON. Paths of files are
    never parameters in JSON: they would be read on the server."""


ITEMS = "Of the kind that the run makes: texts, or the contents of files."


class Encoded:
    """Marks a text in JSON that is an item of the run's kind: a text itself, or the content of a file in base64."""


class EncodedContent:
    """Marks a text in JSON that is the content of a file in base64, which the verb takes as bytes."""


class EncodedPixels:
    """Marks a text in JSON that is an image in base64, which the verb takes as an array."""


class RunName:
    """Marks a text in JSON that names a run of the server, which the verb takes as its path."""


RunWeights = dict[Annotated[str, RunName()], float] | None
EncodedImage = Annotated[str, MaxLen(64 * 2**20), EncodedPixels()]
EncodedFile = Annotated[str, MaxLen(64 * 2**20), EncodedContent()]
EncodedItem = Annotated[str, MaxLen(64 * 2**20), Encoded()]


@dataclass(frozen=True)
class UploadedFile:
    """A file in JSON: its name, whose suffix says what it is, and its content in base64. The verb takes its path."""

    name: Annotated[str, MaxLen(255)]
    content: EncodedFile


@dataclass(frozen=True)
class Option:
    """A parameter of a verb, as far as its name, type and default do not say all.

    help: one sentence or two, in which other parameters stand in backticks. python: what else the value may be in
    Python. panel: the heading of related options in help and forms. flags: how the option is written, if not as --NAME.
    metavar: what stands for the value. complete: the name of the function in afresh.faces.cli.completion that offers
    values.

    shell: the type on the command line, if it is another, or a function that reads the word; `parse` is then a
    reference "module:function" of (run, value, flag) -> value. json: the type in JSON, if it is another. Both may be
    `Absent`. json_default: the default in JSON, if it is another. typed: whether it must be given on the command line,
    although it has a default. also: of a mapping of settings, those that are options of their own on the command line
    or in JSON, by name: each an annotation as that of a parameter. names: of a mapping, a reference "module:function"
    of (run) -> {name: its values}, which forms offer; no values: any.
    """

    help: str
    panel: str = ""
    flags: tuple[str, ...] = ()
    metavar: str = ""
    complete: str = ""
    shell: Any = None
    parse: str = ""
    json: Any = None
    json_default: Any = Absent
    python: str = ""
    typed: bool = False
    also: Mapping[str, Any] = field(default_factory=dict)
    names: str = ""


@dataclass(frozen=True)
class Argument(Option):
    """A parameter that has no name on the command line."""


@dataclass(frozen=True)
class Setting(Option):
    """A parameter that is a setting on the command line: `--set NAME=VALUE`."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a verb. `type`: with the annotations of its range. `gathers`: whether it is `**name` in Python."""

    name: str
    type: Any
    default: Any
    option: Option
    gathers: bool = False

    @property
    def encoded(self) -> bool:
        """Whether the value in JSON is an item of the run's kind, or a list of such."""
        inner = [self.option.json, *get_args(self.option.json)]
        return EncodedItem in inner or any(EncodedItem in get_args(i) for i in inner)

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def ranges(self) -> tuple[Any, ...]:
        """The bounds of the value, as annotated_types has them."""
        return tuple(get_args(self.type)[1:]) if get_origin(self.type) is Annotated else ()

    @property
    def written(self) -> str:
        """The type without bounds, as it is written."""
        return re.sub(r"\b(collections\.abc|typing|pathlib)\.", "", inspect.formatannotation(self.plain))

    @property
    def plain(self) -> Any:
        """The type without bounds."""
        return get_args(self.type)[0] if get_origin(self.type) is Annotated else self.type


def parameter(name: str, annotation: Any, default: Any) -> Parameter:
    """The parameter that an annotation with an `Option` declares."""
    options = [m for m in get_args(annotation)[1:] if isinstance(m, Option)]
    assert get_origin(annotation) is Annotated and len(options) == 1, f"{name} has no Option"
    plain, *more = (get_args(annotation)[0], *(m for m in get_args(annotation)[1:] if not isinstance(m, Option)))
    return Parameter(name, Annotated[(plain, *more)] if more else plain, default, options[0])


def fields_of(spec: type[Any]) -> tuple[Parameter, ...]:
    """The parameters that a dataclass declares: those without a name before the others, its own before inherited
    ones."""
    hints = get_type_hints(spec, include_extras=True)
    depth = {name: i for i, c in reversed([*enumerate(spec.__mro__)]) for name in vars(c).get("__annotations__", ())}
    known = sorted((f for f in fields(spec) if f.init), key=lambda f: (f.kw_only, depth[f.name]))
    made = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in known}
    return tuple(parameter(n, hints[n], inspect.Parameter.empty if v is MISSING else v) for n, v in made.items())


def signature_of(spec: type[Any], returned: str) -> inspect.Signature:
    """The signature of a function that takes what a dataclass declares."""
    keyword = {f.name for f in fields(spec) if f.kw_only}
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    known = [
        inspect.Parameter(p.name, kinds[p.name in keyword], default=p.default, annotation=p.written)
        for p in fields_of(spec)
    ]
    return inspect.Signature(known, return_annotation=returned)


def help_of(declared: Any) -> str:
    """What a declaration does, for people who type it: its docstring up to the errors that it raises."""
    return RAISES.sub("", inspect.cleandoc(declared.__doc__ or ""))


def doc_of(declared: Any, parameters: Sequence[Parameter]) -> str:
    """The docstring for Python: what a declaration does, its parameters, and the errors that it raises."""
    described = "\n".join(f"- `{p.name}`: {p.option.help} {p.option.python}".strip() for p in parameters)
    raises = RAISES.search(inspect.cleandoc(declared.__doc__ or ""))
    return "\n\n".join(part for part in (help_of(declared), described, raises and raises[0].strip()) if part)


# --------------------------------------------------------------------------- verbs


def _always(run: Any) -> None:
    return None


def lazily(reference: str) -> Callable[[Any], Any]:
    """The function "module:name" of one argument, which is imported when it is first called."""
    return lambda run: resolve_name(reference)(run)


@dataclass(frozen=True, eq=False)
class Verb(Generic[P, R_co]):
    """A verb of runs. Calling it with a run and its parameters returns the result.

    name: as it is typed. function: see the top of this file. able: why the verb cannot be done with a run, or None.
    result: the fields of `Result.json`, as documentation. run_help: about the argument that names the run.
    summary: a few words, for the description of the server. served: whether the server offers the verb. leads: of the
    verb by which runs are used, what the button says that leads to its form in the studio.
    alone: whether a request with these options takes its turn and has all processors meanwhile.
    files: about the option `out`, the folder that the files of the result are written to; empty if it has none.
    shown: whether the lines of the result are shown where its files are written, too, since the files do not say them.
    works: whether the files are made by the model, so that they are signed as its works.
    draws: of a verb whose result is samples (afresh.engine.sampling.samples.Samples), the end of its route.
    check: raises UserError for options that the server never accepts.
    """

    name: str
    function: Callable[Concatenate[Any, P], R_co]
    able: Callable[[Any], str | None] = _always
    result: str = "{...}"
    summary: str = ""
    run_help: str = "A run: its folder, or its name in runs/."
    served: bool = True
    leads: str = ""
    alone: Callable[[Any], bool] = lambda options: True
    files: str = ""
    shown: bool = False
    works: bool = False
    draws: str = ""
    check: Callable[[Any], None] = _always

    def __call__(self, run: Any, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """The result. Raises UserError for a value that is not among those that a parameter can have."""
        given = inspect.signature(self.function).bind_partial(run, *args, **kwargs).arguments
        for p in (p for p in self.parameters if get_origin(p.plain) is Literal and p.name in given):
            if given[p.name] not in get_args(p.plain):
                known = " or ".join(map(str, get_args(p.plain)))
                raise UserError(f"`{p.name}` is {known}. Given: {given[p.name]!r}.", param=p.name)
        return self.function(run, *args, **kwargs)

    @cached_property
    def help(self) -> str:
        return help_of(self.function)

    @cached_property
    def doc(self) -> str:
        return doc_of(self.function, self.parameters)

    @cached_property
    def signature(self) -> inspect.Signature:
        """The signature of the method, with the types of its parameters as they are written."""
        known = inspect.signature(self.function)
        _, *rest = known.parameters.values()
        plain = {p.name: p.written for p in self.parameters}
        owner = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return known.replace(parameters=[owner, *(p.replace(annotation=plain[p.name]) for p in rest)])

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters after the run."""
        _, *rest = inspect.signature(self.function).parameters.values()
        return tuple(self._parameter(p) for p in rest)

    @cached_property
    def offered(self) -> tuple[Parameter, ...]:
        """The parameters, after each the settings in it that are options of their own."""
        own = inspect.Parameter.KEYWORD_ONLY
        also = {
            p.name: [self._parameter(inspect.Parameter(k, own, default=None, annotation=v)) for k, v in also.items()]
            for p in self.parameters
            if (also := p.option.also)
        }
        return tuple(q for p in self.parameters for q in (*also.get(p.name, ()), p))

    def of(self, run: Any, values: Mapping[str, Any]) -> R_co:
        """The result for options by name. Raises UserError for a setting that is given twice."""
        values, gathered = dict(values), dict[str, Any]()
        for p in self.parameters:
            own = {k: v for k in p.option.also if (v := values.pop(k, None)) is not None}
            more = dict(values.get(p.name) or {}) if own or p.gathers else {}
            for name in (n for n in more if n in own or (p.gathers and n in values)):
                raise UserError(
                    f"{name} is given twice: by `{name}` and by `settings.{name}`. Give it once.",
                    "given_twice",
                    param=f"settings.{name}",
                )
            if p.gathers:
                del values[p.name]
                gathered = more | own
            elif own:
                values[p.name] = more | own
        return self.function(run, **values, **gathered)  # type: ignore[call-arg]

    def _parameter(self, p: inspect.Parameter) -> Parameter:
        # Evaluated one by one: the annotations of the run and of the result name types that are heavy to import.
        module = inspect.unwrap(self.function).__globals__
        annotation = eval(p.annotation, module) if isinstance(p.annotation, str) else p.annotation
        made = parameter(p.name, annotation, p.default)
        return replace(made, default=None, gathers=True) if p.kind is inspect.Parameter.VAR_KEYWORD else made

    @cached_property
    def options(self) -> type[BaseModel]:
        """The pydantic model of the parameters as they are in JSON: with descriptions, ranges and defaults."""
        from pydantic import ConfigDict, Field, create_model

        fields: dict[str, Any] = {}
        for p in self.offered:
            if p.option.json is Absent:
                continue
            kind = p.type if p.option.json is None else p.option.json
            default = p.default if p.option.json_default is Absent else p.option.json_default
            about = ITEMS if p.encoded else p.option.help
            given = Field(description=about) if p.required else Field(default, description=about)
            fields[p.name] = (kind, given)
        config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
        model: type[BaseModel] = create_model(
            f"{self.name.capitalize()}Options", __config__=config, __doc__=self.help, **fields
        )
        return model


def verb(name: str, **about: Any) -> Callable[[Callable[Concatenate[Any, P], R]], Verb[P, R]]:
    """Declares a function as a verb; `about` are the other parameters of `Verb`."""
    return lambda function: Verb(name, function, **about)
