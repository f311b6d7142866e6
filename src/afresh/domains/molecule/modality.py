"""Molecules: SMILES and structures, with numbers that were measured of them, to records of tokens and back."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from afresh.core import Corpus, Item, Omission, Refused, Sniff, Unsupported, UserError
from afresh.core.plural import counted
from afresh.data.conditions import fit_conditions
from afresh.data.encoder_file import load_encoder
from afresh.data.files import DataFile, FileError, describes_data, open_plain, suffix_of, walk, zip_names
from afresh.data.refusals import refusal_lines
from afresh.data.tables import SUFFIXES
from afresh.data.tables.roles import lowered
from afresh.data.tables.rows import read_head
from afresh.domains.molecule.chem import MoleculeError
from afresh.domains.molecule.encoder import MoleculeEncoder
from afresh.domains.molecule.kind import MOLECULE
from afresh.domains.molecule.properties import Property
from afresh.domains.molecule.reading import LISTS, PLAIN, READ, STRUCTURES, are_molecules, measured, read_files
from afresh.domains.molecule.standard import Mixtures, Standard, StandardMolecule, describe_traits, read_all
from afresh.domains.molecule.writing import WRITINGS, Form, vocabulary

HEAD, ROWS = 1 << 18, 500  # bytes and lines that are looked at
LINES = 20  # fewer lines are not judged


def recognise(path: Path) -> Sniff:
    """How certain it is that a path holds molecules, and why."""
    if path.is_file() and path.suffix.lower() == ".zip":
        return _by_names([n for n in zip_names(path) if not describes_data(n)])
    files = walk(path)[0]
    files = [f for f in files if not describes_data(f.name)] or files
    named = _by_names([f.name for f in files])
    if named.score or not files:
        return named
    tables = [f for f in files if suffix_of(f.name) in SUFFIXES]
    lists = [f for f in files if suffix_of(f.name) == PLAIN]
    readable = [*tables, *(lists if path.is_file() else ())]
    seen = _seen(readable[0]) if 2 * len(readable) > len(files) else ""
    if seen:
        return Sniff(0.95, seen, columns=1)
    if len(lists) == len(files) and _seen(lists[0]):
        advice = "To learn its lines as text all the same: `modality=text` and `data.document=line`"
        return Sniff(0.0, "lists", Unsupported("molecules", "its lines are SMILES", advice), columns=1)
    return named


def _by_names(names: list[str]) -> Sniff:
    ours = sum(suffix_of(n) in LISTS | STRUCTURES for n in names)
    return Sniff(ours / len(names) if names else 0.0, f"{ours:,} of {len(names):,} files are .smi or .sdf")


def _seen(file: DataFile) -> str:
    """Where the molecules of a file are; empty if it has none."""
    try:
        if suffix_of(file.name) != PLAIN:
            table = read_head(file)
            named = (c for c in table.columns if lowered(c).endswith(("smiles", "selfies", "inchi")))
            alike = (c for c in table.texts if len(v := table.texts_of(c)) >= LINES and are_molecules(v))
            column = next(named, None) or next(alike, None)
            return f"column {column}" if column is not None and table.rows else ""
        with open_plain(file) as stream:
            head = stream.read(HEAD)
    except (FileError, OSError, EOFError, zlib.error):  # reading it reports what is wrong
        return ""
    lines = head[: head.rfind(b"\n") + 1 or len(head)].decode("utf-8", "replace").split("\n")
    lines = [line.strip() for line in lines if line.strip()][:ROWS]
    return "its lines are SMILES" if len(lines) >= LINES and are_molecules(lines) else ""


FEW = 50_000  # molecules up to which random writings are learnt; fragments are learnt in any order, however many
ROOM = 1.25  # of a window, in lengths of the longest molecule: other writings of it are longer


class MoleculeOptions(BaseModel):
    """How molecules are read and written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    smiles_column: str | None = Field(None, description="the column of SMILES; None: by its name or its values")
    numbers: tuple[str, ...] | None = Field(
        None, description="the columns of numbers to learn as conditions; None: all but identifiers"
    )
    properties: tuple[Property, ...] = Field(
        (), description="numbers that RDKit computes, to learn as conditions, as logP,QED,weight,SA"
    )
    form: Form = Field("smiles", description="how molecules are written: smiles, selfies, or smiles by fragments")
    randomise: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of molecules that are written differently in training; None: by their number",
    )
    mixtures: Mixtures = Field("keep", description="of salts and mixtures: keep all parts, the largest, or refuse them")
    neutralise: bool = Field(False, description="neutralise charges where possible")
    stereo: bool = Field(True, description="keep stereo")
    isotopes: bool = Field(True, description="keep isotopes")
    cleanup: bool = Field(False, description="normalise groups, metals and charges as RDKit's MolStandardize does")
    max_atoms: int = Field(100, ge=1, le=1_000, description="molecules with more heavy atoms are refused")
    split: Literal["random", "scaffold"] = Field(
        "random", description="what is held out: molecules, or all molecules of some Bemis-Murcko scaffolds"
    )
    context: int | None = Field(None, ge=2, le=1 << 14, description="tokens of a window; None: by the longest molecule")
    max_file_mb: int = Field(512, ge=1, description="larger files are refused")

    @property
    def standard(self) -> Standard:
        return Standard(self.mixtures, self.neutralise, self.stereo, self.isotopes, self.cleanup, self.max_atoms)


