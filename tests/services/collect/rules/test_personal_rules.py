"""Personal data and secrets: planted ones are found and masked, look-alikes without the right checksum are not."""

from __future__ import annotations

import json

import pytest

from afresh.core import UserError
from afresh.services.collect.record import Record
from afresh.services.collect.rules import chosen
from afresh.services.collect.rules.personal import find, luhn, summary
from afresh.services.collect.rules.secrets import find as find_secrets
from afresh.services.collect.rules.spans import Span, apart
from tests.services.collect.rules.judged import judged, text_after

# Each is made for examples; the second has one digit or letter changed.
PAIRS = {
    "iban": [
        ("GB82 WEST 1234 5698 7654 32", "GB82 WEST 1234 5698 7654 33"),
        ("DE89370400440532013000", "DE88370400440532013000"),
    ],
    "card": [
        ("4111 1111 1111 1111", "4111 1111 1111 1112"),
        ("378282246310005", "378282246310006"),
        ("5500-0000-0000-0004", "5500-0000-0000-0005"),
    ],
    "id": [
        ("12345678Z", "12345678A"),  # Spain
        ("X1234567L", "X1234567M"),
        ("RSSMRA85T10A562S", "RSSMRA85T10A562T"),  # Italy
        ("131052-308T", "131052-308U"),  # Finland
        ("11010519491231002X", "110105194912310021"),  # China
        ("111.444.777-35", "111.444.777-36"),  # Brazil
        ("2 55 08 14 168 025 38", "2 55 08 14 168 025 39"),  # France
        ("811218-9876", "811218-9877"),  # Sweden
        ("93.05.18-223.61", "93.05.18-223.62"),  # Belgium
        ("44051401359", "44051401358"),  # Poland
        ("2341 2341 2346", "2341 2341 2347"),  # India
        ("86 095 742 719", "86 095 742 718"),  # Germany
    ],
    "phone": [("+44 20 7946 0958", "+44 20 79"), ("+1 (415) 555-2671", "+1 (115) 555-2671")],
    "email": [("ann.o'neil+x@mail.example.org", "logo@2x.png"), ("jörg@example.de", "@example at example.de")],
    "ip": [("8.8.4.4", "192.168.4.4"), ("2606:4700:4700::1111", "12:30"), ("8.8.4.4", "8.8.4.400")],
}
CASES = [(what, good, bad) for what, pairs in PAIRS.items() for good, bad in pairs]


@pytest.mark.parametrize(("what", "good", "bad"), CASES)
def test_what_is_planted_is_found_and_masked_and_what_looks_like_it_is_not(what: str, good: str, bad: str) -> None:
    text = f"Before it, {good}, and after."
    assert [(s.what, text[s.start : s.end]) for s in find(text)] == [(what, good)]
    assert text_after("personal", text, ("mask",)) == f"Before it, <{what}>, and after."
    assert find(f"Before it, {bad}, and after.") == []


MAIL = [
    "ANN.SMITH@EXAMPLE.ORG",
    "ann+news@mail.example.co.uk",
    "ann (at) example.org",
    "ann[at]example[dot]org",
    "ann at example dot org",
    "ann{at}example.org",
    "ann <at> example.org",
    "ann%40example.org",
    "ann&#64;example.org",
    "ann\\u0040example.org",
    "ann @ example.org",
    "jürgen@bücher.de",
    "ann＠example.org",
    '"ann smith"@example.org',
    "ann@[203.0.114.9]",
]


@pytest.mark.parametrize("address", MAIL)
def test_addresses_of_mail_are_found_as_people_write_them(address: str) -> None:
    assert text_after("personal", f"Before it, {address}, and after.", ("mask",)) == "Before it, <email>, and after."


@pytest.mark.parametrize(
    "text",
    [
        "We meet at noon (at the inn).",
        "product = a @ b.T @ c",
        "clone git@github.com:someone/project",
        "https://ann:correcthorse@example.org/",
        "look at example.org",
        "@pytest.mark.slow",
    ],
)
def test_what_only_looks_like_an_address_of_mail_is_none(text: str) -> None:
    assert [s for s in find(text) if s.what == "email"] == []


