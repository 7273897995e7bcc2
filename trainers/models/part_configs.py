"""What the small JSON files of a pipeline tell about whether it can be trained, before any weights load.

Which parts there are and of which classes, channels in and out, inputs that a rollout would not give, widths
that have to agree, and the noise schedule. A number that a file does not name says nothing: diffusers then
takes its own. Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from trainers.models.families import FAMILIES, Family
from trainers.models.schedulers import schedule_problem
from trainers.models.small_files import SCHEDULER_CONFIG, TOKENIZER_CONFIG

Configs = Callable[[str], Mapping[str, Any]]  # of a part, by its file; empty when it is not there
CONFIG = "config.json"
# What needs its package: only a frozen text encoder may be of these.
_QUANTIZERS = {"bitsandbytes": "bitsandbytes", "torchao": "torchao", "gguf": "gguf", "quanto": "optimum"}
# Parts that a text-to-image call does without; they are not loaded or may be absent.
OPTIONAL = frozenset(("safety_checker", "feature_extractor", "image_encoder"))
_LIBRARIES = ("diffusers", "transformers")
_IMAGE = "embeddings of a picture"
_UNET_INPUTS = (  # config key, the values that training serves, what the others want
    ("class_embed_type", (None,), "class labels"),
    ("num_class_embeds", (None,), "class labels"),
    ("time_cond_proj_dim", (None,), "the guidance scale, as networks distilled for few steps do"),
    ("encoder_hid_dim_type", (None, "text_proj"), _IMAGE),
)
_INPUTS: Mapping[str, tuple[tuple[str, tuple, str], ...]] = {
    "StableDiffusionPipeline": (*_UNET_INPUTS, ("addition_embed_type", (None, "text"), "sizes or pictures")),
    "StableDiffusionXLPipeline": (*_UNET_INPUTS, ("addition_embed_type", ("text_time",), "other conditions")),
    "SanaPipeline": (("guidance_embeds", (None, False), "the guidance scale, as distilled networks do"),),
    "PixArtSigmaPipeline": (("use_additional_conditions", (None, False), "sizes of pictures"),),
    "ZImagePipeline": (("siglip_feat_dim", (None,), _IMAGE),),
}


def part_problems(index: Mapping[str, Any], config_of: Configs, name: str, sized: bool = True) -> list[str]:
    """Return why a pipeline cannot be trained, in sentences; empty when its small files tell nothing.

    Args:
        index: Its ``model_index.json``, of a class that can be trained.
        config_of: Returns what a file of a part says, such as ``unet/config.json``.
        name: What the model is called in sentences.
        sized: Whether the size of its pictures is known apart from these files.
    """
    family = FAMILIES[index["_class_name"]]
    checks = [_quantized, _channels, _inputs, _widths, _tokens, _schedule] + [_size] * (not sized)
    return [sentence for check in checks for sentence in check(index, config_of, family, name)][:3]


def index_problems(index: Mapping[str, Any], name: str) -> list[str]:
    """Return what is wrong with the parts that a pipeline's index names; as above."""
    family = FAMILIES[index["_class_name"]]
    found = [
        f"The model_index.json of '{name}' names {part[:40]} in a form that cannot be read. Fetch it anew."
        for part, value in index.items()
        if not part.startswith("_")
        and (isinstance(value, list) or part in OPTIONAL)
        and not (re.fullmatch(r"\w+", part) and _pair(value))
    ]
    needed = needed_parts(family)
    needed += tuple(way.tokenizer for way in family.reads if _named(index.get(way.encoder)))
    for part in dict.fromkeys(needed):
        if not _named(index.get(part)):
            found.append(
                f"The model '{name}' has no {part}: its model_index.json names none. Choose a checkpoint "
                "with all parts, or put this one back."
            )
        elif index[part][0] not in _LIBRARIES:
            found.append(
                f"The {part} of '{name}' is of {index[part][0][:40]}, and only those of "
                f"{' and '.join(_LIBRARIES)} can be trained here."
            )
    if not found and index[family.network][1] not in (family.network_class, *family.earlier_classes):
        found.append(
            f"The {family.network} of '{name}' is a {index[family.network][1][:60]}, but training here is "
            f"made for a {family.network_class}."
        )
    return found[:3]


