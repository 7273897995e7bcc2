"""What a push sends, gathered from a run folder before anything is sent: exactly these files, and no others.

The adapter as diffusers reads it, the model card, the first pair of each of the first held-out prompts, a
grid, the reward's curve, settings, report and metrics. Logs, checkpoints, owners, process ids and paths of
this machine stay behind: records are written anew from what they are known to hold.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from rsm_app.hub import drawings
from rsm_app.hub.bases import Base, asked, describe
from rsm_app.hub.card import PICTURE, Facts, Pair, reward_title, write_card
from rsm_app.hub.records import PROMPT_NAMES, cleaned_report, recipe
from rsm_app.hub.sign_in import Token
from trainers.adapter_file import PEFT_CONFIG, PEFT_WEIGHTS, WEIGHTS, read_header
from trainers.coercion import from_mapping
from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.run_folder import RunFolder

SHOWN_PAIRS = 12
GRID, CURVE, PAIRS_FILE = "images/grid.png", "images/reward.png", "images/pairs.jsonl"
_SIDES = ("before", "after")


@dataclass(frozen=True)
class BundleFile:
    """One file of a push.

    Attributes:
        path: Its path in the repository.
        size: Bytes.
        source: The content, or the file that holds it.
    """

    path: str
    size: int
    source: bytes | Path = field(repr=False)

    def open(self) -> BinaryIO:
        """Open the content for reading."""
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else open(self.source, "rb")

    @cached_property
    def sha256(self) -> str:
        """The content's SHA-256 in hexadecimal digits, by which the Hub knows large files."""
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def blob_id(self) -> str:
        """The content's git blob id, by which the Hub knows small files."""
        with self.open() as file:
            digest = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
            digest.update(file.read())
        return digest.hexdigest()


@dataclass(frozen=True)
class Bundle:
    """Everything that one push sends.

    Attributes:
        repo: The repository's full name, as the card mentions it.
        files: What is sent, the card first.
        card: The model card's text, front matter included.
        settings: The run's settings, as published.
    """

    repo: str
    files: tuple[BundleFile, ...]
    card: str
    settings: dict

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def file(self, path: str) -> BundleFile | None:
        """Return the file at a path in the repository."""
        return next((file for file in self.files if file.path == path), None)


def bundle(run: Path, repo: str, token: Token | None = None, endpoint: str | None = None) -> Bundle:
    """Gather what a push of a run sends.

    Args:
        run: The run folder; it is only read.
        repo: The repository's full name, which the card's usage snippet repeats.
        token: With which the Hub is asked for a base model's licence, if need be; None asks nothing.
        endpoint: The Hub's address; the library's own when None.

    Raises:
        InputError: The run is at work, has no adapter, or was not compared with the base model.
    """
    folder = RunFolder(run)
    config, report = _finished(folder)
    base = describe(config.model)
    base = asked(base, token, endpoint) if token else base
    made, report = recipe(folder, config, base), cleaned_report(report, base)
    pairs = _chosen_pairs(folder)
    pictures = [picture for pair in pairs for picture in pair.files]
    metrics, title = folder.read_metrics(), reward_title(made.config.reward)
    drawn = [_of_bytes(GRID, drawings.grid([pair.sources for pair in pairs]))]
    if metrics:
        drawn.append(_of_bytes(CURVE, drawings.curve(metrics, folder.read_probes(), title)))
    facts = Facts(
        repo=repo,
        made=made,
        report=report,
        base=base,
        pairs=pairs,
        has_curve=bool(metrics),
        metric_lines=len(metrics),
    )
    card = write_card(facts)
    files = [
        _of_bytes("README.md", card.encode()),
        *(_of_path(name, folder.adapter / name) for name in _adapter_files(folder, base)),
        _json("config.json", made.settings),
        _json("report.json", report),
        _lines("metrics.jsonl", metrics),
        *(_of(name, content) for name, content in made.prompt_files.items()),
        *drawn,
        _lines(PAIRS_FILE, [pair.record() for pair in pairs]),
        *(_of_path(name, path) for name, path in pictures),
    ]
    return Bundle(repo, tuple(files), card, made.settings)


