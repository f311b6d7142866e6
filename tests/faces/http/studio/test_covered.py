"""No control of a page is covered by another part of it, on a small desk, a large one and a phone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faces.http.studio.test_browser import PAGES

SCREENS = ((1280, 900), (1440, 900), (390, 844))
# What is focused, as by the Tab key, must be what a click on its middle reaches: itself, a part of it, or its label.
COVERED = """async () => {
  const out = [];
  const parts = 'a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex="0"]';
  for (const part of document.querySelectorAll(parts)) {
    if (part.disabled || part.closest('[inert], [hidden]') || part.matches('.skip')) continue;
    if (!part.checkVisibility({ visibilityProperty: true })) continue;
    part.focus();
    await new Promise((done) => requestAnimationFrame(done));
    const label = part.labels?.[0];
    const target = getComputedStyle(part).opacity === '0' && label ? label : part;
    const box = target.getClientRects()[0];
    if (!box || box.width < 2) continue;
    const [x, y] = [box.left + box.width / 2, box.top + Math.min(box.height, 40) / 2];
    const hit = document.elementFromPoint(x, y);
    if (!hit || !(target.contains(hit) || hit.closest('label')?.contains(part)))
      out.push(`${part.tagName} ${part.id || part.name || part.textContent.trim().slice(0, 30)} at ${Math.round(x)}, ` +
        `${Math.round(y)} is under ${hit ? hit.tagName + '.' + hit.className : 'the edge'}`);
  }
  return out;
}"""


@pytest.mark.parametrize("screen", SCREENS, ids=lambda s: f"{s[0]}x{s[1]}")
def test_no_control_is_covered(open_page: Callable[..., Any], screen: tuple[int, int]) -> None:
    page = open_page("/studio/create?run=digits", viewport={"width": screen[0], "height": screen[1]})
    page.click("#make")
    page.wait_for_selector("#results .work >> nth=3")
    found = {}
    for path in ["as it is made", *PAGES, "verb/score?run=stories", "verb/propose?run=digits"]:
        if path != "as it is made":
            page.goto(f"/studio/{path}")
        page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        if covered := page.evaluate(COVERED):
            found[path] = covered
    assert not found
