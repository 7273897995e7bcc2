"""A few base samples, drawn and scored by a process of their own, so that the app never loads the engine."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from rsm_app.jobs.environment import worker_environment
from rsm_app.jobs.store import ROOT
from trainers.config import RunConfig
from trainers.errors import FaultError
from trainers.failures import known_cause

TIMEOUT_SECONDS = 120.0
_ERROR = "Error: "


def check_spread(config: RunConfig, prompts: str | None = None, timeout: float = TIMEOUT_SECONDS) -> dict:
    """Return the rewards' statistics of a few base samples, see ``trainers.spread.Spread``.

    Args:
        config: The settings, already checked.
        prompts: Text of the training prompts when they are not a built-in set.
        timeout: Seconds after which the process is ended.

    Raises:
        FaultError: With the engine's sentence, or one that says that it took too long.
    """
    environment = worker_environment(settings=dataclasses.asdict(config))
    try:
        with tempfile.TemporaryDirectory(prefix="rsm-spread-", ignore_cleanup_errors=True) as place:
            words = [sys.executable, "-m", "trainers", "spread", "--config", _request(config, prompts, place)]
            done = subprocess.run(
                [*words, "--json"],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
            )
    except subprocess.TimeoutExpired:
        raise FaultError(
            f"Drawing the samples took longer than {timeout:g} seconds and was ended; the machine may be "
            "busy with another run. Try again when that has ended."
        ) from None
    except OSError as error:
        why = known_cause(error) or f"{error.strerror or error}."
        raise FaultError(f"The samples could not be drawn: {why}") from error
    return _answer(done)


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
