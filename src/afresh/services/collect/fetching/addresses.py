"""Addresses of pages in one spelling, and the addresses of the network that may be connected to."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterator, Sequence

import httpx

from afresh.core import UserError
from afresh.services.collect.fetching.refused import RefusedAddress

LONGEST = 2_000  # characters of an address: longer ones are traps more often than pages
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last four bytes are an address of IPv4
COMPATIBLE = ipaddress.ip_network("::/96")  # RFC 4291, 2.5.5.1: likewise

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def canonical(address: str, base: str = "") -> str:
    """An address in one spelling, without its fragment; relative ones are of the page `base`.

    Raises Refused if it is not an address of http or https, if it holds a password, or if it is very long.
    """
    given = address.strip()
    if len(given) > LONGEST:
        raise RefusedAddress("address", f"an address of {len(given):,} characters, more than {LONGEST:,}")
    try:
        url = (httpx.URL(base).join(given) if base else httpx.URL(given)).copy_with(fragment=None)
        is_page = url.scheme in ("http", "https") and url.host  # which raises for a name that is not one of IDNA
    except (httpx.InvalidURL, ValueError) as error:
        raise RefusedAddress("address", f"not an address: {error}") from None
    if not is_page:
        raise RefusedAddress("address", "not an address of a page, which begins with https:// or http://")
    if url.userinfo:
        raise RefusedAddress("address", "it holds the name or the password of a user. Give it without them")
    return str(url.copy_with(raw_path=url.raw_path))  # which is / where no path is written


def origin(address: str) -> str:
    """The scheme, the host and the port of an address, as "https://example.org"."""
    return str(httpx.URL(address).copy_with(raw_path=b"/"))[:-1]


def host(address: str) -> str:
    """The name of the host of an address."""
    return httpx.URL(address).host


def path(address: str) -> str:
    """The path of an address with its query, as rules of robots.txt are matched with it."""
    return httpx.URL(address).raw_path.decode("ascii")


def networks(words: str) -> tuple[Network, ...]:
    """Networks as "127.0.0.0/8, fd00::/8". Raises UserError for an invalid network."""
    try:
        return tuple(ipaddress.ip_network(word.strip()) for word in words.split(",") if word.strip())
    except ValueError as error:
        raise UserError(
            f"private_networks is {words!r}: {error}. Give networks as 10.1.0.0/16, separated by commas.", "preferences"
        ) from None


def permitted(address: str, private: Sequence[Network] = ()) -> bool:
    """Whether an address of the network may be connected to: it is public, or of a network that is allowed by name.

    An address of IPv6 that stands for one of IPv4 (mapped, 6to4, Teredo, NAT64) counts as both.
    """
    return all(
        (ip.is_global and not ip.is_multicast and not ip.is_reserved) or any(ip in network for network in private)
        for ip in meant(ipaddress.ip_address(address))
    )


def meant(ip: Ip) -> Iterator[Ip]:
    """The addresses that are reached by an address: itself, or the one of IPv4 that it stands for."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            yield ip.ipv4_mapped
            return
        if ip in NAT64 or (ip in COMPATIBLE and int(ip) > 1):
            yield ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
            return
        if ip.sixtofour is not None:
            yield ip.sixtofour
        if ip.teredo is not None:
            yield from ip.teredo
    yield ip


async def look_up(name: str) -> list[str]:
    """The addresses of the network of a host. Raises Refused if it has none, and OSError if it cannot be asked now."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise
        raise RefusedAddress("host", f"{name} has no address in the network ({error.strerror})") from None
    except UnicodeError:
        raise RefusedAddress("host", f"{name} is not the name of a host") from None
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def public(name: str, addresses: Sequence[str], private: Sequence[Network] = ()) -> list[str]:
    """Those of the addresses of a host that may be connected to. Raises Refused if there are none."""
    found = [address for address in addresses if permitted(address, private)]
    if not found:
        raise RefusedAddress(
            "private_address",
            f"{name} is {addresses[0]}, which is not a public address. "
            "If the network is yours, name it in AFRESH_PRIVATE_NETWORKS",
        )
    return found
