"""What is planted for `masking`: values by the formats of services, banks and countries, and the lines they stand in.

The formats are those of the services' documentation and of the standards, written here without the rules' patterns.
"""

from __future__ import annotations

import random
import string
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import phonenumbers

from afresh.services.collect.rules import personal as checks

ALNUM, HEX, UPPER = string.ascii_letters + string.digits, "0123456789abcdef", string.ascii_uppercase + string.digits
URLSAFE, BASE32 = ALNUM + "-_", string.ascii_uppercase + "234567"
Make = Callable[[random.Random], str]


@dataclass(frozen=True)
class Format:
    """A kind of value, how one is made, and lines with VALUE in its place: even ones for a half, odd for the other."""

    kind: str
    make: Make
    lines: tuple[str, ...]


def some(rng: random.Random, letters: str, count: int) -> str:
    return "".join(rng.choice(letters) for _ in range(count))


def form(pattern: str) -> Make:
    """By a pattern as "ghp_{A36}": A letters and digits, W also - and _, H hexadecimal, U capitals and digits, D
    digits, B base64, T base32, Z letters."""
    sets = {"A": ALNUM, "H": HEX, "U": UPPER, "W": URLSAFE, "D": string.digits, "B": ALNUM + "+/", "T": BASE32}
    sets |= {"Z": string.ascii_letters}

    def make(rng: random.Random) -> str:
        out = pattern
        while (start := out.find("{")) >= 0:
            end = out.index("}", start)
            out = out[:start] + some(rng, sets[out[start + 1]], int(out[start + 2 : end])) + out[end + 1 :]
        return out

    return make


LINES = (
    "TOKEN = 'VALUE'",
    "export SERVICE_KEY=VALUE",
    '  "credential": "VALUE",',
    "The key that we use here is VALUE, please keep it to yourself.",
    "client = Client(VALUE)",
    "curl -H 'X-Key: VALUE' https://api.example.org/v1",
    "key: VALUE",
    "I have sent it to you (VALUE) so that you can try.",
)
TOKENS = {
    "GitHub, fine-grained": "github_pat_{A22}_{A59}",
    "GitHub, classic": "ghp_{A36}",
    "GitHub, app": "ghs_{A36}",
    "GitLab": "glpat-{W20}",
    "AWS access key": "AKIA{T16}",
    "AWS session key": "ASIA{T16}",
    "Google": "AIza{W35}",
    "Google OAuth secret": "GOCSPX-{W28}",
    "Google OAuth token": "ya29.{W120}",
    "OpenAI": "sk-{A20}T3BlbkFJ{A20}",
    "OpenAI, project": "sk-proj-{W74}T3BlbkFJ{W74}",
    "OpenAI, as others write it": "sk-{A48}",
    "Anthropic": "sk-ant-api03-{W93}AA",
    "Hugging Face": "hf_{Z34}",
    "npm": "npm_{A36}",
    "PyPI": "pypi-AgEIcHlwaS5vcmcC{W150}",
    "RubyGems": "rubygems_{H48}",
    "Docker": "dckr_pat_{W27}",
    "Slack, bot": "xoxb-{D12}-{D12}-{A24}",
    "Slack, app": "xapp-1-A{U10}-{D13}-{H64}",
    "Slack, hook": "https://hooks.slack.com/services/T{U10}/B{U10}/{A24}",
    "Discord, hook": "https://discord.com/api/webhooks/{D18}/{W68}",
    "Discord, bot": "M{A23}.{W6}.{W27}",
    "Telegram": "{D10}:AA{W33}",
    "Stripe": "sk_live_{A24}",
    "Stripe, long": "rk_live_{A99}",
    "Stripe, hook": "whsec_{A32}",
    "Twilio": "SK{H32}",
    "SendGrid": "SG.{W22}.{W43}",
    "Mailgun": "key-{H32}",
    "Mailchimp": "{H32}-us17",
    "Brevo": "xkeysib-{H64}-{A16}",
    "DigitalOcean": "dop_v1_{H64}",
    "Databricks": "dapi{H32}",
    "Shopify": "shpat_{H32}",
    "Square": "sq0csp-{W43}",
    "Linear": "lin_api_{A40}",
    "Notion": "ntn_{A46}",
    "Atlassian": "ATATT3xFfGF0{W180}",
    "Figma": "figd_{W43}",
    "Postman": "PMAK-{H24}-{H34}",
    "Grafana": "glsa_{A32}_{H8}",
    "New Relic": "NRAK-{U27}",
    "Sentry": "sntryu_{H64}",
    "Vault": "hvs.{W90}",
    "Terraform": "{A14}.atlasv1.{W64}",
    "Doppler": "dp.pt.{A43}",
    "PlanetScale": "pscale_tkn_{W43}",
    "Supabase": "sbp_{H40}",
    "Replicate": "r8_{A37}",
    "Groq": "gsk_{A52}",
    "Airtable": "pat{A14}.{H64}",
    "Microsoft Entra": "{A3}8Q~{A34}",
    "age": "AGE-SECRET-KEY-1{U58}",
    "JSON Web Token": "eyJ{A33}.eyJ{W900}.{W86}",
}


