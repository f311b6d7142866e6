"""Every verb of the command line can be done from Python, by the same names. What is declared (afresh.core.verb) can by
construction."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import afresh
from afresh.faces.cli import function_of, names

M = afresh.Model
FUNCTIONS: Mapping[str, tuple[Callable[..., Any], ...]] = {
    "collect": (afresh.collect_data,),
    "data": (afresh.inspect_data,),
    "get": (afresh.get,),
    "train": (afresh.train, afresh.resume),
    "tune": (afresh.tune,),
    "distill": (M.distill,),
    "align": (M.align,),
    "show": (M.__str__, afresh.list_models, afresh.label),
    "rm": (M.remove, afresh.remove_data, afresh.forget),
    "verify": (M.verify, afresh.verify_works),
    "doctor": (afresh.doctor,),
}
# What the command line alone needs: programs that run until they are stopped, the index of the works of one, command
# lines as jobs of a cluster, a demonstration, a help text, and how a result is shown or asked for.
NOT_IN_PYTHON = {"demo", "launch", "open", "serve"}
SHOWN = {"as_json", "run", "context", "yes", "measure"}
SHOWN |= {"dry_run", "show_rules", "verbose", "examples"}  # of data: a property of its result
WRITTEN = {"data", "show"}  # whose results have a method `save`
# Plural where Python takes several at once, and the keyword arguments of the command line's KEY=VALUE.
RENAMED = {"setting": "settings", "option": "data", "target": "targets", "root": "folder", "resume": "path"}
MORE: Mapping[str, Mapping[str, str]] = {
    "align": {"prompt": "prompts"},
    "collect": {
        "places": "sources",
        "rule": "rules",
        "no_rule": "without_rules",
        "option": "options",
        "resume": "resume",
    },
    "verify": {"names": "path"},
    "rm": {"runs": "self", "data": "names"},
    "tune": {"adapter": "adapter"},
}


# Groups (afresh.faces.cli.group) are programs of their own, which keep no runs: their functions are those of their
# package.
MADE = ("afresh.faces.cli.commands", "afresh.faces.cli.group")
WRITTEN_BY_HAND = [f for f in map(function_of, names()) if getattr(f, "__module__", "") not in MADE]


def test_every_verb_is_listed() -> None:
    assert {v.__name__ for v in WRITTEN_BY_HAND} == set(FUNCTIONS) | NOT_IN_PYTHON


@pytest.mark.parametrize("verb", WRITTEN_BY_HAND, ids=lambda v: v.__name__)
def test_every_option_of_a_verb_has_its_name_in_python(verb: Callable[..., Any]) -> None:
    name = verb.__name__
    if name in NOT_IN_PYTHON:
        return
    known = {p for f in FUNCTIONS[name] for p in inspect.signature(f).parameters}
    renamed = {**RENAMED, **MORE.get(name, {})}
    asked = set(inspect.signature(verb).parameters) - (SHOWN - set(MORE.get(name, {})))
    # Marks are those of `load(RUN, marks=False)`, the label that of `Samples.labelled()`.
    asked -= {"out", "force", "no_marks", "label_ai"} if name in WRITTEN else set()
    asked = {renamed.get(p, p) for p in asked}
    assert not asked - known, f"{name}: {sorted(asked - known)} cannot be said in Python"
