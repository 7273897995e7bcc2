"""Where a token comes from, and a value that cannot be printed by accident.

A token is held in memory by whoever asked for a push, and nowhere else: it is no argument of a process, no
environment variable, no part of any file, message or record of this project.
"""

from __future__ import annotations

from dataclasses import dataclass

import huggingface_hub
from huggingface_hub import HfApi

from rsm_app.hub.problems import NO_TOKEN, told
from rsm_app.hub.wire import conversation
from trainers.errors import InputError

MOST_REPOSITORIES = 1000
SOURCES = ("pasted", "signed in", "this machine")


class Token:
    """A Hub token; its text is only returned by ``reveal``."""

    __slots__ = ("_text", "source")

    def __init__(self, text: str, source: str = "pasted"):
        """Hold a token.

        Args:
            text: The token.
            source: One of ``SOURCES``: for this push only, by OAuth, or ``hf auth login``.
        """
        self._text = text.strip()
        self.source = source

    def reveal(self) -> str:
        """Return the token itself, for a request's header and nothing else."""
        return self._text

    def __repr__(self) -> str:
        return f"Token(hidden, {self.source})"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce__(self):
        raise TypeError("A token is not stored or sent to another process.")


@dataclass(frozen=True)
class Account:
    """Who a token belongs to.

    Attributes:
        name: The account.
        owners: The account and its organisations that it may publish for, the account first.
        may_write: Whether the token may write at all; None when the Hub does not say.
    """

    name: str
    owners: tuple[str, ...]
    may_write: bool | None


def checked_token(text: str, source: str = "pasted") -> Token:
    """Return a token that can be sent.

    Raises:
        InputError: It is empty or contains characters that no token has; the sentence does not repeat it.
    """
    text = text.strip()
    if not text:
        raise InputError("The token is empty. Paste it from huggingface.co/settings/tokens.")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise InputError("That is not a token: it has spaces or special characters. Copy it once more.")
    return Token(text, source)


def local_token() -> Token | None:
    """Return the token of ``hf auth login`` on this machine; None when there is none."""
    text = huggingface_hub.get_token()
    return Token(text, "this machine") if text else None


def find_token(pasted: str = "", oauth: str | None = None, local: bool = True) -> Token:
    """Choose a token: the one pasted for this push, else that of the person signed in, else the machine's.

    Args:
        pasted: What was typed into the page's field; may be empty.
        oauth: The token of the Space's sign-in, if there is one.
        local: Whether this machine's own token may be used; never on a Space, where it is its owner's.

    Raises:
        InputError: There is none.
    """
    if pasted.strip():
        return checked_token(pasted)
    if oauth:
        return Token(oauth, "signed in")
    if local and (token := local_token()):
        return token
    raise InputError(NO_TOKEN)


def account(token: Token, endpoint: str | None = None) -> Account:
    """Ask the Hub whose token this is.

    Raises:
        HubProblem: The Hub refuses the token or cannot be reached; see ``problems``.
    """
    with conversation(), told():
        record = HfApi(endpoint=endpoint, token=token.reveal()).whoami()
    name = str(record.get("name") or "")
    details = (record.get("auth") or {}).get("accessToken") or {}
    role = details.get("role")
    may_write = None if role in (None, "fineGrained") else role == "write"
    groups = [str(org.get("name")) for org in record.get("orgs") or () if org.get("name")]
    return Account(name, (name, *groups), may_write)


def repositories(token: Token, owner: str, endpoint: str | None = None) -> tuple[str, ...]:
    """Ask the Hub for the full names of an account's model repositories that the token may see.

    Raises:
        HubProblem: The Hub refuses the token or cannot be reached.
    """
    api = HfApi(endpoint=endpoint, token=token.reveal())
    with conversation(), told():
        return tuple(model.id for model in api.list_models(author=owner, limit=MOST_REPOSITORIES))
