"""What a worker process inherits: this process's environment without anything secret.

A worker loads models and writes pictures; it never publishes, so it has no use for a token. Names are
matched, not values: a secret under an unsuspicious name would pass.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_SECRET = re.compile(
    r"(^|_)(TOKEN|TOKENS|SECRET|SECRETS|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|CREDENTIALS|AUTH|"
    r"API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|SECRET_?KEY)(_|$)|APIKEY$|^AWS_",
    re.IGNORECASE,
)


def is_secret(name: str) -> bool:
    """Whether an environment variable's name says that it holds a token, key or password."""
    return _SECRET.search(name) is not None


def worker_environment(source: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a worker.

    Args:
        source: The environment to start from; this process's own when None.

    Returns:
        The variables without secrets, with unbuffered output so that last words reach the log.
    """
    source = os.environ if source is None else source
    clean = {name: value for name, value in source.items() if not is_secret(name)}
    return {**clean, "PYTHONUNBUFFERED": "1"}