def word(rng: random.Random) -> str:
    """A password as people choose them: a word with capitals, digits and signs."""
    base = "".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(rng.randint(3, 5)))
    made = base.capitalize() if rng.random() < 0.5 else base
    return made + some(rng, string.digits, rng.randint(1, 4)) + rng.choice(("", "!", "#", "&x", "$", "*", "+"))


def password(rng: random.Random) -> str:
    """A password: of a person, or one that a program has made."""
    if rng.random() < 0.5:
        return word(rng)
    made = some(rng, ALNUM, rng.randint(10, 24))
    return made[:5] + rng.choice(string.digits) + made[5:] + rng.choice("zQ")


def pem(name: str, joined: str, rng: random.Random) -> str:
    body = some(rng, ALNUM + "+/", rng.choice((480, 1600)))
    lines = [body[i : i + 64] for i in range(0, len(body), 64)]
    return joined.join([f"-----BEGIN {name}-----", *lines, f"-----END {name}-----"])


def basic(rng: random.Random) -> str:
    return b64encode(f"user{rng.randint(1, 99)}:{password(rng)}".encode()).decode()


SECRETS = (
    *(Format(kind, form(pattern), LINES) for kind, pattern in TOKENS.items()),
    Format(
        "password, named",
        password,
        (
            "Password: VALUE",
            "my password: VALUE",
            'password = "VALUE"',
            "DB_PASSWORD='VALUE'",
            "    passwd: VALUE",
            '{"user": "ann", "password": "VALUE"}',
        ),
    ),
    Format(
        "password, set",
        password,
        (
            "connect(host='db', password='VALUE')",
            "self.pwd = 'VALUE'",
            "mysql --user=app --password=VALUE shop",
            "<password>VALUE</password>",
            "login ann password VALUE",
            'const dbPassword: string = "VALUE";',
        ),
    ),
    Format(
        "password, in an address",
        form("{A14}"),
        (
            "postgres://app:VALUE@db.example.org:5432/shop",
            "see https://ann:VALUE@example.org/private",
            "mongodb+srv://root:VALUE@cluster0.example.net/",
            "REDIS_URL=redis://:VALUE@cache:6379/0",
        ),
    ),
    Format(
        "key, named",
        form("{A32}"),
        (
            "API_KEY=VALUE",
            'api_key: "VALUE"',
            "client_secret = 'VALUE'",
            "X-Api-Key: VALUE",
            "auth_token = 'VALUE'",
            "SECRET_KEY = 'VALUE'",
        ),
    ),
    Format(
        "AWS secret key",
        form("{A20}/{A9}+{A9}"),
        ("aws_secret_access_key = VALUE", "AWS_SECRET_ACCESS_KEY=VALUE", '"SecretAccessKey": "VALUE"'),
    ),
    Format(
        "bearer",
        form("{A40}"),
        (
            "Authorization: Bearer VALUE",
            "headers = {'Authorization': 'Bearer VALUE'}",
            'curl -H "Authorization: bearer VALUE" https://example.org',
        ),
    ),
    Format("basic", basic, ("Authorization: Basic VALUE", "headers['Authorization'] = 'Basic VALUE'")),
    Format(
        "curl", password, ("curl -u ann:VALUE https://example.org/", "curl --user 'ann:VALUE' https://example.org/")
    ),
    Format("Azure storage", form("{B86}=="), ("AccountName=shop;AccountKey=VALUE;EndpointSuffix=core.windows.net",)),
    Format("private key", partial(pem, "RSA PRIVATE KEY", "\n"), ("VALUE", "The key is:\nVALUE")),
    Format("private key, OpenSSH", partial(pem, "OPENSSH PRIVATE KEY", "\n"), ("VALUE",)),
    Format("private key, quoted", partial(pem, "PRIVATE KEY", "\\n"), ('"private_key": "VALUE\\n",', "KEY = 'VALUE'")),
    Format("private key, a letter", partial(pem, "EC PRIVATE KEY", "\n> "), ("> VALUE",)),
)


