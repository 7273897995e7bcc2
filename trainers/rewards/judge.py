"""A vision-language model as judge, over any server that speaks OpenAI's chat protocol. A black box.

Each picture is one request with the caption and the question; the answer's last line "Score: N", 0 to 10,
is the score. Requests run side by side, and answers are kept, so that a picture is never paid for twice.
The key comes from the environment variable that ``judge_key_variable`` names, and goes nowhere but into the
request's header.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from trainers.config import RunConfig
from trainers.errors import FaultError
from trainers.paths import folder_of
from trainers.rewards.contract import Reward
from trainers.rewards.endpoint import BadAnswer, Endpoint
from trainers.rewards.quantise import to_uint8
from trainers.rewards.remote import judge_access
from trainers.rewards.server import encoded

HIGHEST = 10.0
_FORM = (
    'The picture was drawn for the caption "{prompt}". {question} End with one line that reads "Score: N", '
    "where N is a number from 0 (worst) to 10 (best)."
)
_MENTION = re.compile(r"score(?:[^\n]*|\W*)\d", re.IGNORECASE)
_NUMBER = r"(-?\d++(?:\.\d++)?+)"
_SCORE = re.compile(
    # Between word and number may be marks, and the range in brackets, as in "**Score (0-10):** 8".
    r"score[^a-z0-9(\[-]{0,6}(?:[(\[][^()\[\]\n]{1,40}[)\]][^a-z0-9-]{0,6})?"
    rf"(?:(?<!\.){_NUMBER}(?![a-z0-9_%]|,\d)"
    # A number that begins a range, or that is out of anything but ten, is no score.
    r"(?!\s*(?:-|–|—|to\b)\s*\d)(?!\s*(?:/|out of)\s*(?!10\b)\d)"
    rf"|[(\[]{_NUMBER}(?:/10)?[)\]]\W*$)",
    re.IGNORECASE | re.MULTILINE,
)


class AnswerStore:
    """Scores that were given once, in a SQLite file that processes share; in memory alone where none can be.

    Args:
        path: the file.
    """

    def __init__(self, path: Path | None):
        self._lock = threading.Lock()
        self._known: dict[str, float] = {}
        self._file: sqlite3.Connection | None = None
        if path is not None:
            with contextlib.suppress(
                OSError, sqlite3.Error
            ):  # a store that cannot be costs only repeated questions
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = sqlite3.connect(path, timeout=10, check_same_thread=False, isolation_level=None)
                self._file.execute("CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, score REAL)")

    def get(self, key: str) -> float | None:
        """Return a score, or None."""
        with self._lock:
            if key not in self._known and self._file is not None:
                with contextlib.suppress(sqlite3.Error):
                    row = self._file.execute("SELECT score FROM scores WHERE key = ?", (key,)).fetchone()
                    if row:
                        self._known[key] = row[0]
            return self._known.get(key)

    def put(self, key: str, score: float) -> None:
        """Keep a score."""
        with self._lock:
            self._known[key] = score
            if self._file is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._file.execute("INSERT OR REPLACE INTO scores VALUES (?, ?)", (key, score))


class Judge(Reward):
    """Scores of a judge, divided by 10.

    Args:
        endpoint: its chat completions.
        model: the model's name there.
        question: what is judged.
        parallel: requests at the same time.
        store: answers given before.
    """

    def __init__(self, endpoint: Endpoint, model: str, question: str, parallel: int, store: AnswerStore):
        self.endpoint = endpoint
        self.model = model
        self.question = question
        self.store = store
        self._own_temperature = False
        self._pool = ThreadPoolExecutor(parallel, "judge")

    def interrupt_with(self, check):
        self.endpoint.check = check

    def __call__(self, images, prompts, metadata=None):
        files = [encoded(picture, "PNG") for picture in to_uint8(images)]
        scores = list(self._pool.map(self._score, files, prompts))
        return torch.tensor(scores, dtype=torch.float32, device=images.device)

    def _score(self, file: bytes, prompt: str) -> float:
        text = _FORM.format(prompt=prompt, question=self.question)
        key = _key(self.endpoint.address, self.model, text, file)
        score = self.store.get(key)

        def mend(told: str) -> bytes | None:
            """Leave the temperature to models that refuse to be given one."""
            if "temperature" not in told.lower():
                return None
            self._own_temperature = True
            return self._request(text, file)

        if score is None:
            score = self.endpoint.post(self._request(text, file), "application/json", read_score, mend)
            self.store.put(key, score)
        return score

    def _request(self, text: str, file: bytes) -> bytes:
        sampling = {} if self._own_temperature else {"temperature": 0}
        return json.dumps(_request(self.model, text, file) | sampling).encode()


def _request(model: str, text: str, file: bytes) -> dict:
    url = f"data:image/png;base64,{base64.b64encode(file).decode()}"
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    return {"model": model, "messages": [{"role": "user", "content": content}]}


def _key(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        raw = part if isinstance(part, bytes) else part.encode()
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


def read_score(body: bytes) -> float:
    """Return the score in an answer, in [0, 1].

    Raises:
        BadAnswer: it is not of OpenAI's form, or says no score from 0 to 10.
    """
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
        mentions = [part for part in re.split("(?i)(?=score)", text) if _MENTION.match(part)]
    except (ValueError, LookupError, TypeError):
        raise BadAnswer("with something that is no chat completion") from None
    found = _SCORE.match(mentions[-1]) if mentions else None
    if found is None:  # asked again, since a guess would be kept as the judge's word
        raise BadAnswer("without a line 'Score: N'")
    score = float(found[1] or found[2])
    if not 0 <= score <= HIGHEST:
        raise BadAnswer(f"with the score {score:g}, which is not within 0 and 10")
    return score / HIGHEST


def store_path() -> Path | None:
    """Return where answers are kept: below ``RSM_CACHE``, else the user's cache folder; None without a home.

    Raises:
        InputError: One of the variables names what no folder can be called.
    """
    root = folder_of("RSM_CACHE") or folder_of("XDG_CACHE_HOME")
    if root is None:
        try:
            root = Path.home() / ".cache"
        except RuntimeError:  # a container's user without a home or an entry among the users
            return None
    return root / "rsm-studio" / "judge.sqlite"


def load(device: str = "cpu", config: RunConfig | None = None) -> Judge:
    """Return the judge of the config.

    Raises:
        FaultError: its address, model or key is missing.
    """
    config = config or RunConfig()
    access = judge_access(config)
    if access.problems:
        raise FaultError(" ".join(access.problems))
    endpoint = Endpoint(
        "judge",
        access.address,
        config.endpoint_timeout,
        config.endpoint_retries,
        access.key,
        config.endpoint_parallel,
    )
    store = AnswerStore(store_path())
    return Judge(endpoint, access.model, config.judge_question, config.endpoint_parallel, store)
