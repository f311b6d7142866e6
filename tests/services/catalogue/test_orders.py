"""What was paid for is released once, and everything else is said and recorded."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from afresh.core import UserError
from afresh.core.money import parse_money
from afresh.services.catalogue.add import add, set_price, take_down
from afresh.services.catalogue.folder import Catalogue
from afresh.services.catalogue.ledger import check_ledger
from afresh.services.catalogue.orders import Link, Notice, Orders, Outcome, as_csv, royalties
from afresh.services.catalogue.stripe import notice_of
from afresh.services.provenance.layers import Status
from afresh.services.provenance.read import read
from tests.services.catalogue.conftest import refund, session, wire


def notice(event: dict[str, Any]) -> Notice:
    found = notice_of(wire(event))
    assert isinstance(found, Notice), found
    return found


def reopened(catalogue: Catalogue) -> Orders:
    """As another process has it."""
    return Orders(Catalogue.open(catalogue.folder))


def recorded(catalogue: Catalogue) -> list[dict[str, Any]]:
    """The lines about orders."""
    lines = [json.loads(line) for line in catalogue.ledger.path.read_bytes().splitlines()]
    return [e for e in lines if e["what"] not in ("added", "priced", "removed", "published")]


def received(catalogue: Catalogue, event: dict[str, Any]) -> Outcome:
    return reopened(catalogue).receive(notice(event))


def link_of(url: str) -> tuple[Link, str]:
    from urllib.parse import parse_qs, urlsplit

    parts = urlsplit(url)
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    return Link(parts.path.split("/")[-1], query["order"], int(query["expires"])), query["signature"]


def test_a_payment_releases_a_bundle(catalogue: Catalogue) -> None:
    made = received(catalogue, session())
    assert made.result == "released" and made.link.startswith("http://127.0.0.1:8090/bundles/poem?order=cs_1")
    orders = reopened(catalogue)
    assert orders.delivered(*link_of(made.link)).read_text().startswith("The sea")
    (line,) = recorded(catalogue)
    assert (line["what"], line["amount"], line["currency"], line["shares"]) == ("released", 1250, "EUR", {"poem": 1250})
    receipt = catalogue.folder / "receipts" / "cs_1.json"
    said = json.loads(receipt.read_text())
    assert said["paid"]["written"] == "12.50 EUR" and said["ledger_line"] == line["n"] and said["title"] == "Poem"
    assert read(receipt).status is Status.VALID
    assert "Ada" not in catalogue.ledger.path.read_text() + receipt.read_text()


def test_a_notice_that_comes_twice_releases_once(catalogue: Catalogue) -> None:
    first = received(catalogue, session())
    again = received(catalogue, session())
    assert again.result == "repeated" and again.link == first.link and len(recorded(catalogue)) == 1
    other = received(catalogue, session(event="evt_2", kind="checkout.session.async_payment_succeeded"))
    assert other.result == "repeated" and other.link == first.link
    assert [e["what"] for e in recorded(catalogue)] == ["released", "repeated"]


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (session(amount=1249), "12.49 EUR was paid, and poem costs 12.50 EUR"),
        (session(amount=125_000), "1250.00 EUR was paid"),
        (session(currency="usd"), "12.50 USD was paid"),
        (session(currency="jpy"), "1250 JPY was paid"),
        (session(listing="nothing"), "no listing 'nothing'"),
        (session(listing="../settings"), "no listing"),
        (session(listing="picture"), "has no price"),
        (session(metadata={}), "names no listing"),
        (session(metadata={"afresh_listing": "poem", "afresh_catalogue": "0" * 32}), "another catalogue"),
        (session(order="../../etc/passwd"), "not an order number"),
    ],
)
def test_what_was_not_paid_for_is_refused_and_recorded(catalogue: Catalogue, event: dict[str, Any], says: str) -> None:
    made = received(catalogue, event)
    assert made.result == "refused" and says in made.detail and not made.link
    (line,) = recorded(catalogue)
    assert line["what"] == "refused" and line["reason"] == made.detail
    assert received(catalogue, event).result == "repeated" and len(recorded(catalogue)) == 1
    assert not list((catalogue.folder / "receipts").glob("*"))
    assert not list((catalogue.folder / "buyers").glob("*"))  # nothing is kept of somebody who gets nothing


def test_an_order_is_one_of_one_listing(catalogue: Catalogue, tmp_path: Path) -> None:
    add(catalogue, tmp_path / "poem.txt", kind="work", licence="MIT", id="second", price="12.50 EUR")
    received(catalogue, session())
    made = received(catalogue, session(listing="second", event="evt_2"))
    assert made.result == "refused" and "is one of poem, and not of second" in made.detail


def test_taxes_beside_or_within_the_price_are_understood(catalogue: Catalogue) -> None:
    assert received(catalogue, session(amount=1488, tax=238)).result == "released"
    within = session(amount=1250, tax=200, order="cs_2", event="evt_2", payment="pi_2")
    assert received(catalogue, within).result == "released"


def test_what_is_not_paid_yet_and_what_is_of_no_concern_is_ignored() -> None:
    assert "not complete yet" in str(notice_of(wire(session(status="unpaid"))))
    assert "not heeded" in str(notice_of(wire({**session(), "type": "customer.created"})))


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"{", b"[]", b'{"id": "evt_1"}', b"\xff", b"[" * 100_000),
        *map(wire, (session(amount=-1), session(currency="euro"), {**session(), "data": {}})),
        wire({**session(), "data": {"object": {"id": 3}}}),
    ],
)
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    with pytest.raises(UserError, match="no event of Stripe"):
        notice_of(payload)


def test_a_refund_ends_the_link(catalogue: Catalogue) -> None:
    link = received(catalogue, session()).link
    assert received(catalogue, refund(amount=250)).result == "refunded"
    reopened(catalogue).delivered(*link_of(link))  # a part of the price was paid back
    made = received(catalogue, refund(event="evt_r2"))
    assert made.result == "refunded" and "no longer valid" in made.detail
    with pytest.raises(UserError, match="paid back"):
        reopened(catalogue).delivered(*link_of(link))
    assert received(catalogue, session()).link == ""
    with pytest.raises(UserError, match="paid back"):
        reopened(catalogue).grant("poem", "Ada", "cs_1")


def test_a_refund_that_comes_before_its_payment_withholds_it(catalogue: Catalogue) -> None:
    early = received(catalogue, refund())
    assert early.result == "refunded" and "has not come yet" in early.detail
    made = received(catalogue, session())
    assert made.result == "withheld" and not made.link
    assert [e["what"] for e in recorded(catalogue)] == ["refunded", "withheld"]
    assert royalties(Catalogue.open(catalogue.folder))[0]["amount_minor"] == 0
    partly = refund("pi_2", 50, "evt_3")
    received(catalogue, partly)
    assert received(catalogue, session("cs_2", event="evt_4", payment="pi_2")).result == "released"


def test_a_refund_in_another_currency_does_not_count(catalogue: Catalogue) -> None:
    assert received(catalogue, refund(currency="usd")).result == "refunded", "of a payment that is not known yet"
    assert received(catalogue, refund(amount=250, event="evt_part")).result == "refunded"
    made = received(catalogue, session())
    assert made.result == "released" and made.link
    assert reopened(catalogue).known["cs_1"].refunded == 250
    assert royalties(Catalogue.open(catalogue.folder))[0]["amount_minor"] == 1000
    late = received(catalogue, refund(currency="usd", event="evt_late"))
    assert late.result == "refused" and "12.50 USD was paid back of a payment in EUR" in late.detail
    assert reopened(catalogue).known["cs_1"].refunded == 250


def test_refunds_out_of_order_count_what_was_paid_back_at_most(catalogue: Catalogue) -> None:
    received(catalogue, session())
    received(catalogue, refund(amount=600, event="evt_late"))
    received(catalogue, refund(amount=200, event="evt_early"))
    assert reopened(catalogue).known["cs_1"].refunded == 600
    assert received(catalogue, refund(currency="usd", event="evt_u")).result == "refused"


def test_what_was_taken_down_is_neither_sold_nor_delivered(catalogue: Catalogue) -> None:
    link = received(catalogue, session()).link
    take_down(catalogue, "poem", "A claim")
    with pytest.raises(UserError, match="taken down"):
        reopened(catalogue).delivered(*link_of(link))
    assert "paid back" in received(catalogue, session("cs_2", event="evt_2")).detail
    with pytest.raises(UserError, match="A claim"):
        reopened(catalogue).grant("poem", "Ada")


def test_a_grant_is_released_once(catalogue: Catalogue) -> None:
    made = reopened(catalogue).grant("poem", "Grace", "invoice-7", parse_money("10 EUR"))
    again = reopened(catalogue).grant("poem", "Grace", "invoice-7", parse_money("10 EUR"))
    assert (made.result, again.result) == ("released", "repeated") and made.link == again.link
    assert len(recorded(catalogue)) == 1
    gift = reopened(catalogue).grant("picture", "Grace")
    assert gift.order.startswith("grant-") and "amount" not in recorded(catalogue)[1]
    for order, listing, says in (
        ("invoice-7", "picture", "The order invoice-7 is one of poem"),
        ("../x", "poem", "is not a number of an order"),
        ("", "nothing", "has no listing 'nothing'"),
    ):
        with pytest.raises(UserError, match=says):
            reopened(catalogue).grant(listing, "Grace", order)
    assert len(recorded(catalogue)) == 2


def test_a_link_that_has_expired_is_renewed_by_the_seller(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = reopened(catalogue).grant("poem", "Grace", "invoice-7").link
    week = time.time() + 8 * 86_400
    monkeypatch.setattr(
        "afresh.services.catalogue.orders.time", type("Later", (), {"time": staticmethod(lambda: week)})
    )
    with pytest.raises(UserError, match="expired"):
        reopened(catalogue).delivered(*link_of(old))
    new = reopened(catalogue).grant("poem", "Grace", "invoice-7").link
    assert new != old and reopened(catalogue).delivered(*link_of(new))
    assert [e["what"] for e in recorded(catalogue)] == ["released", "renewed"]


def test_every_change_of_a_link_is_refused(catalogue: Catalogue) -> None:
    link, signature = link_of(received(catalogue, session()).link)
    orders = reopened(catalogue)
    for other in (
        Link("picture", link.order, link.expires),
        Link(link.listing, "cs_2", link.expires),
        Link(link.listing, link.order, link.expires + 1),
        Link("poem\0cs_1", "", link.expires),
    ):
        with pytest.raises(UserError, match="was changed"):
            orders.delivered(other, signature)
    for bad in ("", signature[:-1], signature[:-1] + ("0" if signature[-1] != "0" else "1"), "é"):
        with pytest.raises(UserError, match="was changed"):
            orders.delivered(link, bad)


def test_what_a_kill_left_undone_is_done_when_the_notice_comes_again(catalogue: Catalogue) -> None:
    received(catalogue, session())
    receipt = catalogue.folder / "receipts" / "cs_1.json"
    content = receipt.read_bytes()
    receipt.unlink()
    assert received(catalogue, session()).result == "repeated" and receipt.read_bytes() == content


def test_a_buyer_is_forgotten_and_the_chain_holds(catalogue: Catalogue) -> None:
    received(catalogue, session())
    received(catalogue, session("cs_2", event="evt_2", payment="pi_2"))
    link = reopened(catalogue).grant("poem", "Grace").link
    before = catalogue.ledger.path.read_bytes()
    orders = reopened(catalogue)
    buyer = orders.buyers.of("cs_1")
    assert buyer is not None and buyer.who["email"] == "Ada@example.org"
    assert recorded(catalogue)[0]["buyer"] == buyer.hash != recorded(catalogue)[1]["buyer"]  # salted
    assert orders.forget("ADA@example.org") == ["cs_1", "cs_2"]
    assert catalogue.ledger.path.read_bytes().startswith(before) and check_ledger(catalogue.ledger.path)[2] == 0
    rest = b"".join(p.read_bytes() for p in catalogue.folder.rglob("*") if p.is_file())
    assert b"Ada" not in rest and b"Grace" in rest
    assert recorded(catalogue)[-1]["what"] == "forgotten"
    assert reopened(catalogue).delivered(*link_of(link))
    with pytest.raises(UserError, match="No buyer"):
        reopened(catalogue).forget("ada@example.org")
    assert received(catalogue, session()).result == "repeated"
    assert reopened(catalogue).buyers.of("cs_1") is None  # a notice that is sent again brings nothing back


def test_threads_that_take_one_notice_at_once_release_it_once(catalogue: Catalogue) -> None:
    orders = reopened(catalogue)
    with ThreadPoolExecutor(8) as pool:
        for i in range(20):
            event = notice(session(f"cs_{i}", event=f"evt_{i}", payment=f"pi_{i}"))
            made = list(pool.map(orders.receive, [event] * 8))
            assert sorted(m.result for m in made) == ["released"] + ["repeated"] * 7
            assert len({m.link for m in made}) == 1
    assert [e["what"] for e in recorded(catalogue)] == ["released"] * 20


def test_personal_data_is_readable_by_its_owner_alone(catalogue: Catalogue) -> None:
    received(catalogue, session())
    folder = catalogue.folder / "buyers"
    assert folder.stat().st_mode & 0o077 == 0
    assert [p.stat().st_mode & 0o077 for p in folder.iterdir()] == [0]


def test_royalties_are_summed_to_the_cent(catalogue: Catalogue, tmp_path: Path) -> None:
    """Two payments of 10.01: 851 + 150 each, of which 10% and 5%; half of the second was paid back."""
    add(catalogue, tmp_path / "poem.txt", kind="model", licence="MIT", id="base", maker="=HYPERLINK(1)")
    parents = ["base=10", f"{'f' * 64}=5"]
    add(catalogue, tmp_path / "poem.txt", kind="model", licence="MIT", id="own", price="10.01 EUR", parents=parents)
    for i in "12":
        made = received(catalogue, session(f"cs_{i}", "own", 1001, event=f"evt_{i}", payment=f"pi_{i}"))
        assert made.result == "released"
    received(catalogue, refund("pi_2", 500))
    set_price(catalogue, "own", "99 EUR")  # changes nothing of what was paid
    rows = royalties(Catalogue.open(catalogue.folder))
    assert {r["to"]: r["amount_minor"] for r in rows} == {"own": 1277, "base": 150, "f" * 64: 75}
    assert sum(r["amount_minor"] for r in rows) == 2002 - 500
    text = as_csv(rows)
    assert "base,'=HYPERLINK(1),EUR,150,1.50,2" in text.splitlines()
    paid_on = {datetime.fromisoformat(line["at"]).date() for line in recorded(catalogue) if line["what"] == "released"}
    first, last, day = min(paid_on), max(paid_on), timedelta(days=1)
    assert royalties(Catalogue.open(catalogue.folder), since=first, until=last) == rows, "both days count"
    assert royalties(Catalogue.open(catalogue.folder), until=first - day) == []
    assert royalties(Catalogue.open(catalogue.folder), since=last + day) == []
