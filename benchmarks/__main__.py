"""Runs benchmarks.

    python -m benchmarks                     # which there are: minutes on two cores, and what each needs
    python -m benchmarks NAME [WORD ...]     # one of them; most tell with --help what they take
    python -m benchmarks all                 # those that need nothing by hand and whose data are in AFRESH_DATA

Data sets are looked for in the folder that AFRESH_DATA names.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from itertools import groupby

from benchmarks.common.benchmark import Entry, entries, subject_title
from benchmarks.common.folders import has_data


def listing(known: Sequence[Entry]) -> str:
    """The benchmarks by subject."""
    lines = [(__doc__ or "").rstrip()]
    for subject, group in groupby(known, lambda e: e.subject):
        lines += ["", f"{subject_title(subject)}"]
        for e in group:
            lines.append(f"  {e.name:22}{e.minutes:>7,.0f} min  {', '.join(e.needs)}")
    return "\n".join(lines)


def missing(entry: Entry) -> list[str]:
    """The data sets that are not there."""
    return [n for n in entry.data if not has_data(n)]


def run(entry: Entry, words: Sequence[str]) -> None:
    if (absent := missing(entry)) and not {"-h", "--help"} & set(words):
        sys.exit(f"{entry.name} needs {', '.join(absent)} in the folder that AFRESH_DATA names.")
    function = entry.load().run
    try:
        inspect.signature(function).bind(*words)
    except TypeError:
        sys.exit(f"{entry.name} takes {' '.join(entry.words) or 'no words'}; given: {' '.join(words) or 'nothing'}.")
    function(*words)


def main(words: Sequence[str]) -> None:
    known = entries()
    if not words or words[0] in ("-h", "--help"):
        print(listing(known))
    elif words == ["all"]:
        for entry in known:
            if why := (*entry.words, *missing(entry)):
                print(f"{entry.name}: left out, needs {', '.join(why)}", file=sys.stderr)
            else:
                print(f"== {entry.name}", flush=True)
                run(entry, ())
    elif found := [e for e in known if e.name == words[0]]:
        run(found[0], words[1:])
    else:
        sys.exit(f"No benchmark {words[0]!r}. Choose from: {', '.join(e.name for e in known)}.")


if __name__ == "__main__":
    main(sys.argv[1:])
