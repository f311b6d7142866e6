"""What a user prefers everywhere: the environment variables AFRESH_* and a configuration file.

An option of the command line, or an argument in Python, comes before the environment, the environment before the file,
the file before the default. Nothing heavy is imported until an error has to be raised.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from platformdirs import user_cache_path, user_config_path, user_data_path
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

PREFIX = "AFRESH_"
Folder = Annotated[Path, AfterValidator(Path.expanduser)]


def _minutes(given: Any) -> Any:
    """Raises ValueError, as a validator of pydantic does, for what is not a length of time."""
    from afresh.core.errors import UserError
    from afresh.core.minutes import ACCEPTED, minutes_of

    try:
        return minutes_of(given)
    except UserError:
        raise ValueError(ACCEPTED) from None


Minutes = Annotated[float, BeforeValidator(_minutes)]  # a number, or a text as "2m"


def _price(given: str) -> str:
    """Raises ValueError, as a validator of pydantic does, for what is not an amount of money."""
    from afresh.core.errors import UserError
    from afresh.core.money import parse_amount

    try:
        return " ".join(parse_amount(given, "price"))
    except UserError as error:
        raise ValueError(str(error).partition(": ")[2]) from None  # without the name, which is said before it


Price = Annotated[str, AfterValidator(_price)]  # as "0.30 EUR"


class Preferences(BaseSettings):
    """The settings of a user. Names in the configuration file are those of the fields."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    device: str | None = Field(None, description="where new runs are trained: cpu, cuda, cuda:1, mps; else the fastest")
    threads: int | None = Field(None, ge=1, le=4096, description="threads that torch may use; else those of torch")
    minutes: Minutes = Field(5.0, gt=0, description="budget of `train` and `distill` where none is given")
    runs: Folder = Field(Path("runs"), description="folder in which new runs are put and runs are found by their names")
    quiet: bool = Field(False, description="show warnings and errors alone, no notes and no progress")
    verbose: bool = Field(False, description="show every decision about the data and the plan, with its reason")
    colour: bool = Field(
        True, description="colours on a terminal; NO_COLOR, which every program knows, forbids them too"
    )
    kernels: bool = Field(True, description="compile kernels for decoders where there is a compiler")
    cache_folder: Folder = Field(
        default_factory=lambda: user_cache_path("afresh"),
        description="compiled kernels, and what is being fetched; may be removed at any time",
    )
    data_folder: Folder = Field(
        default_factory=lambda: user_data_path("afresh") / "data",
        description="data given in memory, which its runs need again, and tokens or pixels of data larger than memory",
    )
    jobs_folder: Folder = Field(
        default_factory=lambda: user_data_path("afresh") / "jobs",
        description="commands that were started in the studio, and what they said",
    )
    works_folder: Folder = Field(
        default_factory=lambda: user_data_path("afresh") / "works", description="what was made in the studio"
    )
    stores_folder: Folder = Field(
        default_factory=lambda: user_data_path("afresh") / "stores",
        description="copies of runs that live in a store, as s3://BUCKET/NAME, with what is not uploaded yet",
    )
    stores_bytes: int = Field(
        50_000_000_000, ge=0, description="of those copies; what was used longest ago is removed, if it is in the store"
    )
    contact: str = Field(
        "", description="an e-mail address or a page by which sites that are collected from can reach you"
    )
    private_networks: str = Field(
        "", description="networks that are not public and may be collected from, as 10.1.0.0/16, separated by commas"
    )
    key_folder: Folder = Field(
        default_factory=lambda: user_config_path("afresh"),
        description="the secret that signs runs of one's own, and the key that signs works",
    )
    mark_works: bool = Field(
        True, description="whether works are marked and signed, so that machines can tell where they come from"
    )
    codec: str = Field(
        "", description="a folder or a name on the hub: the autoencoder for images of more than 96 pixels; else taef2"
    )
    offline: bool = Field(False, description="fetch nothing that a command was not told to fetch")
    certificate: Folder | None = Field(
        None, description="a certificate in PEM to sign works with, and those of its issuers; else one of your own"
    )
    certificate_key: Folder | None = Field(None, description="the private key of that certificate, in PEM")
    timestamp_url: str | None = Field(
        None, pattern=r"^https?://", description="an authority that certifies when works were signed"
    )
    price_kwh: Price | None = Field(
        None, description='what a kilowatt-hour costs, as "0.30 EUR"; labels then say what training and works cost'
    )
    price_hour: Price | None = Field(
        None, description='what an hour of this machine costs beside its energy, as "1.20 EUR" where it is rented'
    )

    @field_validator("price_hour")
    @classmethod
    def one_currency(cls, hour: str | None, info: ValidationInfo) -> str | None:
        """Raises ValueError if the prices are in two currencies."""
        kwh = info.data.get("price_kwh")
        if hour is not None and kwh is not None and hour.split()[1] != kwh.split()[1]:
            raise ValueError(f"price_kwh is in {kwh.split()[1]}. Give both prices in one currency")
        return hour

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())


@dataclass(frozen=True)
class InForce:
    """One setting: its value, and where it comes from."""

    name: str
    value: Any
    source: str


def config_file() -> Path:
    """The configuration file, which need not exist: ~/.config/afresh/config.toml on Linux."""
    return user_config_path("afresh") / "config.toml"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def preferences() -> Preferences:
    """The settings in force. Raises UserError, naming the file and line or the environment variable, the value and what
    is accepted, if one of them is not valid."""
    try:
        return Preferences()
    except ValidationError as error:
        found = "; ".join(_fault(x["loc"], x["type"], x["msg"], x["input"]) for x in error.errors())
    except (OSError, ValueError) as error:  # tomllib's error says in which line
        found = f"{config_file()}: {error}"
    from afresh.core.errors import UserError

    raise UserError(f"{found}. Correct it, or remove it to use the default.", "preferences", file=str(config_file()))


def in_force() -> list[InForce]:
    """Every setting with its source: an environment variable, the configuration file, or `default`. Raises UserError as
    `preferences` does."""
    found = preferences()
    written = TomlConfigSettingsSource(Preferences, config_file())()
    sources = {name: str(config_file()) for name in written}
    sources |= {name: variable(name) for name in EnvSettingsSource(Preferences)()}
    return [InForce(name, getattr(found, name), sources.get(name, "default")) for name in Preferences.model_fields]


def unknown_variables() -> list[str]:
    """Environment variables that begin as those of the settings and are none: perhaps mistyped."""
    known = {variable(name) for name in Preferences.model_fields}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def _fault(location: tuple[int | str, ...], kind: str, message: str, value: Any) -> str:
    """A sentence for one error of pydantic."""
    name = str(location[0])
    if kind == "extra_forbidden":
        return f"{_line(name)}: there is no setting {name}. Known: {', '.join(Preferences.model_fields)}"
    place = variable(name) if variable(name) in os.environ else _line(name)
    from afresh.core.library_words import in_plain_words

    why = in_plain_words(message).rstrip(".")
    return f"{place}: {name} is {value!r}. {why[:1].upper()}{why[1:]}"


def _line(name: str) -> str:
    """The configuration file, with the line that sets `name`."""
    for number, line in enumerate(config_file().read_text("utf-8").splitlines(), 1):
        if re.match(rf"\s*[\"'\[]*{re.escape(name)}\b", line):
            return f"{config_file()}, line {number}"
    return str(config_file())
