"""Rewards: what a run maximises, one file each, listed in the table below.

To add one, write a file with a factory `load(device) -> Reward` (see `contract.Reward`) and a row here; the
command line, the page and the contract tests pick it up. Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

from trainers.rewards import mixture
from trainers.rewards import weights as published
from trainers.rewards.contract import Reward, RewardSpec
from trainers.rewards.mixture import Mixture, Part
from trainers.rewards.own import RewardTable

if TYPE_CHECKING:
    from trainers.config import RunConfig

__all__ = [
    "REWARDS",
    "Mixture",
    "Part",
    "Reward",
    "RewardSpec",
    "load_reward",
    "parse_mixture",
    "reward_obstacles",
    "unscorable",
]

REWARDS = RewardTable(
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
            prompts="shapes",
            compositional=True,
            reads="trainers.rewards.readable:shapes_captions",
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
            prompts="shapes",
            compositional=True,
            reads="trainers.rewards.readable:shapes_captions",
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
            prompts="shapes",
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
        RewardSpec(
            name="clip_score",
            title="CLIPScore",
            summary="Similarity of picture and caption in the embedding of CLIP ViT-L/14.",
            target="trainers.rewards.clip_score:load",
            differentiable=True,
            low=-1.0,
            high=1.0,
            unit="cosine similarity",
            cost="a GPU is advisable: 0.43 × 10⁹ parameters at 224×224",
            source="Hessel et al. 2021, arXiv 2104.08718",
            weights=(published.CLIP_LARGE,),
        ),
        RewardSpec(
            name="pick_score",
            title="PickScore",
            summary="Which picture people would pick for the caption, learned from half a million choices.",
            target="trainers.rewards.pick_score:load",
            differentiable=True,
            low=-inf,
            high=inf,
            unit="logits; usual pictures lie near 20",
            cost="a GPU is advisable: 0.99 × 10⁹ parameters at 224×224",
            source="Kirstain et al. 2023, arXiv 2305.01569",
            weights=(published.PICKSCORE, published.CLIP_HUGE),
        ),
        RewardSpec(
            name="hps_v2",
            title="HPSv2.1",
            summary="How much people would prefer the picture of the caption: Human Preference Score v2.1.",
            target="trainers.rewards.hps:load",
            differentiable=True,
            low=-1.0,
            high=1.0,
            unit="cosine similarity; usual pictures lie near 0.3",
            cost="a GPU is advisable: 0.99 × 10⁹ parameters at 224×224",
            source="Wu et al. 2023, arXiv 2306.09341",
            weights=(published.HPS, published.CLIP_HUGE),
        ),
        RewardSpec(
            name="image_reward",
            title="ImageReward",
            summary="How well the picture serves the caption in the eyes of people who ranked pictures.",
            target="trainers.rewards.image_reward:load",
            differentiable=True,
            low=-inf,
            high=inf,
            unit="standard deviations over the authors' data",
            cost="a GPU is advisable: 0.45 × 10⁹ parameters at 224×224",
            source="Xu et al. 2023, arXiv 2304.05977",
            weights=(published.IMAGE_REWARD, published.BERT_WORDS),
        ),
        RewardSpec(
            name="aesthetic",
            title="LAION aesthetic",
            summary="How much people like the look of the picture, whatever the caption says.",
            target="trainers.rewards.aesthetic:load",
            differentiable=True,
            low=-inf,
            high=inf,
            unit="points; people gave 1 to 10",
            cost="a GPU is advisable: 0.43 × 10⁹ parameters at 224×224",
            source="Schuhmann 2022, improved-aesthetic-predictor",
            weights=(published.CLIP_LARGE, published.AESTHETIC),
        ),
        RewardSpec(
            name="ocr",
            title="Written text (OCR)",
            summary="How much of the text that the caption puts in double quotes is written in the picture.",
            target="trainers.rewards.ocr:load",
            differentiable=False,
            low=0.0,
            high=1.0,
            unit="1 − edit distance ÷ length of the text",
            cost="a GPU is advisable: a detector, and a reader for every line of text",
            source="Liu et al. 2025, arXiv 2505.05470; PP-OCRv5",
            weights=(published.TEXT_FINDER, published.TEXT_READER),
            examples=('a sign that says "open"', 'a shop called "Red Fox Books"'),
            prompts="ocr",
            reads="trainers.rewards.readable:quoted_texts",
        ),
        RewardSpec(
            name="geneval",
            title="GenEval: how much is right",
            summary="Share of the objects, counts, colours and places of a GenEval prompt that is found.",
            target="trainers.rewards.geneval:load_partial",
            differentiable=False,
            low=0.0,
            high=1.0,
            unit="fraction of the caption",
            cost="a GPU is advisable: Mask2Former at 800×800, CLIP for colours",
            source="Ghosh et al. 2023, arXiv 2310.11513; Liu et al. 2025, arXiv 2505.05470",
            weights=(published.OBJECT_FINDER, published.CLIP_LARGE),
            examples=("a photo of two dogs", "a photo of a red car above a bench"),
            configured=True,
            prompts="geneval",
            compositional=True,
            reads="trainers.rewards.readable:geneval_requests",
        ),
        RewardSpec(
            name="geneval_correct",
            title="GenEval: all right or not",
            summary="1 if a detector finds everything that a GenEval prompt asks for, else 0.",
            target="trainers.rewards.geneval:load_exact",
            differentiable=False,
            low=0.0,
            high=1.0,
            unit="yes (1) or no (0)",
            cost="a GPU is advisable: Mask2Former at 800×800, CLIP for colours",
            source="Ghosh et al. 2023, arXiv 2310.11513",
            weights=(published.OBJECT_FINDER, published.CLIP_LARGE),
            examples=("a photo of two dogs", "a photo of a red car above a bench"),
            configured=True,
            prompts="geneval",
            compositional=True,
            reads="trainers.rewards.readable:geneval_requests",
        ),
        RewardSpec(
            name="server",
            title="Reward server",
            summary="Scores of a server of your own, in the protocol of Flow-GRPO's servers or in JSON.",
            target="trainers.rewards.server:load",
            differentiable=False,
            low=-inf,
            high=inf,
            unit="as the server has it",
            cost="what the server takes; 64 pictures a request",
            source="Liu et al. 2025, arXiv 2505.05470, reward-server",
            configured=True,
            check="trainers.rewards.remote:server_obstacles",
        ),
        RewardSpec(
            name="judge",
            title="Vision-language judge",
            summary="A vision-language model behind an OpenAI-compatible address rates the picture.",
            target="trainers.rewards.judge:load",
            differentiable=False,
            low=0.0,
            high=1.0,
            unit="points from 0 to 10, divided by 10",
            cost="one chat completion a picture, several at a time",
            source="Zheng et al. 2023, arXiv 2306.05685 (judging by a language model)",
            configured=True,
            check="trainers.rewards.remote:judge_obstacles",
        ),
    ],
)


def parse_mixture(text: str) -> tuple[tuple[str, float], ...]:
    """Read "shapes:1,tiny_clip:0.2" into (name, weight) pairs; a bare name has weight 1.

    Raises:
        InputError: with a sentence for every problem.
    """
    return mixture.parse_mixture(text, REWARDS)


def load_reward(text: str, device: str = "cpu", config: RunConfig | None = None) -> Mixture:
    """Load a reward, or a weighted mixture of several, onto a device.

    Args:
        text: the reward or mixture.
        device: where it computes.
        config: the settings of the run, for rewards that read some; the defaults when None.

    Raises:
        InputError: with a sentence for every problem in the text.
        FaultError: a file that a reward needs is missing or damaged, or an endpoint is not given.
    """
    return mixture.load_mixture(text, device, REWARDS, config)


def reward_obstacles(config: RunConfig, ask: bool = True) -> list[str]:
    """Return a sentence for everything that keeps a run's rewards from working on this machine.

    Args:
        config: the settings; both the optimised reward and the others that were asked for count.
        ask: whether the network may be asked, which takes some seconds where it is silent.
    """
    found = mixture.obstacles(config.reward, config, REWARDS, ask)
    return list(dict.fromkeys(found + mixture.obstacles(config.others, config, REWARDS, ask)))


def unscorable(text: str, prompts: Sequence[str], config: RunConfig) -> list[str]:
    """Return a sentence for the first of some prompts that a reward or mixture cannot score; loads nothing.

    Args:
        text: the reward or mixture; one that cannot be read has problems of its own.
        prompts: the prompts.
        config: the settings of the run.
    """
    return mixture.unscorable(text, prompts, config, REWARDS)
