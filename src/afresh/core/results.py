"""What plug-ins do with the results of a run before others see them: `Plugin.on_result`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

SIDECAR = ".provenance.json"  # NAME.provenance.json lies beside NAME, and states where it comes from


class ResultHook(Protocol):
    """A hook on the results of one run."""

    def values(self, values: Sequence[Any], medium: str | None = None) -> Sequence[Any]:
        """The decoded values as they are to be written. `medium`: their `ItemKind.medium`, if not that of the run."""

    def files(
        self, name: str, content: bytes, recipe: Mapping[str, Any], made_from: Sequence[Any] = ()
    ) -> Mapping[str, bytes]:
        """The file as it is to be written, and files that lie beside it, by name. `recipe`: the request and the seed.
        `made_from`: the `afresh.services.provenance.work.Ingredient`s."""


def finished_values(hooks: Sequence[ResultHook], values: Sequence[Any], medium: str | None = None) -> Sequence[Any]:
    """The values after all hooks, one after the other."""
    for hook in hooks:
        values = hook.values(values, medium)
    return values


def finished_files(
    hooks: Sequence[ResultHook], name: str, content: bytes, recipe: Mapping[str, Any], made_from: Sequence[Any] = ()
) -> dict[str, bytes]:
    """A file after all hooks, with the files beside it, by name."""
    files = {name: content}
    for hook in hooks:
        files |= hook.files(name, files[name], recipe, made_from)
    return files
