"""What a LoRA's file says about itself is found in one reading, and nothing in it is taken for a program."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainers import bounded_json, stored_lora
from trainers.adapter_file import find_adapter
from trainers.errors import InputError
from trainers.stored_lora import StoredLora, read_lora


def test_checkpoints_of_a_training_beside_each_other_are_not_chosen_from(tmp_path):
    for name in ("checkpoint-100", "checkpoint-200"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 2}')
        save_file({"x.lora_A.weight": torch.zeros(2, 2)}, tmp_path / name / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"There are 2 LoRAs in .*\(checkpoint-100, checkpoint-200\)"):
        read_lora(tmp_path)
    shutil.rmtree(tmp_path / "checkpoint-200")
    assert find_adapter(tmp_path).parent.name == "checkpoint-100"


@pytest.mark.parametrize(
    ("pattern", "module", "matches"),
    [
        ("attn.to_q", "blocks.0.attn.to_q", True),
        ("attn.to_q", "attn.to_q", True),
        ("to_q", "blocks.0.attn.xto_q", False),
        (r"^blocks\.0\.attn\.to_q$", "blocks.0.attn.to_q", True),
        (r"^attn\.to_q", "blocks.0.attn.to_q", False),
        (r"(.*\.)?blocks\.0\.attn\.to_q$", "x.blocks.0.attn.to_q", True),
    ],
)
def test_patterns_of_alphas_are_names(pattern, module, matches):
    stored = StoredLora(Path("x"), False, False, "", {module: {"A": ("", (4, 2))}}, settings={
        "lora_alpha": 4, "alpha_pattern": {pattern: 8.0}
    })  # fmt: skip
    assert stored.scale(module) == (2.0 if matches else 1.0)


def test_alphas_of_many_modules_are_read_in_one_go(tmp_path, monkeypatch):
    """A header is as long as the list of modules, so reading it for each takes their square."""
    tensors = {}
    for number in range(300):
        name = f"lora_unet_block_{number}_to_q"
        tensors[f"{name}.lora_down.weight"] = torch.zeros(2, 4)
        tensors[f"{name}.lora_up.weight"] = torch.zeros(4, 2)
        kind = (torch.float32, torch.float16, torch.bfloat16, torch.float64)[number % 4]
        tensors[f"{name}.alpha"] = torch.tensor(number + 1.0, dtype=kind)
    save_file(tensors, tmp_path / "a.safetensors")
    parsed = []
    monkeypatch.setattr(
        stored_lora, "parse_json", lambda data: parsed.append(len(data)) or bounded_json.parse_json(data)
    )
    alphas = read_lora(tmp_path / "a.safetensors").alphas
    assert len(parsed) == 1 and len(alphas) == 300
    assert [alphas[f"block_{number}_to_q"] for number in range(256)] == [n + 1.0 for n in range(256)]
