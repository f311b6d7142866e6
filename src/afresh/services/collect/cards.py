"""The cards of a data set: DATACARD.md as the Hugging Face hub reads it, and croissant.json as ML Croissant defines it.

Both depend on nothing but the items and the manifest: equal data sets have equal cards.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from afresh.core.plural import counted
from afresh.core.safe_text import visible_line
from afresh.data.collected import ITEMS, SCHEMA, rows
from afresh.data.storage.files import replace_file
from afresh.services.collect.ledger import Ledger, percentages, summed
from afresh.services.collect.licences import NO_ADVICE, duties, hub_name, spdx_keys
from afresh.services.collect.record import UNKNOWN

CARD, CROISSANT = "DATACARD.md", "croissant.json"
MOST = 40  # sources, languages and rules that a card lists
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
TASKS = {  # of the hub, for the kinds of items
    "text": "text-generation",
    "code": "text-generation",
    "conversation": "text-generation",
    "image": "unconditional-image-generation",
    "audio": "text-to-audio",
}
COLUMNS = ["kind", "licence", "licence_from", "bytes", "person", "consent", "source", "language", "split", "caption"]
ABOUT = {  # of the columns of items.parquet, for croissant.json
    "id": "BLAKE3 of the kind and the content",
    "kind": "text, code, conversation, image, audio or music",
    "text": "the text of an item that is one; of a conversation, the JSON of its messages",
    "file": "the file in the folder, of an item that is one",
    "licence": "an expression of SPDX, or unknown",
    "licence_from": "who says so",
    "split": "train or validation",
    "cluster": "the id of the first item that this one is nearly equal to, or its own",
}


@dataclass
class CardFacts:
    """What the cards say of the items."""

    ledger: Ledger
    items: int = 0
    bytes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    sources: dict[str, tuple[int, set[str]]] = field(default_factory=dict)  # items, and licences with who states them
    captions: int = 0


def facts_of(folder: Path) -> CardFacts:
    """Count the items of a data set."""
    facts = CardFacts(Ledger((), 0))

    def counting() -> Any:
        for row in rows(folder, COLUMNS):
            facts.items += 1
            facts.bytes += row["bytes"]
            facts.kinds[row["kind"]] += 1
            facts.splits[row["split"]] += 1
            facts.captions += bool(row["caption"])
            if row["language"]:
                facts.languages[row["language"]] += 1
            count, said = facts.sources.get(row["source"], (0, set()))
            if len(said) < 8:
                said.add(row["licence"] + (f" ({row['licence_from']})" if row["licence_from"] else ""))
            facts.sources[row["source"]] = count + 1, said
            yield row

    facts.ledger = summed(counting())
    return facts


def write_cards(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write both cards. Raises UserError if there is no room."""
    facts = facts_of(folder)
    name = visible_line(folder.resolve().name) or "data"
    replace_file(folder / CARD, datacard(name, facts, manifest).encode("utf-8", "backslashreplace"))
    replace_file(folder / CROISSANT, json.dumps(croissant(folder, name, facts, manifest), indent=1).encode())


def datacard(name: str, facts: CardFacts, manifest: Mapping[str, Any]) -> str:
    """The page, with its metadata at the head. Each value there is JSON, which YAML contains."""
    licences = list(dict.fromkeys(hub_name(s.licence) for s in facts.ledger.shares))
    others = [s.licence for s in facts.ledger.shares if hub_name(s.licence) == "other"]
    two = [code for code, _ in facts.languages.most_common(MOST) if re.fullmatch(r"[a-z]{2,3}", code)]
    tasks = {("text-to-image" if k == "image" and facts.captions else TASKS[k]) for k in facts.kinds if k in TASKS}
    head: dict[str, Any] = {
        "pretty_name": name,
        "license": licences[0] if len(licences) == 1 else licences,
        "license_name": others[0].casefold() if licences == ["other"] and len(others) == 1 else None,
        "language": two,
        "size_categories": [size_category(facts.items)],
        "task_categories": sorted(tasks),
        "tags": ["afresh"],
    }
    yaml = "".join(f"{k}: {json.dumps(v, ensure_ascii=True)}\n" for k, v in head.items() if v)
    return f"---\n{yaml}---\n\n" + "\n".join(body(name, facts, manifest))


def size_category(items: int) -> str:
    """The hub's name of a number of items."""
    return next((name for most, name in SIZES if items < most), "n>10M")


