"""What can go wrong with the Hub, each as a cause and a remedy, one sentence each.

Nothing the Hub or the library says is repeated word for word, except for what is wrong with a card's
metadata: their messages hold addresses, request ids and sometimes what was sent. What is known is told by its
kind.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from rsm_app.hub.wire import Cancelled, Lost, Refused
from trainers import failures
from trainers.errors import FaultError, StudioError
from trainers.proxies import proxy_sentence


@dataclass(frozen=True)
class _Words:
    cause: str
    remedy: str
    transient: bool = False


def _words(sentences: str) -> _Words:
    cause, _, remedy = sentences.partition(". ")
    return _Words(f"{cause}.", remedy)


NO_TOKEN = (
    "Nobody is signed in to the Hub. Sign in on this page, paste a token that may write, or run "
    "'hf auth login' in a shell and try again."
)
NO_TOKEN_IN_SHELL = (
    "Nobody is signed in to the Hub. Run 'hf auth login', or set HF_TOKEN to a token that may write, and try "
    "again."
)
_TOKEN = re.compile(r"hf_\w+")
_KEPT = "What was uploaded is kept there, so a new try goes on from where this one ended."
WORDS = {
    "sign_in": _Words(
        "The Hub does not accept the token: it is wrong, expired or revoked.",
        "Sign in again, or paste a fresh token that may write.",
    ),
    "no_token": _words(NO_TOKEN),
    "forbidden": _Words(
        "The token may not write to this repository.",
        "Use a token with the role 'write' that covers this account or organisation, or push to a repository "
        "of your own.",
    ),
    "read_only": _Words(
        "The token may only read.",
        "Make one with the role 'write' at huggingface.co/settings/tokens and use that.",
    ),
    "bad_token": _words(failures.TOKEN),
    "endpoint": _words(failures.ENDPOINT),
    "proxy": _Words(
        "A proxy that the environment names cannot be used here.",
        "Name an HTTP proxy in HTTPS_PROXY, unset ALL_PROXY, or, for a SOCKS proxy, install socksio.",
    ),
    "missing": _Words(
        "The repository was not found on the Hub, or it is private and this token may not see it.",
        "Check owner and name, or sign in with an account that may read it.",
    ),
    "no_file": _Words(
        "The repository lacks a file that every run published from here has.",
        "Check that it is a LoRA made with RSM Studio, and name the right revision.",
    ),
    "conflict": _Words(
        "The repository changed while this push was at work, so nothing was overwritten.",
        "Check the repository again: what would change there now is shown before anything is sent.",
    ),
    "moved": _Words(
        "The repository or the run has changed since it was checked, so nothing was sent.",
        "Check the repository again: what would change there now is shown before anything is sent.",
    ),
    "busy": _Words(
        "The Hub asks to slow down.", "Wait as long as it asks and try again. " + _KEPT, transient=True
    ),
    "hub_fault": _Words(
        "The Hub has a fault of its own at the moment.",
        "Try again in a few minutes; status.huggingface.co tells when it is over. " + _KEPT,
        transient=True,
    ),
    "unreachable": _Words(
        "The Hub could not be reached: the connection was refused or timed out.",
        "Check the network, a proxy and HF_ENDPOINT, then try again.",
    ),
    "cut": _Words(
        "The connection to the Hub was cut off.", "Check the network and try again. " + _KEPT, transient=True
    ),
    "gated": _Words(
        "The repository is gated: its owner asks for conditions to be accepted first.",
        "Open its page on the Hub, accept the conditions with this account, and try again.",
    ),
    "name": _Words(
        "The Hub does not allow this name for a repository.",
        "Use letters, digits, '-', '_' and '.', at most 96 characters, as owner/name.",
    ),
    "quota": _Words(
        "The account's storage on the Hub is used up.",
        "Delete something there, make the repository public, or push to another account.",
    ),
    "too_large": _Words(
        "A file is larger than the Hub takes.", "Publish a run with a smaller lora_rank or fewer pictures."
    ),
    "offline": _Words(
        "The Hub is turned off here by HF_HUB_OFFLINE.", "Start the app without that variable and try again."
    ),
    "card": _Words(
        "The Hub refuses the model card's metadata.",
        "Nothing was published. The rest of the message says which entry; it comes from the base model's own "
        "card or the run's records.",
    ),
    "disk": _Words("The disk is full.", "Free some space and try again."),
    "cancelled": _Words(
        "The push was cancelled; the repository's newest revision is unchanged.", "Push again. " + _KEPT
    ),
    "unexpected": _Words(
        "The Hub answered in a way that this app does not know.",
        "Try again; if it happens again, update huggingface_hub and report it.",
    ),
}


class HubProblem(FaultError):
    """A failed conversation with the Hub.

    Attributes:
        kind: A key of ``WORDS``.
        cause: What happened, one sentence.
        remedy: What to do, in words.
        retry_after: Seconds that the Hub asks to wait, if it does.
        transient: Whether a repetition may succeed by itself.
    """

    def __init__(self, kind: str, detail: str = "", retry_after: float | None = None):
        words = WORDS[kind]
        self.kind = kind
        self.cause = f"{words.cause} {detail}".strip()
        self.remedy = words.remedy
        self.retry_after = retry_after
        self.transient = words.transient
        super().__init__(f"{self.cause} {self.remedy}")


def problem(error: BaseException) -> HubProblem:
    """Return what an error of ``huggingface_hub`` or of the wire means."""
    links = list(_chain(error))
    for link in links:  # the innermost known cause is the truest, but the library puts it first or last
        if isinstance(link, HubProblem):
            return link
        if isinstance(link, Cancelled):
            return HubProblem("cancelled")
        if isinstance(link, Refused):
            return _refused(link)
        if isinstance(link, Lost):
            return HubProblem("unreachable" if link.refused else "cut")
    return next((known for link in links if (known := _known(link))), _unexpected(links[0]))


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn whatever fails in the body into a ``HubProblem``; sentences for people pass as they are."""
    try:
        yield
    except StudioError:
        raise
    except (
        Cancelled,
        Refused,
        Lost,
        HfHubHTTPError,
        httpx2.HTTPError,
        httpx2.InvalidURL,
        ImportError,  # a SOCKS proxy that is not supported
        OSError,
        ValueError,
        RuntimeError,
    ) as e:
        raise problem(e) from None  # the library's message may repeat what was sent


