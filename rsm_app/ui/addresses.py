"""Where the app listens, and how it reaches itself when it starts."""

from __future__ import annotations

import errno
import ipaddress
import socket
from types import SimpleNamespace

import httpx
from gradio import blocks, networking

from rsm_app.ui.hosts import parse_host
from trainers.errors import InputError

_NOT_HERE = (
    "'{}' is no address of this machine. Listen at 127.0.0.1 for this machine alone, or at 0.0.0.0 for its "
    "networks, with --host or GRADIO_SERVER_NAME."
)


def listening_host(host: str, port: int) -> str:
    """Return a host as Gradio takes it: an IPv6 address in brackets, so that it can be part of a web address.

    Args:
        host: A name, or an IPv4 or IPv6 address, with or without brackets.
        port: The port to listen on.

    Raises:
        InputError: The host is not this machine's.
        OSError: The port is in use, or closed to this user.
    """
    bare = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except (socket.gaierror, UnicodeError):
        raise InputError(_NOT_HERE.format(host)) from None
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise InputError(_NOT_HERE.format(host)) from None
        raise OSError(f"{error.strerror or error}.") from error
    return f"[{bare}]" if _is_v6(bare) else bare


def link_to(host: str, port: int) -> str:
    """Return where whoever sits at this machine opens what listens at a host.

    An app that listens at all addresses is here at one of its own; browsers know none that means all.
    """
    named = parse_host(host)
    if named and named.name in ("0.0.0.0", "::"):
        host = "127.0.0.1" if named.name == "0.0.0.0" else "[::1]"
    return f"http://{host}:{port}"


def call_itself_directly() -> None:
    """Let Gradio's calls to its own server, made when it starts, go through no proxy of the environment.

    A company's ``http_proxy`` cannot reach this machine, and with ``all_proxy=socks5h://`` httpx does not
    even begin. ``no_proxy`` would not help with the latter.
    """

    def get(url: str, **options: object) -> httpx.Response:
        return httpx.get(url, trust_env=False, **options)

    def head(url: str, **options: object) -> httpx.Response:
        return httpx.head(url, trust_env=False, **options)

    for module in (blocks, networking):
        module.httpx = SimpleNamespace(**vars(httpx) | {"get": get, "head": head})


def _is_v6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text.partition("%")[0]).version == 6
    except ValueError:
        return False
