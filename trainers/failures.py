"""What went wrong, as one sentence that says what to do: memory, network, missing or gated models, disks.

Errors of the libraries are known by their class names along the chain of causes, so that nothing heavy is
imported to explain them.
"""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Iterator

from trainers.errors import StudioError
from trainers.proxies import proxy_sentence

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
TOKEN = (
    "This machine's Hub token (HF_TOKEN, or that of 'hf auth login') has characters that no token has, such "
    "as a no-break space or curly quotes. Copy it once more from huggingface.co/settings/tokens."
)
ENDPOINT = (
    "HF_ENDPOINT is not the address of a Hub. Write it like https://huggingface.co, with http:// or "
    "https://, or unset it."
)
OWN_CODE = (
    "It needs Python code of its own to be loaded, and code that comes with a checkpoint is never run here. "
    "Choose a checkpoint whose classes are part of diffusers and transformers."
)
LIBRARY = (
    "A library of this Python environment could not be loaded: there was not enough memory for it, or the "
    "environment lies on a disk from which nothing may be run (mount option noexec)."
)
DISK = "The disk is full. Free some space, then resume the run; what was saved is intact."

CLOSED = (
    "{} may not be read or written by this user ({}). Give it the right to, or name other folders in HF_HOME "
    "for models, RSM_RUNS_DIR for runs and TMPDIR for temporary files."
)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_KINDS = (  # first match wins: a gated repository is also one that was not found
    (MEMORY, {"MemoryError", "OutOfMemoryError"}),
    (GATED, {"GatedRepoError", "DisabledRepoError"}),
    (NETWORK, {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "NetworkError", "TimeoutException"}),
    (NETWORK, {"TimeoutError", "ConnectionError", "gaierror", "URLError", "ConnectError"}),
    (ENDPOINT, {"UnsupportedProtocol", "InvalidURL"}),
    (MISSING, {"RepositoryNotFoundError", "EntryNotFoundError", "RevisionNotFoundError"}),
)
_CODE_WORD, _BEARER = "trust_remote_code", "Bearer "
_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")
_NO_BUFFERS = "could not create a primitive"  # oneDNN; with more words it is an operation that it has not
_UNMAPPED = ("failed to map segment", "cannot map zero-fill pages", "cannot change memory protections")


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


def unsendable_token(error: BaseException) -> bool:
    """Whether an error is that a token cannot be part of a request's header."""
    if isinstance(error, UnicodeEncodeError):
        return str(error.object).startswith(_BEARER)
    return type(error).__name__ == "LocalProtocolError" and _BEARER in str(error)


def without_code_advice(text: str) -> str:
    """Return text of a library without its advice to run a checkpoint's own code, line by line."""
    if _CODE_WORD not in text:
        return text
    return "\n".join(OWN_CODE if _CODE_WORD in line else line for line in text.split("\n"))


def last_traceback() -> str:
    """Return the traceback of the error that is being handled, as a log or a debugging person may have it."""
    return without_code_advice(traceback.format_exc())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _kind(error: BaseException) -> str | None:
    if sentence := proxy_sentence(error):
        return sentence
    if _CODE_WORD in str(error):  # the library's own advice is to run it
        return OWN_CODE
    if unsendable_token(error):
        return TOKEN
    names = {cls.__name__ for cls in type(error).__mro__}
    for sentence, known in _KINDS:
        if names & known:
            return sentence
    if isinstance(error, ImportError | OSError) and any(words in str(error) for words in _UNMAPPED):
        return LIBRARY  # the system's loader does not say why
    if isinstance(error, RuntimeError) and _of_memory(str(error).lower().strip()):
        return MEMORY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DISK
    if isinstance(error, OSError) and error.errno in _CLOSED and isinstance(error.filename, str | bytes):
        return CLOSED.format(os.path.basename(os.fsdecode(error.filename)), error.strerror)
    return MEMORY if isinstance(error, OSError) and error.errno == errno.ENOMEM else None


def _of_memory(words: str) -> bool:
    return words == _NO_BUFFERS or any(known in words for known in _MEMORY_WORDS)