@pytest.mark.parametrize("between", ["", " ", "-", ".", "\u00a0"])
@pytest.mark.parametrize("number", ["GB82WEST12345698765432", "ES9121000418450200051332", "NO9386011117947"])
def test_account_numbers_are_found_in_any_groups_and_letters(number: str, between: str) -> None:
    grouped = between.join(number[i : i + 4] for i in range(0, len(number), 4))
    for written in (grouped, grouped.lower()):
        assert text_after("personal", f"Pay to {written} and say so.", ("mask",)) == "Pay to <iban> and say so."


def test_what_overlaps_is_masked_whole() -> None:
    spans = apart([Span(5, 12, "phone"), Span(0, 8, "id"), Span(20, 22, "ip"), Span(11, 14, "ip")])
    assert spans == [Span(0, 14, "id"), Span(20, 22, "ip")]


def test_all_are_counted_masked_or_a_reason() -> None:
    text = "Write to a@example.org or b@example.org, call +44 20 7946 0958. It was in 1999, on page 12, for 3.50."
    counted = judged("personal", text, ("count",))
    assert isinstance(counted, Record) and counted.text == text
    assert counted.scores == {"personal_email": 2, "personal_phone": 1}
    assert text_after("personal", text, ("mask",)).startswith(
        "Write to <email> or <email>, call <phone>. It was in 1999"
    )
    assert judged("personal", text, ("drop",)) == "2 of the kind email, 1 of the kind phone"


GERMAN = "Hallo Tante Käthe, wir sind umgezogen und freuen uns auf deinen Besuch am Sonntag."


@pytest.mark.parametrize(
    ("language", "text", "number"),
    [
        ("de", "Ruf an: 030 901820.", "030 901820"),
        ("de", "Wir wohnen jetzt hier: 030/901820, bis bald", "030/901820"),
        ("de", "Tel. 0123 456789", "0123 456789"),
        ("de", "Du erreichst mich mit 030 / 90 18 20 immer", "030 / 90 18 20"),
        ("de", "Mobil: 01701234567", "01701234567"),
        ("de", "Am 03.04.2021 unter (030) 901820", "(030) 901820"),
        ("de", "Aus dem Ausland 0049 30 901820.", "0049 30 901820"),
        ("fr", "Le soir au 06.12.34.56.78 ou plus tard", "06.12.34.56.78"),
        ("en", "She is at 020 7946 0958 all day", "020 7946 0958"),
        ("en", "Ask for (415) 555-2671 at the desk", "(415) 555-2671"),
        ("es", "Teléfono: 912 345 678", "912 345 678"),
        ("ru", "Пишите или 8 (912) 345-67-89 вечером", "8 (912) 345-67-89"),
        ("", "Telefon: 030 901820", "030 901820"),
        ("", "It is +49 30\n901820 now", "+49 30\n901820"),
    ],
)
def test_national_numbers_are_found_by_the_language(language: str, text: str, number: str) -> None:
    assert [text[s.start : s.end] for s in find(text, (), language)] == [number]


NO_TELEPHONES = {
    "de": (
        "Bestellnummer 0301234567",
        "Auftrag Nr. 030 123456",
        "am 03.04.2021 und am 03.04.21",
        "Version 0.12.345.678",
        "Preis: 1.234.567,00 EUR oder 0800 1200 €",
        "von 08 - 12 / 14 - 18 Uhr",
        "ISBN 978-3-16-148410-0",
        "Kundennummer: 030 4711 0815",
        "Rechnung 2024-00123-01 vom 01.02.2024",
        "Steuernummer 030/123/45678",
        "0301234567 EUR",
        "Seite 012 - 015",
    ),
    "en": (
        "Order 415-555-2671",
        "call 1999-2004",
        "12 000 000 people",
        "part no. 555-123-4567",
        "at 12.30.2020 and 12/30/2020",
        "3.14159265358979",
        "ISBN 0-306-40615-2",
        "release 020.7946.0958",
    ),
    "es": ("600 123 456 habitantes", "una deuda de 912.345.678"),
    "": ("030 901820",),
}


@pytest.mark.parametrize(("language", "text"), [(lang, t) for lang, texts in NO_TELEPHONES.items() for t in texts])
def test_orders_dates_prices_and_versions_are_no_telephones(language: str, text: str) -> None:
    assert find(text, (), language) == []


