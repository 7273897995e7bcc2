"""A push: bundle → repository → large files → one commit, with patience, progress, cancel and a state of its
own.

The commit comes last and is one, so the repository's newest revision is the old one or the whole new one,
never a part. Large files that have arrived are known to the Hub by their content: a push that failed, was
cancelled or died with its process goes on from there when it is started again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil
from huggingface_hub import CommitOperationDelete, HfApi

from rsm_app.hub.bundle import Bundle, bundle
from rsm_app.hub.names import checked_name
from rsm_app.hub.problems import HubProblem, told
from rsm_app.hub.push_status import (
    AGAIN,
    INTERRUPTED,
    PLACE,
    PushStatus,
    cancel_requested,
    forget_cancel,
    write_push,
)
from rsm_app.hub.sending import Freight
from rsm_app.hub.sign_in import Token
from rsm_app.hub.target import Target, changes, check_card, look, stamp
from rsm_app.hub.wire import Conversation, conversation
from trainers.errors import FaultError, InputError, StudioError
from trainers.processes import process_identity
from trainers.run_lock import try_lock, unlock

TRIES = {"busy": 6, "hub_fault": 3, "cut": 3}
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
LONGEST_WAIT = 300.0
_TELL_SECONDS = 0.3
_BUSY = "Another push of this run is at work. Wait for it or cancel it."
Listener = Callable[[PushStatus], None]
Result = TypeVar("Result")


class Push:
    """One push of one run; ``run`` does it, ``start`` does it in a thread of its own."""

    def __init__(
        self,
        run: Path,
        repo: str,
        token: Token,
        private: bool = False,
        approved: str = "",
        endpoint: str | None = None,
        listener: Listener | None = None,
    ):
        """Name what is pushed where; nothing is asked or written yet.

        Args:
            run: The run folder.
            repo: The repository's full name.
            token: A token that may write; it stays in this object's memory.
            private: Whether a repository that is made now is private.
            approved: The stamp of what was looked at, see ``target.stamp``: anything else is refused. Empty
                pushes whatever is there.
            endpoint: The Hub's address; the library's own when None.
            listener: Hears every state that is written.

        Raises:
            InputError: The name is not allowed.
        """
        self._run = run
        self._token = token
        self._api = HfApi(endpoint=endpoint, token=token.reveal(), library_name="rsm-studio")
        self._listener = listener
        self._spoke = 0.0
        self._telling = threading.Lock()
        process = psutil.Process()
        self.status = PushStatus(
            state="running",
            repo=checked_name(repo),
            private=private,
            approved=approved,
            message="Gathering the files.",
            started=time.time(),
            pid=process.pid,
            pid_started=process.create_time(),
            pid_identity=process_identity(process.pid),
        )

    def start(self) -> PushStatus:
        """Begin in a thread and return the first state; ``read_push`` tells the rest.

        Raises:
            InputError: Another push of this run is at work.
            FaultError: The run folder cannot be written.
        """
        lock = self._begin()

        def work() -> None:
            with contextlib.suppress(StudioError):  # it is told in push.json
                self._finish(lock)

        threading.Thread(target=work, name="push", daemon=True).start()
        return self.status

    def run(self) -> PushStatus:
        """Do it here and return the final state.

        Raises:
            InputError: Another push of this run is at work, or the run cannot be published.
            HubProblem: It failed; the state says so too.
            FaultError: The run folder cannot be written.
        """
        return self._finish(self._begin())

    def _begin(self) -> int:
        if not self._run.is_dir():
            raise InputError("There is no run in this folder (it has no config.json).")
        lock = try_lock(self._run / PLACE)
        if lock is None:
            raise InputError(_BUSY)
        try:
            forget_cancel(self._run)
            self._update()
        except BaseException:
            unlock(lock)
            raise
        return lock

    def _finish(self, lock: int) -> PushStatus:
        try:
            self._work()
        except HubProblem as problem:
            state = "cancelled" if problem.kind == "cancelled" else "failed"
            self._failed(state, problem.kind, problem.cause, problem.remedy, problem.retry_after or 0.0)
            raise
        except StudioError as error:
            self._failed("failed", "run", str(error), "")
            raise
        except KeyboardInterrupt:
            self._failed("interrupted", "interrupted", INTERRUPTED, AGAIN)
            raise
        except BaseException as error:
            self._failed("failed", "unexpected", f"The push ended with a fault ({type(error).__name__}).", "")
            raise
        finally:
            forget_cancel(self._run)
            unlock(lock)
        return self.status

    def _work(self) -> None:
        gathered = bundle(self._run, self.status.repo, self._token, self._api.endpoint)
        self._update(bytes_total=gathered.size, files_total=len(gathered.files))
        with conversation(lambda: cancel_requested(self._run)) as talk:
            target = self._repository(talk, gathered)
            freight = Freight(gathered, talk, self._sent)
            try:
                commit = self._deliver(talk, freight, gathered, target)
            finally:
                freight.close()
        self._update(
            state="succeeded",
            phase="done",
            message=f"Published as {self.status.repo}.",
            bytes_done=gathered.size,
            commit=commit,
            commit_url=f"{self._api.endpoint}/{self.status.repo}/commit/{commit}",
            finished=time.time(),
        )

    def _repository(self, talk: Conversation, gathered: Bundle) -> Target:
        """Make the repository unless it is there, and return what it holds.

        Raises:
            HubProblem: It may not be written, or a push would do something else than what was approved.
        """
        repo = self.status.repo
        self._update(phase="create", message="Looking at the repository.")
        target = self._patiently(talk, lambda: look(repo, self._token, self._api.endpoint))
        approved = self.status.approved
        if approved and stamp(target, gathered) != approved and not changes(target, gathered).nothing_new:
            raise HubProblem("moved")
        self._patiently(talk, lambda: check_card(gathered, self._token, self._api.endpoint))
        if not target.exists:
            self._update(message="Making the repository.")
            self._make(talk, target)
            target = self._patiently(talk, lambda: look(repo, self._token, self._api.endpoint))
            if approved:  # a new try begins with the repository that this one made
                self._update(approved=stamp(target, gathered))
        elif not target.may_write:
            raise target.refusal()
        self._update(url=f"{self._api.endpoint}/{repo}")
        return target

    def _make(self, talk: Conversation, target: Target) -> None:
        """Make the repository; only the Hub knows for certain whether one may."""
        private = self.status.private
        try:
            self._patiently(talk, lambda: self._api.create_repo(target.repo, private=private, exist_ok=True))
        except HubProblem as problem:
            raise target.refusal() if problem.kind == "forbidden" else problem from None

    def _deliver(self, talk: Conversation, freight: Freight, gathered: Bundle, target: Target) -> str:
        repo, additions = self.status.repo, freight.operations
        gone = [CommitOperationDelete(path) for path in changes(target, gathered).removed]

        def upload() -> None:
            freight.rewind()
            self._api.preupload_lfs_files(repo, additions, free_memory=False)

        def commit() -> str:
            if asked:  # an earlier answer was lost, and perhaps nothing but the answer
                now = look(repo, self._token, self._api.endpoint)
                if changes(now, gathered).nothing_new:
                    return now.head
            asked.append(True)
            freight.rewind()
            return self._api.create_commit(
                repo,
                [*additions, *gone],
                commit_message="Publish a run of RSM Studio",
                parent_commit=target.head or None,
            ).oid

        asked: list[bool] = []
        self._update(phase="upload", message="Sending the files.")
        self._patiently(talk, upload)
        self._update(phase="commit", message="Writing the new revision.")
        return self._patiently(talk, commit)

    def _patiently(self, talk: Conversation, step: Callable[[], Result]) -> Result:
        """Do a step, again after a pause while the Hub is busy, faulty or cut off; say so meanwhile."""
        tried = 0
        while True:
            try:
                with told():
                    talk.check()
                    return step()
            except HubProblem as problem:
                tried += 1
                pause = problem.retry_after if problem.retry_after is not None else PAUSES[min(tried, 5) - 1]
                if not problem.transient or tried >= TRIES[problem.kind] or pause > LONGEST_WAIT:
                    raise
                self._pause(talk, problem, pause)

    def _pause(self, talk: Conversation, problem: HubProblem, seconds: float) -> None:
        before, end = self.status.message, time.monotonic() + seconds
        self._update(
            state="waiting",
            retry_after=seconds,
            message=f"{problem.cause} Trying again in {seconds:.0f} s.",
        )
        while time.monotonic() < end:
            with told():
                talk.check()
            time.sleep(min(0.1, max(0.0, end - time.monotonic())))
        self._update(state="running", retry_after=0.0, message=before)

    def _sent(self, count: int) -> None:
        """Hear of sent bytes, from any thread; written now and then."""
        if time.monotonic() - self._spoke >= _TELL_SECONDS:
            self._update(bytes_done=max(count, self.status.bytes_done))

    def _failed(self, state: str, kind: str, error: str, remedy: str, retry_after: float = 0.0) -> None:
        with contextlib.suppress(FaultError):
            self._update(
                state=state,
                kind=kind,
                error=error,
                remedy=remedy,
                retry_after=retry_after,
                message="",
                finished=time.time(),
            )

    def _update(self, **changed) -> None:
        with self._telling:
            self._spoke = time.monotonic()
            self.status = dataclasses.replace(self.status, **changed)
            write_push(self._run, self.status)
        if self._listener:
            self._listener(self.status)
