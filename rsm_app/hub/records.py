"""A run's records as they are published: without paths, addresses of endpoints, or names of secrets.

What somebody else would need for the same run, and does not get with it, is said in sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsm_app.hub.bases import Base
from rsm_app.jobs.exporting import without_folders
from rsm_app.jobs.store import ORIGIN
from trainers.coercion import from_mapping
from trainers.config import RunConfig
from trainers.presets import changed_settings
from trainers.prompt_files import LINES, as_text
from trainers.prompts import builtin_sets, load_rows
from trainers.rewards.own import own_name
from trainers.rewards.remote import JUDGE_VARIABLES, SERVER_VARIABLE
from trainers.run_folder import RunFolder, read_json
from trainers.run_inputs import kept

PROMPT_FILES = {name: (f"{name}.txt", f"{name}{LINES}") for name in ("prompts", "heldout_prompts")}
PROMPT_NAMES = tuple(name for names in PROMPT_FILES.values() for name in names)
_OTHER = "Training began from another LoRA, which is no part of this repository: name it with --from-adapter."
_ADDRESSES = ("server_url", "judge_url", "judge_key_variable")
_VARIABLES = {"server": SERVER_VARIABLE, "judge": JUDGE_VARIABLES["judge_url"]}


@dataclass(frozen=True)
class Recipe:
    """How a run is made, as it is told to others.

    Attributes:
        settings: Its settings, as ``config.json``.
        config: The same, read.
        changed: Those in which it differs from the tuned defaults of its combination.
        prompt_files: The run's own prompt files, name in the repository → file, or the text of a table.
        missing: What is needed for the same run and not published, a sentence each.
        origin: What training began from when it was not the base model, a sentence; else empty.
        source: Where that is on the Hub, as ``owner/name@revision``; else empty.
    """

    settings: dict[str, Any]
    config: RunConfig
    changed: dict[str, Any]
    prompt_files: dict[str, Path | bytes]
    missing: tuple[str, ...]
    origin: str = ""
    source: str = ""


def recipe(folder: RunFolder, config: RunConfig, base: Base) -> Recipe:
    """Return what is published of a run's settings.

    Args:
        folder: The run.
        config: Its settings, read.
        base: Its base model.

    Raises:
        InputError: The base model is not there any more.
    """
    stored = folder.read_config()
    settings = without_folders({name: value for name, value in stored.items() if name not in _ADDRESSES})
    settings |= {"model": base.name, "start_adapter": ""}
    own, missing = {}, list(_missing(config, base))
    held = kept(folder, config)
    for name, targets in PROMPT_FILES.items():
        path = _expanded(getattr(held, name))
        if getattr(config, name) in builtin_sets():
            continue
        target, content = _published_prompts(path, targets)
        settings[name] = target
        if content is not None:
            own[target] = content
        else:
            missing.append(f"The prompts of the file {target} are not there any more.")
    published = from_mapping(settings)
    named = [name for name in changed_settings(config) if name not in (*_ADDRESSES, "start_adapter")]
    changed = {name: getattr(published, name) for name in named}
    origin, source = _beginning(folder, config)
    if config.start_adapter and not source:
        missing.append(_OTHER)
    return Recipe(settings, published, changed, own, tuple(missing), origin, source)


def _published_prompts(path: Path, targets: tuple[str, str]) -> tuple[str, Path | bytes | None]:
    """Return a prompt file's name in the repository and what it is there; nothing where it is gone.

    Tables are published as plain lines, or as JSON lines where rewards read more than the text.
    """
    plain, lines = targets
    if path.suffix.lower() == LINES:
        return lines, path if path.is_file() else None
    if not path.is_file() or path.suffix.lower() == ".txt":
        return plain, path if path.is_file() else None
    rows = load_rows(str(path))
    text = as_text(rows)
    return lines if any(row.record for row in rows) else plain, text.encode()


def cleaned_report(report: Mapping[str, Any], base: Base) -> dict[str, Any]:
    """Return a run's report as it is published."""
    return without_folders(dict(report)) | {"model": base.name}


def _beginning(folder: RunFolder, config: RunConfig) -> tuple[str, str]:
    """Return what training began from when it was not the base model: a sentence, and where it is."""
    if own := _imported(folder):
        if not _trained(folder):
            return f"The LoRA of {_called(own)}, unchanged.", ""
        return f"The LoRA of {_called(own)}, and trained on since.", own
    if not config.start_adapter:
        return "", ""
    start = RunFolder(_expanded(config.start_adapter))
    source = "" if _trained(start) else _imported(start)
    if source:
        return f"Training began from the LoRA of {_called(source)}.", source
    return "Training began from another LoRA, which is not part of this.", ""


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # there is no home for a ~ here, so nothing is there either
        return Path(text)


def _imported(folder: RunFolder) -> str:
    record = read_json(folder.path / ORIGIN) or {}
    repo = record.get("repo")
    return f"{repo}@{record.get('commit')}" if isinstance(repo, str) else ""


def _trained(folder: RunFolder) -> bool:
    return any(folder.checkpoints.glob("*.safetensors"))


def _called(source: str) -> str:
    repo, _, commit = source.partition("@")
    return f"`{repo}` (revision {commit[:8]})"


def _missing(config: RunConfig, base: Base) -> Iterator[str]:
    if not base.hub_id and not base.embedded:
        yield f"The base model is the local folder {base.name}, which is no part of this repository."
    parts = [part.strip() for part in f"{config.reward},{config.others}".split(",")]
    for file in dict.fromkeys(Path(match["file"]).name for match in map(own_name, parts) if match):
        yield f"The reward is a function in the file {file}, which is no part of this repository."
    for name in dict.fromkeys(part.partition(":")[0].strip() for part in parts):
        if name in _VARIABLES:
            yield (
                f"The reward {name} asks an endpoint, whose address is not published: set {_VARIABLES[name]} "
                "to one of your own."
            )
