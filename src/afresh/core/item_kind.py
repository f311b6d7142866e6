"""What a modality brings so that reports, votes, rewards, duplicates and files need to know nothing about its items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from afresh.core.sound import Sound

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Preview:
    """What a page, a terminal or a notebook shows of an item: a text to read, an image (H, W, 1 or 3) of uint8 to look
    at, or a sound to listen to. A text beside an image is its caption."""

    text: str | None = None
    image: NDArray[np.uint8] | None = None
    sound: Sound | None = None


@dataclass(frozen=True)
class NearDuplicate:
    """Item `second` is a near duplicate of `first`, the earliest such item. A similarity of 1 means equal.

    Each item is `second` at most once, so the number of pairs is the number of items to remove to keep one of each.
    """

    first: int
    second: int
    similarity: float


@dataclass(frozen=True)
class Division:
    """How long items are divided between training and held-out data if there are few of them.

    `cut` takes an item and a share; it returns the item without its last share, and that, or None if the item is
    smaller than `shortest`. Items are divided if their median size is at least `long`; sizes are those of the kind.
    """

    cut: Callable[[Any, float], tuple[Any, Any] | None]
    long: int
    shortest: int


@dataclass(frozen=True, eq=False)
class ItemKind:
    """One kind of item, such as text or images: what a modality's items are outside of the modality.

    A modality brings its kind (`Modality.kind`, `Encoder.kind`); several modalities may share one. Kinds are compared
    by identity and named in saved files by `name`.

    name: "text", "image", ...; also the name of the table of built-in rewards. plural: for messages, and what training
    counts. view: how a person perceives an item, and so what a preview holds: a text, an image, or both an image and a
    sound.

    digest: the SHA-256 of an item's content, in hexadecimal. It decides the split and identifies exact duplicates.
    describe: an item in a few words, for messages. previews: of items that are shown side by side, one each.
    size: a number, or a text such as "28x28x1", in `unit`s; it summarises the data.

    encode, decode: an item as the content of a file that ends in `suffix`, and back; `decode` raises ValueError if the
    content is not valid. A kind without a suffix is `inline`: its items are UTF-8 text that stands in the lines of a
    file of votes or samples. `suffixes` are those of all files that `decode` reads. `decode` is a function at the top
    level of a module, by whose name the process that runs a reward finds it.

    features: (n, D) of n items, each number within about [0, 1]; how alike two items are is 1 minus the root mean
    square difference of their rows. They are the basis of similarity, diversity, near duplicates, copies, classifiers
    and reward models wherever nothing more specific is known; None if all of that is.

    near_duplicates: items that are nearly equal to an earlier one, if there is a better search than one by features.
    searched: the number of items up to which near duplicates are searched before training.
    similarity: from training items, a function of items (n,) that says how like the training items each is, 0 to 1.
    diversity: how different items are from one another, 0 to 1. division: see `Division`; None if items are never
    divided. flaw: what is wrong with an item that a model should perhaps not learn, as a predicate ("have a single
    colour"), or None.
    """

    name: str
    plural: str
    view: Literal["text", "image", "sound"]
    digest: Callable[[Any], str]
    describe: Callable[[Any], str]
    previews: Callable[[Sequence[Any]], list[Preview]]
    size: Callable[[Any], float | str]
    unit: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    suffix: str = ""
    suffixes: frozenset[str] = field(default_factory=frozenset)
    features: Callable[[Sequence[Any]], Array] | None = None
    near_duplicates: Callable[[Sequence[Any]], list[NearDuplicate]] | None = None
    searched: int = 20_000
    similarity: Callable[[Sequence[Any]], Callable[[Sequence[Any]], Array]] | None = None
    diversity: Callable[[Sequence[Any]], float] | None = None
    division: Division | None = None
    flaw: Callable[[Any], str | None] = lambda item: None

    @property
    def inline(self) -> bool:
        """Whether items stand in lines of text rather than in files of their own."""
        return not self.suffix

    def preview(self, item: Any) -> Preview:
        """The preview of one item by itself."""
        return self.previews([item])[0]
