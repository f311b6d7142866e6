"""A listing: one model, adapter, data set or work that is offered, as it is stored in JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator
from pydantic.functional_validators import AfterValidator

from afresh.core import UserError
from afresh.core.money import MOST, Money, apportioned
from afresh.core.safe_text import visible, visible_line

WHOLE = 10_000  # basis points
Kind = Literal["model", "adapter", "data", "work"]
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]


def _line(text: str) -> str:
    if visible_line(text) != text:
        raise ValueError("it has line ends or control characters")
    return text


def _text(text: str) -> str:
    if visible(text) != text:
        raise ValueError("it has control characters")
    return text


def https(url: str) -> str:
    """An address of HTTPS without a name and a password in it. Raises ValueError for any other."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username or not re.fullmatch(r"[!-~]{1,2000}", url):
        raise ValueError(f"{url!r} is not an address that begins with https://")
    return url


def _payable(money: Money) -> Money:
    if not 0 <= money.amount <= MOST:
        raise ValueError(f"{money} is not a price")
    return money


Line = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200), AfterValidator(_line)]
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_line)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=20_000), AfterValidator(_text)]
Url = Annotated[str, AfterValidator(https)]
Price = Annotated[Money, AfterValidator(_payable)]


class Stored(BaseModel):
    """What is read from a file of a catalogue."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Bundle(Stored):
    """The file that is delivered."""

    name: FileName
    size: int = Field(ge=0)
    sha256: Sha256


class Preview(Stored):
    """What is shown: a picture (`thumbnail`, a file), or an excerpt of a text."""

    kind: Literal["image", "sound", "text"]
    thumbnail: FileName | None = None
    excerpt: Text = ""


class Quality(Stored):
    """Scores that were measured, the sentence of their verdict, and the protocol card that says how. Scores without a
    card are refused."""

    verdict: Text = ""
    scores: tuple[dict[str, JsonValue], ...] = Field(min_length=1)
    card: dict[str, JsonValue] = Field(min_length=1)


class Parent(Stored):
    """What a listing was made from, by the SHA-256 of its bundle or the id of a listing here, and the share of each
    payment, in basis points, that is due to it."""

    of: Sha256 | Id
    share: int = Field(0, ge=0, le=WHOLE)


class Listing(Stored):
    """An offer. `price` is None until it is decided, which keeps the listing out of what is published. `link` is where
    it is bought, and `payment_link` the id of that link if it was made here. `lineage` is what the label of
    its run says, in words, and `labels` the files of that label. `removed` is the reason of a take-down."""

    id: Id
    kind: Kind
    title: Title
    summary: Text = ""
    licence: Line
    terms: Text = ""
    maker: Line = ""
    price: Price | Literal["free"] | None = None
    link: Url | None = None
    payment_link: Line = ""
    bundle: Bundle
    preview: Preview | None = None
    labels: tuple[FileName, ...] = ()
    quality: Quality | None = None
    lineage: dict[str, JsonValue] = Field(default_factory=dict)
    safety: Text = ""
    parents: tuple[Parent, ...] = Field((), max_length=100)
    added: AwareDatetime
    removed: Line | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (shares := sum(p.share for p in self.parents)) > WHOLE:
            raise ValueError(f"the shares of its parents are {shares} basis points of {WHOLE}")
        if len({p.of for p in self.parents}) < len(self.parents):
            raise ValueError("a parent is named twice")
        return self

    @property
    def money(self) -> Money | None:
        """What it costs; None if it is free or has no price yet."""
        return self.price if isinstance(self.price, Money) else None

    @property
    def cost(self) -> str:
        """The price in words."""
        return "Free" if self.money is None else str(self.money)

    @property
    def thumbnail(self) -> str | None:
        """The picture that is shown, in the site."""
        return None if self.preview is None or not self.preview.thumbnail else f"previews/{self.preview.thumbnail}"

    @property
    def excerpt(self) -> str:
        """The text that is shown."""
        return "" if self.preview is None else self.preview.excerpt

    @property
    def download(self) -> str | None:
        """Where the bundle is in the site; None if it is for sale."""
        return f"bundles/{self.id}/{self.bundle.name}" if self.money is None else None

    @property
    def offered(self) -> bool:
        """Whether it is published: it has a price or is free, and was not taken down."""
        return self.price is not None and self.removed is None


def id_of(title: str) -> str:
    """An id made of a title: its letters and digits of ASCII, or `listing`."""
    return re.sub(r"[^a-z0-9]+", "-", title.casefold())[:60].strip("-") or "listing"


class Lineage:
    """The listings of a catalogue by id and by the SHA-256 of their bundles."""

    def __init__(self, listings: Sequence[Listing]) -> None:
        self.by_id: Mapping[str, Listing] = {x.id: x for x in listings}
        self.by_sha256: Mapping[str, Listing] = {x.bundle.sha256: x for x in reversed(listings)}

    def named(self, of: str) -> Listing | None:
        """The listing that a parent names; None if it is not in this catalogue."""
        return self.by_id.get(of) or self.by_sha256.get(of)

    def shares(self, listing: Listing, amount: int) -> dict[str, int]:
        """Who is due how much of an amount in minor units: by the id of a listing, or the SHA-256 of a parent that is
        not in the catalogue. A parent's part is shared with its own parents in turn. The parts add up to the amount."""
        parts = apportioned(
            amount, [WHOLE - sum(p.share for p in listing.parents), *(p.share for p in listing.parents)]
        )
        due = {listing.id: parts[0]}
        for parent, part in zip(listing.parents, parts[1:], strict=True):
            known = self.named(parent.of)
            for of, owed in ({parent.of: part} if known is None else self.shares(known, part)).items():
                due[of] = due.get(of, 0) + owed
        return {of: owed for of, owed in due.items() if owed}


def check_lineage(listings: Sequence[Listing]) -> None:
    """Raises UserError if a listing descends from itself."""
    lineage = Lineage(listings)
    sorter = TopologicalSorter(
        {x.id: [known.id for p in x.parents if (known := lineage.named(p.of)) is not None] for x in listings}
    )
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " <- ".join(error.args[1])
        raise UserError(
            f"The lineage is a circle, so that no share can be computed: {circle}. Leave one of these parents out.",
            "circular_lineage",
        ) from None
