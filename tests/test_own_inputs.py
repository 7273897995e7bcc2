"""A run owns what its numbers depend on: its prompts, and digests of its rewards, base model and settings."""

import json
import os
import shutil

import pytest

from tests.faults.sessions import same, session, tiny_config
from trainers.assets import asset_root
from trainers.cli import main
from trainers.errors import FaultError, InputError
from trainers.opening import reopen, start
from trainers.run_folder import RunFolder, read_json
from trainers.run_inputs import confirm_model, input_problems

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


@pytest.fixture
def hub_model(tmp_path, monkeypatch):
    """A model of the Hub in this machine's cache; returns what makes a revision of it the newest one."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    place = tmp_path / "hub" / "models--owner--model"
    (place / "refs").mkdir(parents=True)

    def newest(revision):
        snapshot = place / "snapshots" / (revision * 40)
        if not snapshot.exists():
            shutil.copytree(asset_root() / "tiny-flow", snapshot)
            (snapshot / "call.json").unlink(missing_ok=True)
        (place / "refs" / "main").write_text(revision * 40)
        return snapshot

    return newest


def test_a_new_revision_of_the_same_weights_is_the_same_base_model(hub_model, tmp_path):
    """Its page was edited, or a file was added that no pipeline reads."""
    hub_model("a")
    config = tiny_config(model="owner/model", heldout_prompts="shapes-heldout", prompts="shapes-train")
    folder = start(tmp_path / "run", config)
    confirm_model(folder, config)
    (hub_model("b") / "README.md").write_text("A better description.\n")
    assert input_problems(folder, config) == []
    confirm_model(folder, config)
    weights = next((hub_model("c") / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert input_problems(folder, config) == [], "what the Hub has now is known once it is here"
    with pytest.raises(FaultError, match="base model owner/model has changed .*transformer/"):
        confirm_model(folder, config)


def test_a_half_fetched_model_of_the_hub_is_no_other_model(hub_model, tmp_path):
    snapshot = hub_model("a")
    config = tiny_config(model="owner/model", heldout_prompts="shapes-heldout", prompts="shapes-train")
    shutil.rmtree(snapshot / "vae")
    folder = start(tmp_path / "run", config)
    shutil.copytree(asset_root() / "tiny-flow" / "vae", snapshot / "vae")
    confirm_model(folder, config)
    shutil.rmtree(snapshot / "text_encoder")
    assert input_problems(folder, config) == []


def test_a_run_may_lie_inside_the_folder_of_its_base_model(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(asset_root() / "tiny-flow", model)
    (model / "call.json").unlink(missing_ok=True)
    values = {"heldout_prompts": "shapes-heldout", "prompts": "shapes-train", "model": str(model)}
    status = session(model / "runs" / "one", tiny_config(**values), stop(RunFolder(model / "runs" / "one")))
    assert status.run().state == "stopped"
    (model / "notes").mkdir()
    (model / "notes" / "mine.json").write_text("{}")
    reopen(model / "runs" / "one")


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b"x" * 2**24 + b"x", b"\xff"])
def test_a_record_that_cannot_be_read_guards_nothing_and_is_told(damage, prompts, tmp_path):
    folder = start(tmp_path / "run", tiny_config(heldout_prompts=str(prompts)))
    folder.inputs_record.write_bytes(damage)
    with pytest.raises(FaultError, match="inputs.json cannot be read, and it says which prompts"):
        reopen(folder.path)


def test_a_large_package_beside_a_reward_is_recorded_as_one(reward, tmp_path):
    for number in range(300):
        (tmp_path / "near" / f"part_{number}.py").write_text(f"x = {number}\n")
    folder = start(tmp_path / "run", tiny_config(reward=f"{reward}:f"))
    assert len(read_json(folder.inputs_record)["rewards"]) == 2
    reopen(folder.path)
    (tmp_path / "near" / "part_7.py").write_text("x = 8\n")
    with pytest.raises(InputError, match="near has changed since the run began"):
        reopen(folder.path)


def test_names_of_prompts_and_rewards_need_not_be_text(tmp_path, capsys):
    """Any bytes may name a file; a settings file of JSON keeps them as halves of surrogate pairs."""
    place = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        place.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (place / "held.txt").write_text("\n".join(HELD))
    (place / "mine.py").write_text("def f(images, prompts):\n    return images.mean((1, 2, 3))\n")
    begun(tmp_path, heldout_prompts=str(place / "held.txt"), reward=f"{place / 'mine.py'}:f")
    _, config = reopen(tmp_path / "run")
    assert config.reward == f"{place / 'mine.py'}:f"
    assert main(["resume", str(tmp_path / "run")]) == 0
    shown = RunFolder(tmp_path / "run").read_config().values()
    assert all("\udce9" not in str(value) for value in shown), "no page, database or network takes it"
    words = ["--reward", "brightness", "--estimator", "grpo", "--dry-run"]
    shutil.copytree(asset_root() / "tiny-flow", place / "model")
    assert main(["train", "--model", str(place / "model"), *words]) == 2
    assert "has bytes that are no UTF-8, at which safetensors opens no file" in capsys.readouterr().err
