"""Whose request it is: the address of the connection, or behind trusted proxies the one they were asked from."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import hdrs, web

from clipsrv.errors import ConfigError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_MOST_HOPS = 32


class Proxies:
    """The proxies that are believed when they say, in X-Forwarded-For, who asked them."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = networks

    @classmethod
    def listed(cls, text: str) -> Proxies:
        """Addresses and networks (10.0.0.0/8) separated by commas. Raises ConfigError."""
        names = [name for name in (part.strip() for part in text.split(",")) if name]
        try:
            return cls([ip_network(name, strict=False) for name in names])
        except ValueError as error:
            raise ConfigError(f"CLIPSRV_TRUSTED_PROXIES (--trusted-proxies): {error}.") from None

    def caller(self, request: web.BaseRequest) -> str:
        """The last address on the way here that is no trusted proxy; "" for none.

        Each proxy adds the address it was asked from at the right. What stands left of the first one that is not
        trusted is its own claim, or its caller's, and never looked at.
        """
        nearest = request.remote or ""
        if not self._networks:
            return nearest
        hops = ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ())).rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]
        while self._trusts(nearest) and hops:
            address = _address(hops.pop())
            if address is None:  # "unknown", or a name: then the proxy itself is all that is known
                break
            nearest = str(address)
        return nearest

    def _trusts(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._networks)


def _address(text: str) -> Address | None:
    """An address as proxies write it: alone, with a port, in brackets, or an IPv4 one within IPv6."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
