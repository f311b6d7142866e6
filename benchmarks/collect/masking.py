"""How much of what is planted the rules `secrets` and `personal` find, and how much of what they find is such.

Planted are secrets and personal data that a seeded generator makes by their formats, each in a line as people and
programs write it, in 10 MB of books, articles, stories and the standard library of Python. Rules are chosen on one half
of them and reported on the other, which has other values, in other lines where a kind has several, and other places.
`python -m benchmarks masking show` prints what is missed in the first half, and what is found beside it, to be judged.
"""

from __future__ import annotations

import gzip
import random
import re
import sysconfig
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from phonenumbers import SUPPORTED_REGIONS

from afresh.services.collect.rules.personal import find as find_personal
from afresh.services.collect.rules.secrets import find as find_secrets
from benchmarks.collect.masking_formats import PERSONAL, SECRETS, Format
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import data_folder
from benchmarks.common.results import Row, save

SIZE = 5_000_000  # characters of text, and of code
PIECE = 4_000  # characters of a document
EACH = 3  # of each format in a half


@dataclass(frozen=True)
class Planted:
    """A line with a value from `start` to `end`."""

    kind: str
    line: str
    start: int
    end: int


@dataclass(frozen=True)
class Document:
    """A text with what was planted: (start, end, kind)."""

    text: str
    code: bool
    planted: tuple[tuple[int, int, str], ...]


