"""What is planted for `masking` stands where it is said to, differs between the halves, and is counted rightly."""

from __future__ import annotations

from afresh.services.collect.rules.spans import Span
from benchmarks.collect.masking import Document, documents, is_true, lines_of, measured
from benchmarks.collect.masking_formats import PERSONAL, SECRETS


def test_there_are_enough_kinds_and_values_and_the_halves_have_none_in_common() -> None:
    for formats, least in ((SECRETS, 150), (PERSONAL, 150)):
        first, second = lines_of(formats, 0), lines_of(formats, 1)
        assert len({p.kind for p in first}) >= 30 and min(len(first), len(second)) >= least
        values = [{p.line[p.start : p.end] for p in part} for part in (first, second)]
        assert values[0].isdisjoint(values[1])
        assert [p.line for p in first] == [p.line for p in lines_of(formats, 0)]


def test_documents_hold_what_was_planted() -> None:
    planted = lines_of(SECRETS, 0)[:5]
    docs = documents(["one\ntwo\nthree\n"] * 9, False, planted, 1)
    held = [doc for doc in docs if doc.planted]
    assert len(docs) == 9 and len(held) == 5
    found = {doc.text[start:end] for doc in held for start, end, _ in doc.planted}
    assert found == {p.line[p.start : p.end] for p in planted}


def test_half_of_a_value_is_not_found_and_what_was_not_planted_is_false() -> None:
    doc = Document("a secret and more", True, ((2, 8, "kind"),))

    def find(text: str, code: bool) -> list[Span]:
        return [Span(2, 7, "secret"), Span(9, 12, "secret")]

    counts = measured([doc], find, "secrets")
    assert (counts.recall, counts.precision, counts.false) == (0.0, 0.5, ["and"])
    whole = measured([doc], lambda text, code: [Span(1, 9, "secret")], "secrets")
    assert (whole.recall, whole.precision) == (1.0, 1.0)


def test_what_stands_there_anyway_is_judged_by_its_form() -> None:
    assert is_true("personal", "email", "guido@python.org") and not is_true("personal", "email", "a@b.nothing")
    assert is_true("personal", "ip", "8.8.8.8") and not is_true("personal", "ip", "1.3.6.1")
    assert not is_true("secrets", "secret", "word")
