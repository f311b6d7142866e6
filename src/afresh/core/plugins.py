"""Plug-ins of other packages: what they add to the registry through entry points.

A package adds a modality, for example, with these lines in its pyproject.toml:

    [project.entry-points."afresh.modalities"]
    walk = "afresh_walks:MODALITY"

Metadata is read when a plug-in is first asked for, and a package is imported when one of its plug-ins is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from afresh.core import events
from afresh.core.errors import UserError

# What the object of an entry point has to have, by group. Modalities and families bear the name of their entry point,
# by which runs find them again.
PARTS: dict[str, tuple[str, ...]] = {
    "modalities": ("name", "kind", "options", "sniff", "read", "fit", "load"),
    "families": ("name", "accepts", "config", "plan", "build", "objective", "sampling"),
    "aligners": (),
    "metrics": (),
    "rewards": (),
}


@dataclass(frozen=True)
class Plugin:
    """One entry point of the group afresh.GROUP, and the package that declares it."""

    group: str
    name: str
    package: str
    entry: EntryPoint

    def load(self) -> Any:
        """The object that the entry point names. Raises UserError, naming the package, if it cannot be imported or
        lacks a part."""
        try:
            found = self.entry.load()
        except Exception as e:  # whatever the package raises
            raise self.error(f"cannot be loaded: {type(e).__name__}: {e}") from e
        if missing := [part for part in PARTS[self.group] if getattr(found, part, None) is None]:
            raise self.error(f"lacks {', '.join(missing)}")
        if "name" in PARTS[self.group] and found.name != self.name:
            raise self.error(f"calls itself {found.name!r}, and its entry point needs the same name")
        return found

    def error(self, what: str) -> UserError:
        return UserError(
            f"{self.name!r} in afresh.{self.group}, which the package {self.package} adds, {what}. Repair the package, "
            "or uninstall it.",
            "broken_plugin",
            package=self.package,
            plugin=self.name,
        )


@cache
def plugins(group: str, builtin: tuple[str, ...] = ()) -> dict[str, Plugin]:
    """The plug-ins of a group by name, in alphabetical order of names and packages. One whose name is built in, or
    taken by another package, is ignored with a warning."""
    found: dict[str, Plugin] = {}
    entries = [(e.name, e.dist.name if e.dist else "?", e) for e in entry_points(group=f"afresh.{group}")]
    for name, package, entry in sorted(entries, key=lambda e: e[:2]):
        owner = "built in" if name in builtin else f"that of {found[name].package}" if name in found else None
        if owner is None:
            found[name] = Plugin(group, name, package, entry)
        elif name in builtin or found[name].package != package:  # else the package is on the path twice
            events.warning(
                f"The package {package} adds {name!r} to afresh.{group}, a name that is taken: the one that is used is "
                f"{owner}. Another name is needed for it.",
                "plugin_ignored",
                package=package,
                plugin=name,
            )
    return found


_skipped: set[Plugin] = set()


def loadable(found: Iterable[Plugin]) -> list[tuple[Plugin, Any]]:
    """Plug-ins with what they add. Those that cannot be loaded are left out with a warning, once each, so that a broken
    package disturbs no other."""
    out = []
    for plugin in found:
        try:
            out.append((plugin, plugin.load()))
        except UserError as e:
            if plugin not in _skipped:
                events.warning(str(e), e.code, **e.fields)
                _skipped.add(plugin)
    return out
