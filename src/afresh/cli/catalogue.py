"""`afresh catalogue`: models, adapters, data sets and works that are offered, and what was paid for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.cli import options as o
from afresh.cli.group import Group
from afresh.cli.paths import existing
from afresh.cli.show import answer, emit, note, say, size, table

Folder = Annotated[Path, typer.Option(help="The folder of the catalogue.", metavar="CATALOGUE")]
Id = Annotated[str, typer.Argument(help="The id of a listing.", metavar="LISTING")]
HERE = Path("catalogue")


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder.", metavar="CATALOGUE")] = HERE,
    name: Annotated[str | None, typer.Option(help="What the catalogue is called; else as its folder.")] = None,
    maker: Annotated[
        str | None, typer.Option(help="Who made what is in it, where a listing says nothing else.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Where the site will be, which feeds need: https://...", metavar="URL")
    ] = None,
    delivery: Annotated[
        str | None,
        typer.Option(help="Where buyers reach `afresh catalogue serve`, by which links begin.", metavar="URL"),
    ] = None,
    days: Annotated[
        int | None, typer.Option(help="For which a link to a bundle is valid; 7 if not given.", min=1)
    ] = None,
    as_json: Annotated[bool, o.json_of("{folder, name, id}")] = False,
) -> None:
    """Make a catalogue."""
    from afresh.catalogue.folder import Catalogue

    made = Catalogue.init(folder, name=name, maker=maker, url=url, delivery=delivery, days=days)
    if as_json:
        emit({"folder": str(folder), "name": made.settings.name, "id": made.settings.id})
    else:
        say(f"{folder}: the catalogue {made.settings.name}. Add to it: afresh catalogue add FILE --folder {folder}")


def add(
    file: Annotated[Path, typer.Argument(help="The file that is delivered.", metavar="FILE", callback=existing)],
    kind: Annotated[str, typer.Option(help="model, adapter, data or work.")],
    licence: Annotated[str, typer.Option(help="An expression of SPDX, as CC-BY-4.0.")],
    title: Annotated[str, typer.Option(help="What it is called; else as its file.")] = "",
    id: Annotated[str, typer.Option(help="Its id; else made of the title. One that exists is replaced.")] = "",
    price: Annotated[str | None, typer.Option(help="As '12.50 EUR', or free; it may be given later.")] = None,
    link: Annotated[str | None, typer.Option(help="Where it is bought: https://...", metavar="URL")] = None,
    summary: Annotated[str, typer.Option(help="What it is, in a few sentences.")] = "",
    terms: Annotated[str, typer.Option(help="Terms beside the licence.")] = "",
    maker: Annotated[str, typer.Option(help="Who made it; else the maker of the catalogue.")] = "",
    safety: Annotated[str, typer.Option(help="What it must not be used for, and what may go wrong.")] = "",
    preview: Annotated[
        Path | None, typer.Option(help="A picture, sound or text that shows it.", callback=existing)
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="The run whose scores, card and lineage are shown.", callback=o.existing_run)
    ] = None,
    parent: Annotated[
        list[str] | None,
        typer.Option(help="What it was made from, by id or SHA-256, and its share in percent.", metavar="PARENT=SHARE"),
    ] = None,
    folder: Folder = HERE,
    as_json: Annotated[bool, o.json_of("{listing}")] = False,
) -> None:
    """Add a model, an adapter, a data set or a work to a catalogue."""
    from afresh.catalogue import add as adding
    from afresh.catalogue.folder import Catalogue, plain

    made = adding.add(
        Catalogue.open(folder),
        file,
        kind=kind,
        licence=licence,
        title=title,
        id=id,
        price=price,
        link=link,
        preview=preview,
        run=run,
        parents=parent or (),
        summary=summary,
        terms=terms,
        maker=maker,
        safety=safety,
    )
    if as_json:
        emit({"listing": plain(made)})
        return
    say(f"{made.id}: {made.title}, {size(made.bundle.size)}, {made.licence}")
    if made.price is None:
        note(f"It is not published before it has a price: afresh catalogue price {made.id} '12.50 EUR', or free.")


def _list(folder: Folder = HERE, as_json: Annotated[bool, o.json_of("{listings}")] = False) -> None:
    """List what is in a catalogue."""
    from afresh.catalogue.folder import Catalogue, plain

    found = Catalogue.open(folder).listings()
    if as_json:
        emit({"listings": [plain(x) for x in found]})
        return
    rows = []
    for x in found:
        state = f"removed: {x.removed}" if x.removed else "no price" if x.price is None else str(x.price)
        rows.append([x.id, x.title, x.kind, state, x.licence, size(x.bundle.size)])
    answer(table(["id", "title", "kind", "price", "licence", "size"], rows, right=(5,), wrap=(1, 3)))


def price(
    listing: Id,
    price: Annotated[str, typer.Argument(help="As '12.50 EUR', or free.")],
    link: Annotated[str | None, typer.Option(help="Where it is bought: https://...", metavar="URL")] = None,
    folder: Folder = HERE,
    as_json: Annotated[bool, o.json_of("{listing}")] = False,
) -> None:
    """Give a listing a price, and the link where it is bought."""
    from afresh.catalogue.add import set_price
    from afresh.catalogue.folder import Catalogue, plain

    catalogue = Catalogue.open(folder)
    made = set_price(catalogue, listing, price, link)
    if as_json:
        emit({"listing": plain(made)})
    else:
        say(f"{made.id}: {made.price}" + (f", bought at {made.link}" if made.link else ""))
        if made.money is not None and made.link is None:
            note(f"It cannot be bought before it has a link: --link URL.")


def publish(
    out: Annotated[Path | None, typer.Option(help="The folder of the site; CATALOGUE/site if not given.")] = None,
    folder: Folder = HERE,
    open_page: Annotated[bool, o.open_option("Open the site in the browser.")] = False,
    as_json: Annotated[bool, o.json_of("{out, listings}")] = False,
) -> None:
    """Write the catalogue as a site that opens from a folder and can be put on any host."""
    from afresh.catalogue.folder import Catalogue
    from afresh.catalogue.site import publish as write_site
    from afresh.core.plural import counted

    catalogue, place = Catalogue.open(folder), out or folder / "site"
    every, made = catalogue.listings(), write_site(catalogue, place)
    if waiting := [x.id for x in every if x.price is None and x.removed is None]:
        note(
            f"Not published, as they have no price yet: {', '.join(waiting[:10])}{', ...' if len(waiting) > 10 else ''}."
        )
    if catalogue.settings.url is None:
        note("Without the address of the site (url in settings.json) there are no feeds and no sitemap.")
    if as_json:
        emit({"out": str(place), "listings": len(made)})
    else:
        say(f"{counted(len(made), 'listing')}: {place / 'index.html'}")
    if open_page:
        import webbrowser

        webbrowser.open((place / "index.html").resolve().as_uri())


def remove(
    listing: Id,
    reason: Annotated[str, typer.Option(help="Why, which the ledger keeps.")],
    folder: Folder = HERE,
    as_json: Annotated[bool, o.json_of("{listing}")] = False,
) -> None:
    """Take a listing down: it is not offered or delivered any more."""
    from afresh.catalogue.add import take_down
    from afresh.catalogue.folder import Catalogue, plain

    made = take_down(Catalogue.open(folder), listing, reason)
    if as_json:
        emit({"listing": plain(made)})
    else:
        say(f"{made.id} is taken down. Publish again, so that the site no longer has it.")


CATALOGUE = Group(
    "catalogue",
    """Keep models, adapters, data sets and works in a catalogue, and publish it as a site.

    What has a price is bought through a link of a payment service; its notice of payment releases the file.
    """,
    (init, add, _list, price, publish, remove),
)
