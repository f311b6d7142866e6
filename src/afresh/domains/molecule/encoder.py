"""Molecules to records of tokens and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from afresh.core import Abilities, Batch, CondSpec, Encoder, Examples, Item, Prompt, Space, UserError, events
from afresh.core.plural import counted
from afresh.core.rng import Rng
from afresh.core.safe_json import MOST_TOKENS
from afresh.data.conditions import encode_conditions
from afresh.data.encoder_file import FileEncoder, with_tuples
from afresh.data.text.chat import Turns
from afresh.data.text.prompts import hole_pieces
from afresh.domains.molecule.chem import MoleculeError, canonical, readable
from afresh.domains.molecule.kind import MOLECULE
from afresh.domains.molecule.parts import beginning, contains, varied
from afresh.domains.molecule.recombine import offspring
from afresh.domains.molecule.writing import WRITINGS, Form, Writing

SPARE = 16  # ids that are free at first: tuning on other molecules gives them to tokens that are new
SPECIAL = {"end": 0, "unknown": 1, "filler": 2, **{f"spare{i}": 3 + i for i in range(SPARE)}}
FIRST = len(SPECIAL)  # id of the first token
SAMPLES = 10_000  # of a measurement, as in the tables of MOSES


@dataclass(frozen=True, kw_only=True)
class MoleculeEncoder(FileEncoder):
    """Canonical SMILES to records of token ids and back. A record is `end`, the tokens of one molecule, and `end`.

    `added`: tokens of tuning, which have the spare ids. `randomise`: the share of molecules that are written
    differently whenever they are drawn in training.
    """

    format: Literal["afresh.molecules"] = "afresh.molecules"
    version: Literal[1] = 1
    form: Form
    tokens: Annotated[tuple[str, ...], Field(min_length=1)]
    added: Annotated[tuple[str, ...], Field(max_length=SPARE)] = ()
    context: Annotated[int, Field(ge=2, le=MOST_TOKENS)]
    conds: CondSpec
    randomise: Annotated[float, Field(ge=0, le=1)]
    settled: Annotated[dict[str, Any], AfterValidator(with_tuples)]
    notes: tuple[str, ...] = ()
    kind = MOLECULE
    suffix = ".smi"
    contained, writes, converses, reply_length = True, False, False, None  # of prompts
    low_rank = True

    @property
    def abilities(self) -> Abilities:
        return Abilities(prompts=self, tunable=self, recombines=self, samples=SAMPLES)

    @cached_property
    def ids(self) -> dict[str, int]:
        first = SPECIAL["spare0"]
        return {t: i for i, t in enumerate(self.tokens, FIRST)} | {t: i for i, t in enumerate(self.added, first)}

    @cached_property
    def words(self) -> dict[int, str]:
        return {i: t for t, i in self.ids.items()}

    @property
    def writing(self) -> Writing:
        return WRITINGS[self.form]

    @cached_property
    def space(self) -> Space:
        """Spare ids that have a token are ids like any other."""
        special = {k: i for k, i in SPECIAL.items() if i not in self.words}
        return Space("tokens", (self.context,), (FIRST + len(self.tokens),), special, stream=True, records=True)

    def encode(self, items: Sequence[Item]) -> Examples:
        """x (total,) int32: the record of each molecule. `mask` (total,): all but the first `end`.

        Tokens that are not in the vocabulary become `unknown`, with a warning. Raises UserError for a label that does
        not occur in training.
        """
        end, unknown = SPECIAL["end"], SPECIAL["unknown"]
        missing: Counter[str] = Counter()
        where: dict[str, str] = {}
        rows: list[list[int]] = []
        for item in items:
            tokens = self.tokenised(item.value)
            new = {t for t in tokens if t not in self.ids}
            missing.update(new)
            for t in new:
                where.setdefault(t, item.source)
            rows.append([end, *(self.ids.get(t, unknown) for t in tokens), end])
        if missing:
            shown = ", ".join(f"{t} ({n:,}, first in {where[t]})" for t, n in missing.most_common(6))
            events.warning(
                f"{counted(len(missing), 'token')} of these molecules did not occur in the training molecules and "
                f"cannot be told apart: {shown}"
            )
        bounds = torch.zeros(len(rows) + 1, dtype=torch.int64)
        bounds[1:] = torch.tensor([len(r) for r in rows], dtype=torch.int64).cumsum(0)
        x = torch.from_numpy(np.array([i for r in rows for i in r], dtype=np.int32))
        mask = torch.ones(len(x), dtype=torch.bool)
        mask[bounds[:-1]] = False
        vary = Rewrite(self, self.randomise) if self.randomise else None
        size = sum(len(i.value) for i in items)
        return Examples(x, encode_conditions(items, self.conds), bounds=bounds, bytes=size, mask=mask, vary=vary)

    def tokenised(self, smiles: str) -> list[str]:
        """The tokens of a molecule. One that the form cannot express is written as it is."""
        try:
            return self.writing.split(self.writing.write(smiles))
        except MoleculeError:
            return self.writing.split(smiles)

    def text(self, row: Sequence[int]) -> str:
        """The text of the tokens of a row up to its `end`, without an `end` before them."""
        ids = list(row[1:] if len(row) and row[0] == SPECIAL["end"] else row)
        if SPECIAL["end"] in ids:
            ids = ids[: ids.index(SPECIAL["end"])]
        return "".join(self.words.get(i, "?") for i in ids)

    def decode(self, x: Tensor) -> list[str]:
        """Ids (B, T), or one row (T,), to canonical SMILES; to the text as it is where it is not a molecule."""
        rows = (x[None] if x.dim() == 1 else x).tolist()
        return [self.molecule_of(row) for row in rows]

    def molecule_of(self, row: Sequence[int]) -> str:
        """The canonical SMILES of a row of ids, or its text if that is not a molecule."""
        text = self.text(row)
        with suppress(MoleculeError):
            text = self.writing.read(text)
        return canonical(text) or text

    def valid(self, value: Any) -> bool:
        """Whether the value is a SMILES that RDKit reads and sanitises."""
        return isinstance(value, str) and readable(value)

    def content(self, value: Any, name: str) -> bytes:
        return f"{value}\n".encode()

    def beginnings(
        self,
        prompt: Prompt,
        count: int = 1,
        *,
        turns: Turns | None = None,
        strength: float | None = None,
        seed: int = 0,
    ) -> list[Tensor]:
        """The first tokens of `count` molecules that contain a scaffold or fragment, or that vary a molecule.

        Raises UserError if the prompt is not valid, or has tokens that no training molecule has.
        """
        out = []
        for i in range(count):
            key = seed * 1_000_003 + i
            if strength is None:
                text = beginning(self.form, str(prompt), key)
            else:
                text = varied(self.form, str(prompt), strength, key)
            out.append(torch.tensor([SPECIAL["end"], *self.known_ids(text)]))
        return out

    def with_holes(self, text: str, space: Space) -> Tensor:
        """A whole molecule, with -1 for each token of a hole. Raises UserError if there is none."""
        ids = [i for p in hole_pieces(text) for i in ([-1] * p if isinstance(p, int) else self.known_ids(p))]
        return torch.tensor([SPECIAL["end"], *ids, SPECIAL["end"]])

    def prompt_text(self, ids: Tensor) -> str:
        """The written molecule that tokens begin."""
        return self.text(ids.tolist())

    def prompt_in(self, ids: Tensor) -> Tensor:
        """All of the stretch."""
        return ids

    def known_ids(self, text: str) -> list[int]:
        """The ids of a text. Raises UserError for a token that is not in the vocabulary."""
        tokens = self.writing.split(text)
        if new := sorted({t for t in tokens if t not in self.ids}):
            raise UserError(
                f"No training molecule has {', '.join(new)}, so the model cannot go on from it. Known tokens: "
                f"{', '.join(self.ids)}."
            )
        return [self.ids[t] for t in tokens]

    def offspring(self, pairs: Sequence[tuple[Any, Any]], seed: int) -> list[str]:
        """A molecule of parts of two for each pair of which one can be made that is no longer than the context:
        without a limit, rewards that are models drive molecules to thousands of atoms."""
        return [m for m in offspring(pairs, seed) if len(self.tokenised(m)) < self.context]

    def keeps(self, value: Any, prompt: str) -> bool:
        """Whether a molecule contains the scaffold or fragment."""
        return contains(value, prompt)

    def encoder_for(self, items: Sequence[Item], options: Any, context: int) -> MoleculeEncoder:
        """The encoder with spare ids for the tokens of other molecules. Raises UserError if there are more new tokens
        than spare ids."""
        new = sorted({t for i in items for t in self.tokenised(i.value)} - set(self.ids))
        left = SPARE - len(self.added)
        if len(new) > left:
            raise UserError(
                f"These molecules have {len(new)} tokens that the base did not learn ({', '.join(new[:12])}), and its "
                f"vocabulary can be extended by {left}. Train a new model on them."
            )
        notes = (f"{counted(len(new), 'new token')}: {', '.join(new)}",) if new else ()
        return replace(self, added=(*self.added, *new), notes=notes)

    def first_rows(self, base: Encoder) -> list[list[int]]:
        """The spare ids have rows of their own."""
        return [[i] for i in range(self.space.vocab[0])]


@dataclass(frozen=True)
class Rewrite:
    """Writes a share of the molecules of a batch differently. Those whose new writing has other tokens, or is longer
    than a window, stay as they are, and so do molecules that are longer than a window."""

    encoder: MoleculeEncoder
    share: float

    def __call__(self, batch: Batch, rng: Rng) -> Batch:
        """Records x (B, T + 1) with their mask (B, T). The random numbers depend on the draws."""
        assert batch.mask is not None
        end = SPECIAL["end"]
        u = rng.uniform("rewrite", batch.index, (2,)).tolist()
        rows: list[list[int]] = []
        for row, mask, (chosen, seed) in zip(batch.x.tolist(), batch.mask.tolist(), u, strict=True):
            row = row[: 1 + sum(mask)]
            whole = row[0] == end and row[-1] == end
            rows.append((self.rewritten(row, int(seed * (1 << 31))) if whole and chosen < self.share else None) or row)
        width = max(map(len, rows))
        x = torch.tensor([r + [end] * (width - len(r)) for r in rows], device=batch.x.device)
        counts = torch.tensor([len(r) - 1 for r in rows], device=x.device)
        mask = torch.arange(width - 1, device=x.device) < counts[:, None]
        return replace(batch, x=x, mask=mask)

    def rewritten(self, row: list[int], seed: int) -> list[int] | None:
        encoder = self.encoder
        try:
            smiles = canonical(encoder.writing.read(encoder.text(row)))
            tokens = [] if smiles is None else encoder.writing.split(encoder.writing.vary(smiles, seed))
        except MoleculeError:
            return None
        ids = [encoder.ids.get(t, -1) for t in tokens]
        if not ids or -1 in ids or len(ids) + 1 > encoder.context:
            return None
        return [SPECIAL["end"], *ids, SPECIAL["end"]]
