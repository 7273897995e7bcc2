"""Whether anything answers at a web address: asked briefly, and remembered for a while. Torch-free."""

from __future__ import annotations

import threading
import time

from trainers.proxies import is_here

TIMEOUT_SECONDS = 3.0
REMEMBERED_SECONDS = 30.0
ANSWERS, SILENT, NOTHING = "answers", "silent", "nothing"

_lock = threading.Lock()
_answers: dict[str, tuple[float, str]] = {}


def reachable(address: str) -> bool:
    """Return whether a server answers at an address, whatever it says.

    Args:
        address: http or https.
    """
    return _remembered(address) == ANSWERS


def listening(address: str) -> bool:
    """Return whether a server takes connections at an address, though it may be too busy to answer soon.

    Args:
        address: http or https.
    """
    return _remembered(address) != NOTHING


def _remembered(address: str) -> str:
    with _lock:
        asked, found = _answers.get(address, (float("-inf"), NOTHING))
    if time.monotonic() - asked < REMEMBERED_SECONDS:
        return found
    found = _ask(address)
    with _lock:
        _answers[address] = (time.monotonic(), found)
    return found


def _ask(address: str) -> str:
    import httpx

    try:
        direct = httpx.HTTPTransport() if is_here(address) else None
        with httpx.Client(timeout=TIMEOUT_SECONDS, transport=direct) as client:
            client.head(address)
    except (httpx.ReadTimeout, httpx.WriteTimeout):
        return SILENT  # a server with one worker answers nobody while it scores a batch
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError, ImportError):
        return NOTHING  # the last one: a SOCKS proxy that is not supported
    return ANSWERS
