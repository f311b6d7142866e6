"""Lines of web pages that say nothing of their subject. Each pattern must match a whole line."""

from __future__ import annotations

import re

from afresh.services.collect.record import Record
from afresh.services.collect.rules import Verdict, rule
from afresh.services.collect.rules.text import changed_lines

LONGEST = 300  # characters of such a line
NOTHING = "nothing but such lines"

NAVIGATION = re.compile(
    r"(skip|jump) to (the )?(main )?(content|navigation|search)|skip navigation"
    r"|(toggle|main|open|close) (menu|navigation)|menu|search|home|(back to )?top"
    r"|log ?in|sign (in|up)( now)?|register|log ?out|my account|site ?map|contact( us)?|about( us)?"
    r"|previous|next|prev|(«|<|←|‹) ?(previous|older|back)( (post|page|article)s?)?"
    r"|(next|newer)( (post|page|article)s?)? ?(»|>|→|›)|read more( ?(»|>|→|…|\.\.\.))?|(continue|keep) reading( ?→)?"
    r"|(leave|post|add) a (comment|reply)|no comments( yet)?|\d{1,6} comments?"
    r"|view all( posts)?|load more|show (more|less)"
    r"|(share|tweet|pin|like|follow|print|email)( (this|us))?( (on|via|by|to) [\w +]{1,20})?|share this:?"
    r"|facebook|twitter|instagram|pinterest|linkedin|whatsapp|reddit|youtube"
    r"|(subscribe|sign up)( (now|today))?"
    r"( (to|for) (our |the )?(\w{1,20} )?(newsletter|updates|feed|mailing list).{0,60})?"
    r"|advertisement|sponsored( content)?|related (posts|articles|stories)|you (may|might) also like:?"
    r"|all rights reserved\.?|(copyright )?(©|\(c\)) ?\d{4}.{0,120}|powered by .{1,40}"
    r"|zum inhalt( springen)?|startseite|impressum|datenschutz(erklärung)?|anmelden|abmelden|weiterlesen ?(»|→|…)?"
    r"|aller au contenu( principal)?|accueil|mentions légales|se connecter|lire la suite ?(»|→|…)?"
    r"|saltar al contenido|ir al contenido|inicio|aviso legal|iniciar sesión|leer más ?(»|→|…)?",
    re.IGNORECASE,
)
# Two or more entries of a menu in one line, as "Home | About | Contact".
MENU = re.compile(r"\w[\w '&-]{0,24}( ?[|•·»›/] ?\w[\w '&-]{0,24}){2,30}")
COOKIES = re.compile(
    r"\b(we|(web)?site|partners|page)\b[^\n]{0,40}\b(use|uses|using|set|sets|store|stores|place|places) [^\n]{0,60}"
    r"\bcookies\b|\bcookies? (policy|settings|notice|preferences|consent)\b|\b(use|uses) of cookies\b"
    r"|\b(accept|reject|allow|manage)( (all|optional|necessary))? cookies\b"
    r"|\bcookie[- ]?(richtlinie|einstellungen|hinweis)|\bverwende[nt]\b[^\n]{0,40}\bcookies\b"
    r"|\butilis(e|ons|ent)\b[^\n]{0,40} cookies\b|\b(utiliza|usa|utilizamos|usamos)\b[^\n]{0,40} cookies\b",
    re.IGNORECASE,
)
POLICY = re.compile(
    r"\b(terms of (use|service)|privacy policy|use of cookies|uses cookies|cookie policy)\b", re.IGNORECASE
)
SCRIPT = re.compile(
    r"\b(enable|activate|requires?|supports?|turn on|disabled|aktivieren)\b[^\n]{0,60}\bjavascript\b"
    r"|\bjavascript\b[^\n]{0,60}\b(enabled?|disabled|required|aktivier\w{0,4}|turned off|not supported)\b",
    re.IGNORECASE,
)


@rule(("text",))
def navigation(record: Record) -> Verdict:
    """Lines are removed that are a menu, a link to share, log in or read more, or a copyright notice, in English,
    German, French or Spanish."""
    return changed_lines(record, lambda line: not _navigates(line.strip()), f"{NOTHING}: menus and links")


def _navigates(line: str) -> bool:
    return len(line) <= LONGEST and bool(NAVIGATION.fullmatch(line) or (MENU.fullmatch(line) and _short(line)))


def _short(line: str) -> bool:
    """Whether the entries are at most three words each, as those of menus."""
    return all(len(entry.split()) <= 3 for entry in re.split(r"[|•·»›/]", line))


def _without(record: Record, pattern: re.Pattern[str], word: str, what: str) -> Verdict:
    """The record without its lines in which a pattern occurs, which has a word that is looked for first."""
    if word not in (record.text or "").lower():
        return record
    return changed_lines(record, lambda x: len(x) > LONGEST or not pattern.search(x), f"{NOTHING}: {what}")


@rule(("text",))
def cookie_notices(record: Record) -> Verdict:
    """Lines of at most {LONGEST} characters are removed that tell of a site's cookies or ask to accept them."""
    return _without(record, COOKIES, "cookie", "notices of cookies")


@rule(("text",))
def script_lines(record: Record) -> Verdict:
    """Lines of at most {LONGEST} characters are removed that ask to switch on JavaScript, a narrower form of a rule
    of C4 (Raffel et al. 2020)."""
    return _without(record, SCRIPT, "javascript", "asking for JavaScript")


@rule(("text",), on=False)
def policy_lines(record: Record) -> Verdict:
    """Lines of at most {LONGEST} characters are removed that name terms of use or a privacy policy, as the code of
    C4 does (Raffel et al. 2020)."""
    return _without(record, POLICY, "", "terms and policies")
