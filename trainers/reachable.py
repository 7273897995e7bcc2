"""Whether anything answers at a web address: asked briefly, and remembered for a while. Torch-free."""

from __future__ import annotations

import threading
import time

TIMEOUT_SECONDS = 3.0
REMEMBERED_SECONDS = 30.0

_lock = threading.Lock()
_answers: dict[str, tuple[float, bool]] = {}


def reachable(address: str) -> bool:
    """Return whether a server answers at an address, whatever it says.

    Args:
        address: http or https.
    """
    with _lock:
        asked, answer = _answers.get(address, (float("-inf"), False))
    if time.monotonic() - asked < REMEMBERED_SECONDS:
        return answer
    answer = _ask(address)
    with _lock:
        _answers[address] = (time.monotonic(), answer)
    return answer


def _ask(address: str) -> bool:
    import httpx

    try:
        httpx.head(address, timeout=TIMEOUT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError):
        return False
    return True
