"""What the README and docs/benchmarks.md say was measured is what results.json holds."""

from __future__ import annotations

from benchmarks.table import DOC, README, latest, load, page, with_block


def test_the_pages_show_what_was_measured() -> None:
    found = load()
    assert found, "run `make bench`"
    assert DOC.read_text() == page(found)
    readme = README.read_text()
    assert with_block(readme, latest(found)) == readme
