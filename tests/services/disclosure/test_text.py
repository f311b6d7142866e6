"""The label of texts."""

from __future__ import annotations

from afresh.services.disclosure.label import NOTICE, labelled_text


def test_a_plain_sentence_comes_before_a_text_that_stays_as_it_is() -> None:
    assert labelled_text("Once upon\n a time") == f"{NOTICE}\n\nOnce upon\n a time"
    assert labelled_text("").startswith(NOTICE)