# --------------------------------------------------------------------------- personal data

FIRST = (
    "ann",
    "ben",
    "carla",
    "dilek",
    "emil",
    "fatima",
    "goran",
    "hana",
    "ivo",
    "jelena",
    "kofi",
    "linh",
    "marek",
    "nadia",
    "otto",
    "priya",
)
LAST = (
    "smith",
    "mueller",
    "garcia",
    "rossi",
    "dubois",
    "novak",
    "tanaka",
    "okafor",
    "silva",
    "jansen",
    "larsen",
    "kowalski",
    "ivanova",
    "chen",
    "kumar",
)
HOSTS = ("mail.example", "post.sample-firm", "uni.lakeside", "harbour-books", "blue.heron-press", "northgate")
TOPS = ("org", "com", "net", "de", "fr", "co.uk", "it", "es", "com.br", "info", "io", "pl", "se")
SPELLINGS = {
    "mail": "{local}@{domain}",
    "mail, capitals": "{LOCAL}@{DOMAIN}",
    "mail, plus": "{local}+news@{domain}",
    "mail, (at)": "{local} (at) {domain}",
    "mail, [at] [dot]": "{local} [at] {dots}",
    "mail, (at)(dot) without spaces": "{local}(at){tight}",
    "mail, at dot": "{local} at {spoken}",
    "mail, {at}": "{local}{{at}}{domain}",
    "mail, <at>": "{local} <at> {domain}",
    "mail, %40": "{local}%40{domain}",
    "mail, HTML": "{local}&#64;{domain}",
    "mail, JSON": "{local}\\u0040{domain}",
    "mail, spaces": "{local} @ {domain}",
    "mail, another alphabet": "jürgen.{last}@bücher-{domain}",
    "mail, apostrophe": "o'{last}@{domain}",
    "mail, wide sign": "{local}＠{domain}",
    "mail, of a number": "{local}@[203.0.114.{number}]",
}
WRITTEN = (
    "Please write to VALUE if you have a question.",
    "# contact: VALUE",
    "author = 'VALUE'",
    "From: VALUE",
    "You can reach me under VALUE until Friday.",
    "<a href='mailto:VALUE'>",
)


def mail(spelling: str, rng: random.Random) -> str:
    last, host, top = rng.choice(LAST), rng.choice(HOSTS), rng.choice(TOPS)
    local = rng.choice(("{f}.{l}", "{f}{l}", "{f}_{l}", "{f}{n}", "{f}-{l}")).format(
        f=rng.choice(FIRST), l=last, n=rng.randint(1, 999)
    )
    domain = f"{host}.{top}"
    return spelling.format(
        local=local,
        LOCAL=local.upper(),
        domain=domain,
        DOMAIN=domain.upper(),
        dots=domain.replace(".", " [dot] "),
        tight=domain.replace(".", "(dot)"),
        spoken=domain.replace(".", " dot "),
        last=last,
        number=rng.randint(1, 254),
    )


