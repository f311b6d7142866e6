"""What a model writes is shown as Markdown and can do no harm."""

from __future__ import annotations

import re

import pytest

from afresh.domains.text.markdown import markdown

TAGS = {"a", "code", "div", "h3", "p", "pre", "strong", "table", "tbody", "td", "th", "thead", "tr"}


def test_markdown_is_shown() -> None:
    shown = markdown("# A\n\n**b** `c`\n\n```py\nx < 1\n```\n\n- d\n\n|e|f|\n|-|-|\n|1|2|")
    for part in ("<h3>A</h3>", "<strong>b</strong>", "<code>c</code>", "x &lt; 1", "<li>d</li>", "<td>1</td>"):
        assert part in shown


@pytest.mark.parametrize("text", [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![a](http://evil.example/a.png)",
    "![a][b]\n\n[b]: http://evil.example/a.png",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](data:text/html,<script>alert(1)</script>)",
    "[a](vbscript:x)",
    "[a](//evil.example)",
    "<javascript:alert(1)>",
    '[a](http://x.example "onmouseover=alert(1)")',
    "[a](http://x.example/\"onmouseover=\"alert(1))",
    "```<script>\nx\n```",
    "`<script>`",
    "<svg/onload=alert(1)>",
    "# <iframe src=http://evil.example>",
    "|<b onclick=x>|a|\n|-|-|\n|1|2|",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
])  # fmt: skip
def test_nothing_in_it_does_anything(text: str) -> None:
    shown = markdown(text)
    tags = re.findall(r"<(\w+)([^>]*)>", shown)
    assert {name for name, _ in tags} <= TAGS
    for _, attributes in tags:
        assert not re.search(r"\son\w+=|style=|src=", re.sub(r'"[^"]*"', '""', attributes))
        for address in re.findall(r'href="([^"]*)"', attributes):
            assert address.startswith(("http://", "https://", "mailto:")) and 'rel="noopener' in attributes
