"""Plug-ins of other packages, which are added to the registry through entry points.

A package adds a modality, for example, with these lines in its pyproject.toml:

    [project.entry-points."afresh.modalities"]
    walk = "afresh_walks:MODALITY"

Metadata is read when plug-ins are first listed, and a package is imported when one of its plug-ins is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from afresh.core import events
from afresh.core.errors import UserError

# The attributes that the object of an entry point must have, by group. The name of a modality or family is that of its
# entry point, because runs record it.
REQUIRED_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "modalities": ("name", "kind", "options", "sniff", "read", "fit", "load"),
    "families": ("name", "accepts", "config", "plan", "build", "objective", "sampling"),
    "aligners": (),
    "metrics": (),
    "rewards": (),
    "sources": ("__call__",),
}


@dataclass(frozen=True)
class Plugin:
    """One entry point of the group afresh.GROUP, and the package that declares it."""

    group: str
    name: str
    package: str
    entry: EntryPoint

    def load(self) -> Any:
        """The object of the entry point. Raises UserError, naming the package, if it cannot be imported or lacks an
        attribute."""
        required = REQUIRED_ATTRIBUTES[self.group]
        try:
            loaded = self.entry.load()
        except Exception as e:  # a package may raise anything
            raise self.error(f"cannot be loaded: {type(e).__name__}: {e}") from e
        if not required and not isinstance(loaded, Sequence if self.group != "rewards" else Mapping):
            wanted = "mapping" if self.group == "rewards" else "sequence"
            raise self.error(f"is a {type(loaded).__name__}, not a {wanted}")
        if missing := [name for name in required if getattr(loaded, name, None) is None]:
            raise self.error(f"lacks {', '.join(missing)}")
        if "name" in required and loaded.name != self.name:
            raise self.error(f"has the name {loaded.name!r}, which must be that of its entry point")
        return loaded

    def error(self, what: str) -> UserError:
        return UserError(
            f"{self.name!r} in afresh.{self.group}, a plug-in of the package {self.package}, {what}. Repair the "
            "package, or uninstall it.",
            "broken_plugin",
            package=self.package,
            plugin=self.name,
        )


@cache
def plugins(group: str, builtin: tuple[str, ...] = ()) -> dict[str, Plugin]:
    """The plug-ins of a group by name, in alphabetical order of names and packages. A plug-in whose name is built in or
    used by an earlier package is ignored with a warning."""
    out: dict[str, Plugin] = {}
    entries = [(e.name, e.dist.name if e.dist else "?", e) for e in entry_points(group=f"afresh.{group}")]
    for name, package, entry in sorted(entries, key=lambda e: e[:2]):
        owner = "built in" if name in builtin else f"that of {out[name].package}" if name in out else None
        if owner is None:
            out[name] = Plugin(group, name, package, entry)
        elif name in builtin or out[name].package != package:  # otherwise the package is on the path twice
            events.warning(
                f"The package {package} adds {name!r} to afresh.{group}, but that name is taken: the plug-in that is "
                f"used is {owner}. Rename the plug-in.",
                "plugin_ignored",
                package=package,
                plugin=name,
            )
    return out


_skipped: set[Plugin] = set()


def loadable(candidates: Iterable[Plugin]) -> list[tuple[Plugin, Any]]:
    """Plug-ins with their objects. Those that cannot be loaded are left out, with one warning each, so that a broken
    package does not affect others."""
    out = []
    for plugin in candidates:
        try:
            out.append((plugin, plugin.load()))
        except UserError as e:
            if plugin not in _skipped:
                events.warning(str(e), e.code, **e.fields)
                _skipped.add(plugin)
    return out
