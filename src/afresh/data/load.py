"""Training batches as a pure function of (seed, draw), so that there is no loader state to save.

Draw d is example d mod N of epoch d div N, in an order that depends only on (seed, epoch). Step s with batch size B
takes draws s B ... s B + B - 1, however they are divided into micro-batches or among processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from afresh.core import Batch, Cond, Examples, Space
from afresh.core.rng import Rng
from afresh.core.space import evenly_spaced
from afresh.data.part_windows import PartWindows
from afresh.data.permutation import listed_order

MAX_LOGITS = 1 << 26  # held at once when scoring: 256 MB of float32


class Loader:
    """Training batches of `examples` in `space`. Records of similar length are batched in groups of `together`.

    `count`: of the examples of an epoch; an estimate for a stream in parts, as long as not all of them are made.
    """

    def __init__(self, examples: Examples, space: Space, rng: Rng, together: int = 1) -> None:
        self.examples, self.space, self.rng, self.together = examples, space, rng, together
        self.context = space.shape[0] if space.kind == "tokens" else 0
        self.epoch: tuple[int, Tensor, Tensor | None] | None = None  # number, order, window starts
        self.parts = None if examples.parts is None else PartWindows(examples, space, rng)
        self.runs = runs_of(examples) if space.stream and self.parts is None else None
        if self.parts is not None:
            self.count = self.parts.count
        else:
            self.count = examples.count if self.runs is None else int(windows_in(self.runs, self.context).sum())

    def batch(self, first: int, size: int) -> Batch:
        """Draws first ... first + size - 1."""
        draws = torch.arange(first, first + size)
        if self.parts is not None:
            return self.parts.batch(draws)
        rows = torch.empty(size, dtype=torch.int64)
        starts = torch.empty(size, dtype=torch.int64)
        for epoch in torch.unique(draws // self.count).tolist():
            order, offsets = self.prepare(epoch)
            here = draws // self.count == epoch
            rows[here] = order[draws[here] % self.count]
            if offsets is not None:
                starts[here] = offsets[rows[here]]
        if self.runs is None:
            batch = gather(self.examples, self.space, rows, draws)
        else:
            batch = cut(self.examples, self.space, self.runs, rows, starts, draws)
        if self.together > 1 and self.examples.mask is not None and not self.space.catalogue:
            # Histories of a catalogue count alike, however long: what is asked for is the next item of each user.
            batch = replace(batch, by_length=True)
        return batch if self.examples.vary is None else self.examples.vary(batch, self.rng)

    def prepare(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """The order of the epoch's examples, and for a stream the start of each window. Cached for one epoch."""
        if self.epoch is None or self.epoch[0] != epoch:
            order = listed_order(self.rng, f"epoch/{epoch}", self.count)
            starts = None
            if self.runs is not None:
                starts = window_starts(self.runs, self.context, epoch, self.rng)
                if self.examples.mask is not None:
                    starts = onto_targets(self.examples.mask, self.runs, self.context, starts)
                    order = self.by_length(order, epoch)
            self.epoch = (epoch, order, starts)
        return self.epoch[1], self.epoch[2]

    def by_length(self, order: Tensor, epoch: int) -> Tensor:
        """The order with windows of similar length in the same batch, to reduce padding; batches in random order.

        Windows are sorted by length within blocks of 32 batches. A batch that spans two epochs is not changed.
        """
        assert self.runs is not None
        size = self.together
        first = -epoch * self.count % size  # start of the first complete batch
        last = first + (len(order) - first) // size * size
        if last <= first:
            return order
        complete = order[first:last]
        lengths = window_lengths(self.runs, self.context)[complete]
        block = torch.arange(len(complete)) // (32 * size)
        batches = complete[(block * (self.context + 1) + lengths).argsort(stable=True)].view(-1, size)
        shuffled = self.rng.bits(f"batches/{epoch}", torch.arange(len(batches))).argsort(stable=True)
        return torch.cat([order[:first], batches[shuffled].flatten(), order[last:]])


