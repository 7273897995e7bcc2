"""Which proxies are trusted, and so who asks when a request comes through one.

A proxy is named in ``FORWARDED_ALLOW_IPS``, uvicorn's own variable; one on this machine is by default. On a
Space the platform's proxy is the only way in. A named proxy writes down whom it was asked by at the end of
``X-Forwarded-For``; whatever stands before that, whoever asked may have written. Uvicorn reads the same
headers otherwise, so that is switched off, see ``serving``.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from rsm_app.jobs.places import on_space
from rsm_app.ui.asgi import App, Receive, Scope, Send
from rsm_app.ui.hosts import is_loopback, line_of, lines_of, parse_host, plain_address
from trainers.errors import InputError

NAMED = "FORWARDED_ALLOW_IPS"
HOPS = "RSM_PROXY_HOPS"
_USUAL = "127.0.0.1,::1"
_EVERYBODY = "*"
_MOST_HOPS = 16
_WIDEST = {4: 8, 6: 16}  # bits of a network that can be a provider's proxies; a wider one is everybody
_PRIVATE = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "fc00::/7", "fe80::/10", "::1/128"),
    )
)
_MOST_LOGGED = 100  # proxies; anybody can write the headers of one
_FORWARDING = (
    *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-server"),
    *("forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip"),
    *("cf-connecting-ip", "fly-client-ip", "fastly-client-ip", "x-original-forwarded-for"),
)
UNNAMED = (
    "This app is reached through a proxy that it was not told to trust, so everybody who comes that way is "
    "one visitor to it: they see, stop and delete each other's runs. Whoever runs the app can name the "
    f"proxy's address in {NAMED}."
)
SILENT = (
    "The proxy in front of this app does not say whom it was asked by, so everybody who comes that way is "
    "one visitor to it: they see, stop and delete each other's runs. Whoever runs the app can let the proxy "
    "add X-Forwarded-For."
)
CHAIN = (
    "The proxy in front of this app was asked by another proxy, so everybody who comes that way is one "
    "visitor to it: they see, stop and delete each other's runs. Whoever runs the app can set "
    f"{HOPS} to how many proxies stand one behind the other."
)

_logged_already: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Proxies:
    """The proxies that are trusted.

    Attributes:
        addresses: Those named by their own address.
        networks: Those of which only the network is named.
        everybody: Whether whoever asks is one.
        hops: How many stand one behind the other; None when that is to be seen from their addresses.
    """

    addresses: frozenset[str]
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    everybody: bool
    hops: int | None

    def named(self, address: str) -> bool:
        """Whether an address is one of theirs."""
        return self.everybody or address in self.addresses or self.among(address)

    def among(self, address: str) -> bool:
        """Whether an address lies in a network that is named."""
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self.networks)

    def asked_by(self, hops: list[str]) -> str:
        """Return whom the outermost proxy wrote down, as it wrote it; empty when none did.

        Args:
            hops: Everything in X-Forwarded-For, in its order.
        """
        count = self.hops or 1
        if self.hops is None:
            # What another named proxy asked for, that one was asked for. An address of this machine may be
            # anybody's on it, so it passes nothing on.
            while count < len(hops) and (hop := _address(hops[-count])) in self.addresses:
                if is_loopback(hop):
                    break
                count += 1
        return hops[-count] if count <= len(hops) else ""


def proxies() -> Proxies:
    """Return the proxies that the environment names."""
    return _proxies(os.environ.get(NAMED, _USUAL), os.environ.get(HOPS, ""), on_space())


def check_proxies(host: str) -> None:
    """Check what the environment says of proxies before the app is served.

    Args:
        host: The address that the app listens on.

    Raises:
        InputError: A value is none, or would let every visitor say who they are.
    """
    named, hops, found = os.environ.get(NAMED, _USUAL), os.environ.get(HOPS, "").strip(), []
    if hops and not (hops.isdecimal() and 1 <= int(hops) <= _MOST_HOPS):
        found.append(
            f"{HOPS} must be how many proxies stand one behind the other, 1 to {_MOST_HOPS}, not '{hops}'."
        )
    wide = next((entry for entry in _entries(named) if _is_everybody(entry)), "")
    if wide and not on_space() and not is_loopback(host.strip("[]").lower()):
        found.append(
            f"{NAMED} says '{wide}', so whoever reaches this app at {host} could pass for any other visitor. "
            "Name the addresses of your proxies, separated by commas, or serve at 127.0.0.1."
        )
    if found:
        raise InputError(*found)
    for entry in _entries(named):
        if entry != _EVERYBODY and _network(entry) is None:
            _logger().warning("%s names '%s', which is no address or network: it is ignored.", NAMED, entry)


def peer(scope: dict) -> str:
    """Return the address of the socket that a request came through."""
    client = scope.get("client")
    try:
        return plain_address(client[0]) if client else ""
    except ValueError:
        return str(client[0])


def written_down(scope: dict) -> str:
    """Return the address that a named proxy wrote down, whom it was asked by; empty when none did.

    Then a request comes from the address of its socket.
    """
    asked = proxies()
    return _address(asked.asked_by(_hops(scope))) if asked.named(peer(scope)) else ""


def forwarded(scope: dict) -> bool:
    """Whether a request says that it went through a proxy, a named one or not."""
    return any(name.decode("latin-1").lower() in _FORWARDING and value for name, value in scope["headers"])


def from_named_proxy(scope: dict) -> bool:
    """Whether a request comes from a trusted proxy."""
    return proxies().named(peer(scope))


class ForwardedScheme:
    """ASGI middleware that lets a request have the scheme which a named proxy was asked by."""

    def __init__(self, app: App):
        """Wrap an app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http" and from_named_proxy(scope):
            scheme = (line_of(scope, "x-forwarded-proto") or "").strip().lower()
            scope = {**scope, "scheme": scheme} if scheme in ("http", "https") else scope
        await self._app(scope, receive, send)


