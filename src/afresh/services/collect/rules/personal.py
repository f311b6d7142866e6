"""Personal data in texts, as far as its form tells: what has a checksum must pass it. Names are not found."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from afresh.core.plural import counted
from afresh.services.collect.record import Record
from afresh.services.collect.rules import Mask, Names, Verdict, rule
from afresh.services.collect.rules.language import language_of_text
from afresh.services.collect.rules.mail import mail_addresses
from afresh.services.collect.rules.spans import ACTIONS, COUNT, DROP, KINDS, MASK, Span, apart, concealed, treated
from afresh.services.collect.rules.text import readable

PERSONAL = "personal_"  # of the scores that count what is found
NAMES = {"email": "e-mail address", "phone": "telephone number", "iban": "IBAN", "card": "card number"}
NAMES |= {"ip": "IP address", "id": "identity number"}
# Digits with what people write between them. Everything below but e-mail addresses is looked for around these only.
DIGITS = re.compile(r"\d[\d\s.:/()\-]{5,40}\d|[A-Z]\d\d[A-Z]\d\d[A-Z]\d{3}[A-Z]")
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d|\.\w)")
# Of those that are given out, which begin with 2 or 3 (RFC 4291): elsewhere, two colons stand in programs.
IPV6 = re.compile(
    r"(?<![\w:])[23][0-9a-fA-F]{3}:(?:[0-9a-fA-F]{1,4}:){0,6}"
    r"(?:[0-9a-fA-F]{1,4}|:(?:[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4}){0,5})?)(?![\w:])"
)
BETWEEN = r"(?:[ \u00a0\u202f.-]?|[ \t]*\r?\n[>| \t]*)"  # the groups of an IBAN, which a line's end may divide
HEAD = re.compile(rf"(?<![A-Za-z0-9])([A-Za-z]{{2}}){BETWEEN}\d{BETWEEN}\d(?={BETWEEN}[A-Za-z0-9])")
CARD = re.compile(r"(?<![\d.,-])[2-6]\d{3}(?:(?:[ -]?|\r?\n)\d){8,15}(?![\d-])")
PHONE = re.compile(r"(?<![\w.+])(?:\(?[+＋][ ]?\(?|\()?\d[\d ()./\u00a0\u2010-\u2013\-]{5,24}\d(?!\w)")
DATE = re.compile(
    r"(?<![\d.])(?:(?:0?[1-9]|[12]\d|3[01])([./-])(?:0?[1-9]|1[0-2])\1(?:19|20)?\d\d|"
    r"(?:19|20)\d\d([./-])(?:0[1-9]|1[0-2])\2[0-3]\d)(?![./-]?\d)"
)
# What begins as a number within a country does, in the countries that dial 0 or 8 first, and the groups of America.
NATIONAL = re.compile(r"\(?0\d|8[ -]?\(\d|\(?[2-9]\d\d(?:\) ?|[ .-])[2-9]\d\d[ .-]\d{4}$")
LINE_END = re.compile(r"(?<=\d)[ \t]*\r?\n[>| \t]*(?=\d)")  # within a number
PAIRS = re.compile(r"\(?0\d{2,5}\)?[ /-]+\d\d(?: \d\d){1,3}\d?")  # as Germans group: 030 / 90 18 20
PRICE = re.compile(r"\s*(?:[€$£¥%]|EUR|USD|CHF)|[.,:]\d")  # what stands after other numbers
VERSION = re.compile(r"(?:\bv|version|release|section|chapter|oid)\W{0,5}$", re.IGNORECASE)
TABLE = json.loads(Path(__file__).with_name("personal.json").read_text(encoding="utf-8"))
LENGTHS = {code: int(length) for length, codes in TABLE["iban"].items() for code in codes.split()}  # of IBANs


# --------------------------------------------------------------------------- checksums


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1: every second digit from the right is doubled."""
    doubled = (sum(divmod(2 * int(d), 10)) for d in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def iban(packed: str) -> bool:
    """ISO 13616: the number with its head moved to the end, letters as 10 to 35, is 1 modulo 97."""
    return int("".join(str(int(c, 36)) for c in packed[4:] + packed[:4])) % 97 == 1


def card(text: str) -> bool:
    """Luhn, and the lengths and first digits of Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay."""
    digits = re.sub(r"\D", "", text)
    four, size = int(digits[:4]), len(digits)
    issued = (
        (digits[0] == "4" and size in (13, 16, 19))
        or ((5100 <= four < 5600 or 2221 <= four <= 2720) and size == 16)
        or (digits[:2] in ("34", "37") and size == 15)
        or ((digits[:2] in ("36", "38") or 3000 <= four < 3060) and size == 14)
        or ((four == 6011 or 6440 <= four < 6600 or 3528 <= four < 3590) and size == 16)
        or (digits[:2] == "62" and 16 <= size <= 19)
    )
    return issued and len(set(digits)) > 1 and luhn(digits)


def _weighted(digits: str, weights: str) -> int:
    return sum(int(d) * int(w) for d, w in zip(digits, weights, strict=False))


def dni(text: str) -> bool:
    """Spain, DNI and NIE: the letter is the number modulo 23."""
    packed = text.upper().replace("-", "").replace(" ", "")
    number = int(packed[:-1].translate(str.maketrans("XYZ", "012")))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23] == packed[-1]


