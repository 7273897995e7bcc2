"""Names of owners: which addresses are one owner, and the name of a run that is nobody's."""

from __future__ import annotations

import ipaddress

# The owner of a run whose record cannot be read. No visitor has this name: accounts of the Hub are made of
# letters, digits, ``-``, ``_`` and ``.``, and an address holds neither this nor anything like it.
NOBODY = "?"
_NETWORK = 64  # bits; what a subscriber of IPv6 holds at least, so single addresses say nothing of who asks
_LOCAL = " via "


def owner_of_address(address: str) -> str:
    """Return the owner that an address belongs to.

    An address of IPv4 is an owner, also when it is written as one of IPv6. Of IPv6 the network of 64 bits is,
    but for addresses that are valid on one link or machine only, where a network is everybody. What is no
    address is an owner by itself.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        if not (found.is_link_local or found.is_loopback):
            return str(ipaddress.ip_network((int(found), _NETWORK), strict=False))
    return str(found)


def owner_through(address: str, host: str) -> str:
    """Return the owner that everybody is who reaches this machine's own address by another machine's name."""
    return f"{address}{_LOCAL}{host}"


def is_address(owner: str) -> bool:
    """Whether an owner is known by where they ask from, which is not to be shown to others."""
    if _LOCAL in owner:
        return True
    try:
        ipaddress.ip_network(owner, strict=False)
    except ValueError:
        return False
    return True
