"""Refusals are summed by kind and reason, and what a person can change stands first."""

from __future__ import annotations

from afresh.core import Refused
from afresh.data.refusals import describe_refusals, refusal_lines, sum_refusals

INSTALL = "a Word document is read with the extra documents: pip install 'afresh[documents]'"
REFUSED = [
    *(Refused(f".hidden{i}", "hidden (its name begins with a dot)") for i in range(30)),
    *(Refused(f"letters/{i:02}.docx", INSTALL) for i in range(14)),
    Refused("b.png", "damaged or truncated: broken data stream", damaged=True),
    Refused("a.png", "damaged or truncated: image file is truncated (9 bytes not processed)", damaged=True),
    *(Refused(f"q.jsonl, row {i}", f"not JSON: Expecting value at column {i}") for i in range(1, 4)),
    *(Refused(f"{i}.txt", f"invalid UTF-8 at byte {i:,} (line 1, 0xe{i}): convert it") for i in (1, 2)),
    Refused("build/", "not a folder of the project"),
]


def test_each_kind_with_each_reason_is_one_group_and_what_matters_comes_first() -> None:
    groups = [(g.count, g.kind, g.reason) for g in sum_refusals(REFUSED)]
    assert groups == [
        (14, ".docx", INSTALL),
        (2, ".png", "damaged or truncated"),
        (3, "rows", "not JSON"),
        (2, ".txt", "invalid UTF-8 at byte 1 (line 1, 0xe1)"),
        (1, "folders", "not a folder of the project"),
        (30, "files", "hidden (its name begins with a dot)"),
    ]


def test_as_a_sentence_and_as_lines() -> None:
    sentence = describe_refusals(REFUSED[:-1])
    assert sentence.startswith(f"14 .docx: {INSTALL}; 2 .png: damaged or truncated; 3 rows: not JSON; ")
    lines = refusal_lines(REFUSED, 2)
    assert lines[1] == "2 .png: damaged or truncated (b.png, a.png)"
    assert lines[0].endswith("letters/00.docx, letters/01.docx, letters/02.docx, ...)")
    assert lines[2:] == ["and 36 more for other reasons"]
    assert refusal_lines(REFUSED[:1]) == [".hidden0: hidden (its name begins with a dot)"]
    assert refusal_lines([]) == []
