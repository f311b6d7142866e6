"""Passwords and keys beside their names, as `password: ...`, in headers, addresses and commands."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error
from collections.abc import Iterator

NAMES = (
    r"passwor[dt]|passwd|passphrase|passcode|kennwort|contrase[ñn]a|mot de passe|pwd|secret|token|credential|"
    r"(?:api|access|auth|account|private|client|encryption|signing|master|service|db)[_ -]?key"
)
KEYS = ("_key", "-key", " key", "ikey", "skey", "hkey", "tkey", "ekey", "nkey", "gkey", "rkey", "bkey")
WORDS = ("passw", "passp", "passc", "de passe", "pwd", "secret", "token", "credential", "kennw", "contrase", *KEYS)
QUOTED = r"""[bBrRuU@]{0,2}(?:"(?P<double>[^"\n]{4,200})"|'(?P<single>[^'\n]{4,200})'|`(?P<back>[^`\n]{4,200})`)"""
BARE = r"""(?P<bare>[^\s"'`<>(){}\[\],;\\]{6,200})(?![(\[{])"""
SIGN = r"(?::=|=>|[!=]?==?|:[ \t]{0,4}[\w.|\[\] ]{1,30}=|:)"
NAMED = re.compile(
    rf"(?P<name>{NAMES})[\w-]{{0,30}}[\"'`\]*]{{0,4}}[ \t]{{0,8}}"
    rf"(?:{SIGN}[*]{{0,2}}[ \t]{{0,8}}(?:{QUOTED}|{BARE})|\([ \t]{{0,4}}{QUOTED.replace('<', '<called_')}"
    rf"|[ \t](?:is|ist|was)[ \t]{{1,4}}(?P<told>[^\s\"'`<>(){{}}\[\],;]{{6,200}})|>(?P<inside>[^\s<>]{{4,200}})<)",
    re.IGNORECASE,
)
FLAG = re.compile(rf"--?[\w-]{{0,20}}(?:{NAMES})(?:=|[ \t]{{1,4}})[\"']?(?P<flag>[^\s\"']{{6,200}})", re.IGNORECASE)
NETRC = re.compile(r"\blogin\s{1,8}\S{1,100}\s{1,8}password\s{1,8}(?P<netrc>[^\s\"'\\]\S{3,200})")
CURL = re.compile(r"\bcurl\b[^\n]{0,200}?[ \t]-(?:u|-user)[ =]?[\"']?[^\s:\"']{1,100}:(?P<curl>[^\s\"']{4,200})")
BEARER = re.compile(r"\bbearer[ \t:=]{1,4}[\"']?(?P<bearer>[\w.~+/=-]{16,4000})", re.IGNORECASE)
BASIC = re.compile(r"\bbasic[ \t]{1,4}(?P<basic>[A-Za-z0-9+/]{8,500}={0,2})", re.IGNORECASE)
ADDRESS = re.compile(
    r"(?<![\w+.-])[A-Za-z][\w+.-]{1,30}://[^\s:/@\"'<>]{0,100}:(?P<address>[^\s/@\"'<>]{3,200})@[\w\[]"
)
REFERENCE = re.compile(r"[A-Za-z_]\w*(?:(?:\.|::|->)[A-Za-z_]\w*)+")
TEMPLATE = re.compile(
    r"[{}<>]|\$\(|%[sdr(]|^[$%&@].*|^(.)\1+$|\.\.\.|…|^0x[0-9a-f]+$|://|^[.~]|^/[\w.-]*/|^/[a-z.-]+$|\*\*",
    re.IGNORECASE,
)
SAMPLES = frozenset(
    (
        *("password", "passwd", "pass", "pw", "secret", "token", "mypassword", "yourpassword", "yourtoken"),
        *("example", "changeme", "placeholder", "dummy", "redacted", "test", "user", "username", "value"),
        *("none", "null", "true", "false", "abc", "xyz", "foo", "bar", "foobar"),
    )
)
# From one kind of characters to another, but for a word that begins with a capital letter.
TURN = re.compile(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
STRONG = frozenset("!#$%^&*+~?|=@")


def credentials(text: str, code: bool) -> Iterator[tuple[int, int]]:
    """Where passwords and keys begin and end. code: whether words that are not quoted are mostly names."""
    low = text.lower()
    if any(word in low for word in WORDS):
        yield from _found(NAMED, text, code)
        if "-" in text:
            yield from _found(FLAG, text, code)
        if "login" in low:
            yield from _found(NETRC, text, code)
    if "curl" in text:
        yield from _found(CURL, text, code)
    if "bearer" in low:
        yield from _found(BEARER, text, code)
    if "://" in text:
        yield from _found(ADDRESS, text, code)
    if "basic" in low:
        yield from (m.span("basic") for m in BASIC.finditer(text) if _name_and_password(m.group("basic")))


def _found(pattern: re.Pattern[str], text: str, code: bool) -> Iterator[tuple[int, int]]:
    for m in pattern.finditer(text):
        kind = m.lastgroup or ""
        start, end = m.span(kind)
        if kind in ("bare", "told"):
            end = start + len(m.group(kind).rstrip(".,:"))
        value = text[start:end]
        if kind in ("bare", "told") and (REFERENCE.fullmatch(value) or (code and not unlike_a_name(value))):
            continue
        if kind == "bearer" and not (re.search(r"\d", value) and re.search(r"[A-Za-z]", value)):
            continue
        if kind in ("address", "curl", "netrc"):
            like = is_told(value)
        else:
            name = (m.groupdict().get("name") or "").lower()
            like = secret_like(value, numbered=kind != "told" and name.startswith(("pass", "pwd", "kenn")))
        if like:
            yield start, end


def secret_like(value: str, numbered: bool = False) -> bool:
    """Whether a value looks like a password or a key, rather than a word, a name, a path or a template.

    It has letters and digits, or capital and small letters and a sign; `numbered`: or six digits and more.
    """
    if len(value) < 6 or len(set(value)) < 4 or not is_told(value):
        return False
    digit, letter = any(map(str.isdigit, value)), any(map(str.isalpha, value))
    mixed = any(map(str.isupper, value)) and any(map(str.islower, value))
    return (digit and letter) or (mixed and not STRONG.isdisjoint(value)) or (numbered and value.isdecimal())


def is_told(value: str) -> bool:
    """Whether a value stands there itself, rather than a template, a path or a word in its place as in examples."""
    if len(value) < 4 or any(map(str.isspace, value)) or TEMPLATE.search(value):
        return False
    return re.sub(r"[\W\d_]", "", value).lower() not in SAMPLES


def unlike_a_name(value: str) -> bool:
    """Whether a word of a program that is not quoted can be no name of something in it."""
    if not re.fullmatch(r"[A-Za-z_]\w*", value):
        return len(value) >= 8 and any(map(str.isdigit, value)) and not re.match(r"\d[\d.,_]*(?:\W|$)", value)
    return len(value) >= 8 and "_" not in value and len(TURN.findall(value)) >= 4


def _name_and_password(encoded: str) -> bool:
    """Whether this is base64 of `name:password` (RFC 7617)."""
    try:
        decoded = b64decode(encoded, validate=True).decode()
    except (Error, ValueError):
        return False
    return decoded.isprintable() and ":" in decoded.strip(":")
