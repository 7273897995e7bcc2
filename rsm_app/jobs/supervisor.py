"""What the app does with runs: take requests, keep the queue moving, and end what must end.

Every change happens under one file lock of the runs directory, after reading the folders anew, so any number
of app processes may share a directory and a restarted one goes on where the last one was. Nothing here needs
the app to stay alive: workers go on by themselves, and the queue waits in the folders.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rsm_app.jobs import cleaning, zero_gpu
from rsm_app.jobs.beginnings import keep_start, resolved_start
from rsm_app.jobs.devices import devices
from rsm_app.jobs.extending import longer
from rsm_app.jobs.index import Index, Row
from rsm_app.jobs.launching import age, launch, taken
from rsm_app.jobs.limits import Limits, read_limits
from rsm_app.jobs.memory import relieve
from rsm_app.jobs.permission import check_settings
from rsm_app.jobs.queue import Place, in_order, places, ready
from rsm_app.jobs.records import Job
from rsm_app.jobs.room import check_budget, check_pin, check_room, check_turn
from rsm_app.jobs.states import ENDED, at_work, spoken
from rsm_app.jobs.stopping import Escalation
from rsm_app.jobs.store import Run, RunStore, new_run_id
from rsm_app.jobs.temporary_files import TemporaryFiles
from rsm_app.jobs.workers import terminate
from trainers.coercion import from_mapping
from trainers.config import RunConfig
from trainers.errors import FaultError, InputError, StudioError
from trainers.lending import on_zero_gpu
from trainers.run_folder import atomic_write

LIVE = ("running", "stopping")
_TICK_SECONDS = 0.5
_CLEANING_SECONDS = 10.0


class Supervisor:
    """The queue and the workers of one runs directory.

    Attributes:
        store: The runs directory.
        index: Its index, for lists.
        limits: What runs and owners may take.
        files: What visitors have uploaded and exported.
        trouble: Why the queue stands still although a device is free; empty when it does not.
    """

    def __init__(self, store: RunStore, limits: Limits | None = None):
        """Read the limits and devices; ``tick`` or ``keep_running`` moves the queue.

        Raises:
            InputError: An environment variable has a wrong value.
        """
        self.store = store
        self.index = Index(store)
        self.limits = read_limits() if limits is None else limits
        self.files = TemporaryFiles(self.limits)
        self.trouble = ""
        self._devices = devices()
        self._escalation = Escalation(self.limits.stop_seconds)
        self._cleaned = self._placed = -math.inf
        self._clean_at = -1
        self._places: dict[str, Place] = {}
        self._closed = threading.Event()
        self._moving = threading.Lock()
        if on_zero_gpu():
            zero_gpu.prepare()

    # -- requests ------------------------------------------------------------------------------------

    def submit(
        self, config: RunConfig, prompts: str | None = None, owner: str = "", address: str = ""
    ) -> Run:
        """Queue a new run, and start it if its turn is now.

        Args:
            config: The settings, already checked.
            prompts: Text of the training prompts, one a line, when they are not a built-in set.
            owner: Who asks, and whose run it becomes.
            address: Where somebody who signed in asks from.

        Raises:
            InputError: A limit, a device or something else that is not there speaks against it.
            FaultError: The disk is full or the directory cannot be written.
        """
        check_budget(self.limits, config.budget_seconds)
        check_settings(config, self._devices, self.limits, own_prompts=prompts)
        asked = Job(owner, address)
        config = resolved_start(self.store, config, *asked.owners)
        with self.store.lock():
            check_turn(self.store, self.index, self.limits, asked)
            run = self._create(config, prompts, asked)
        self.tick()
        return run

    def _create(self, config: RunConfig, prompts: str | None, asked: Job) -> Run:
        try:
            run = self.store.create()
        except OSError as error:
            raise FaultError(
                f"Could not make the run's folder: {error.strerror or error}. Free some space and try again."
            ) from error
        try:
            if prompts is not None:
                atomic_write(run.prompts, prompts)
                config = dataclasses.replace(config, prompts=str(run.prompts))
            keep_start(run, config)
            who = {"owner": asked.owner, "address": asked.address}
            run.change_job(**who, submitted=time.time(), ticket=self.index.last_ticket() + 1)
            atomic_write(run.request, config.to_json())  # last: only now is it a run
        except StudioError:
            shutil.rmtree(run.path, ignore_errors=True)
            raise
        zero_gpu.remember_visitor(run)
        self._note(run)
        return run

    def adopt(self, bring: Callable[[Path], object], owner: str = "", address: str = "") -> Run:
        """Let the folder of a finished run be brought from elsewhere, if there is room for it.

        Args:
            bring: Makes the folder at the path it is given, whole and with its owner, or not at all.
            owner: Who asks, and whose run it becomes.
            address: Where somebody who signed in asks from.

        Raises:
            InputError: What the owner has pinned leaves no room.
            FaultError: The disk is full; and whatever ``bring`` raises.
        """
        check_room(self.store, self.index, self.limits, Job(owner, address))
        run = Run(self.store.root / new_run_id())
        bring(run.path)
        self._note(run)
        return run

    def resume(self, run_id: str) -> Run:
        """Queue a run that ended early, to go on from its last checkpoint.

        Raises:
            InputError: There is no such run, nothing to go on with, or a limit or setting speaks against it.
            FaultError: The disk is full or the directory cannot be written.
        """
        self._check_again(run_id)
        with self.store.lock():
            run = self._existing(run_id)
            if not run.resumable():
                raise InputError("There is nothing to resume in this run. Press Start to begin a new one.")
            # A worker that ended without a word may not have written down the limits that it was to work by.
            heard = spoken(run.folder.status(), run.worker())
            self._enqueue(run, {} if heard else run.job().limits)
        self.tick()
        return run

    def extend(self, run_id: str, seconds: float) -> Run:
        """Queue an ended run for more training: its budget grows by ``seconds``.

        A limit on updates that has been reached is lifted; time alone counts from then on.

        Raises:
            InputError: There is no such run, it has not ended, or a limit or a setting speaks against it.
            FaultError: The disk is full or the directory cannot be written.
        """
        if not math.isfinite(seconds) or seconds <= 0:
            raise InputError("Write how many seconds to train more, for example 120.")
        self._check_again(run_id)
        with self.store.lock():
            run = self._existing(run_id)
            if run.status().state not in ENDED:
                raise InputError("This run has not ended yet; stop it first, or wait until it ends.")
            settings = run.certain_settings()
            more = longer(run, seconds)
            check_budget(self.limits, more.worker_seconds)
            from_mapping(settings | dict(more.limits))
            self._enqueue(run, dict(more.limits))
        self.tick()
        return run

    def _check_again(self, run_id: str) -> None:
        """Check an existing run's settings like a new one's; outside the lock, since it may ask around."""
        run = self._existing(run_id)
        check_settings(from_mapping(run.certain_settings()), self._devices, self.limits, run)

    def _enqueue(self, run: Run, limits: dict) -> None:
        job = run.job()
        check_turn(self.store, self.index, self.limits, job)
        run.change_job(
            submitted=job.submitted or time.time(),
            ticket=max(self.index.last_ticket(), run.worker().ticket) + 1,  # never one that is used up
            withdrawn=False,
            limits=limits,
        )
        zero_gpu.remember_visitor(run)
        self._note(run)

    def stop(self, run_id: str, reason: str = "") -> Run:
        """Take a waiting run out of the queue, or ask a worker to evaluate, save and end.

        Raises:
            InputError: There is no such run or it has ended.
            FaultError: The disk is full or the directory cannot be written.
        """
        with self.store.lock():
            run = self._existing(run_id)
            state = run.status().state
            if state == "queued":
                run.change_job(ticket=0, withdrawn=True, limits={})
            elif state in LIVE:
                self._ask_to_stop(run, reason)
            else:
                raise InputError("This run is not at work any more, so there is nothing to stop.")
            self._note(run)
        return run

    def pin(self, run_id: str, pinned: bool = True) -> Run:
        """Keep a run from being cleaned away, or allow it again.

        Raises:
            InputError: There is no such run, or one may pin no more.
            FaultError: As in ``stop``.
        """
        with self.store.lock():
            run = self._existing(run_id)
            if pinned:
                check_pin(self.store, self.index, self.limits, run.id)
            return self._changed(run, pinned=pinned)

    def share(self, run_id: str, shared: bool = True) -> Run:
        """Let everybody who has a run's id look at it, or only its owner again; errors as in ``stop``."""
        with self.store.lock():
            return self._changed(self._existing(run_id), shared=shared)

    def _changed(self, run: Run, **changes) -> Run:
        run.change_job(**changes)
        self._note(run)
        return run

    def deletable(self, run_id: str) -> Run:
        """Return a run that may be deleted.

        Raises:
            InputError: There is no such run, it waits, works or is being published, or it is pinned.
        """
        run = self._existing(run_id)
        if refusal := cleaning.why_it_stays(run):
            raise InputError(refusal)
        return run

    def delete(self, run_id: str) -> None:
        """Delete an ended run for good.

        Raises:
            InputError: As in ``deletable``.
            FaultError: The directory cannot be written, or a process still works in the run's folder.
        """
        with self.store.lock():
            run = self.deletable(run_id)
            if not cleaning.delete(self.store, self.index, run.id):
                raise FaultError(
                    "This run could not be deleted: a process is still at work in its folder, or the folder "
                    "cannot be written. Try again in a moment."
                )
            self.files.forget_exports(run.id)
            self._placed = -math.inf

    def _note(self, run: Run) -> None:
        self.index.note(run)
        self._placed = -math.inf

    def _existing(self, run_id: str) -> Run:
        run = self.store.run(run_id)
        if run is None:
            raise InputError("This run no longer exists. Press Start to begin a new one.")
        return run

    # -- reading -------------------------------------------------------------------------------------

    def place(self, run_id: str) -> Place | None:
        """Return where a waiting run stands, as of at most half a second ago; None if it does not wait."""
        if time.monotonic() - self._placed > _TICK_SECONDS:
            self._placed = time.monotonic()
            moving = self.index.moving()
            live = [row for row in moving if row.state in LIVE]
            self._places = places(in_order(moving), live, self._devices)
        return self._places.get(run_id)

    def present(self, owners: Sequence[str]) -> Run | None:
        """Return the run to show when none is named: one's own before others that one may see.

        Of several it is the latest at work, else the next in the queue.
        """
        rows = self.index.rows((*LIVE, "queued"), viewer=owners)
        rows = [row for row in rows if row.state in LIVE] + in_order(rows)
        chosen = min(rows, key=lambda row: row.owner not in owners, default=None)
        return self.store.run(chosen.id) if chosen else None

    # -- keeping things moving -----------------------------------------------------------------------

    def keep_running(self) -> threading.Thread:
        """Move the queue from now on, in a thread of its own that ends with the process or ``close``."""

        def loop() -> None:
            while not self._closed.wait(_TICK_SECONDS):
                self.tick()

        thread = threading.Thread(target=loop, name="queue", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Stop moving the queue; workers go on."""
        self._closed.set()
        with self._moving:
            self.index.close()

    def tick(self) -> None:
        """Do whatever is due: start the next runs, end those whose time or room is over, clean up."""
        try:
            with self._moving, self.store.lock():
                moving = self.index.moving()
                self._watch([row for row in moving if row.state in LIVE])
                self.trouble = self._start_ready(in_order(moving), [row for row in moving if row.holds])
                self._clean(at_rest=not moving)
        except StudioError as error:
            self.trouble = str(error)
        except (OSError, sqlite3.Error) as error:
            self.trouble = f"The runs directory cannot be used: {error}. It is tried again."
        except Exception as error:  # a defect, or a machine at its end; the next tick may do better
            self._unexpected(error)

    def _clean(self, at_rest: bool) -> None:
        """Delete what is too much, now and then, unless nothing has changed since nothing was."""
        if time.monotonic() - self._cleaned <= _CLEANING_SECONDS:
            return
        self._cleaned = time.monotonic()
        self.files.sweep()
        if not at_rest or self.index.changes() != self._clean_at:
            for name in cleaning.enforce_quota(self.store, self.index, self.limits):
                self.files.forget_exports(name)
            self._clean_at = self.index.changes()

    def _unexpected(self, error: Exception) -> None:
        trouble = (
            f"Something unexpected keeps the queue from moving ({type(error).__name__}: {error}). It is "
            "tried again; the app's log tells more."
        )
        if trouble != self.trouble:  # once, not at every tick
            logging.getLogger(__name__).error("The queue could not be moved.", exc_info=error)
        self.trouble = trouble

    def _start_ready(self, queue: list[Row], holding: list[Row]) -> str:
        chosen = list(ready(queue, holding, self._devices, self.limits.owner_running))
        if not chosen:
            return ""
        if trouble := cleaning.low_disk(self.store, self.limits.free_mb):
            return trouble
        for row, device in chosen:
            run = self.store.run(row.id)
            if run is not None and not taken(run):
                launch(run, row.ticket, device, self.limits.run_memory_mb)
                self._note(run)
        return ""

    def _watch(self, live: list[Row]) -> None:
        """Ask runs to stop whose time or room is over, and see to it that stops end."""
        runs = [run for row in live if (run := self.store.run(row.id))]
        trouble = cleaning.low_disk(self.store, self.limits.free_mb) if runs else ""
        for run in runs:
            status = run.status()
            if status.state != "running":
                continue
            limit = self.limits.run_seconds
            if limit and age(run, status) > limit:
                self._ask_to_stop(run, f"A run may take {limit:g} seconds here, and they are over.")
            elif trouble:
                self._ask_to_stop(run, trouble)
        relieve(runs, self.limits.free_memory_mb)
        self._escalation.follow(runs)

    def _ask_to_stop(self, run: Run, reason: str) -> None:
        try:
            run.folder.request_stop(reason)
        except FaultError:  # no room even for the file
            pid, identity = at_work(run.status(), run.worker())
            terminate(pid, identity)
            if not pid:
                raise