# By the order of a letter or a digit; those of digits are those of the first letters.
ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def codice_fiscale(text: str) -> bool:
    """Italy (decree of 23 December 1976): odd places by a table, even ones by their order, modulo 26."""
    order = [int(c) if c.isdigit() else ord(c) - 65 for c in text]
    return (sum(ODD[n] for n in order[0:15:2]) + sum(order[1:15:2])) % 26 == order[15]


def hetu(text: str) -> bool:
    """Finland: a date, and the nine digits modulo 31."""
    return _day(text[0:2], text[2:4]) and "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(text[:6] + text[7:10]) % 31] == text[10]


def resident_id(text: str) -> bool:
    """China, GB 11643: a date, and ISO 7064 MOD 11-2."""
    weights = [pow(2, 17 - i, 11) for i in range(17)]
    check = sum(int(d) * w for d, w in zip(text[:17], weights, strict=True)) % 11
    return (
        _day(text[12:14], text[10:12]) and text[6:8] in ("18", "19", "20") and "10X98765432"[check] == text[17].upper()
    )


def cpf(text: str) -> bool:
    """Brazil: two check digits modulo 11."""
    d = re.sub(r"\D", "", text)
    first = sum(int(x) * w for x, w in zip(d, range(10, 1, -1), strict=False)) * 10 % 11 % 10
    second = sum(int(x) * w for x, w in zip(d, range(11, 1, -1), strict=False)) * 10 % 11 % 10
    return len(set(d)) > 1 and d[9:] == f"{first}{second}"


def nir(text: str) -> bool:
    """France: 97 minus the number modulo 97; the departments of Corsica, 2A and 2B, count as 19 and 18."""
    packed = text.replace(" ", "").replace("2A", "19").replace("2B", "18")
    return 97 - int(packed[:13]) % 97 == int(packed[13:])


def personnummer(text: str) -> bool:
    """Sweden: a date, and Luhn over the last ten digits."""
    digits = re.sub(r"\D", "", text)[-10:]
    return _day(digits[4:6], digits[2:4]) and luhn(digits)


def rijksregister(text: str) -> bool:
    """Belgium: 97 minus the number modulo 97, with a 2 before it for those who were born from 2000 on."""
    d = re.sub(r"\D", "", text)
    return _day(d[4:6], d[2:4]) and int(d[9:]) in (97 - int(d[:9]) % 97, 97 - int("2" + d[:9]) % 97)


