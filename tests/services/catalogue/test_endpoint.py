"""The endpoint over HTTP: signed notices in, bundles out. And the client library against a server in Stripe's place."""

from __future__ import annotations

import html
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from afresh.core import UserError
from afresh.services.catalogue.folder import Catalogue
from afresh.services.catalogue.stripe import payment_link
from tests import needs
from tests.services.catalogue.conftest import SECRET, refund, session, signed, wire

needs.package("stripe", "'afresh[payments]'")


@pytest.fixture
def client(catalogue: Catalogue) -> Iterator[httpx.Client]:
    from afresh.faces.http.catalogue import catalogue_server
    from afresh.faces.http.listen import bound

    sock = bound("127.0.0.1", 0)
    server = catalogue_server(Catalogue.open(catalogue.folder), SECRET)
    thread = threading.Thread(target=lambda: server.run(sockets=[sock]), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    with httpx.Client(base_url=f"http://127.0.0.1:{sock.getsockname()[1]}", timeout=30) as opened:
        yield opened
    server.should_exit = True
    thread.join()


def send(client: httpx.Client, event: dict[str, Any], **how: Any) -> httpx.Response:
    payload = wire(event)
    return client.post("/payments/stripe", content=payload, headers={"Stripe-Signature": signed(payload, **how)})


def local(link: str) -> str:
    """The path of a link, whose server is another one in these tests."""
    parts = urlsplit(link)
    return f"{parts.path}?{parts.query}"


def test_a_notice_releases_a_bundle_that_is_taken_in_ranges(client: httpx.Client, catalogue: Catalogue) -> None:
    assert client.get("/orders/cs_1").status_code == 404
    assert send(client, session()).json()["result"] == "released"
    answer = client.get("/orders/cs_1").json()
    assert answer["receipt"]["order"] == "cs_1"
    path, whole = local(answer["link"]), catalogue.bundle(catalogue.listing("poem")).read_bytes()
    got = client.get(path)
    assert got.content == whole and got.headers["cache-control"] == "private, no-store"
    assert 'filename="poem.txt"' in got.headers["content-disposition"]
    part = client.get(path, headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == whole[10:20]
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole)}"
    assert client.get(path, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"secret": "whsec_other"}, "not signed by Stripe"),
        ({"at": time.time() - 3600}, "older than 300"),
        ({"at": time.time() + 3600}, "clock of this machine is behind"),
    ],
)
def test_a_notice_of_somebody_else_or_of_another_time_is_refused(
    client: httpx.Client, catalogue: Catalogue, how: dict[str, Any], says: str
) -> None:
    before = catalogue.ledger.path.read_bytes()
    answer = send(client, session(), **how)
    assert answer.status_code == 400 and says in answer.json()["detail"]
    assert catalogue.ledger.path.read_bytes() == before


@pytest.mark.parametrize("header", ["", "t=1", "t=x,v1=y", "v1=00", "t=1,v1=", "\x7f", "t=1,v0=00", "t=" + "9" * 400])
def test_a_header_that_is_none_is_refused(client: httpx.Client, header: str) -> None:
    answer = client.post("/payments/stripe", content=wire(session()), headers={"Stripe-Signature": header})
    assert answer.status_code == 400


