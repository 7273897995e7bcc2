"""The command line of publishing. Exit codes as in ``trainers``: 0 done, 2 wrong input, 1 fault.

The token is that of ``hf auth login`` or of the variable ``HF_TOKEN``; it is no argument, because arguments
of a process can be read by everybody on the machine.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rsm_app.hub.names import checked_name, suggestions
from trainers.cli import DEBUG
from trainers.errors import InputError, StudioError
from trainers.failures import explain, last_traceback
from trainers.paths import path_of
from trainers.terminal import prepare_output, report, say

if TYPE_CHECKING:
    from rsm_app.hub.bundle import Bundle
    from rsm_app.hub.push_status import PushStatus
    from rsm_app.hub.sign_in import Token
    from rsm_app.hub.target import Target


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the process's exit code."""
    prepare_output()
    try:
        options = _parser().parse_args(arguments)
        options.command(options)
    except StudioError as error:
        report(f"Error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        report("Interrupted. Run the same command again to go on.")
        return 1
    except BrokenPipeError:
        return 1
    except Exception as error:  # a defect, or the machine's fault
        if os.environ.get(DEBUG, "") not in ("", "0"):
            report(last_traceback())
        report(f"Error: {explain(error, 'The command')} {DEBUG}=1 shows where it happened.")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rsm_app.hub", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    push = commands.add_parser("push", help="publish a finished run as a LoRA with a model card")
    push.add_argument("run", type=path_of, help="the run folder")
    push.add_argument("--repo", help="the repository, as owner/name")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument("--dry-run", action="store_true", help="show card and files, and send nothing")
    push.set_defaults(command=_push)
    fetch = commands.add_parser("fetch", help="bring a LoRA published from here into a run folder")
    fetch.add_argument("repo", help="owner/name, owner/name@revision, or the address of its page")
    fetch.add_argument("--out", type=path_of, help="the folder to make; by default in the runs directory")
    fetch.set_defaults(command=_fetch)
    return parser


def _push(options) -> None:
    from rsm_app.hub.bundle import bundle
    from rsm_app.hub.problems import NO_TOKEN_IN_SHELL
    from rsm_app.hub.sign_in import local_token
    from trainers.run_folder import RunFolder

    if not options.repo:
        ideas = ", ".join(suggestions(RunFolder(options.run).read_config())[:2])
        raise InputError(f"'--repo' is missing: name the repository as owner/name, for example {ideas}.")
    token = local_token()
    gathered = bundle(options.run, checked_name(options.repo), token)
    if options.dry_run:
        _show(gathered, token, options.private)
    elif token is None:
        raise InputError(NO_TOKEN_IN_SHELL)
    else:
        target = _look(gathered, token, options.private)
        _really_push(options.run, token, _approved(target, gathered, options.private))


def _show(gathered: Bundle, token: Token | None, private: bool) -> None:
    """Print what a push would send, and what it would meet at the Hub where that can be asked.

    Raises:
        HubProblem: It would be refused.
    """
    from rsm_app.hub.wire import offline

    say(gathered.card)
    for file in gathered.files:
        say(f"{file.size:>10,}  {file.path}")
    say(f"{gathered.size:>10,}  bytes in {len(gathered.files)} files; nothing was sent.")
    if token is None:
        say("Nobody is signed in to the Hub, so what is there already was not looked at.")
    elif offline():
        say("The Hub is turned off here by HF_HUB_OFFLINE, so what is there already was not looked at.")
    else:
        _check(gathered, token, private)


def _check(gathered: Bundle, token: Token, private: bool) -> None:
    """Print what a push would meet at the Hub; that it cannot be reached now is no fault of the push to come.

    Raises:
        HubProblem: The push would be refused.
    """
    from rsm_app.hub.problems import HubProblem

    try:
        target = _look(gathered, token, private)
    except HubProblem as problem:
        if problem.kind not in ("unreachable", "cut"):
            raise
        say(f"{problem.cause} So what is there already was not looked at.")
        return
    if not target.may_write:
        raise target.refusal()


def _look(gathered: Bundle, token: Token, private: bool) -> Target:
    """Print what a push would change, and return the repository as it is.

    Raises:
        HubProblem: The Hub cannot be asked, or refuses the card.
    """
    from rsm_app.hub.target import changes, check_card, look

    target = look(gathered.repo, token)
    check_card(gathered, token)
    told = changes(target, gathered)
    hidden = target.private if target.exists else private
    say(
        f"{gathered.repo} {'exists and stays' if target.exists else 'is made,'} "
        f"{'private' if hidden else 'public, for everybody to see'}."
    )
    for kind in ("added", "changed", "removed", "unchanged"):
        for path in getattr(told, kind):
            say(f"{kind:>10}  {path}")
    return target


def _approved(target: Target, gathered: Bundle, private: bool) -> PushStatus:
    """Return a push that was asked for, of exactly this to the repository as it is."""
    from rsm_app.hub.push_status import PushStatus
    from rsm_app.hub.target import stamp

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
            report(said)

    status = Push(run, asked.repo, token, asked.private, asked.approved, listener=tell).run()
    say(f"{status.url}\n{status.commit_url}")


def _fetch(options) -> None:
    from rsm_app.hub.fetching import fetch
    from rsm_app.hub.sign_in import local_token

    path = fetch(options.repo, local_token(), options.out)
    say(f"Run folder: {path}")
    say(f"To train on from it: python -m trainers train --from-adapter {path} --out runs/more")
