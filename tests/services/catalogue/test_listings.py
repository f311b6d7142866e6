"""What is added to a catalogue, what is refused, and what the lineage of listings says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afresh.core import UserError
from afresh.services.catalogue.add import add, quality_of, set_price, take_down
from afresh.services.catalogue.folder import Catalogue
from afresh.services.catalogue.listing import Bundle, Lineage, Listing, Parent, check_lineage


def put(catalogue: Catalogue, tmp_path: Path, **facts: Any) -> Listing:
    file = tmp_path / "model.bin"
    file.write_bytes(b"\0\1" * 50)
    return add(catalogue, file, **{"kind": "model", "licence": "MIT", **facts})


def test_a_listing_is_kept(catalogue: Catalogue, tmp_path: Path) -> None:
    put(catalogue, tmp_path, title="Ein Modell: Äpfel", terms="Not for resale.", parents=["poem=12.5"])
    found = catalogue.listing("ein-modell-pfel")
    assert found.maker == "Nadja" and found.price is None and not found.offered
    assert found.parents == (Parent(of="poem", share=1250),)
    assert catalogue.bundle(found).read_bytes() == b"\0\1" * 50 and catalogue.check_files() == []
    again = put(catalogue, tmp_path, title="Ein Modell: Äpfel", licence="apache2", price="1 EUR")
    assert again.terms == "Not for resale." and again.licence == "Apache-2.0" and again.added == found.added
    assert [x.id for x in catalogue.listings()] == ["ein-modell-pfel", "picture", "poem"]


def test_the_preview_of_a_picture_a_sound_and_a_text(catalogue: Catalogue, tmp_path: Path) -> None:
    import numpy as np

    from afresh.core import Sound
    from afresh.data.audio.views import wav_bytes

    sound = tmp_path / "tone.wav"
    tone = np.sin(np.arange(8000) / 8000 * 440 * 2 * np.pi)
    sound.write_bytes(wav_bytes(Sound(tone[:, None].astype(np.float32), 8000)))
    add(catalogue, sound, kind="work", licence="CC0-1.0")
    shown = {x.id: x.preview for x in catalogue.listings()}
    assert shown["tone"] is not None and shown["tone"].thumbnail == "tone.webp"
    assert shown["picture"] is not None and (catalogue.folder / "previews" / "picture.webp").is_file()
    assert shown["poem"] is not None and shown["poem"].excerpt.startswith("The sea at night")
    poem = (tmp_path / "poem.txt").read_text()
    assert len(shown["poem"].excerpt) <= len(poem) / 3  # what is sold is not shown whole
    assert put(catalogue, tmp_path).preview is None
    with pytest.raises(UserError, match="not a picture, sound or text"):
        put(catalogue, tmp_path, preview=tmp_path / "model.bin")


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"licence": "Nonsense"}, "is not an SPDX licence"),
        ({"licence": "unknown"}, "states no licence"),
        ({"title": "a\x1b[31mb"}, "control characters"),
        ({"title": "a\nb"}, "control characters"),
        ({"title": "x" * 201}, "200 characters"),
        ({"kind": "thing"}, "kind"),
        ({"id": "../../etc"}, "id"),
        ({"id": "A B"}, "id"),
        ({"price": "NaN EUR"}, "no finite decimal number"),
        ({"link": "http://example.org"}, "https://"),
        ({"link": "javascript:alert(1)"}, "https://"),
        ({"link": "https://a:b@example.org"}, "https://"),
        ({"link": "https://example.org/ x"}, "https://"),
        ({"parents": ["poem=101"]}, "percentage"),
        ({"parents": ["poem=1.234"]}, "percentage"),
        ({"parents": ["poem=NaN"]}, "percentage"),
        ({"parents": ["poem=60", "picture=50"]}, "11000 basis points"),
        ({"parents": ["poem=1", "poem=2"]}, "twice"),
    ],
)
def test_what_is_not_valid_is_refused(catalogue: Catalogue, tmp_path: Path, facts: dict[str, Any], says: str) -> None:
    before = catalogue.listings()
    with pytest.raises(UserError, match=says):
        put(catalogue, tmp_path, **facts)
    assert catalogue.listings() == before


def test_scores_need_the_card_that_says_how_they_were_measured(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    score = {"name": "bits_per_byte", "value": 2.5, "low": 2.4, "high": 2.6, "n": 90, "better": "lower", "floor": None}
    report.write_text(json.dumps({"sections": [{"scores": [score], "card": {"id": "ab12", "samples": 100}}]}))
    found = quality_of(tmp_path)
    assert found is not None and found.verdict == "" and found.scores[0]["n"] == 90 and found.card["samples"] == 100
    report.write_text(json.dumps({"sections": [{"scores": [score], "card": {}}]}))
    with pytest.raises(UserError, match="card"):
        quality_of(tmp_path)
    report.write_text(json.dumps({"sections": [{"scores": [], "card": {}}]}))
    assert quality_of(tmp_path) is None
    report.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        quality_of(tmp_path)


def test_a_new_price_takes_the_link_of_the_old_one(catalogue: Catalogue) -> None:
    assert set_price(catalogue, "poem", "12.50 EUR").link == "https://buy.example.org/1"
    assert set_price(catalogue, "poem", "13 EUR").link is None
    assert set_price(catalogue, "poem", "free").money is None
    with pytest.raises(UserError, match="Did you mean poem"):
        set_price(catalogue, "peom", "1 EUR")
    with pytest.raises(UserError, match="no listing"):
        catalogue.listing("../settings")


def test_a_take_down_says_why(catalogue: Catalogue) -> None:
    with pytest.raises(UserError, match="Say why"):
        take_down(catalogue, "poem", " ")
    assert take_down(catalogue, "poem", "A claim of the 3rd of May").removed == "A claim of the 3rd of May"
    assert not catalogue.listing("poem").offered


def test_a_file_that_has_changed_is_found(catalogue: Catalogue) -> None:
    catalogue.bundle(catalogue.listing("poem")).write_text("another")
    catalogue.bundle(catalogue.listing("picture")).unlink()
    assert [fault.split(", the file of ")[1] for fault in catalogue.check_files()] == [
        "picture, is missing. Add the listing again.",
        "poem, has changed since it was added. Add the listing again.",
    ]


# --------------------------------------------------------------------------- lineage


def listing(name: str, *parents: tuple[str, int]) -> Listing:
    bundle = Bundle(name="a", size=1, sha256=sha(name))
    about = {"id": name, "kind": "model", "title": name, "licence": "MIT", "added": "2026-01-01T00:00:00Z"}
    return Listing.model_validate({**about, "bundle": bundle, "parents": [Parent(of=p, share=s) for p, s in parents]})


def sha(name: str) -> str:
    return name.encode().hex().ljust(64, "0")


def test_a_circle_is_refused() -> None:
    with pytest.raises(UserError, match=r"a circle.*: (a <- b|b <- a)"):
        check_lineage([listing("a", ("b", 1)), listing("b", (sha("a"), 1))])
    with pytest.raises(UserError, match="circle"):
        check_lineage([listing("a", ("a", 1))])
    check_lineage([listing("a", ("b", 1), ("c", 1)), listing("b", ("c", 1)), listing("c", ("not-here", 1))])


def test_a_circle_cannot_be_added(catalogue: Catalogue, tmp_path: Path) -> None:
    put(catalogue, tmp_path, id="a", parents=["b=10"])
    with pytest.raises(UserError, match="circle"):
        put(catalogue, tmp_path, id="b", parents=["a=10"])
    assert not catalogue.path("b").exists()


def test_a_payment_is_shared_along_the_lineage() -> None:
    """1001 cents: b gets 10% and a stranger 5% of a's; c gets half of what b gets. By hand: 850.85, 100.1 and 50.05 are
    851, 100 and 50, and of the 100 of b, 50 are c's."""
    lineage = Lineage([listing("a", ("b", 1000), ("f" * 64, 500)), listing("b", (sha("c"), 5000)), listing("c")])
    assert lineage.shares(lineage.by_id["a"], 1001) == {"a": 851, "b": 50, "c": 50, "f" * 64: 50}
    assert lineage.shares(lineage.by_id["c"], 7) == {"c": 7}


@given(st.integers(0, 10**12), st.lists(st.integers(0, 5000), min_size=2, max_size=12))
def test_shares_add_up_at_any_depth(amount: int, shares: list[int]) -> None:
    """A chain of listings in which each also names the last one."""
    last = f"n{len(shares)}"
    names = [f"n{i}" for i in range(len(shares))]
    chain = [
        listing(name, (f"n{i + 1}", share), *([(last, share)] if f"n{i + 1}" != last else []))
        for i, (name, share) in enumerate(zip(names, shares, strict=True))
    ]
    lineage = Lineage([*chain, listing(last)])
    assert sum(lineage.shares(chain[0], amount).values()) == amount