def card_problem(messages: Iterable[str]) -> HubProblem:
    """Return what the Hub finds wrong with a card's metadata as a problem."""
    detail = " ".join(" ".join(messages).split())[:300]
    return HubProblem("card", _TOKEN.sub("…", detail))


def _refused(error: Refused) -> HubProblem:
    if error.status != 429:
        return HubProblem("hub_fault", f"(HTTP {error.status}.)")
    asked = error.retry_after
    return HubProblem("busy", f"It asks to wait {asked:.0f} seconds." if asked is not None else "", asked)


def _known(error: BaseException) -> HubProblem | None:
    kinds = (  # first match wins: a gated repository is also one that was not found
        ("gated", GatedRepoError),
        ("no_token", LocalTokenNotFoundError),
        ("offline", OfflineModeIsEnabled),
        ("name", HFValidationError),
        ("endpoint", httpx2.UnsupportedProtocol | httpx2.InvalidURL),
    )
    for kind, error_type in kinds:
        if isinstance(error, error_type):
            return HubProblem(kind)
    if failures.unsendable_token(error):
        return HubProblem("bad_token")
    if proxy_sentence(error):
        return HubProblem("proxy")
    if isinstance(error, HfHubHTTPError):
        return HubProblem(_kind_of_answer(error))
    if isinstance(error, httpx2.ConnectError | httpx2.TimeoutException):
        return HubProblem("unreachable")
    if isinstance(error, httpx2.HTTPError):
        return HubProblem("cut")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HubProblem("disk")
    words = str(error)
    if "metadata in README.md" in words:
        return card_problem(words.splitlines()[1:])
    return HubProblem("quota") if _speaks_of_quota(words) else None


def _kind_of_answer(error: HfHubHTTPError) -> str:
    status, code = error.response.status_code, error.response.headers.get("X-Error-Code", "")
    if status in (402, 403, 413) and _speaks_of_quota(f"{error.server_message} {error}"):
        return "quota"
    if code == "EntryNotFound":
        return "no_file"
    if code == "RepoNotFound" or (status == 404 and isinstance(error, RepositoryNotFoundError)):
        return "missing"
    kinds = {401: "sign_in", 402: "quota", 403: "forbidden", 404: "missing", 409: "conflict", 412: "conflict"}
    usual = "hub_fault" if status >= 500 else "unexpected"
    return kinds.get(status) or {413: "too_large", 429: "busy"}.get(status, usual)


def _speaks_of_quota(words: str) -> bool:
    words = words.lower()
    return "quota" in words or ("storage" in words and ("limit" in words or "exceed" in words))


def _unexpected(error: BaseException) -> HubProblem:
    return HubProblem("unexpected", f"({type(error).__name__}.)")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