def is_ours(path: str) -> bool:
    """Whether a path in a repository is one of those that only a push writes, and may remove again."""
    return path in (GRID, CURVE, PAIRS_FILE, *PROMPT_NAMES) or bool(PICTURE.fullmatch(path))


def _finished(folder: RunFolder) -> tuple[RunConfig, dict]:
    """Return the settings and the report of a run that can be published."""
    if not folder.exists():
        raise InputError("There is no run in this folder (it has no config.json).")
    status = folder.status()
    if status.live:
        raise InputError("This run is still at work. Stop it or wait for its end, then publish it.")
    if status.state == "failed":
        raise InputError("This run failed. Resume it and let it finish, then publish it.")
    try:
        config = from_mapping(folder.read_config())
    except InputError:
        raise InputError(
            "The settings of this run cannot be read; they are damaged or of another version of this app."
        ) from None
    report = folder.read_report()
    if not (folder.adapter / WEIGHTS).is_file():
        raise InputError("This run has no adapter yet. Resume it and let it finish, then publish it.")
    read_header(folder.adapter / WEIGHTS)
    if not report or not isinstance(report.get("paired"), dict):
        raise InputError(
            "This run was not compared with the base model yet. Resume it and let it finish, then publish it."
        )
    return config, report


def _adapter_files(folder: RunFolder, base: Base) -> tuple[str, ...]:
    names = (WEIGHTS, PEFT_WEIGHTS, PEFT_CONFIG) if base.peft else (WEIGHTS,)
    if not all((folder.adapter / name).is_file() for name in names):
        raise InputError(
            "This run's adapter lacks the files that PEFT reads, without which nobody could load it. Train "
            "it further, then publish it."
        )
    return names


def _chosen_pairs(folder: RunFolder) -> tuple[Pair, ...]:
    """Return the first pair of each of the first prompts: a rule, so that nothing is picked by hand."""
    chosen: dict[str, dict] = {}
    for line in folder.read_pairs():
        if isinstance(line.get("prompt"), str) and all(_is_own(folder, line.get(side)) for side in _SIDES):
            chosen.setdefault(line["prompt"], line)
    if not chosen:
        raise InputError("This run has no before/after pictures. Resume it and let it finish.")
    first = list(chosen.values())[:SHOWN_PAIRS]
    return tuple(
        Pair(
            number=number,
            prompt=line["prompt"],
            seed=int(line.get("seed", 0)),
            rewards=tuple(float(line.get(f"reward_{side}", 0.0)) for side in _SIDES),
            pictures=tuple(folder.path / line[side] for side in _SIDES),
        )
        for number, line in enumerate(first, 1)
    )


def _is_own(folder: RunFolder, name: object) -> bool:
    """Whether a recorded picture is one of the run's own files, not a link or a path to elsewhere."""
    if not isinstance(name, str):
        return False
    path = folder.path / name
    try:
        inside = path.resolve().is_relative_to(folder.samples.resolve())
        return inside and path.is_file() and not path.is_symlink()
    except (OSError, ValueError):  # no name that a file can have
        return False


def _of_bytes(path: str, content: bytes) -> BundleFile:
    return BundleFile(path, len(content), content)


def _of(path: str, content: bytes | Path) -> BundleFile:
    return _of_bytes(path, content) if isinstance(content, bytes) else _of_path(path, content)


def _of_path(path: str, source: Path) -> BundleFile:
    return BundleFile(path, source.stat().st_size, source)


def _json(path: str, record: dict) -> BundleFile:
    return _of_bytes(path, f"{json.dumps(record, indent=2)}\n".encode())


def _lines(path: str, records: Sequence[dict]) -> BundleFile:
    return _of_bytes(path, "".join(f"{json.dumps(record)}\n" for record in records).encode())
