"""Import: a LoRA that was published from here becomes a run folder that the pages open and that can be
trained on.

Only files by name are fetched, each up to a size, into a folder beside the final one; what they hold is
checked (``published``) before the folder gets its name. Pickles are never fetched. The revision is fixed at
the beginning, so all files are of one commit, and what the repository lists is held against the limits and
the disk before the first of them is asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from huggingface_hub import HfApi, get_session, hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from rsm_app.hub import published
from rsm_app.hub.bundle import PAIRS_FILE
from rsm_app.hub.names import parse_source
from rsm_app.hub.problems import HubProblem, told
from rsm_app.hub.records import PROMPT_FILES, PROMPT_NAMES
from rsm_app.hub.sign_in import Token
from rsm_app.hub.wire import conversation
from rsm_app.jobs.cleaning import ARRIVAL, MB, low_disk, sweep_arrivals
from rsm_app.jobs.limits import Limits, read_limits
from rsm_app.jobs.store import ORIGIN, Run, RunStore, default_store, new_run_id
from trainers.adapter_file import WEIGHTS
from trainers.config import RunConfig
from trainers.errors import FaultError, InputError
from trainers.presets import preset
from trainers.prompts import builtin_sets, load_prompts
from trainers.rewards.remote import ENDPOINTS
from trainers.run_folder import (
    RunFolder,
    RunStatus,
    atomic_write,
    write_fault,
    write_json,
    write_lines,
)
from trainers.run_lock import try_lock, unlock

NEEDED = {WEIGHTS: math.inf, "config.json": 2**20, "report.json": 2**20, PAIRS_FILE: 2**20}
METRICS = "metrics.jsonl"
USEFUL = {METRICS: 64 * 2**20, **dict.fromkeys(PROMPT_NAMES, 16 * 2**20)}
MAX_PICTURE_BYTES = 16 * 2**20
MAX_PAIRS = 64
PATIENCE_SECONDS, SLOWEST = 60.0, 20_000  # of one file: seconds, and bytes a second beyond them
_PICTURES = f"{PAIRS_FILE.partition('/')[0]}/"
_BROUGHT = "imported"  # apart from a comparison's own, which are known by their number in its plan
_COPIES = 2  # of every file, while the run folder is made of what was fetched
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_NOT_OURS = (
    "This repository is no LoRA made with RSM Studio: it lacks {}. Others can be loaded with diffusers, but "
    "not compared here."
)
Tell = Callable[[str], None]


def fetch(
    source: str,
    token: Token | None = None,
    out: Path | None = None,
    endpoint: str | None = None,
    tell: Tell = lambda _text: None,
    owner: str = "",
    limits: Limits | None = None,
) -> Path:
    """Bring a published run into a folder of its own.

    Args:
        source: ``owner/name``, ``owner/name@revision`` or the address of the repository's page.
        token: For private repositories; None asks as a stranger.
        out: The folder to make; a new one in the runs directory when None.
        endpoint: The Hub's address; the library's own when None.
        tell: Hears what is going on.
        owner: Whose run it becomes; everybody's when empty.
        limits: How much may be fetched and what stays free on the disk; those of the environment when None.

    Returns:
        The run folder, whole: its state is ``succeeded`` and ``imported.json`` says where it came from.

    Raises:
        InputError: The name is wrong, the folder is taken, or the repository holds no sound run of this app
            or more than may be brought.
        HubProblem: It is missing, private or gated, or the Hub cannot be reached.
        FaultError: The disk is full, or would be.
    """
    limits = read_limits() if limits is None else limits
    api = HfApi(endpoint=endpoint, token=token.reveal() if token else False)
    repo, revision = parse_source(source, api.endpoint)
    out = out or default_store().root / new_run_id()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already. Choose another --out.")
    with _staging(out) as staging, conversation():
        try:
            with told():
                commit = _Download(api, repo, revision, staging / "files", tell, limits).run()
            folder = RunFolder(staging / "run")
            _rebuild(staging / "files", folder, {"repo": repo, "commit": commit, "at": time.time()}, out)
            # Without an owner it was brought in a shell, and is none of those that the app may clean away.
            Run(folder.path).change_job(owner=owner, submitted=time.time() if owner else 0.0)
            os.replace(folder.path, out)
        except OSError as error:
            raise write_fault(out, error) from error
    return out


@contextlib.contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """Make a folder beside ``out`` that is gone afterwards, and remove what killed processes left there."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sweep_arrivals(out.parent)
        staging = Path(tempfile.mkdtemp(prefix=ARRIVAL, dir=out.parent))
    except OSError as error:
        raise write_fault(out, error) from error
    held = None
    try:
        held = try_lock(staging)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if held is not None:
            unlock(held)


