"""What one row costs in memory while training, counted on full-size architectures without computing anything.

Run ``python -m tests.models_activation_study``. Tensors are on the meta device: shapes and dtypes pass
through the real diffusers classes, and what autograd would keep for the backward pass is added up; attention
keeps what the fused kernels keep. The printed lines are the table in ``trainers/models/memory.py``, but for
its text encoders, whose parameters ``tests/models/test_memory.py`` counts.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from diffusers import AutoencoderTiny
from peft import LoraConfig
from torch.nn import functional

from trainers.machine import quiet_libraries
from trainers.models.random_weights import random_pipeline
from trainers.models.sizes import FULL

GB = 1e9


class FusedAttention(torch.autograd.Function):
    """Keeps query, key, value and result, as flash attention does."""

    @staticmethod
    def forward(context, query, key, value):
        result = query.new_empty(*query.shape[:-1], value.shape[-1])
        context.save_for_backward(query, key, value, result)
        return result


def attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    return FusedAttention.apply(query, key, value)


class Kept:
    """Bytes of the distinct storages that autograd keeps, parameters left out."""

    def __init__(self, model):
        self._ignored = {part.untyped_storage()._cdata for part in model.parameters()}
        self.seen = {}

    def pack(self, tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in self._ignored:
            self.seen[storage._cdata] = (storage.nbytes(), storage)  # held, so that no address comes twice
        return tensor

    @property
    def total(self):
        return sum(size for size, _ in self.seen.values()) / GB


def count(model, run):
    kept = Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        result = run()
    return kept.total, result


def recomputed(network, run):
    """Inputs of all blocks, what is kept outside them, and the largest block."""
    inputs, largest = Kept(network), [0.0]

    def block(module, *arguments):
        for tensor in arguments:
            if isinstance(tensor, torch.Tensor):
                inputs.pack(tensor)
        kept, result = count(network, lambda: module(*arguments))
        largest[0] = max(largest[0], kept)
        return result

    for module in network.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing, module._gradient_checkpointing_func = True, block
    kept = Kept(network)

    with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        run()
    kept.seen |= inputs.seen
    return kept.total + largest[0]


def costs(name):
    model = random_pipeline(name, "meta", torch.bfloat16)
    parameters = sum(part.numel() for part in model.network.parameters()) / GB
    model.network.add_adapter(LoraConfig(r=16, target_modules=list(model.spec.lora_targets)))
    latents = torch.empty(1, *model.latent_shape, device="meta", dtype=torch.bfloat16)
    rows = model.encode(["a"])
    if model.pipeline_class == "ZImagePipeline":  # reads the mask's values
        rows = replace(rows, mask=torch.ones(rows.mask.shape, dtype=torch.bool, device="cpu"))

    def forward():
        return model.predict(model.network, latents, 500.0, rows)

    kept, _ = count(model.network, forward)
    again = recomputed(model.network, forward)
    half, _ = count(model.pipe.vae, lambda: model.decode(latents.requires_grad_(True)))
    return parameters, kept, again, 2 * half  # gradients of rewards pass through the decoder in float32


def tiny_decoder():
    """The decoder of taesd and its kin at 512×512."""
    with torch.device("meta"):
        vae = AutoencoderTiny()
    latents = torch.empty(1, 4, 64, 64, device="meta", dtype=torch.bfloat16, requires_grad=True)
    return 2 * count(vae, lambda: vae.decode(latents))[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="architectures; all full sizes by default")
    quiet_libraries()
    torch.set_default_dtype(torch.bfloat16)
    functional.scaled_dot_product_attention = attention
    print(f"TINY_DECODER_GB = {tiny_decoder():.2f}")
    for name in parser.parse_args().names or FULL:
        parameters, kept, again, decoder = costs(name)
        print(
            f'    "{name}": Costs({parameters:.2f}, {kept:.2f}, {again:.2f}, {decoder:.2f}, …),', flush=True
        )


if __name__ == "__main__":
    main()
