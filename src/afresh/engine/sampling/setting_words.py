"""Settings of sampling in words: the field's term for each, and a plain sentence on what it does.

The studio, the command line, the description of the server and the documentation take them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SettingWords:
    """The term, and what the setting does."""

    term: str
    help: str


WORDS: Mapping[str, SettingWords] = {
    "guidance": SettingWords(
        "Guidance", "How closely samples follow what is asked for: 1 = as learnt; higher is closer, with less variety."
    ),
    "temperature": SettingWords(
        "Temperature", "How much chance decides: 0 = the likeliest each time, 1 = as varied as the data."
    ),
    "truncation": SettingWords("Truncation", "How far samples may be from the average: 1 = as learnt."),
    "length": SettingWords("Length", "Tokens that are written at most; one is a word or a piece of one."),
    "steps": SettingWords("Steps", "How often the network is asked: more take longer and are often more exact."),
    "top_p": SettingWords("Top-p", "Only the likeliest tokens that make up this share: 1 = all."),
    "top_k": SettingWords("Top-k", "Only so many of the likeliest tokens."),
    "min_p": SettingWords("Min-p", "Only tokens at least so likely, compared with the likeliest: 0 = all."),
    "frequency_penalty": SettingWords(
        "Frequency penalty", "How much less likely a token becomes each time it was written: 0 = not at all."
    ),
}
