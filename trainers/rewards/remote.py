"""Which endpoints a run may use: addresses, models and keys from its settings or the environment. Torch-free.

Settings are for those who start runs in a shell. Through the app, addresses come from the environment
alone, because visitors of an app must not make its machine send requests to wherever they like
(``own.refusal``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from trainers.config import RunConfig
from trainers.errors import FaultError, InputError, StudioError
from trainers.reachable import listening
from trainers.rewards.own import refusal

SERVER_VARIABLE = "RSM_REWARD_SERVER"
JUDGE_VARIABLES = {"judge_url": "RSM_JUDGE_URL", "judge_model": "RSM_JUDGE_MODEL"}
KEY_VARIABLE = "RSM_JUDGE_KEY_VARIABLE"
# Settings that decide where requests and keys go and what they cost, with the variables that stand for them.
ENDPOINTS = {"server_url": SERVER_VARIABLE, **JUDGE_VARIABLES, "judge_key_variable": KEY_VARIABLE}
_NO_SERVER = f"The reward 'server' needs an address: give server_url or set {SERVER_VARIABLE}."


@dataclass(frozen=True)
class JudgeAccess:
    """How to reach the judge.

    Attributes:
        address: Of its chat completions.
        model: The model's name there.
        key: Never shown or stored; empty for none.
        problems: A sentence for each part that is missing or wrong.
    """

    address: str
    model: str
    key: str = field(repr=False)
    problems: tuple[str, ...]


def server_address(config: RunConfig) -> str:
    """Return the reward server's address.

    Raises:
        InputError: The run names an address that is refused here.
        FaultError: None is given, or the one of the environment cannot be used.
    """
    if found := endpoint_problems(config):
        raise InputError(*found)
    from trainers.rewards.endpoint import address_problems

    address = _setting(config.server_url, SERVER_VARIABLE)
    if not address:
        raise FaultError(_NO_SERVER)
    if found := address_problems(SERVER_VARIABLE, address):
        raise FaultError(*found)
    return address


def judge_access(config: RunConfig) -> JudgeAccess:
    """Return how to reach the judge, and what is missing for it."""
    address, model = (_setting(getattr(config, name), var) for name, var in JUDGE_VARIABLES.items())
    from trainers.rewards.endpoint import address_problems

    variable = key_variable(config)
    key = os.environ.get(variable, "").strip() if variable else ""
    found = endpoint_problems(config)
    found += [
        f"The reward 'judge' needs {name}: give the setting or set {var}."
        for (name, var), value in zip(JUDGE_VARIABLES.items(), (address, model), strict=True)
        if not value
    ]
    if address and not found:
        found += address_problems(JUDGE_VARIABLES["judge_url"], address)
    if variable and not key:
        found.append(f"The environment variable {variable}, which is to hold the judge's key, is not set.")
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        # The HTTP library would quote the header it refuses, key and all.
        found.append(f"The environment variable {variable} holds characters that no key has.")
    return JudgeAccess(f"{address.rstrip('/')}/chat/completions", model, key, tuple(found))


def key_variable(config: RunConfig) -> str:
    """Return the name of the environment variable that holds the judge's key; empty for none."""
    return _setting(config.judge_key_variable, KEY_VARIABLE)


def endpoint_problems(config: RunConfig) -> list[str]:
    """Say what is wrong with the endpoint settings themselves; nothing is asked for over the network.

    Where visitors start runs, settings may only repeat what the environment says: requests would go to
    wherever they like, with whichever key they like.
    """
    from trainers.rewards.endpoint import address_problems

    given = [
        name
        for name, variable in ENDPOINTS.items()
        if getattr(config, name).strip() not in ("", os.environ.get(variable, "").strip())
    ]
    refused = refusal("an endpoint of your own") if given else None
    if refused:
        return [refused]
    found = []
    for name in ("server_url", "judge_url"):
        if getattr(config, name):
            found += address_problems(name, getattr(config, name))
    variable = config.judge_key_variable
    if variable and not variable.isidentifier():
        found.append(
            "'judge_key_variable' must be the name of an environment variable such as OPENAI_API_KEY, "
            "never the key itself."
        )
    return found


def server_obstacles(config: RunConfig, ask: bool) -> list[str]:
    """Say why the reward server cannot be used now; empty when it can."""
    try:
        address = server_address(config)
    except StudioError as error:
        return str(error).splitlines()
    return _unreachable("server", address, ask)


def judge_obstacles(config: RunConfig, ask: bool) -> list[str]:
    """Say why the judge cannot be used now; empty when it can."""
    access = judge_access(config)
    return list(access.problems) or _unreachable("judge", access.address, ask)


def _unreachable(name: str, address: str, ask: bool) -> list[str]:
    from trainers.rewards.endpoint import shown

    if not ask or listening(address):
        return []
    return [
        f"Nothing answers at {shown(address)}, the endpoint of the reward '{name}'. Start it, or correct the "
        "address."
    ]


def _setting(value: str, variable: str) -> str:
    return value.strip() or os.environ.get(variable, "").strip()
