"""Addresses of e-mail as people and programs write them: ann@example.org, ann (at) example [dot] org, ann%40..."""

from __future__ import annotations

import re
from collections.abc import Iterator

# @, as addresses of the web, HTML, JSON and people write it.
SIGN = re.compile(
    r"(?P<plain>@|＠|%40|&#0?64;|&#x40;|&commat;|\\u0040|\s?[\[({<]\s?(?:at|@)\s?[\])}>]\s?)"
    r"|(?P<spaced>[ ]@[ ]?|@[ ])",
    re.IGNORECASE,
)
WITH_SIGN = ("@", "＠", "%40", "&#", "commat", "u0040", "at)", "at]", "at}", "at>", "at )", "at ]", "at }", "at >")
WORD = re.compile(r"(?P<word>[ ]at[ ]|_at_)", re.IGNORECASE)  # beside which a dot must be a word, too
SPELLED = r"(?:\s?[\[({<]\s?(?:dot|\.)\s?[\])}>]\s?|[ ]dot[ ]|_dot_)"
DOT = rf"(?:\.|．|&#46;|&period;|{SPELLED})"
LABEL = r"[^\W_](?:[^\W_]|-(?=[^\W_]|-)){0,62}"
TOP = r"(?!(?:png|jpe?g|gif|webp|svg|js|css)\b)(?:xn--[a-z0-9-]{2,59}|[^\W\d_]{2,24})(?![\w@]|-\w)"  # not logo@2x.png
COMMON = "com|org|net|edu|gov|info|io|de|fr|uk|it|es|nl|eu|ch|at|be|pl|se|no|dk|fi|cz|pt|ie|us|ca|au|nz|jp|in|br"
DOMAINS = {
    "plain": rf"(?:{LABEL}{DOT}){{1,8}}{TOP}|\[(?:IPv6:)?[0-9a-f.:]{{7,45}}\]",
    "spaced": rf"(?:{LABEL}\.){{1,8}}(?:{COMMON})(?![\w(.@-])",
    "word": rf"(?:{LABEL}{SPELLED}){{1,8}}{TOP}",
}
DOMAIN = {how: re.compile(pattern, re.IGNORECASE) for how, pattern in DOMAINS.items()}
BEFORE = 130  # characters, which an address may have before the sign
LOCAL = re.compile(r"""(?:(?<![\w.+%-])(?<!\w')[\w.+%-]{1,64}(?:'[\w.+%-]{1,32})?|"[^"\n@]{1,62}")\Z""")
LOCAL_SPELLED = re.compile(rf"(?:[^\W_]{{1,30}}{SPELLED}){{1,4}}[^\W_]{{1,30}}\Z", re.IGNORECASE)
SIGNING_IN = re.compile(r"//(?:[^\s/:@]{1,60}:)?\Z")  # to a host, with a name, or a name and a password
PORT = re.compile(r":\d")
SERVICES = ("git", "hg", "svn")  # who signs in to a repository; no person


def mail_addresses(text: str) -> Iterator[tuple[int, int]]:
    """Where addresses begin and end."""
    low = text.lower()
    if any(sign in low for sign in WITH_SIGN):
        yield from _addresses(SIGN, text)
    if "dot" in low and "at" in low:
        yield from _addresses(WORD, text)


def _addresses(signs: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    for sign in signs.finditer(text):
        domain = DOMAIN[sign.lastgroup or "plain"].match(text, sign.end())
        if domain is None:
            continue
        window = text[max(0, sign.start() - BEFORE) : sign.start()]
        local = LOCAL_SPELLED.search(window) or LOCAL.search(window)
        if local is None or local.group().lower() in SERVICES or local.group().startswith("%"):
            continue
        before, port = window[: local.start()], PORT.match(text, domain.end())
        if not SIGNING_IN.search(before) and not (port and before.endswith(":")):
            yield sign.start() - len(window) + local.start(), domain.end()
