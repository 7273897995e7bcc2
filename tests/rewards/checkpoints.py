"""Tiny random checkpoints of the real classes, in the names and files of the published ones."""

import json
from pathlib import Path

import torch
from transformers import (
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    HGNetV2Config,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    PPOCRV5ServerDetConfig,
    PPOCRV5ServerDetForObjectDetection,
    PPOCRV5ServerRecConfig,
    PPOCRV5ServerRecForTextRecognition,
    SwinConfig,
)

from trainers.rewards import weights
from trainers.shapes.tokenizer import build_tokenizer

SIZE, PATCH, WIDTH, JOINT = 32, 8, 32, 16
BLIP_WIDTH, BERT_WIDTH, BERT_LENGTH = 128, 32, 40
LAYERS = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
CHARACTERS = ["blank", *"abcdefghijklmnopqrstuvwxyz", " "]
MED = {
    "hidden_size": BERT_WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": BERT_LENGTH,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "encoder_width": 999,  # the published file says something else than the network has, too
}


def write_all(root: Path) -> Path:
    """Write every checkpoint below a folder, as RSM_WEIGHTS expects them."""
    torch.manual_seed(0)
    write_clip(root / weights.CLIP_LARGE.repo, "quick_gelu")
    write_clip(root / weights.PICKSCORE.repo, "gelu")
    write_clip(root / weights.CLIP_HUGE.repo, "gelu", network=False)
    write_tensors(
        root / weights.HPS.repo / weights.HPS.files[0], {"state_dict": open_clip_state(), "epoch": 3}
    )
    folder = root / weights.IMAGE_REWARD.repo
    write_tensors(folder / weights.IMAGE_REWARD.files[0], image_reward_state())
    (folder / "med_config.json").write_text(json.dumps(MED))
    write_words(root / weights.BERT_WORDS.repo)
    head = {f"layers.{name}": value for name, value in head_state(JOINT).items()}
    write_tensors(root / weights.AESTHETIC.repo / weights.AESTHETIC.files[0], head)
    write_ocr(root)
    write_detector(root / weights.OBJECT_FINDER.repo)
    return root


def write_tensors(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def clip_config(activation: str) -> CLIPConfig:
    tokenizer = build_tokenizer()
    text = LAYERS | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 24,
        **{"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2},  # as published, whatever is true
        "hidden_act": activation,
    }
    vision = LAYERS | {"image_size": SIZE, "patch_size": PATCH, "hidden_act": activation}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=JOINT)


def write_clip(folder: Path, activation: str, network: bool = True) -> None:
    config = clip_config(activation)
    if network:
        CLIPModel(config).save_pretrained(folder)
    else:
        config.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)


def open_clip_state() -> dict:
    """Random parameters under the names that open_clip gives to a CLIP."""
    places, vocabulary = (SIZE // PATCH) ** 2 + 1, len(build_tokenizer())
    state = {
        "logit_scale": torch.tensor(4.6),
        "visual.class_embedding": torch.randn(WIDTH),
        "visual.positional_embedding": torch.randn(places, WIDTH) / 4,
        "visual.proj": torch.randn(WIDTH, JOINT) / 6,
        "visual.conv1.weight": torch.randn(WIDTH, 3, PATCH, PATCH) / 14,
        "positional_embedding": torch.randn(24, WIDTH) / 4,
        "token_embedding.weight": torch.randn(vocabulary, WIDTH),
        "text_projection": torch.randn(WIDTH, JOINT) / 6,
        "attn_mask": torch.zeros(24, 24),
    }
    for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        state |= norm_state(norm, WIDTH)
    for tower in ("visual.transformer", "transformer"):
        for number in range(2):
            prefix = f"{tower}.resblocks.{number}"
            state |= norm_state(f"{prefix}.ln_1", WIDTH) | norm_state(f"{prefix}.ln_2", WIDTH)
            state[f"{prefix}.attn.in_proj_weight"] = torch.randn(3 * WIDTH, WIDTH) / 6
            state[f"{prefix}.attn.in_proj_bias"] = torch.randn(3 * WIDTH) / 6
            state |= linear_state(f"{prefix}.attn.out_proj", WIDTH, WIDTH)
            state |= linear_state(f"{prefix}.mlp.c_fc", WIDTH, 64) | linear_state(
                f"{prefix}.mlp.c_proj", 64, WIDTH
            )
    return {name: value.half() for name, value in state.items()}


def norm_state(name: str, width: int) -> dict:
    return {f"{name}.weight": 1 + torch.randn(width) / 5, f"{name}.bias": torch.randn(width) / 5}


def linear_state(name: str, into: int, out: int) -> dict:
    return {f"{name}.weight": torch.randn(out, into) / into**0.5, f"{name}.bias": torch.randn(out) / 5}


def head_state(width: int) -> dict:
    state: dict = {}
    for number, out in zip((0, 2, 4, 6, 7), (1024, 128, 64, 16, 1), strict=True):
        state |= linear_state(str(number), width, out)
        width = out
    return state


def bert_tokenizer() -> BertTokenizer:
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *["a", "red", "circle", "three", "green", "triangles", "square", "of"],
    ]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})


def write_words(folder: Path) -> None:
    """Write BERT's tokenizer with the settings that are published, which do not name its class."""
    bert_tokenizer().save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 512}')