class _Download:
    """Fetches the files of one commit by name."""

    def __init__(self, api: HfApi, repo: str, revision: str | None, folder: Path, tell: Tell, limits: Limits):
        self._api, self._repo, self._revision, self._folder, self._tell = api, repo, revision, folder, tell
        self._limits = limits

    def run(self) -> str:
        """Fetch everything and return the commit."""
        self._tell(f"Looking at {self._repo}.")
        info = self._api.model_info(self._repo, revision=self._revision, files_metadata=True)
        self._revision, there = info.sha, {file.rfilename: file.size or 0 for file in info.siblings or ()}
        _check_listing(there)
        _check_room(there, self._limits, self._folder.parent.parent)
        for name in (*NEEDED, *(name for name in USEFUL if name in there)):
            self._get(name, there[name])
        for pair in published.checked_pairs(self._folder / PAIRS_FILE)[:MAX_PAIRS]:
            for side in ("before", "after"):
                if pair[side] in there:
                    self._get(pair[side], there[pair[side]])
        return str(info.sha)

    def _get(self, name: str, size: int) -> None:
        self._tell(f"Fetching {name}.")
        url = hf_hub_url(self._repo, name, revision=self._revision, endpoint=self._api.endpoint)
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        headers = build_hf_headers(token=self._api.token)
        end = time.monotonic() + PATIENCE_SECONDS + size / SLOWEST
        with get_session().stream("GET", url, headers=headers) as answer, open(target, "wb") as file:
            if answer.status_code >= 400:
                answer.read()
            hf_raise_for_status(answer)
            for piece in answer.iter_bytes():
                file.write(piece)
                if time.monotonic() > end:  # a few bytes at a time would keep this thread for ever
                    raise HubProblem("cut")
                if file.tell() > size:
                    raise InputError(
                        f"{name} of this repository is larger than it is listed, so nothing is used."
                    )
            promised = answer.headers.get("Content-Length")
        whole = promised is None or answer.headers.get("Content-Encoding") or int(promised) == _size(target)
        if not whole:
            raise HubProblem("cut")


def _size(path: Path) -> int:
    return path.stat().st_size


def _check_listing(there: Mapping[str, int]) -> None:
    missing = [name for name in NEEDED if name not in there]
    if WEIGHTS in missing and any(name.endswith(_PICKLES) for name in there):
        raise InputError(
            "This repository holds its weights as a pickle, which can run a stranger's code, so it is not "
            f"fetched. Ask its owner for {WEIGHTS}."
        )
    if missing:
        raise InputError(_NOT_OURS.format(", ".join(missing)))
    pictures = {name: MAX_PICTURE_BYTES for name in there if name.startswith(_PICTURES)}
    for name, limit in (pictures | USEFUL | NEEDED).items():
        if there.get(name, 0) > limit:
            raise InputError(f"{name} of this repository is larger than {limit // MB} MB.")


