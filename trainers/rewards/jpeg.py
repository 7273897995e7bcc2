"""The size of a picture as JPEG, wanted small or large. A black box: no gradient passes the encoder.

The standard test rewards of DDPO. Quality 95, Pillow's encoder with its other settings as they are, and
1 kB = 1000 bytes as in the authors' code. Sizes grow with the picture: compare only equal resolutions.
"""

import io

import torch
from PIL import Image

from trainers.rewards.contract import Reward
from trainers.rewards.quantise import to_uint8

QUALITY = 95


class JpegSize(Reward):
    """Signed size of the encoded picture, sign · kB.

    Args:
        sign: +1 rewards large files, −1 small ones.

    Source: Black et al., Training Diffusion Models with Reinforcement Learning, 2023, section 5.1.
    """

    def __init__(self, sign: int):
        self.sign = sign

    def __call__(self, images, prompts, metadata=None):
        sizes = [encoded_bytes(picture) for picture in to_uint8(images)]
        return torch.tensor(sizes, dtype=torch.float32, device=images.device) * (self.sign / 1000)


def encoded_bytes(picture) -> int:
    """Return the number of bytes of a picture (H, W, 3) uint8 as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=QUALITY)
    return buffer.tell()


def load_compressibility(device: str = "cpu") -> JpegSize:
    """Return the reward −kB."""
    return JpegSize(-1)


def load_incompressibility(device: str = "cpu") -> JpegSize:
    """Return the reward +kB."""
    return JpegSize(+1)
