"""Compute data that anyone can learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from afresh.core import UserError, registry
from afresh.core.data_maker import DataMaker, MakerSetting
from afresh.data.storage.folders import check_free, new_folder


@dataclass(frozen=True)
class MadeData:
    """The folder that was written, its maker and settings, and what a person should know of it."""

    path: Path
    maker: str
    settings: Mapping[str, float]
    seed: int
    notes: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "maker": self.maker,
            "settings": dict(self.settings),
            "seed": self.seed,
            "notes": list(self.notes),
        }


def make_data(name: str, out: Path | None, settings: Mapping[str, Any], seed: int, force: bool) -> MadeData:
    """Write the data of a maker into a folder, the name of the maker by default.

    Raises UserError for an unknown maker, for settings that are unknown or out of range, and if the folder exists.
    """
    maker = maker_named(name)
    chosen = settings_of(name, maker, settings)
    path = out or Path(name)
    check_free(path, force)
    try:
        with new_folder(path, force) as aside:
            aside.mkdir(parents=True)
            notes = maker.make(aside, chosen, seed)
    except OSError as e:
        raise UserError(f"Cannot write to {path}: {e.strerror or e}. Choose another folder.", "cannot_write") from None
    return MadeData(path, name, chosen, seed, tuple(notes))


def maker_named(name: str) -> DataMaker:
    makers = registry.makers()
    if name not in makers:
        near = get_close_matches(name, makers, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"No data {name!r} to compute.{hint} Choose one of: {', '.join(makers)}.", "maker")
    return makers[name]


def settings_of(name: str, maker: DataMaker, given: Mapping[str, Any]) -> dict[str, float]:
    """All settings, with those that are given as words or numbers. Raises UserError for one that is not accepted."""
    if unknown := [key for key in given if key not in maker.settings]:
        raise UserError(f"{name} has no setting {unknown[0]}. Accepted: {', '.join(maker.settings)}.", "setting")
    return {key: number(key, given.get(key), about) for key, about in maker.settings.items()}


def number(key: str, given: Any, about: MakerSetting) -> float:
    if given is None:
        return about.default
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = float("nan")
    if not about.lowest <= value <= about.highest or (about.whole and value != int(value)):
        kind = "a whole number" if about.whole else "a number"
        raise UserError(
            f"{key} ({about.about}) is {kind} from {about.lowest:g} to {about.highest:g}. Given: {given}.", "range"
        )
    return value
