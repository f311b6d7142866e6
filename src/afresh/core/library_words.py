"""Messages of libraries in plain words: of pydantic, which checks settings, and of the operating system."""

from __future__ import annotations

import re

from afresh.core.plural import singular

NAME = r"(?:'[^'\n]*'|\"[^\"\n]*\")"
# [Errno 13] Permission denied: 'a.txt', as Python writes an OSError. The name stands in the rest of the message.
ERRNO = re.compile(rf"\[Errno -?\d+\] ([^:.;,)\n]+)(?:: {NAME}(?: -> {NAME})?)?")
# What pydantic writes, and what takes its place; the more specific patterns come first.
PYDANTIC = {
    r"\d+ validation errors? for \w+\s*": "",
    r"\s*For further information visit https://errors\.pydantic\.dev/\S*": "",
    r"\s*\[type=\w+, input_value=.*?, input_type=\w+\]": "",
    r"\b(?:Value error|Assertion failed), ": "",
    r", unable to (?:parse string as an? \w+|interpret input)": "",
    r"\bInput should be a (?:valid )?dictionary(?: or (?:\w+ )+of \w+)?": "it should be an object",
    r"\bInput should be a valid string": "it should be a text",
    r"\bInput should be a valid boolean": "it should be true or false",
    r"\bInput should be a valid integer(?:, got a number with a fractional part)?": "it should be a whole number",
    r"\bInput should be a valid (\w+)": r"it should be a \1",
    r"\bInput should be greater than or equal to ": "it should be at least ",
    r"\bInput should be less than or equal to ": "it should be at most ",
    r"\bInput should be greater than ": "it should be above ",
    r"\bInput should be less than ": "it should be below ",
    r"\bInput (should|is) ": r"it \1 ",
    r"\bField required\b": "it is missing",
    r"\b(?:Extra inputs are not permitted|Unexpected keyword argument)\b": "it is not known here",
}
PATTERNS = tuple((re.compile(pattern), words) for pattern, words in PYDANTIC.items())


def in_plain_words(text: str) -> str:
    """The message without what only programmers know: numbers of errors, and names of classes of a library; counts of
    1 have a noun in the singular."""
    text = ERRNO.sub(lambda found: found[1][:1].lower() + found[1][1:], text)
    for pattern, words in PATTERNS:
        text = pattern.sub(words, text)
    return singular(text)
