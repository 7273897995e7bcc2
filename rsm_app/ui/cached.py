"""Pictures of the page are written whole or not at all.

Gradio names the file of a picture by its content and writes it anew each time that it is shown. Who is
fetching it at that moment gets half a picture (net::ERR_CONTENT_LENGTH_MISMATCH, docs/LOG.md 2026-11-28).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import gradio as gr
from gradio import processing_utils
from PIL import Image

from trainers.failures import known_cause


def save_whole(img: Image.Image, cache_dir: str, name: str = "image", format: str = "webp") -> str:
    """Do what Gradio's ``save_pil_to_cache`` does, but leave a file alone that is there already.

    Raises:
        gr.Error: It cannot be written; the page shows the sentence.
    """
    content = processing_utils.encode_pil_to_bytes(img, format)
    folder = Path(cache_dir) / processing_utils.hash_bytes(content)
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
