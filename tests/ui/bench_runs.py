"""Measure what the runs page costs the server: ``python tests/ui/bench_runs.py [--runs 1000] [--polls 60]``.

The page's own handlers are called with a real request, on a store of finished runs with reports. A fresh page
is to take at most 100 ms, a poll 20 ms. Not a test: a busy machine slows it, so read the spread too.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import fastapi
import gradio as gr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rsm_app.jobs.store import RunStore  # noqa: E402
from rsm_app.jobs.supervisor import Supervisor  # noqa: E402
from rsm_app.ui.shell import build  # noqa: E402
from tests.faults.many_runs import make_finished_runs  # noqa: E402

LOAD_MS, POLL_MS = 100.0, 20.0
_SCOPE = {"type": "http", "method": "GET", "path": "/runs", "headers": [], "query_string": b""}


def handlers(demo: gr.Blocks) -> dict:
    """Return the page's handlers by name."""
    return {fn.fn.__name__: fn.fn for fn in demo.fns.values() if fn.fn and fn.page == "runs"}


def measure(demo: gr.Blocks, polls: int, view: dict) -> dict[str, list[float]]:
    """Return the milliseconds of a fresh page, of its second opening and of polls half a second apart."""
    request = gr.Request(request=fastapi.Request({**_SCOPE, "client": ("127.0.0.1", 1)}))
    page, seen = handlers(demo), {}
    state = next(block for block in demo.blocks.values() if isinstance(block, gr.State) and block.value == {})
    taken: dict[str, list[float]] = {"load": [], "poll": []}
    for name in ("load", "load", *["poll"] * polls):
        started = time.perf_counter()
        shown = page[name](view, seen, request)
        taken[name].append(1000 * (time.perf_counter() - started))
        seen = next((value for key, value in shown.items() if key._id == state._id), seen)
        seen = next((value for key, value in shown.items() if isinstance(key, gr.State) and value), seen)
        if name == "poll":
            time.sleep(0.5)
    return taken


def main() -> int:
    """Print the figures and whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--polls", type=int, default=40)
    options = parser.parse_args()
    met = True
    with tempfile.TemporaryDirectory() as place:
        store = RunStore(Path(place) / "runs")
        for run in make_finished_runs(store, options.runs):
            paired = {"n": 8, "mean_gain": 0.1, "stderr": 0.03, "z": 3.3}
            run.folder.report.write_text(json.dumps({"paired": paired, "wall_seconds": 60.0}))
        supervisor = Supervisor(store)
        started = time.perf_counter()
        supervisor.index.rows(scan=True)
        print(f"index of {options.runs} runs made anew: {1000 * (time.perf_counter() - started):.0f} ms")
        demo = build(supervisor)
        supervisor.keep_running()
        for title, view in (("all runs", {}), ("search", {"text": "shapes succeeded"})):
            for name, values in measure(demo, options.polls, view).items():
                bar = LOAD_MS if name == "load" else POLL_MS
                median = statistics.median(values)
                met &= median <= bar
                print(f"{title}, {name}: median {median:.1f} ms, worst {max(values):.1f} ms (bar {bar:.0f})")
        supervisor.close()
    print(f"bars: {'met' if met else 'missed'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
