"""Caption fit as the tiny CLIP of this repository sees it. Differentiable through the picture.

Reads the folder `tiny-clip` of the assets (a plain transformers `CLIPModel`, frozen here, in float32). It was
trained on pictures as tensors, so they are resized as such, and only where they have another size.
"""

import json
from pathlib import Path

from trainers.assets import asset_root
from trainers.errors import FaultError
from trainers.rewards.clip import ClipFit, ClipTowers, damaged, read_model, read_tokenizer
from trainers.rewards.preprocess import Preprocess


class TinyClip(ClipFit):
    """Cosine similarity of picture and caption.

    Not multiplied by anything (the logit scale of training is left out), so values lie in [-1, 1].

    Args:
        folder: a saved `CLIPModel` with its processor, as transformers 4 or 5 writes it.
        device: where the network runs; pictures may be elsewhere.

    Raises:
        FaultError: the folder is missing or damaged.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021;
    as a score of pictures, Hessel et al., CLIPScore, 2021.
    """

    def __init__(self, folder: Path, device: str = "cpu"):
        if not folder.is_dir():
            raise FaultError(
                f"The folder '{folder}' is missing; the reward 'tiny_clip' needs the model in it."
            )
        model = read_model(folder, name="tiny_clip")
        pixels = _preprocess(folder, model.config.vision_config.image_size)
        super().__init__(ClipTowers(model, read_tokenizer(folder), pixels, device))


def _preprocess(folder: Path, size: int) -> Preprocess:
    """Read the image processor's settings; transformers 5 nests them in the processor's file."""
    nested = folder / "processor_config.json"
    try:
        if nested.exists():
            settings = json.loads(nested.read_text())["image_processor"]
        else:
            settings = json.loads((folder / "preprocessor_config.json").read_text())
        mean, std = tuple(settings["image_mean"]), tuple(settings["image_std"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise damaged(folder, error) from error
    return Preprocess(size, crop=False, eight_bits=False, mean=mean, std=std)


def load(device: str = "cpu") -> TinyClip:
    """Return the reward with the shipped model."""
    return TinyClip(asset_root() / "tiny-clip", device)
