"""What the headers of a request say, and names of hosts as a Host or an Origin header carries them.

Browsers write an address in one form only; whoever writes another is no browser, and is not understood.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from trainers.proxies import is_loopback as is_loopback

_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s\[\]:/@\\?#,%]+))(?::(\d{0,5}))?")
_ORIGIN = re.compile(r"(https?)://(.+)", re.IGNORECASE)
_USUAL_PORTS = {"http": 80, "https": 443}
_LONGEST = 300  # of a name that DNS knows, 253


@dataclass(frozen=True)
class Authority:
    """A host and a port, as RFC 3986 calls the two together.

    Attributes:
        name: In lower case, without brackets and a last dot; an address of IPv4 that is written as one of
            IPv6 is that of IPv4.
        port: None when the port is not said.
    """

    name: str
    port: int | None


def lines_of(scope: dict, header: str) -> list[str]:
    """Return every line of a header, by its name in lower case, in the order of the request."""
    name = header.encode()
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def line_of(scope: dict, header: str) -> str | None:
    """Return the first line of a header; None when there is none."""
    return next(iter(lines_of(scope, header)), None)


def parse_host(text: str) -> Authority | None:
    """Return what a Host header names; None when it is none."""
    found = _AUTHORITY.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if found is None:
        return None
    bracketed, plain, digits = found.groups()
    if bracketed is None:
        name = plain.lower().removesuffix(".")
        return Authority(name, _port(digits)) if name else None
    try:
        address = ipaddress.IPv6Address(bracketed)
    except ValueError:
        return None
    return Authority(str(address.ipv4_mapped or address), _port(digits))


def parse_origin(text: str) -> Authority | None:
    """Return what an Origin header names, always with its port; None for "null" and what is none."""
    found = _ORIGIN.fullmatch(text.strip())
    host = parse_host(found[2]) if found else None
    if found is None or host is None:
        return None
    usual = _USUAL_PORTS[found[1].lower()]
    return Authority(host.name, usual if host.port is None else host.port)


def plain_address(text: str) -> str:
    """Return an address in its usual form, that of IPv4 where it is only written as one of IPv6.

    Raises:
        ValueError: It is no address.
    """
    found = ipaddress.ip_address(text)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def _port(digits: str | None) -> int | None:
    return int(digits) if digits else None
