"""Image files that a stranger may have written: size and kind are checked before a pixel is decoded.

A PNG of a few kilobytes can unpack to gigabytes, and a library that reads a hundred formats reads those for
which it was never meant here. Imports no torch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from PIL import Image

FORMATS = ("PNG", "WEBP", "JPEG")  # what runs hold
MAX_PIXELS = 4096 * 4096
MAX_IMAGE_BYTES = 64 * 2**20


class UnreadableImage(ValueError):
    """A file that is no whole image of a kind and size that is read here."""


def load_image(source: str | os.PathLike | BinaryIO, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Return the first frame of an image, in memory and in RGB.

    Args:
        source: A file's path, or an open file.
        formats: Names of Pillow's formats; others are not tried.

    Raises:
        UnreadableImage: It is missing, damaged, of another kind, or larger than ``MAX_PIXELS``.
    """
    try:
        if isinstance(source, str | os.PathLike) and Path(source).stat().st_size > MAX_IMAGE_BYTES:
            raise UnreadableImage("too many bytes")
        with Image.open(source, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImage("too many pixels")
            return image.convert("RGB")
    except UnreadableImage:
        raise
    except Exception as error:  # a damaged file may fail anywhere in the library
        raise UnreadableImage(f"{type(error).__name__}: {error}") from error
