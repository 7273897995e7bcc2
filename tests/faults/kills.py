"""Kill workers and the app at random moments of real runs, check what is left, and resume until all are done.

``python -m tests.faults.kills --kills 200`` prints the tally and returns 1 if anything was lost, wrong or
different. Every run must end exactly like an uninterrupted run of the same settings; some are then given more
time, are killed during that too, and must have gone on from there.
"""

import argparse
import dataclasses
import json
import random
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from rsm_app.jobs.index import Index
from rsm_app.jobs.states import ENDED
from rsm_app.jobs.store import Run, RunStore
from tests.faults.headless import Headless
from tests.faults.sessions import ADAPTER, tiny_config
from tests.jobs.small_runs import end_workers, gone, wait_for
from trainers.checkpoint import load_latest
from trainers.errors import FaultError
from trainers.processes import process_alive
from trainers.run_folder import RunFolder, read_json, read_lines

KINDS = (
    ("rsm_zeroth_order_flow", {}),
    ("rsm_first_order_flow", {"updates_per_rollout": 2}),
    ("rsm_zeroth_order_flow", {"updates_per_rollout": 2, "seed": 5}),
    ("rsm_zeroth_order_flow", {"threads": 0, "dtype": "auto", "probe_every": 2}),  # as shipped: every core
    ("rsm_zeroth_order_diffusion", {"model": "tiny-diffusion"}),
)
MORE_SECONDS = 15.0
_TOLD = ("before", "after", "paired", "drift", "updates", "images_sampled", "network_evaluations")


@dataclass
class Tally:
    """What was done and what went wrong."""

    worker_kills: int = 0
    app_kills: int = 0
    runs: int = 0
    extended: int = 0
    resumes: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """All kills."""
        return self.worker_kills + self.app_kills

    @property
    def good(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.lost or self.wrong or self.corrupt or self.different)

    def __str__(self) -> str:
        """The figures, and every complaint."""
        lines = [
            f"{self.kills} kills ({self.worker_kills} of workers, {self.app_kills} of the app) over "
            f"{self.runs} runs, {self.extended} of them given more time, {self.resumes} resumes: "
            f"{len(self.lost)} lost runs, {len(self.wrong)} wrong states, "
            f"{len(self.corrupt)} corrupt files, {len(self.different)} different results"
        ]
        return "\n".join([*lines, *self.lost, *self.wrong, *self.corrupt, *self.different])


