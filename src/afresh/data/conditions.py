"""Labels, numbers and captions of items to the parts of a `Cond`.

Captions are encoded as word ids, the simplest encoding that can be learnt from a few thousand captions, or by a
pretrained text encoder (afresh.data.captions), which also knows words that do not occur in them.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from afresh.core import Cond, CondSpec, Item, Omission, Part, UserError
from afresh.core.plural import counted
from afresh.core.space import evenly_spaced
from afresh.data.storage.tensor_file import check_tensor, read_tensors

CAPTION = "caption"  # name of the part that holds captions
MAX_WORDS = 4_000  # size of the vocabulary
FEW = 1_000  # captions of which every word is learnt: whoever has few asks for what is in them
MAX_LENGTH = 32  # words of a caption
MAX_BYTES = 1 << 25  # of the conditions that are saved with a run

Embed = Callable[[Sequence[str]], Tensor]  # captions to (N, E)


def caption_words(caption: str) -> list[str]:
    """Lower-case words and single punctuation marks, in order."""
    return re.findall(r"\w+(?:['’]\w+)*|[^\w\s]", caption.lower())


def caption_ids(caption: str, part: Part) -> tuple[list[int], int]:
    """`part.length` ids (0 = padding, 1 = unknown word), and the number of words that were truncated."""
    table = {word: i + 2 for i, word in enumerate(part.classes)}
    return _ids(caption, part, table)


def _ids(caption: str, part: Part, table: dict[str, int]) -> tuple[list[int], int]:
    words = caption_words(caption)
    ids = [table.get(w, 1) for w in words[: part.length]]
    return ids + [0] * (part.length - len(ids)), max(0, len(words) - part.length)


def label_id(name: str, label: str, part: Part) -> int:
    """The index of a label. Raises UserError if it is unknown, listing the known labels with the closest first."""
    if label in part.classes:
        return part.classes.index(label)
    known = closest(label, part)
    shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
    raise UserError(f"{name} {label!r} was never seen in training. Known: {shown}.")


def closest(label: str, part: Part) -> list[str]:
    """All classes of a part, those that are spelt most like the label first."""
    lower = {c.lower(): c for c in reversed(part.classes)}
    close = [lower[c] for c in difflib.get_close_matches(label.lower(), lower, n=5, cutoff=0.4)]
    return close + [c for c in part.classes if c not in close]


def with_classes(conds: CondSpec, items: Sequence[Item]) -> CondSpec:
    """The parts with the labels of these items that they lack, behind their own classes."""
    out = dict(conds)
    for name, part in conds.items():
        if part.kind == "label":
            new = {item.labels[name] for item in items if name in item.labels} - set(part.classes)
            out[name] = replace(part, classes=(*part.classes, *sorted(new, key=_natural)))
    return out


def fit_conditions(items: Sequence[Item], vector: int | None = None) -> tuple[dict[str, Part], list[str]]:
    """The parts that can be learnt from the training items, and notes on what is left out or will be truncated.

    Labels with a single class, constant numbers and captions that are all equal carry no information and are left out.
    `vector`: the dimension of a text encoder's vectors; None: captions are encoded as words.
    """
    spec: dict[str, Part] = {}
    notes: list[str] = []
    for name in sorted({k for item in items for k in item.labels}):
        classes = {item.labels[name] for item in items if name in item.labels}
        if len(classes) < 2:
            notes.append(Omission(f"{name} is left out: every item is {next(iter(classes))!r}"))
        else:
            spec[name] = Part("label", classes=tuple(sorted(classes, key=_natural)))
    for name in sorted({k for item in items for k in item.numbers} - set(spec)):
        values = torch.tensor([item.numbers[name] for item in items if name in item.numbers], dtype=torch.float64)
        std = float(values.std(correction=0))
        if std > 0 and math.isfinite(std):
            spec[name] = Part("number", mean=float(values.mean()), std=std)
        else:
            notes.append(Omission(f"{name} is left out: every item has {float(values[0]):g}"))
    captions = [item.caption for item in items if item.caption]
    if captions and len(set(captions)) < 2:
        notes.append(Omission(f"captions are left out: every caption is {_short(captions[0])!r}"))
    elif captions and vector is not None:
        spec[CAPTION] = Part("vector", shape=(vector,))
    elif captions:
        part, cut = _fit_captions(captions)
        if part.classes:
            spec[CAPTION] = part
            if cut:
                notes.append(Omission(f"{counted(cut, 'caption')} truncated to {counted(part.length, 'word')}"))
        else:
            notes.append(
                Omission("captions are left out: no word occurs twice (`data.captions=minilm` does not require that)")
            )
    return spec, notes


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _natural(name: str) -> tuple[int, int, str]:
    """Sort key: integers by value, then names alphabetically."""
    return (0, int(name), name) if re.fullmatch(r"-?\d{1,18}", name) else (1, 0, name)


def _fit_captions(captions: Sequence[str]) -> tuple[Part, int]:
    """A vocabulary of the words that occur at least twice, or once if there are at most FEW captions, the most frequent
    first, and the number of captions that exceed the length, which is the 95th percentile, at most MAX_LENGTH.
    """
    split = [caption_words(c) for c in captions]
    counts = Counter(w for words in split for w in words)
    least = 1 if len(captions) <= FEW else 2
    vocabulary = sorted((w for w, n in counts.items() if n >= least), key=lambda w: (-counts[w], w))[:MAX_WORDS]
    lengths = sorted(map(len, split))
    length = max(1, min(MAX_LENGTH, lengths[math.ceil(0.95 * len(lengths)) - 1]))
    return Part("prompt", classes=tuple(vocabulary), length=length), sum(n > length for n in lengths)


def encode_conditions(items: Sequence[Item], spec: CondSpec, embed: Embed | None = None) -> Cond:
    """One row per item; a part that an item lacks is marked as not present. `embed` computes the vectors of captions.
    Parts that are aligned with x are left to the modality.

    Raises UserError for a label that does not occur in the training split.
    """
    nothing = Cond.unconditional(spec, len(items))
    parts: dict[str, Tensor] = dict(nothing.parts)
    present: dict[str, Tensor] = dict(nothing.present)
    for name, part in spec.items():
        if part.kind == "vector" and embed is not None:
            rows = [i for i, item in enumerate(items) if item.caption]
            parts[name][rows] = embed([items[i].caption or "" for i in rows])
            present[name][rows] = True
        classes = {c: i for i, c in enumerate(part.classes)}
        words = {c: i + 2 for c, i in classes.items()}
        for row, item in enumerate(items):
            if part.kind == "label" and name in item.labels:
                index = classes.get(item.labels[name])
                parts[name][row] = label_id(name, item.labels[name], part) if index is None else index
            elif part.kind == "number" and name in item.numbers:
                parts[name][row] = (item.numbers[name] - part.mean) / part.std
            elif part.kind == "prompt" and item.caption:
                parts[name][row] = torch.tensor(_ids(item.caption, part, words)[0])
            else:
                continue
            present[name][row] = True
    return Cond(len(items), parts, present)


def save_conditions(path: Path, cond: Cond, most: int = 4096) -> None:
    """Save at most `most` evenly spaced rows, fewer if they would exceed MAX_BYTES. Raises OSError."""
    row_bytes = sum(v[:1].nbytes for v in cond.parts.values())
    rows = evenly_spaced(cond.size, min(most, max(1, MAX_BYTES // max(1, row_bytes))))
    selected = cond.select(rows)
    tensors = {f"parts.{k}": v.contiguous() for k, v in selected.parts.items()}
    tensors |= {f"present.{k}": v.contiguous() for k, v in selected.present.items()}
    if selected.known is not None and selected.known_mask is not None:
        tensors |= {"given": selected.known.int().contiguous(), "given_mask": selected.known_mask.contiguous()}
    # Not safetensors' save_file, whose exceptions hide the reason that the operating system gives.
    path.write_bytes(save({**tensors, "size": torch.tensor(selected.size)}))


def load_conditions(path: Path, spec: CondSpec, vocab: int = 0) -> Cond:
    """Load a file written by `save_conditions`. `vocab`: number of ids that known tokens may have.

    Raises UserError, naming the tensor, if the file is damaged or does not fit the parts of `spec`.
    """
    tensors = read_tensors(path)
    try:
        return _conditions(tensors, spec, vocab)
    except ValueError as e:
        raise UserError(
            f"{path} does not hold the conditions of this run: {e}. Restore a copy of it.", "damaged", file=str(path)
        ) from None


def _conditions(tensors: Mapping[str, Tensor], spec: CondSpec, vocab: int) -> Cond:
    size = int(check_tensor(tensors, "size", (), (torch.int64,)))
    rows = {len(v) if v.dim() else -1 for k, v in tensors.items() if k != "size"}
    if size < 1 or rows - {size}:
        raise ValueError(f"size is {size:,}, and its tensors have {', '.join(map(str, sorted(rows))) or 'no'} rows")
    parts, present = {}, {}
    for name, part in spec.items():
        parts[name] = check_tensor(tensors, f"parts.{name}", (size, *part.row), (part.dtype,))
        present[name] = check_tensor(tensors, f"present.{name}", (size,), (torch.bool,))
        if part.kind in ("label", "prompt"):
            _check_ids(f"parts.{name}", parts[name], part.ids)
    known, mask = tensors.get("given"), tensors.get("given_mask")
    if (known is None) != (mask is None):
        raise ValueError("it has only one of given and given_mask")
    if known is None or mask is None:
        return Cond(size, parts, present)
    if known.dim() != 2 or mask.dtype != torch.bool or mask.shape != known.shape or known.dtype != torch.int32:
        raise ValueError("given and given_mask must be (rows, tokens) of int32 and bool")
    _check_ids("given", known, vocab)
    return Cond(size, parts, present, known.long(), mask)


def _check_ids(name: str, ids: Tensor, count: int) -> None:
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < count:
        raise ValueError(f"{name} has numbers from {int(ids.min())} to {int(ids.max())}, and not below {count:,}")
