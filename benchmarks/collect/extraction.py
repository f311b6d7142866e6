"""How well the main text of web pages is found: F1 of words on thirty pages that are written here.

Beside it stand trafilatura alone, which finds the main text, and all text that is visible.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape

import numpy as np

from afresh.data.text.web_pages import main_content, visible_text
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.results import Row, save


@dataclass(frozen=True)
class Page:
    """A page and the text that its readers come for."""

    name: str
    html: str
    main: str


@dataclass(frozen=True)
class Content:
    """The main part of a page as HTML, and its text."""

    name: str
    language: str
    title: str
    html: str
    text: str


def prose(tag: str, *texts: str) -> tuple[str, str]:
    return "".join(f"<{tag}>{escape(t)}</{tag}>" for t in texts), "\n".join(texts)


def join(*parts: tuple[str, str]) -> tuple[str, str]:
    return "\n".join(html for html, _ in parts), "\n".join(text for _, text in parts)


def listed(tag: str, *items: str) -> tuple[str, str]:
    html, text = prose("li", *items)
    return f"<{tag}>{html}</{tag}>", text


def code(text: str) -> tuple[str, str]:
    return f"<pre><code>{escape(text)}</code></pre>", text


def table(*rows: tuple[str, ...]) -> tuple[str, str]:
    head = "".join(f"<th>{escape(c)}</th>" for c in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows[1:])
    return f"<table><tr>{head}</tr>{body}</table>", "\n".join(" ".join(row) for row in rows)


def posts(kind: str, *said: tuple[str, str]) -> tuple[str, str]:
    """Posts of a forum or comments, with who wrote them: the words count, the names need not."""
    html = "".join(
        f'<div class="{kind}"><div class="{kind}-author"><a href="/u/{who}">{who}</a></div>'
        f'<div class="{kind}-body"><p>{escape(words)}</p></div></div>'
        for who, words in said
    )
    return f'<div class="{kind}s" id="{kind}s">{html}</div>', "\n".join(words for _, words in said)


CONTENTS: tuple[Callable[[], tuple[str, str, str, tuple[str, str]]], ...] = (
    lambda: (
        "article",
        "en",
        "How the harbour was dredged",
        prose(
            "p",
            "For eleven years the harbour had been filling with silt, and every spring the larger boats waited a week "
            "longer for a tide that would carry them over the bar.",
            "The council had asked for a survey in the autumn. What the divers brought back was not only mud: anchors, "
            "a brass bell, and the ribs of a barge that nobody living remembered.",
            "“We could have closed the mouth and built a new one,” says the engineer who led the work, “but the town "
            "would have lost its walk along the wall.” So they dredged by night, when the ferries lay still.",
            "By the end of May the channel was four metres deep again, and the first trawler came in at low water.",
        ),
    ),
    lambda: (
        "artikel",
        "de",
        "Warum Brot ruhen muss",
        join(
            prose(
                "p",
                "Wer Brot backt, braucht vor allem Geduld. Das Mehl nimmt das Wasser langsam auf, und erst nach einer "
                "Stunde ist der Teig so geschmeidig, dass er sich falten lässt.",
                "In dieser Zeit arbeiten Enzyme, die Stärke in Zucker verwandeln. Die Hefe lebt davon und bildet Gas, "
                "das der Kleber festhält.",
            ),
            prose("h2", "Was man falsch machen kann"),
            prose(
                "p",
                "Zu warmes Wasser beschleunigt alles und nimmt dem Brot seinen Geschmack. Besser ist es, den Teig über "
                "Nacht in den Keller zu stellen und morgens zu formen.",
            ),
        ),
    ),
    lambda: (
        "recette",
        "fr",
        "Soupe aux poireaux",
        join(
            prose("p", "Une soupe simple pour les soirs d'hiver, que ma grand-mère servait avec du pain grillé."),
            prose("h2", "Ingrédients"),
            listed("ul", "trois poireaux", "deux pommes de terre", "un litre de bouillon", "un peu de crème fraîche"),
            prose("h2", "Préparation"),
            listed(
                "ol",
                "Lavez les poireaux et coupez-les en fines rondelles.",
                "Faites-les revenir dans du beurre sans les laisser brunir.",
                "Ajoutez les pommes de terre et le bouillon, puis laissez cuire vingt minutes.",
                "Mixez la soupe et servez-la avec la crème.",
            ),
        ),
    ),
    lambda: (
        "thread",
        "en",
        "Bicycle chain keeps slipping",
        posts(
            "post",
            ("marta", "My chain slips on the two smallest sprockets, but only when I stand up. It is a new chain."),
            ("old_spoke", "A new chain on worn sprockets does that. Look whether the teeth have become hooked."),
            ("marta", "They have, slightly. Do I need a whole cassette or can I change those two?"),
            ("tandem", "On most cassettes the small ones are loose and can be bought one at a time."),
            ("old_spoke", "And check the cable tension first, which costs nothing."),
        ),
    ),
    lambda: (
        "documentation",
        "en",
        "Reading settings from a file",
        join(
            prose("p", "Settings are read once, when the program starts. A missing file is not an error."),
            code(
                'def read(path):\n    """Settings by name."""\n    with open(path) as file:\n        return parse(file)'
            ),
            prose("h2", "Options"),
            table(
                ("Option", "Default", "Meaning"),
                ("timeout", "30", "seconds to wait for an answer"),
                ("retries", "2", "attempts after a failure"),
                ("colour", "auto", "whether messages are coloured"),
            ),
            prose("p", "An option that is given on the command line replaces the one in the file."),
            code("$ program --timeout 10 --colour never"),
        ),
    ),
    lambda: (
        "blog",
        "en",
        "A year without a car",
        join(
            prose(
                "p",
                "Last January we sold the car. I had expected to miss it on Saturdays; what I missed was the radio.",
                "The bus goes every twenty minutes, which turned out to be often enough for everything but my own "
                "impatience. We carry less, and so we buy less.",
                "In September we rented a van for two days to move a bed. It cost less than a month of parking.",
            ),
            posts(
                "comment",
                ("ines", "We did the same three years ago and never looked back. The radio, though: true."),
                ("paul", "How do you manage with small children? Ours refuse to walk to the stop."),
            ),
        ),
    ),
    lambda: (
        "respuesta",
        "es",
        "¿Cómo se ordena un diccionario por valor?",
        join(
            prose("p", "Tengo un diccionario de nombres y edades, y quiero recorrerlo de menor a mayor edad."),
            prose("p", "Se puede usar la función sorted con una clave que devuelva el segundo elemento de cada par:"),
            code("for nombre, edad in sorted(edades.items(), key=lambda par: par[1]):\n    print(nombre, edad)"),
            prose("p", "Desde la versión 3.7 los diccionarios conservan el orden, de modo que el resultado también."),
        ),
    ),
    lambda: (
        "table",
        "en",
        "Rainfall of the valley",
        join(
            prose("p", "Monthly sums in millimetres, measured at the mill since the gauge was replaced."),
            table(
                ("Month", "2021", "2022", "2023"),
                ("January", "81", "64", "97"),
                ("February", "55", "71", "12"),
                ("March", "49", "20", "88"),
                ("April", "33", "41", "60"),
                ("May", "70", "18", "39"),
            ),
            prose("p", "The gauge was frozen for nine days in February 2023; these days are left out."),
        ),
    ),
    lambda: (
        "рассказ",
        "ru",
        "Утро на станции",
        prose(
            "p",
            "Поезд пришёл на рассвете, когда на станции ещё никого не было. Снег лежал ровно, и только у водокачки "
            "темнела узкая тропинка.",
            "Старик в тулупе вынес чемодан и поставил его на лавку. Он долго смотрел на рельсы, будто ждал второго "
            "поезда, которого не было в расписании.",
            "Потом он вздохнул, взял чемодан и пошёл к деревне, не оглядываясь.",
        ),
    ),
    lambda: (
        "short",
        "en",
        "Opening hours",
        join(
            prose("p", "The library is open from ten to six, on Thursdays until eight."),
            listed("ul", "Monday: closed", "Tuesday to Friday: 10 to 18", "Saturday: 10 to 14"),
            prose("p", "On public holidays please use the book drop beside the door."),
        ),
    ),
)


def contents() -> Iterator[Content]:
    for make in CONTENTS:
        name, language, title, (html, text) = make()
        yield Content(name, language, title, html, text)


MENU = ("Home", "Latest", "Topics", "Archive", "About us", "Contact", "Subscribe", "Log in")
RELATED = (
    "Ten walks for a rainy Sunday",
    "Why the old bridge will stay closed",
    "Readers write: our favourite apples",
    "What the election means for the ferry",
)
COOKIES = "We and our 42 partners use cookies to measure audiences and to show advertisements that fit your interests."
LEGAL = "All rights reserved. Reproduction of any part of this site without permission is prohibited."


def links(names: tuple[str, ...]) -> str:
    return "".join(f'<li><a href="/{n.lower().replace(" ", "-")}">{n}</a></li>' for n in names)


def head(content: Content) -> str:
    return (
        f'<!doctype html><html lang="{content.language}"><head><meta charset="utf-8"><title>{escape(content.title)}'
        " | The Example</title><style>.x{color:red}</style><script>var tracked = 'not text';</script></head>"
    )


def semantic(content: Content) -> str:
    """A site of today: elements that say what they are."""
    return (
        f"{head(content)}<body><header><a href='/'>The Example</a><nav><ul>{links(MENU)}</ul></nav></header>"
        f"<div class='cookie-banner' role='dialog'><p>{COOKIES}</p><button>Accept all</button><button>Settings</button>"
        f"</div><main><article><h1>{escape(content.title)}</h1>{content.html}</article></main>"
        f"<aside><h2>Read also</h2><ul>{links(RELATED)}</ul></aside>"
        f"<footer><ul>{links(MENU[4:])}</ul><p>{LEGAL}</p></footer></body></html>"
    )


def divisions(content: Content) -> str:
    """A site of years ago: divisions with classes."""
    return (
        f"{head(content)}<body><div id='top'><div class='logo'>The Example</div>"
        f"<ul class='menu'>{links(MENU)}</ul></div>"
        f"<div class='container'><div class='sidebar'><h3>Most read</h3><ul>{links(RELATED)}</ul>"
        "<div class='widget newsletter'><h3>Newsletter</h3><p>Get our stories every Friday in your inbox.</p>"
        f"<input type='email'><button>Sign up</button></div></div><div class='content'><h1>{escape(content.title)}</h1>"
        "<div class='share'><a href='#'>Share</a> <a href='#'>Tweet</a> <a href='#'>Print</a></div>"
        f"{content.html}<div class='tags'>Tags: <a href='/t/a'>town</a>, <a href='/t/b'>life</a></div></div></div>"
        f"<div class='footer'><p>{LEGAL}</p><p>{COOKIES} <a href='#'>Accept</a></p></div></body></html>"
    )


def bare(content: Content) -> str:
    """A page with little around it, and elements that are not closed."""
    return (
        f"{head(content)}<body><p><a href='/'>Home</a> &gt; <a href='/a'>Archive</a> &gt; {escape(content.title)}<hr>"
        f"<h1>{escape(content.title)}</h1>{content.html}<hr><p><small>{LEGAL}<br><a href='/'>Back to the start</a>"
    )


def grid(content: Content) -> str:
    """A site of long ago: a table for the layout, and nothing that says what is what."""
    return (
        f"{head(content)}<body bgcolor='#ffffff'><table width='100%'><tr><td colspan='2'><b>The Example</b> "
        f"{links(MENU)}</td></tr><tr><td width='20%' valign='top'>{links(RELATED)}</td><td valign='top'>"
        f"<h1>{escape(content.title)}</h1>{content.html}</td></tr><tr><td colspan='2'><font size='1'>{LEGAL}</font>"
        "</td></tr></table></body></html>"
    )


CONSENT = (
    "Before you continue",
    "We store information on your device, such as unique identifiers, in order to process personal data. You may "
    "accept or manage your choices, including your right to object where legitimate interest is used, at any time.",
    "These choices will be signalled to our partners and will not affect browsing data. Partners may process precise "
    "location, scan the characteristics of your device, and measure how advertisements perform.",
    "To learn more, or to withdraw your consent, visit the page on privacy. Some partners do not ask for consent and "
    "rely on their legitimate business interest.",
)


def wall(content: Content) -> str:
    """A page whose question for consent is longer than many texts, and stands before them."""
    consent = "".join(f"<p>{t}</p>" for t in CONSENT)
    return (
        f"{head(content)}<body><div id='consent-dialog' class='modal consent' role='dialog' aria-modal='true'>{consent}"
        "<button>Agree</button><button>More options</button></div><div id='root'><div class='nav-bar'>"
        f"<ul>{links(MENU)}</ul></div><div class='page'><div class='text'><h1>{escape(content.title)}</h1>"
        f"{content.html}</div></div><div class='more'><h4>More like this</h4><ul>{links(RELATED)}</ul></div></div>"
        "</body></html>"
    )


FRAMES = (semantic, divisions, bare, grid, wall)
EACH = 3  # frames of a content


def pages() -> list[Page]:
    """Every content in three of the frames, each frame equally often. The title belongs to the text."""
    return [
        Page(f"{content.name}, {frame.__name__}", frame(content), f"{content.title}\n{content.text}")
        for number, content in enumerate(contents())
        for frame in (FRAMES[(number + step) % len(FRAMES)] for step in range(EACH))
    ]


# --------------------------------------------------------------------------- measuring

WORD = re.compile(r"\w+")


def f1(found: str, wanted: str) -> float:
    """The harmonic mean of precision and recall of words, each as often as it occurs."""
    a, b = Counter(WORD.findall(found.lower())), Counter(WORD.findall(wanted.lower()))
    return 2 * (a & b).total() / max(1, a.total() + b.total())


def alone(html: str) -> str:
    """The text that trafilatura finds by itself."""
    import trafilatura

    return trafilatura.extract(html) or ""


def score(every: list[Page], extract: Callable[[str], str]) -> list[float]:
    return [f1(extract(page.html), page.main) for page in every]


def main() -> None:
    every = pages()
    ours = score(every, lambda html: main_content(html).text)
    for page, value in zip(every, ours, strict=True):
        print(f"{value:.3f}  {page.name}")
    rows = []
    for name, extract in (("trafilatura alone", alone), ("all visible text", visible_text)):
        theirs = score(every, extract)
        mine, other = float(np.mean(ours)), float(np.mean(theirs))
        rows.append(
            Row(
                "collect: main text of web pages",
                f"F1 of words, mean of the pages; beside {name}; lowest {min(ours):.3f} and {min(theirs):.3f}",
                f"{mine:.3f}",
                f"{other:.3f}",
                mine / other,
                "1.00 or more",
                mine >= other,
                f"{len(every)} pages",
            )
        )
        print(rows[-1])
    save("collect_extraction", rows)


BENCHMARKS = (Benchmark("collect_extraction", (), 1, main),)
