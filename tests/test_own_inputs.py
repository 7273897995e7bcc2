"""A run owns what its numbers depend on: its prompts, and digests of its rewards, base model and settings."""

import json
import shutil

import pytest

from tests.faults.sessions import same, session, tiny_config
from trainers.assets import asset_root
from trainers.cli import main
from trainers.errors import InputError
from trainers.opening import reopen
from trainers.run_folder import RunFolder

HELD = ["a red circle", "a blue square", "two green triangles", "a yellow star", "a red square"]


@pytest.fixture(autouse=True)
def own_code(monkeypatch):
    """As in a shell, whatever an import of the app has said in this process."""
    monkeypatch.setenv("RSM_ALLOW_OWN_CODE", "1")


def stop(folder):
    """A listener that asks for a stop at the first training status."""

    def listen(status):
        if status.phase == "train" and status.state == "running":
            folder.request_stop()

    return listen


def begun(tmp_path, **changes):
    """Return a run that was stopped after its baseline, before the first update."""
    path = tmp_path / "run"
    status = session(path, tiny_config(**changes), stop(RunFolder(path))).run()
    assert status.state == "stopped" and status.updates == 0
    return RunFolder(path)


def pairs(folder):
    return [(pair["prompt"], pair["seed"]) for pair in folder.read_pairs()]


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "held.txt"
    file.write_text("\n".join(HELD))
    return file


@pytest.mark.parametrize("change", ["edited", "shuffled", "removed", "now a folder"])
def test_a_prompt_file_that_changes_after_the_start_changes_nothing(change, prompts, tmp_path):
    whole = tmp_path / "whole"
    files = {"prompts": str(prompts), "heldout_prompts": str(prompts)}
    assert session(whole, tiny_config(**files)).run().state == "succeeded"
    folder = begun(tmp_path, **files)
    prompts.unlink()
    if change in ("edited", "shuffled"):
        prompts.write_text("\n".join(HELD[::-1] if change == "shuffled" else ["a blue circle"] * 5))
    if change == "now a folder":
        prompts.mkdir()
    assert session(folder.path).run().state == "succeeded"
    same(folder.path, whole)
    assert [prompt for prompt, _ in pairs(folder)[::2]] == HELD[:4]


def test_the_run_s_own_copy_is_not_to_be_edited(prompts, tmp_path):
    folder = begun(tmp_path, heldout_prompts=str(prompts))
    (folder.inputs / "heldout_prompts.txt").write_text("\n".join(HELD[::-1]))
    with pytest.raises(InputError, match="own copy of its prompts.*heldout_prompts.txt"):
        reopen(folder.path)


def test_base_images_of_a_run_that_kept_no_copy_are_drawn_again_for_other_prompts(prompts, tmp_path):
    """As earlier versions left their runs: the file is named, and only its rewards' file says what was
    drawn.
    """
    folder = begun(tmp_path, heldout_prompts=str(prompts))
    shutil.rmtree(folder.inputs)
    (folder.samples / "baseline.json").unlink()
    before = (folder.samples / "before" / "00000.png").read_bytes()
    prompts.write_text("\n".join(HELD[1:] + HELD[:1]))
    assert session(folder.path).run().state == "succeeded"
    assert [prompt for prompt, _ in pairs(folder)[::2]] == HELD[1:5]
    assert (folder.samples / "before" / "00000.png").read_bytes() != before


CODE = "from near import GAIN\ndef f(images, prompts):\n    return images.mean((1, 2, 3)) * GAIN\n"


@pytest.fixture
def reward(tmp_path):
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "__init__.py").write_text("from .deep import GAIN\n")
    (tmp_path / "near" / "deep.py").write_text("GAIN = 1.0\n")
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "unrelated.py").write_text("x = 1\n")
    return tmp_path / "mine.py"


@pytest.mark.parametrize("file", ["mine.py", "near/__init__.py", "near/deep.py"])
def test_a_reward_that_changed_is_refused_by_name(file, reward, tmp_path):
    folder = begun(tmp_path, reward=f"{reward}:f")
    (tmp_path / "unrelated.py").write_text("x = 2\n")
    reopen(folder.path)
    kept = (tmp_path / file).read_text()
    (tmp_path / file).write_text(kept + "# edited\n")
    with pytest.raises(InputError, match=f"reward file .*{file} has changed since the run began"):
        reopen(folder.path)
    (tmp_path / file).unlink()
    with pytest.raises(InputError, match=f"{file}.* (has changed|does not exist)"):
        reopen(folder.path)
    (tmp_path / file).write_text(kept)
    assert session(folder.path).run().state == "succeeded"


def test_another_base_model_in_the_same_folder_is_refused_by_name(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(asset_root() / "tiny-flow", model)
    (model / "call.json").unlink(missing_ok=True)
    path = tmp_path / "run"
    values = {"heldout_prompts": "shapes-heldout", "prompts": "shapes-train"}
    from trainers.opening import start

    start(path, tiny_config(model=str(model), **values))
    (model / "README.md").write_text("Anybody may write here.\n")
    (model / "vae" / "._diffusion_pytorch_model.safetensors").write_text("of a Mac")
    reopen(path)
    weights = next((model / "transformer").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="base model .* has changed .*transformer/"):
        reopen(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lora_rank", 32),
        ("seed", 7),
        ("reward", "contrast"),
        ("eval_prompts", 3),
        ("branches", [4]),
        ("eval_steps", 2),
    ],
)
def test_an_edited_setting_is_refused_by_name_and_the_command_ends_with_two(name, value, tmp_path, capsys):
    folder = begun(tmp_path)
    settings = json.loads(folder.config.read_text())
    folder.config.write_text(json.dumps(settings | {name: value}))
    assert main(["resume", str(folder.path)]) == 2
    assert f"'{name}' was " in capsys.readouterr().err
    assert folder.status().state == "stopped", "a refusal is no failure of the run"
    folder.config.write_text(json.dumps(settings))
    reopen(folder.path)


@pytest.mark.parametrize(
    "changes", [{"threads": 2}, {"micro_batch": 32, "checkpoint_seconds": 1.0}, {"probe_every": 2}]
)
def test_what_says_only_how_a_run_works_may_be_edited(changes, tmp_path):
    folder = begun(tmp_path)
    folder.config.write_text(json.dumps(json.loads(folder.config.read_text()) | changes))
    reopen(folder.path)