def needed_parts(family: Family) -> tuple[str, ...]:
    """Return the parts that a pipeline of a family cannot do without."""
    tokenizers = (encoder.replace("text_encoder", "tokenizer") for encoder in family.encoders)
    return (family.network, "vae", "scheduler", *family.encoders, *tokenizers)


def extra_parts(family: Family) -> tuple[str, ...]:
    """Return the encoder and tokenizer that a pipeline of a family may have beside those that it needs."""
    reads = (part for way in family.reads for part in (way.encoder, way.tokenizer))
    return tuple(dict.fromkeys(part for part in reads if part not in needed_parts(family)))


def _pair(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(part is None or isinstance(part, str) for part in value)
    )


def _named(value: object) -> bool:
    return _pair(value) and all(value)


def _quantized(index, config_of: Configs, family: Family, name: str) -> Iterator[str]:
    for part in (family.network, "vae", *(part for part in index if part.startswith("text_encoder"))):
        how = config_of(f"{part}/{CONFIG}").get("quantization_config")
        if not isinstance(how, Mapping):
            continue
        method = str(how.get("quant_method"))[:40]
        if part in (family.network, "vae"):
            yield (
                f"The {part} of '{name}' is quantized ({method}), which cannot be trained here. Use the "
                "checkpoint in 16 or 32 bits."
            )
        elif method in _QUANTIZERS and find_spec(_QUANTIZERS[method]) is None:
            yield (
                f"The {part} of '{name}' is quantized and needs the package {_QUANTIZERS[method]}, which is "
                "not installed. Install it, or use the checkpoint in 16 or 32 bits."
            )


def _channels(index, config_of: Configs, family: Family, name: str) -> Iterator[str]:
    network, vae = config_of(f"{family.network}/{CONFIG}"), config_of(f"vae/{CONFIG}")
    latents = _number(vae, "latent_channels")
    if latents is not None:
        latents *= 4 if family.network_class == "FluxTransformer2DModel" else 1  # 2×2 latents are one token
        takes, gives = _number(network, "in_channels"), _number(network, "out_channels")
        if takes not in (None, latents):
            kinds = {latents + 1: "a depth-to-image", 2 * latents: "an image-editing"}
            kind = kinds.get(takes, "an inpainting" if takes > 2 * latents else "")
            told = f"it is {kind} model, and only text-to-image models can be trained here"
            yield (
                f"The {family.network} of '{name}' takes {takes} channels and its autoencoder has {latents}: "
                f"{told if kind else 'the two do not belong together'}. Choose another checkpoint."
            )
        variance = 2 * latents if family.network_class == "PixArtTransformer2DModel" else latents
        if gives not in (None, latents, variance):
            yield (
                f"The {family.network} of '{name}' gives {gives} channels and its autoencoder has {latents}: "
                "it predicts something else than training here is made for. Choose another checkpoint."
            )
    if (colors := _number(vae, "out_channels")) not in (None, 3):
        yield f"The autoencoder of '{name}' makes pictures of {colors} channels; rewards are made for 3."


def _inputs(index, config_of: Configs, family: Family, name: str) -> Iterator[str]:
    config = config_of(f"{family.network}/{CONFIG}")
    for key, served, wanted in _INPUTS.get(family.pipeline_class, ()):
        value = config.get(key)
        if key == "use_additional_conditions" and value is None and config.get("sample_size") == 128:
            value = True  # what diffusers makes of that size
        if config and value not in served:
            yield (
                f"The {family.network} of '{name}' wants {wanted} as a further input ({key} is "
                f"{str(value)[:40]}), which training here does not give it. Choose another checkpoint."
            )


