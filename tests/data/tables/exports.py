"""Tables as shops, labs, schools and offices export them, each with its truth. Run it to write them to a folder.

All of it is invented, and drawn from one seed, so that every test sees the same files.
"""

from __future__ import annotations

import csv
import io
import json
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

ROWS = 60
BEGUN = datetime(2026, 1, 5, 9, 12)  # of most tables
PEOPLE = ("Anna Groß", "Émile Roux", "Jörg Weiß", "Zoë Smith", "Ben Lee", "Ida Holm", "Ugo Conti", "Mia Novak")
GOODS = (("L-01", "Desk lamp", 13.54), ("C-07", "Chair", 129.0), ("T-22", "Table", 1234.56), ("S-03", "Sofa", 2349.9),
         ("R-11", "Rug", 89.95), ("V-05", "Vase", 7.5), ("M-09", "Mirror", 54.0), ("B-14", "Bin", 19.99))  # fmt: skip
SMILES = ("CCO", "c1ccccc1O", "CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "C1CCCCC1N", "O=C(N)c1cccnc1")


@dataclass(frozen=True)
class Export:
    """One file, and what a person would say of it.

    `kind`: the kind of data that learns it, or the kind as which it is refused. `roles`: which column is what.
    `dates`, `numbers`: the first values of columns, as ISO dates in UTC and as numbers. `said`: what is told of its
    lines. `rows`: how many it has, without units and totals.
    """

    name: str
    content: bytes
    kind: str
    columns: Sequence[str]
    rows: int = ROWS
    roles: Mapping[str, str] = field(default_factory=dict)
    dates: Mapping[str, Sequence[str]] = field(default_factory=dict)
    numbers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    said: Sequence[str] = ()


@dataclass(frozen=True)
class Sale:
    """Who bought what, when and how much of it."""

    number: int
    person: int
    code: str
    goods: str
    price: float
    when: datetime
    quantity: int

    @property
    def who(self) -> str:
        return PEOPLE[self.person]

    @property
    def email(self) -> str:
        return f"customer{self.person}@example.org"


def sales(step: timedelta = timedelta(hours=13, minutes=7)) -> list[Sale]:
    """Events in the order of time."""
    draw = random.Random(26)
    out = []
    for n in range(ROWS):
        code, goods, price = draw.choice(GOODS)
        person = draw.randrange(len(PEOPLE))
        out.append(Sale(n, person, code, goods, price, BEGUN + n * step, draw.randint(1, 12)))
    return out


SALES = sales()
MOMENTS = [s.when.isoformat() for s in SALES[:3]]
DAYS = [s.when.date().isoformat() for s in SALES[:3]]
PRICES = [s.price for s in SALES[:5]]


def separated(columns: Sequence[str], rows: Iterable[Sequence[object]], mark: str = ",", quote: bool = False) -> str:
    """A table as programs write it."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=mark, lineterminator="\r\n", quoting=csv.QUOTE_ALL if quote else 0)
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def german(value: float, places: int = 2) -> str:
    """1234.5 as 1.234,50."""
    return f"{value:,.{places}f}".translate(str.maketrans(",.", ".,"))


def french(value: float) -> str:
    """1234.5 as 1 234,50, with a space that does not break."""
    return f"{value:,.2f}".replace(",", "\u202f").replace(".", ",")


def series(n: int = ROWS) -> list[tuple[datetime, float, float]]:
    """Measurements a quarter of an hour apart."""
    draw = random.Random(3)
    return [(datetime(2026, 2, 1) + n * timedelta(minutes=15), draw.uniform(-9, 30), draw.random()) for n in range(n)]


# --------------------------------------------------------------------------- shops


def shopify() -> Export:
    names = ("Name", "Email", "Financial Status", "Created at", "Lineitem quantity", "Lineitem name", "Lineitem price",
             "Lineitem sku", "Notes", "Tax 5 Name")  # fmt: skip
    rows = [(f"#{1001 + s.number}", s.email, "paid", s.when.strftime("%Y-%m-%d %H:%M:%S +0100"), s.quantity, s.goods,
             s.price, s.code, "", "") for s in SALES]  # fmt: skip
    dates = [(s.when - timedelta(hours=1)).isoformat() for s in SALES[:3]]
    return Export("shopify.csv", separated(names, rows).encode(), "interactions", names,
                  roles={"user": "Email", "item": "Lineitem sku", "time": "Created at"},
                  dates={"Created at": dates}, numbers={"Lineitem price": PRICES})  # fmt: skip


def woocommerce() -> Export:
    names = ("Order Number", "Order Status", "Order Date", "Customer Note", "Email (Billing)", "Item Name", "SKU",
             "Item Cost", "Order Total Amount")  # fmt: skip
    rows = [(5000 + s.number, "Completed", s.when.strftime("%Y-%m-%d %H:%M"), "", s.email, s.goods, s.code,
             s.price, s.price * s.quantity) for s in SALES]  # fmt: skip
    return Export("woocommerce.csv", ("\ufeff" + separated(names, rows, quote=True)).encode(), "interactions", names,
                  roles={"user": "Email (Billing)", "item": "SKU", "time": "Order Date"},
                  dates={"Order Date": MOMENTS}, numbers={"Item Cost": PRICES})  # fmt: skip


def small_shop() -> Export:
    names = ("Customer", "Product", "Order date", "Price")
    rows = [(s.who, s.goods, s.when.strftime("%Y-%m-%d %H:%M"), f"{s.price:.2f}".replace(".", ",")) for s in SALES]
    return Export("shop.csv", separated(names, rows, ";").encode(), "interactions", names,
                  roles={"user": "Customer", "item": "Product", "time": "Order date"},
                  dates={"Order date": MOMENTS}, numbers={"Price": PRICES})  # fmt: skip


def retail_uk() -> Export:
    names = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
    words = {code: f"WHITE METAL {goods.upper()} FOR YOUR HOME" for code, goods, _ in GOODS}
    rows = [(536365 + s.number, s.code, words[s.code], s.quantity, f"{s.when.day}/{s.when.month}/{s.when:%Y %H:%M}",
             f"£{s.price:,.2f}", 17850 + s.person, "United Kingdom") for s in SALES]  # fmt: skip
    return Export("online_retail.csv", separated(names, rows).encode("cp1252"), "interactions", names,
                  roles={"user": "CustomerID", "item": "StockCode", "time": "InvoiceDate", "session": "InvoiceNo"},
                  dates={"InvoiceDate": MOMENTS}, numbers={"UnitPrice": PRICES})  # fmt: skip


def till() -> Export:
    names = ("Bon-Nr", "Datum", "Artikel", "Menge", "Einzelpreis", "Betrag")
    rows = [(f"B{1 + s.number // 3:04}", s.when.strftime("%d.%m.%Y %H:%M"), s.goods, s.quantity, german(s.price),
             german(s.price * s.quantity)) for s in SALES]  # fmt: skip
    total = sum(s.price * s.quantity for s in SALES)
    text = "Kassenbericht Filiale 3;;;;;\r\nZeitraum: 05.01.2026 - 31.01.2026;;;;;\r\n;;;;;\r\n"
    text += separated(names, rows, ";") + f"Summe;;;;;{german(total)}\r\n"
    return Export("kasse.csv", text.encode("cp1252"), "interactions", names,
                  roles={"user": "Bon-Nr", "item": "Artikel", "time": "Datum"},
                  dates={"Datum": MOMENTS}, numbers={"Einzelpreis": PRICES},
                  said=("Kassenbericht Filiale 3", "a line of totals"))  # fmt: skip


def orders_de() -> Export:
    names = ("Kundennummer", "Artikelnummer", "Bezeichnung", "Bestelldatum", "Preis", "Bezahlt")
    rows = [(10040 + s.person, s.code, f"{s.goods} für Büro", s.when.strftime("%d.%m.%Y"), f"{german(s.price)} €",
             "ja" if s.number % 3 else "nein") for s in SALES]  # fmt: skip
    return Export("bestellungen.csv", separated(names, rows, ";").encode("cp1252"), "interactions", names,
                  roles={"user": "Kundennummer", "item": "Artikelnummer", "time": "Bestelldatum"},
                  dates={"Bestelldatum": DAYS}, numbers={"Preis": PRICES})  # fmt: skip


def orders_fr() -> Export:
    names = ("Client", "Produit", "Date de commande", "Prix unitaire", "Quantité")
    rows = [(s.who, s.goods, s.when.strftime("%d/%m/%Y"), french(s.price), s.quantity) for s in SALES]
    return Export("commandes.csv", ("\ufeff" + separated(names, rows, ";")).encode(), "interactions", names,
                  roles={"user": "Client", "item": "Produit", "time": "Date de commande"},
                  dates={"Date de commande": DAYS}, numbers={"Prix unitaire": PRICES})  # fmt: skip


def orders_ch() -> Export:
    names = ("Kunde", "Produkt", "Kaufdatum", "Betrag", "")
    rows = [(s.who, s.goods, s.when.strftime("%d.%m.%y"), f"CHF {s.price:,.2f}".replace(",", "'"), "") for s in SALES]
    return Export("verkauf.csv", separated(names, rows, ";").encode(), "interactions", names[:4],
                  roles={"user": "Kunde", "item": "Produkt", "time": "Kaufdatum"},
                  dates={"Kaufdatum": DAYS}, numbers={"Betrag": PRICES})  # fmt: skip


def orders_us() -> Export:
    names = ("Customer ID", "Product Name", "Order Date", "Ship Date", "Sales", "Discount")
    rows = [(f"CG-{12520 + s.person}", s.goods, s.when.strftime("%m/%d/%Y %I:%M %p"),
             (s.when + timedelta(days=3)).strftime("%m/%d/%Y"), f"${s.price:,.2f}", f"{5 * (s.number % 4)}%")
            for s in SALES]  # fmt: skip
    return Export("superstore.csv", separated(names, rows).encode(), "interactions", names,
                  roles={"user": "Customer ID", "item": "Product Name", "time": "Order Date"},
                  dates={"Order Date": MOMENTS}, numbers={"Sales": PRICES, "Discount": [0, 5, 10, 15, 0]})  # fmt: skip


def sap() -> Export:
    names = ("Kunde", "Material", "Belegdatum", "Menge", "Nettowert")
    rule = "-" * 66
    back = {5}  # returned goods, the sign of which follows
    rows = [(f"{100200 + s.person}", s.code, s.when.strftime("%d.%m.%Y"), f"{s.quantity},000",
             german(s.price) + ("-" if s.number in back else "")) for s in SALES]  # fmt: skip
    lines = [f"|{'|'.join(str(c).rjust(12) for c in row)}|" for row in (names, *rows)]
    text = "\r\n".join(["Dynamische Listausgabe", "", rule, lines[0], rule, *lines[1:], rule, ""])
    return Export("sap.csv", text.encode("cp1252"), "interactions", names,
                  roles={"user": "Kunde", "item": "Material", "time": "Belegdatum"}, dates={"Belegdatum": DAYS},
                  numbers={"Nettowert": [*PRICES, -SALES[5].price], "Menge": [s.quantity for s in SALES[:5]]},
                  said=("Dynamische Listausgabe",))  # fmt: skip


def library() -> Export:
    names = ("Member", "Title", "Loan date", "Return date", "Fee")
    day, late = "%d %b %Y", timedelta(days=14)
    rows = [(s.who, f"The {s.goods} Book", s.when.strftime(day), (s.when + late).strftime(day),
             "0,50" if s.number % 2 else "") for s in SALES]  # fmt: skip
    return Export("loans.tsv", separated(names, rows, "\t").encode("utf-16"), "interactions", names,
                  roles={"user": "Member", "item": "Title", "time": "Loan date"},
                  dates={"Loan date": DAYS}, numbers={})  # fmt: skip


def ratings() -> Export:
    names = ("userId", "movieId", "rating", "timestamp")
    rows = [(s.person + 1, 100 + ord(s.code[0]), 0.5 + s.quantity % 10 / 2, 1767604320 + 5000 * s.number)
            for s in SALES]  # fmt: skip
    return Export("ratings.csv", separated(names, rows).encode(), "interactions", names,
                  roles={"user": "userId", "item": "movieId", "time": "timestamp", "rating": "rating"},
                  dates={"timestamp": ["2026-01-05T09:12:00"]},
                  numbers={"rating": [0.5 + s.quantity % 10 / 2 for s in SALES[:5]]})  # fmt: skip


def ratings_de() -> Export:
    names = ("Benutzer", "Film", "Bewertung", "Zeitstempel")
    start = 1767604320000
    rows = [(f"n{s.person}", s.goods, german(s.quantity / 2, 1), start + 5_000_000 * s.number) for s in SALES]
    return Export("bewertungen.csv", separated(names, rows, ";").encode(), "interactions", names,
                  roles={"user": "Benutzer", "item": "Film", "time": "Zeitstempel", "rating": "Bewertung"},
                  dates={"Zeitstempel": ["2026-01-05T09:12:00"]},
                  numbers={"Bewertung": [s.quantity / 2 for s in SALES[:5]]})  # fmt: skip


def listening() -> Export:
    names = ("username", "ts", "track", "artist", "ms_played", "skipped")
    rows = [(f"u{s.person}", s.when.strftime("%Y-%m-%dT%H:%M:%SZ"), f"{s.goods} Blues", "The Rugs", 1000 * s.quantity,
             str(s.number % 4 == 0).upper()) for s in SALES]  # fmt: skip
    return Export("listening.csv", separated(names, rows).encode(), "interactions", names,
                  roles={"user": "username", "item": "track", "time": "ts"}, dates={"ts": MOMENTS})  # fmt: skip


def visits() -> Export:
    names = ("visitor_id", "event", "item_id", "ts")
    rows = [(f"v{s.person}", ("view", "buy")[s.number % 2], s.code, 1767604320000 + 60_000 * s.number) for s in SALES]
    return Export("events.csv", separated(names, rows, "|").encode(), "interactions", names,
                  roles={"user": "visitor_id", "item": "item_id", "time": "ts", "event": "event"},
                  dates={"ts": ["2026-01-05T09:12:00"]})  # fmt: skip


def web_shop() -> Export:
    names = ("customer", "product", "ordered_at", "price")
    rows = [(s.who, s.goods, s.when.strftime("%d/%m/%Y %H:%M:%S"), german(s.price)) for s in SALES]
    text = "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
    return Export("web_shop.jsonl", text.encode(), "interactions", names,
                  roles={"user": "customer", "item": "product", "time": "ordered_at"},
                  dates={"ordered_at": MOMENTS}, numbers={"price": PRICES})  # fmt: skip


def short_month() -> Export:
    """Nothing says which number is the month."""
    names = ("Client ID", "Item", "Date", "Amount")
    few = sales(timedelta(hours=2))
    rows = [(f"K{s.person}", s.goods, s.when.strftime("%d/%m/%Y"), f"{s.price:,.2f}") for s in few]
    days = [f"2026-{s.when.day:02}-{s.when.month:02}" for s in few[:3]]
    return Export("short_month.csv", separated(names, rows).encode(), "interactions", names,
                  roles={"user": "Client ID", "item": "Item", "time": "Date"}, dates={"Date": days},
                  numbers={"Amount": [s.price for s in few[:5]]}, said=("month first",))  # fmt: skip


# --------------------------------------------------------------------------- labs


def lab() -> Export:
    names = ("Sample ID", "Sampled on", "pH", "Conductivity", "Nitrate")
    rows = [(f"W-{n:03}", when.strftime("%d-%b-%Y"), f"{7 + b:.2f}", f"{1200 + n:,}", f"{a + 10:.3f}")
            for n, (when, a, b) in enumerate(series())]  # fmt: skip
    text = separated(names, [("", "", "-", "µS/cm", "mg/L"), *rows])
    return Export("lims.csv", text.encode(), "table", names, dates={"Sampled on": ["2026-02-01"]},
                  numbers={"Conductivity": [1200, 1201, 1202]}, said=("units: Conductivity in µS/cm",))  # fmt: skip


def affinities() -> Export:
    names = ("Verbindung", "SMILES", "pKi", "Datum")
    rows = [(f"AF-{n}", SMILES[n % len(SMILES)], german(5 + b, 3), when.strftime("%d.%m.%Y"))
            for n, (when, _, b) in enumerate(series())]  # fmt: skip
    return Export("pki.csv", separated(names, rows, ";").encode(), "molecule", names, roles={"smiles": "SMILES"},
                  dates={"Datum": ["2026-02-01"]},
                  numbers={"pKi": [round(5 + b, 3) for _, _, b in series(5)]})  # fmt: skip


def potencies() -> Export:
    names = ("CMPD", "Canonical SMILES", "IC50 (nM)", "Active")
    rows = [(f"C{n}", SMILES[n % len(SMILES)], f"{37 * n + 100:,}", "Yes" if n % 2 else "No") for n in range(ROWS)]
    return Export("ic50.csv", separated(names, rows).encode(), "molecule", names, roles={"smiles": "Canonical SMILES"},
                  numbers={"IC50 (nM)": [100, 137, 174, 211, 248]})  # fmt: skip


def weather() -> Export:
    names = ("Date Time", "Temp (°C)", "Humidity")
    rows = [(w.strftime("%Y/%m/%d %H:%M"), german(a, 1), german(b, 3)) for w, a, b in series()]
    return Export("station.tsv", separated(names, rows, "\t").encode("cp1252"), "series", names,
                  dates={"Date Time": ["2026-02-01T00:00:00", "2026-02-01T00:15:00"]},
                  numbers={"Temp (°C)": [round(a, 1) for _, a, _ in series(5)],
                           "Humidity": [round(b, 3) for _, _, b in series(5)]})  # fmt: skip


def meter() -> Export:
    names = ("Zeitstempel", "Verbrauch", "Status")
    rows = [(w.strftime("%d.%m.%Y %H:%M"), german(b, 3), "OK") for w, _, b in series()]
    text = "Zähler 1EMH0012345678\r\nEinheit kWh\r\n\r\n" + separated(names, rows, ";")
    return Export("zaehler.csv", text.encode("cp1252"), "series", names,
                  dates={"Zeitstempel": ["2026-02-01T00:00:00", "2026-02-01T00:15:00"]},
                  numbers={"Verbrauch": [round(b, 3) for _, _, b in series(5)]},
                  said=("Zähler 1EMH0012345678",))  # fmt: skip


def stocks() -> Export:
    names = ("Date", "Open", "Close", "Volume")
    start = datetime(2026, 1, 2)
    rows = [((start + timedelta(days=n)).strftime("%m/%d/%Y"), f"{100 + b:.2f}", f"{101 + b:.2f}", f"{1234567 + n:,}")
            for n, (_, _, b) in enumerate(series())]  # fmt: skip
    return Export("stocks.csv", separated(names, rows).encode(), "series", names,
                  dates={"Date": ["2026-01-02", "2026-01-03"]}, numbers={"Volume": [1234567, 1234568]})  # fmt: skip


def dimensions() -> Export:
    names = ("Breite", "Länge", "Sorte")
    rows = [(german(a, 2), german(b, 2), "ab"[n % 2]) for n, (_, a, b) in enumerate(series())]
    return Export("masse.csv", separated(names, rows, ";").encode("cp1252"), "table", names,
                  numbers={"Breite": [round(a, 2) for _, a, _ in series(5)]})  # fmt: skip


# --------------------------------------------------------------------------- schools


def grades() -> Export:
    names = ("Student", "Quiz 1", "Quiz 2", "Final Score")
    rows = [(f"Learner {n}, Kim", 60 + n % 40, f"{80 + b:.1f}", f"{70 + b:.2f}%")
            for n, (_, _, b) in enumerate(series())]  # fmt: skip
    text = separated(names, rows) + "Average,79.5,80.4,70.48%\r\n"
    return Export("grades.csv", text.encode(), "table", names, said=("a line of totals",),
                  numbers={"Quiz 1": [60, 61, 62],
                           "Final Score": [round(70 + b, 2) for _, _, b in series(3)]})  # fmt: skip


def moodle() -> Export:
    names = ("Schüler", "Aufgabe", "Ergebnis", "Abgegeben am")
    rows = [(s.who, f"Aufgabe {s.code}", "richtig" if s.quantity > 4 else "falsch", s.when.strftime("%d.%m.%Y %H:%M"))
            for s in SALES]  # fmt: skip
    return Export("aufgaben.csv", separated(names, rows, ";").encode("cp1252"), "exercises", names,
                  roles={"learner": "Schüler", "item": "Aufgabe", "correct": "Ergebnis", "time": "Abgegeben am"},
                  dates={"Abgegeben am": MOMENTS})  # fmt: skip


def tutor() -> Export:
    names = ("order_id", "user_id", "problem_id", "correct", "start_time", "skill_name")
    rows = [(s.number, 70000 + s.person, f"P{s.code}", int(s.quantity > 4), s.when.strftime("%Y-%m-%d %H:%M:%S"),
             "Fractions") for s in SALES]  # fmt: skip
    return Export("tutor.csv", separated(names, rows).encode(), "exercises", names,
                  roles={"learner": "user_id", "item": "problem_id", "correct": "correct", "time": "start_time"},
                  dates={"start_time": MOMENTS})  # fmt: skip


def cards() -> Export:
    names = ("Student ID", "Word", "Was correct", "Answered at")
    rows = [(f"S{s.person}", s.goods, "TRUE" if s.quantity > 4 else "FALSE",
             f"{s.when.month}/{s.when.day}/{s.when:%y} {s.when:%I:%M %p}") for s in SALES]  # fmt: skip
    return Export("cards.tsv", separated(names, rows, "\t").encode(), "exercises", names,
                  roles={"learner": "Student ID", "item": "Word", "correct": "Was correct", "time": "Answered at"},
                  dates={"Answered at": MOMENTS})  # fmt: skip


# --------------------------------------------------------------------------- offices


def chat() -> Export:
    names = ("Date", "Sender", "Message")
    rows = [(s.when.strftime("%d.%m.%y, %H:%M"), s.who, f"Could you bring the {s.goods}, please; it is late?\nThanks")
            for s in SALES]  # fmt: skip
    return Export("chat.csv", separated(names, rows, ";").encode(), "text", names, roles={"text": "Message"},
                  dates={"Date": MOMENTS})  # fmt: skip


def reviews() -> Export:
    names = ("Datum", "Kunde", "Produkt", "Sterne", "Rezension")
    rows = [(s.when.strftime("%d.%m.%Y"), s.who, s.goods, s.quantity % 5 + 1,
             f"Nach {s.number} Tagen kann ich sagen, dass es mir sehr gefällt.") for s in SALES]  # fmt: skip
    return Export("rezensionen.csv", separated(names, rows, ";").encode("cp1252"), "text", names,
                  roles={"text": "Rezension"}, dates={"Datum": DAYS})  # fmt: skip


def questions() -> Export:
    names = ("Question", "Answer", "Last updated")
    rows = [(f"What does a {s.goods} cost, and why?", f"It costs {s.price}; ask {s.who}.", s.when.strftime("%d/%m/%Y"))
            for s in SALES]  # fmt: skip
    return Export("faq.csv", separated(names, rows, ";").encode(), "text", names, roles={"text": "Question, Answer"},
                  dates={"Last updated": DAYS})  # fmt: skip


def invoices() -> Export:
    names = ("Rechnungsnr", "Rechnungsdatum", "Kunde", "Netto", "MwSt", "Brutto")
    rows = [(f"RE-{2026000 + s.number}", s.when.strftime("%d.%m.%Y"), s.who, german(s.price), "19 %",
             german(s.price * 1.19)) for s in SALES]  # fmt: skip
    text = "Rechnungsausgang\r\nErstellt am 01.02.2026\r\n\r\n" + separated(names, rows, ";")
    text += f"Gesamt;;;{german(sum(s.price for s in SALES))};;\r\n"
    return Export("rechnungen.csv", text.encode("cp1252"), "table", names, dates={"Rechnungsdatum": DAYS},
                  numbers={"Netto": PRICES, "MwSt": [19, 19]},
                  said=("Rechnungsausgang", "a line of totals"))  # fmt: skip


def customers() -> Export:
    names = ("customer_id", "age", "city", "signup_date", "orders", "revenue")
    rows = [(1000 + n, 20 + 7 * n % 50, ("Bern", "Wien", "Köln")[n % 3], (BEGUN + timedelta(days=n)).date(), n % 9,
             f"{100 * b:.2f}") for n, (_, _, b) in enumerate(series())]  # fmt: skip
    return Export("customers.csv", separated(names, rows).encode(), "table", names,
                  dates={"signup_date": ["2026-01-05", "2026-01-06"]},
                  numbers={"revenue": [round(100 * b, 2) for _, _, b in series(3)]})  # fmt: skip


EXPORTS: tuple[Export, ...] = tuple(
    make()
    for make in (
        *(shopify, woocommerce, small_shop, retail_uk, till, orders_de, orders_fr, orders_ch, orders_us, sap, library),
        *(ratings, ratings_de, listening, visits, web_shop, short_month, lab, affinities, potencies, weather, meter),
        *(stocks, dimensions, grades, moodle, tutor, cards, chat, reviews, questions, invoices, customers),
    )
)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for export in EXPORTS:
        (folder / export.name).write_bytes(export.content)
        print(folder / export.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
