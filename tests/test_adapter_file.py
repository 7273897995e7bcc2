"""A LoRA file is judged by its header; what does not fit is refused with the reason."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from trainers.adapter_file import WEIGHTS, Header, find_adapter, misfits, read_header
from trainers.adapter_start import checked_start
from trainers.config import RunConfig
from trainers.errors import InputError

BASE = {"a.weight": (6, 5), "c.weight": (8, 4, 3, 3)}
FITTING = {
    "unet.a.lora_A.weight": (2, 5),
    "unet.a.lora_B.weight": (6, 2),
    "unet.c.lora_A.weight": (2, 4, 3, 3),
    "unet.c.lora_B.weight": (8, 2, 1, 1),
}


def test_a_fitting_lora_fits():
    assert misfits(Header(FITTING, {}), "unet", BASE) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unet.a.lora_A.weight": (2, 4)}, "do not fit"),
        ({"unet.a.lora_B.weight": (7, 2)}, "do not fit"),
        ({"unet.a.lora_B.weight": (6, 3)}, "do not fit"),
        ({"unet.c.lora_B.weight": (8, 2, 3, 3)}, "do not fit"),
        ({"unet.b.lora_A.weight": (2, 5), "unet.b.lora_B.weight": (6, 2)}, "does not have"),
        ({"transformer.a.lora_A.weight": (2, 5)}, "no part of a LoRA"),
        ({"unet.a.weight": (6, 5)}, "no part of a LoRA"),
    ],
)
def test_one_that_does_not_says_why(change, reason):
    assert reason in misfits(Header(FITTING | change, {}), "unet", BASE)[0]


def test_half_a_pair_does_not_fit():
    shapes = {name: shape for name, shape in FITTING.items() if "a.lora_B" not in name}
    assert "do not fit" in misfits(Header(shapes, {}), "unet", BASE)[0]


WHOLE = save({"x.lora_A.weight": torch.zeros(2, 3)}, {"format": "pt"})


@given(cut=st.integers(0, len(WHOLE) - 1))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory, cut):
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    path.write_bytes(WHOLE[:cut])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read_header(path)


@pytest.mark.parametrize(
    "record",
    [
        {"x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 20]}},
        {"x": {"dtype": "F32", "shape": [2, -3], "data_offsets": [0, 24]}},
        {"x": {"dtype": "OBJ", "shape": [2, 3], "data_offsets": [0, 24]}},
        {"x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [4, 28]}},
        {"x": {"shape": [2, 3]}},
        {"x": 3},
        {},
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, record):
    header = json.dumps(record).encode()
    path = tmp_path / "lie.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))
    with pytest.raises(InputError):
        read_header(path)


def test_a_header_longer_than_the_file_is_not_read(tmp_path):
    path = tmp_path / "long.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError):
        read_header(path)


def test_a_run_an_adapter_folder_and_a_file_are_found(tmp_path):
    file = tmp_path / "run" / "adapter" / WEIGHTS
    file.parent.mkdir(parents=True)
    file.write_bytes(WHOLE)
    assert find_adapter(tmp_path / "run") == find_adapter(file.parent) == find_adapter(file) == file
    with pytest.raises(InputError, match="There is no LoRA"):
        find_adapter(tmp_path)


def test_every_reason_is_told_together(tmp_path):
    metadata = {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 8.0})}
    pair = {"lora_A": torch.zeros(4, 3), "lora_B": torch.zeros(3, 4)}
    tensors = {f"transformer.x.{side}.weight": value for side, value in pair.items()}
    save_file(tensors, tmp_path / WEIGHTS, metadata)
    with pytest.raises(InputError) as caught:
        checked_start(RunConfig(start_adapter=str(tmp_path)))
    told = str(caught.value)
    assert "rank 4" in told and "does not have" in told and "alpha" not in told
