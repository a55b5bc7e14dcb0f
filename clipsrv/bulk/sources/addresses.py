"""Which addresses are of the public Internet, also where one of IPv4 is wrapped in one of IPv6."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

#: Where an address of IPv4 stands in one of IPv6: the network, and how far from the right its last bit is.
_WRAPPED = (
    (IPv6Network("::/96"), 0),
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("::ffff:0:0:0/96"), 0),  # SIIT, RFC 2765
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64, RFC 6052
    (IPv6Network("64:ff9b:1::/48"), 0),  # NAT64 of one's own, RFC 8215
    (IPv6Network("2002::/16"), 80),  # 6to4
)
#: Of these the wrapped address is all there is: where a network has no IPv4 of its own, everything is reached so. And
#: Python's lists call all of 6to4 private in one release and public in another.
_ONLY_WRAPPERS = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"), IPv6Network("2002::/16"))
_ISATAP = (0x00005EFE, 0x02005EFE)


def is_public(address: str) -> bool:
    """Whether `address`, as a socket has it, and what is wrapped in it, is reached over the Internet by everybody."""
    found = ip_address(address.partition("%")[0])
    inner = list(_wrapped(found))
    judged = inner if any(found in network for network in _ONLY_WRAPPERS) else [found, *inner]
    return all(one.is_global and not one.is_multicast and not one.is_reserved and not _is_old(one) for one in judged)


def _is_old(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is of fec0::/10, which networks of one's own had before fc00::/7."""
    return isinstance(address, IPv6Address) and address.is_site_local


def _wrapped(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address]:
    if not isinstance(address, IPv6Address):
        return
    number = int(address)
    for network, shift in _WRAPPED:
        if address in network:
            yield IPv4Address(number >> shift & 0xFFFFFFFF)
    if address.teredo is not None:
        yield from address.teredo
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        yield IPv4Address(number & 0xFFFFFFFF)
