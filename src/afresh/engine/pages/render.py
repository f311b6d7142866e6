"""Templates as HTML: pages of one file each, which load nothing from elsewhere, and the parts of the studio's pages."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
BASE = HERE / "base.css"  # the style that all pages share, which the studio serves as a file


@cache
def environment(*folders: Path) -> Environment:
    """The templates of these folders. Values are escaped, and a misspelt name is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def data_uri(media_type: str, content: bytes) -> str:
    """A file as the address that holds it."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def render_page(template: Path, **values: Any) -> str:
    """A template that extends `document.html` as one HTML file, which has its style in itself.

    Raises jinja2.UndefinedError for a name in the template that has no value.
    """
    return environment(template.parent, HERE).get_template(template.name).render(values)
