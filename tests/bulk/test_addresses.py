"""Which addresses are of the public Internet, however they are written."""

from __future__ import annotations

import pytest

from clipsrv.bulk.sources.addresses import is_public

PRIVATE = (
    *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("224.0.0.1", "255.255.255.255", "192.0.2.1", "240.0.0.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fd00::1"),
    *("ff02::1", "2001:db8::1", "fec0::1"),
    # 127.0.0.1, 10.0.0.1 and 169.254.169.254 wrapped: mapped, compatible, SIIT, NAT64 twice, 6to4, ISATAP twice, Teredo
    *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1"),
    *("64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:a00:1::"),
    *("2606:4700::5efe:7f00:1", "2606:4700::200:5efe:a00:1", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
)


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_of_this_machine_or_a_network_of_ones_own_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"]
)
def test_other_addresses_are(address: str) -> None:
    assert is_public(address)