def test_the_language_of_a_text_is_found_and_its_numbers_are_masked() -> None:
    assert text_after("personal", f"{GERMAN} 030/901820", ("mask",)) == f"{GERMAN} <phone>"
    shown = judged("personal", "xyzzy 030 901820", ("mask",))  # in no language
    assert isinstance(shown, Record) and shown.scores == {"personal_unsearched": 1}
    assert text_after("personal", "xyzzy 030 901820", ("mask", "DE")) == "xyzzy <phone>"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n> ", " \n"])
def test_what_a_line_end_divides_is_found(end: str) -> None:
    for what, text in (("iban", f"DE89 3704 0044{end}0532 0130 00"), ("card", f"4111 1111{end.strip(' >')}1111 1111")):
        assert text_after("personal", f"Pay to {text} soon.", ("mask",)) == f"Pay to <{what}> soon."
    assert find(f"DE89 3704 0044{end}0532 0130 01") == []


def test_what_was_masked_is_counted_and_what_was_not_searched_for_is_named() -> None:
    counts = {"personal_email": 2, "personal_phone": 1, "personal_unsearched": 3}
    masked, names, numbers = summary(counts, ["mask"])
    assert masked == "personal data masked: 2 e-mail addresses, 1 telephone number"
    assert names == "not searched for: names and postal addresses of persons"
    assert "(3 numbers may be such)" in numbers and numbers.endswith("`rule=personal=mask,DE`")
    assert next(summary(counts, ["count"])).endswith("Mask it with `rule=personal=mask`")
    assert list(summary({}, ["count"])) == [] == list(summary(counts, None))


def test_countries_are_codes() -> None:
    text = "xyzzy 030 901820."
    assert find(text) == [] and [s.what for s in find(text, ("DE",))] == ["phone"]
    assert chosen(["personal=mask,DE,US"])["personal"] == ["mask", "DE", "US"]
    with pytest.raises(UserError, match="'XX' is not a code of a country"):
        chosen(["personal=mask,XX"])
    with pytest.raises(UserError, match="begins with one of count, mask, drop"):
        chosen(["personal=hide"])


def test_versions_dates_and_numbers_of_books_are_not_personal() -> None:
    assert (
        find("Release 1.2.3.4 of 2024-05-06 12:30:45, ISBN 978-3-16-148410-0, 1,234,567.89 and 3.141592653589793.")
        == []
    )


def test_conversations_are_masked_within_their_messages() -> None:
    talk = json.dumps([{"role": "user", "content": "I am a@example.org"}, {"role": "assistant", "content": "Hello"}])
    masked = text_after("personal", Record("conversation", "s", "w", text=talk), ("mask",))
    assert json.loads(masked) == [
        {"role": "user", "content": "I am <email>"},
        {"role": "assistant", "content": "Hello"},
    ]


def test_luhn_by_hand() -> None:
    # 7992739871: 7 9 9 2 7 3 9 8 7 1 and the check digit 3 (ISO/IEC 7812-1, annex B).
    assert [d for d in "0123456789" if luhn("7992739871" + d)] == ["3"]


# --------------------------------------------------------------------------- secrets

BODY = "MIIEpAIBAAKCAQEA7bq9n2Xh5yq3b0sV2KpWc1"
KEY = "\n".join(("-----BEGIN RSA PRIVATE KEY-----", BODY, BODY, "abc=", "-----END RSA PRIVATE KEY-----"))


@pytest.mark.parametrize(
    ("secret", "before", "after"),
    [
        (KEY, "It is:\n", "\nand the text goes on."),
        ("ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8", "token ", "."),
        ("AKIA" + "Z7XQ" * 4, "aws_key = '", "'"),
        ("s3cr3tpass", "https://user:", "@example.org/path"),
    ],
)
def test_secrets_are_found_and_masked(secret: str, before: str, after: str) -> None:
    text = f"{before}{secret}{after}"
    assert text_after("secrets", text, "mask") == f"{before}<secret>{after}"
    assert str(judged("secrets", text, "drop")) == "1 of the kind secret"
    counted = judged("secrets", text, "count")
    assert isinstance(counted, Record) and counted.text == text and counted.scores == {"found_secret": 1}