def shared_by_all(scope: dict) -> str:
    """Say why a request's owner is everybody behind a proxy; empty when it is one visitor.

    The first time for each proxy it is also said in the log.
    """
    if not forwarded(scope):
        return ""
    asked, direct = proxies(), peer(scope)
    if not asked.named(direct):
        return _logged(direct, UNNAMED)
    hop = written_down(scope)
    if not hop:
        return _logged(direct, SILENT)
    address = ipaddress.ip_address(hop)
    inside = on_space() and any(address in network for network in _PRIVATE)
    return _logged(direct, CHAIN) if inside or asked.among(hop) else ""


def _logged(proxy: str, sentence: str) -> str:
    if (proxy, sentence) not in _logged_already and len(_logged_already) < _MOST_LOGGED:
        _logged_already.add((proxy, sentence))
        _logger().warning("The proxy at %s: %s", proxy, sentence)
    return sentence


def _logger() -> logging.Logger:
    return logging.getLogger(__name__)


@lru_cache(maxsize=16)
def _proxies(named: str, hops: str, space: bool) -> Proxies:
    entries = list(_entries(named))
    networks = [network for entry in entries if (network := _network(entry)) is not None]
    single = [network for network in networks if network.num_addresses == 1]
    return Proxies(
        addresses=frozenset(plain_address(str(network.network_address)) for network in single),
        networks=tuple(network for network in networks if network.num_addresses > 1),
        everybody=space or _EVERYBODY in entries,
        hops=int(hops) if hops.strip().isdecimal() and int(hops) else (1 if space else None),
    )


def _entries(named: str) -> Iterable[str]:
    return filter(None, (entry.strip() for entry in named.split(",")))


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _is_everybody(entry: str) -> bool:
    network = _network(entry)
    if network is None:
        return entry == _EVERYBODY
    private = any(network.version == known.version and network.subnet_of(known) for known in _PRIVATE)
    return network.prefixlen < _WIDEST[network.version] and not private


def _hops(scope: dict) -> list[str]:
    lines = lines_of(scope, "x-forwarded-for")
    return [hop.strip() for hop in ",".join(lines).split(",")] if lines else []


def _address(hop: str) -> str:
    """Return a hop's address, without the port that some proxies add; empty when it is none."""
    with_port = parse_host(hop)
    try:
        return plain_address(with_port.name if with_port else hop)
    except ValueError:
        return ""
