"""Names of owners: which addresses are one owner, and the name of a run that is nobody's."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable

from rsm_app.jobs.host_names import is_vouched_for
from trainers.proxies import is_loopback

# The owner of a run whose record cannot be read. No visitor has this name: accounts of the Hub are made of
# letters, digits, ``-``, ``_`` and ``.``, and an address holds neither this nor anything like it.
NOBODY = "?"
_NETWORK = 64  # bits; what a subscriber of IPv6 holds at least, so single addresses say nothing of who asks
_WIDER = 48  # bits; what a subscriber of IPv6 holds at most, which is 65,536 of those networks
NETWORK_SHARES = 4  # of one owner, that all owners of such a wider network have together
_THROUGH = " via "


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


@functools.lru_cache(maxsize=10000)
def network_of(owner: str) -> str:
    """Return the wider network that an owner's address is in; owners of other kinds are one by themselves.

    Strangers may share one, so it says nothing of whose a run is: it bounds what an owner can take of the
    server by asking from many addresses.
    """
    try:
        found = ipaddress.ip_network(owner)
    except ValueError:
        return owner
    if found.version == 4 or found.prefixlen != _NETWORK:
        return owner
    return str(found.supernet(new_prefix=_WIDER))


def owner_through(address: str, host: str) -> str:
    """Return the owner that everybody is who asks from an address for this machine by another one's name."""
    return f"{address}{_THROUGH}{host}"


def share_of_owner(owner: str) -> str:
    """Return whose share of what is limited an owner takes from.

    Whoever asks chooses the name that they ask for, so all names have the share of the address; at this
    machine's own address one beside that of who sits at it.
    """
    address, through, _ = owner.partition(_THROUGH)
    return f"{address}{_THROUGH}others" if through and is_loopback(address) else address


def share_shell_runs(owners: Iterable[str]) -> bool:
    """Whether the runs that were made in a shell, which are everybody's, are also those of some owners.

    They are not of who reaches this machine by a name that may be a stranger's.
    """
    names = (owner.partition(_THROUGH)[2] for owner in owners)
    return all(is_vouched_for(name) for name in names if name)


def is_address(owner: str) -> bool:
    """Whether an owner is known by where they ask from, which is not to be shown to others."""
    if _THROUGH in owner:
        return True
    try:
        ipaddress.ip_network(owner, strict=False)
    except ValueError:
        return False
    return True
