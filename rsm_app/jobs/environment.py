"""What a worker process inherits: what programs, libraries and the engine need, and nothing secret.

A worker loads models and writes pictures; it never publishes, so it has no use for a token. Names that are
not known here stay behind, whatever they hold: secrets come under any name. Of the known ones those stay
behind that say that they hold a secret, and proxies with a password in their address. There are two
exceptions, both the app's owner's: the names listed in ``RSM_WORKER_ENV``, and the key of the judge, for
workers whose rewards ask the owner's own judge.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from trainers.rewards.own import refusal
from trainers.rewards.remote import JUDGE_VARIABLES, KEY_VARIABLE

OUTPUT = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:replace"}
MORE_VARIABLE = "RSM_WORKER_ENV"
_SECRET = re.compile(
    r"(^|_)((TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?\d*|AUTH|"
    r"API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|SECRET_?KEY)(_|$)|(KEY|PAT|PWD)S?\d*$|^AWS_",
    re.IGNORECASE,
)
_SYSTEM = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TMP", "TEMP"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV", "HOSTNAME", "NO_PROXY", "SYSTEM", "ACCELERATOR"),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "MPLCONFIGDIR", "SPACES_ZERO_GPU", "ROCM_PATH", "CC", "CXX"),
)
_FAMILIES = (
    *("LC", "XDG", "SSL_CERT", "CONDA", "MALLOC", "SPACE", "RSM", "HF", "HUGGINGFACE_HUB", "TRANSFORMERS"),
    *("DIFFUSERS", "TOKENIZERS", "SAFETENSORS", "ACCELERATE", "CUDA", "CUDNN", "CUBLAS", "NVIDIA", "NCCL"),
    *("GLOO", "UCX", "ROCR", "HIP", "HSA", "MIOPEN", "OMP", "GOMP", "KMP", "MKL", "OPENBLAS", "NUMEXPR"),
    *("TRITON", "PYTORCH"),
)
_KNOWN = re.compile(
    rf"(?:{'|'.join(_SYSTEM)}|(?:{'|'.join(_FAMILIES)})_.+|(?:PYTHON|TORCH).+)", re.IGNORECASE
)
_PROXY = re.compile(r"(https?|ftp|all)_proxy", re.IGNORECASE)


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
        The variables that a worker needs, with unbuffered output so that last words reach the log, in the
        encoding in which the log is read.
    """
    source = os.environ if source is None else source
    asked = {name.strip() for name in source.get(MORE_VARIABLE, "").split(",")}
    asked.add(_judge_key(source, settings or {}))
    key = source.get(KEY_VARIABLE, "").strip()  # a secret, however it is called
    clean = {
        name: value
        for name, value in source.items()
        if name in asked or (name != key and _passes(name, value))
    }
    return {**clean, **OUTPUT}


def _passes(name: str, value: str) -> bool:
    if _PROXY.fullmatch(name):
        return "@" not in value
    return _KNOWN.fullmatch(name) is not None and not is_secret(name)


def _judge_key(source: Mapping[str, str], settings: Mapping[str, object]) -> str:
    """Return the variable with the judge's key if the run asks the owner's judge, else an empty string.

    Where runs may not name endpoints of their own, a key goes to the address that the owner gave with it and
    nowhere else, whatever a run's settings say.
    """
    mixtures = f"{settings.get('reward', '')},{settings.get('others', '')}"
    if not any(part.partition(":")[0].strip() == "judge" for part in mixtures.split(",")):
        return ""
    own, address = (source.get(name, "").strip() for name in (KEY_VARIABLE, JUDGE_VARIABLES["judge_url"]))
    variable = str(settings.get("judge_key_variable") or "").strip() or own
    foreign = variable != own or str(settings.get("judge_url") or "").strip() not in ("", address)
    return "" if foreign and refusal("an endpoint of your own") else variable
