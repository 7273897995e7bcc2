"""The app without its pages: ``python -m tests.faults.headless RUNS`` moves a queue and takes requests.

Requests are lines of JSON on standard input, answers on standard output, so that a test can kill the process
in the middle of anything and knows what had been promised.
"""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from tests.e2e.shell import ROOT
from trainers.coercion import from_mapping
from trainers.errors import StudioError


class Headless:
    """Such a process, seen from the test."""

    def __init__(self, runs: Path):
        """Start it."""
        self._runs = runs
        self.process = None
        self.start()

    def start(self) -> None:
        """Start it (again)."""
        runs = self._runs
        runs.mkdir(parents=True, exist_ok=True)
        with open(runs.parent / "headless.txt", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.headless", str(runs)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ask(self, action: str, **values) -> str | None:
        """Send a request and return the run's id, or None when the process died over it.

        Raises:
            RuntimeError: It answered with an error.
        """
        try:
            self.process.stdin.write(json.dumps({"action": action, **values}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except (BrokenPipeError, ValueError):
            return None
        if not line:
            return None
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["run"]

    def kill(self) -> None:
        """Kill it and take it off the process table."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def main() -> None:
    """Serve requests until the input ends."""
    supervisor = Supervisor(RunStore(sys.argv[1]), Limits(owner_queued=0, free_mb=1))
    supervisor.keep_running()
    for line in sys.stdin:
        request = json.loads(line)
        action = request.pop("action")
        try:
            if action == "submit":
                run = supervisor.submit(from_mapping(request["config"]))
            else:
                run = getattr(supervisor, action)(**request)
            answer = {"run": run.id}
        except StudioError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