REGIONS = (
    "DE",
    "US",
    "GB",
    "FR",
    "IT",
    "ES",
    "NL",
    "PL",
    "SE",
    "CH",
    "AT",
    "BR",
    "IN",
    "JP",
    "CN",
    "KR",
    "AU",
    "NZ",
    "ZA",
    "NG",
    "EG",
    "TR",
    "RU",
    "UA",
    "MX",
    "AR",
    "CL",
    "CO",
    "FI",
    "NO",
    "DK",
    "PT",
    "GR",
    "IE",
    "IL",
)


def phone(how: str, rng: random.Random) -> str:
    """A valid number of a country with its +, mobile or not, in a spelling."""
    while True:
        kind = rng.choice((phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE))
        example = phonenumbers.example_number_for_type(rng.choice(REGIONS), kind)
        assert example is not None
        digits = str(example.national_number)
        number = phonenumbers.PhoneNumber(
            example.country_code,
            int(digits[:-4] + some(rng, string.digits, 4)),
            italian_leading_zero=example.italian_leading_zero,
        )
        if phonenumbers.is_valid_number(number):
            break
    formats = phonenumbers.PhoneNumberFormat
    spaced = phonenumbers.format_number(number, formats.INTERNATIONAL)
    return {
        "phone, compact": phonenumbers.format_number(number, formats.E164),
        "phone, spaces": spaced,
        "phone, hyphens": spaced.replace(" ", "-"),
        "phone, dots": spaced.replace(" ", ".").replace("-", "."),
        "phone, hard spaces": spaced.replace(" ", "\u00a0"),
        "phone, brackets": bracketed(spaced),
    }[how]


def bracketed(number: str) -> str:
    """A number with its second group in brackets."""
    country, group, *rest = number.replace("-", " ").split(" ")
    return f"{country} ({group}) {' '.join(rest)}" if rest else number


def iban(how: str, rng: random.Random) -> str:
    """A number with the right check digits; the part of the bank is at random, of digits."""
    country = rng.choice(sorted(checks.LENGTHS))
    body = some(rng, string.digits, checks.LENGTHS[country] - 4)
    check = 98 - int("".join(str(int(c, 36)) for c in f"{body}{country}00")) % 97
    packed = f"{country}{check:02d}{body}"
    groups = [packed[i : i + 4] for i in range(0, len(packed), 4)]
    return {
        "IBAN": packed,
        "IBAN, groups": " ".join(groups),
        "IBAN, small": packed.lower(),
        "IBAN, small groups": " ".join(groups).lower(),
        "IBAN, hyphens": "-".join(groups),
        "IBAN, hard spaces": "\u00a0".join(groups),
    }[how]


def card(how: str, rng: random.Random) -> str:
    start, length = rng.choice(
        (("4", 16), ("51", 16), ("2221", 16), ("37", 15), ("6011", 16), ("3528", 16), ("36", 14))
    )
    body = start + some(rng, string.digits, length - len(start) - 1)
    digits = next(body + c for c in string.digits if checks.luhn(body + c))
    cut = (4, 10) if length in (14, 15) else (4, 8, 12)
    parts = [digits[a:b] for a, b in zip((0, *cut), (*cut, length), strict=True)]
    return {"card": digits, "card, spaces": " ".join(parts), "card, hyphens": "-".join(parts)}[how]


def checked(pattern: str, check: Callable[[str], bool], rng: random.Random) -> str:
    """By a pattern as of `form`, the first that passes its check."""
    make = form(pattern)
    while True:
        value = make(rng)
        try:
            if check(value):
                return value
        except (ValueError, IndexError):
            continue


def of_day(pattern: str, rng: random.Random) -> str:
    """A pattern with a day of birth in the place of DD, MM and YY."""
    day = {"DD": f"{rng.randint(1, 28):02d}", "MM": f"{rng.randint(1, 12):02d}", "YY": f"{rng.randint(30, 99):02d}"}
    for name, value in day.items():
        pattern = pattern.replace(name, value)
    return pattern


def born(pattern: str, check: Callable[[str], bool], rng: random.Random) -> str:
    return checked(of_day(pattern, rng), check, rng)


