"""Which contents have occurred before, by 64 bits of their digests, in a bounded amount of memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Fingerprints = NDArray[np.int64]
MOST_KNOWN = 1 << 24  # contents: 128 MB, and as much again while some are added


def fingerprints_of(digests: Sequence[str]) -> Fingerprints:
    """The first 64 bits of digests in hexadecimal, (N,). Two of a hundred million different contents are alike with a
    probability of 3 in 10,000."""
    return np.array([int(d[:16], 16) for d in digests], dtype=np.uint64).view(np.int64)


class KnownContents:
    """Fingerprints of contents that have occurred, in their order: the first `most`. Copies of later contents are not
    found; `full` says whether there were any."""

    def __init__(self, most: int = MOST_KNOWN) -> None:
        self.most, self.full = most, False
        self.known: Fingerprints = np.zeros(0, dtype=np.int64)

    def new(self, contents: Fingerprints) -> NDArray[np.bool_]:
        """Which of the contents (N,) have not occurred before, neither here nor among themselves; (N,)."""
        places = np.searchsorted(self.known, contents).clip(0, max(0, len(self.known) - 1))
        out = self.known[places] != contents if len(self.known) else np.ones(len(contents), dtype=bool)
        first = np.zeros(len(contents), dtype=bool)
        first[np.unique(contents, return_index=True)[1]] = True
        return np.asarray(out & first)

    def add(self, contents: Fingerprints) -> None:
        """Know further contents, which are new."""
        added = contents[: self.most - len(self.known)]
        self.full = self.full or len(added) < len(contents)
        self.known = np.sort(np.concatenate([self.known, added]), kind="stable")
