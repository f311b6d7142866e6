"""Source code: a folder of programs to a stream of tokens with the language as a condition, and back to files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field, field_validator

from afresh.core import Corpus, Item, Refused, Sniff, UserError
from afresh.data.files import MB, DataFile, FileError, matching_pattern, read_bytes, walk
from afresh.data.refusals import refusal_lines
from afresh.data.text.documents import (
    DocumentEncoder,
    DocumentOptions,
    Room,
    fit_documents,
    limit_bytes,
    load_documents,
    utf8_size,
)
from afresh.data.text.encodings import TextDecoder, Waiting
from afresh.data.text.fim import EXTRA, MARKS, SHORTEST
from afresh.data.text.kind import TEXT
from afresh.data.text.languages import (
    LANGUAGES,
    PROGRAMS,
    SUFFIX_OF,
    checker,
    exclusion_reason,
    generated_reason,
    language_of,
)


class CodeOptions(DocumentOptions):
    """How source code is read."""

    languages: tuple[str, ...] = Field(
        (), description="languages to use, by name, whatever their share; empty: all with at least min_share"
    )
    min_share: float = Field(0.01, ge=0, lt=1, description="languages with a smaller share of all bytes are left out")
    fim_rate: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of documents in training windows that are rearranged as prefix, suffix and middle, so that "
        "a model can complete at a cursor",
    )

    @field_validator("languages")
    @classmethod
    def _are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - LANGUAGES)
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(LANGUAGES))}")
        return value


class CodeModality:
    """A folder of source files, or a single one, without licences, generated, minified, vendored and binary files."""

    name = "code"
    kind = TEXT
    options = CodeOptions

    def sniff(self, path: Path) -> Sniff:
        """Judges by the share of programs among the files that are not vendored. Markup alone is not code."""
        if path.is_file():
            language = language_of(path.name)
            if language is None:
                return Sniff(0.0, f"{path.suffix or 'no suffix'} is not a known kind of source code")
            return Sniff(0.95 if language in PROGRAMS else 0.3, f"the name of a {language} file")
        names = [f.name for f in walk(path, lambda n, folder: exclusion_reason(n, True) if folder else None)[0]]
        programs = sum(language_of(n) in PROGRAMS for n in names)
        return Sniff(programs / len(names) if names else 0.0, f"{programs:,} of {len(names):,} files are programs")

    def read(self, path: Path, options: CodeOptions) -> Corpus:
        """One Item per file, with its language as the label "language".

        Raises UserError without a usable source file.
        """

        def leave_out(name: str, folder: bool) -> str | None:
            pattern = matching_pattern(name, options.exclude)
            if pattern is not None:
                return f"excluded by {pattern!r}"
            reason = exclusion_reason(name, folder)
            if reason is None and not folder and options.languages and language_of(name) not in options.languages:
                return f"{language_of(name)} is not among the requested languages"
            return reason

        files, refused = walk(path, leave_out)
        Room(options).check(sum(f.size for f in files if f.size <= options.max_file_mb * MB))
        decoder = TextDecoder(options.encoding, together=True)
        read: dict[str, Item | Refused] = {file.name: Refused(file.name, "") for file in files}  # in their order
        waiting = []
        for file in files:
            try:
                read[file.name] = _item(file, decoder, options)
            except Waiting:
                waiting.append(file)
        decoder.decide()
        read |= {file.name: _item(file, decoder, options) for file in waiting}
        items = [i for i in read.values() if isinstance(i, Item)]
        refused += [r for r in read.values() if isinstance(r, Refused)]
        if not items:
            raise UserError(f"No usable source code in {path}.", lines=refusal_lines(refused))
        if not options.languages:
            items, rare = _common(items, options.min_share)
            refused += rare
        items, notes = limit_bytes(items, options.max_bytes)
        counts = Counter(i.labels["language"] for i in items)
        summary = ", ".join(f"{language} {n:,}" for language, n in counts.most_common())
        return Corpus(items, refused, [f"files by language: {summary}", *decoder.notes(), *notes])

    def fit(self, items: Sequence[Item], options: CodeOptions) -> DocumentEncoder:
        """Fit the tokenizer, with the special tokens of fill-in-the-middle, and the language as a condition if there
        are several."""
        rate = options.fim_rate if options.context >= SHORTEST + EXTRA else 0.0
        tokenizer, conds, notes = fit_documents(items, options, MARKS if rate else ())
        if rate < options.fim_rate:
            notes = (*notes, f"no fill-in-the-middle: it requires a context of at least {SHORTEST + EXTRA} tokens")
        languages = tuple(sorted({i.labels["language"] for i in items if "language" in i.labels}))
        suffix = SUFFIX_OF.get(languages[0], ".txt") if len(languages) == 1 else ".txt"
        return DocumentEncoder(
            tokenizer=tokenizer,
            context=options.context,
            conds=conds,
            check=checker(languages),
            suffix=suffix,
            languages=languages,
            notes=notes,
            fim_rate=rate,
        )

    def load(self, folder: Path) -> DocumentEncoder:
        encoder = load_documents(folder)
        return replace(encoder, check=checker(encoder.languages))


MODALITY = CodeModality()


def _item(file: DataFile, decoder: TextDecoder, options: CodeOptions) -> Item | Refused:
    """A source file, or why it is not used. Raises Waiting if its encoding is not known yet."""
    try:
        text = decoder.decode(file.name, read_bytes(file, options.max_file_mb))
        reason = generated_reason(text)
    except FileError as error:
        reason = str(error)
    if reason is not None:
        return Refused(file.name, reason)
    return Item(text, file.name, {"language": language_of(file.name) or "unknown"})


def _common(items: Sequence[Item], min_share: float) -> tuple[list[Item], list[Refused]]:
    """Items of languages that have at least `min_share` of all bytes, and the other items, which are refused."""
    size: Counter[str] = Counter()
    for item in items:
        size[item.labels["language"]] += utf8_size(item.value)
    least = min_share * size.total()
    common = [i for i in items if size[i.labels["language"]] >= least]
    rare = [i for i in items if size[i.labels["language"]] < least]
    reason = f"is less than {min_share:.1%} of the code (`data.min_share`); `data.languages` can name it to include it"
    return common, [Refused(i.source, f"{i.labels['language']} {reason}") for i in rare]
