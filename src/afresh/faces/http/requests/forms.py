"""What requests of several endpoints have in common."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, overload

from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from afresh.core import UserError
from afresh.engine.sampling.constrained import structure
from afresh.engine.sampling.request import Request, unwanted
from afresh.engine.sampling.setting_words import WORDS
from afresh.faces.http.errors import RefusedRequest
from afresh.runs.run import Run

MOST_SAMPLES = 128  # of one request, as OpenAI's API has it
MOST_TOKENS = 16_384  # of one text; a request for more gets as many
CAPPED = "x-afresh-max-tokens"  # the header of an answer that has this limit in place of a higher one
IGNORED = "x-afresh-ignored"  # the header of an answer that names the parameters without an effect
MOST_STOPS = 16

Finite = Annotated[float, Field(allow_inf_nan=False)]
Words = Annotated[str, Field(max_length=2_000)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=1, le=MOST_SAMPLES)]
Length = Annotated[int, Field(ge=1, description=f"Tokens of a text, at most; above {MOST_TOKENS:,}: as many.")]
Stop = Annotated[str, Field(min_length=1, max_length=1_000)]
Stops = Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None
Metadata = dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]]


def bounded(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of sampling, whose length is one that a request may have. Raises ValueError if it is longer."""
    length = settings.get("length")
    if isinstance(length, int | float) and length > MOST_TOKENS:
        raise ValueError(f"A text has at most {MOST_TOKENS:,} tokens. Given: length={length:,}.")
    return settings


Settings = Annotated[dict[str, Any], AfterValidator(bounded)]  # of sampling of the family, by name


@overload
def capped(length: int) -> int: ...
@overload
def capped(length: None) -> None: ...
def capped(length: int | None) -> int | None:
    """The tokens that a text may have. Agents ask for as many as their other models can write, and end texts that are
    cut (finish reason `length`) by themselves, so more is not refused."""
    return None if length is None else min(length, MOST_TOKENS)


def cap_headers(length: int | None) -> dict[str, str]:
    """The headers of an answer for which so many tokens were asked, which name the limit if it is lower."""
    return {} if capped(length) == length else {CAPPED: str(MOST_TOKENS)}


@dataclass(frozen=True)
class Only:
    """The values of a parameter that change nothing here, and what to do instead of another one."""

    values: tuple[Any, ...]
    instead: str = "Leave it out."


def describe_extras(schema: dict[str, Any], form: type[BaseModel]) -> None:
    """Add the parameters without a field to the JSON schema of a form."""
    extras: dict[str, Any] = {
        name: {"description": "Accepted; has no effect."} for name in getattr(form, "ignored", ())
    }
    for name, accepted in getattr(form, "only", {}).items():
        extras[name] = {"enum": [*accepted.values], "description": f"Has no effect. {accepted.instead}"}
    schema.setdefault("properties", {}).update(extras)


