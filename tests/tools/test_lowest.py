"""The lowest versions that pyproject.toml allows, against the advisories that the repository keeps."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from tools.lowest import lowest

ROOT = Path(__file__).parents[2]
ADVISORIES: list[dict[str, Any]] = json.loads((ROOT / "tools" / "advisories.json").read_text())


def floors() -> dict[str, Version]:
    """The lowest version of each dependency, of the package and of all its extras: the lowest of several."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    found: dict[str, Version] = {}
    for requirement in map(Requirement, [*project["dependencies"], *(r for each in extras.values() for r in each)]):
        lowest_allowed = max((Version(s.version) for s in requirement.specifier), default=Version("0"))
        name = canonicalize_name(requirement.name)
        found[name] = min(lowest_allowed, found.get(name, lowest_allowed))
    return found


def holes(versions: dict[str, Version]) -> list[str]:
    """The advisories that are open for these versions."""
    return [
        f"{a['package']} {versions[a['package']]}: {a['id']}, {a['why']}"
        for a in ADVISORIES
        if "unreached" not in a and versions[a["package"]] in SpecifierSet(a["affected"])
    ]


def test_no_dependency_may_be_as_old_as_a_known_hole() -> None:
    assert holes(floors()) == []


@pytest.mark.parametrize("name, before, advisory", [("jinja2", "3.1", "CVE-2025-27516"), ("pillow", "11.1", "GHSA-8g")])
def test_a_version_with_a_hole_is_named(name: str, before: str, advisory: str) -> None:
    assert any(advisory in hole for hole in holes({**floors(), name: Version(before)}))


@pytest.mark.parametrize("advisory", ADVISORIES, ids=lambda a: a["id"])
def test_an_advisory_is_of_a_dependency_and_complete(advisory: dict[str, Any]) -> None:
    assert advisory.keys() - {"unreached"} == {"id", "package", "affected", "fixed", "why"}
    assert advisory["package"] in floors() and advisory["why"] and advisory.get("unreached", "nothing") != ""
    affected = SpecifierSet(advisory["affected"])
    if advisory["fixed"] is None:
        assert "unreached" in advisory
    else:
        assert Version(advisory["fixed"]) not in affected


def test_every_lowest_version_is_a_constraint() -> None:
    """Also with extras of the dependency and with markers."""
    held = {line.split("==")[0] for line in lowest()}
    assert {"ray", "c2pa-python", "torch"} <= held and not any(line.startswith("torch==") for line in lowest(["torch"]))
