"""Names that this machine is known to have: its own, and those that whoever runs the app says it has.

A page of a stranger can give its own name any address, that of this machine among them (DNS rebinding). What
it then asks for here it asks for by that name, so a name that nobody has vouched for may be a stranger's.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from functools import lru_cache
from urllib.parse import urlsplit

from trainers.proxies import is_loopback

HOSTS = "RSM_HOSTS"


def is_own_name(name: str) -> bool:
    """Whether this machine calls itself so, in its own network as well.

    No name in the world is 0.0.0.0 or ::, where some open what listens at all addresses.
    """
    return is_here(name) or name in _own_names()


def is_here(name: str) -> bool:
    """Whether a name leads to this machine itself from wherever it is asked for."""
    return is_loopback(name) or name in ("0.0.0.0", "::")


def is_vouched_for(name: str) -> bool:
    """Whether a name is no stranger's: an address, the machine's own, or one that the environment says."""
    return _is_address(name) or is_own_name(name) or name in named_hosts()


def named_hosts() -> frozenset[str]:
    """Return the names in ``RSM_HOSTS``, and the one that ``GRADIO_ROOT_PATH`` begins with, in lower case."""
    return _named(os.environ.get(HOSTS, ""), os.environ.get("GRADIO_ROOT_PATH", ""))


@lru_cache(maxsize=16)
def _named(hosts: str, root: str) -> frozenset[str]:
    addresses = [f"//{entry.strip().rpartition('//')[2]}" for entry in hosts.split(",")]
    return frozenset(name.removesuffix(".") for text in (*addresses, root) if (name := _name(text)))


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1)
def _own_names() -> frozenset[str]:
    called = socket.gethostname().lower().removesuffix(".")
    short = called.partition(".")[0]
    return frozenset({called, short, f"{short}.local"} - {"", ".local"})