def texts(data: Path) -> Iterator[str]:
    """Books, articles and stories."""
    with zipfile.ZipFile(data / "gutenberg_books" / "books.zip") as archive:
        for name in archive.namelist():
            yield archive.read(name).decode("utf-8", "replace")
    for name in ("wikitext2/wikitext2_valid.txt.gz", "tinystories/tinystories_train.txt.gz"):
        with gzip.open(data / name, "rt", encoding="utf-8", errors="replace") as file:
            yield file.read(SIZE // 2)


def programs() -> Iterator[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        if "site-packages" not in path.parts:
            yield path.read_text("utf-8", "replace")


def pieces(sources: Iterator[str], size: int, seed: int) -> list[str]:
    """Pieces of whole lines, chosen at random, of so many characters together."""
    found = []
    for text in sources:
        lines, length = list[str](), 0
        for line in text.splitlines(keepends=True):
            lines.append(line)
            length += len(line)
            if length >= PIECE:
                found.append("".join(lines))
                lines, length = [], 0
    random.Random(seed).shuffle(found)
    out, total = [], 0
    for piece in found:
        if total >= size:
            break
        out.append(piece)
        total += len(piece)
    return out


def lines_of(formats: tuple[Format, ...], half: int) -> list[Planted]:
    """What is planted of these formats in a half: other values, in other lines."""
    made = []
    for number, form in enumerate(formats):
        rng = random.Random(f"{form.kind} {number} {half}")
        for i in range(EACH):
            value = form.make(rng)
            context = form.lines[(half + 2 * i) % len(form.lines)]
            before, _, after = context.partition("VALUE")
            made.append(Planted(form.kind, before + value + after, len(before), len(before) + len(value)))
    return made


def documents(bases: list[str], code: bool, planted: list[Planted], seed: int) -> list[Document]:
    """Documents with the lines at random places, at most one each."""
    rng = random.Random(seed)
    chosen = dict(zip(rng.sample(range(len(bases)), len(planted)), planted, strict=True))
    out = []
    for i, base in enumerate(bases):
        if i not in chosen:
            out.append(Document(base, code, ()))
            continue
        one, lines = chosen[i], base.splitlines(keepends=True)
        at = rng.randrange(len(lines))
        before = "".join(lines[:at])
        text = f"{before}{one.line}\n{''.join(lines[at:])}"
        out.append(Document(text, code, ((len(before) + one.start, len(before) + one.end, one.kind),)))
    return out


# --------------------------------------------------------------------------- judged by hand
# What stands in the ordinary text and code beside what was planted, and is such. Whose a thing is cannot be known, so
# that its form decides: the addresses in the tests and the documentation of Python count, those of example.org, too,
# and the internet addresses and numbers of telephones there. What does not is named here, with what it is instead.

TOPS = {"com", "org", "net", "edu", "gov", "info", "io", "name", "uk", "eu", "test"} | {
    region.lower() for region in SUPPORTED_REGIONS
}
NOT_MAIL = {
    "Pass@www.python.org": "a password and a host",
    "15975.17901.207240.414604@sgigritzmann1.mathematik": "half of an address, whose other half is the next string",
}
MAIL_OF_TESTS = ("@dom.ain", "@bar.baz.spam")  # addresses in headers of messages, of domains that there are not
NOT_IP = {
    "1.3.6.1": "an object identifier",
    "1.2.5.3": "a version of zlib",
    "2.6.21.1": "a version of Linux",
    "2.7.2.2": "a version",
}
SECRET: dict[str, str] = {"thing": "the password of http://evil:thing@example.com"}


def is_true(rule: str, what: str, value: str) -> bool:
    """Whether something that was not planted is what it was found as."""
    if rule == "secrets":
        return value in SECRET
    if what == "email":
        top = re.split(r"\.|\sdot\s", value.lower())[-1]
        told = top in TOPS or value.endswith(("]", *MAIL_OF_TESTS))
        return value not in NOT_MAIL and "%" not in value and told
    if what == "ip":
        return value not in NOT_IP
    return what == "phone" and value.replace("-", "") == "+31641044153"


# --------------------------------------------------------------------------- measuring


@dataclass
class Counts:
    """Of what was planted by kind, how many there are and how many were found whole; of what was found, how many are
    such, and the texts of those that are not."""

    planted: Counter[str]
    found: Counter[str]
    true: int
    false: list[str]

    @property
    def recall(self) -> float:
        return self.found.total() / self.planted.total()

    @property
    def precision(self) -> float:
        return self.true / max(1, self.true + len(self.false))


def measured(docs: list[Document], find: Callable[..., list], rule: str, show: bool = False) -> Counts:
    counts = Counts(Counter(), Counter(), 0, [])
    for doc in docs:
        spans = find(doc.text, doc.code) if rule == "secrets" else find(doc.text, language="" if doc.code else "en")
        for start, end, kind in doc.planted:
            counts.planted[kind] += 1
            covered = {i for s in spans for i in range(max(start, s.start), min(end, s.end))}
            counts.found[kind] += len(covered) == end - start
            if show and len(covered) < end - start:
                print("missed", kind, repr(doc.text[max(0, start - 30) : end + 10]), sep="\t")
        for span in spans:
            here = doc.text[max(0, span.start - 60) : span.end + 40]
            value = doc.text[span.start : span.end]
            if any(span.start < end and start < span.end for start, end, _ in doc.planted):
                counts.true += 1
            elif is_true(rule, span.what, value):
                counts.true += 1
                if show:
                    print("true", span.what, repr(value), repr(here), sep="\t")
            else:
                counts.false.append(value)
                if show:
                    print("false", span.what, repr(value), repr(here), sep="\t")
    return counts


def half(number: int, show: bool = False) -> dict[str, Counts]:
    """Both rules on a half of what is planted, in all of the text and code."""
    words = pieces(texts(data_folder()), SIZE, number)
    code = pieces(programs(), SIZE, number)
    found = {}
    for rule, formats, find in (("secrets", SECRETS, find_secrets), ("personal", PERSONAL, find_personal)):
        planted = lines_of(formats, number)
        random.Random(number).shuffle(planted)
        middle = len(planted) // 2
        docs = documents(words, False, planted[:middle], number) + documents(code, True, planted[middle:], number + 9)
        found[rule] = measured(docs, find, rule, show)
    return found


def rows(found: dict[str, Counts]) -> list[Row]:
    made = []
    for rule, goal in (("secrets", 0.95), ("personal", 0.85)):
        counts = found[rule]
        kinds = len(counts.planted)
        planted = f"{counts.planted.total()} planted, of {kinds} kinds, the half that no rule was chosen on"
        beside = f"{len(counts.false)} of {counts.true + len(counts.false)} that it found are none"
        for what, share, at_least, n in (
            ("recall", counts.recall, goal, planted),
            ("precision", counts.precision, 0.98, f"10 MB of text and code; {beside}"),
        ):
            name = f"{what} of the rule {rule}"
            made.append(Row("masking", name, f"{share:.3f}", goal=f"{at_least}", reached=share >= at_least, n=n))
    return made


def main(*words: str) -> None:
    show = words == ("show",)
    found = half(0 if show else 1, show)
    for row in rows(found):
        print(row.what, row.ours, row.n, sep=": ", flush=True)
    if not show:
        save("masking", rows(found))


BENCHMARKS = (Benchmark("masking", ("gutenberg_books", "tinystories", "wikitext2"), 2, main),)
