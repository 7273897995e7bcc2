"""A LoRA file judged by its header alone: which tensors it holds, and whether they fit a base model.

A safetensors header is a small JSON text before the numbers, so a file from elsewhere is refused before
anything of it is loaded. Torch-free.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainers.assets import asset_root
from trainers.bounded_json import parse_json
from trainers.errors import InputError
from trainers.models import MODELS
from trainers.models.access import cached_folder
from trainers.models.families import FAMILIES
from trainers.models.folders import place_of
from trainers.models.spec import ModelSpec
from trainers.models.variants import loaded, variant_of, weight_names
from trainers.paths import path_of

WEIGHTS = "pytorch_lora_weights.safetensors"
PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
MAX_HEADER_BYTES = 8 * 2**20
_SIZES = {
    **{"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2},
    **{"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1},
}
_TENSOR = re.compile(r"(?P<network>[a-z_0-9]+)\.(?P<module>[\w.]+)\.lora_(?P<side>[AB])\.weight")


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about itself.

    Attributes:
        shapes: Tensor name → shape.
        metadata: The free texts beside them.
    """

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]

    @property
    def rank(self) -> int:
        """The LoRA's rank; 0 when its tensors disagree or there are none."""
        ranks = {shape[0] for name, shape in self.shapes.items() if name.endswith(".lora_A.weight") and shape}
        return ranks.pop() if len(ranks) == 1 else 0

    @property
    def alpha(self) -> float | None:
        """The LoRA's alpha as diffusers stores it; None when the file does not say."""
        try:
            record = parse_json(self.metadata.get("lora_adapter_metadata", "{}").encode())
            values = {float(value) for key, value in record.items() if key.endswith(".lora_alpha")}
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            return None
        return values.pop() if len(values) == 1 else None

    @property
    def scale(self) -> float:
        """What the LoRA's product counts by, alpha / rank; a file that does not say means 1."""
        return self.alpha / self.rank if self.alpha is not None and self.rank else 1.0


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file.

    Raises:
        InputError: The file is missing, no safetensors file, cut short, or holds something else than numbers.
    """
    refused = InputError(
        f"The file {path.name} is not a whole safetensors file; it is damaged or of another kind."
    )
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise refused
            record = parse_json(file.read(length))
        metadata = record.pop("__metadata__", {})
        ends = [_checked_tensor(entry, size - 8 - length) for entry in record.values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise refused from None
    if not ends or max(ends) != size - 8 - length:
        raise refused
    return Header({name: tuple(entry["shape"]) for name, entry in record.items()}, metadata)


def misfits(header: Header, network: str, weights: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return why a LoRA does not fit a base model's network, in sentences; empty when it fits.

    For a weight of shape (out, in, …) a LoRA of rank r has A of shape (r, in, …) and B of shape (out, r, …).

    Args:
        header: The LoRA's.
        network: ``transformer`` or ``unet``.
        weights: The network's tensors, name → shape.
    """
    sides: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in header.shapes.items():
        match = _TENSOR.fullmatch(name)
        if match is None or match["network"] != network:
            return [
                f"The LoRA holds '{name[:80]}', which is no part of a LoRA for this base model's {network}."
            ]
        sides.setdefault(match["module"], {})[match["side"]] = shape
    found = [module_misfit(module, pair, weights.get(f"{module}.weight")) for module, pair in sides.items()]
    return [sentence for sentence in found if sentence][:3]


def find_adapter(place: str | os.PathLike) -> Path:
    """Return the LoRA file of a run folder, of an adapter folder, or the file itself.

    Raises:
        InputError: There is none, or more than one.
    """
    path = path_of(os.fspath(place))
    here = (folder / name for folder in (path / "adapter", path) for name in (WEIGHTS, PEFT_WEIGHTS))
    for file in (*here, path):
        if file.is_file():
            return file
    inner = sorted(config.parent for config in path.glob(f"*/{PEFT_CONFIG}"))
    if len(inner) > 1:
        names = ", ".join(folder.name for folder in inner[:5])
        raise InputError(f"There are {len(inner)} LoRAs in '{place}' ({names}): name the one to begin from.")
    for file in (folder / name for folder in inner for name in (WEIGHTS, PEFT_WEIGHTS)):
        if file.is_file():
            return file
    found = [file for file in sorted(path.glob("*.safetensors")) if not file.name.startswith(".")]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"There are {len(found)} safetensors files in '{place}': name the one to begin from."
        )
    pickled = [*path.glob("*.bin"), *path.glob("*.pt")]
    if pickled:
        raise InputError(
            f"The LoRA in '{place}' is pickled ({pickled[0].name}), and loading it could run any code. Save "
            "it as safetensors."
        )
    raise InputError(
        f"There is no LoRA in '{place}': name a run folder, or a folder with {WEIGHTS} or {PEFT_WEIGHTS}."
    )


def base_misfits(header: Header, model: str) -> list[str]:
    """Return why a LoRA does not fit a base model whose folder is on this machine; empty when it fits.

    A base model that is not here yet is compared when it has been loaded, see ``trainers.adapter``.
    """
    network, shapes = base_shapes(MODELS.get(model))
    return misfits(header, network, shapes) if shapes else []


def base_shapes(spec: ModelSpec) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Return the name of a base model's network and the shapes of its tensors; none where it is not here."""
    network = FAMILIES[spec.pipeline_class].network
    folder = asset_root() / spec.location if spec.embedded else place_of(spec.location)
    folder = folder or cached_folder(spec.location)
    if folder is None or not any((folder / network).glob("*.safetensors")):
        return network, {}
    return network, network_shapes(folder / network)


def network_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of every tensor in a network's folder.

    Raises:
        InputError: A file is damaged, or there is none.
    """
    names = weight_names(sorted(path.name for path in folder.glob("*.safetensors")))
    files = [folder / name for name in loaded(names, variant_of({"network": names}) or "")]
    if not files:
        raise InputError(f"The base model's folder {folder.name} holds no safetensors file.")
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        shapes |= read_header(path).shapes
    return shapes


def module_misfit(module: str, pair: Mapping[str, tuple], weight: tuple[int, ...] | None) -> str:
    """Return why a LoRA's two matrices, ``A`` and ``B``, do not fit a weight; empty when they do."""
    if weight is None:
        return f"The LoRA changes '{module[:80]}', which this base model does not have."
    down, up = pair.get("A"), pair.get("B")
    fits = (
        down is not None
        and up is not None
        and len(down) == len(up) == len(weight)
        and down[1:] == weight[1:]
        and up[0] == weight[0]
        and up[1] == down[0]
        and all(side == 1 for side in up[2:])
    )
    if fits:
        return ""
    return f"The LoRA's shapes at '{module[:80]}' ({down} and {up}) do not fit the base model's {weight}."


def _checked_tensor(entry: dict, room: int) -> int:
    """Return where a tensor ends; raises ``ValueError`` when its entry is not sound."""
    begin, end = entry["data_offsets"]
    count = 1
    for side in entry["shape"]:
        if not isinstance(side, int) or isinstance(side, bool) or side < 1:
            raise ValueError
        count *= side
        if count > room:  # before it becomes a number of a million digits
            raise ValueError
    if not 0 <= begin <= end <= room or end - begin != count * _SIZES[entry["dtype"]]:
        raise ValueError
    return end