class MoleculeModality:
    """.smi, .sdf, .csv, .tsv, .jsonl and .parquet, each also as .gz, alone, in a folder or in a .zip."""

    name = "molecule"
    kind = MOLECULE
    options = MoleculeOptions

    sniff = staticmethod(recognise)

    def read(self, path: Path, options: MoleculeOptions) -> Corpus:
        """One Item per molecule, its canonical SMILES. Raises UserError if there is none, or for a wrong column."""
        raw = read_files(path, options.smiles_column, options.max_file_mb)
        corpus = Corpus([], raw.refused, raw.notes)
        columns = measured(raw.columns, options.numbers)
        corpus.notes += columns.notes
        found = read_all(raw.smiles, options.standard, options.split == "scaffold", options.properties)
        kept: list[StandardMolecule] = []
        for where, result, numbers in zip(raw.where, found, columns.numbers, strict=True):
            if isinstance(result, MoleculeError):
                corpus.refused.append(Refused(where, str(result)))
                continue
            if options.form == "selfies":
                try:
                    WRITINGS["selfies"].write(result.smiles)
                except MoleculeError as error:
                    corpus.refused.append(Refused(where, str(error)))
                    continue
            kept.append(result)
            corpus.items.append(
                Item(result.smiles, where, numbers={**numbers, **result.numbers}, group=result.scaffold or None)
            )
        if not corpus.items:
            raise UserError(
                f"No usable molecule in {path}. Correct what is listed, or give another file "
                f"({', '.join(sorted(READ))}, also .gz and .zip).",
                lines=refusal_lines(corpus.refused),
            )
        corpus.notes += describe_traits(kept, options.standard)
        for name in dict.fromkeys(k for i in corpus.items for k in i.numbers):
            if n := sum(name not in i.numbers for i in corpus.items):
                what = f"{n:,} of {len(corpus.items):,} molecules, which are learnt without it"
                corpus.notes.append(Omission(f"{name} is missing for {what}"))
        return corpus

    def fit(self, items: Sequence[Item], options: MoleculeOptions) -> MoleculeEncoder:
        """Fit vocabulary, window and conditions to the training molecules. Raises UserError if there are none."""
        if not items:
            raise UserError("No molecule to train on: the training split is empty.")
        texts = [str(i.value) for i in items]
        tokens = tuple(vocabulary(options.form, texts))
        conds, notes = fit_conditions(items)
        anyhow = options.form == "fragments"  # a part that is asked for comes first, whatever its place in a molecule
        share = options.randomise if options.randomise is not None else 0.5 * (anyhow or len(items) <= FEW)
        reason = "any fragment can be asked for" if anyhow else f"there is a total of {len(items):,}"
        why = "" if options.randomise is not None else f", since {reason}"
        encoder = MoleculeEncoder(form=options.form, tokens=tokens, context=2, conds=conds, randomise=share, settled={})
        longest = max(len(encoder.tokenised(t)) for t in texts) + 1
        context = options.context or max(32, -(-int(longest * ROOM) // 8) * 8)
        lines = [f"{options.form}: {counted(len(tokens), 'token')}, at most {longest} in a molecule"]
        if longest > context:
            lines.append(f"molecules of more than {context} tokens are learnt in several windows (`data.context`)")
        lines.append(f"{share:.0%} of the molecules in training are written differently each time{why}")
        chosen = {"form": options.form, "properties": options.properties, "randomise": share}
        for name in ("mixtures", "neutralise", "stereo", "isotopes", "cleanup"):
            chosen[name] = getattr(options, name)
        return replace(encoder, context=context, settled=chosen, notes=(*lines, *notes))

    def load(self, folder: Path) -> MoleculeEncoder:
        return load_encoder(folder, MoleculeEncoder, "molecules")


MODALITY = MoleculeModality()
