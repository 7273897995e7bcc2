"""A LoRA as some tool left it, understood by its header: which modules it changes, and how strongly.

Read are diffusers' names of today and of earlier releases, PEFT's folders, and kohya's names. What a run
cannot begin from (DoRA, LyCORIS, several ranks, text encoders) is named in a sentence. Torch-free.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from trainers.adapter_file import PEFT_CONFIG, Header, find_adapter, read_header
from trainers.bounded_json import parse_json
from trainers.errors import InputError

_SIDES = {"A": "A", "B": "B", "down": "A", "up": "B"}
_PREFIXES = ("transformer", "unet", "base_model.model", "diffusion_model", "text_encoder_2", "text_encoder")
_PAIR = re.compile(r"(?P<module>.+?)[._]lora(?:_linear_layer)?[._](?P<side>A|B|down|up)(?:\.\w+)?\.weight")
_KOHYA = re.compile(
    r"lora_(?P<part>unet|transformer|te\d?)_(?P<module>\w+)\.lora_(?P<side>down|up|A|B)\.weight"
)
_FOREIGN = {
    "DoRA": re.compile(r"dora_scale|lora_magnitude_vector"),
    "LyCORIS (LoHa or LoKr)": re.compile(r"\.(?:hada_|lokr_|oft_|glora|a[12]\.weight)"),
    "LoCon with a middle matrix": re.compile(r"lora_mid"),
    "whole weights beside LoRA": re.compile(r"\.(?:diff|diff_b|set_weight)$"),
    "LoRA of biases": re.compile(r"lora_(?:A|B|up|down)(?:\.default)?\.bias"),
}
_UNFIT = "The LoRA in '{}' is {}, which a run cannot begin from. Save a plain LoRA."
_SCALARS = {"F64": "<d", "F32": "<f", "F16": "<e"}


@dataclass(frozen=True)
class StoredLora:
    """What a file says about its LoRA.

    Attributes:
        file: Where it is.
        flat: Whether modules are named as kohya's scripts do, with ``_`` for ``.``.
        foreign: Whether modules may be those of other code than diffusers'.
        network: ``transformer`` or ``unet`` where the names tell it, else empty.
        pairs: Module, as named in the file → side ``A`` or ``B`` → (tensor's name, its shape).
        alphas: Module → alpha where the file says it for each.
        settings: PEFT's settings of the LoRA, where the file or its folder has them.
    """

    file: Path
    flat: bool
    foreign: bool
    network: str
    pairs: Mapping[str, Mapping[str, tuple[str, tuple[int, ...]]]]
    alphas: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """Its rank, the same everywhere."""
        return next(pair["A"][1][0] for pair in self.pairs.values())

    def scale(self, module: str) -> float:
        """Return what the product B·A of a module is multiplied with; 1, as by diffusers, if nothing says."""
        if module in self.alphas:
            return self.alphas[module] / self.rank
        alpha = self.settings.get("lora_alpha")
        for pattern, other in (self.settings.get("alpha_pattern") or {}).items():
            if _matches(pattern, module):
                alpha = other
        if not isinstance(alpha, int | float):
            return 1.0
        return alpha / (math.sqrt(self.rank) if self.settings.get("use_rslora") else self.rank)


def _matches(pattern: str, module: str) -> bool:
    """Whether a key of PEFT's ``alpha_pattern`` means a module: its name, its end, or its escaped name."""
    name = _plain(pattern)
    return module == name or (not pattern.startswith("^") and module.endswith(f".{name}"))


def _plain(pattern: str) -> str:
    """Return the name in a pattern; PEFT takes any regular expression, and a stranger's may never end."""
    return pattern.removeprefix("^").removesuffix("$").removeprefix(r"(.*\.)?").replace(r"\.", ".")


def read_lora(place: str | os.PathLike) -> StoredLora:
    """Return what a LoRA says about itself.

    Args:
        place: A run folder, an adapter folder or a file.

    Raises:
        InputError: There is none, it is damaged, or a run cannot begin from its kind.
    """
    file = find_adapter(place)
    header = read_header(file)
    for kind, mark in _FOREIGN.items():
        if any(mark.search(name) for name in header.shapes):
            raise InputError(_UNFIT.format(place, kind))
    parsed = {name: found for name in header.shapes if (found := parsed_name(name))}
    others = [name for name in header.shapes if name not in parsed and not name.endswith(".alpha")]
    if others or not parsed:
        what = f"holds '{others[0][:80]}', which is no part of a LoRA" if others else "holds no LoRA"
        raise InputError(f"The file {file} {what} that a run can begin from.")
    if any(name.prefix.startswith(("te", "text_encoder")) for name in parsed.values()):
        raise InputError(
            f"The LoRA in '{place}' changes a text encoder as well, which stays as it is here. Save one of "
            "the denoiser alone."
        )
    return _checked(place, _gathered(file, header, parsed))


class _Name(NamedTuple):
    """A tensor's name taken apart."""

    prefix: str
    module: str
    side: str
    flat: bool


def parsed_name(name: str) -> _Name | None:
    """Take a tensor's name apart; None when it is none of a LoRA."""
    if match := _KOHYA.fullmatch(name):
        return _Name(match["part"], match["module"], _SIDES[match["side"]], True)
    if not (match := _PAIR.fullmatch(name)):
        return None
    prefix = next((p for p in _PREFIXES if name.startswith(f"{p}.")), "")
    module = match["module"].removeprefix(f"{prefix}.") if prefix else match["module"]
    module = module.replace(".processor.", ".")  # of diffusers before 0.22
    return _Name(
        prefix, f"{module}.0" if module.endswith(".to_out") else module, _SIDES[match["side"]], False
    )


def _gathered(file: Path, header: Header, parsed: Mapping[str, _Name]) -> StoredLora:
    pairs: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {}
    for name, taken in parsed.items():
        pairs.setdefault(taken.module, {})[taken.side] = (name, header.shapes[name])
    prefixes = {taken.prefix for taken in parsed.values()}
    flat = any(taken.flat for taken in parsed.values())
    # kohya's scripts call every network "unet".
    network = "" if flat else next((p for p in ("unet", "transformer") if p in prefixes), "")
    foreign = flat or "diffusion_model" in prefixes
    return StoredLora(file, flat, foreign, network, pairs, _alphas(file, header), _settings(file, header))


def _alphas(file: Path, header: Header) -> dict[str, float]:
    """Return the scalars that are stored beside the matrices, by module."""
    names = [name for name in header.shapes if name.endswith(".alpha")]
    if not names:
        return {}
    found = {}
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        entries = parse_json(stream.read(length))
        for name in names:
            begin, end = entries[name]["data_offsets"]
            stream.seek(8 + length + begin)
            value = _scalar(entries[name]["dtype"], stream.read(min(end - begin, 8)))
            if value is None:
                raise InputError(f"The LoRA in {file} stores '{name[:80]}' in a form that cannot be read.")
            module = name.removesuffix(".alpha")
            match = re.fullmatch(r"lora_(?:unet|transformer)_(\w+)", module)
            found[match[1] if match else _without_prefix(module)] = value
    return found


def _without_prefix(module: str) -> str:
    return next((module.removeprefix(f"{p}.") for p in _PREFIXES if module.startswith(f"{p}.")), module)


def _scalar(dtype: str, data: bytes) -> float | None:
    """Return the one number of a tensor, read without the libraries that know all types; None for others."""
    if dtype == "BF16":
        data, dtype = b"\0\0" + data, "F32"
    kind = _SCALARS.get(dtype)
    return struct.unpack(kind, data)[0] if kind and len(data) == struct.calcsize(kind) else None


def _settings(file: Path, header: Header) -> dict[str, Any]:
    """Return PEFT's settings out of the file's metadata, else out of the folder's ``adapter_config.json``."""
    text, beside = header.metadata.get("lora_adapter_metadata"), file.parent / PEFT_CONFIG
    refused = InputError(
        f"What the LoRA in {file} says about itself cannot be read: its metadata is damaged. Save it anew."
    )
    try:
        if text is not None:
            # diffusers puts the network's name before each setting.
            record = {key.rpartition(".")[2]: value for key, value in json.loads(text).items()}
        elif beside.is_file():
            record = dict(json.loads(beside.read_text(encoding="utf-8")))
        else:
            return {}
        alpha, patterns = record.get("lora_alpha"), record.get("alpha_pattern") or {}
        if alpha is not None and not 0 < float(alpha) < math.inf:
            raise refused
        if patterns and not all(re.fullmatch(r"[\w.]+", _plain(str(key))) for key in patterns):
            raise refused
        return record | {"alpha_pattern": {str(key): float(value) for key, value in patterns.items()}}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        raise refused from None


def _checked(place: str | os.PathLike, lora: StoredLora) -> StoredLora:
    """Return a LoRA from which a run can begin, or say why none can."""
    if lora.settings.get("use_dora"):
        raise InputError(_UNFIT.format(place, "DoRA"))
    half = [module for module, pair in lora.pairs.items() if len(pair) < 2 or not pair["A"][1]]
    if half:
        raise InputError(f"The LoRA in '{place}' has only one of the two matrices of '{half[0][:80]}'.")
    ranks = sorted({pair["A"][1][0] for pair in lora.pairs.values()})
    if len(ranks) > 1:
        raise InputError(
            f"The LoRA in '{place}' has several ranks ({', '.join(map(str, ranks[:6]))}), and a run trains "
            "one rank for all layers. Save it with one rank."
        )
    return lora


def own_names(lora: StoredLora, known: Collection[str]) -> dict[str, str]:
    """Return the network's own name of each module of a LoRA that it has.

    Args:
        lora: The LoRA.
        known: Names of the network's modules.
    """
    if not lora.flat:
        return {module: module for module in lora.pairs if module in known}
    flattened = {name.replace(".", "_"): name for name in known}
    return {module: flattened[module] for module in lora.pairs if module in flattened}
