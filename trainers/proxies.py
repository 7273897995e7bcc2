"""Proxies that the environment names: never used for this machine itself, and explained where unusable.

A company or a VPN sets ``http_proxy`` or ``all_proxy`` for a whole session and often forgets loopback in
``no_proxy``. Torch-free.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

SOCKS = (
    "The environment names a SOCKS proxy (ALL_PROXY or HTTPS_PROXY), which this installation does not "
    "support. Install the package socksio, name an HTTP proxy, or unset the variable, then start again."
)
UNUSABLE = (
    "A proxy that the environment names (ALL_PROXY, HTTP_PROXY or HTTPS_PROXY) is no proxy's address. Write "
    "it like http://proxy.example:3128, or unset the variable, then start again."
)


def is_loopback(name: str) -> bool:
    """Whether a name is one that only this machine itself is reached by: 127.0.0.0/8, ::1, localhost."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_here(address: str) -> bool:
    """Whether a web address is on this machine itself, which no proxy can reach."""
    try:
        return is_loopback((urlsplit(address).hostname or "").rstrip("."))
    except ValueError:
        return False


def proxy_sentence(error: BaseException) -> str | None:
    """Return what to do when an error of httpx is that the environment's proxy cannot be used."""
    words = str(error)
    if isinstance(error, ImportError) and "socksio" in words:
        return SOCKS
    return UNUSABLE if isinstance(error, ValueError) and "proxy URL" in words else None


@contextlib.contextmanager
def without_unusable_proxies() -> Iterator[None]:
    """Hide the environment's proxies while the body runs if httpx cannot use them, and put them back.

    Some libraries make a client as they are imported, for requests that may never come. Later requests still
    meet the proxy, and say so: whoever names one does not want them sent around it. Call while there is one
    thread.
    """
    import httpx

    hidden: dict[str, str] = {}
    try:
        httpx.Client().close()
    except (ImportError, ValueError):
        names = [name for name in os.environ if name.lower().endswith("_proxy")]
        hidden = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(hidden)
