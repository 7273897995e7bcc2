"""Carry out the Dockerfile's steps in a root folder, where no container engine is at hand; needs root.

Usage: python -m tests.docker_steps ROOT [NAME=VALUE ...]

ROOT is a clean system with Python and pip, for example made by debootstrap; it plays the image of every FROM,
and IMAGE_PATH is its PATH. Each NAME=VALUE stands in the environment of the build steps, as an ARG does.
The program is then started as the image's user, and the health check asked until it answers.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from dockerfile_parse import DockerfileParser

PROJECT = Path(__file__).resolve().parents[1]
PATIENCE_SECONDS = 120


class Steps:
    """The state that instructions change: environment, folder and user."""

    def __init__(self, root: Path, arguments: dict[str, str]):
        self.root, self.arguments = root, arguments
        self.begin()

    def begin(self, *_) -> None:
        self.environment = {"PATH": os.environ.get("IMAGE_PATH", "/usr/local/bin:/usr/bin:/bin")}
        self.folder, self.user, self.declared = "/", None, {}
        self.health, self.command, self.stop = None, None, signal.SIGTERM

    def do(self, kind: str, value: str) -> None:
        """Carry out one instruction."""
        getattr(self, f"_{kind.lower()}", lambda text: None)(value)

    _from = begin

    def _arg(self, text: str) -> None:
        name, _, usual = text.partition("=")
        if (given := self.arguments.get(name, usual)) != "":
            self.declared[name] = given

    def _env(self, text: str) -> None:
        for word in shlex.split(text):
            name, _, value = word.partition("=")
            self.environment[name] = re.sub(r"\$(\w+)", self._known, value)

    def _known(self, hit: re.Match) -> str:
        return self.environment.get(hit[1], "")

    def _workdir(self, text: str) -> None:
        self.folder = text
        (self.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _user(self, text: str) -> None:
        self.user = int(text)

    def _copy(self, text: str) -> None:
        words = text.split()
        if words[0].startswith("--from"):  # one root plays all stages
            return
        *sources, target = words
        place = self.root / self.folder.lstrip("/") / target
        for source in sources:
            path = PROJECT / source
            if path.is_dir():
                shutil.copytree(path, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, place)

    def _run(self, text: str) -> None:
        given = {name: value for name, value in {**self.declared, **self.arguments}.items() if value}
        self.start(["sh", "-c", text], given).check_returncode()

    def _healthcheck(self, text: str) -> None:
        self.health = json.loads(text.partition("CMD")[2])

    def _stopsignal(self, text: str) -> None:
        self.stop = signal.Signals[text]

    def _cmd(self, text: str) -> None:
        self.command = json.loads(text)

    def start(self, words: list[str], more: dict[str, str] | None = None, call=subprocess.run):
        """Run words inside the root as the present user, with the present environment and nothing else."""
        as_user = ["--userspec", f"{self.user}:{self.user}"] if self.user else []
        inside = ["sh", "-c", 'cd "$0" && exec "$@"', self.folder, *words]
        return call(["chroot", *as_user, str(self.root), *inside], env={**self.environment, **(more or {})})


def main() -> None:
    """Build, start, wait for the health check, and say what was seen."""
    arguments = dict(word.split("=", 1) for word in sys.argv[2:])
    steps = Steps(Path(sys.argv[1]).resolve(), arguments)
    for step in DockerfileParser(str(PROJECT / "Dockerfile"), cache_content=True).structure:
        if step["instruction"] != "COMMENT":
            print(step["instruction"], step["value"], flush=True)
            steps.do(step["instruction"], step["value"])
    served, began = steps.start(steps.command, call=subprocess.Popen), time.monotonic()
    try:
        while steps.start(steps.health).returncode:
            if served.poll() is not None or time.monotonic() - began > PATIENCE_SECONDS:
                sys.exit("The program does not answer its health check.")
            time.sleep(1)
        print(f"Healthy after {time.monotonic() - began:.1f} s, as user {steps.user}.")
        if hold := os.environ.get("HOLD_SECONDS"):
            time.sleep(float(hold))
    finally:
        served.send_signal(steps.stop)
        print(f"Ended with code {served.wait(30)} after {steps.stop.name}.")


if __name__ == "__main__":
    main()
