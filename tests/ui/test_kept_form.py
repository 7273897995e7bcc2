"""What a tab keeps of the form comes back as it was; what is no form, or could not be shown, does not."""

import dataclasses
import json

import gradio as gr
import pytest

from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import fields, form, kept_form, train
from rsm_app.ui.form_filling import FormFiller, newcomers_form
from trainers.config import FIELDS

PASTED = "a red circle\nמשולש ירוק\n猫 🐈"


def sent(held):
    """What the page's inputs send, in their order."""
    *main, advanced = (getattr(held, info.name) for info in dataclasses.fields(form.Form))
    return [*main, *advanced]


def kept(values, **more):
    record = {"version": kept_form.VERSION, "values": list(values), "run": "", "linked": False}
    return json.dumps(record | more)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with gr.Blocks() as demo:
        train.build(demo, Supervisor(RunStore(tmp_path_factory.mktemp("runs"))))
    return demo


@pytest.fixture
def chosen():
    """A form that somebody has filled: another model, reward and estimator, own prompts, own settings."""
    usual = newcomers_form()
    advanced = list(usual.advanced)
    advanced[fields.ADVANCED.index("lora_rank")] = 4
    return dataclasses.replace(
        usual,
        model="tiny-diffusion",
        reward=form.CUSTOM,
        mixture="shapes:1,brightness:0.5",
        estimator="grpo",
        prompt_source=form.PASTE,
        pasted=PASTED,
        budget=form.CUSTOM,
        custom_seconds=77,
        seed=5,
        advanced=tuple(advanced),
    )


def filler(calls):
    def shown(*choices):
        calls.append(choices)
        return [f"shown {number}" for number in range(6)]

    return FormFiller(shown)


def plain(values):
    return [value.get("value") if isinstance(value, dict) else value for value in values]


def test_a_filled_form_comes_back(chosen):
    calls = []
    updates = filler(calls).of_tab(kept(sent(chosen)), "")
    assert calls == [("tiny-diffusion", form.CUSTOM, "shapes:1,brightness:0.5", "grpo")]
    assert plain(updates) == [
        *("tiny-diffusion", form.CUSTOM, form.PASTE, PASTED, 5, "shapes:1,brightness:0.5"),
        *(f"shown {number}" for number in range(1, 6)),
        *(chosen.prompt_set, form.CUSTOM, 77, *chosen.advanced),
    ]
    assert len(updates) == len(filler([]).nothing()) == len(filler([]).of_newcomer())


def test_a_form_of_defaults_is_nothing_to_come_back():
    assert filler([]).of_tab(kept(sent(newcomers_form())), "") is None


@pytest.mark.parametrize(
    ("asked", "run", "linked", "back"),
    [
        ("", "", False, True),  # loaded anew
        ("", "a-run", True, True),  # back from another page, by its link
        ("a-run", "a-run", False, True),  # loaded anew while that run was shown
        ("a-run", "a-run", True, False),  # a link to the run
        ("a-run", "another", False, False),
        ("a-run", "", False, False),
    ],
)
def test_a_link_to_a_run_goes_before_what_was_kept(chosen, asked, run, linked, back):
    assert bool(filler([]).of_tab(kept(sent(chosen), run=run, linked=linked), asked)) is back


def broken(**changes):
    return lambda held: kept(sent(dataclasses.replace(held, **changes)))


def with_field(name, value):
    def spoiled(held):
        advanced = list(held.advanced)
        advanced[fields.ADVANCED.index(name)] = value
        return kept(sent(dataclasses.replace(held, advanced=tuple(advanced))))

    return spoiled


@pytest.mark.parametrize(
    "spoil",
    [
        lambda held: None,
        lambda held: "",
        lambda held: "no JSON",
        lambda held: "[" * 100_000,
        lambda held: '{"values": ' + "[" * 20 + "]" * 20 + "}",
        lambda held: kept(sent(held)[:-1]),
        lambda held: kept(sent(held), version="of another app"),
        lambda held: kept(sent(held)) + " " * kept_form.MAX_BYTES,
        lambda held: {"version": kept_form.VERSION},
        broken(model="/etc"),
        broken(model=["tiny-flow"]),
        broken(reward="own.py:score"),
        broken(prompt_source="Elsewhere"),
        broken(prompt_set="/etc/passwd"),
        broken(budget="1e9"),
        broken(custom_seconds="long"),
        broken(seed=float("nan")),
        broken(mixture="x" * 3000),
        broken(pasted=7),
        with_field("dtype", "float8"),
        with_field("heldout_prompts", "/etc/passwd"),
        with_field("lora_rank", {"a": 1}),
        with_field("lora_rank", float("inf")),
    ],
)
def test_whatever_else_a_browser_sends_is_left_alone(chosen, spoil):
    assert filler([]).of_tab(spoil(chosen), "") is None


def test_what_may_be_kept_is_what_the_inputs_take(page):
    """Every value of the newcomer's form passes its input, and so does every choice of a list."""
    inputs = {part.elem_id: part for part in page.blocks.values() if getattr(part, "elem_id", None)}
    for name, value in zip(fields.ADVANCED, newcomers_form().advanced, strict=True):
        part = inputs[f"set-{name}"]
        values = list(FIELDS[name].metadata["choices"] or ()) or [value]
        assert [part.preprocess(each) for each in values] == values


def test_the_browser_keeps_every_input_but_the_upload(page):
    (previews, *_) = [event for event in page.fns.values() if event.js == kept_form.KEEP]
    assert len(previews.inputs) == kept_form.COUNT
    assert previews.inputs[kept_form.UPLOAD].elem_id == "upload"
    assert previews.inputs[6].elem_id == "pasted"
