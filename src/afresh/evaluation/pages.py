"""Pages of one file each: they load nothing, have no scripts, and whatever is put into them is text."""

from __future__ import annotations

from importlib.resources import files
from typing import Any


def render_page(package: str, template: str, **values: Any) -> str:
    """A template in the folder `templates` of a package as HTML. `style`: the style that all pages share.

    Raises jinja2.UndefinedError for a name in the template that has no value.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style = Markup((files("afresh.evaluation") / "templates" / "report.css").read_text("utf-8"))
    source = (files(package) / "templates" / template).read_text("utf-8")
    return environment.from_string(source).render(style=style, **values)
