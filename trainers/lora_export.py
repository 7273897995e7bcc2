"""A finished LoRA in the form of kohya's scripts, which tools beside diffusers read for Stable Diffusion 1
and XL.

The adapter of a run already counts as much in every tool (its alpha is its rank), and tools read the names of
transformers' LoRAs as diffusers writes them. Of a UNet's they know kohya's: ``lora_unet_….lora_down.weight``,
``….lora_up.weight`` and ``….alpha``. Source: the key map of diffusers' own converter.
"""

from __future__ import annotations

import os
from pathlib import Path

from trainers.adapter_file import find_adapter, read_header
from trainers.errors import InputError
from trainers.paths import path_of
from trainers.run_folder import atomic_write

FORMAT = "kohya"


def add_export_lora(parser) -> None:
    """Add the command-line arguments of ``export-lora``."""
    parser.add_argument("run", type=path_of, help="a run folder, or a folder or file with its LoRA")
    parser.add_argument("--out", type=path_of, required=True, help="the .safetensors file to write")
    parser.set_defaults(command=_export_lora)


def _export_lora(options) -> int:
    export_lora(options.run, options.out)
    print(f"Written: {options.out} (a LoRA with kohya's names, for Stable Diffusion 1, 2 and XL)")
    return 0


def export_lora(source: str | os.PathLike, out: Path) -> None:
    """Write a UNet's LoRA with kohya's names.

    Args:
        source: A run folder, an adapter folder or a LoRA file as diffusers writes it.
        out: The file to write; an existing one is not replaced.

    Raises:
        InputError: There is no such LoRA, it is none of a UNet, or the target is there or no safetensors
        file.
        FaultError: The target cannot be written.
    """
    file = find_adapter(source)
    names = read_header(file).shapes
    if not all(name.startswith("unet.") for name in names):
        raise InputError(
            f"The LoRA in {source} is one of a transformer, whose names other tools read as they are: give "
            f"them {file} itself."
        )
    if out.suffix != ".safetensors":
        raise InputError(f"'--out' must name a .safetensors file, not {out.name}.")
    if out.exists():
        raise InputError(f"{out} is there already; choose another '--out'.")
    from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
    from safetensors.torch import load_file, save

    tensors = {
        name: tensor.contiguous() for name, tensor in convert_state_dict_to_kohya(load_file(file)).items()
    }
    atomic_write(out, save({name: t.float() for name, t in tensors.items()}, {"format": "pt"}))
