"""The site that `make site` builds of these pages, with Sphinx (docs/development/design/0011-the-site.md).

The pages stay plain Markdown, as a browser of the repository shows it: what stands beside them is told here.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sphinx.application import Sphinx

project = "afresh"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "afresh"
html_static_path = ["site"]
html_css_files = ["tables.css"]
html_show_sphinx = False
html_copy_source = False
html_show_search_summary = False  # it would fetch the pages, which a browser refuses for files on the disk
myst_heading_anchors = 4  # as links to headings name them
nitpicky = True  # with `sphinx-build -W` any link that leads nowhere ends the build

# The pages in the order of the site: a caption, and what stands below it. A page that is missing here ends the build.
ORDER = {
    "": ("start",),
    "By kind of data": (
        *("guides/images", "guides/text_and_code", "guides/audio", "guides/music", "guides/recommending"),
        *("guides/molecules", "guides/fields", "guides/series", "guides/tables", "guides/adaptive-learning"),
    ),
    "By what you do": (
        *("guides/collecting", "guides/studio", "guides/alignment", "guides/propose", "guides/adapters"),
        *("guides/serving", "guides/export", "guides/bundles", "guides/catalogue", "guides/processes", "guides/launch"),
        *("guides/stores", "guides/provenance", "guides/labels"),
    ),
    "Reference": (
        *("concepts", "reference/cli", "reference/http", "reference/python", "reference/settings"),
        "reference/configuration",
        *("reference/scores", "reference/rules", "reference/formats", "reference/exit-codes", "reference/trust"),
        "reference/faults",
    ),
    "Results": ("results/*",),
    "Development": (
        *("development/tour", "development/add-a-family", "development/add-a-modality", "development/papers"),
        *("development/log", "development/design/*"),
    ),
}


def tree(caption: str, pages: tuple[str, ...]) -> str:
    """A part of the menu, in MyST."""
    lines = [f":caption: {caption}"] if caption else []
    return "\n".join(["", "```{toctree}", ":hidden:", ":glob:", *lines, "", *pages, "```", ""])


def add_menu(app: Sphinx, name: str, source: list[str]) -> None:
    """The menu belongs to no page's text: it is added to the first page when that is read."""
    if name == "index":
        source[0] += "\n".join(tree(caption, pages) for caption, pages in ORDER.items())


def copy_sounds(app: Sphinx, fault: Exception | None) -> None:
    """What a player in HTML names: Sphinx copies only what Markdown names."""
    for sound in Path(app.srcdir).rglob("*.mp3"):
        copy = Path(app.outdir) / sound.relative_to(app.srcdir)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sound, copy)


def setup(app: Sphinx) -> None:
    app.connect("build-finished", copy_sounds)
    app.connect("source-read", add_menu)
