"""A few base samples, drawn and scored by a process of their own, so that the app never loads the engine."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rsm_app.jobs.devices import CPU, devices, usable
from rsm_app.jobs.environment import worker_environment
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.permission import size_problems
from rsm_app.jobs.store import ROOT
from rsm_app.jobs.workers import limit_memory
from trainers.config import RunConfig
from trainers.errors import FaultError, InputError
from trainers.failures import known_cause

TIMEOUT_SECONDS = 120.0
_NO_LIMITS = Limits()
_ERROR = "Error: "


def check_spread(
    config: RunConfig,
    prompts: str | None = None,
    limits: Limits = _NO_LIMITS,
    timeout: float = TIMEOUT_SECONDS,
) -> dict:
    """Return the rewards' statistics of a few base samples, see ``trainers.spread.Spread``.

    Args:
        config: The settings, already checked.
        prompts: Text of the training prompts when they are not a built-in set.
        limits: How much the settings may ask for, and the process take.
        timeout: Seconds after which the process is ended.

    Raises:
        InputError: The settings ask for more than a run may have.
        FaultError: With the engine's sentence, or one that says that it took too long.
    """
    present = devices()
    if found := size_problems(config, present, limits, prompts):
        raise InputError(*found)
    own_memory = limits.run_memory_mb if usable(config.device, present)[:1] == (CPU,) else 0.0
    environment = worker_environment(settings=dataclasses.asdict(config))
    try:
        with tempfile.TemporaryDirectory(prefix="rsm-spread-", ignore_cleanup_errors=True) as place:
            words = [sys.executable, "-m", "trainers", "spread", "--config", _request(config, prompts, place)]
            done = _run([*words, "--json"], environment, timeout, own_memory)
    except subprocess.TimeoutExpired:
        raise FaultError(
            f"Drawing the samples took longer than {timeout:g} seconds and was ended; the machine may be "
            "busy with another run. Try again when that has ended."
        ) from None
    except OSError as error:
        why = known_cause(error) or f"{error.strerror or error}."
        raise FaultError(f"The samples could not be drawn: {why}") from error
    return _answer(done)


def _run(
    words: list[str], environment: dict[str, str], timeout: float, memory_mb: float
) -> subprocess.CompletedProcess:
    with subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            limit_memory(process.pid, memory_mb)
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()  # it is gone already unless its time is over
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def _request(config: RunConfig, prompts: str | None, place: str) -> str:
    """Write the settings, and own prompts, into a folder; return the settings' path."""
    if prompts is not None:
        own = Path(place) / "prompts.txt"
        own.write_text(prompts, encoding="utf-8")
        config = dataclasses.replace(config, prompts=str(own))
    request = Path(place) / "config.json"
    request.write_text(config.to_json(), encoding="utf-8")
    return str(request)


def _answer(done: subprocess.CompletedProcess) -> dict:
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    said = done.stderr.rpartition(_ERROR)[2].strip() if _ERROR in done.stderr else ""
    if said and "Traceback" not in said:
        raise FaultError(said)
    raise FaultError("The samples could not be drawn: the process ended without saying why.")