def _widths(index, config_of: Configs, family: Family, name: str) -> Iterator[str]:
    network = config_of(f"{family.network}/{CONFIG}")
    encoders = [config_of(f"text_encoder{number}/{CONFIG}") for number in ("", "_2", "_3")]
    for key, width in _wanted_widths(family.network_class, network, *encoders).items():
        given = _number(network, key)
        if None not in (given, width) and given != width:
            yield (
                f"The parts of '{name}' do not fit together: its {family.network} reads texts of width "
                f"{given} ({key}), but its text encoders give {width}. Fetch it anew, or choose another one."
            )


def _wanted_widths(kind: str, network: Mapping, first: Mapping, second: Mapping, third: Mapping) -> dict:
    """Return what the text encoders give for the keys of a network's config; None where that is not known."""
    hidden = [_number(config, "hidden_size", "d_model") for config in (first, second, third)]
    pooled = [_number(config, "projection_dim") for config in (first, second)]
    sizes = _number(network, "addition_time_embed_dim")
    if kind == "UNet2DConditionModel":
        read = "encoder_hid_dim" if network.get("encoder_hid_dim") else "cross_attention_dim"
        if network.get("addition_embed_type") != "text_time":
            return {read: hidden[0]}
        added = None if None in (pooled[1], sizes) else pooled[1] + 6 * sizes
        return {read: _sum(hidden[:2]), "projection_class_embeddings_input_dim": added}
    if kind == "SD3Transformer2DModel":
        return {"joint_attention_dim": hidden[2], "pooled_projection_dim": _sum(pooled)}
    if kind == "FluxTransformer2DModel":
        return {"joint_attention_dim": hidden[1], "pooled_projection_dim": hidden[0]}
    return {"caption_channels": hidden[0], "cap_feat_dim": hidden[0]}


def _tokens(index, config_of: Configs, family: Family, name: str) -> Iterator[str]:
    """Say where a tokenizer hands its encoder more tokens than that has places for, or any number."""
    for encoder in family.encoders:
        tokenizer = encoder.replace("text_encoder", "tokenizer")
        places = _number(config_of(f"{encoder}/{CONFIG}"), "max_position_embeddings")
        config = config_of(f"{tokenizer}/{TOKENIZER_CONFIG}")
        if not config or not index[tokenizer][1].startswith("CLIP") or places is None:
            continue
        limit = next((config[key] for key in ("model_max_length", "max_len") if key in config), None)
        if not isinstance(limit, int | float) or limit > places:
            reads = "without limit" if limit is None else f"{limit} tokens"
            yield (
                f"The {tokenizer} of '{name}' reads {reads}, but its {encoder} has places for {places}. Set "
                f"model_max_length to {places} in {tokenizer}/{TOKENIZER_CONFIG}."
            )


def _size(index, config_of: Configs, family: Family, name: str) -> Iterator[str]:
    config = config_of(f"{family.network}/{CONFIG}")
    unsaid = None if family.network == "unet" else 0  # other classes have a size of their own
    if config and config.get("sample_size", unsaid) is None:
        yield f"The files of '{name}' do not say how large its pictures are: set 'resolution', such as 512."


def _schedule(index, config_of: Configs, family: Family, name: str) -> Iterator[str]:
    config = config_of(f"scheduler/{SCHEDULER_CONFIG}")
    kind = index["scheduler"][1]
    if config and (problem := schedule_problem(kind, config, family.kind, family.hands_levels)):
        yield f"The base model '{name}' cannot be trained. {problem}"


def _number(config: Mapping[str, Any], *keys: str) -> int | None:
    """Return the first of some entries that is a whole number; None when none is."""
    found = (config.get(key) for key in keys)
    return next((value for value in found if isinstance(value, int) and not isinstance(value, bool)), None)


def _sum(numbers: list[int | None]) -> int | None:
    return None if None in numbers else sum(number for number in numbers if number is not None)
