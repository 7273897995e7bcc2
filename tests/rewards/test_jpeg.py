import io

import numpy as np
import pytest
import torch
from PIL import Image

from trainers.rewards import load_reward
from trainers.rewards.quantise import to_uint8


def noise(batch=3, size=32):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_size_is_that_of_pillow_at_quality_95_in_thousands_of_bytes():
    image = noise(1)
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image)[0]).save(buffer, format="JPEG", quality=95)
    assert load_reward("jpeg_incompressibility")(image, [""]).item() == pytest.approx(
        len(buffer.getvalue()) / 1000
    )


def test_the_two_are_each_other_s_negative():
    images = noise()
    small, large = (
        load_reward(f"jpeg_{name}")(images, [""] * 3) for name in ("compressibility", "incompressibility")
    )
    torch.testing.assert_close(small, -large)
    assert (large > 0).all()


def test_noise_is_larger_than_a_flat_picture():
    images = torch.cat([noise(1), torch.full((1, 3, 32, 32), 0.5)])
    large = load_reward("jpeg_incompressibility")(images, ["", ""])
    assert large[0] > 2 * large[1]


def test_quantisation_rounds_and_clamps():
    levels = torch.tensor([0.0, 1.0, 0.5 / 255 + 1e-4, 0.49 / 255, -3.0, 7.0])
    picture = to_uint8(levels.expand(2, 3, 1, 6))
    assert picture.shape == (2, 1, 6, 3) and picture.dtype == np.uint8
    assert picture[0, 0, :, 0].tolist() == [0, 255, 1, 0, 0, 255]
