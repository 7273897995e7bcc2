"""A dry run makes every part of a folder from its small files: what a class would refuse is told at once."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from tests.models.tiny_pipelines import save
from trainers.cli import main
from trainers.errors import FaultError, InputError
from trainers.models import MODELS
from trainers.models.access import access_problems
from trainers.models.base import load_model
from trainers.models.trial_parts import part_trials

BROKEN = {
    "a list that the class needs": ("unet/config.json", {"down_block_types": None}, "The unet of"),
    "a number of nothing": ("unet/config.json", {"norm_num_groups": 0}, "The unet of"),
    "another depth than the weights'": (
        "unet/config.json",
        {"block_out_channels": [64, 32]},
        "in the weights",
    ),
    "another width than the weights'": ("text_encoder/config.json", {"intermediate_size": 48}, "(48,"),
    "an activation that is none": (
        "text_encoder/config.json",
        {"hidden_act": "gelu_fast_new"},
        "text_encoder",
    ),
    "channels that are none": ("vae/config.json", {"latent_channels": "four"}, "The vae of"),
    "a schedule that is none": ("scheduler/scheduler_config.json", {"beta_schedule": "steep"}, "scheduler"),
    "a vocabulary that is none": ("tokenizer/tokenizer.json", {"model": {"type": "Nothing"}}, "tokenizer"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return save("tiny-sd15", tmp_path_factory.mktemp("plain") / "model")


@pytest.mark.parametrize("case", BROKEN)
def test_what_a_class_refuses_is_told_by_the_part(case, plain, tmp_path, capsys):
    file, change, words = BROKEN[case]
    folder = shutil.copytree(plain, tmp_path / "model")
    path = folder / file
    record = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: value for name, value in record.items() if value is not None}))
    spec = MODELS.get(str(folder))
    assert access_problems(spec) == []
    (told,) = part_trials(spec)
    assert words in told and told.endswith("Fetch it anew.")
    dry = ["train", "--model", str(folder), "--reward", "brightness", "--estimator", "ppo", "--dry-run"]
    assert main(dry) == 2 and told in capsys.readouterr().err
    with pytest.raises(Exception, match="."):  # it would have failed then
        load_model(spec).sample(["a red circle"], [3])


def test_a_tokenizer_that_does_not_say_how_much_it_reads_is_told(plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "model")
    (folder / "tokenizer" / "tokenizer_config.json").write_text("{}")
    assert "has no model_max_length" in part_trials(MODELS.get(str(folder)))[0]


@pytest.mark.parametrize("value", [None, False, "x", {}])
def test_a_part_that_a_pipeline_does_without_is_no_part_in_any_other_form(value, plain, tmp_path):
    """``[null, null]`` says that there is none; diffusers fails on anything else."""
    folder = shutil.copytree(plain, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"feature_extractor": value}))
    with pytest.raises(InputError, match="names feature_extractor in a form that cannot be read"):
        MODELS.get(str(folder))


@pytest.mark.parametrize("how", ["a tensor is gone", "a deeper network"])
def test_weights_without_a_tensor_are_told_before_and_at_the_load(how, tmp_path):
    folder = save("tiny-flux", tmp_path / "model")
    part = folder / "transformer"
    if how == "a deeper network":
        config = json.loads((part / "config.json").read_text())
        (part / "config.json").write_text(json.dumps(config | {"num_layers": config["num_layers"] + 1}))
    else:
        (path,) = part.glob("*.safetensors")
        tensors = load_file(path)
        del tensors[min(name for name in tensors if name.startswith("transformer_blocks."))]
        save_file(tensors, path, {"format": "pt"})
    spec = MODELS.get(str(folder))
    (told,) = part_trials(spec)
    assert "transformer_blocks." in told and "is missing in the weights" in told
    with pytest.raises(FaultError, match=r"weights of .* are incomplete: transformer\.transformer_blocks\."):
        load_model(spec)


def test_weights_with_the_names_of_earlier_attention_blocks_are_whole(plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "model")
    (path,) = (folder / "vae").glob("*.safetensors")
    earlier = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in load_file(path).items():
        for new, old in earlier.items():
            name = name.replace(f".{new}.", f".{old}.") if ".attentions." in name else name
        tensors[name] = tensor
    assert any(".query." in name for name in tensors)
    save_file(tensors, path, {"format": "pt"})
    spec = MODELS.get(str(folder))
    assert part_trials(spec) == []
    load_model(spec)


def test_embedded_models_and_those_that_are_not_here_are_not_looked_at():
    assert part_trials(MODELS.get("tiny-flow")) == part_trials(MODELS.get("sd15")) == []
