"""What axe-core finds at fault with a page for people who cannot see it, or not well."""

from __future__ import annotations

from typing import Any

from tests import needs


def faults(page: Any, rules: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """(rule, first element) of every rule that the page breaks, of whatever weight; of these `rules` alone if any are
    named. Skips where axe-core is missing."""
    axe = needs.package("axe_playwright_python.sync_playwright", "axe-playwright-python").Axe()
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = {"type": "rule", "values": list(rules)}
    # axe is put in by the debugger, past the policy of the page
    found = axe.run(page, options=options).response["violations"]
    return [(v["id"], v["nodes"][0]["html"]) for v in found]
