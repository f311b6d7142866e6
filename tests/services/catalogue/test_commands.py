"""A catalogue at the command line, from its folder to another user's machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from afresh.runs.content_hash import content_hash
from afresh.runs.run import Run
from afresh.services.bundles.listing import find
from tests.faces.cli.conftest import Invoke, error_of, invoke, parsed  # noqa: F401
from tests.services.catalogue.conftest import refund, session
from tests.services.provenance.conftest import content_of, facts, write_work
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
    words = ("--licence", "CC0-1.0", "--price", "free", "--title", "Small words", "--set", "name=Works", "--json")
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
    assert find("site/catalogue.json", "small-words", ()).listing.sha256 == listing["bundle"]["sha256"]
    code, _, said = invoke("get", "site", "--listing", "small-words", "--name", "words")
    assert code == 0, said
    assert invoke("sample", "runs/words", "-n", 1, "--length", 8)[0] == 0


def test_the_buyer_sees_the_licence_and_the_label_that_were_published(
    here: Path,
    invoke: Invoke,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    invoke("catalogue", "add", "text", "--licence", "CC-BY-NC-4.0", "--price", "free")
    assert invoke("catalogue", "publish", "--out", "site")[0] == 0
    labels = here / "site" / "labels" / "text"
    assert 'license: "cc-by-nc-4.0"' in (labels / "card.md").read_text()
    assert "CC-BY-NC-4.0" in (labels / "cdx.json").read_text()
    certificate = here / "keys" / "certificate.pem"
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(here / "buyer"))
    code, _, said = invoke("get", "site#text", "--trust-signer", certificate)
    assert code == 0 and "its licence is CC-BY-NC-4.0" in said
    assert "licence:      CC-BY-NC-4.0" in invoke("show", "runs/text")[1]
    seen = parsed(invoke("show", "runs/text", "--format", "label", "--json")[1])["document"]
    assert seen == json.loads((labels / "label.json").read_text()) and seen["licence"] == "CC-BY-NC-4.0"
    card = invoke("show", "runs/text", "--format", "card")[1]
    assert card.splitlines() == (labels / "card.md").read_text().splitlines()
    for more in ((), ("--accept", "licence-conflict")):
        code, _, said = invoke("export", "runs/text", "--to", "bundle", "--licence", "MIT", *more, "-o", "b.bundle")
        assert code == 2 and "its maker shares it under CC-BY-NC-4.0" in said and not (here / "b.bundle").exists()
    resale = ("catalogue", "add", "runs/text", "--licence", "MIT", "--accept", "licence-conflict", "--folder", "resold")
    assert invoke(*resale)[0] == 2
    bundle = here / "site" / "bundles" / "text" / "text.bundle"
    sold = ("catalogue", "add", bundle, "--set", "kind=model", "--folder", "resold", "--licence")
    code, _, said = invoke(*sold, "MIT")
    assert code == 2 and "was signed with the licence CC-BY-NC-4.0" in said
    assert invoke(*sold, "CC-BY-NC-4.0")[0] == 0


def test_a_free_work_is_taken_as_it_is(
    here: Path,
    invoke: Invoke,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (here / "picture.png").write_bytes(content_of(".png"))
    assert (
        invoke("catalogue", "add", "picture.png", "--set", "kind=work", "--licence", "CC-BY-4.0", "--price", "free")[0]
        == 0
    )
    assert invoke("catalogue", "publish", "--out", "site")[0] == 0
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(here / "buyer"))
    code, _, said = invoke("get", "site#picture", "--out", "got")
    assert code == 2 and "is not known here" in said and not (here / "got").exists()
    trust = ("--trust-signer", here / "keys" / "certificate.pem")
    code, _, said = invoke("get", "site#picture", *trust)
    assert code == 2 and "give the folder" in said
    code, printed, said = invoke("get", "site#picture", "--out", "got", "--json")
    made = parsed(printed)
    assert code == 0 and (made["kind"], made["files"], made["signer"]["whose"]) == ("work", 1, "known")
    assert made["facts"]["licence"] == "CC-BY-4.0"
    assert [p.name for p in (here / "got").iterdir()] == ["picture.png"]
    assert (here / "got" / "picture.png").read_bytes() == content_of(".png")
    published = here / "site" / "bundles" / "picture" / "picture.png"
    published.unlink()
    published.write_bytes(content_of(".png", 1))
    code, _, said = invoke("get", "site#picture", "--out", "other")
    assert code == 2 and "is not the work that its catalogue lists" in said and not (here / "other").exists()


def test_the_listing_of_a_work_shows_the_work_and_not_its_run(here: Path, invoke: Invoke) -> None:  # noqa: F811
    unpack(here, "flow")
    (here / "flow" / "SHA256SUMS").unlink(missing_ok=True)  # which what follows would not match
    (here / "flow" / "samples").mkdir(exist_ok=True)
    Image.new("RGB", (90, 30), "red").save(here / "flow" / "samples" / "step-9.png")
    score = {"name": "likeness", "value": 0.5, "n": 4, "better": "higher"}
    (here / "flow" / "report.json").write_text(json.dumps({"sections": [{"scores": [score], "card": {"id": "a"}}]}))
    made_by = f"sha256:{content_hash(Run.open('flow'))}"
    write_work(here / "work.png", content_of(".png"), facts(run=made_by))
    words = ("--set", "kind=work", "--licence", "CC-BY-NC-4.0", "--set", "run=flow", "--json")
    listing = parsed(invoke("catalogue", "add", "work.png", *words)[1])["listing"]
    assert listing["quality"] is None and listing["lineage"]["licence"] == "CC-BY-NC-4.0"
    assert listing["lineage"]["made from"].startswith("made by") and listing["lineage"]["family"] == "flow"
    assert listing["labels"] == ["label.json", "cdx.json"]
    shown = Image.open(here / "catalogue" / "previews" / "work.webp")
    assert shown.width == shown.height, "the work is square, and the grid of the run is not"
    listing = parsed(invoke("catalogue", "add", "flow", "--licence", "CC0-1.0", "--json")[1])["listing"]
    assert len(listing["quality"]["scores"]) == 1, "a model has the scores of its report"


def test_from_a_payment_to_a_royalty(here: Path, invoke: Invoke) -> None:  # noqa: F811
    at = ("--folder", "shop", "--json")
    code, printed, _ = invoke("catalogue", "add", "poem.txt", "--set", "kind=work", "--licence", "MIT", *at)
    assert code == 0 and parsed(printed)["listing"]["price"] is None
    link = ("--link", "https://buy.example.org/1")
    assert invoke("catalogue", "add", "poem", "--price", "12.50 EUR", *link, *at)[0] == 0
    events = [session(), session(), refund("pi_9", event="evt_9"), session("cs_2", amount=1, event="evt_2")]
    (here / "events.jsonl").write_text("\n".join(map(json.dumps, events)) + "\n")
    code, printed, _ = invoke("catalogue", "orders", "events.jsonl", *at)
    results = [o["result"] for o in parsed(printed)["outcomes"]]
    assert code == 0 and results == ["released", "repeated", "refunded", "refused"]
    code, printed, _ = invoke(
        "catalogue", "orders", "--grant", "poem", "--to", "Grace", "--set", "order=i-7", "--set", "paid=2 EUR", *at
    )
    assert parsed(printed)["result"] == "released"
    code, printed, _ = invoke("catalogue", "orders", *at)
    assert [(o["order"], o["paid"], o["to"].split()[0]) for o in parsed(printed)["orders"]] == [
        ("cs_1", "12.50 EUR", "Ada@example.org"),
        ("i-7", "2.00 EUR", "Grace"),
    ]
    assert invoke("catalogue", "royalties", "--out", "r.csv", *at)[0] == 0
    assert (here / "r.csv").read_text().splitlines()[1] == "poem,,EUR,1450,14.50,2"
    assert parsed(invoke("catalogue", "orders", "--forget", "grace", *at)[1])["orders"] == ["i-7"]
    assert invoke("catalogue", "check", *at)[0] == 0
    assert invoke("catalogue", "publish", "--remove", "poem", "--reason", "A claim", *at)[0] == 0
    ledger = here / "shop" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b"1250", b"9950", 1))
    code, printed, _ = invoke("catalogue", "check", *at)
    assert code == 1 and "was changed: line" in parsed(printed)["faults"][0]
    for words in (
        ("publish", "--dry-run", "--folder", "shop"),
        ("check", "--folder", "shop"),
        ("publish", "--folder", "shop"),
    ):
        assert invoke("catalogue", *words)[0] in (0, 1, 2)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("publish", "--dry-run"), "afresh catalogue add"),
        (("add", "poem.txt", "--licence", "MIT", "--folder", "shop"), "--set kind"),
        (("add", "text", "--licence", "MIT", "--set", "kind=work", "--folder", "shop"), "leave out the settings kind"),
        (("add", "nothing", "--licence", "MIT", "--folder", "shop"), "nothing"),
        (("add", "other", "--price", "nan", "--folder", "shop"), "no listing"),
        (("add", "poem.txt", "--folder", "shop"), "--licence"),
        (("add", "poem", "--licence", "MIT", "--set", "stripe_key=poem.txt"), "without --set stripe_key"),
        (("orders", "--to", "A", "--folder", "shop"), "--grant"),
        (("orders", "x.jsonl", "--forget", "A", "--folder", "shop"), "--forget"),
        (("add", "poem.txt", "--licence", "MIT", "--set", "colour=red", "--folder", "new"), "colour"),
        (("royalties", "--set", "since=May", "--folder", "shop"), "no day"),
        (("serve", "--secret-file", "poem.txt", "--folder", "shop"), "200 words"),
        (
            ("orders", "--grant", "poem", "--to", "A", "--set", "paid=1", "--folder", "shop"),
            "not a number and a currency",
        ),
        (("sell",), "No such command"),
    ],
)
def test_what_is_wrong_is_said(here: Path, invoke: Invoke, words: tuple[str, ...], says: str) -> None:  # noqa: F811
    invoke("catalogue", "add", "poem.txt", "--set", "kind=work", "--licence", "MIT", "--folder", "shop")
    code, _, said = invoke("catalogue", *words)
    assert code == 2 and says in said