class Form(BaseModel):
    """A request whose unknown parameters are refused. Those in `ignored` are known to the dialect and have no effect
    here: they are accepted, and the header IGNORED of the answer names them. Those in `only` are accepted at a value
    that changes nothing. `words`: what the dialect calls what shared messages name."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=describe_extras)
    ignored: ClassVar[tuple[str, ...]] = ()
    only: ClassVar[Mapping[str, Only]] = {}
    words: ClassVar[Mapping[str, str]] = {}  # see afresh.faces.http.errors.speaking


def form_in(annotation: Any) -> type[Form] | None:
    """The first form that a value of this type may be, or a list of such values."""
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, Form):
        return annotation
    return next(filter(None, map(form_in, get_args(annotation))), None)


def take_extras(annotation: Any, body: Any, where: str = "") -> list[str]:
    """Remove the parameters without a field from the JSON of a request, in which they are `where`. Returns the names of
    the ignored ones that were given; null counts as not given. Raises Refused for another value than those accepted."""
    if (form := form_in(annotation)) is None:
        return []
    if isinstance(body, list):
        return [name for i, item in enumerate(body) for name in take_extras(form, item, f"{where}{i}.")]
    if not isinstance(body, dict):
        return []
    for name, accepted in form.only.items():
        given = body.pop(name, None)
        if given is not None and given not in accepted.values:
            values, param = ", ".join(map(repr, accepted.values)), f"{where}{name}"
            message = f"{param} is not supported here, other than {values}. {accepted.instead} Given: {given!r:.80}."
            raise RefusedRequest(400, message, "unsupported_parameter", param)
    names = [f"{where}{name}" for name in form.ignored if body.pop(name, None) is not None]
    for name, field in form.model_fields.items():
        names += take_extras(field.annotation, body.get(name), f"{where}{name}.")
    return names


class Sampling(Form):
    """How a text is drawn. What is left out is as the model learnt it: temperature 1, every token."""

    temperature: Annotated[Finite, Field(ge=0, le=10)] | None = None
    top_p: Annotated[Finite, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[Finite, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[Finite, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[Finite, Field(ge=-2, le=2)] | None = None

    def sampling(self) -> dict[str, Any]:
        """The settings of sampling, by name; None for what is left out."""
        return {name: getattr(self, name) for name in Sampling.model_fields}


class WindowSampling(Sampling):
    """The same with what llama.cpp and those that follow it have beside it."""

    only: ClassVar = {
        "typical_p": Only((1,), "Use top_p or min_p."),
        "mirostat": Only((0,), "Use top_p or min_p."),
        "repeat_penalty": Only((1,), "Use frequency_penalty or presence_penalty."),
    }
    seed: Seed | None = None
    stop: Stops = None
    repeat_last_n: int | None = Field(None, description="Penalties count every token of the text: leave it out.")

    def check_window(self, where: str = "") -> None:
        """Raises Refused for a number of last tokens that penalties look at. `where`: what stands before its name."""
        if (self.frequency_penalty or self.presence_penalty) and self.repeat_last_n not in (None, -1):
            raise RefusedRequest(
                400,
                "Penalties count every token of the text that is written. Leave repeat_last_n out.",
                "unsupported_parameter",
                f"{where}repeat_last_n",
            )

    @property
    def stops(self) -> tuple[str, ...]:
        return stops_of(self.stop)


# How OpenAI's service keeps, routes and bills requests, and who asks.
OPENAI_IGNORED = ("store", "service_tier", "prompt_cache_retention")
OPENAI_IDENTITY = ("user", "metadata", "safety_identifier", "prompt_cache_key")


class Conditions(Form):
    """What OpenAI's API has no word for: the conditions of a sample, guidance, and settings of the family."""

    label: Words | dict[str, Words] | None = Field(None, description="A class that the run knows, or one of each kind.")
    number: dict[str, Finite] | None = Field(None, description="Numbers by name.")
    caption: Words | None = Field(None, description="A description.")
    negative_label: Words | None = Field(None, description="A class that guidance leads away from.")
    negative_caption: Words | None = Field(None, description="A description that guidance leads away from.")
    guidance: Finite | None = Field(None, description=WORDS["guidance"].help)
    settings: Settings = Field(default_factory=dict, description="Settings of sampling of the family, by name.")

    def request(self, **more: Any) -> Request:
        """The request for samples, with `more` of its parts."""
        given: dict[str, Any] = {"label": self.label, "number": self.number or {}, "caption": self.caption}
        negative = unwanted(self.negative_label, self.negative_caption)
        return Request(**(given | {"negative": negative} | more))

    def chosen(self, **more: Any) -> dict[str, Any]:
        """The settings of sampling, with `more` that are not None. Raises UserError for one that is given twice."""
        named = {k: v for k, v in {**more, "guidance": self.guidance}.items() if v is not None}
        if twice := next((name for name in self.settings if name in named), None):
            raise UserError(
                f"{twice} is a parameter of this request. Give it as such, and leave it out of `settings`.",
                "given_twice",
                param=f"settings.{twice}",
            )
        return {**self.settings, **named}


class TextConditions(Conditions):
    """The same for texts, and what each of them must match."""

    raw: bool = Field(False, description="Continue a prompt instead of answering it.")
    regex: Annotated[str, Field(max_length=10_000)] | None = Field(None, description="What each text must match.")
    grammar: Annotated[str, Field(max_length=100_000)] | None = Field(None, description="A Lark or GBNF grammar.")

    def request(self, **more: Any) -> Request:
        """The request for texts, with `more` of its parts."""
        return super().request(**({"raw": self.raw} | more))


class StreamOptions(Form):
    include_usage: bool = False
    include_obfuscation: bool = False


