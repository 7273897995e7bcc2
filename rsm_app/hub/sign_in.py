"""Where a token comes from, and a value that cannot be printed by accident.

A token is held in memory by whoever asked for a push, and nowhere else: it is no argument of a process, no
environment variable, no part of any file, message or record of this project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi

from rsm_app.hub.problems import NO_TOKEN, told
from rsm_app.hub.wire import conversation
from trainers import failures
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
        readable: Organisations in which the account may only read.
        scopes: For a fine-grained token, the accounts and repositories that it may write to; None for others,
            and where the Hub does not say.
    """

    name: str
    owners: tuple[str, ...]
    may_write: bool | None
    readable: tuple[str, ...] = ()
    scopes: tuple[str, ...] | None = None

    def why_not(self, repo: str) -> str:
        """Return why the token may not make or write a repository, a sentence; empty when it may try.

        Args:
            repo: Its full name.
        """
        owner = repo.partition("/")[0]
        if owner in self.readable:
            return f"Your role in the organization {owner} only lets you read."
        if self.scopes is not None and not {owner, repo} & set(self.scopes):
            return f"This fine-grained token does not cover writing to {repo}."
        if owner not in self.owners:
            return f"The account {self.name} is no member of {owner}, as far as this token shows."
        return ""


def checked_token(text: str, source: str = "pasted") -> Token:
    """Return a token that can be sent.

    Raises:
        InputError: It is empty or contains characters that no token has; the sentence does not repeat it.
    """
    text = text.strip()
    if not text:
        raise InputError("The token is empty. Paste it from huggingface.co/settings/tokens.")
    if not _sendable(text):
        raise InputError("That is not a token: it has spaces or special characters. Copy it once more.")
    return Token(text, source)


def _sendable(text: str) -> bool:
    """Whether a text can be part of a request's header; a no-break space or a curly quote cannot."""
    return text.isascii() and text.isprintable() and " " not in text


def local_token() -> Token | None:
    """Return the token of ``HF_TOKEN`` or of ``hf auth login`` on this machine; None when there is none.

    Raises:
        InputError: There is something in its place that is no token, or that cannot be read.
    """
    try:
        text = (huggingface_hub.get_token() or "").strip()
    except (OSError, ValueError) as error:  # the file is closed to this user, a folder, or no text
        why = getattr(error, "strerror", None) or "it is not text"
        raise InputError(
            f"This machine's Hub token cannot be read ({why}). Sign in again with 'hf auth login', or set "
            "HF_TOKEN."
        ) from None
    if text and not _sendable(text):
        raise InputError(failures.TOKEN)
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
    groups = [org for org in record.get("orgs") or () if org.get("name")]
    reading = tuple(str(org["name"]) for org in groups if org.get("roleInOrg") == "read")
    writing = [str(org["name"]) for org in groups if org.get("roleInOrg") != "read"]
    return Account(name, (name, *writing), may_write, reading, _scopes(details.get("fineGrained")))


def _scopes(rights: Any) -> tuple[str, ...] | None:
    """Return the names that a fine-grained token may write to; None where the Hub does not list them."""
    scoped = rights.get("scoped") if isinstance(rights, Mapping) else None
    if not isinstance(scoped, list):
        return None
    names = []
    for entry in scoped:
        entity, permissions = entry.get("entity") or {}, entry.get("permissions") or ()
        if "repo.write" in permissions:
            if not entity.get("name"):
                return None  # of something whose name is not told: nothing can be said for certain
            names.append(str(entity["name"]))
    return tuple(names)


def repositories(token: Token, owner: str, endpoint: str | None = None) -> tuple[str, ...]:
    """Ask the Hub for the full names of an account's model repositories that the token may see.

    Raises:
        HubProblem: The Hub refuses the token or cannot be reached.
    """
    api = HfApi(endpoint=endpoint, token=token.reveal())
    with conversation(), told():
        return tuple(model.id for model in api.list_models(author=owner, limit=MOST_REPOSITORIES))