def tokens_each(examples: Examples, space: Space) -> int:
    """Tokens per example: of a window, or of a record on average. 1 for a field."""
    if space.kind != "tokens":
        return 1
    if examples.mask is None or examples.bounds is None:
        return space.shape[0]
    return max(2, round(float((examples.bounds.diff() - 1).clamp_max(space.shape[0]).double().mean())))


def rows_at_once(examples: Examples, space: Space, most: int) -> int:
    """Examples to score in one batch: at most `most`, and no more than MAX_LOGITS allows."""
    return max(1, min(most, MAX_LOGITS // (tokens_each(examples, space) * max(space.vocab, default=1))))


def runs_of(examples: Examples) -> Tensor:
    """Runs of consecutive documents with equal conditions: (R, 3) of first target, end, first document.

    Every record is a run of its own, whose first target is its second token.
    """
    assert examples.bounds is not None
    documents = len(examples.bounds) - 1
    if examples.mask is not None:
        return torch.stack([examples.bounds[:-1] + 1, examples.bounds[1:], torch.arange(documents)], 1)
    changes = torch.zeros(documents, dtype=torch.bool)
    changes[:1] = True
    for tensors in (examples.cond.parts, examples.cond.present):
        for v in tensors.values():
            flat = v.reshape(documents, -1)
            changes[1:] |= (flat[1:] != flat[:-1]).any(1)
    first = changes.nonzero()[:, 0]
    start = examples.bounds[first]
    end = torch.cat([start[1:], examples.bounds[-1:]])
    return torch.stack([start, end, first], 1)


def windows_in(runs: Tensor, context: int) -> Tensor:
    """Number of windows of `context` targets that cover each run, (R,)."""
    return (runs[:, 1] - runs[:, 0] + context - 1).div(context, rounding_mode="floor").clamp_min(1)


def window_lengths(runs: Tensor, context: int) -> Tensor:
    """Number of targets in each window if the windows tile the runs, (W,)."""
    run, nth = tiles(runs, context)
    return (runs[run, 1] - runs[run, 0] - nth * context).clamp(0, context)


def tiles(runs: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """For each window, the index of its run and its index within the run, both (W,)."""
    counts = windows_in(runs, context)
    run = torch.repeat_interleave(torch.arange(len(runs)), counts)
    return run, torch.arange(len(run)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)


def window_starts(runs: Tensor, context: int, epoch: int, rng: Rng) -> Tensor:
    """First target of every window, (W,). Epoch 0 tiles each run; later epochs shift the tiling at random."""
    run, nth = tiles(runs, context)
    shift = torch.zeros(len(runs), dtype=torch.int64)
    if epoch > 0:
        u = rng.uniform(f"offset/{epoch}", torch.arange(len(runs)))
        shift = (u * context).long() - context // 2
    start, end = runs[run, 0], runs[run, 1]
    return torch.minimum(start + (nth * context + shift[run]).clamp_min(0), (end - context)).maximum(start)


def onto_targets(mask: Tensor, runs: Tensor, context: int, starts: Tensor) -> Tensor:
    """The starts with windows that contain no token to predict (a long question) moved to the end of their record,
    where an answer ends."""
    before = torch.cat([torch.zeros(1, dtype=torch.int64), mask.cumsum(0)])  # targets before each position
    run, _ = tiles(runs, context)
    ends = torch.minimum(starts + context, runs[run, 1])
    return torch.where(before[ends] > before[starts], starts, (runs[run, 1] - context).maximum(runs[run, 0]))


def gather(examples: Examples, space: Space, rows: Tensor, draws: Tensor) -> Batch:
    """A batch of complete examples, selected by row: from the disk, if they are there."""
    if examples.rows is None:
        x, cond = examples.x[rows], examples.cond.select(rows)
    else:
        x, cond = examples.rows.read(rows)
    if space.kind == "tokens":
        begin = torch.full((len(rows), 1), space.special["begin"], dtype=torch.int64)
        x = torch.cat([begin, x.long()], 1)
    else:
        x = x.float() * examples.scale + examples.shift
    extras = {} if examples.mirrored is None else {"mirrored": examples.mirrored[rows]}
    return Batch(x, cond, draws, extras=extras)


def cut(examples: Examples, space: Space, runs: Tensor, windows: Tensor, starts: Tensor, draws: Tensor) -> Batch:
    """A batch of windows of a stream that begin at `starts`, each preceded by the token before it (at the beginning of
    a run, by a separator).

    Windows of records are padded to the longest in the batch.
    """
    context = space.shape[0]
    counts = windows_in(runs, context).cumsum(0)
    run = torch.searchsorted(counts, windows, right=True)
    position = starts[:, None] - 1 + torch.arange(context + 1)  # (B, T + 1)
    inside = position < runs[run, 1][:, None]
    x = examples.x[position.clamp(0, len(examples.x) - 1)].long()
    x = torch.where(inside, x, space.special["end"])
    if examples.mask is not None:
        targets = inside[:, 1:] & examples.mask[position[:, 1:].clamp_max(len(examples.x) - 1)]
        longest = max(1, int(inside[:, 1:].sum(1).max()))
        return Batch(x[:, : longest + 1], examples.cond.select(runs[run, 2]), draws, targets[:, :longest])
    first = starts == runs[run, 0]
    x[first, 0] = space.special["end"]  # the separator between documents also precedes the first document
    mask = None if bool(inside.all()) else inside[:, 1:]
    return Batch(x, examples.cond.select(runs[run, 2]), draws, mask)


def numbered(examples: Examples, space: Space) -> tuple[int, Callable[[Tensor], Batch]]:
    """The number of examples (of a stream: of the windows that tile it), and a batch of those with given numbers."""
    if not space.stream:
        return examples.count, lambda rows: gather(examples, space, rows, rows)
    context, runs = space.shape[0], runs_of(examples)
    run, nth = tiles(runs, context)
    starts = runs[run, 0] + nth * context
    return len(run), lambda windows: cut(examples, space, runs, windows, starts[windows], windows)


def sweep(examples: Examples, space: Space, size: int, limit: int | None = None) -> Iterator[Batch]:
    """Batches that contain every example (or target token) once, in order, to evaluate a complete split."""
    total, batch_of = numbered(examples, space)
    count = total if limit is None else min(limit, total)
    for a in range(0, count, size):
        yield batch_of(torch.arange(a, min(a + size, count)))


def requests_of(examples: Examples, rows: Tensor) -> Cond:
    """The conditions of some examples. For records, `known` is the part before the last answer."""
    cond = examples.cond.select(rows)
    if examples.mask is None:
        return cond
    assert examples.bounds is not None
    prompts = []
    for a, b in zip(examples.bounds[rows].tolist(), examples.bounds[rows + 1].tolist(), strict=True):
        targets = examples.mask[a:b]
        answers = (targets[1:] & ~targets[:-1]).nonzero()[:, 0] + 1  # first token of each answer
        prompts.append(examples.x[a : a + (int(answers[-1]) if len(answers) else 1)].long())
    known = nn.utils.rnn.pad_sequence(prompts, batch_first=True)
    lengths = torch.tensor([len(p) for p in prompts])
    return replace(cond, known=known, known_mask=torch.arange(known.shape[1]) < lengths[:, None])


def typical_requests(examples: Examples, most: int = 4096) -> Cond:
    """The requests (`requests_of`) of at most `most` examples, spaced evenly over a split."""
    return requests_of(examples, evenly_spaced(len(examples), most))


def draw_requests(examples: Examples, n: int, rng: Rng, purpose: str = "conditions") -> Cond:
    """The requests (`requests_of`) of n examples drawn at random from a split."""
    return requests_of(examples, (rng.uniform(purpose, torch.arange(n)) * len(examples)).long())


def draw_conditions(cond: Cond, n: int, rng: Rng, purpose: str = "conditions") -> Cond:
    """n conditions drawn at random from those of a split."""
    rows = (rng.uniform(purpose, torch.arange(n)) * cond.size).long()
    return cond.select(rows)