class JsonSchema(Form):
    name: Annotated[str, Field(max_length=64)] = "schema"
    description: str | None = None
    schema_: dict[str, Any] | bool = Field(True, alias="schema")
    strict: bool | None = None


class ResponseFormat(Form):
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = None

    def schema_of(self) -> Mapping[str, Any] | bool | None:
        """The JSON schema that an answer must match, or None. Raises Refused for a missing one."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return {"type": "object"}
        if self.json_schema is None:
            raise RefusedRequest(400, "json_schema needs a schema.", param="response_format.json_schema")
        return self.json_schema.schema_


class OpenAIText(Sampling):
    """What OpenAI's requests for texts, and for answers, have in common."""

    model: str
    n: Count | None = 1
    logit_bias: dict[int, Annotated[Finite, Field(ge=-100, le=100)]] | None = None
    stop: Stops = None
    seed: Seed | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    afresh: TextConditions = Field(default_factory=TextConditions)

    def check_stream(self) -> None:
        """Raises Refused for options of a stream that do not apply."""
        if self.stream_options is not None and not self.stream:
            raise RefusedRequest(400, "stream_options applies to streams: set stream.", None, "stream_options")
        if self.stream_options is not None and self.stream_options.include_obfuscation:
            message = "Streams are not padded here. Leave it out."
            raise RefusedRequest(400, message, param="stream_options.include_obfuscation")

    @property
    def schema_of(self) -> Mapping[str, Any] | bool | None:
        """The JSON schema that a text must match, or None."""
        return None if self.response_format is None else self.response_format.schema_of()

    @property
    def counted(self) -> dict[str, None]:
        """What the pieces of a stream say of its tokens, if they are to be counted at its end."""
        return {"usage": None} if self.stream_options and self.stream_options.include_usage else {}

    def last(self, head: Mapping[str, Any], usage: Mapping[str, Any]) -> list[str]:
        """The last events of a stream."""
        return [*([event({**head, "choices": [], "usage": usage})] if self.counted else []), event("[DONE]")]


def constraint(run: Run, wanted: TextConditions, schema: Mapping[str, Any] | bool | None) -> Any:
    """The structure that texts must match, or None."""
    return structure(run.family, run.encoder, json_schema=schema, regex=wanted.regex, grammar=wanted.grammar)


def stops_of(stop: Stops) -> tuple[str, ...]:
    """The strings before which a text ends."""
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def seed_of(seed: int | None) -> int:
    """The seed of a request, or a new one."""
    return secrets.randbelow(2**31) if seed is None else seed


def name(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(12)}"


def now() -> int:
    return int(time.time())


def event(data: Any, kind: str = "") -> str:
    """A server-sent event, of a named kind if there are several. Lines of the data are lines of the event, so that
    nothing in it can end it."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    head = f"event: {kind}\n" if kind else ""
    return head + "".join(f"data: {line}\n" for line in re.split(r"\r\n|\r|\n", text)) + "\n"


def event_stream(
    events: AsyncIterator[str] | Iterator[str], length: int | None = None, headers: Mapping[str, str] | None = None
) -> StreamingResponse:
    """An answer of server-sent events, for which so many tokens were asked."""
    headers = {"cache-control": "no-cache", **cap_headers(length), **(headers or {})}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def named_event(data: Mapping[str, Any]) -> str:
    """A server-sent event that is named by the type of its data."""
    return event(data, data["type"])


def check_context(run: Run, tokens: int) -> None:
    """Raises UserError if a prompt does not fit in the context of the model."""
    context = run.space.shape[0]
    if tokens > context:
        raise UserError(
            f"The prompt has {tokens:,} tokens, and the model {run.path.name} sees {context:,}. Shorten the prompt.",
            "context_length_exceeded",
            param="prompt",
        )


# --------------------------------------------------------------------------- answers, for their description

EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
STREAM: dict[str, Any] = {"text/event-stream": {"schema": EVENT}}


def files(media_types: Iterable[str]) -> dict[int | str, dict[str, Any]]:
    """The description of an answer that is a file of one of these types, which is also given as a stream."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in media_types}
    return {200: {"content": content | STREAM}}


def streamed_too(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The description of an answer that is also given as a stream."""
    return {200: {"model": model, "content": STREAM}}
