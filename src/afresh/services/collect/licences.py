"""Licences of data: expressions of SPDX, what they ask for, and which licences of a model they agree with.

The table takes the cautious reading: that a model which is shared is an adaptation of what it has learnt from. Courts
and laws differ about that, and often allow more. It is not legal advice. Its sources:

- Creative Commons, Using CC-Licensed Works for AI Training, 2025:
  https://creativecommons.org/using-cc-licensed-works-for-ai-training-2/
- Creative Commons, Compatible Licenses:
  https://creativecommons.org/share-your-work/licensing-considerations/compatible-licenses/
- Free Software Foundation, Various Licenses and Comments about Them: https://www.gnu.org/licenses/license-list.html
- Open Data Commons, ODbL 1.0, section 4: https://opendatacommons.org/licenses/odbl/1-0/
- Linux Foundation, Community Data License Agreements: https://cdla.dev/

Source files state theirs by identifiers of SPDX in their heads, or by the text of the nearest LICENSE file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from afresh.core import UserError
from afresh.services.collect.record import UNKNOWN

T = TypeVar("T")
NO_ADVICE = "This is not legal advice."
LONGEST = 1_000  # characters of an expression
SAID_OF_NONE = frozenset({"", UNKNOWN, "noassertion", "none", "other"})  # which state no licence
SHORT = {"odc-by": "ODC-By-1.0", "odbl": "ODbL-1.0", "pddl": "PDDL-1.0", "cc0": "CC0-1.0", "apache2": "Apache-2.0"}


@dataclass(frozen=True)
class Terms:
    """What a licence asks of those who share what was made with the data, or with a model. models: the licences that a
    model may have; None if it may have any."""

    about: str
    attribution: bool = False
    share_alike: bool = False
    non_commercial: bool = False
    models: tuple[str, ...] | None = None
    own: bool = False  # whether what is made from a model has the terms of its licence, and no others

    @property
    def duties(self) -> tuple[str, ...]:
        """What is asked for, in words."""
        asked = ("attribution", self.attribution), ("share-alike", self.share_alike)
        bounds = ("non-commercial use", self.non_commercial), ("its own terms", self.own)
        return tuple(word for word, yes in (*asked, *bounds) if yes)


def _row(of: str, models: str | None = None, **stated: Any) -> tuple[str, Terms]:
    return of, Terms(**stated, models=None if models is None else tuple(models.split()))


# Patterns of whole identifiers of SPDX, and of licences of models, which SPDX does not have, by their names on the hub;
# the first that matches counts. A licence that none matches is not judged.
DATA = json.loads(Path(__file__).with_name("licences.json").read_text(encoding="utf-8"))
TABLE: tuple[tuple[str, Terms], ...] = tuple(_row(**row) for row in DATA["terms"])


@lru_cache(1)
def _spdx() -> Any:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


@lru_cache(1024)
def normalised(text: str) -> str:
    """A licence as an expression of SPDX in one form, such as "Apache-2.0 OR MIT", or "unknown".

    Raises UserError, naming the most similar licence, if it is none. One that SPDX does not list is written as
    "LicenseRef-" and a name.
    """
    if text.strip().casefold() in SAID_OF_NONE:
        return UNKNOWN
    return str(_parsed(text).simplify())


def normalised_or_unknown(text: str) -> str:
    """`normalised`, or "unknown" for what is not an SPDX licence."""
    try:
        return normalised(text)
    except UserError:
        return UNKNOWN
    except Exception:  # what its parser raises for what is not an expression
        return UNKNOWN


def _parsed(text: str) -> Any:
    from license_expression import ExpressionError, ExpressionParseError

    if len(text) > LONGEST:
        raise UserError(f"A licence of {len(text):,} characters is none of SPDX. Give its identifier.", "no_licence")
    given = SHORT.get(text.strip().casefold(), text.strip())
    for attempt in (given, re.sub(r"\s+", "-", given)):
        try:
            parsed = _spdx().parse(attempt)
            unknown = [k for k in _spdx().unknown_license_keys(parsed) if not re.fullmatch(r"LicenseRef-[\w.-]+", k)]
        except (ExpressionError, ExpressionParseError):
            continue
        if not unknown:
            return parsed
    near = get_close_matches(text.strip().casefold(), _names(), 1, 0.4)
    hint = f"Did you mean {_names()[near[0]]}? " if near else ""
    raise UserError(
        f"{text!r} is not an SPDX licence. {hint}Accepted: an identifier of https://spdx.org/licenses, several joined "
        "by AND and OR, LicenseRef- and a name of your own, or unknown.",
        "no_licence",
    )


@lru_cache(1)
def _names() -> dict[str, str]:
    keys = [key for key in _spdx().known_symbols if not key.startswith("LicenseRef-")]
    return {key.casefold(): key for key in keys}


def terms_of(licence: str) -> Terms | None:
    """What a single licence asks for; None for one that is not in the table."""
    return next((terms for pattern, terms in TABLE if re.fullmatch(pattern, licence)), None)


def listed() -> list[tuple[list[str], Terms]]:
    """The table with the identifiers of SPDX that each of its patterns is the first to match."""
    found: dict[int, list[str]] = {}
    for name in sorted(_names().values()):
        row = next((i for i, (pattern, _) in enumerate(TABLE) if re.fullmatch(pattern, name)), None)
        if row is not None:
            found.setdefault(row, []).append(name)
    return [(found[i], terms) for i, (_, terms) in enumerate(TABLE) if i in found]


def objection(licence: str, model: str) -> str | None:
    """Why data of a licence does not agree with the licence of a model, both as `normalised` writes them, or None.

    Of licences joined by OR, one that agrees is enough.
    """
    wanted = spdx_keys(model)

    def judged(key: str) -> str | None:
        terms = terms_of(key)
        if terms is None:
            return f"{key} is not in the table"
        models = (key,) if terms.own else terms.models
        if models is None or all(w in models for w in wanted):
            return None
        allowed = f"it allows {', '.join(models)}" if models else "it allows none"
        return f"{key}: {terms.about}; {allowed}"

    def either(found: Sequence[str | None]) -> str | None:
        return None if None in found else found[0]

    def both(found: Sequence[str | None]) -> str | None:
        return next((o for o in found if o is not None), None)

    return folded(licence, judged, either, both)


def models_under(licence: str) -> frozenset[str] | None:
    """The licences that a model may have which has learnt from data of a licence; None if it may have any. Of licences
    joined by OR those of each, by AND those that all have. One that is not in the table forbids none."""

    def allowed(key: str) -> frozenset[str] | None:
        terms = terms_of(key)
        if terms is None or (terms.models is None and not terms.own):
            return None
        return frozenset((key,) if terms.own else terms.models or ())

    def either(found: Sequence[frozenset[str] | None]) -> frozenset[str] | None:
        bounded = [a for a in found if a is not None]
        return frozenset().union(*bounded) if len(bounded) == len(found) else None

    def both(found: Sequence[frozenset[str] | None]) -> frozenset[str] | None:
        bounded = [a for a in found if a is not None]
        return frozenset.intersection(*bounded) if bounded else None

    return None if licence == UNKNOWN else folded(licence, allowed, either, both)


def folded(licence: str, of_one: Callable[[str], T], either: Callable[[list[T]], T], both: Callable[[list[T]], T]) -> T:
    """What is found of the single licences of an expression, joined where they are by OR (`either`) and by AND
    (`both`). A single one needs no library."""

    def value(node: Any) -> T:
        if args := [value(a) for a in getattr(node, "args", ())]:
            return either(args) if node.operator.strip() == "OR" else both(args)
        return of_one(node if isinstance(node, str) else str(getattr(node, "license_symbol", node).key))

    return value(_spdx().parse(licence) if " " in licence else licence)


def duties(licence: str) -> tuple[str, ...]:
    """What a licence asks for, in words: of licences joined by OR the fewest duties, of others all."""

    def asked(key: str) -> tuple[str, ...]:
        terms = terms_of(key)
        return () if terms is None else terms.duties

    def both(found: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(word for words in found for word in words))

    return () if licence == UNKNOWN else folded(licence, asked, lambda found: min(found, key=len), both)


def spdx_keys(licence: str) -> list[str]:
    """The single licences of an expression; none of "unknown"."""
    if licence == UNKNOWN or " " not in licence:
        return [] if licence == UNKNOWN else [licence]
    return [str(key) for key in _spdx().license_keys(licence)]


HUB = re.compile(  # https://huggingface.co/docs/hub/repositories-licenses
    r"afl-3\.0|apache-2\.0|artistic-2\.0|bsl-1\.0|bsd-[23]-clause|cc0-1\.0|cc-by-(2\.0|2\.5|3\.0|4\.0)|cc-by-sa-[34]\.0"
    r"|cc-by-nc-[234]\.0|cc-by-nc-sa-[234]\.0|cc-by-nd-4\.0|cc-by-nc-nd-[34]\.0|cdla-sharing-1\.0|cdla-permissive-[12]\.0"
    r"|epl-2\.0|eupl-1\.2|isc|mit|mpl-2\.0|ncsa|ofl-1\.1|postgresql|unlicense|wtfpl|zlib|a?gpl-3\.0|gpl-2\.0"
    r"|lgpl-(2\.1|3\.0)"
)
HUB_NAMES = {"ODC-By-1.0": "odc-by", "ODbL-1.0": "odbl", "PDDL-1.0": "pddl"}


SPELLED = (
    "Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause PostgreSQL Unlicense Zlib CDLA-Sharing-1.0 CDLA-Permissive-1.0 "
    "CDLA-Permissive-2.0"
)


def of_hub(name: str, other: str = "") -> str:
    """A licence as SPDX writes it by its name on the Hugging Face hub, or by that which a card gives to an "other" one:
    LicenseRef- and the name where SPDX has none, or "unknown". The versions of the GNU licences are taken alone."""
    name = name.strip().casefold()
    name = other.strip().casefold() if name == "other" else name
    if name in SAID_OF_NONE:
        return UNKNOWN
    if HUB.fullmatch(name):
        return next(
            (s for s in SPELLED.split() if s.casefold() == name), name.upper() + ("-only" if "gpl" in name else "")
        )
    return SHORT.get(name) or f"LicenseRef-{re.sub(r'[^a-z0-9.]+', '-', name.replace('+', '-plus')).strip('-')[:80]}"


def hub_name(licence: str) -> str:
    """A licence as the Hugging Face hub names it: "unknown", or "other" for one that it has no name for."""
    if licence == UNKNOWN:
        return UNKNOWN
    name = HUB_NAMES.get(licence, re.sub(r"-(only|or-later)$", "", licence).casefold())
    return name if licence in HUB_NAMES or HUB.fullmatch(name) else "other"


NAME = re.compile(r"(licen[sc]e|copying|unlicense)([-_.].*)?", re.IGNORECASE)
HEAD = 4_000  # bytes in which an identifier is looked for, and a licence says which it is
IDENTIFIER = re.compile(rb"SPDX-License-Identifier:[ \t]*([\w.+() -]+)")

# Words that only one licence has, in the order in which they are looked for: some licences name others. A text of the
# GNU licences does not say whether later versions are meant, so that none are.
PHRASES: tuple[tuple[str, str], ...] = tuple(DATA["phrases"].items())
MIT = "permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated"
NOTICE = "the above copyright notice and this permission notice"  # which MIT No Attribution does not have
BSD = "redistribution and use in source and binary forms, with or without modification, are permitted"
NO_NAMES = "neither the name"
ISC_NOTICE = "provided that the above copyright notice and this permission notice appear in all copies"


def licence_of_text(text: str) -> str:
    """The identifier of the licence whose text this is, or "unknown"."""
    words = " ".join(re.sub(r"[,*\"'`]|^\W*(?:#|//)", " ", text[:20_000].lower(), flags=re.MULTILINE).split())
    plain = re.sub(r"\s+", " ", words)
    head = plain[:HEAD]

    def has(phrase: str, where: str) -> bool:
        return re.sub(r"[,*\"'`]", "", phrase).replace("  ", " ") in where.replace("  ", " ")

    for phrase, licence in PHRASES:
        if has(phrase, head):
            return "0BSD" if licence == "ISC" and not has(ISC_NOTICE, plain) else licence
    if has(MIT, plain):
        return "MIT" if has(NOTICE, plain) else "MIT-0"
    if has(BSD, plain):
        return "BSD-3-Clause" if NO_NAMES in plain else "BSD-2-Clause"
    return UNKNOWN


def licence_in_head(content: bytes) -> str:
    """The expression of SPDX in the first lines of a file, or "unknown"."""
    found = IDENTIFIER.search(content[:HEAD])
    return normalised_or_unknown(found[1].decode().strip().removesuffix("-->").rstrip(" -")) if found else UNKNOWN


def is_licence(name: str) -> bool:
    """Whether a file is a licence by its name."""
    return NAME.fullmatch(PurePosixPath(name).name) is not None


def nearest(name: str, licences: Mapping[str, str]) -> tuple[str, str]:
    """The licence of a file by that of its folder or the nearest above (folder -> licence), and which folder."""
    for folder in PurePosixPath(name).parents:
        key = "" if str(folder) == "." else str(folder)
        if key in licences:
            return licences[key], key
    return UNKNOWN, ""
