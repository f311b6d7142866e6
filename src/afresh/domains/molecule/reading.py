"""Files of molecules: .smi, .sdf and tables, to SMILES with their columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from afresh.core import Omission, Refused, UserError
from afresh.core.data import about
from afresh.data.files import (
    MB,
    NESTED_ARCHIVE,
    DataFile,
    FileError,
    ZipLimits,
    decode_text,
    describes_data,
    read_usable,
    read_zip,
    suffix_of,
    walk,
)
from afresh.data.tables import SUFFIXES
from afresh.data.tables import rows as tables
from afresh.data.tables.numbers import as_number, units_of
from afresh.data.tables.roles import check_column, columns_by_role, lowered, share
from afresh.domains.molecule.chem import MoleculeError, chem, require, surviving

LISTS = frozenset({".smi", ".smiles"})
PLAIN = ".txt"  # a list if it is given by itself
STRUCTURES = frozenset({".sdf", ".sd", ".mol"})
READ = LISTS | STRUCTURES | SUFFIXES
NAMES = ("canonical_smiles", "canonicalsmiles", "smiles", "isomeric_smiles", "structure_smiles")
PATTERN = re.compile(r"(?=.*[A-Za-z])(\[[^\]\s]{1,20}\]|Br|Cl|[BCNOPSFIbcnops]|[-=#$:/\\.()]|%\d\d|\d)+")  # of SMILES
BONDED = re.compile(r"[=#()\[\]\d]")  # what most molecules have and words have not
DAMAGED = "damaged record of an .sdf: RDKit cannot read it"  # a reason


@dataclass
class RawMolecules:
    """SMILES as they stand in the files, each with where it was read and its columns; refused inputs and notes."""

    smiles: list[str] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    columns: list[Mapping[str, Any]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, smiles: str, where: str, columns: Mapping[str, Any]) -> None:
        self.smiles.append(smiles)
        self.where.append(where)
        self.columns.append(columns)


def read_files(path: Path, smiles_column: str | None, max_file_mb: int) -> RawMolecules:
    """Every row of every file. Raises UserError if a column is missing or cannot be chosen."""
    require()
    raw = RawMolecules()
    for name, content in _contents(path, max_file_mb, raw.refused):
        suffix = suffix_of(name)
        try:
            if suffix in LISTS or suffix == PLAIN:
                _read_list(name, decode_text(content), raw)
            elif suffix in STRUCTURES:
                _read_structures(name, decode_text(content), raw)
            else:
                _read_table(name, tables.read_table(suffix, content, max_file_mb), smiles_column, raw)
        except FileError as error:
            raw.refused.append(Refused(name, str(error)))
    return raw


def _contents(path: Path, max_mb: int, refused: list[Refused]) -> Iterator[tuple[str, bytes]]:
    if path.is_file() and path.suffix.lower() == ".zip":
        members, left_out = read_zip(path, READ, ZipLimits(member_bytes=max_mb * MB))
        yield from members
        refused += left_out
        return
    files, left_out = walk(path)
    refused += left_out

    def refusal(file: DataFile) -> str | None:
        if file.suffix == ".zip":
            return NESTED_ARCHIVE
        if suffix_of(file.name) in READ or (path.is_file() and suffix_of(file.name) == PLAIN):
            return None
        if describes_data(file.name):
            return "describes the data"
        return f"not a file of molecules ({file.suffix or 'no suffix'})"

    for file, content in read_usable(files, refusal, max_mb, refused):
        yield file.name, content


def _read_list(name: str, text: str, raw: RawMolecules) -> None:
    """Lines of a SMILES and, after white space, the name of the molecule. A first line that names columns is left
    out."""
    for number, line in enumerate(text.splitlines(), 1):
        smiles, _, rest = line.strip().partition(" ") if "\t" not in line else line.strip().partition("\t")
        if not smiles or smiles.startswith("#"):
            continue
        if number == 1 and smiles.lower().strip(",;") in (*NAMES, "smile"):
            raw.notes.append(f"{name}: the first line names the columns")
            continue
        title = rest.strip()
        raw.add(smiles, f"{name}, line {number:,}", {"name": title} if title else {})


def _read_structures(name: str, text: str, raw: RawMolecules) -> None:
    """The records of an .sdf, and the properties that follow each."""
    records = text.replace("\r\n", "\n").split("$$$$\n")
    records = records[:-1] if len(records) > 1 and not records[-1].strip() else records
    for number, record in enumerate(records, 1):
        where = f"{name}, row {number:,}"
        try:
            with surviving():
                smiles = _structure(record)
        except MoleculeError as error:
            raw.refused.append(Refused(where, str(error), damaged=str(error) == DAMAGED))
            continue
        columns = dict(re.findall(r"^> *<([^>\n]+)>[^\n]*\n(.*?)\n(?=\n|> *<|\Z)", record, re.M | re.S))
        raw.add(smiles, where, columns)


def _structure(record: str) -> str:
    """The SMILES of a record. Raises MoleculeError with the reason."""
    library = chem()
    block = record.partition("M  END")[0] + "M  END\n"
    found = library.MolFromMolBlock(block, sanitize=False) if "M  END" in record else None
    if found is None:
        raise MoleculeError(DAMAGED)
    problems = [p.Message() for p in library.DetectChemistryProblems(found)]
    if problems:
        raise MoleculeError(" ".join(problems[0].split()))
    library.SanitizeMol(found)
    library.AssignStereochemistryFrom3D(found) if found.GetNumConformers() and found.GetConformer().Is3D() else None
    smiles: str = library.MolToSmiles(library.RemoveHs(found))
    return smiles


def _read_table(name: str, table: tables.RowTable, smiles_column: str | None, raw: RawMolecules) -> None:
    raw.refused += [Refused(f"{name}, row {n}", reason) for n, reason in table.bad]
    raw.notes += [about(name, note) for note in table.notes]
    if not table.rows:
        raise FileError("no usable row")
    column = smiles_column_of(name, table, smiles_column)
    raw.notes.append(f"{name}: the SMILES are column {column!r}")
    for number, row in table.rows:
        value = row.get(column)
        others = {k: v for k, v in row.items() if k != column}
        raw.add("" if value is None else str(value).strip(), f"{name}, row {number}", others)


def smiles_column_of(name: str, table: tables.RowTable, wanted: str | None) -> str:
    """The column of SMILES. Raises UserError if there is none, or if it cannot be chosen."""
    if wanted is not None:
        check_column(name, table.columns, wanted)
        return wanted
    by_name = columns_by_role(table.columns, {"smiles": NAMES}, plain=lambda name: lowered(name).replace(" ", "_"))
    if by_name:
        return by_name["smiles"]
    named = [c for c in table.columns if c.lower().strip().endswith("smiles")]
    like = [c for c in table.texts if are_molecules([str(r.get(c) or "").strip() for _, r in table.rows[:500]])]
    for candidates in (named, like):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise UserError(
                f"{name} has several columns of SMILES: {', '.join(candidates)}. Choose one: `data.smiles_column`."
            )
    raise UserError(
        f"No column of {name} holds SMILES. Its columns: {', '.join(table.columns[:20])}. Name the column: "
        "`data.smiles_column`. InChI and names of molecules must be converted first."
    )


def are_molecules(values: Sequence[str]) -> bool:
    """Whether values have the form of SMILES."""
    return share(values, _is_molecule) >= 0.95 and share(values, BONDED.search) >= 0.5


def _is_molecule(value: str) -> bool:
    """Whether a value has the form of SMILES. Digits that close rings occur in pairs."""
    if PATTERN.fullmatch(value) is None or value.count("(") != value.count(")"):
        return False
    bare = re.sub(r"\[[^\]]*\]|%\d\d", "", value)
    return all(bare.count(digit) % 2 == 0 for digit in set(bare) if digit.isdigit())


# --------------------------------------------------------------------------- columns of numbers


@dataclass(frozen=True)
class MeasuredColumn:
    """Numbers of each molecule by name, and notes on columns that are not used and on values that are missing."""

    numbers: list[dict[str, float]]
    notes: list[str]


def measured(columns: Sequence[Mapping[str, Any]], wanted: Sequence[str] | None) -> MeasuredColumn:
    """The columns of numbers: those that are `wanted`, or all but identifiers.

    Raises UserError for a column that does not exist, or whose values have several units.
    """
    names = list(dict.fromkeys(k for row in columns for k in row))
    notes: list[str] = []
    numbers: list[dict[str, float]] = [{} for _ in columns]
    for name in wanted or ():
        if name not in names:
            raise UserError(f"No column {name!r}. Columns found: {', '.join(names) or 'none'}.")
    for name in names if wanted is None else wanted:
        cells = [row.get(name) for row in columns]
        present = [c for c in cells if c is not None and str(c).strip() != ""]
        values = [as_number(c) for c in cells]
        good = sum(v is not None for v in values)
        if units := units_of(present):
            text = f"column {name!r} has numbers with units ({', '.join(units)}): give plain numbers of one unit"
            if wanted is not None:
                raise UserError(f"The {text[0].lower()}{text[1:]}.")
            notes.append(Omission(text))
            continue
        if not good or (wanted is None and 2 * good < len(present)):
            if wanted is not None:
                raise UserError(f"Column {name!r} has no numbers. Its values begin with {present[:3]}.")
            notes.append(Omission(_other(name, present)))
            continue
        if wanted is None and _is_identifier(name, [v for v in values if v is not None]):
            notes.append(Omission(f"column {name!r} is not learnt: it numbers the rows"))
            continue
        part = re.sub(r"\W", "_", name.strip()) or "_"
        for row, value in zip(numbers, values, strict=True):
            if value is not None:
                row[part] = value
        wrong = len(present) - good
        if wrong:
            bad = next(str(c) for c, v in zip(cells, values, strict=True) if v is None and c not in (None, ""))
            notes.append(
                Omission(f"column {name!r}: {wrong:,} values are not numbers, such as {bad!r}, and count as missing")
            )
    return MeasuredColumn(numbers, notes)


def _other(name: str, present: Sequence[Any]) -> str:
    if not present:
        return f"column {name!r} is not learnt: it has no values"
    repeated = sum(n > 1 for n in Counter(map(str, present)).values())
    identifies = name.lower().strip() in ("id", "name", "identifier") or name.lower().endswith(("_id", "id"))
    if identifies and repeated:
        return f"column {name!r} is not learnt: identifiers, {repeated:,} of them repeated"
    return f"column {name!r} is not learnt: it is text"


def _is_identifier(name: str, values: Sequence[float]) -> bool:
    whole = all(v == int(v) for v in values)
    named = name.lower().strip() in ("", "id", "index", "idx", "row", "no", "number", "cid", "unnamed: 0")
    return whole and len(set(values)) == len(values) and (named or list(values) == sorted(values)) and len(values) > 2
