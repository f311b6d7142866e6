"""What stands in the ordinary text and code of `masking` beside what was planted, and is such: judged by hand.

Whoever masks cannot know whose a thing is, so that its form decides: the addresses in the tests and the documentation
of Python count, those of example.org, too, and the internet addresses and numbers of telephones there. What does not is
named here, with what it is instead.
"""

from __future__ import annotations

import re

from phonenumbers import SUPPORTED_REGIONS

TOPS = {"com", "org", "net", "edu", "gov", "info", "io", "name", "uk", "eu", "test"} | {
    region.lower() for region in SUPPORTED_REGIONS
}
NOT_MAIL = {
    "Pass@www.python.org": "a password and a host",
    "15975.17901.207240.414604@sgigritzmann1.mathematik": "half of an address, whose other half is the next string",
}
MAIL_OF_TESTS = ("@dom.ain", "@bar.baz.spam")  # addresses in headers of messages, of domains that there are not
NOT_IP = {
    "1.3.6.1": "an object identifier",
    "1.2.5.3": "a version of zlib",
    "2.6.21.1": "a version of Linux",
    "2.7.2.2": "a version",
}
SECRET: dict[str, str] = {"thing": "the password of http://evil:thing@example.com"}


def is_true(rule: str, what: str, value: str) -> bool:
    """Whether something that was not planted is what it was found as."""
    if rule == "secrets":
        return value in SECRET
    if what == "email":
        top = re.split(r"\.|\sdot\s", value.lower())[-1]
        told = top in TOPS or value.endswith(("]", *MAIL_OF_TESTS))
        return value not in NOT_MAIL and "%" not in value and told
    if what == "ip":
        return value not in NOT_IP
    return what == "phone" and value.replace("-", "") == "+31641044153"
