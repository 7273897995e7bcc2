"""Published weights that rewards need: where they are, and what to do when they are not there. Torch-free.

Looked for in the folder ``RSM_WEIGHTS`` (laid out as ``owner/name/file``), then in the Hub's cache, then on
the Hub itself. ``Weights.obstacle`` tells before a run what ``Weights.folder`` would stumble over.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trainers.errors import FaultError
from trainers.failures import known_cause
from trainers.paths import folder_of
from trainers.reachable import reachable


@dataclass(frozen=True)
class Weights:
    """Files of one Hub repository.

    Attributes:
        repo: "owner/name".
        files: The files that are read.
        licence: Of the weights, as their page names it.
        megabytes: Size of the download in 10**6 bytes, counted from the parameters and rounded.
    """

    repo: str
    files: tuple[str, ...]
    licence: str
    megabytes: int

    def here(self) -> Path | None:
        """Return the folder that holds every file, or None where one would have to be downloaded."""
        own = self._own()
        if own is not None:
            return own
        from huggingface_hub import try_to_load_from_cache

        found = [try_to_load_from_cache(self.repo, name) for name in self.files]
        paths = [Path(path) for path in found if isinstance(path, str)]
        if len(paths) < len(self.files) or not all(path.exists() for path in paths):
            return None
        return paths[0].parents[self.files[0].count("/")]

    def obstacle(self, ask: bool = True) -> str | None:
        """Return the sentence that says why the weights cannot be had here; None when they can.

        Args:
            ask: Whether the network may be asked; without, only what is certain is told.
        """
        if self.here() is not None:
            return None
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
            return f"{self._missing} and HF_HUB_OFFLINE forbids to download them. {self._way}"
        endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        if ask and not reachable(endpoint):
            return f"{self._missing} and {endpoint} cannot be reached. {self._way}"
        return None

    def folder(self) -> Path:
        """Return the folder that holds every file, downloading what is missing.

        Raises:
            FaultError: They cannot be had; the sentence says what to do.
        """
        found = self.here()
        if found is not None:
            return found
        sentence = self.obstacle()
        if sentence is not None:
            raise FaultError(sentence)
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.repo, allow_patterns=list(self.files)))
        except Exception as error:  # the Hub's client has many kinds; all mean the same here
            words = known_cause(error) or f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise FaultError(f"{self._missing} and downloading them failed. {words} {self._way}") from error

    @property
    def _missing(self) -> str:
        return f"The weights {self.repo} ({size_words(self.megabytes)}) are not on this machine"

    @property
    def _way(self) -> str:
        return f"Connect to the Hub, or put its files into the folder {self.repo} of RSM_WEIGHTS."

    def _own(self) -> Path | None:
        root = folder_of("RSM_WEIGHTS")
        folder = root / self.repo if root else None
        there = folder is not None and all((folder / name).is_file() for name in self.files)
        return folder if there else None


def size_words(megabytes: int) -> str:
    """Write a size in the unit that fits."""
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes} MB"


CLIP_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")

CLIP_LARGE = Weights("openai/clip-vit-large-patch14", CLIP_FILES, "MIT", 1711)
# Only what says how to build and to read: the weights of the same architecture come from the entries below.
CLIP_HUGE = Weights(
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    ("config.json", "tokenizer.json", "tokenizer_config.json"),
    "MIT",
    3,
)
PICKSCORE = Weights("yuvalkirstain/PickScore_v1", ("config.json", "model.safetensors"), "not stated", 3945)
HPS = Weights("xswu/HPSv2", ("HPS_v2.1_compressed.pt",), "Apache-2.0", 1973)
IMAGE_REWARD = Weights("THUDM/ImageReward", ("ImageReward.pt", "med_config.json"), "Apache-2.0", 1791)
BERT_WORDS = Weights(
    "google-bert/bert-base-uncased", ("tokenizer.json", "tokenizer_config.json"), "Apache-2.0", 1
)
AESTHETIC = Weights("trl-lib/ddpo-aesthetic-predictor", ("aesthetic-model.pth",), "Apache-2.0", 4)
TEXT_FINDER = Weights(
    "PaddlePaddle/PP-OCRv5_server_det_safetensors",
    ("config.json", "model.safetensors", "preprocessor_config.json"),
    "Apache-2.0",
    88,
)
TEXT_READER = Weights(
    "PaddlePaddle/PP-OCRv5_server_rec_safetensors",
    ("config.json", "model.safetensors", "preprocessor_config.json"),
    "Apache-2.0",
    84,
)
OBJECT_FINDER = Weights(
    "facebook/mask2former-swin-small-coco-instance",
    ("config.json", "model.safetensors", "preprocessor_config.json"),
    "other",
    275,
)
