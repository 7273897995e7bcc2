"""Pixel values are those of transformers' own processors, and their gradient that of a linear resize."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from trainers.rewards.preprocess import Preprocess, resize_eight_bits

SIZES = [(64, 64), (224, 224), (512, 512), (300, 517), (517, 300), (768, 1024), (97, 33), (223, 225)]


def pictures(height, width, count=2):
    levels = torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(0))
    return levels.float() / 255


def files(images):
    levels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(picture) for picture in levels]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(Preprocess(224), CLIPImageProcessorPil()), (Preprocess(384, crop=False), BlipImageProcessorPil())],
    ids=["clip", "blip"],
)
def test_values_are_those_of_the_processor(ours, theirs, height, width):
    images = pictures(height, width)
    expected = torch.from_numpy(np.stack(theirs(files(images))["pixel_values"]))
    assert (ours(images) - expected).abs().max() <= 1e-3


def test_pictures_between_levels_are_rounded_first():
    images = pictures(40, 40)
    nearby = (images + 0.4 / 255 * (2 * torch.rand(images.shape) - 1)).clamp(0, 1)
    torch.testing.assert_close(Preprocess(32)(nearby), Preprocess(32)(images), rtol=0, atol=0)


@pytest.mark.parametrize("target", [(24, 24), (80, 56)], ids=["smaller", "larger"])
def test_gradient_is_that_of_a_linear_resize(target):
    images = 0.25 + pictures(48, 48) / 2  # away from black and white, where nothing is cut off
    direction = torch.randn(2, 3, *target, generator=torch.Generator().manual_seed(1))
    gradients = []
    for resize in (resize_eight_bits, lambda x, h, w: interpolate(x, (h, w), mode="bicubic", antialias=True)):
        leaf = images.clone().requires_grad_()
        (resize(leaf, *target).float() * direction).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_a_picture_of_the_right_size_keeps_its_levels():
    images = pictures(32, 32)
    torch.testing.assert_close(resize_eight_bits(images, 32, 32).float(), images, rtol=0, atol=1e-7)
