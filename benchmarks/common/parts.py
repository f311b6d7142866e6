"""A benchmark in parts, each of which can be measured alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.common.results import Row, save


def measure(name: str, parts: Mapping[str, Callable[[], list[Row]]], words: Sequence[str]) -> None:
    """Measure the parts that the words name, or all, and keep each under NAME_PART."""
    if unknown := set(words) - parts.keys():
        raise SystemExit(f"{name} measures {', '.join(parts)}; given: {', '.join(sorted(unknown))}.")
    for part in words or tuple(parts):
        made = parts[part]()
        for row in made:
            print(f"{row.benchmark}, {row.what}: {row.ours}; {row.theirs}", flush=True)
        save(f"{name}_{part}", made)
