"""`afresh catalogue`: models, adapters, data sets and works that are offered, and what was paid for them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afresh.core.plural import counted, size
from afresh.faces.cli import options as o
from afresh.faces.cli.group import Group
from afresh.faces.cli.paths import Refusal, existing, existing_run, run_path
from afresh.faces.cli.show import answer, emit, note, say, table

if TYPE_CHECKING:
    from afresh.services.catalogue.folder import Catalogue
    from afresh.services.catalogue.listing import Listing
    from afresh.services.catalogue.orders import Orders

Folder = Annotated[Path, o.option("The folder of the catalogue.", metavar="CATALOGUE")]
RELEASE = "Release a listing"
HERE = Path("catalogue")


def opened(folder: Path) -> Catalogue:
    """The catalogue in a folder. Raises UserError if there is none."""
    from afresh.services.catalogue.folder import Catalogue

    return Catalogue.open(folder)


def tell(as_json: bool, fields: dict[str, Any], sentence: str) -> None:
    """The result of a command: its fields for programs, or a sentence."""
    if as_json:
        emit(fields)
    else:
        say(sentence)


def add(
    file: Annotated[
        Path,
        typer.Argument(
            help="The file that is delivered, or a run, which is packed; without --licence, a listing that has another "
            "price.",
            metavar="FILE|RUN|LISTING",
        ),
    ],
    licence: Annotated[str, o.option("An expression of SPDX, as CC-BY-4.0, or the text of your own.")] = "",
    kind: Annotated[str, o.setting("model, adapter, data or work; of a run it is known.")] = "",
    title: Annotated[str, o.option("What it is called; else as its file.")] = "",
    id: Annotated[str, o.setting("Its id; else made of the title. One that exists is replaced.")] = "",
    price: Annotated[str | None, o.option("As '12.50 EUR', or free; it may be given later.")] = None,
    link: Annotated[str | None, o.option("Where it is bought: https://...", metavar="URL")] = None,
    stripe_key: Annotated[
        Path | None,
        o.setting("A file with a key of Stripe, by which a payment link is made.", metavar="FILE", callback=existing),
    ] = None,
    summary: Annotated[str, o.option("What it is, in a few sentences.")] = "",
    terms: Annotated[str, o.setting("Terms beside the licence.")] = "",
    maker: Annotated[str, o.option("Who made it; else the maker of the catalogue.")] = "",
    safety: Annotated[str, o.setting("What it must not be used for, and what may go wrong.")] = "",
    preview: Annotated[Path | None, o.setting("A picture, sound or text that shows it.", callback=existing)] = None,
    run: Annotated[
        Path | None, o.setting("The run whose scores, card and lineage are shown.", callback=existing_run)
    ] = None,
    parent: Annotated[
        list[str] | None,
        o.setting("What it was made from, by id or SHA-256, and its share in percent.", metavar="PARENT=SHARE"),
    ] = None,
    accept: Annotated[
        list[str] | None, o.option("What stands against sharing a run, and may, as for `afresh export`.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Of a new catalogue: name; maker; url, where the site will be; delivery, where buyers reach "
            "`afresh catalogue serve`; days, for which a link to a file is valid.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    folder: Folder = HERE,
    as_json: Annotated[bool, o.json_of("{listing}")] = False,
) -> None:
    """Add a model, an adapter, a data set or a work to a catalogue, creating it if needed; or give a listing
    a price, and the link where it is bought."""
    from afresh.core.options import pairs
    from afresh.services.catalogue import add as adding
    from afresh.services.catalogue.folder import SETTINGS, Catalogue

    facts: dict[str, Any] = {"title": title, "summary": summary, "terms": terms, "maker": maker, "safety": safety}
    facts |= {"id": id, "preview": preview, "parents": parent or ()}
    if not licence:
        if price is None or kind or run or accept or setting or any(facts.values()):
            raise Refusal("Give the --licence of what is added, or the id of a listing with its --price.")
        reprice(folder, str(file), price, link, stripe_key, as_json)
        return
    if stripe_key is not None:
        raise Refusal("A payment link is made of a listing that is there. Add it first, without --set stripe_key.")
    file = file if file.is_file() and run_path(file) == file else existing_run(file) or file
    made_new = setting or not (folder / SETTINGS).is_file()
    catalogue = Catalogue.init(folder, **pairs(setting or [], "--set")) if made_new else opened(folder)
    facts |= {"price": price, "link": link}
    if file.is_dir():
        if kind or run:
            raise Refusal(
                "The kind of a run is known, and its own scores are shown: leave out the settings kind and run."
            )
        made = adding.add_run(catalogue, file, licence=licence, accept=accept or (), **facts)
    elif not kind or accept:
        raise Refusal(
            f"{file} is a file, so say what it is with --set kind=KIND, and leave out --accept, which is of runs."
        )
    else:
        made = adding.add(catalogue, file, kind=kind, licence=licence, run=run, **facts)
    if as_json:
        emit({"listing": made.model_dump(mode="json")})
        return
    say(f"{made.id}: {made.title}, {size(made.bundle.size)}, {made.licence}")
    if made.price is None:
        note(f"It is not published before it has a price: afresh catalogue add {made.id} --price '12.50 EUR', or free.")


def reprice(folder: Path, listing: str, price: str, link: str | None, stripe_key: Path | None, as_json: bool) -> None:
    from afresh.core import UserError
    from afresh.services.catalogue.add import set_price

    if link is not None and stripe_key is not None:
        raise UserError("A payment link is made, or one is given: leave out `link` or `stripe_key`.", "link")
    catalogue = opened(folder)
    before, made = catalogue.listing(listing), set_price(catalogue, listing, price, link)
    if stripe_key is not None and made.money is not None:
        from afresh.services.catalogue.stripe import payment_link

        asked = made.model_copy(update={"payment_link": before.payment_link})
        url, name = payment_link(catalogue, asked, secret_in(stripe_key))
        made = set_price(catalogue, listing, price, url, name)
    if as_json:
        emit({"listing": made.model_dump(mode="json")})
    else:
        say(f"{made.id}: {made.price}" + (f", bought at {made.link}" if made.link else ""))
        if made.money is not None and made.link is None:
            note("It cannot be bought before it has a link: --link URL.")


def publish(
    out: Annotated[Path | None, o.option("The folder of the site; CATALOGUE/site if not given.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the catalogue; write nothing.")] = False,
    remove: Annotated[
        str | None,
        o.option("Before: take this listing down, so that it is not offered or delivered.", metavar="LISTING"),
    ] = None,
    reason: Annotated[str, o.option("Why it is taken down, which the ledger keeps.")] = "",
    folder: Folder = HERE,
    open_page: Annotated[bool, o.open_option("Open the site in the browser.")] = False,
    as_json: Annotated[bool, o.json_of("{out, listings}, or {listings}")] = False,
) -> None:
    """Write the catalogue as a site that opens from a folder and can be put on any host."""
    from afresh.services.catalogue.add import take_down
    from afresh.services.catalogue.site import publish as write_site

    catalogue, place = opened(folder), out or folder / "site"
    if dry_run:
        list_all(catalogue.listings(), as_json)
        return
    if remove is not None:
        say(f"{take_down(catalogue, remove, reason).id} is taken down")
    every, made = catalogue.listings(), write_site(catalogue, place)
    if waiting := [x.id for x in every if x.price is None and x.removed is None]:
        more = ", ..." if len(waiting) > 10 else ""
        note(f"Not published, as they have no price yet: {', '.join(waiting[:10])}{more}.")
    if catalogue.settings.url is None:
        note("Without the address of the site (url in settings.json) there are no feeds and no sitemap.")
    fields = {"out": str(place), "listings": len(made)}
    tell(as_json, fields, f"{counted(len(made), 'listing')}: {place / 'index.html'}")
    if open_page:
        import webbrowser

        webbrowser.open((place / "index.html").resolve().as_uri())


def list_all(found: Sequence[Listing], as_json: bool) -> None:
    if as_json:
        emit({"listings": [x.model_dump(mode="json") for x in found]})
        return
    rows = []
    for x in found:
        state = f"removed: {x.removed}" if x.removed else "no price" if x.price is None else str(x.price)
        rows.append([x.id, x.title, x.kind, state, x.licence, size(x.bundle.size)])
    answer(table(["id", "title", "kind", "price", "licence", "size"], rows, right=(5,), wrap=(1, 3)))


def secret_in(file: Path) -> str:
    """The one word in a file."""
    from afresh.core import UserError

    try:
        words = file.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}.", "secret") from None
    if len(words) != 1:
        raise UserError(f"{file} has {len(words)} words. Give a file with the key or the secret alone.", "secret")
    return words[0]


def orders(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Take events of Stripe: one in each file, or in each line of it.", metavar="FILE..."),
    ] = None,
    grant: Annotated[
        str | None, o.option("Release a listing: a link that expires, and a receipt.", RELEASE, metavar="LISTING")
    ] = None,
    to: Annotated[str, o.option("Who gets it: a name or an e-mail address, which can be forgotten.", RELEASE)] = "",
    order: Annotated[str, o.setting("The number of the order; the same one is released once.")] = "",
    paid: Annotated[str | None, o.setting("What was paid elsewhere, as '12.50 EUR'.")] = None,
    forget: Annotated[
        str | None, o.option("Remove the name and the e-mail address of a buyer; the orders stay.", metavar="PERSON")
    ] = None,
    folder: Folder = HERE,
    as_json: Annotated[
        bool, o.json_of("{orders}, of files {outcomes}, of --grant {result, detail, order, link}")
    ] = False,
) -> None:
    """List the orders, take notices of payment from files, release a listing, or forget a buyer.

    A file is believed without a signature, since it is you who gives it. What was released before is released once.
    """
    from dataclasses import asdict

    from afresh.core.money import parse_money
    from afresh.core.safe_json import read_bytes
    from afresh.services.catalogue.orders import Orders
    from afresh.services.catalogue.stripe import notice_of

    if (forget and (files or grant)) or bool(grant) != bool(to) or (files and grant) or ((order or paid) and not grant):
        raise Refusal("Give FILE, or --grant with --to, --set order and --set paid, or --forget.")
    orders, outcomes = Orders(opened(folder)), []
    if grant:
        made = orders.grant(grant, to, order, None if paid is None else parse_money(paid, "paid"))
        if as_json:
            emit(asdict(made))
        else:
            answer(made.link)
            say(f"{made.result}: {made.detail}; receipt: {folder / 'receipts' / made.order}.json")
    elif forget:
        found = list(orders.forget(forget))
        tell(as_json, {"orders": found}, f"forgotten in {counted(len(found), 'order')}: {', '.join(found)}")
    elif not files:
        list_orders(orders, as_json)
    for file in files or []:
        content = read_bytes(file)
        for event in [content] if content.count(b"\n{") == 0 else content.splitlines():
            if not event.strip():
                continue
            notice = notice_of(event)
            if isinstance(notice, str):
                outcomes.append({"result": "ignored", "detail": notice, "order": "", "link": ""})
            else:
                outcomes.append(asdict(orders.receive(notice)))
            if not as_json:
                x = outcomes[-1]
                answer(f"{x['result']}: {x['detail']}" + (f"; {x['link']}" if x["link"] else ""))
    if files and as_json:
        emit({"outcomes": outcomes})


def list_orders(orders: Orders, as_json: bool) -> None:
    found = []
    for number, x in orders.known.items():
        buyer = orders.buyers.of(number)
        state = "paid back" if not x.valid else "partly paid back" if x.refunded else "released"
        money = None if x.money is None else str(x.money)
        who = "" if buyer is None else " ".join(buyer.who.values())
        found.append(
            {"order": number, "listing": x.listing, "at": x.entry["at"], "paid": money, "state": state, "to": who}
        )
    if as_json:
        emit({"orders": found})
    else:
        rows = [[str(f[key] or "") for key in ("order", "listing", "at", "paid", "state", "to")] for f in found]
        answer(table(["order", "listing", "at", "paid", "state", "to"], rows, right=(3,), wrap=(0, 5)))


def royalties(
    out: Annotated[Path | None, o.option("Write the table as CSV to this file.")] = None,
    since: Annotated[str | None, o.setting("The first day, as 2026-01-01.", metavar="DAY")] = None,
    until: Annotated[str | None, o.setting("The last day.", metavar="DAY")] = None,
    force: o.Force = False,
    folder: Folder = HERE,
    as_json: Annotated[bool, o.json_of("{royalties}")] = False,
) -> None:
    """Say who is due how much of what was paid, along the lineage of the listings."""
    from afresh.data.storage.files import replace_file
    from afresh.data.storage.folders import check_free
    from afresh.services.catalogue.orders import as_csv
    from afresh.services.catalogue.orders import royalties as summed

    if out is not None:
        check_free(out, force)
    rows = summed(opened(folder), day(since, "since"), day(until, "until"))
    if out is not None:
        replace_file(out, as_csv(rows).encode())
        say(f"royalties: {out}")
    if as_json:
        emit({"royalties": rows})
    elif out is None:
        shown = ("to", "maker", "amount", "currency", "orders")
        answer(table(shown, [[str(r[column]) for column in shown] for r in rows], right=(2, 4)))


def day(text: str | None, name: str) -> date | None:
    from afresh.core import UserError

    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise UserError(f"{text!r} is not a day. Write it as `{name}=2026-01-31`.", "day") from None


def check(folder: Folder = HERE, as_json: Annotated[bool, o.json_of("{passed, lines, last, faults}")] = False) -> None:
    """Check the ledger from its first line, and the files of all listings. Exit code 1 if something is wrong.

    Keep the hash of the last line elsewhere: with it, a rewritten ledger is detected.
    """
    from afresh.core import UserError
    from afresh.services.catalogue.ledger import check_ledger

    catalogue, lines, last, faults = opened(folder), 0, "", []
    try:
        lines, last, torn = check_ledger(catalogue.ledger.path)
        if torn:
            note(
                f"The last line was not finished by the process that wrote it; the next one will cut {torn} bytes off."
            )
    except UserError as error:
        faults.append(str(error))
    faults += catalogue.check_files()
    if as_json:
        emit({"passed": not faults, "lines": lines, "last": last, "faults": faults})
    else:
        for fault in faults:
            answer(fault)
        answer(f"{folder}: {counted(len(faults), 'fault')}; {counted(lines, 'line')} of the ledger, the last is {last}")
    if faults:
        raise typer.Exit(1)


def serve(
    secret_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with the signing secret of the endpoint at Stripe (whsec_...).",
            metavar="FILE",
            callback=existing,
        ),
    ] = None,
    host: Annotated[str, o.option("Address to listen at.")] = "127.0.0.1",
    port: o.Port = 8090,
    folder: Folder = HERE,
) -> None:
    """Take notices of payment and deliver what they release, over HTTP.

    A proxy with TLS stands before it: Stripe sends to /payments/stripe, buyers come to /orders/ and /bundles/.
    """
    from afresh.faces.cli.extras import require
    from afresh.services.catalogue.stripe import require_stripe

    require("serve", "A server of a catalogue")
    if secret_file is not None:
        require_stripe("Taking notices of Stripe")
    from afresh.faces.http.catalogue import catalogue_server
    from afresh.faces.http.listen import serve_with

    catalogue = opened(folder)
    if secret_file is None:
        note("Without the secret of an endpoint at Stripe no notices are taken, and bundles are delivered alone.")
    server = catalogue_server(catalogue, None if secret_file is None else secret_in(secret_file))
    serve_with(server, host, port, lambda address: say(f"serving {catalogue.settings.name} at {address} (Ctrl-C ends)"))


CATALOGUE = Group(
    "catalogue",
    """Keep models, adapters, data sets and works in a catalogue, and publish it as a site.

    What has a price is bought through a link of a payment service; its notice of payment releases the file.
    """,
    (add, publish, serve, orders, royalties, check),
)
