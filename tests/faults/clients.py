"""Many visitors of one app: each submits, polls and stops through the page's own protocol, without a browser.

``python -m tests.faults.clients --clients 50 --seconds 300`` starts the app, prints what it measured and
returns 1 if a bar is missed: no error, no lost or doubled run, polls within 250 ms at the 99th percentile, at
most 50 MB more memory at the end than after the first fifth of the time.
"""

import argparse
import http.client
import json
import random
import secrets
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from rsm_app.jobs.states import STATES
from rsm_app.jobs.store import RunStore
from tests.jobs.small_runs import end_workers
from tests.ui.server import Server

POLL_MS, GROWTH_MB = 250.0, 50.0
SETTINGS = {
    "set-max_updates": 1,
    "set-eval_prompts": 4,
    "set-eval_samples_per_prompt": 2,
    "set-prompts_per_update": 4,
    "set-updates_per_rollout": 1,
    "set-rollout_steps": 4,
    "set-branches": "2, 2",
    "set-threads": 1,
    "budget": "900",
    "reward": "colorfulness",
}
_UNLIMITED = {"RSM_MAX_QUEUED_PER_OWNER": "0", "RSM_DEVICES": "cpu"}


@dataclass
class Page:
    """Where the page's events are, read from its own description.

    Attributes:
        port: Where the app listens.
        events: Number of the event by name of its handler.
        form: What the form sends when Start is pressed.
        follows: Names of the events that follow when a state of the page changes, by the state's number.
    """

    port: int
    events: dict[str, int]
    form: list
    follows: dict[int, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, url: str, port: int) -> "Page":
        """Read the description that a browser reads."""
        with urllib.request.urlopen(f"{url}/config") as answer:
            config = json.load(answer)
        components = {part["id"]: part for part in config["components"]}
        events: dict[str, int] = {}
        form, follows = [], {}
        for dependency in config["dependencies"]:
            name = str(dependency["api_name"])
            events.setdefault(name, dependency["id"])
            if name == "start":
                props = [components[number]["props"] for number in dependency["inputs"]]
                form = [SETTINGS.get(part.get("elem_id"), part.get("value")) for part in props]
            for number, kind in dependency["targets"]:
                if kind == "change" and components[number]["type"] == "state":
                    follows.setdefault(number, []).append(name)
        return cls(port, events, form, follows)