def fields_of(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all fields of an event that are no objects."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from fields_of(inner, (*at, name))
    else:
        yield at


COUNTED = ("id", "type", "payment_intent", "amount_total", "amount_tax", "amount_refunded", "currency", "name", "email",
           "payment_status", "afresh_listing", "afresh_catalogue")  # fmt: skip


@pytest.mark.parametrize(
    "value", ["x" * 70_000, "\ud800", 10**4000, -1], ids=["long", "surrogate", "large", "negative"]
)
@pytest.mark.parametrize("event", [session(metadata={"afresh_listing": "poem", "afresh_catalogue": ""}), refund()])
def test_a_field_that_no_notice_has_is_refused_whatever_field_it_is(
    client: httpx.Client, catalogue: Catalogue, event: dict[str, Any], value: Any
) -> None:
    before = catalogue.ledger.path.read_bytes()
    for number, path in enumerate(fields_of(event)):
        changed = json.loads(json.dumps(event))
        changed["id"], changed["data"]["object"]["id"] = f"evt_{number}", f"cs_{number}"
        at = changed
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = value
        payload = json.dumps(changed).encode()
        answer = client.post("/payments/stripe", content=payload, headers={"Stripe-Signature": signed(payload)})
        assert answer.status_code == (400 if path[-1] in COUNTED and path != ("request", "id") else 200), path
        if answer.status_code == 200:
            assert answer.json()["result"] in ("released", "refunded"), path
    assert catalogue.ledger.path.read_bytes().startswith(before)


def test_a_body_that_was_changed_is_refused(client: httpx.Client) -> None:
    payload = wire(session())
    changed = payload.replace(b"1250", b"1251")
    header = {"Stripe-Signature": signed(payload)}
    assert client.post("/payments/stripe", content=changed, headers=header).status_code == 400
    assert client.post("/payments/stripe", content=b"x" * (1 << 19), headers=header).status_code == 413
    bad = b"\xff\xfe"
    assert client.post("/payments/stripe", content=bad, headers={"Stripe-Signature": signed(bad)}).status_code == 400


def test_a_buyer_sees_a_page(client: httpx.Client, catalogue: Catalogue) -> None:
    person = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    early = client.get("/orders/cs_1", headers=person)
    assert early.status_code == 404 and "has not come yet" in early.text and early.headers["refresh"] == "5"
    send(client, session())
    page = client.get("/orders/cs_1", headers=person)
    assert page.headers["content-type"].startswith("text/html") and page.headers["referrer-policy"] == "no-referrer"
    assert "Download Poem" in page.text and "12.50 EUR" in page.text and "Ada" not in page.text
    link = re.search(r'href="(http://127.0.0.1:8090/bundles/[^"]+)"', page.text)
    assert link is not None and client.get(local(html.unescape(link[1]))).status_code == 200
    send(client, refund())
    assert "paid back" in client.get("/orders/cs_1", headers=person).text


def test_links_that_do_not_count(client: httpx.Client) -> None:
    send(client, session())
    path = local(client.get("/orders/cs_1").json()["link"])
    assert client.get(path.replace("poem", "picture")).status_code == 403
    assert client.get(path[:-1] + ("0" if path[-1] != "0" else "1")).status_code == 403
    assert client.get("/bundles/poem").status_code == 422
    send(client, refund())
    assert client.get(path).status_code == 410
    assert client.get("/orders/cs_1").json()["link"] is None


def test_the_endpoint_imports_no_networks() -> None:
    command = "import sys, afresh.faces.http.catalogue; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", command], check=True)


def test_requests_that_do_not_arrive_do_not_hold_the_endpoint(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = client.base_url.host, client.base_url.port
    with ExitStack() as stack:
        for _ in range(140):
            sock = stack.enter_context(socket.create_connection(where, source_address=("127.0.0.2", 0)))
            sock.sendall(b"GET /orders/cs_1 HTTP/1.1\r\nx: ")
        assert client.get("/orders/cs_1").status_code == 404
    monkeypatch.setattr("afresh.faces.http.catalogue.BODY_SECONDS", 0.2)
    with socket.create_connection(where, timeout=30) as sock:
        sock.sendall(b"POST /payments/stripe HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99\r\n\r\n{")
        assert sock.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_pages_of_other_hosts_are_not_answered(client: httpx.Client) -> None:
    assert client.get("/orders/cs_1", headers={"Host": "evil.example.org"}).status_code == 400


# --------------------------------------------------------------------------- payment links


class Stripe(BaseHTTPRequestHandler):
    """What Stripe's API answers to the making of a payment link (https://docs.stripe.com/api/payment-link/create)."""

    asked: list[tuple[str, dict[str, str], str]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        fields = {key: values[0] for key, values in parse_qs(body).items()}
        type(self).asked.append((self.path, fields, self.headers["idempotency-key"]))
        refused = fields.get("line_items[0][price_data][currency]") == "xpf"
        link = {"id": "plink_2", "object": "payment_link", "active": True, "url": "https://buy.stripe.com/test_2"}
        error = {"error": {"type": "invalid_request_error", "message": "Your account cannot take XPF."}}
        content = json.dumps(error if refused else link).encode()
        self.send_response(400 if refused else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def stripe() -> Iterator[str]:
    Stripe.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stripe)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_payment_link_is_made(catalogue: Catalogue, stripe: str, tmp_path: Path) -> None:
    listing = catalogue.listing("poem").model_copy(update={"payment_link": "plink_1"})
    assert payment_link(catalogue, listing, "sk_test_x", stripe) == ("https://buy.stripe.com/test_2", "plink_2")
    (path, fields, once), (old, gone, _) = Stripe.asked
    assert path == "/v1/payment_links" and fields["line_items[0][price_data][unit_amount]"] == "1250"
    assert fields["line_items[0][price_data][currency]"] == "eur" and fields["metadata[afresh_listing]"] == "poem"
    assert fields["metadata[afresh_catalogue]"] == catalogue.settings.id and catalogue.settings.id in once
    assert fields["after_completion[redirect][url]"].endswith("/orders/{CHECKOUT_SESSION_ID}")
    assert old == "/v1/payment_links/plink_1" and gone["active"].lower() == "false"


def test_what_stripe_refuses_is_said(catalogue: Catalogue, stripe: str) -> None:
    from afresh.services.catalogue.add import set_price

    listing = set_price(catalogue, "poem", "500 XPF")
    with pytest.raises(UserError, match="Your account cannot take XPF"):
        payment_link(catalogue, listing, "sk_test_x", stripe)
