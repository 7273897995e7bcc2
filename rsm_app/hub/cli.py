"""The command line of publishing. Exit codes as in ``trainers``: 0 done, 2 wrong input, 1 fault.

The token is that of ``hf auth login`` or of the variable ``HF_TOKEN``; it is no argument, because arguments
of a process can be read by everybody on the machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rsm_app.hub.names import checked_name, suggestions
from trainers.errors import InputError, StudioError

if TYPE_CHECKING:
    from rsm_app.hub.bundle import Bundle
    from rsm_app.hub.push_status import PushStatus
    from rsm_app.hub.sign_in import Token


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the process's exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except StudioError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. Push again to go on from here.", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rsm_app.hub", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    push = commands.add_parser("push", help="publish a finished run as a LoRA with a model card")
    push.add_argument("run", type=Path, help="the run folder")
    push.add_argument("--repo", help="the repository, as owner/name")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument("--dry-run", action="store_true", help="show card and files, and send nothing")
    push.set_defaults(command=_push)
    fetch = commands.add_parser("fetch", help="bring a LoRA published from here into a run folder")
    fetch.add_argument("repo", help="owner/name, owner/name@revision, or the address of its page")
    fetch.add_argument("--out", type=Path, help="the folder to make; one below the runs directory by default")
    fetch.set_defaults(command=_fetch)
    return parser


def _push(options) -> None:
    from rsm_app.hub.bundle import bundle
    from rsm_app.hub.sign_in import find_token, local_token
    from trainers.run_folder import RunFolder

    if not options.repo:
        ideas = ", ".join(suggestions(RunFolder(options.run).read_config())[:2])
        raise InputError(f"'--repo' is missing: name the repository as owner/name, for example {ideas}.")
    token = local_token()
    gathered = bundle(options.run, checked_name(options.repo), token)
    if options.dry_run:
        print(gathered.card)
        for file in gathered.files:
            print(f"{file.size:>10,}  {file.path}")
        print(f"{gathered.size:>10,}  bytes in {len(gathered.files)} files; nothing was sent.")
        if token is None:
            print("Nobody is signed in to the Hub, so what is there already was not looked at.")
        else:
            _look(gathered, token, options.private)
        return
    token = find_token()
    _really_push(options.run, token, _look(gathered, token, options.private))


def _look(gathered: Bundle, token: Token, private: bool) -> PushStatus:
    """Print what a push would change, and return it as a push that was asked for."""
    from rsm_app.hub.push_status import PushStatus
    from rsm_app.hub.target import changes, look, stamp

    target = look(gathered.repo, token)
    told = changes(target, gathered)
    hidden = target.private if target.exists else private
    print(
        f"{gathered.repo} {'exists and stays' if target.exists else 'is made,'} "
        f"{'private' if hidden else 'public, for everybody to see'}."
    )
    for kind in ("added", "changed", "removed", "unchanged"):
        for path in getattr(told, kind):
            print(f"{kind:>10}  {path}")
    return PushStatus(repo=gathered.repo, private=private, approved=stamp(target, gathered))


def _really_push(run: Path, token: Token, asked: PushStatus) -> None:
    from huggingface_hub.utils import disable_progress_bars

    from rsm_app.hub.push import Push

    disable_progress_bars()  # the push says itself where it is
    said = ""

    def tell(status: PushStatus) -> None:
        nonlocal said
        if status.message and status.message != said:
            said = status.message
            print(said, file=sys.stderr)

    status = Push(run, asked.repo, token, asked.private, asked.approved, listener=tell).run()
    print(f"{status.url}\n{status.commit_url}")


def _fetch(options) -> None:
    from rsm_app.hub.fetching import fetch
    from rsm_app.hub.sign_in import local_token

    path = fetch(options.repo, local_token(), options.out)
    print(f"Run folder: {path}")
    print(f"To train on from it: python -m trainers train --from-adapter {path} --out runs/more")
