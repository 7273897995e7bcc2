"""The custom row: what composes, and what is refused with which reason; every named row obeys the rules."""

import itertools

import pytest
import torch

from tests.estimators.toy_model import WORDS, Smooth, ToyModel
from trainers.coercion import from_mapping, parse_assignments
from trainers.config import RunConfig
from trainers.custom import CHOICES, compose, method_of, parts_of, row_problems, setting_problems
from trainers.errors import InputError
from trainers.loop import Trainer
from trainers.methods import METHODS
from trainers.presets import build_config

pytestmark = pytest.mark.usefixtures("one_thread")
GRADIENT_ROW = ("order=first", "objective=regression", "weight=one", "trust_region=none", "anchor=ref")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_named_row_obeys_the_rules_and_can_be_composed(method):
    assert row_problems(method) == []
    composed = compose(parts_of(method))
    assert composed.target == method.target
    assert all(getattr(composed, name) == getattr(method, name) for name in CHOICES)


def test_without_parts_the_custom_row_is_grpo():
    custom, grpo = METHODS.get("custom"), METHODS.get("grpo")
    assert all(getattr(custom, name) == getattr(grpo, name) for name in CHOICES)


def test_only_the_custom_estimator_reads_the_row():
    assert method_of(RunConfig(estimator="custom", row=GRADIENT_ROW)).order == "first"
    assert method_of(RunConfig(estimator="grpo")) == METHODS.get("grpo")


def test_parts_come_from_the_command_line():
    values = parse_assignments(["estimator.weight=schedule_mean", "seed=3", "estimator.objective=matching"])
    assert values == {"seed": "3", "row": "weight=schedule_mean,objective=matching"}
    config = from_mapping({"estimator": "custom", **values})
    assert config.row == ("weight=schedule_mean", "objective=matching")
    assert from_mapping({**values, "row": list(config.row)}).row == config.row


def refused(*parts):
    with pytest.raises(InputError) as caught:
        compose(parts)
    return caught.value.problems


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (["waight=one"], ["estimator.waight", "weight"]),
        (["weight=heavy"], ["heavy", "natural"]),
        (["order=first"], ["objective=regression"]),
        (["objective=regression"], ["trust_region=none"]),
        (["anchor=ref"], ["anchor=old"]),
        (["branching=none"], ["noise"]),
        (["weight=forward_one"], ["branching=none"]),
        (["kl=all"], ["per_step"]),
        (["kl=anchors"], ["per_step"]),
        (["kl=some"], ["kl", "rows"]),
        (["steps=random"], ["steps", "stratified"]),
        (["last_step=True"], ["last_step", "yes"]),
        (["normalised=yes"], ["forward process"]),
        (["trust_region=old"], ["regression"]),
        (["weight=score"], ["objective=regression"]),
        (["nonsense"], ["nonsense"]),
    ],
)
def test_parts_that_do_not_go_together_are_refused_with_the_reason(parts, words):
    told = " ".join(refused(*parts))
    assert all(word in told for word in words)


def test_a_row_of_an_earlier_version_is_still_read():
    row = compose(["branching=none", "weight=forward_one", "kl=plain"])
    assert (row.kl, row.kl_scale) == ("rows", "output")


def test_all_problems_are_told_together():
    assert len(refused("waight=one", "order=third", "kl=much")) == 3


@pytest.mark.parametrize(
    ("estimator", "settings", "word"),
    [
        ("ram", {"kl_weight": 0.0}, "kl_weight"),
        ("sqdf", {"kl_weight": 0.0}, "kl_weight"),
        ("grpo", {"replay_size": 5}, "replay_size"),
        ("grpo", {"row": GRADIENT_ROW}, "custom"),
    ],
)
def test_settings_that_a_row_cannot_use_are_refused(estimator, settings, word):
    method = METHODS.get(estimator)
    found = setting_problems(method, RunConfig(estimator=estimator, **settings))
    assert any(word in sentence for sentence in found)
    with pytest.raises(InputError, match=word):
        build_config("tiny-flow", estimator, "tiny_clip", settings)


def test_the_reward_must_fit_the_composed_row():
    row = ",".join(GRADIENT_ROW)
    assert build_config("tiny-flow", "custom", "tiny_clip", {"row": row}).row == GRADIENT_ROW
    with pytest.raises(InputError, match="black box"):
        build_config("tiny-flow", "custom", "shapes", {"row": row})


def valid_rows():
    """Every valid combination of the parts that change the code path."""
    names = ("order", "branching", "objective", "lookahead", "anchor", "weight", "trust_region", "kl")
    for values in itertools.product(*(CHOICES[name] for name in names)):
        parts = [f"{name}={value}" for name, value in zip(names, values, strict=True)]
        try:
            compose(parts)
        except InputError:
            continue
        yield parts


