"""Tokens of prompts are counted from the files of a tokenizer that are here; none of its code is run."""

import builtins
import json
import shutil
from pathlib import Path

import pytest

from trainers.adapter_file import Header, base_misfits
from trainers.assets import asset_root
from trainers.models import MODELS, readable
from trainers.models.readable import tokens_of

PROMPTS = ["a red circle", "a blue square left of a green triangle"]


@pytest.fixture(autouse=True)
def nothing_kept():
    readable._opened.cache_clear()
    yield
    readable._opened.cache_clear()


@pytest.fixture
def snapshot(folder, tmp_path, monkeypatch):
    """The folder as a model of the Hub in this machine's cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    place = tmp_path / "hub" / "models--owner--tiny-diffusion-copy"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    return Path(shutil.copytree(folder, place / "snapshots" / ("0" * 40)))


@pytest.fixture
def folder(tmp_path):
    model = shutil.copytree(asset_root() / "tiny-diffusion", tmp_path / "model")
    (model / "call.json").unlink(missing_ok=True)
    return model


def known():
    return tokens_of(MODELS.get("tiny-diffusion"), PROMPTS).lengths


@pytest.mark.parametrize("there", [("tokenizer_config.json",), ("tokenizer_config.json", "vocab.json"), ()])
def test_a_part_of_a_tokenizer_counts_nothing_and_is_not_remembered(there, folder, snapshot):
    """As a look at a model of the Hub leaves its cache, before the model is fetched."""
    for path in (snapshot / "tokenizer").iterdir():
        if path.name not in there:
            path.unlink()
    spec = MODELS.get("owner/tiny-diffusion-copy")
    assert tokens_of(spec, PROMPTS) is None
    shutil.copytree(folder / "tokenizer", snapshot / "tokenizer", dirs_exist_ok=True)
    assert tokens_of(spec, PROMPTS).lengths == known()


def test_a_model_of_the_hub_without_weights_here_is_not_held_against_a_lora(snapshot):
    """As the look at its small files leaves the cache; the LoRA is compared once the model is loaded."""
    header = Header({"unet.nothing.lora_A.weight": (4, 4), "unet.nothing.lora_B.weight": (4, 4)}, {})
    assert "which this base model does not have" in base_misfits(header, "owner/tiny-diffusion-copy")[0]
    for weights in snapshot.rglob("*.safetensors"):
        weights.unlink()
    assert base_misfits(header, "owner/tiny-diffusion-copy") == []


@pytest.mark.parametrize("kind", ["AutoTokenizer", "CLIPTokenizer", "AutoModel", "pipeline"])
def test_no_checkpoint_s_own_code_is_run_or_asked_for(kind, folder, tmp_path, monkeypatch, capfd):
    mark = tmp_path / "was-run"
    (folder / "tokenizer" / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))
    index = json.loads((folder / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", kind]
    (folder / "model_index.json").write_text(json.dumps(index))
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    found = tokens_of(MODELS.get(str(folder)), PROMPTS)
    assert not mark.exists() and (found.lengths == known() if kind == "CLIPTokenizer" else found is None)
    printed = capfd.readouterr()
    assert "remote_code" not in printed.out + printed.err
