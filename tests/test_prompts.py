"""The built-in prompt sets, and which of them a model and a reward begin with."""

import json
from collections import Counter
from types import SimpleNamespace

import gradio as gr
import pytest

from rsm_app.jobs.limits import Limits
from rsm_app.ui import fields, train, tuned
from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.models import EMBEDDED, MODELS
from trainers.presets import build_config, default_config
from trainers.prompts import builtin_sets, load_prompts, prompt_records
from trainers.registry import nearest
from trainers.rewards import REWARDS
from trainers.rewards.geneval_prompts import read_request
from trainers.rewards.ocr import quoted

KINDS = ("general", "geneval", "ocr", "shapes")
LARGE = [spec.name for spec in MODELS if not spec.embedded]
METHOD = {"flow": "rsm_zeroth_order_flow", "diffusion": "rsm_zeroth_order_diffusion"}


def plain(text):
    return " ".join(text.lower().split()).rstrip(".")


def requests(name):
    """What each prompt of a GenEval set asks for, as its record says."""
    records = prompt_records(RunConfig(prompts=name, heldout_prompts=name))
    return {prompt: read_request(prompt, record) for prompt, record in records.items()}


def test_every_kind_has_a_set_to_train_on_and_one_that_is_held_out():
    assert builtin_sets() == tuple(f"{kind}-{part}" for kind in KINDS for part in ("heldout", "train"))


@pytest.mark.parametrize("kind", KINDS)
def test_no_prompt_is_there_twice_or_in_both_sets(kind):
    found = [plain(prompt) for part in ("train", "heldout") for prompt in load_prompts(f"{kind}-{part}")]
    assert len(found) == len(set(found)) > 100


@pytest.mark.parametrize("name", [name for name in builtin_sets() if not name.startswith("shapes")])
def test_no_prompt_is_longer_than_a_text_encoder_reads(name):
    assert max(len(prompt.split()) for prompt in load_prompts(name)) <= 30  # CLIP reads 75 pieces of words


def test_what_is_to_be_written_is_in_quotes_and_held_out_with_its_prompt():
    trained, held = ([quoted(p) for p in load_prompts(f"ocr-{part}")] for part in ("train", "heldout"))
    assert all(trained) and all(held)
    assert not set(trained) & set(held)
    assert not any(quoted(prompt) for prompt in load_prompts("general-train"))


def test_geneval_sets_ask_for_what_their_records_say_and_hold_requests_out():
    trained, held = (requests(f"geneval-{part}") for part in ("train", "heldout"))
    assert None not in (*trained.values(), *held.values())
    assert not set(trained.values()) & set(held.values())
    for prompt, request in (trained | held).items():
        for thing in request.things:
            assert (thing.name[:3] in prompt or thing.name == "person") and thing.color in prompt
            assert request.counting == (thing.count > 1)


@pytest.mark.parametrize("part", ["train", "heldout"])
def test_geneval_sets_have_all_six_kinds_and_any_beginning_of_them_too(part):
    name = f"geneval-{part}"
    records = prompt_records(RunConfig(prompts=name, heldout_prompts=name))
    tags = [records[prompt]["tag"] for prompt in load_prompts(name)]
    kinds = {"single_object", "two_object", "counting", "colors", "position", "color_attr"}
    assert set(tags) == set(tags[:16]) == kinds
    assert min(Counter(tags).values()) >= len(tags) / 12


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(InputError) as caught:
        load_prompts("genral-train")
    assert nearest("genral-train", builtin_sets()) in str(caught.value)
    assert "'general-train'" in str(caught.value)


def sets_of(model, reward):
    config = default_config(model, METHOD[MODELS.get(model).family], reward)
    return config.prompts, config.heldout_prompts


@pytest.mark.parametrize("reward", REWARDS.names())
def test_a_model_begins_with_prompts_that_it_can_draw_and_its_reward_can_score(reward):
    for model in EMBEDDED:
        assert sets_of(model, reward) == ("shapes-train", "shapes-heldout")
    fixed = {"ocr": "ocr", "geneval": "geneval", "geneval_correct": "geneval", "tiny_clip": "shapes"}
    fixed |= {"shapes": "shapes", "shapes_exact": "shapes"}
    kind = fixed.get(reward, "general")
    for model in LARGE:
        assert sets_of(model, reward) == (f"{kind}-train", f"{kind}-heldout")


def test_a_mixture_takes_the_sets_of_the_part_that_needs_its_own():
    assert sets_of("sdxl", "pick_score:1, ocr:0.5") == ("ocr-train", "ocr-heldout")
    assert sets_of("sdxl", "pick_score:1,mine.py:ocr:0.5")[0] == "general-train"
    given = build_config("sd35-medium", METHOD["flow"], "pick_score", {"prompts": "ocr-train"})
    assert (given.prompts, given.heldout_prompts) == ("ocr-train", "general-heldout")


def followed(model, reward, before, **limits):
    """What the page's handler of the three choices answers: settings, and which it proposes to set anew."""
    page = train._Page(SimpleNamespace(limits=Limits(**limits)), None, None, None, "")
    choices = (model, reward, "", METHOD["flow"], tuned.Followed(("", "", False), before))
    *_, now, text = page.choose(*choices)
    proposed = json.loads(text)
    names = ("prompt set", "budget", "seconds", *fields.ADVANCED)
    proposed["values"] = {names[int(place)]: value for place, value in proposed["values"].items()}
    return now.settings, proposed


def test_the_page_s_set_follows_model_and_reward_and_else_stays_as_it_was_chosen():
    def values(*choices):
        settings, proposed = followed(*choices)
        return settings, proposed["values"]

    elsewhere = tuned.tuned_of(default_config("sd35-medium", METHOD["flow"], "pick_score"))
    first, proposed = values("tiny-flow", "brightness", elsewhere)
    assert proposed == dict(zip(("prompt set", *fields.ADVANCED), [first[0], *first[2:]], strict=True))
    assert first == tuned.tuned_of(default_config("tiny-flow", METHOD["flow"], "brightness"))
    large, proposed = values("sd35-medium", "pick_score", first)
    assert proposed["prompt set"] == "general-train" and proposed["heldout_prompts"] == "general-heldout"
    again, proposed = values("sd35-medium", "aesthetic", large)
    assert again == large and proposed == {}
    spelled, proposed = values("sd35-medium", "ocr", large)
    assert proposed["prompt set"] == "ocr-train" and proposed["heldout_prompts"] == "ocr-heldout"
    other, proposed = values("flux-schnell", "ocr", spelled)
    assert "prompt set" not in proposed and proposed.keys() >= set(fields.ADVANCED)


def test_the_time_budget_follows_the_model():
    def budget(*choices, **limits):
        settings, proposed = followed(*choices, **limits)
        shown = {place: value for place, value in proposed["budget"].items() if value != gr.skip()}
        return settings, (shown, proposed["instead_of"])

    tiny = tuned.tuned_of(default_config("tiny-flow", METHOD["flow"], "brightness"))
    large, proposed = budget("sd35-medium", "pick_score", tiny)
    assert tiny[1] == 90.0 and large[1] == 3600.0 and proposed == ({"1": "custom", "2": 3600.0}, 90.0)
    assert budget("tiny-flow", "brightness", large)[1] == ({"1": "90"}, 3600.0)
    assert budget("sd35-large", "pick_score", large)[1] == ({}, 3600.0)
    limited = budget("sd35-medium", "pick_score", tiny, run_seconds=1800)[1]
    assert limited == ({"1": "custom", "2": 1800.0}, 90.0)