def image_reward_state() -> dict:
    """Random parameters under the names of ImageReward's checkpoint."""
    places, vit, text = (SIZE // PATCH) ** 2 + 1, "blip.visual_encoder", "blip.text_encoder"
    state = {
        f"{vit}.cls_token": torch.randn(1, 1, BLIP_WIDTH),
        f"{vit}.pos_embed": torch.randn(1, places, BLIP_WIDTH) / 4,
        f"{vit}.patch_embed.proj.weight": torch.randn(BLIP_WIDTH, 3, PATCH, PATCH) / 14,
        f"{vit}.patch_embed.proj.bias": torch.randn(BLIP_WIDTH) / 5,
        f"{text}.embeddings.word_embeddings.weight": torch.randn(20, BERT_WIDTH),
        f"{text}.embeddings.position_embeddings.weight": torch.randn(BERT_LENGTH, BERT_WIDTH) / 4,
        f"{text}.embeddings.position_ids": torch.arange(BERT_LENGTH)[None],
        "blip.vision_proj.weight": torch.randn(8, BLIP_WIDTH),  # of pre-training, not used for the score
    }
    state |= norm_state(f"{vit}.norm", BLIP_WIDTH) | norm_state(f"{text}.embeddings.LayerNorm", BERT_WIDTH)
    for number in range(2):
        block, layer = f"{vit}.blocks.{number}", f"{text}.encoder.layer.{number}"
        state |= norm_state(f"{block}.norm1", BLIP_WIDTH) | norm_state(f"{block}.norm2", BLIP_WIDTH)
        state |= linear_state(f"{block}.attn.qkv", BLIP_WIDTH, 3 * BLIP_WIDTH)
        state |= linear_state(f"{block}.attn.proj", BLIP_WIDTH, BLIP_WIDTH)
        state |= linear_state(f"{block}.mlp.fc1", BLIP_WIDTH, 192) | linear_state(
            f"{block}.mlp.fc2", 192, BLIP_WIDTH
        )
        for kind, width in (("attention", BERT_WIDTH), ("crossattention", BLIP_WIDTH)):
            state |= linear_state(f"{layer}.{kind}.self.query", BERT_WIDTH, BERT_WIDTH)
            state |= linear_state(f"{layer}.{kind}.self.key", width, BERT_WIDTH)
            state |= linear_state(f"{layer}.{kind}.self.value", width, BERT_WIDTH)
            state |= linear_state(f"{layer}.{kind}.output.dense", BERT_WIDTH, BERT_WIDTH)
            state |= norm_state(f"{layer}.{kind}.output.LayerNorm", BERT_WIDTH)
        state |= linear_state(f"{layer}.intermediate.dense", BERT_WIDTH, 64)
        state |= linear_state(f"{layer}.output.dense", 64, BERT_WIDTH)
        state |= norm_state(f"{layer}.output.LayerNorm", BERT_WIDTH)
    return state | {f"mlp.layers.{name}": value for name, value in head_state(BERT_WIDTH).items()}


def write_ocr(root: Path) -> None:
    blocks = {
        "stem_channels": [3, 8, 8],
        "stage_in_channels": [8, 16, 16, 16],
        "stage_mid_channels": [8, 8, 8, 8],
        "stage_out_channels": [16, 16, 16, 16],
        "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [1, 1, 1, 1],
        "stage_light_block": [False, False, False, False],
        "stage_kernel_size": [3, 3, 3, 3],
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
    ratios = ("longratio", (7, 1, 3)), ("midratio", (5, 1, 2)), ("shortratio", (3, 1, 1))
    inner = {"reduce_channel": [1, 1, 0], "return_channel": [1, 1, 0]}
    for ratio, (size, stride, pad) in ratios:
        inner[f"vertical_long_to_small_conv_{ratio}"] = [[size, 1], stride, [pad, 0]]
        inner[f"horizontal_small_to_long_conv_{ratio}"] = [[1, size], stride, [0, pad]]
        inner[f"symmetric_conv_long_{ratio}"] = [[size, size], stride, [pad, pad]]
    finder = PPOCRV5ServerDetConfig(
        backbone_config=HGNetV2Config(**blocks, stage_downsample=[False, True, True, True]),
        neck_out_channels=16,
        intraclass_block_config=inner,
        scale_factor_list=[1, 2, 4, 8],
        kernel_list=[3, 2, 2],
    )
    strides = {"stage_downsample_strides": [[2, 1], [1, 2], [2, 1], [2, 1]], "stem_strides": [2, 1, 1, 1, 1]}
    reader = PPOCRV5ServerRecConfig(
        backbone_config=HGNetV2Config(**blocks, stage_downsample=[True, True, True, True], **strides),
        hidden_size=16,
        num_attention_heads=2,
        depth=1,
        head_out_channels=len(CHARACTERS),
    )
    PPOCRV5ServerDetForObjectDetection(finder).save_pretrained(root / weights.TEXT_FINDER.repo)
    PPOCRV5ServerRecForTextRecognition(reader).save_pretrained(root / weights.TEXT_READER.repo)
    for part, settings in ((weights.TEXT_FINDER, {}), (weights.TEXT_READER, {"character_list": CHARACTERS})):
        (root / part.repo / "preprocessor_config.json").write_text(json.dumps(settings))


def write_detector(folder: Path, classes: int = 80) -> None:
    backbone = SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=32,
        num_queries=6,
        num_labels=classes,
    )
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 64}}))
