"""What the encoders of all modalities share: their file encoder.json, and the files of values that they write."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, InstanceOf, TypeAdapter

from afresh.core import Sound
from afresh.core.safe_json import read_model
from afresh.data.storage.files import replace_file

FILE = "encoder.json"
M = TypeVar("M")
Beside = Annotated[InstanceOf[M], Field(exclude=True)]  # a field of an encoder that other files hold


class FileEncoder(ABC):
    """A dataclass whose fields are encoder.json, but for those that are `Beside` it. `later`: fields of later versions,
    which are not written while they say nothing, so that files of earlier versions keep their bytes."""

    __pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True, revalidate_instances="always")
    later: tuple[str, ...] = ()

    @property
    @abstractmethod
    def suffix(self) -> str:
        """Of the files of values, with the dot."""

    @abstractmethod
    def content(self, value: Any, name: str) -> bytes:
        """The file of a value. `name`: without the suffix."""

    def write(self, values: Sequence[Any], folder: Path, names: Sequence[str]) -> list[str]:
        """Write one file per value to `folder`. Returns the names of the files."""
        files = written_names(names, self.suffix)
        for value, file in zip(values, files, strict=True):
            replace_file(folder / file, self.content(value, file.removesuffix(self.suffix)))
        return files

    def hear(self, value: Any) -> Sound | None:
        """The value as audio; None if it has none."""
        return None

    def save(self, folder: Path) -> None:
        """Write encoder.json to `folder`, which is created if necessary."""
        adapter = TypeAdapter(type(self))
        left_out = {name for name in self.later if not getattr(self, name)}
        replace_file(folder / FILE, adapter.dump_json(adapter.validate_python(self), indent=1, exclude=left_out))


def load_encoder(folder: Path, encoder: type[M], what: str, beside: Mapping[str, Any] | None = None) -> M:
    """Read encoder.json. Raises UserError if it is missing, damaged, of another version or has unknown fields.

    `what` names what is encoded in the message ("images"). `beside`: the fields that other files hold.
    """
    return read_model(folder / FILE, encoder, f"an encoder of {what}", beside or {})


def with_tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that were read from JSON, with tuples in place of lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def written_names(names: Sequence[str], suffix: str) -> list[str]:
    """Names of files with `suffix` (with the dot), in which characters other than letters, digits, ., _ and - are
    replaced by _. Raises ValueError if two names become the same."""
    files = [re.sub(r"[^\w.-]", "_", name.removesuffix(suffix)) + suffix for name in names]
    if len(set(files)) != len(files):
        raise ValueError(f"{len(files)} values need as many different names, not {files}")
    return files