def _check_room(there: Mapping[str, int], limits: Limits, place: Path) -> None:
    """Refuse what is too large for this installation or for its disk."""
    wanted = sum(
        size for name, size in there.items() if name in NEEDED | USEFUL or name.startswith(_PICTURES)
    )
    size = wanted / MB
    if limits.import_mb and size > limits.import_mb:
        raise InputError(
            f"This LoRA takes {size:,.0f} MB with its pictures, more than the {limits.import_mb:,g} MB that "
            "may be brought here: bring it into an installation of your own, where RSM_MAX_IMPORT_MB sets "
            "the limit."
        )
    if trouble := low_disk(RunStore(place), limits.free_mb, _COPIES * size):
        raise FaultError(trouble)


def _rebuild(files: Path, folder: RunFolder, origin: dict, final: Path) -> None:
    """Make a run folder of checked files, which will be renamed to ``final``."""
    config = published.checked_config(files / "config.json")
    report = published.checked_report(files / "report.json", config)
    published.checked_adapter(files / WEIGHTS, config)
    for place in (folder.adapter, folder.start):  # from the second one a longer training begins
        place.mkdir(parents=True)
    shutil.copyfile(files / WEIGHTS, folder.adapter / WEIGHTS)
    os.replace(files / WEIGHTS, folder.start / WEIGHTS)
    atomic_write(folder.config, _own_settings(files, folder, config, final).to_json())
    write_json(folder.report, report)
    with open(folder.metrics, "w", encoding="utf-8") as target:  # line by line: it may be long
        target.writelines(f"{json.dumps(line)}\n" for line in published.checked_metrics(files / METRICS))
    write_lines(folder.pairs, _pairs(files, folder))
    write_json(folder.path / ORIGIN, origin)
    now = time.time()
    write_json(
        folder.status_file,
        asdict(
            RunStatus(
                state="succeeded",
                phase="done",
                progress=1.0,
                updates=int(report.get("updates", 0)),
                images_sampled=int(report.get("images_sampled", 0)),
                message=f"Imported from {origin['repo']}, revision {origin['commit'][:8]}.",
                started=now,
                heartbeat=now,
            )
        ),
    )


def _own_settings(files: Path, folder: RunFolder, config: RunConfig, final: Path) -> RunConfig:
    """Return the settings without anything that would read a file of this machine or ask an endpoint.

    Prompts that came along are named where they will be; others that are no built-in set give way to the
    usual ones, which matters only when the run is trained longer.
    """
    usual = preset(config.model, config.estimator, config.reward)
    changed = {"start_adapter": "", "device": "auto", "threads": 0, **dict.fromkeys(ENDPOINTS, "")}
    for setting, names in PROMPT_FILES.items():
        asked = getattr(config, setting)
        if asked in names and (files / asked).is_file():
            published.check_prompt_file(files / asked)
            load_prompts(str(files / asked))
            atomic_write(folder.path / asked, (files / asked).read_bytes())
            changed[setting] = str(final.resolve() / asked)
        elif asked not in builtin_sets():
            changed[setting] = usual[setting]
    return dataclasses.replace(config, **changed)


def _pairs(files: Path, folder: RunFolder) -> list[dict]:
    """Copy the pictures of whole pairs and return the lines of ``pairs.jsonl``."""
    lines, pixels = [], 0
    for pair in published.checked_pairs(files / PAIRS_FILE)[:MAX_PAIRS]:
        sources = {side: files / pair[side] for side in ("before", "after")}
        if not all(source.is_file() for source in sources.values()):
            continue
        number, names = len(lines), {}
        for side, source in sources.items():
            pixels += published.checked_picture(source)
            if pixels > published.MAX_ALL_PIXELS:
                raise InputError("The pictures of this repository are larger than any run draws them.")
            names[side] = f"samples/{_BROUGHT}/{side}-{number:05d}.png"
            target = folder.path / names[side]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        kept = ("prompt", "seed", "reward_before", "reward_after")
        lines.append({"index": number, **{key: pair[key] for key in kept}, **names})
    if not lines:
        raise InputError(
            "This repository has no pair of pictures before and after, so there is nothing to compare."
        )
    return lines
