"""Events that take seconds of a processor or of somebody else's server, each kind with few places of its own.

Of each kind at most so many events are answered at the same time, in a thread each. All kinds together take
fewer than ``PLACES``, so what is quick always finds one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PLACES = 80  # threads, and events that are answered at the same time

_KINDS = MappingProxyType(
    {
        "playground": 1,  # one that waits for a device would hold a thread
        "lab": 1,  # figures must not take the machine from a run
        "spread": 1,  # a process that loads a model
        "preview": 2,  # reads all own prompts, in pure Python
        "submit": 8,  # may ask the Hub and endpoints
        "export": 4,
        "import": 2,
        "hub": 8,  # each waits for the Hub
        "compare": 4,  # reads and draws several runs
        "card": 4,  # gathers a run for a push
    }
)


def kind(name: str) -> Mapping[str, object]:
    """Return the options of an event of a kind."""
    return {"concurrency_id": name, "concurrency_limit": _KINDS[name]}