class Campaign:
    """One runs directory, one app process that is killed and started again, and a tally."""

    def __init__(self, place: Path, seed: int, updates: int = 4, kinds=KINDS, extended: float = 0.25):
        """Start the app; ``extended`` is the share of runs that are given more time."""
        self.store = RunStore(place / "runs")
        self.tally = Tally()
        self._draw = random.Random(seed)
        self._updates = updates
        self._kinds = kinds
        self._extended = extended
        self._promised: dict[str, int] = {}
        self._references: dict[int, Run] = {}
        self._app = Headless(self.store.root)

    def run(self, kills: int, say=lambda text: None) -> Tally:
        """Make references, kill that often, finish every run, and compare."""
        for kind in range(len(self._kinds)):
            run = self._submit(kind)
            wait_for(lambda run=run: run.status().state == "succeeded", what="the uninterrupted run")
            self._references[kind] = run
        seconds = self._seconds_of(self._references[0])
        while self.tally.kills < kills:
            run = self._submit(self._draw.randrange(len(self._kinds)))
            self._strike_until_done(run, seconds, kills)
            self._check(run)
            if self._draw.random() < self._extended:
                self._extend(run, seconds, kills)
            say(str(self.tally))
        self._check_all()
        return self.tally

    def _strike_until_done(self, run: Run, seconds: float, kills: int) -> None:
        while run.status().state != "succeeded" and self.tally.kills < kills:
            self._strike(run, seconds)
        self._finish(run)

    def _extend(self, run: Run, seconds: float, kills: int) -> None:
        """Give a run more time, strike it again, and see that it went on from where it was."""
        before = _curve(run)
        if self._app.ask("extend", run_id=run.id, seconds=MORE_SECONDS) is None:
            return
        self.tally.extended += 1
        self._strike_until_done(run, seconds, kills)
        after = _curve(run)
        if after[: len(before)] != before or run.folder.read_report()["updates"] != len(after):
            self.tally.different.append(f"{run.id} did not go on from its end when it was given more time")
        self._check_files(run)

    def close(self) -> None:
        """End everything that was started."""
        self._app.kill()
        end_workers(self.store)

    @staticmethod
    def _seconds_of(run: Run) -> float:
        return run.folder.read_report()["wall_seconds"] + 1.0

    def _submit(self, kind: int) -> Run:
        estimator, changes = self._kinds[kind]
        config = tiny_config(estimator, max_updates=self._updates, **changes)
        run_id = self._app.ask("submit", config=dataclasses.asdict(config))
        assert run_id, "the app died without being killed"
        self._promised[run_id] = kind
        self.tally.runs += 1
        return self.store.run(run_id)

    def _strike(self, run: Run, seconds: float) -> None:
        """Wait a random while and kill the worker, the app, or the app and then the worker."""
        time.sleep(self._draw.uniform(0.0, seconds))
        choice = self._draw.choice(("worker", "worker", "app", "both"))
        if choice != "worker":
            self._kill_app(run)
        if choice != "app":
            self._kill_worker(run)
        if choice != "worker":
            self._app.start()
        self._go_on(run)

    def _kill_app(self, run: Run) -> None:
        before = run.status()
        self._app.kill()
        self.tally.app_kills += 1
        after = run.status()
        lives = process_alive(before.pid, 0.0, before.pid_identity or "none")
        if before.live and after.state == "interrupted" and lives:  # it may end by itself meanwhile
            self.tally.wrong.append(f"{run.id} reads {after.state} though its worker lives")

    def _kill_worker(self, run: Run) -> None:
        status, worker = run.status(), run.worker()
        pid = status.pid if status.live and status.pid_identity != worker.seen else worker.pid
        if not status.live or not pid:
            return
        try:
            process = psutil.Process(pid)
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return
        self.tally.worker_kills += 1
        while not gone(process):
            time.sleep(0.001)
        state = run.status().state
        listed = Index(self.store).rows(("running", "stopping"))
        finished = read_json(run.folder.status_file) or {}
        expected = finished["state"] if finished.get("state") in ENDED and run.folder.report.exists() else ""
        if state not in ("interrupted", expected):
            self.tally.wrong.append(f"{run.id} reads {state} after its worker was killed")
        if any(row.id == run.id for row in listed):
            self.tally.wrong.append(f"{run.id} is listed as running after its worker was killed")
        self._check_files(run)

    def _go_on(self, run: Run) -> None:
        if run.status().state in ("interrupted", "stopped"):
            self._app.ask("resume", run_id=run.id)
            self.tally.resumes += 1
        elif run.status().state == "failed":
            self.tally.wrong.append(f"{run.id} failed: {run.status().error}")
            self._app.ask("resume", run_id=run.id)

    def _finish(self, run: Run) -> None:
        while run.status().state != "succeeded":
            self._go_on(run)
            wait_for(lambda: run.status().state in ENDED, 600, "the end of a run")

    def _check_files(self, run: Run) -> None:
        for path in run.path.rglob("*.json"):
            if not path.name.startswith(".") and not _is_json(path):
                self.tally.corrupt.append(f"{path.relative_to(self.store.root)} is damaged")
        for path in run.folder.checkpoints.glob("*.safetensors"):
            if not path.name.startswith(".") and not _is_checkpoint(path):
                self.tally.corrupt.append(f"{path.relative_to(self.store.root)} is damaged")

    def _check_all(self) -> None:
        present = {run.id for run in self.store.runs()}
        self.tally.lost += [f"{run_id} is gone" for run_id in self._promised.keys() - present]
        self.tally.wrong += [f"{run_id} was never asked for" for run_id in present - self._promised.keys()]

    def _check(self, run: Run) -> None:
        self._check_files(run)
        self._compare(run, self._references[self._promised[run.id]])

    def _compare(self, run: Run, reference: Run) -> None:
        one, other = run.folder.read_report() or {}, reference.folder.read_report()
        parts = {
            "adapter": (run.path / ADAPTER).read_bytes() == (reference.path / ADAPTER).read_bytes(),
            "report": all(one.get(key) == other[key] for key in _TOLD),
            "metrics": _curve(run) == _curve(reference),
            "probes": _probes(run) == _probes(reference),
            "pictures": _pictures(run) == _pictures(reference),
        }
        wrong = [name for name, equal in parts.items() if not equal]
        if wrong:
            self.tally.different.append(f"{run.id} differs in {', '.join(wrong)}")


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _is_checkpoint(path: Path) -> bool:
    """Whether a file alone, without an intact neighbour that would be taken instead, can be loaded."""
    with tempfile.TemporaryDirectory() as place:
        alone = RunFolder(place)
        alone.checkpoints.mkdir()
        try:
            shutil.copyfile(path, alone.checkpoints / path.name)
            return load_latest(alone) is not None
        except FileNotFoundError:  # a worker that goes on has removed it meanwhile
            return True
        except FaultError:
            return False


def _probes(run: Run) -> list[dict]:
    clocks = ("seconds", "cost")
    return [{key: line[key] for key in line if key not in clocks} for line in run.folder.read_probes()]


def _curve(run: Run) -> list[tuple]:
    lines = read_lines(run.folder.metrics)
    return [(line["step"], line["reward_mean"], line["loss"], line["grad_norm"]) for line in lines]


def _pictures(run: Run) -> dict[str, bytes]:
    found = run.folder.samples.glob("*/*.png")
    return {str(path.relative_to(run.path)): path.read_bytes() for path in found}


def main() -> int:
    """Run a campaign and print its tally."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        campaign = Campaign(Path(place), options.seed)
        try:
            tally = campaign.run(options.kills, lambda text: print(text, flush=True))
        finally:
            campaign.close()
    print(tally)
    return 0 if tally.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