# Forms of tokens, as their services document them.
TOKENS = [
    "github_pat_" + "11ABCDEFG0" * 2 + "aB_" + "xY3z" * 14 + "abc",
    "sk-" + "aB3dE6gH9j" * 4,
    "sk-ant-api03-" + "a_B-3dE6gH" * 9 + "aaaAA",
    "AIza" + "SyA1b2C3d_" * 3 + "-e5F6",
    "hf_" + "aBcDeFgHiJ" * 3 + "kLmN",
    "npm_" + "a1B2c3D4e5" * 3 + "f6G7h8",
    "ASIA" + "ZXCVBNMASDFGHJKL",
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0" * 40 + "." + "dozjgNryP4J3jVmNHl0w5N",
    "https://hooks.slack.com/services/T0A1B2C3D/B0A1B2C3D/" + "a1B2" * 6,
]


@pytest.mark.parametrize("token", TOKENS, ids=[t[:8] for t in TOKENS])
def test_tokens_are_secrets_wherever_they_stand(token: str) -> None:
    for before, after in (("It is ", ", I think."), ("x = '", "'"), ("TOKEN=", "\n"), ('{"key": "', '"}'), ("(", ")")):
        for kind in ("text", "code"):
            record = Record(kind, "s", "w", text=f"{before}{token}{after}")
            assert text_after("secrets", record, "mask") == f"{before}<secret>{after}"


@pytest.mark.parametrize(
    "line",
    [
        "Password: hunter2",
        "password = 'hunter2hunter'",
        'api_key: "Zx81Spectrum"',
        "DB_PASSWORD=Tr0ub4dor&3",
        "the password is Kaditu73!",
        "mysql --password=Kaditu73 shop",
        "<password>Kaditu73</password>",
        "Authorization: Bearer a1B2c3D4e5F6g7H8",
        "Authorization: Basic YW5uOmh1bnRlcjI=",
        "curl -u ann:correcthorse https://example.org",
        "postgres://app:correcthorse@db.example.org/shop",
        "machine example.org login ann password correcthorse",
        "const dbPassword: string = `Kaditu73`",
    ],
)
def test_passwords_beside_their_names_are_secrets(line: str) -> None:
    (span,) = find_secrets(f"Before it.\n{line}\nAfter it.")
    assert any(
        word in line[span.start - 11 : span.end - 11]
        for word in ("unter2", "Zx81", "Tr0ub", "adit", "horse", "a1B2", "YW5u")
    )


@pytest.mark.parametrize(
    "line",
    [
        "password = '${PASSWORD}'",
        "api_key = os.environ['API_KEY']",
        "token = get_token('abcdefgh')",
        "password: str = None",
        "self.token2 = tokens.sha256_of(value)",
        "The secret: patience.",
        "parser.add_argument('--password', help='Enter the password')",
        "token = '<your-token>'",
        "secret = 'changeme'",
        "http://user:password@example.org/",
        "a bearer of bad news",
        "basic training",
        "key = value1",
    ],
)
def test_names_words_and_templates_are_no_passwords(line: str) -> None:
    assert find_secrets(line) == [] and find_secrets(line, code=True) == []


def test_words_of_a_program_are_names_unless_they_are_unlike_one() -> None:
    assert find_secrets("password = password2", code=True) == [] != find_secrets("password = password2x9")
    assert len(find_secrets("password = sLbQ27pTVGdwQ", code=True)) == 1


@pytest.mark.parametrize("between", ["\n", "\\n", "\n> ", '\\n" +\n    "', "\r\n"])
def test_a_private_key_is_found_whole_however_it_is_quoted(between: str) -> None:
    key = KEY.replace("\n", between)
    assert text_after("secrets", f'key = "{key}";', "mask") == 'key = "<secret>";'
    cut = key[: key.index("-----END")].rstrip(between)
    assert "MIIE" not in text_after("secrets", f'key = "{cut}', "mask")


def test_long_words_digests_and_keys_that_are_only_named_are_no_secrets() -> None:
    for text in (
        "incomprehensibilities of the counterrevolutionaries",
        "sha1: 3f786850e387550fdab836ed7e6dc881de23001b",
        "A file begins with -----BEGIN RSA PRIVATE KEY----- and so on.",
        "see https://example.org/a/very/long/path/that/is/no/secret?id=1234567890",
    ):
        assert find_secrets(text) == []
