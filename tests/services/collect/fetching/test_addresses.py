"""Addresses in one spelling, and those of the network that are public."""

from __future__ import annotations

import pytest

from afresh.services.collect.fetching.addresses import canonical, networks, permitted
from afresh.services.collect.fetching.refused import RefusedAddress


@pytest.mark.parametrize(
    "written, expected",
    [
        ("HTTPS://Example.ORG:443/a/../b#part", "https://example.org/b"),
        ("https://example.org", "https://example.org/"),
        ("http://example.org/a b?c=ü", "http://example.org/a%20b?c=%C3%BC"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("../c?d", "https://example.org/c?d"),
        ("//other.example/x", "https://other.example/x"),
    ],
)
def test_one_spelling(written: str, expected: str) -> None:
    assert canonical(written, "https://example.org/a/b") == expected


@pytest.mark.parametrize(
    "written",
    [
        "",
        "example.org",
        "ftp://example.org",
        "javascript:alert(1)",
        "http://",
        "http://a@b/",
        "http://[::1",
        "http://xn--example.org/",
        "http://x/" * 400,
    ],
)
def test_what_is_no_address_of_a_page_is_refused(written: str) -> None:
    with pytest.raises(RefusedAddress):
        canonical(written)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:7f00:1::",
        "2001:db8::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not permitted(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_public_addresses(address: str) -> None:
    assert permitted(address)


def test_a_network_that_is_named_is_allowed_and_no_other() -> None:
    named = networks("127.0.0.0/8, fd00::/8")
    assert permitted("127.0.0.1", named) and permitted("::ffff:127.0.0.1", named) and permitted("fd00::1", named)
    assert not permitted("10.0.0.1", named) and not permitted("::1", named)