def body(name: str, facts: CardFacts, manifest: Mapping[str, Any]) -> list[str]:
    """The lines of the page below its head."""
    kinds = ", ".join(f"{n:,} {k}" for k, n in sorted(facts.kinds.items()))
    splits = ", ".join(f"{n:,} {k}" for k, n in sorted(facts.splits.items()))
    lines = [
        f"# {name}",
        "",
        f"{counted(facts.items, 'item')} ({kinds}), {facts.bytes:,} bytes; {splits}.",
        "",
        f"Digest of the items: `{manifest.get('digest', '')}`.",
        "",
        "## Licences",
        "",
        f"By bytes: {facts.ledger}. {NO_ADVICE}",
        "",
        *markdown_table(
            ("licence", "items", "bytes", "asks for"),
            [
                (
                    s.licence,
                    f"{s.items:,}",
                    f"{s.bytes:,}",
                    "nobody knows" if s.licence == UNKNOWN else asked(s.licence),
                )
                for s in facts.ledger.shares
            ],
        ),
    ]
    if facts.ledger.without_consent:
        lines += [f"No consent is known for {counted(facts.ledger.without_consent, 'item')} that show persons.", ""]
    sources = sorted(facts.sources.items(), key=lambda pair: (-pair[1][0], pair[0]))
    lines += [
        "## Sources",
        "",
        *markdown_table(
            ("source", "items", "licences, and who states them"),
            [(source, f"{n:,}", "; ".join(sorted(said))) for source, (n, said) in sources[:MOST]],
        ),
    ]
    if facts.languages:
        lines += ["## Languages", "", percentages(dict(facts.languages.most_common(MOST))) + ".", ""]
    left = sorted(manifest.get("left_out", {}).items(), key=lambda pair: (-pair[1], pair[0]))
    if left:
        lines += ["## Left out", "", *markdown_table(("stage and rule", "items"), [(k, f"{n:,}") for k, n in left])]
    lines += [
        "## Use",
        "",
        f"    afresh train {name}",
        "",
        f"Items are rows of `{ITEMS}`; those that are files lie in `blobs`. Made by `afresh collect`.",
        "",
    ]
    return lines


def asked(licence: str) -> str:
    return ", ".join(duties(licence)) or "nothing that is known here"


def markdown_table(head: tuple[str, ...], table: list[tuple[str, ...]]) -> list[str]:
    """The lines of a table, in whose cells nothing is markup."""

    def cell(text: str) -> str:
        return re.sub(r"([\\`*_{}\[\]<>|#!~$&])", r"\\\1", visible_line(text)[:300])

    made = ["| " + " | ".join(map(cell, row)) + " |" for row in table]
    return ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *made, ""]


# --------------------------------------------------------------------------- Croissant

OTHERS: dict[str, Any] = {  # of the words of a croissant.json, which are not simply those of `cr`
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "sc": "https://schema.org/",
}
WORDS = (
    "@language @vocab citeAs column conformsTo cr rai data dataType dct equivalentProperty examples extract field "
    "fileProperty fileObject fileSet format includes isLiveDataset jsonPath key md5 parentField path recordSet "
    "references regex repeated replace samplingRate sc separator source subField transform"
)
CONTEXT: dict[str, Any] = {word: OTHERS.get(word, f"cr:{word}") for word in WORDS.split()}


def croissant_head(name: str, description: str, digest: str) -> dict[str, Any]:
    """What every croissant.json begins with: the vocabulary, the name, what it is, and its version by its digest."""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name or "data",
        "description": description,
        "version": f"1.0.0+{digest[:16]}",
    }


def licence_pages(licences: Iterable[str]) -> list[str]:
    """The pages of SPDX for the licences of its list that expressions name."""
    keys = sorted({key for licence in licences for key in spdx_keys(licence)})
    return [f"https://spdx.org/licenses/{k}.html" for k in keys if not k.startswith("LicenseRef-")]


def croissant(folder: Path, name: str, facts: CardFacts, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The data set in the vocabulary of ML Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec.html):
    items.parquet with a record a row."""
    file = folder / ITEMS
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    about = f"{counted(facts.items, 'item')} collected by afresh. Licences by bytes: {facts.ledger}."
    made = croissant_head(re.sub(r"[^\w.-]+", "-", name), about, manifest.get("digest", "")) | {
        "license": licence_pages(s.licence for s in facts.ledger.shares),
        "inLanguage": sorted(facts.languages),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": ITEMS,
                "name": ITEMS,
                "contentUrl": ITEMS,
                "contentSize": f"{file.stat().st_size} B",
                "encodingFormat": "application/x-parquet",
                "sha256": sha256,
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "items",
                "name": "items",
                "key": {"@id": "items/id"},
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"items/{column}",
                        "name": column,
                        "description": ABOUT.get(column, column.replace("_", " ")),
                        "dataType": "sc:Integer" if column == "bytes" else "sc:Text",
                        "source": {"fileObject": {"@id": ITEMS}, "extract": {"column": column}},
                    }
                    for column in SCHEMA.names
                    if column not in ("extra", "scores", "changed")
                ],
            }
        ],
    }
    return {k: v for k, v in made.items() if v != []}
