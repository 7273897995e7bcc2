"""What of a run lies in Gradio's cache: pictures, written whole or not at all, and files to take away.

Gradio names the file of a picture by its content and writes it anew each time that it is shown. Who is
fetching it at that moment gets half a picture (net::ERR_CONTENT_LENGTH_MISMATCH, docs/LOG.md 2026-11-28).
What shows a run lies below the run's id, so that it is served no longer than there is the run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

import gradio as gr
from gradio import processing_utils
from gradio.utils import get_upload_folder
from PIL import Image

from rsm_app.jobs.store import Run, RunStore
from rsm_app.ui.asgi import App, Receive, Scope, Send, answer
from rsm_app.ui.remote_files import NOT_RELAYED, is_remote
from trainers.failures import known_cause

_RUNS, _END = "of-runs", "-"  # the ids of runs stand between these two; no id is the second
_SHOWN = "rsm_runs"
_FILE = ("/gradio_api/file=", "/gradio_api/file/")
_GONE = "The run that this file is of was deleted."


def of_runs(picture: Image.Image, runs: Iterable[Run]) -> Image.Image:
    """Note which runs a picture shows; return the picture."""
    picture.info[_SHOWN] = tuple(dict.fromkeys(run.id for run in runs))  # no text, which Gradio would write
    return picture


def folder_of(cache: str | os.PathLike, runs: Iterable[str]) -> Path:
    """Return the folder in a cache for what is served as long as there are some runs.

    Args:
        cache: Gradio's cache.
        runs: Their ids; the cache itself when there are none.
    """
    names = tuple(runs)
    return Path(cache, _RUNS, *names, _END) if names else Path(cache)


def save_whole(img: Image.Image, cache_dir: str, name: str = "image", format: str = "webp") -> str:
    """Do what Gradio's ``save_pil_to_cache`` does, but leave a file alone that is there already.

    Raises:
        gr.Error: It cannot be written; the page shows the sentence.
    """
    content = processing_utils.encode_pil_to_bytes(img, format)
    folder = folder_of(cache_dir, img.info.get(_SHOWN, ())) / processing_utils.hash_bytes(content)
    path = folder / f"{name}.{format}"
    try:
        _write(path, content)
    except OSError as error:
        why = known_cause(error) or f"{error.strerror or error}."
        raise gr.Error(f"A picture could not be shown. {why}", print_exception=False) from error
    return str(path.resolve())


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    try:
        os.utime(path)  # the cache forgets what was not used for long
    except FileNotFoundError:
        # Not ``atomic_write``: a cache need not outlive a power cut, and waiting for the disk would be felt.
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            part = file.name
            try:
                file.write(content)
            except OSError:
                os.unlink(part)
                raise
        os.replace(part, path)


def write_pictures_whole() -> None:
    """Let every component of this process save its pictures so."""
    processing_utils.save_pil_to_cache = save_whole


def forget(run_id: str) -> None:
    """Remove what the cache holds of a deleted run alone."""
    shutil.rmtree(Path(get_upload_folder(), _RUNS, run_id), ignore_errors=True)


class ServedFiles:
    """ASGI middleware that serves no file of a run that is gone, whoever deleted it, nor of other servers."""

    def __init__(self, app: App, store: RunStore):
        """Wrap an app.

        Args:
            app: The app.
            store: The runs.
        """
        self._app, self._store = app, store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer that the file is gone."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not any(part in path for part in _FILE):
            await self._app(scope, receive, send)
        elif is_remote(_decoded_name(path)):
            await answer(scope, send, 404, NOT_RELAYED)
        elif self._there(path):
            await self._app(scope, receive, send)
        else:
            await answer(scope, send, 404, _GONE)

    def _there(self, path: str) -> bool:
        return all(self._store.run(name) is not None for name in _runs_of(path))


def _runs_of(path: str) -> list[str]:
    """Return the ids of the runs that a file is of, however its path is written."""
    name = _decoded_name(path)
    inside = os.path.join(os.path.realpath(get_upload_folder()), _RUNS)
    try:
        parts = Path(os.path.realpath(name)).relative_to(inside).parts
    except ValueError:
        return []
    return list(parts[: parts.index(_END)] if _END in parts else parts[:1])


def _decoded_name(path: str) -> str:
    return unquote(next(path.partition(part)[2] for part in _FILE if part in path))