def pesel(text: str) -> bool:
    """Poland: a date whose month tells the century, and a weighted sum modulo 10."""
    return _day(text[4:6], f"{int(text[2:4]) % 20:02d}") and _weighted(text, "13791379131") % 10 == 0


def aadhaar(text: str) -> bool:
    """India: Verhoeff's check digit, by products in the dihedral group of order ten and powers of a permutation."""
    check = 0
    for i, d in enumerate(reversed(re.sub(r"\D", "", text))):
        permuted = int(d)
        for _ in range(i % 8):
            permuted = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[permuted]
        turned = (check + permuted if check < 5 else check - permuted) % 5
        check = turned if (check < 5) == (permuted < 5) else 5 + turned
    return check == 0


def steuer_id(text: str) -> bool:
    """Germany: ISO 7064 MOD 11,10; of the first ten digits one occurs twice or thrice, and others at most once."""
    digits = re.sub(r"\D", "", text)
    times = sorted((digits[:10].count(d) for d in set(digits[:10])), reverse=True)
    product = 10
    for d in digits[:10]:
        product = ((int(d) + product) % 10 or 10) * 2 % 11
    return times[0] in (2, 3) and times[1] == 1 and (11 - product) % 10 == int(digits[10])


def _day(day: str, month: str) -> bool:
    return 1 <= int(day) <= 31 and 1 <= int(month) <= 12


