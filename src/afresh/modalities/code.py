"""Source code: a folder of programs to a stream of tokens, with the language as a condition, and back to files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field, field_validator

from afresh.core import Corpus, Item, Refused, Sniff, UserError
from afresh.data.files import FileError, decode_text, matching_pattern, read_bytes, walk
from afresh.data.text.documents import (
    DocumentEncoder,
    DocumentOptions,
    fit_documents,
    limit_bytes,
    load_documents,
    utf8_size,
)
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
    """How source code is read. A language is left out when it has less than `min_share` of the bytes.

    `languages` keeps exactly those, by name, whatever their share. `fim_rate`: the share of documents in training
    windows that are shown as prefix, suffix and middle, for completion at a cursor (afresh complete).
    """

    languages: tuple[str, ...] = ()
    min_share: float = Field(0.01, ge=0, lt=1)
    fim_rate: float = Field(0.5, ge=0, le=1)

    @field_validator("languages")
    @classmethod
    def _are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - LANGUAGES)
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(LANGUAGES))}")
        return value


class CodeModality:
    """A folder of source files (or one): licences, generated, minified, vendored and binary files left out."""

    name = "code"
    kind = TEXT
    options = CodeOptions

    def sniff(self, path: Path) -> Sniff:
        """By the share of programs among the files that are not vendored; markup alone is not code."""
        if not path.exists():
            return Sniff(0.0, f"{path} does not exist")
        if path.is_file():
            language = language_of(path.name)
            if language is None:
                return Sniff(0.0, f"{path.suffix or 'no suffix'} is no source code that is known")
            return Sniff(0.95 if language in PROGRAMS else 0.3, f"the name of a {language} file")
        names = [f.name for f in walk(path, lambda n, folder: exclusion_reason(n, True) if folder else None)[0]]
        programs = sum(language_of(n) in PROGRAMS for n in names)
        return Sniff(programs / len(names) if names else 0.0, f"{programs:,} of {len(names):,} files are programs")

    def read(self, path: Path, options: CodeOptions) -> Corpus:
        """One Item a file, its language as the label "language" when there are several.

        Raises UserError when no source file is left.
        """

        def leave_out(name: str, folder: bool) -> str | None:
            pattern = matching_pattern(name, options.exclude)
            if pattern is not None:
                return f"excluded by {pattern!r}"
            reason = exclusion_reason(name, folder)
            if reason is None and not folder and options.languages and language_of(name) not in options.languages:
                return f"{language_of(name)} is not among the languages asked for"
            return reason

        files, refused = walk(path, leave_out)
        items: list[Item] = []
        for file in files:
            try:
                text = decode_text(read_bytes(file, options.max_file_mb))
                reason = generated_reason(text)
            except FileError as error:
                reason = str(error)
            if reason is not None:
                refused.append(Refused(file.name, reason))
            else:
                items.append(Item(text, file.name, {"language": language_of(file.name) or "unknown"}))
        if not items:
            why = "".join(f"\n  {r.source}: {r.reason}" for r in refused[:5])
            raise UserError(f"There is no source code to learn from in {path}.{why}")
        if not options.languages:
            items, rare = _common(items, options.min_share)
            refused += rare
        items, notes = limit_bytes(items, options.max_bytes)
        counts = Counter(i.labels["language"] for i in items)
        said = ", ".join(f"{language} {n:,}" for language, n in counts.most_common())
        return Corpus(items, refused, [f"files by language: {said}", *notes])

    def fit(self, items: Sequence[Item], options: CodeOptions) -> DocumentEncoder:
        """Tokenizer, with the marks of fill-in-the-middle, and the language as a condition when there are several."""
        rate = options.fim_rate if options.context >= SHORTEST + EXTRA else 0.0
        tokenizer, conds, notes = fit_documents(items, options, MARKS if rate else ())
        if rate < options.fim_rate:
            notes = (*notes, f"no fill-in-the-middle: it needs a context of {SHORTEST + EXTRA} tokens or more")
        languages = tuple(sorted({i.labels["language"] for i in items if "language" in i.labels}))
        suffix = SUFFIX_OF.get(languages[0], ".txt") if len(languages) == 1 else ".txt"
        made = DocumentEncoder(tokenizer, options.context, conds, checker(languages), suffix, languages, notes)
        return replace(made, fim_rate=rate)

    def load(self, folder: Path) -> DocumentEncoder:
        return load_documents(folder, checker)


MODALITY = CodeModality()


def _common(items: Sequence[Item], min_share: float) -> tuple[list[Item], list[Refused]]:
    """Items of languages that have at least `min_share` of all bytes: less is too little to learn."""
    size: Counter[str] = Counter()
    for item in items:
        size[item.labels["language"]] += utf8_size(item.value)
    least = min_share * size.total()
    kept = [i for i in items if size[i.labels["language"]] >= least]
    rare = [i for i in items if size[i.labels["language"]] < least]
    said = f"is under {min_share:.1%} of the code (option min_share): name it in the option languages to keep it"
    return kept, [Refused(i.source, f"{i.labels['language']} {said}") for i in rare]
