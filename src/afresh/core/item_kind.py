"""The interface of a kind of items, through which reports, votes, rewards, duplicates and files handle all items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from afresh.core.sound import Sound

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Preview:
    """The representation of an item on a page, in a terminal or in a notebook: a text, an image (H, W, 1 or 3) of
    uint8, or a sound. A text together with an image is its caption. `cells`: (column, value) of a row of a table, which
    pages show as one."""

    text: str | None = None
    image: NDArray[np.uint8] | None = None
    sound: Sound | None = None
    cells: Sequence[tuple[str, str]] = ()


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


@dataclass(frozen=True)
class Descriptors:
    """What measured numbers of items are learnt from (afresh.engine.alignment.surrogate).

    vectors: (n, D) of n items. likeness: how two of them are compared: "tanimoto" for counts of parts, which are not
    negative, or "distance" for coordinates of one scale.
    """

    vectors: Callable[[Sequence[Any]], Array]
    likeness: Literal["tanimoto", "distance"] = "distance"


@dataclass(frozen=True, eq=False)
class ItemKind:
    """One kind of item, such as text or images, with the functions that handle such items outside of the modality.

    A modality defines its kind (`Modality.kind`, `Encoder.kind`); several modalities may share one. Kinds are compared
    by identity and identified in saved files by `name`.

    name: "text", "image", ...; also the name of the table of built-in rewards. plural: for messages, and the unit that
    training counts. medium: what items are, if they are of one that several modalities share: texts are str, images
    arrays (H, W, 1 or 3) of uint8, and sounds `Sound`s; None for other values. hub_task: the hub's names of what a
    model of such items does, without and with a text that says what to make. view: how a person perceives an item, and
    therefore the content of a preview: a text, an image, or both an image and a sound.

    digest: the SHA-256 of an item's content, in hexadecimal. It decides the split and identifies exact duplicates.
    describe: a short description of an item for messages. previews: one preview for each of several items that are
    shown side by side. size: a number, or a text such as "28x28x1", in `unit`s, for summaries of the data.

    encode, decode: an item as the content of a file that ends with `suffix`, and back; `decode` raises ValueError if
    the content is not valid. A kind without a suffix is `inline`: its items are UTF-8 text within the lines of a file
    of votes or samples. `suffixes` are those of all files that `decode` reads. `decode` must be a function at the top
    level of a module, because the process of a reward imports it by name.

    features: (n, D) of n items, each number within about [0, 1]. The similarity of two items is 1 minus the root mean
    square difference of their rows. Features are the basis of similarity, diversity, near duplicates, copies,
    classifiers and reward models, unless there is a more specific function; None if there is one for all of these.
    descriptors: what measured numbers are learnt from; None if it is the features. facts: further numbers of items that
    are shown beside predictions, by name, one for each item (how hard a molecule is to make).
    alerts: for each item, what speaks against making it, in words; empty if nothing does.

    near_duplicates: items that are nearly equal to an earlier one, if there is a better search than by features.
    searched: the number of items up to which near duplicates are searched before training. similarity: a function of
    training items that returns a function of items (n,), the similarity of each to the training items, 0 to 1.
    diversity: how different items are from each other, 0 to 1. collected: for items that are kept together in one file,
    the functions of items and of the records of their requests that make such files, by suffix; one that would be empty
    is not written. division: see `Division`; None if items are never divided. use: the command by which a run of such
    items is used, from how the run is typed, the path of its data (None if that is not to be read) and the options by
    which that was read; None if it is sampled. flaw: why a model should perhaps not learn an item, as a predicate
    ("have a single colour"), or None. result_settings: the settings of sampling, beside those of the family, that say
    how what was drawn is given back, such as afresh.data.image.grid.GridSettings; None if there are none.
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
    descriptors: Descriptors | None = None
    facts: Callable[[Sequence[Any]], Mapping[str, Sequence[float]]] | None = None
    alerts: Callable[[Sequence[Any]], Sequence[str]] | None = None
    near_duplicates: Callable[[Sequence[Any]], list[NearDuplicate]] | None = None
    searched: int = 20_000
    similarity: Callable[[Sequence[Any]], Callable[[Sequence[Any]], Array]] | None = None
    diversity: Callable[[Sequence[Any]], float] | None = None
    collected: Mapping[str, Callable[[Sequence[Any], Sequence[Mapping[str, Any]]], bytes]] = field(default_factory=dict)
    division: Division | None = None
    medium: Literal["text", "image", "sound"] | None = None
    hub_task: tuple[str, str] = ("text-generation", "text-generation")
    use: Callable[[str, Path | None, Mapping[str, Any]], str] | None = None
    flaw: Callable[[Any], str | None] = lambda item: None
    result_settings: type[BaseModel] | None = None

    @property
    def inline(self) -> bool:
        """Whether items are stored within lines of text rather than in files of their own."""
        return not self.suffix

    def preview(self, item: Any) -> Preview:
        """The preview of a single item."""
        return self.previews([item])[0]