IDS: tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...] = tuple(
    (re.compile(rf"(?<![\w.+-]){pattern}(?![\w-])"), check)
    for pattern, check in (
        (r"(?:\d{8}|[XYZ]\d{7})-?[A-HJ-NP-TV-Z]", dni),
        (r"[A-Z]{6}\d{2}[ABCDEHLMPRST]\d{2}[A-Z]\d{3}[A-Z]", codice_fiscale),
        (r"\d{6}[-+ABCDEFUVWXY]\d{3}[0-9A-FHJ-NPR-Y]", hetu),
        (r"[1-8]\d{16}[\dXx]", resident_id),
        (r"\d{3}\.\d{3}\.\d{3}-\d{2}", cpf),
        (r"[12] ?\d{2} ?(?:0[1-9]|1[0-2]) ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}", nir),
        (r"(?:19|20)?\d{6}[-+]\d{4}", personnummer),
        (r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", rijksregister),
        (r"\d{11}", pesel),
        (r"[2-9]\d{3} \d{4} \d{4}", aadhaar),
        (r"[1-9]\d(?: ?\d{3}){3}", steuer_id),
    )
)


# --------------------------------------------------------------------------- finding


@cache
def _table() -> tuple[dict[str, tuple[str, ...]], tuple[tuple[re.Pattern[str], tuple[str, ...]], ...], re.Pattern[str]]:
    """Of personal.json: the regions by language; patterns of words that stand before a number, with the regions of
    their languages; and the pattern of those before other numbers."""
    regions = {language: tuple(codes.split()) for language, codes in TABLE["regions"].items()}

    def before(words: str, reach: int) -> re.Pattern[str]:
        listed = "|".join(re.escape(w).replace(r"\|", r"\s+") for w in words.split())
        return re.compile(rf"(?<!\w)(?:{listed})[^\d\n]{{0,{reach}}}\n?[^\d\n]{{0,4}}$", re.IGNORECASE)

    named = tuple(
        (before(words, 24), tuple(dict.fromkeys(r for language in languages.split() for r in regions[language])))
        for words, languages in TABLE["words"].items()
    )
    return regions, named, before(TABLE["not_before"], 24)


def find(text: str, countries: tuple[str, ...] = (), language: str = "") -> list[Span]:
    """The personal data in a text. countries: those whose phone numbers are found without +, as "DE". language: of the
    text, as "de"; numbers of the countries where it is spoken are found if they are grouped as is usual there."""
    spans = [Span(start, end, "email") for start, end in mail_addresses(text)]
    if DIGITS.search(text):
        spans += _ibans(text)
        spans += _checked(CARD, card, text, "card")
        for pattern, check in IDS:
            spans += _checked(pattern, check, text, "id")
        spans += _addresses(text)
        spans += _phones(text, countries, _table()[0].get(language, ()))
    elif "::" in text or text.count(":") > 3:
        spans += _addresses(text)
    return apart(spans)


def _checked(pattern: re.Pattern[str], check: Callable[[str], bool], text: str, what: str) -> Iterator[Span]:
    return (Span(*m.span(), what) for m in pattern.finditer(text) if check(m.group()))


@cache
def _rest(length: int) -> re.Pattern[str]:
    """What follows the country of an IBAN of so many characters."""
    return re.compile(rf"(?:{BETWEEN}[A-Za-z0-9]){{{length - 2}}}(?![A-Za-z0-9])")


def _ibans(text: str) -> Iterator[Span]:
    """Account numbers in capital or small letters, with anything between their groups."""
    for head in HEAD.finditer(text):
        country = head.group(1).upper()
        rest = _rest(LENGTHS[country]).match(text, head.end(1)) if country in LENGTHS else None
        if rest and iban(country + re.sub(r"[^A-Z0-9]", "", rest.group().upper())):
            yield Span(head.start(), rest.end(), "iban")


def _addresses(text: str) -> Iterator[Span]:
    """Internet addresses that are reached from everywhere. Numbers of versions look like them."""
    for pattern in (IPV4, IPV6):
        for m in pattern.finditer(text):
            try:
                public = ip_address(m.group()).is_global
            except ValueError:
                continue
            if public and not VERSION.search(text, max(0, m.start() - 16), m.start()):
                yield Span(*m.span(), "ip")


def _phones(text: str, countries: tuple[str, ...], spoken: tuple[str, ...]) -> list[Span]:
    """Numbers that are valid by the plans of their countries, as phonenumbers knows them. Without + they are of one of
    `countries`, or of a country where the language is spoken: then a word says that it is a telephone's, or it is
    grouped as there."""
    from phonenumbers import Leniency, PhoneNumberMatcher

    words = _table()[1]
    found: list[Span] = []
    dateless = _dateless(text)
    joined = LINE_END.sub(lambda m: " " * len(m.group()), dateless)
    for line_ends, searched in enumerate((dateless, joined) if joined != dateless else (dateless,)):
        for m in PHONE.finditer(searched):
            number, before, plus = (
                m.group(),
                text[max(0, m.start() - 48) : m.start()],
                m.group().strip("( ")[0] in "+＋",
            )
            if line_ends and (
                "\n" not in text[m.start() : m.end()] or any(s.end > m.start() and s.start < m.end() for s in found)
            ):
                continue
            tried: list[tuple[str | None, int]] = [(None, Leniency.VALID)]
            if not plus:
                named = [regions for pattern, regions in words if pattern.search(before)]
                if not named and (line_ends or _other(text, m.start()) or PRICE.match(text, m.end())):
                    continue
                tried = [(region, Leniency.VALID) for region in countries]
                if named:
                    guessed = [r for r in spoken if any(r in regions for regions in named)] or spoken or named[0]
                    tried += [(region, Leniency.VALID) for region in guessed]
                    tried += [(region, Leniency.POSSIBLE) for region in guessed if number.lstrip("(")[0] == "0"]
                elif NATIONAL.match(number):
                    grouped = Leniency.VALID if PAIRS.fullmatch(number) else Leniency.STRICT_GROUPING
                    tried += [(region, grouped) for region in spoken]
            for region, lenient in tried:
                matches = list(PhoneNumberMatcher(number, region, lenient, 2))
                found += (Span(m.start() + f.start, m.start() + f.end, "phone") for f in matches)
                if matches:
                    break
    return found


def _dateless(text: str) -> str:
    """The text, as long as before, without dates, which look like numbers of telephones."""
    return DATE.sub(lambda m: "x" * len(m.group()), text)


def _action(given: list[str]) -> list[str]:
    """What is done, and countries."""
    from phonenumbers import SUPPORTED_REGIONS

    if not given or given[0] not in ACTIONS:
        raise ValueError(f"it begins with one of {', '.join(ACTIONS)}")
    for country in given[1:]:
        if country not in SUPPORTED_REGIONS:
            raise ValueError(f"{country!r} is not a code of a country in ISO 3166, as DE or US")
    return given


def _language(record: Record) -> str:
    """The language of a record; empty if it is not known, or if nothing in it depends on it."""
    text = "\n".join(filter(None, (readable(record), record.about.caption, record.about.title)))
    return record.language or (language_of_text(text)[0] if PHONE.search(text) else "")


def concealing(value: tuple[str, ...]) -> Mask | None:
    action, *countries = value
    if action == COUNT:
        return None
    return lambda record: concealed(record, partial(find, countries=tuple(countries), language=_language(record)))


@rule(
    KINDS,
    value=[COUNT],
    accepts=Annotated[Names, AfterValidator(_action)],
    needs="phonenumbers py3langid",
    concealing=concealing,
)
def personal(record: Record, value: tuple[str, ...]) -> Verdict:
    """E-mail addresses, phone numbers, IBANs, numbers of credit cards, public IP addresses, and numbers of identity
    with a checksum (BE, BR, CN, DE, ES, FI, FR, IN, IT, PL, SE) are counted as scores; with `mask`, they become
    <email>, <phone>, <iban>, <card>, <ip> and <id>; with `drop`, the text is left out. Phone numbers are found if
    they begin with +, and without it by the rules of the countries where the language of the text is spoken, and of
    those that you name, as `mask,DE,US`. Names and addresses of persons are not found."""
    action, *countries = value
    language = _language(record)
    verdict = treated(record, action, "personal", partial(find, countries=tuple(countries), language=language))
    if isinstance(verdict, str) or countries or language in _table()[0] or record.kind not in ("text", "conversation"):
        return verdict
    left = _dateless(readable(verdict))
    unsearched = sum(1 for m in PHONE.finditer(left) if NATIONAL.match(m.group()) and not _other(left, m.start()))
    return verdict.scored(personal_unsearched=unsearched) if unsearched else verdict


def _other(text: str, start: int) -> bool:
    """Whether a word before this place says that the number there is an order's, a version's or the like."""
    before = text[max(0, start - 48) : start]
    return bool(_table()[2].search(before) or VERSION.search(before))


def summary(counts: Mapping[str, int], value: Sequence[str] | None) -> Iterator[str]:
    """Lines about the personal data in the items of a data set: how much of each kind, and what was not searched for.

    counts: of the items' scores, by name. value: of the rule `personal`; None if it is off.
    """
    held = [(counts[PERSONAL + kind], name) for kind, name in NAMES.items() if PERSONAL + kind in counts]
    found = [counted(n, name, name.endswith("ss") * f"{name}es") for n, name in held]
    unsearched = counts.get(PERSONAL + "unsearched", 0)
    if value is None or (value[0] == COUNT and not found and not unsearched):
        return
    done = {COUNT: "found and kept", MASK: "masked", DROP: "left in what is kept"}[value[0]]
    mend = ". Mask it with `rule=personal=mask`" if value[0] == COUNT and found else ""
    yield f"personal data {done}: {', '.join(found) or 'none'}{mend}"
    yield "not searched for: names and postal addresses of persons"
    if unsearched:
        numbers = counted(unsearched, "number")
        yield (
            f"not searched for: telephone numbers without + in texts of an unknown language ({numbers} may be such). "
            f"Name their countries, as `rule=personal={value[0]},DE`"
        )
