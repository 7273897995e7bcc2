"""Who asks, who may look at a run and who may change it.

A run is its owner's. Others may look at it once the owner shares it; only the owner changes it. A run that
was made in a shell has no owner and is everybody's; one whose record cannot be read is nobody's.
"""

from __future__ import annotations

import logging
import time

import gradio as gr

from rsm_app.jobs.host_names import HOSTS, is_own_name, is_vouched_for
from rsm_app.jobs.owners import (
    NOBODY,
    is_address,
    owner_of_address,
    owner_through,
    share_of_owner,
    share_shell_runs,
)
from rsm_app.jobs.places import on_space
from rsm_app.jobs.records import Job
from rsm_app.jobs.store import Run, RunStore
from rsm_app.ui.hosts import Authority, is_loopback, line_of, parse_host
from rsm_app.ui.proxies import from_named_proxy, peer, written_down
from trainers.terminal import printable

UNKNOWN = "somebody"  # who asks through a socket without an address
_ACCOUNT = "hub:"  # before an account's name that would else be an address; no account's name holds a colon
_NO_NAME = "another name"
_FORWARDER = (
    " If a forwarder on this machine asks so for others, let it add X-Forwarded-For: else all are one."
)
_MOST_LOGGED = 100  # names; anybody can ask for any
GONE = "This run no longer exists, or its owner does not share it any more."
REFUSED = (
    "This run belongs to somebody else, so only they can change it. Copy its settings to start your own."
)


def owners_of(request: gr.Request) -> tuple[str, ...]:
    """Return whose runs are the asker's own: the signed-in name if there is one, then the address.

    What was started before signing in stays one's own, as long as the address does.
    """
    return tuple(filter(None, (_signed_in(request), _address(request.request.scope))))


def owner_of(request: gr.Request) -> str:
    """Return whose a new run becomes."""
    return owners_of(request)[0]


def share_of(request: gr.Request) -> str:
    """Return whose share of the server a request takes: its owner's, whatever name it asks for."""
    return share_of_owner(owner_of(request))


def share_of_address(scope: dict) -> str:
    """Return whose share a connection takes, before it is known who has signed in."""
    return share_of_owner(_address(scope))


def _signed_in(request: gr.Request) -> str:
    """Return the Hub name that Gradio's sign-in has kept in the session; empty if none, or over."""
    session = request.request.scope.get("session") if request.request else None
    kept = (session or {}).get("oauth_info") or {}
    expires = kept.get("expires_at")
    if expires is not None and expires < time.time():
        return ""
    name = kept.get("userinfo", {}).get("preferred_username", "")
    return f"{_ACCOUNT}{name}" if name in (UNKNOWN, NOBODY) or is_address(name) else name


def _address(scope: dict) -> str:
    """Return the owner that the address asked from belongs to; see ``proxies`` and ``owner_of_address``.

    Not everybody who comes from this machine's own address sits at it. Another machine's name that leads here
    is a forwarder's that adds no header, or that of a page which made the browser here ask; and a proxy here
    may hand on what it was told. Nor does everybody who comes from another address act for who sits there: a
    stranger's page can give its own name the address of this machine, and that name is all that tells.
    """
    hop = written_down(scope)
    address = hop or peer(scope)
    host, own, safe = _host(scope)
    local, owner = is_loopback(address), owner_of_address(address) or UNKNOWN
    other = (hop or not own) if local else not (safe or on_space() or from_named_proxy(scope))
    if not other:
        return owner
    if not safe:
        _log(address, host)
    return owner_through(owner, host.name if host else _NO_NAME)


def _host(scope: dict) -> tuple[Authority | None, bool, bool]:
    """Return what a request asks for, whether that is the machine's own name, and whether no stranger's.

    Every browser says it; what does not is no browser, and safe.
    """
    asked = line_of(scope, "host") or ""
    host = parse_host(asked)
    if not asked:
        return None, True, True
    return host, bool(host and is_own_name(host.name)), bool(host and is_vouched_for(host.name))


def _log(address: str, host: Authority | None) -> None:
    """Say once for each name what it is that makes somebody an owner of their own."""
    if host is None or host.name in _logged or len(_logged) >= _MOST_LOGGED or on_space():
        return
    _logged.add(host.name)
    logging.getLogger(__name__).warning(
        "This app was asked for as %s, which is not known to be a name of this machine, from %s. Who asks so "
        "is another owner than who asks for an address of this machine, and has no runs of a shell: it "
        "may be the name of a stranger's page. If it is yours, start the app with %s=%s (several names are "
        "separated by commas).%s", printable(host.name), printable(address), HOSTS, printable(host.name),
        _FORWARDER if is_loopback(address) else "",
    )  # fmt: skip


_logged: set[str] = set()


def allowed(run: Run, request: gr.Request) -> bool:
    """Whether a request may change a run."""
    return _owns(run.job(), request)


def visible_run(store: RunStore, run_id: object, request: gr.Request) -> Run | None:
    """Return a run that the asker may look at; None when there is none, or it is somebody else's."""
    run = store.run(run_id)
    if run is None:
        return None
    job = run.job()
    return run if job.shared or _owns(job, request) else None


def _owns(job: Job, request: gr.Request) -> bool:
    owners = owners_of(request)
    return share_shell_runs(owners) if job.shell else job.owner in owners
