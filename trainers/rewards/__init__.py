"""Rewards: what a run maximises, one file each, listed in the table below.

To add one, write a file with a factory `load(device) -> Reward` (see `contract.Reward`) and a row here; the
command line, the page and the contract tests pick it up. Importing this package imports no torch.
"""

from math import inf

from trainers.registry import Registry
from trainers.rewards import mixture
from trainers.rewards.contract import Reward, RewardSpec
from trainers.rewards.mixture import Mixture, Part

__all__ = ["REWARDS", "Mixture", "Part", "Reward", "RewardSpec", "load_reward", "parse_mixture"]

REWARDS: Registry[RewardSpec] = Registry(
    "reward",
    [
        RewardSpec(
            name="shapes",
            title="Shapes: how much is right",
            summary="Share of what the caption asks for (objects, colours, counts, places) that is found.",
            target="trainers.rewards.shapes:load_partial",
            differentiable=False,
            low=0.0,
            high=1.0,
            unit="fraction of the caption",
            cost="≈ 1 ms a 64×64 picture on a CPU core",
            source="Checker of this repository, in the categories of GenEval (Ghosh et al. 2023)",
        ),
        RewardSpec(
            name="shapes_exact",
            title="Shapes: all right or not",
            summary="1 if the picture shows exactly what the caption asks for, else 0.",
            target="trainers.rewards.shapes:load_exact",
            differentiable=False,
            low=0.0,
            high=1.0,
            unit="yes (1) or no (0)",
            cost="≈ 1 ms a 64×64 picture on a CPU core",
            source="Checker of this repository, in the categories of GenEval (Ghosh et al. 2023)",
        ),
        RewardSpec(
            name="tiny_clip",
            title="Caption fit (tiny CLIP)",
            summary="Similarity of picture and caption in the embedding of the tiny CLIP shipped here.",
            target="trainers.rewards.tiny_clip:load",
            differentiable=True,
            low=-1.0,
            high=1.0,
            unit="cosine similarity",
            cost="≈ 1.3 ms a 64×64 picture on a CPU core, ≈ 4 ms with its gradient",
            source="Radford et al. 2021 (CLIP); Hessel et al. 2021 (CLIPScore)",
        ),
        RewardSpec(
            name="jpeg_compressibility",
            title="Small JPEG",
            summary="Rewards pictures that compress well: minus the size of the JPEG at quality 95.",
            target="trainers.rewards.jpeg:load_compressibility",
            differentiable=False,
            low=-inf,
            high=0.0,
            unit="minus kB (1000 bytes)",
            cost="≈ 0.1 ms a 64×64 picture on a CPU core",
            source="Black et al. 2023 (DDPO), section 5.1",
        ),
        RewardSpec(
            name="jpeg_incompressibility",
            title="Large JPEG",
            summary="Rewards pictures full of detail: the size of the JPEG at quality 95.",
            target="trainers.rewards.jpeg:load_incompressibility",
            differentiable=False,
            low=0.0,
            high=inf,
            unit="kB (1000 bytes)",
            cost="≈ 0.1 ms a 64×64 picture on a CPU core",
            source="Black et al. 2023 (DDPO), section 5.1",
        ),
        RewardSpec(
            name="brightness",
            title="Brightness",
            summary="Mean luma of the picture.",
            target="trainers.rewards.brightness:load",
            differentiable=True,
            low=0.0,
            high=1.0,
            unit="luma, black 0 to white 1",
            cost="< 0.1 ms a 64×64 picture on a CPU core",
            source="ITU-R BT.709-6, item 3.2",
        ),
        RewardSpec(
            name="contrast",
            title="Contrast",
            summary="Twice the standard deviation of luma.",
            target="trainers.rewards.contrast:load",
            differentiable=True,
            low=0.0,
            high=1.0,
            unit="share of the largest possible contrast",
            cost="< 0.1 ms a 64×64 picture on a CPU core",
            source="Peli 1990, RMS contrast",
        ),
        RewardSpec(
            name="sharpness",
            title="Sharpness",
            summary="Spread of the Laplacian of luma; noise counts as much as edges.",
            target="trainers.rewards.sharpness:load",
            differentiable=True,
            low=0.0,
            high=1.0,
            unit="share of a one-pixel checkerboard's sharpness",
            cost="< 0.1 ms a 64×64 picture on a CPU core",
            source="Pech-Pacheco et al. 2000, LAPV",
        ),
        RewardSpec(
            name="colorfulness",
            title="Colourfulness",
            summary="Spread and mean of the red–green and yellow–blue opponent colours.",
            target="trainers.rewards.colorfulness:load",
            differentiable=True,
            low=0.0,
            high=3.0,
            unit="hundreds of the source's units; 0.33 is moderate, 1.09 extreme",
            cost="< 0.1 ms a 64×64 picture on a CPU core",
            source="Hasler & Süsstrunk 2003, section 7",
        ),
    ],
)


def parse_mixture(text: str) -> tuple[tuple[str, float], ...]:
    """Read "shapes:1,tiny_clip:0.2" into (name, weight) pairs; a bare name has weight 1.

    Raises:
        InputError: with a sentence for every problem.
    """
    return mixture.parse_mixture(text, REWARDS)


def load_reward(text: str, device: str = "cpu") -> Mixture:
    """Load a reward, or a weighted mixture of several, onto a device.

    Raises:
        InputError: with a sentence for every problem in the text.
        FaultError: a file that a reward needs is missing or damaged.
    """
    return mixture.load_mixture(text, device, REWARDS)
