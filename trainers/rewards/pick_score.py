"""PickScore: which picture people would pick for a caption. Differentiable through the picture.

A CLIP ViT-H/14 fine-tuned on the choices of Pick-a-Pic; its tokenizer is that of the CLIP it began from.
Values are cosine times the learned logit scale, as its authors publish them: around 20, one unit is a clear
preference.
"""

from trainers.rewards.clip import ClipFit, ClipTowers, read_model, read_tokenizer
from trainers.rewards.preprocess import Preprocess
from trainers.rewards.weights import CLIP_HUGE, PICKSCORE


def load(device: str = "cpu") -> ClipFit:
    """Return the reward, r = exp(s)·cosine.

    Source: Kirstain et al., Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image Generation,
        2023.
    """
    model = read_model(PICKSCORE.folder(), name="PickScore")
    pixels = Preprocess(model.config.vision_config.image_size)
    towers = ClipTowers(model, read_tokenizer(CLIP_HUGE.folder()), pixels, device)
    return ClipFit(towers, float(model.logit_scale.exp()))
