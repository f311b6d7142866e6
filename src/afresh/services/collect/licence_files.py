"""The licence of source files: identifiers of SPDX in their heads, or the text of the nearest LICENSE file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from afresh.services.collect.licences import normalised_or_unknown
from afresh.services.collect.record import UNKNOWN

NAME = re.compile(r"(licen[sc]e|copying|unlicense)([-_.].*)?", re.IGNORECASE)
HEAD = 4_000  # bytes in which an identifier is looked for, and a licence says which it is
IDENTIFIER = re.compile(rb"SPDX-License-Identifier:[ \t]*([\w.+() -]+)")

# Words that only one licence has, in the order in which they are looked for: some licences name others. A text of the
# GNU licences does not say whether later versions are meant, so that none are.
PHRASES: tuple[tuple[str, str], ...] = (
    ("gnu affero general public license version 3", "AGPL-3.0-only"),
    ("gnu lesser general public license version 3", "LGPL-3.0-only"),
    ("gnu lesser general public license version 2.1", "LGPL-2.1-only"),
    ("gnu general public license version 3", "GPL-3.0-only"),
    ("gnu general public license version 2", "GPL-2.0-only"),
    ("mozilla public license version 2.0", "MPL-2.0"),
    ("eclipse public license - v 2.0", "EPL-2.0"),
    ("apache license version 2.0", "Apache-2.0"),
    ("attribution-sharealike 4.0 international", "CC-BY-SA-4.0"),
    ("attribution-noncommercial 4.0 international", "CC-BY-NC-4.0"),
    ("attribution 4.0 international", "CC-BY-4.0"),
    ("cc0 1.0 universal", "CC0-1.0"),
    ("boost software license - version 1.0", "BSL-1.0"),
    ("this is free and unencumbered software released into the public domain", "Unlicense"),
    ("do what the fuck you want to public license", "WTFPL"),
    ("the origin of this software must not be misrepresented", "Zlib"),
    ("permission to use, copy, modify, and/or distribute this software for any purpose with or without fee", "ISC"),
    ("permission to use, copy, modify, and distribute this software for any purpose with or without fee", "ISC"),
)
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