@dataclass
class Notes:
    """What all clients saw."""

    polls: list[float] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Client(threading.Thread):
    """One visitor with a tab of its own."""

    def __init__(self, page: Page, notes: Notes, until: float, seed: int):
        """Prepare; ``start`` begins."""
        super().__init__(daemon=True)
        self._page, self._notes, self._until = page, notes, until
        self._draw = random.Random(seed)
        self._session = secrets.token_hex(6)
        self._run_id = self._ticket = ""

    def run(self) -> None:
        """Come at some moment, then submit, poll about once a second as a tab does, and stop now and then."""
        time.sleep(self._draw.uniform(0.0, 5.0))
        while time.monotonic() < self._until:
            try:
                self._act()
            except Exception as error:
                with self._notes.lock:
                    self._notes.errors.append(f"{type(error).__name__}: {error}")
            time.sleep(self._draw.uniform(0.7, 1.3))

    def _act(self) -> None:
        chance = self._draw.random()
        if not self._run_id or chance < 0.03:
            problems, run_id = self._call("start", self._page.form)
            if problems or not isinstance(run_id, str):
                raise RuntimeError(f"not started: {problems}")
            self._run_id = run_id
            with self._notes.lock:
                self._notes.submitted.append(run_id)
        elif chance < 0.06:
            self._call("stop", [self._run_id])
            with self._notes.lock:
                self._notes.stops.append(self._run_id)
        started = time.perf_counter()
        *_, ticket = self._direct("poll", [self._run_id, None])
        if ticket != self._ticket:
            self._ticket = ticket
            for number in self._send("due", [self._run_id])["changed_state_ids"]:
                for name in self._page.follows.get(number, ()):
                    self._send(name, [self._run_id, "gain"])
        with self._notes.lock:
            self._notes.polls.append(1000 * (time.perf_counter() - started))

    def _call(self, name: str, data: list) -> list:
        """Send one event and return what the page would show."""
        return self._send(name, data)["data"]

    def _direct(self, name: str, data: list) -> list:
        """Send one event that does not queue and return what the page would show."""
        connection = http.client.HTTPConnection("127.0.0.1", self._page.port, timeout=60)
        try:
            body = {"data": data, "fn_index": self._page.events[name], "session_hash": self._session}
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/gradio_api/run/predict", json.dumps(body), headers)
            answer = connection.getresponse()
            told = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{name} was answered {answer.status}: {told[:200]!r}")
            return json.loads(told)["data"]
        finally:
            connection.close()

    def _send(self, name: str, data: list) -> dict:
        """Send one event and return its whole answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._page.port, timeout=60)
        try:
            body = {"data": data, "fn_index": self._page.events[name], "session_hash": self._session}
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/gradio_api/queue/join", json.dumps(body), headers)
            answer = connection.getresponse()
            told = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{name} was answered {answer.status}: {told[:200]!r}")
            connection.request("GET", f"/gradio_api/queue/data?session_hash={self._session}")
            return self._listen(connection.getresponse(), json.loads(told)["event_id"], name)
        finally:
            connection.close()

    @staticmethod
    def _listen(stream: http.client.HTTPResponse, event: str, name: str) -> dict:
        for line in stream:
            if not line.startswith(b"data:"):
                continue
            message = json.loads(line[5:])
            if message.get("msg") == "process_completed" and message.get("event_id") == event:
                if not message["success"]:
                    raise RuntimeError(f"{name} failed: {message.get('output')}")
                return message["output"]
        raise RuntimeError(f"the answer to {name} broke off")


def visit(place: Path, clients: int, seconds: float, environment: dict[str, str]) -> dict:
    """Let clients use an app and return the figures."""
    server = Server(place / "runs", environment={**_UNLIMITED, **environment}).start().wait()
    try:
        notes, until = Notes(), time.monotonic() + seconds
        page = Page.read(server.url, server.port)
        visitors = [Client(page, notes, until, number) for number in range(clients)]
        for visitor in visitors:
            visitor.start()
        process = psutil.Process(server.process.pid)
        used = sum(process.cpu_times()[:2])
        time.sleep(seconds / 5)
        early = process.memory_info().rss
        for visitor in visitors:
            visitor.join()
        late = process.memory_info().rss
        used = sum(process.cpu_times()[:2]) - used
        return _figures(RunStore(server.runs), notes, (late - early) / 2**20, used)
    finally:
        server.stop()
        end_workers(RunStore(server.runs))


def _figures(store: RunStore, notes: Notes, growth: float, used: float) -> dict:
    present = Counter(run.id for run in store.runs())
    states = Counter(run.status().state for run in store.runs())
    polls = sorted(notes.polls) or [float("inf")]
    return {
        "submitted": len(notes.submitted),
        "stops": len(notes.stops),
        "unheeded": sum(store.run(name).status().state in ("queued", "running") for name in set(notes.stops)),
        "polls": len(notes.polls),
        "poll_p50_ms": polls[len(polls) // 2],
        "poll_p99_ms": polls[min(len(polls) - 1, int(0.99 * len(polls)))],
        "server_ms_per_poll": 1000 * used / len(polls),  # of a processor, with everything else it did
        "growth_mb": growth,
        "errors": len(notes.errors),
        "first_errors": sorted(set(notes.errors))[:5],
        "lost": len(set(notes.submitted) - set(present)),
        "doubled": len(notes.submitted)
        - len(set(notes.submitted))
        + len(set(present) - set(notes.submitted)),
        "unknown_states": sum(count for state, count in states.items() if state not in STATES),
        "at_work": states["running"] + states["stopping"],
        "states": dict(states),
    }


def whole(figures: dict) -> bool:
    """Whether nothing was lost, doubled or wrong."""
    wrong = ("errors", "lost", "doubled", "unknown_states", "unheeded")
    return not any(figures[name] for name in wrong) and figures["at_work"] <= 1


def main() -> int:
    """Run the visitors and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        figures = visit(Path(place), options.clients, options.seconds, {})
    for name, value in figures.items():
        print(f"{name:16} {value:.1f}" if isinstance(value, float) else f"{name:16} {value}")
    met = whole(figures) and figures["poll_p99_ms"] <= POLL_MS and figures["growth_mb"] <= GROWTH_MB
    print(f"bars (p99 {POLL_MS:g} ms, growth {GROWTH_MB:g} MB): {'met' if met else 'missed'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
