"""What is said before and after the baseline, and why an adapter changes nothing, with causes that are
true.
"""

import pytest
import torch

from tests.faults.sessions import session, tiny_config
from trainers.cautions import cautions, trained_on, which
from trainers.cli import main
from trainers.errors import FaultError
from trainers.evaluate import Scores
from trainers.first_checks import after_baseline, unchanged_sentence
from trainers.notes import Notes
from trainers.presets import build_config
from trainers.run_folder import RunFolder

CODE = """
import torch
def constant(images, prompts):
    return [0.25] * len(images)
def rarely(images, prompts):
    return (images.mean((1, 2, 3)) > 2).float()
def none(images, prompts):
    pass
def breaks(images, prompts):
    raise RuntimeError("no such file: weights.pt")
def detached(images, prompts):
    return images.detach().mean((1, 2, 3))
detached.differentiable = True
"""


@pytest.fixture(autouse=True)
def own_code(monkeypatch):
    """As in a shell, whatever an import of the app has said in this process."""
    monkeypatch.setenv("RSM_ALLOW_OWN_CODE", "1")


@pytest.fixture
def reward(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)
    return f"{tmp_path}/mine.py"


@pytest.mark.parametrize("name", ["constant", "rarely"])
@pytest.mark.parametrize("estimator", ["grpo", "rsm_zeroth_order_flow"])
def test_a_reward_without_differences_is_named_at_the_baseline_and_at_the_end(
    name, estimator, reward, tmp_path
):
    run = tmp_path / "run"
    with pytest.raises(FaultError, match="gave all images that were compared the same value") as told:
        session(run, tiny_config(estimator, f"{reward}:{name}")).run()
    assert "Train longer" not in str(told.value)
    folder = RunFolder(run)
    assert "gave all 8 images of the base model the same value" in folder.read_notes()["constant_reward"]
    assert "the same value" in folder.log.read_text()


@pytest.mark.parametrize(("name", "words"), [("none", "it returned nothing"), ("breaks", "no such file")])
def test_a_reward_that_fails_does_so_before_an_image_is_drawn(name, words, reward, tmp_path):
    with pytest.raises(FaultError, match=words):
        session(tmp_path / "run", tiny_config("grpo", f"{reward}:{name}")).run()
    assert not list((tmp_path / "run" / "samples").glob("**/*.png"))


def test_a_gradient_that_is_not_there_is_missed_before_an_image_is_drawn(reward, tmp_path):
    with pytest.raises(FaultError, match="declared differentiable"):
        session(tmp_path / "run", tiny_config("vgg_flow", f"{reward}:detached")).run()
    assert not list((tmp_path / "run" / "samples").glob("**/*.png"))


@pytest.mark.parametrize(
    ("metrics", "groups", "constant", "words"),
    [
        ([{"zero_spread_groups": 4, "grad_norm": 0.0}] * 2, 4, False, "the same value"),
        ([{"zero_spread_groups": 3, "grad_norm": 1.0}], 4, False, "larger learning_rate"),
        ([{"zero_spread_groups": 0, "grad_norm": 0.0}], 0, False, "no direction"),
        ([], 4, True, "the same value"),
        ([], 0, False, "larger learning_rate"),
    ],
)
def test_why_nothing_changed(metrics, groups, constant, words):
    assert words in unchanged_sentence(metrics, groups, constant)


def noted(tmp_path, reward, used, still, **settings):
    folder = RunFolder(tmp_path)
    scores = Scores(torch.tensor(reward), {}, 0.0, torch.zeros(1))
    after_baseline(scores, tiny_config(**settings), used, still, Notes(folder))
    return folder.read_notes()


def test_a_budget_without_room_is_noted_with_what_was_measured(tmp_path):
    found = noted(tmp_path, [0.1, 0.2], used=40.0, still=50.0, budget_seconds=60)
    assert "budget of 60 s has no room" in found["budget"] and "about 90 s" in found["budget"]
    assert noted(tmp_path, [0.1, 0.2], used=1.0, still=2.0, budget_seconds=60) == {}, "it is taken back"


def test_rounding_noise_is_no_difference(tmp_path):
    assert "constant_reward" in noted(tmp_path, [0.3, 0.3, 0.3 + 1e-9], 0.0, 0.0)


# -- cautions ----------------------------------------------------------------------------------------


def test_compared_prompts_that_are_trained_on_are_counted_spaces_and_case_aside():
    training = ["A red  circle", "a blue square"]
    assert trained_on(training, ["a red circle", "a red circle", "a star", "A BLUE SQUARE "]) == 2


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ("a red circle\na blue square\na green triangle\n", "2 of the 3 prompts of the comparison are"),
        ("a red circle\na yellow triangle\n", "1 of the 2 prompts of the comparison is"),
        ("a red circle\n", "The one prompt of the comparison is"),
        ("a red circle\na blue square\n", "All 2 prompts of the comparison are"),
        ("a yellow triangle\n", None),
    ],
)
def test_overlap_is_said_by_dry_run_note_report_and_verdict(held, words, tmp_path, capsys):
    for name, text in (("train", "a red  circle\na blue square\n"), ("held", held)):
        (tmp_path / f"{name}.txt").write_text(text)
    files = {"prompts": str(tmp_path / "train.txt"), "heldout_prompts": str(tmp_path / "held.txt")}
    found = cautions(tiny_config(**files, eval_prompts=3)).get("overlap")
    assert (words in found) if words else found is None
    options = [f"--{name.replace('_', '-')}={path}" for name, path in files.items()]
    assert main(["train", *options, "--dry-run"]) == 0
    assert ("trained on as well" in capsys.readouterr().err) == bool(words)
    if words and words.startswith("2"):
        run = tmp_path / "run"
        status = session(run, tiny_config(**files, eval_prompts=3)).run()
        report = RunFolder(run).read_report()
        assert report["prompts_trained_on"] == 2 and any(words in note for note in report["notes"])
        assert "held-out" not in status.message and "2 of whose 3 prompts are trained on" in status.message


def test_few_steps_that_somebody_asked_for_are_held_against_the_comparison_s():
    def said(model, **settings):
        return cautions(build_config(model, "grpo", "brightness", settings)).get("steps", "")

    assert "set eval_steps=4" in said("sdxl", rollout_steps=4)
    assert said("sdxl", rollout_steps=4, eval_steps=4) == ""
    assert said("sd35-medium") == said("sd15") == said("flux-schnell", rollout_steps=4) == ""


def test_a_budget_too_small_for_its_comparison_is_said_before_the_start():
    assert "has no room for training" in cautions(tiny_config(budget_seconds=10, eval_prompts=128))["budget"]
    assert "budget" not in cautions(tiny_config(budget_seconds=600))


@pytest.mark.parametrize("report", [{}, {"prompts_trained_on": 0, "prompts": 4}, {"prompts_trained_on": "2"}])
def test_a_comparison_is_called_held_out_when_it_is(report):
    assert which(report, "pictures") == "held-out pictures" and which(report, "prompts") == "held-out prompts"


def test_a_comparison_on_training_prompts_is_never_called_held_out():
    report = {"prompts_trained_on": 2, "prompts": 3}
    assert which(report, "pictures") == "pictures, 2 of whose 3 prompts are trained on"
    assert which(report, "prompts") == "prompts of which 2 of 3 are trained on"
    whole = {"prompts_trained_on": 3, "prompts": 3}
    assert which(whole, "pictures") == "pictures of training prompts"
    assert which(whole, "prompts") == "prompts that are trained on"
