"""What went wrong, as one sentence that says what to do: memory, network, missing or gated models, disks.

Errors of the libraries are known by their class names along the chain of causes, so that nothing heavy is
imported to explain them.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from trainers.errors import StudioError

MEMORY = (
    "There was not enough memory. End other programs and resume the run, or start a new one with a smaller "
    "micro_batch or eval_batch or fewer prompts_per_update."
)
NETWORK = (
    "The network or the Hub could not be reached. Check the connection (and HF_ENDPOINT and HF_HUB_OFFLINE, "
    "if set), then resume the run."
)
GATED = (
    "The model is gated: accept its conditions on its Hub page and sign in with a token that may read it, or "
    "choose another base model."
)
MISSING = (
    "The model was not found on the Hub, or it is private. Check its name, or sign in with a token that may "
    "read it."
)
DISK = "The disk is full. Free some space, then resume the run; what was saved is intact."

_KINDS = (  # first match wins: a gated repository is also one that was not found
    (MEMORY, {"MemoryError", "OutOfMemoryError"}),
    (GATED, {"GatedRepoError", "DisabledRepoError"}),
    (NETWORK, {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "NetworkError", "TimeoutException"}),
    (NETWORK, {"TimeoutError", "ConnectionError", "gaierror", "URLError", "ConnectError"}),
    (MISSING, {"RepositoryNotFoundError", "EntryNotFoundError", "RevisionNotFoundError"}),
)
_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what caused it, is a lack of memory on any device."""
    return any(_kind(link) == MEMORY for link in _chain(error))


def known_cause(error: BaseException) -> str | None:
    """Return the sentence for a known kind of failure along the chain of causes, else None."""
    return next((sentence for link in _chain(error) if (sentence := _kind(link))), None)


def explain(error: BaseException, what: str = "The run") -> str:
    """Return one sentence for any error; ``what`` is said to have ended where its kind is unknown."""
    if isinstance(error, StudioError):
        return str(error)
    words = " ".join(str(error).split())[:300]
    return known_cause(error) or f"{what} ended with an unexpected {type(error).__name__}: {words}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _kind(error: BaseException) -> str | None:
    names = {cls.__name__ for cls in type(error).__mro__}
    for sentence, known in _KINDS:
        if names & known:
            return sentence
    if isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _MEMORY_WORDS):
        return MEMORY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DISK
    return MEMORY if isinstance(error, OSError) and error.errno == errno.ENOMEM else None
