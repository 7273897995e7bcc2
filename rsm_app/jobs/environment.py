"""What a worker process inherits: this process's environment without anything secret.

A worker loads models and writes pictures; it never publishes, so it has no use for a token. Names are
matched, not values: a secret under an unsuspicious name would pass. The one exception is the key of the
judge, for workers whose rewards ask the judge, from the variable that the app's owner names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from trainers.rewards.remote import KEY_VARIABLE

_SECRET = re.compile(
    r"(^|_)(TOKEN|TOKENS|SECRET|SECRETS|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|CREDENTIALS|AUTH|"
    r"API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|SECRET_?KEY)(_|$)|APIKEY$|^AWS_",
    re.IGNORECASE,
)


def is_secret(name: str) -> bool:
    """Whether an environment variable's name says that it holds a token, key or password."""
    return _SECRET.search(name) is not None


def worker_environment(
    source: Mapping[str, str] | None = None, settings: Mapping[str, object] | None = None
) -> dict[str, str]:
    """Return the environment of a worker.

    Args:
        source: The environment to start from; this process's own when None.
        settings: Those of the worker's run.

    Returns:
        The variables without secrets, with unbuffered output so that last words reach the log.
    """
    source = os.environ if source is None else source
    needed = _judge_key(source, settings or {})
    clean = {name: value for name, value in source.items() if name == needed or not is_secret(name)}
    return {**clean, "PYTHONUNBUFFERED": "1"}


def _judge_key(source: Mapping[str, str], settings: Mapping[str, object]) -> str:
    """Return the variable that holds the judge's key if the run asks the judge, else an empty string."""
    mixtures = f"{settings.get('reward', '')},{settings.get('others', '')}"
    asks = any(part.partition(":")[0].strip() == "judge" for part in mixtures.split(","))
    return str(settings.get("judge_key_variable") or source.get(KEY_VARIABLE, "")) if asks else ""
