"""CLIPScore with CLIP ViT-L/14: how well picture and caption fit. Differentiable through the picture.

The published score is 2.5·max(cosine, 0); the cosine is kept as it is, because a constant changes nothing
about what is learned and a cut-off has no gradient. Leaves out references, which generated pictures do not
have.
"""

from trainers.rewards.clip import ClipFit, ClipTowers, read_model, read_tokenizer
from trainers.rewards.preprocess import Preprocess
from trainers.rewards.weights import CLIP_LARGE


def large_towers(device: str) -> ClipTowers:
    """Return CLIP ViT-L/14 as OpenAI published it."""
    folder = CLIP_LARGE.folder()
    model = read_model(folder)
    return ClipTowers(
        model, read_tokenizer(folder), Preprocess(model.config.vision_config.image_size), device
    )


def load(device: str = "cpu") -> ClipFit:
    """Return the reward.

    Source: Hessel et al., CLIPScore: A Reference-free Evaluation Metric for Image Captioning, 2021.
    """
    return ClipFit(large_towers(device))
