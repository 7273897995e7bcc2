"""Scores from a reward server of one's own, as the servers of Flow-GRPO and its relatives speak. A black box.

Such a server gets a POST with a pickled ``{"images": [JPEG bytes], "prompts": […], "meta_datas": […],
"only_strict": False}``, reads the keys it knows, and answers with a pickled ``{"scores": […]}`` or
``{"outputs": […]}``. A pickle can run code when it is opened, so answers are opened by an unpickler that
builds plain values and numpy numbers and nothing else. The JSON variant (``server_protocol=json``) avoids
pickles: the same keys, pictures as base64 PNG, any JSON answer with such a list.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image

from trainers.config import RunConfig
from trainers.prompts import prompt_records
from trainers.rewards.contract import Reward
from trainers.rewards.endpoint import BadAnswer, Endpoint, checked_scores
from trainers.rewards.quantise import to_uint8
from trainers.rewards.remote import server_address

BATCH = 64
KEYS = ("scores", "outputs", "rewards")  # the first that is there counts
_PLAIN = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),  # how old pickles write bytes
}


class RewardServer(Reward):
    """Scores of a server.

    Args:
        endpoint: where it is.
        protocol: "pickle" or "json".
        records: metadata by prompt; a prompt without any sends itself.
    """

    def __init__(self, endpoint: Endpoint, protocol: str, records: Mapping[str, Mapping[str, Any]]):
        self.endpoint = endpoint
        self.protocol = protocol
        self.records = records

    def interrupt_with(self, check):
        self.endpoint.check = check

    def __call__(self, images, prompts, metadata=None):
        records = {**self.records, **(metadata or {})}
        scores: list[float] = []
        pictures = to_uint8(images)
        for start in range(0, len(pictures), BATCH):
            words = list(prompts[start : start + BATCH])
            facts = [dict(records.get(prompt, {"prompt": prompt})) for prompt in words]
            scores += self._ask(pictures[start : start + BATCH], words, facts)
        return torch.tensor(scores, dtype=torch.float32, device=images.device)

    def _ask(self, pictures, prompts: list[str], facts: list[dict]) -> list[float]:
        request = {"prompts": prompts, "meta_datas": facts, "only_strict": False}

        def read(body: bytes) -> list[float]:
            return read_scores(body, len(prompts), self.protocol)

        if self.protocol == "json":
            request["images"] = [base64.b64encode(encoded(p, "PNG")).decode() for p in pictures]
            return self.endpoint.post(json.dumps(request).encode(), "application/json", read)
        request["images"] = [encoded(p, "JPEG") for p in pictures]
        return self.endpoint.post(pickle.dumps(request, protocol=4), "application/octet-stream", read)


def encoded(picture, kind: str) -> bytes:
    """Return a picture (H, W, 3) uint8 as a file, with the encoder's own settings as the protocol has it."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format=kind)
    return buffer.getvalue()


def read_scores(body: bytes, count: int, protocol: str) -> list[float]:
    """Return the scores in an answer.

    Raises:
        BadAnswer: it holds none, or not ``count``, or is not what the protocol says.
    """
    try:
        answer = json.loads(body) if protocol == "json" else plain_pickle(body)
    except BadAnswer:
        raise
    except Exception:  # a broken pickle raises whatever its bytes happen to ask for
        raise BadAnswer(f"with something that is no {protocol}") from None
    if isinstance(answer, Mapping):
        answer = next((answer[key] for key in KEYS if key in answer), None)
        if answer is None:
            raise BadAnswer(f"without any of {', '.join(KEYS)}")
    return checked_scores(answer.tolist() if hasattr(answer, "tolist") else answer, count)


def plain_pickle(body: bytes) -> Any:
    """Return what a pickle of plain values holds; raises ``BadAnswer`` or whatever its bytes ask for."""
    return _Plain(io.BytesIO(body)).load()


class _Plain(pickle.Unpickler):
    """Builds lists, mappings, text, numbers and numpy's numbers; anything else could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLAIN:
            raise BadAnswer(f"with a pickle that asks for {module}.{name}, which is refused")
        return super().find_class(module, name)


def load(device: str = "cpu", config: RunConfig | None = None) -> RewardServer:
    """Return the reward of the config's server.

    Raises:
        InputError: the run names an address that is refused here.
        FaultError: no address is given.
    """
    config = config or RunConfig()
    address = server_address(config)
    endpoint = Endpoint("server", address, config.endpoint_timeout, config.endpoint_retries)
    if config.server_protocol == "pickle":
        endpoint.unpack = plain_pickle
    return RewardServer(endpoint, config.server_protocol, prompt_records(config))
