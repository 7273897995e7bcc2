"""A store full of finished runs, and how long its list takes: ``python -m tests.faults.many_runs``."""

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rsm_app.jobs.index import Index
from rsm_app.jobs.records import Job
from rsm_app.jobs.store import Run, RunStore
from trainers.config import RunConfig

BAR_MS = 100.0
_STATES = ("succeeded", "succeeded", "stopped", "failed")


def finished_run(store: RunStore, number: int, change: Callable[[Run], object] = lambda run: None) -> Run:
    """Write the folder of a shared run that has ended, as the app and a worker leave it.

    It is made out of sight, so that an app that watches the directory meets it as a whole.

    Args:
        store: Where.
        number: Tells it apart; every fourth has stopped, every fourth failed.
        change: What makes another run of it while it is out of sight.
    """
    name = f"20260101-{number:06d}-abcdef"
    run = Run(store.root / f".{name}")
    (run.path / "samples").mkdir(parents=True)
    settings = RunConfig().to_json()
    run.request.write_text(settings)
    run.folder.config.write_text(settings)
    job = Job(owner=f"owner-{number % 10}", submitted=1.0 + number, ticket=0, shared=True)
    run.job_file.write_text(json.dumps(dataclasses.asdict(job)))
    status = {"state": _STATES[number % 4], "phase": "done", "updates": 16, "heartbeat": 2.0 + number}
    run.folder.status_file.write_text(json.dumps(status))
    run.folder.metrics.write_text('{"step": 1, "reward_mean": 0.5}\n' * 16)
    change(run)
    return Run(run.path.rename(store.root / name))


def make_finished_runs(store: RunStore, count: int) -> list[Run]:
    """Write several."""
    return [finished_run(store, number) for number in range(count)]


def main() -> int:
    """Print the milliseconds of the list: from nothing, at every later read, and from a new process."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--reads", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        store = RunStore(Path(place) / "runs")
        make_finished_runs(store, options.runs)
        index = Index(store)
        first = _milliseconds(index, scan=True)
        reads = sorted(_milliseconds(index, scan=bool(i % 2)) for i in range(options.reads))
        index.close()
        again = _milliseconds(Index(store), scan=True)
    worst = max(*reads, again)
    print(f"{options.runs} runs · built from folders {first:.0f} ms · opened again {again:.0f} ms")
    print(f"every later read: median {statistics.median(reads):.1f} ms, worst {reads[-1]:.1f} ms")
    print(f"bar {BAR_MS:.0f} ms: {'met' if worst <= BAR_MS else 'missed'}")
    return 0 if worst <= BAR_MS else 1


def _milliseconds(index: Index, scan: bool) -> float:
    started = time.perf_counter()
    index.rows(scan=scan)
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    raise SystemExit(main())
