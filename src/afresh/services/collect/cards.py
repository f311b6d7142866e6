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
from afresh.engine.pages.render import render_page
from afresh.services.collect.ledger import Ledger, percentages, summed
from afresh.services.collect.licences import NO_ADVICE, duties, hub_name, spdx_keys
from afresh.services.collect.record import UNKNOWN

CARD, CROISSANT = "DATACARD.md", "croissant.json"
MOST = 40  # sources, languages and rules that a card lists
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
TASKS = {  # of the hub, for the kinds of items
    **dict.fromkeys(("text", "code", "conversation"), "text-generation"),
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
    head = {
        "pretty_name": name,
        "license": licences[0] if len(licences) == 1 else licences,
        "license_name": others[0].casefold() if licences == ["other"] and len(others) == 1 else None,
        "language": two,
        "size_categories": [size_category(facts.items)],
        "task_categories": sorted(tasks),
        "tags": ["afresh"],
    }
    return render_page(
        Path(__file__).with_name("templates") / "datacard.md.j2",
        head=head,
        name=name,
        facts=facts,
        digest=manifest.get("digest", ""),
        sources=sorted(facts.sources.items(), key=lambda pair: (-pair[1][0], pair[0]))[:MOST],
        languages=percentages(dict(facts.languages.most_common(MOST))),
        left_out=sorted(manifest.get("left_out", {}).items(), key=lambda pair: (-pair[1], pair[0])),
        no_advice=NO_ADVICE,
        unknown=UNKNOWN,
        items=ITEMS,
        json=json.dumps,
        number="{:,}".format,
        **{f.__name__: f for f in (asked, cell, counted)},
    )


def size_category(items: int) -> str:
    """The hub's name of a number of items."""
    return next((name for most, name in SIZES if items < most), "n>10M")


def asked(licence: str) -> str:
    return ", ".join(duties(licence)) or "nothing that is known here"


def cell(text: str) -> str:
    """A cell of a table, in which nothing is markup."""
    return re.sub(r"([\\`*_{}\[\]<>|#!~$&])", r"\\\1", visible_line(text)[:300])


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


def croissant_document(name: str, description: str, digest: str, **more: Any) -> dict[str, Any]:
    """A croissant.json without what is empty: the vocabulary, the name, what it is, its version by its digest, and
    more."""
    head = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": re.sub(r"[^\w.-]+", "-", name).strip("-.") or "data",
        "description": description,
        "version": f"1.0.0+{digest[:16]}",
    }
    return {key: value for key, value in {**head, **more}.items() if value}


def file_object(id: str, file: Path, url: str, encoding: str, sha256: str) -> dict[str, Any]:
    """A file of a data set."""
    head = {"@type": "cr:FileObject", "@id": id, "name": id, "contentUrl": url}
    return {**head, "contentSize": f"{file.stat().st_size} B", "encodingFormat": encoding, "sha256": sha256}


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
    fields = [
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
    ]
    records = {"@type": "cr:RecordSet", "@id": "items", "name": "items", "key": {"@id": "items/id"}, "field": fields}
    return croissant_document(
        name,
        about,
        manifest.get("digest", ""),
        license=licence_pages(s.licence for s in facts.ledger.shares),
        inLanguage=sorted(facts.languages),
        distribution=[file_object(ITEMS, file, ITEMS, "application/x-parquet", sha256)],
        recordSet=[records],
    )
