"""The repository that a push aims at: what is there, may it be written, and what would a push change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from huggingface_hub import HfApi, get_session
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from rsm_app.hub.bundle import Bundle, BundleFile, is_ours
from rsm_app.hub.names import checked_name
from rsm_app.hub.problems import HubProblem, card_problem, told
from rsm_app.hub.sign_in import Account, Token, account
from rsm_app.hub.wire import conversation

BAD_REQUEST = 400


@dataclass(frozen=True)
class RemoteFile:
    """A file that the repository holds.

    Attributes:
        size: Bytes.
        digest: Its SHA-256 when it is a large file, else its git blob id.
        large: Whether it is stored as a large file.
    """

    size: int
    digest: str
    large: bool


@dataclass(frozen=True)
class Target:
    """A repository as it is now.

    Attributes:
        repo: Its full name.
        exists: Whether it exists and the token may see it.
        private: Whether it is private; None when it does not exist.
        may_write: Whether the token may write to it, or create it.
        head: Its newest commit; empty when it does not exist.
        files: Path → file.
        why_not: Why it may not be written, if known: a key of ``problems.WORDS``, and a sentence or none.
    """

    repo: str
    exists: bool = False
    private: bool | None = None
    may_write: bool = False
    head: str = ""
    files: Mapping[str, RemoteFile] = field(default_factory=dict)
    why_not: tuple[str, str] | None = None

    def refusal(self) -> HubProblem:
        """Return what to say and do where it may not be written."""
        return HubProblem(*(self.why_not or ("forbidden", "")))


@dataclass(frozen=True)
class Changes:
    """What a push would do to a repository, as paths in it.

    Attributes:
        added: Files that are not there yet.
        changed: Files whose content differs.
        unchanged: Files that are there already and are not sent again.
        removed: Pictures and prompts of an earlier push that this one does not have. Files that somebody else
            put there stay.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def nothing_new(self) -> bool:
        """Whether the repository holds exactly this already."""
        return not (self.added or self.changed or self.removed)


def look(repo: str, token: Token, endpoint: str | None = None) -> Target:
    """Ask the Hub what is there.

    Args:
        repo: The repository's full name.
        token: Whose eyes to look with.
        endpoint: The Hub's address; the library's own when None.

    Raises:
        InputError: The name is not allowed.
        HubProblem: The Hub refuses the token or cannot be reached.
    """
    repo = checked_name(repo)
    api = HfApi(endpoint=endpoint, token=token.reveal())
    with conversation(), told():
        person = account(token, endpoint)
        try:
            with told():
                info = api.model_info(repo, files_metadata=True)
        except HubProblem as problem:
            if problem.kind != "missing":
                raise
            obstacle = _obstacle(person, repo)
            return Target(repo, may_write=obstacle is None, why_not=obstacle)
        files = {file.rfilename: _remote(file) for file in info.siblings or ()}
        obstacle = None if _may_write(api, repo) else _obstacle(person, repo) or ("forbidden", "")
        return Target(repo, True, bool(info.private), obstacle is None, info.sha or "", files, obstacle)


def check_card(bundle: Bundle, token: Token, endpoint: str | None = None) -> None:
    """Let the Hub read a card's metadata, as it will again with the commit; nothing is made or written.

    Raises:
        HubProblem: It refuses them (``card``), or cannot be asked.
    """
    url = f"{HfApi(endpoint=endpoint).endpoint}/api/validate-yaml"
    card, headers = {"repoType": "model", "content": bundle.card}, build_hf_headers(token=token.reveal())
    with conversation(), told():
        answer = get_session().post(url, json=card, headers=headers)
        if answer.status_code == BAD_REQUEST:
            raise card_problem(str(entry.get("message")) for entry in answer.json().get("errors") or ())
        hf_raise_for_status(answer)


def _obstacle(person: Account, repo: str) -> tuple[str, str] | None:
    if person.may_write is False:
        return "read_only", ""
    sentence = person.why_not(repo)
    return ("forbidden", sentence) if sentence else None


def changes(target: Target, bundle: Bundle) -> Changes:
    """Say what pushing a bundle to a repository would do."""
    sorted_: dict[str, list[str]] = {"added": [], "changed": [], "unchanged": []}
    for file in bundle.files:
        there = target.files.get(file.path)
        kind = "added" if there is None else "unchanged" if _same(there, file) else "changed"
        sorted_[kind].append(file.path)
    mine = {file.path for file in bundle.files}
    removed = tuple(path for path in target.files if is_ours(path) and path not in mine)
    return Changes(**{kind: tuple(paths) for kind, paths in sorted_.items()}, removed=removed)


def stamp(target: Target, bundle: Bundle) -> str:
    """Return what tells a push to a repository as it is from any other: its revision, its visibility and the
    content of every file that is sent.
    """
    sent = [(file.path, file.sha256) for file in bundle.files]
    return hashlib.sha256(repr((target.repo, target.head, target.private, sent)).encode()).hexdigest()


def _same(there: RemoteFile, mine: BundleFile) -> bool:
    return there.size == mine.size and there.digest == (mine.sha256 if there.large else mine.blob_id)


def _remote(file) -> RemoteFile:
    large = file.lfs is not None
    return RemoteFile(int(file.size or 0), str((file.lfs.sha256 if large else file.blob_id) or ""), large)


def _may_write(api: HfApi, repo: str) -> bool:
    try:
        with told():
            api.auth_check(repo, write=True)
    except HubProblem as problem:
        if problem.kind in ("forbidden", "gated", "missing"):
            return False
        raise
    return True