def spaced(groups: tuple[int, ...], check: Callable[[str], bool], first: str, rng: random.Random) -> str:
    value = checked(first + "{D" + str(sum(groups) - len(first)) + "}", check, rng)
    out, at = [], 0
    for g in groups:
        out.append(value[at : at + g])
        at += g
    return " ".join(out)


def ipv4(rng: random.Random) -> str:
    network = rng.choice((8, 23, 45, 62, 81, 93, 104, 142, 185))
    return f"{network}.{rng.randint(1, 250)}.{rng.randint(114, 250)}.{rng.randint(1, 254)}"


def ipv6(rng: random.Random) -> str:
    groups = ":".join(f"{rng.randint(1, 65535):x}" for _ in range(rng.choice((2, 3))))
    return rng.choice((f"2a02:{groups}::{rng.randint(1, 65535):x}", f"2600:1f18:{groups}::"))


def _italian(rng: random.Random) -> str:
    head = (
        some(rng, string.ascii_uppercase, 6) + f"{rng.randint(10, 99)}{rng.choice('ABCDEHLMPRST')}{rng.randint(10, 28)}"
    )
    body = f"{head}{rng.choice(string.ascii_uppercase)}{rng.randint(100, 999)}"
    return next(body + c for c in string.ascii_uppercase if checks.codice_fiscale(body + c))


CALLED = ("You can call VALUE in the evening.", "phone: VALUE", "Tel. VALUE", "tel:VALUE", "'phone': 'VALUE',")
PAID = ("Please pay to VALUE within a week.", "IBAN: VALUE", "account = 'VALUE'", "The account VALUE was closed.")
NUMBERED = ("The number is VALUE.", "id: VALUE", "customer = 'VALUE'", "It was issued as VALUE in spring.")
IDS: tuple[tuple[str, Make], ...] = (
    ("id, ES", partial(checked, "{D8}{U1}", lambda v: v[-1].isalpha() and v[-1] not in "IOU" and checks.dni(v))),
    ("id, IT", _italian),
    ("id, FI", partial(born, "DDMMYY-{D3}{U1}", lambda v: v[-1] not in "GIOQZ" and checks.hetu(v))),
    ("id, CN", partial(born, "{D6}19YYMMDD{D4}", lambda v: v[0] in "12345678" and checks.resident_id(v))),
    ("id, BR", partial(checked, "{D3}.{D3}.{D3}-{D2}", checks.cpf)),
    ("id, FR", partial(born, "2YYMM75{D8}", checks.nir)),
    ("id, SE", partial(born, "YYMMDD-{D4}", checks.personnummer)),
    ("id, BE", partial(born, "YY.MM.DD-{D3}.{D2}", checks.rijksregister)),
    ("id, PL", partial(born, "YYMMDD{D5}", checks.pesel)),
    ("id, IN", partial(spaced, (4, 4, 4), checks.aadhaar, "4")),
    ("id, DE", partial(checked, "8{D10}", checks.steuer_id)),
)


PERSONAL = (
    *(Format(kind, partial(mail, spelling), WRITTEN) for kind, spelling in SPELLINGS.items()),
    *(
        Format(f"phone, {how}", partial(phone, f"phone, {how}"), CALLED)
        for how in ("compact", "spaces", "hyphens", "dots", "hard spaces", "brackets")
        for _ in range(3)
    ),
    *(
        Format(how, partial(iban, how), PAID)
        for how in ("IBAN", "IBAN, groups", "IBAN, small", "IBAN, small groups", "IBAN, hyphens", "IBAN, hard spaces")
    ),
    *(Format(how, partial(card, how), PAID) for how in ("card", "card, spaces", "card, hyphens")),
    *(Format(kind, make, NUMBERED) for kind, make in IDS),
    Format(
        "IP, version 4",
        ipv4,
        ("He came from VALUE.", "addr = 'VALUE'", "VALUE - - [10/Oct/2023] GET /", "host VALUE:8080"),
    ),
    Format("IP, version 6", ipv6, ("He came from VALUE today.", "addr = 'VALUE'", "VALUE - - [10/Oct/2023] GET /")),
)
