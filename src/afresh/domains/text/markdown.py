"""Markdown of a model as HTML that can do no harm: no markup of its own, no scripts, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from markdown_it import MarkdownIt


@cache
def parser() -> MarkdownIt:
    """CommonMark with tables. HTML is text, images are links, and links lead to http, https and mail alone, in a page
    that does not learn where they were followed."""
    from markdown_it import MarkdownIt  # here: a server with which nobody talks starts earlier

    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    markdown.disable("image")
    markdown.validateLink = allowed  # type: ignore[assignment, method-assign]
    markdown.add_render_rule("link_open", link_open)
    markdown.add_render_rule("heading_open", heading)
    markdown.add_render_rule("heading_close", heading)
    markdown.add_render_rule("fence", code)
    markdown.add_render_rule("code_block", code)
    markdown.add_render_rule("table_open", lambda *_: '<div class="wide-table" tabindex="0"><table>')
    markdown.add_render_rule("table_close", lambda *_: "</table></div>")
    return markdown


def markdown(text: str) -> Markup:
    """A text as HTML."""
    return Markup(parser().render(text))


def allowed(address: str) -> bool:
    """Whether a link may lead there."""
    return address.strip().lower().startswith(("http://", "https://", "mailto:"))


def link_open(renderer: Any, tokens: Sequence[Any], at: int, options: Any, env: Any) -> str:
    tokens[at].attrSet("rel", "noopener noreferrer nofollow")
    tokens[at].attrSet("target", "_blank")
    return str(renderer.renderToken(tokens, at, options, env))


def heading(renderer: Any, tokens: Sequence[Any], at: int, options: Any, env: Any) -> str:
    """Headings of an answer stand below those of the page."""
    tokens[at].tag = f"h{min(6, int(tokens[at].tag[1]) + 2)}"
    return str(renderer.renderToken(tokens, at, options, env))


def code(renderer: Any, tokens: Sequence[Any], at: int, options: Any, env: Any) -> str:
    """A block of code, which is scrolled by the keyboard as well."""
    return f'<pre tabindex="0"><code>{Markup.escape(tokens[at].content)}</code></pre>\n'
