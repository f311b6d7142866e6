"""A catalogue at the command line, from its folder to another user's machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from afresh.bundles.listing import find
from tests.catalogue.conftest import refund, session
from tests.cli.conftest import Invoke, error_of, invoke, parsed  # noqa: F401
from tests.test_old_runs import unpack


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with the run `text` of an earlier version, and keys of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(tmp_path / "keys"))
    monkeypatch.setenv("AFRESH_KERNELS", "false")
    unpack(tmp_path, "text")
    (tmp_path / "poem.txt").write_text("The sea at night. " * 50)
    return tmp_path


def test_from_a_run_to_another_catalogue(here: Path, invoke: Invoke) -> None:  # noqa: F811
    assert invoke("catalogue", "init", "--name", "Works")[0] == 0
    words = ("--licence", "CC0-1.0", "--price", "free", "--title", "Small words", "--json")
    code, printed, _ = invoke("catalogue", "add", "text", *words)
    listing = parsed(printed)["listing"]
    assert code == 0 and listing["id"] == "small-words" and listing["kind"] == "model"
    assert listing["bundle"]["name"] == "text.bundle" and listing["lineage"]["family"] == "transformer"
    assert invoke("catalogue", "publish", "--out", "site")[0] == 0
    page = (here / "site" / "listings" / "small-words.html").read_text()
    for said in ("licences that follow", "made from", "training", "labels/small-words/card.md"):
        assert said in page
    for name in listing["labels"]:
        assert (here / "site" / "labels" / "small-words" / name).stat().st_size > 500
    label = json.loads((here / "site" / "labels" / "small-words" / "label.json").read_text())
    assert label["id"] == listing["lineage"]["content hash"] and label["training"]["joules"] > 0
    assert find("site/catalogue.json", "small-words", ()).sha256 == listing["bundle"]["sha256"]
    code, _, said = invoke("get", "site", "--listing", "small-words", "--name", "words")
    assert code == 0, said
    assert invoke("sample", "runs/words", "-n", 1, "--length", 8)[0] == 0


def test_from_a_payment_to_a_royalty(here: Path, invoke: Invoke) -> None:  # noqa: F811
    invoke("catalogue", "init", "shop")
    at = ("--folder", "shop", "--json")
    code, printed, _ = invoke("catalogue", "add", "poem.txt", "--kind", "work", "--licence", "MIT", *at)
    assert code == 0 and parsed(printed)["listing"]["price"] is None
    link = ("--link", "https://buy.example.org/1")
    assert invoke("catalogue", "price", "poem", "12.50 EUR", *link, *at)[0] == 0
    events = [session(), session(), refund("pi_9", event="evt_9"), session("cs_2", amount=1, event="evt_2")]
    (here / "events.jsonl").write_text("\n".join(map(json.dumps, events)) + "\n")
    code, printed, _ = invoke("catalogue", "payments", "events.jsonl", *at)
    results = [o["result"] for o in parsed(printed)["outcomes"]]
    assert code == 0 and results == ["released", "repeated", "refunded", "refused"]
    code, printed, _ = invoke("catalogue", "grant", "poem", "--to", "Grace", "--order", "i-7", "--paid", "2 EUR", *at)
    assert parsed(printed)["result"] == "released"
    code, printed, _ = invoke("catalogue", "payments", *at)
    assert [(o["order"], o["paid"], o["to"].split()[0]) for o in parsed(printed)["orders"]] == [
        ("cs_1", "12.50 EUR", "Ada@example.org"),
        ("i-7", "2.00 EUR", "Grace"),
    ]
    assert invoke("catalogue", "royalties", "--out", "r.csv", *at)[0] == 0
    assert (here / "r.csv").read_text().splitlines()[1] == "poem,,EUR,1450,14.50,2"
    assert parsed(invoke("catalogue", "forget", "grace", *at)[1])["orders"] == ["i-7"]
    assert invoke("catalogue", "check", *at)[0] == 0
    assert invoke("catalogue", "remove", "poem", "--reason", "A claim", *at)[0] == 0
    ledger = here / "shop" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b"1250", b"9950", 1))
    code, printed, _ = invoke("catalogue", "check", *at)
    assert code == 1 and "was changed: line" in parsed(printed)["faults"][0]
    for words in (("list", "--folder", "shop"), ("check", "--folder", "shop"), ("publish", "--folder", "shop")):
        assert invoke("catalogue", *words)[0] in (0, 1, 2)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("list",), "afresh catalogue init"),
        (("add", "poem.txt", "--licence", "MIT", "--folder", "shop"), "--kind"),
        (("add", "text", "--licence", "MIT", "--kind", "work", "--folder", "shop"), "leave out --kind"),
        (("add", "nothing", "--licence", "MIT", "--folder", "shop"), "nothing"),
        (("price", "poem", "nan", "--folder", "shop"), "no listing"),
        (("royalties", "--since", "May", "--folder", "shop"), "no day"),
        (("serve", "--secret-file", "poem.txt", "--folder", "shop"), "200 words"),
        (("grant", "poem", "--to", "A", "--paid", "1", "--folder", "shop"), "no number and a currency"),
        (("sell",), "No such command"),
    ],
)
def test_what_is_wrong_is_said(here: Path, invoke: Invoke, words: tuple[str, ...], says: str) -> None:  # noqa: F811
    invoke("catalogue", "init", "shop")
    code, _, said = invoke("catalogue", *words)
    assert code == 2 and says in said
