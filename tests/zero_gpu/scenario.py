"""An app's queue on ZeroGPU, without its pages: what happens to runs that borrow their GPU by the chunk.

Usage: scenario.py RUNS, with ``spaces`` of this folder on the path. Prints what was seen as one line of JSON.
"""

import json
import os
import sys

import gradio as gr

from rsm_app.jobs.devices import devices
from rsm_app.jobs.states import ENDED
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from tests.jobs.small_runs import ended, endless_config, small_config, training, wait_for


def loans():
    try:
        with open(os.environ["LOANS"]) as book:
            return [json.loads(line) for line in book]
    except FileNotFoundError:
        return []


def told(run):
    status, report = run.status(), run.folder.read_report() or {}
    return {"state": status.state, "error": status.error, "updates": report.get("updates", 0)}


def borrowed_and_stopped(supervisor):
    """A run that needs several loans, watched closely, and stopped between two of them."""
    gr.context.LocalContext.request.set(gr.Request(headers={"x-ip-token": "ann"}))
    run = supervisor.submit(endless_config())
    states = set()

    def lent_twice():
        states.add(run.status().state)
        return len(loans()) >= 2

    wait_for(lent_twice, what="the second loan's end")
    supervisor.stop(run.id)
    wait_for(ended(run), 60, "the stop")
    return {**told(run), "states": sorted(states), "loans": loans(), "adapter": run.folder.adapter.is_dir()}


def extended(supervisor):
    """A run that succeeds within one loan, then gets more time."""
    run = supervisor.submit(small_config(max_updates=1, eval_prompts=2))
    wait_for(ended(run), what="the end")
    first = told(run)
    supervisor.extend(run.id, 12.0)
    wait_for(lambda: not ended(run)(), 30, "the beginning of more time")
    wait_for(ended(run), what="the end after more time")
    return {"first": first, "more": told(run)}


def taken_away(supervisor):
    """A run whose first loan is cut off before anything is saved, then resumed."""
    os.environ["LOAN_SECONDS"] = "0.5"
    run = supervisor.submit(endless_config())
    wait_for(ended(run), what="the end without a GPU")
    first = told(run)
    del os.environ["LOAN_SECONDS"]
    supervisor.resume(run.id)
    states = {run.status().state}
    wait_for(training(run), what="the first update")
    supervisor.stop(run.id)
    wait_for(ended(run), 60, "the stop")
    return {"first": first, "states": sorted(states), "more": told(run)}


def refused(supervisor):
    """A run whose settings the engine refuses once it looks at the prompts."""
    run = supervisor.submit(small_config(), "a red circle\na purple elephant that no checker knows")
    wait_for(ended(run), what="the refusal")
    return told(run)


def main() -> None:
    store = RunStore(sys.argv[1])
    supervisor = Supervisor(store)
    supervisor.keep_running()
    scenes = (borrowed_and_stopped, extended, taken_away, refused)
    seen = {scene.__name__: scene(supervisor) for scene in scenes}
    at_work = [run.id for run in store.runs() if run.status().state not in ENDED]
    print(json.dumps({**seen, "devices": devices(), "at_work": at_work}))


if __name__ == "__main__":
    main()