@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_a_sample_of_all_valid_rows_trains(family):
    """What the rules let through must work: finite losses, and a LoRA that moves."""
    rows = list(valid_rows())
    assert len(rows) > 300
    picked = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:40].tolist()
    for parts in (rows[i] for i in picked):
        config = RunConfig(
            estimator="custom",
            row=tuple(parts),
            rollout_steps=4,
            branches=(3, 3),
            prompts_per_update=3,
            group_size=3,
            lora_rank=2,
            kl_weight=0.05,
        )
        trainer = Trainer(config, ToyModel(family), Smooth(), WORDS, torch.float32)
        before = trainer.policy.state()
        trainer.advance()
        after = trainer.policy.state()
        assert any(not torch.equal(before[name], after[name]) for name in before), parts


NEW = (
    "groups",
    "drops_silent",
    "steps",
    "last_step",
    "lookahead_network",
    "train_unconditional",
    "average",
    "kl_scale",
)


def test_every_part_is_a_field_of_a_row_and_takes_all_its_values():
    for name, values in CHOICES.items():
        for value in values:
            meant = value == "yes" if set(values) == {"no", "yes"} else value
            assert isinstance(getattr(METHODS.get("custom"), name), type(meant))
    for name in NEW:
        for value in CHOICES[name]:
            composed = compose([f"{name}={value}"])
            assert getattr(composed, name) == (value == "yes" if value in ("yes", "no") else value)


@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_parts_that_change_no_path_go_with_any_row(family):
    """What belongs to a whole update: random values of it over random valid rows, all of which must train."""
    rows = list(valid_rows())
    source = torch.Generator().manual_seed(1)
    seen = set()
    for number in torch.randperm(len(rows), generator=source)[:25].tolist():
        drawn = {
            name: CHOICES[name][int(torch.randint(len(CHOICES[name]), (1,), generator=source))]
            for name in NEW
        }
        parts = tuple(rows[number]) + tuple(f"{name}={value}" for name, value in drawn.items())
        seen |= set(drawn.items())
        trainer = custom(
            family, parts, updates_per_rollout=2, old_decay_max=0.5, old_weight=0.3, guidance_scale=2.0
        )
        before = trainer.policy.state()
        records = trainer.advance()
        after = trainer.policy.state()
        assert len(records) == 2
        assert any(not torch.equal(before[name], after[name]) for name in before), parts
    assert seen == {(name, value) for name in NEW for value in CHOICES[name]}


class SilentOnDots(Smooth):
    """Has no opinion on pictures of one prompt."""

    def __call__(self, images, prompts, metadata=None):
        said = torch.tensor([prompt != "dot" for prompt in prompts])
        return super().__call__(images, prompts) * said


def custom(family, parts, reward=None, **settings):
    base = {
        "rollout_steps": 4,
        "branches": (3, 3),
        "prompts_per_update": 3,
        "group_size": 3,
        "lora_rank": 2,
        "kl_weight": 0.05,
    }
    config = RunConfig(estimator="custom", row=tuple(parts), **(base | settings))
    return Trainer(config, ToyModel(family), reward or Smooth(), WORDS, torch.float32)


def learned(parts, family="flow", **settings):
    """The LoRA after three rollouts of two updates."""
    trainer = custom(family, parts, updates_per_rollout=2, **settings)
    for _ in range(3):
        trainer.advance()
    return torch.cat([tensor.flatten() for tensor in trainer.policy.state().values()])


FIRST_NEXT = (*GRADIENT_ROW, "branching=trajectory", "lookahead=next")
EFFECTS = [
    ("groups", (), {"group_size": 16}),
    ("drops_silent", ("branching=per_step",), {"prompts_per_update": 5, "reward": SilentOnDots()}),
    ("steps", (*GRADIENT_ROW, "branching=trajectory"), {"train_fraction": 0.5}),
    ("last_step", (), {}),
    ("last_step", (*GRADIENT_ROW, "branching=trajectory"), {}),
    ("lookahead_network", FIRST_NEXT, {"learning_rate": 0.02}),
    ("train_unconditional", (), {"guidance_scale": 3.0}),
    (
        "average",
        ("branching=none", "weight=forward_one"),
        {"old_decay_max": 0.9, "old_decay_rate": 0.5, "old_weight": 0.5},
    ),
    ("kl_scale", (), {"kl_weight": 0.5}),
]


@pytest.mark.parametrize(("name", "parts", "settings"), EFFECTS, ids=lambda value: str(value)[:30])
def test_every_value_of_a_part_learns_something_else(name, parts, settings):
    results = [learned((*parts, f"{name}={value}"), **settings) for value in CHOICES[name]]
    for one, other in itertools.combinations(results, 2):
        assert not torch.allclose(one, other, rtol=1e-5, atol=1e-7)


def test_the_choice_of_what_is_held_changes_what_is_learned():
    parts, settings = ("branching=per_step",), {"kl_weight": 0.5, "branches": (0, 3)}
    results = [learned((*parts, f"kl={value}"), **settings) for value in CHOICES["kl"]]
    for one, other in itertools.combinations(results, 2):
        assert not torch.allclose(one, other, rtol=1e-5, atol=1e-7)
