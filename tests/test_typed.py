"""The package says that it is typed; what a type checker sees of it is in typed.py."""

from __future__ import annotations

from importlib.resources import files


def test_the_package_says_that_it_is_typed() -> None:
    assert files("afresh").joinpath("py.typed").is_file()
