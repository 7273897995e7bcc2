"""The app as its own process and a headless browser, for tests, benchmarks and screenshots."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def free_port() -> int:
    """Return a port nobody listens on, at any address of this machine."""
    both = {"family": socket.AF_INET6, "dualstack_ipv6": True} if socket.has_dualstack_ipv6() else {}
    with socket.create_server(("", 0), **both) as probe:
        return probe.getsockname()[1]


def find_chromium() -> str | None:
    """Return an installed Chromium, or None for playwright's own."""
    names = (os.environ.get("RSM_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)


class Server:
    """``python app.py`` on a runs directory of its own, or another program that serves a page."""

    def __init__(
        self,
        runs: Path,
        port: int | None = None,
        program: tuple[str, ...] = ("app.py",),
        environment: dict[str, str] | None = None,
    ):
        self.runs, self.port, self.program = Path(runs), port or free_port(), program
        self.environment = environment or {}
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> "Server":
        own = {"RSM_RUNS_DIR": str(self.runs), "GRADIO_SERVER_PORT": str(self.port)}
        environment = {**os.environ, **own, **self.environment}
        self.runs.mkdir(parents=True, exist_ok=True)
        with open(self.runs.parent / f"server-{self.port}.txt", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        return self

    def wait(self, seconds: float = 180.0) -> "Server":
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(self.url, timeout=2).read()
                return self
            assert self.process and self.process.poll() is None, "the server ended"
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"the server did not answer in {seconds:g} s")

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
