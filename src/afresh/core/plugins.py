"""The parts of plug-ins: those of the domains in this package, and those of other packages.

Domains are the folders of `afresh.domains`, each with a record `PLUGIN`. Other packages name theirs in the group
`afresh.plugins` of entry points.

Metadata is read when parts are first listed, and a package is imported when one of its parts is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules, resolve_name
from typing import Any

from afresh.core import events
from afresh.core.errors import UserError
from afresh.core.plugin import Plugin

OWN = "afresh"  # the package whose faults are faults of this program
# The attributes that the object of a part must have. Metrics and aligners are sequences, rewards,
# extractors and makers mappings.
REQUIRED_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "modalities": ("name", "kind", "options", "sniff", "read", "fit", "load"),
    "families": ("name", "accepts", "config", "plan", "build", "objective", "sampling"),
    "sides": ("__call__",),
    "codecs": ("takes", "fit", "load"),
    "weights": ("name", "holds", "open", "write_adapter"),
    "aligners": (),
    "metrics": (),
    "rewards": (),
    "sources": ("__call__",),
    "verbs": ("name", "parameters", "able"),
    "commands": ("__doc__",),
    "pages": ("name", "able", "routes"),
    "extractors": (),
    "protocols": ("routes", "error"),
    "creations": ("title", "able", "make"),
    "makers": (),
    "on_result": ("__call__",),
}
MAPPINGS = ("rewards", "extractors", "makers")
NAMED = ("modalities", "families", "weights", "verbs")  # groups whose parts have the name of their registration
UNIQUE = (*NAMED, "codecs", "commands")  # groups in which a name is used once


@dataclass(frozen=True)
class PluginPart:
    """One part of a plug-in: its group, the reference of its object, and the package that declares it.

    `name`: that of a modality or family; elsewhere that of the plug-in, for messages. `only`: the suffixes of a
    modality, or the kinds of items of metrics; none for any. `enough`: that of the plug-in.
    """

    group: str
    name: str
    package: str
    reference: str
    only: frozenset[str] = frozenset()
    enough: tuple[int, str] = (0, "items")

    def load(self) -> Any:
        """The object of the part. Raises UserError, naming the package, if it cannot be imported or lacks an
        attribute."""
        if self.package == OWN:
            return resolve_name(self.reference)
        required = REQUIRED_ATTRIBUTES[self.group]
        try:
            loaded = resolve_name(self.reference)
        except Exception as e:  # a package may raise anything
            raise self.error(f"cannot be loaded: {type(e).__name__}: {e}") from e
        if not required and not isinstance(loaded, Mapping if self.group in MAPPINGS else Sequence):
            wanted = "mapping" if self.group in MAPPINGS else "sequence"
            raise self.error(f"is a {type(loaded).__name__}, not a {wanted}")
        if missing := [name for name in required if getattr(loaded, name, None) is None]:
            raise self.error(f"lacks {', '.join(missing)}")
        if self.group in NAMED and loaded.name != self.name:
            raise self.error(f"has the name {loaded.name!r}, which must be the name under which it is registered")
        return loaded

    def error(self, what: str) -> UserError:
        return UserError(
            f"{self.name!r} of {self.group}, from a plug-in of the package {self.package}, {what}. Repair the package, "
            "or uninstall it.",
            "broken_plugin",
            package=self.package,
            plugin=self.name,
        )


def own_plugins() -> dict[str, Plugin]:
    """The records of domains and services in this package, by the name of the folder."""
    homes = [import_module(f"afresh.{room}") for room in ("domains", "services")]
    found = [m for home in homes for m in sorted(iter_modules(home.__path__, f"{home.__name__}."))]
    records = ((m.name, getattr(import_module(m.name), "PLUGIN", None)) for m in found if m.ispkg)
    return {name.rpartition(".")[2]: plugin for name, plugin in records if plugin is not None}


def parts_of(plugin: Plugin, name: str, package: str) -> Iterator[PluginPart]:
    """The parts that a record lists."""
    for group in REQUIRED_ATTRIBUTES:
        listed: Any = getattr(plugin, group)
        named = listed.items() if isinstance(listed, Mapping) else [(name, reference) for reference in listed]
        only = frozenset({"modalities": plugin.suffixes, "metrics": plugin.kinds}.get(group, ()))
        yield from (PluginPart(group, key, package, reference, only, plugin.enough) for key, reference in named)
    yield from (PluginPart("run_files", name, package, pattern) for pattern in plugin.run_files)


@cache
def added() -> tuple[PluginPart, ...]:
    """The parts that other packages add. A record that cannot be loaded is left out, with a warning."""
    return tuple(_added())


def _added() -> Iterator[PluginPart]:
    known = entry_points(group="afresh.plugins")
    for entry in sorted(known, key=lambda e: (e.name, e.dist.name if e.dist else "")):
        package = entry.dist.name if entry.dist else "?"
        try:
            plugin = entry.load()
            if not isinstance(plugin, Plugin):
                raise TypeError(f"{entry.value} is a {type(plugin).__name__} and not an afresh.core.Plugin")
        except Exception as e:  # a package may raise anything
            events.warning(
                f"{entry.name!r}, a plug-in of the package {package}, cannot be loaded: {type(e).__name__}: {e}. "
                "Repair the package, or uninstall it.",
                "broken_plugin",
                package=package,
                plugin=entry.name,
            )
            continue
        yield from parts_of(plugin, entry.name, package)


@cache
def parts(group: str, builtin: tuple[str, ...] = ()) -> tuple[PluginPart, ...]:
    """The parts of a group, those of this package first. A part whose name is built in or used by an earlier package is
    ignored with a warning."""
    out: list[PluginPart] = [
        p for name, plugin in own_plugins().items() for p in parts_of(plugin, name, OWN) if p.group == group
    ]
    owners = dict.fromkeys((*builtin, *(p.name for p in out)), OWN) if group in UNIQUE else {}
    for part in added():
        if part.group != group or part in out:
            continue
        owner = owners.get(part.name)
        if owner is None:
            out.append(part)
            if group in UNIQUE:
                owners[part.name] = part.package
        elif owner != part.package:  # otherwise the package is on the path twice
            events.warning(
                f"The package {part.package} adds {part.name!r} to {group}, but that name is taken: what is used is "
                f"{'built in' if owner == OWN else f'that of {owner}'}. Rename it.",
                "plugin_ignored",
                package=part.package,
                plugin=part.name,
            )
    return tuple(out)


def forget() -> None:
    """Let parts be listed again, since packages were added or removed while the program runs."""
    added.cache_clear()
    parts.cache_clear()


_skipped: set[PluginPart] = set()


def loadable(candidates: Iterable[PluginPart]) -> list[tuple[PluginPart, Any]]:
    """Parts with their objects. Those that cannot be loaded are left out, with one warning each, so that a broken
    package does not affect others."""
    out = []
    for part in candidates:
        try:
            out.append((part, part.load()))
        except UserError as e:
            if part not in _skipped:
                events.warning(str(e), e.code, **e.fields)
                _skipped.add(part)
    return out
