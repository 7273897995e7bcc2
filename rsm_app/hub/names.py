"""Names of repositories on the Hub: what is allowed, what a person may have pasted, and what to suggest."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from trainers.errors import InputError
from trainers.rewards.own import own_name

MAX_CHARACTERS = 96
_WANTED, _ROOM = 4, 80  # suggestions; characters of a name that a number is put behind
_FORBIDDEN = re.compile(r"[^A-Za-z0-9._-]+")
_REPEATED = re.compile(r"-{2,}|\.{2,}")
_REVISION_WORDS = ("tree", "blob", "resolve", "commit", "raw", "blame", "commits")
_NO_MODELS = ("datasets", "spaces", "api", "buckets", "kernels", "collections", "papers", "docs", "blog")
_HUB = ("huggingface.co", "hf.co")  # also where HF_ENDPOINT names a mirror, whose repositories are the same
_AROUND = " \t\r\n\xa0\u200b\u200e\u200f\u2060\ufeff<>\"'`,;\u201c\u201d\u2018\u2019"  # what is copied along
_GIT = re.compile(r"(?:ssh://)?git@(?P<host>[\w.-]+)[:/](?P<path>.+)")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}|refs/(?:pr|convert)/[A-Za-z0-9_-]{1,40}")


def checked_name(text: str) -> str:
    """Return a repository's full name ``owner/name``.

    Args:
        text: What a person typed.

    Raises:
        InputError: It names no repository that the Hub would accept.
    """
    name = text.strip(_AROUND)
    owner, slash, rest = name.partition("/")
    if not name or not slash or not owner or not rest:
        raise InputError("Name the repository as owner/name, for example your-name/tiny-flow-shapes-lora.")
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise InputError(
            f"'{name[:200]}' cannot name a repository: use letters, digits, '-', '_' and '.', at most "
            f"{MAX_CHARACTERS} characters, without '--' or '..', and neither begin nor end with '-' or '.'. "
            f"For example: {_clean(owner) or 'your-name'}/{_clean(rest) or 'my-lora'}."
        ) from None
    return name


def parse_source(text: str, endpoint: str) -> tuple[str, str | None]:
    """Read a Hub id or the address of a model's page, in any form that people copy.

    Args:
        text: ``owner/name``, ``owner/name@revision``, or an address: the page's, with or without
            ``https://``, that for git, or one with ``hf://``.
        endpoint: The Hub's address, for example ``https://huggingface.co``.

    Returns:
        The repository's name and the revision, None for the newest.

    Raises:
        InputError: It is neither, or the address belongs to another site.
    """
    text = text.strip(_AROUND)
    if git := _GIT.fullmatch(text):
        text = f"https://{git['host']}/{git['path']}"
    sites = {_site(endpoint), *_HUB}
    if "://" not in text and _site(f"https://{text}") in sites:  # copied without the scheme
        text = f"https://{text}"
    scheme, _, rest = text.partition("://")
    if rest and scheme != "hf":
        if _site(text) not in sites:
            site = _site(endpoint)
            raise InputError(f"Paste the address of a model's page on {site}, or its name as owner/name.")
        return _of_page(urlsplit(text).path)
    name, _, revision = (rest or text).strip("/").partition("@")
    if scheme == "hf":  # a file's path may follow
        return _of_page("/".join([name, "tree", revision] if revision else [name]))
    return checked_name(name), _checked_revision(revision)


def _of_page(path: str) -> tuple[str, str | None]:
    """Return name and revision that the path of an address on the Hub names."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["models"]:
        parts = parts[1:]
    if len(parts) < 2 or parts[0] in _NO_MODELS:
        raise InputError("That address is not the page of a model. Paste one that ends in owner/name.")
    revision = unquote(parts[3]) if len(parts) > 3 and parts[2] in _REVISION_WORDS else ""
    return checked_name("/".join(parts[:2]).removesuffix(".git")), _checked_revision(revision)


def _site(address: str) -> str:
    """Return an address's host and port, without any name or password before them; empty when it has none."""
    try:
        parts = urlsplit(address)
        host = (parts.hostname or "").removeprefix("www.")
        return f"{host}:{parts.port}" if parts.port else host
    except ValueError:
        return ""


def suggestions(settings: Mapping[str, object], owner: str = "", taken: Collection[str] = ()) -> list[str]:
    """Return names for a run's repository, best first, all valid and none of them taken.

    Args:
        settings: The run's settings.
        owner: The account; ``your-name`` when nobody has signed in.
        taken: Full names that exist already.
    """
    model = str(settings.get("model") or "model").rpartition("/")[2]
    rewards = [_reward(part) for part in str(settings.get("reward") or "").split(",")]
    reward = "-".join(filter(None, rewards)) or "reward"
    method = str(settings.get("estimator") or "rsm")
    stems = [f"{model}-{reward}-lora", f"{model}-{reward}-{method}", f"{model}-{reward}-{method}-lora"]
    stems.append(f"{stems[0]}-seed{settings.get('seed', 0)}")
    short = _clean(stems[0])[:_ROOM]
    stems += [f"{short}-{number}" for number in range(2, _WANTED + 2 + len(taken))]
    names = [f"{_clean(owner) or 'your-name'}/{_clean(stem) or 'lora'}" for stem in stems]
    return [name for name in dict.fromkeys(names) if name not in set(taken)][:_WANTED]


def _reward(part: str) -> str:
    """Return what to call one part of a mixture; a function in a file by both, but not by its folders."""
    own = own_name(part)
    return f"{Path(own['file']).stem}-{own['function']}" if own else part.partition(":")[0].strip()


def _clean(text: str) -> str:
    """Return text as a valid part of a name; empty when nothing of it is."""
    text = _REPEATED.sub("-", _FORBIDDEN.sub("-", text.replace("_", "-")))
    return text[: MAX_CHARACTERS - 1].strip("-._").removesuffix(".git").strip("-._")


def _checked_revision(text: str) -> str | None:
    if text and not _REVISION.fullmatch(text):
        raise InputError(f"'{text[:100]}' is not a revision; use a branch, a tag or a commit.")
    return text or None
