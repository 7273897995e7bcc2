"""The form, the empty page and what is served: nothing here starts a worker."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from playwright.sync_api import expect

from rsm_app.jobs.fitting import trainable
from tests.ui.server import ROOT
from tests.ui.steps import choose, expect_fits, open_page, set_advanced
from trainers.models import MODELS


def test_building_the_page_imports_no_torch():
    code = (
        "import sys; from rsm_app.ui.shell import build; build(); "
        "heavy = {'torch', 'diffusers', 'transformers', 'peft'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_help_and_bad_ports_are_answered_in_words():
    shown = subprocess.run([sys.executable, "app.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0 and "--port" in shown.stdout
    for port in ("abc", "70000"):
        refused = subprocess.run(
            [sys.executable, "app.py", "--port", port], cwd=ROOT, capture_output=True, text=True
        )
        assert refused.returncode == 2 and "Traceback" not in refused.stderr


def test_the_empty_page_says_what_start_does_and_every_option_its_sentence(page, server):
    open_page(page, server.url)
    expect(page.locator("#run-status")).to_contain_text("Press Start")
    for group in ("model", "reward", "estimator"):
        for text in page.locator(f"#{group} label > span").all_inner_texts():
            title, _, sentence = text.partition("\n")
            assert title and len(sentence) > 10, text
    assert page.locator("#reward input:checked").count() == 1


def test_choices_that_do_not_fit_cannot_be_selected_and_say_why(page, server):
    open_page(page, server.url)
    estimators, notes = page.locator("#estimator"), page.locator("#estimator-notes")
    expect(estimators.locator("input[value='rsm_first_order_flow']")).to_have_count(0)
    expect(notes).to_contain_text("this reward is a black box")
    choose(page, "reward", "colorfulness")
    expect(estimators.locator("input[value='rsm_first_order_flow']")).to_have_count(1)
    choose(page, "estimator", "rsm_first_order_flow")
    choose(page, "model", "tiny-diffusion")
    expect(estimators.locator("input[value='rsm_first_order_diffusion']")).to_be_checked()
    expect(notes).to_contain_text("Switched to RSM first order (diffusion)")
    choose(page, "reward", "shapes")
    expect(estimators.locator("input[value='rsm_first_order_diffusion']")).to_have_count(0)
    expect(notes).to_contain_text("reads reward gradients, but this reward is a black box")
    choose(page, "reward", "custom")
    page.locator("#mixture").locator("input, textarea").fill("colorfulness:1,contrast:0.5")
    page.locator("#seed input").focus()
    expect(estimators.locator("input[value='rsm_first_order_diffusion']")).to_have_count(1)


def test_the_list_of_estimators_is_short_and_opens_by_keyboard(page, server):
    open_page(page, server.url)
    listed = page.locator("#estimator input")
    expect(listed).to_have_count(2)
    expect(page.locator("#every")).to_contain_text("10 more fit these choices")
    page.locator("#every input").focus()
    page.keyboard.press("Space")
    expect(listed).to_have_count(12)
    expect(page.locator("#estimator label").first).to_contain_text("RSM zeroth order (flow)")
    page.locator("#estimator input[value='rsm_zeroth_order_flow']").focus()
    for _ in range(2):  # every option is a stop of the Tab key
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#estimator input[value='tempflow_grpo']")).to_be_checked()
    page.locator("#every input").focus()
    page.keyboard.press("Space")
    expect(listed).to_have_count(3)
    expect(page.locator("#estimator input[value='tempflow_grpo']")).to_be_checked()
    page.locator("#estimator-notes summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#estimator-notes details li").first).to_be_visible()


def test_an_estimator_says_what_it_does_not_fit(page, server):
    open_page(page, server.url)
    choose(page, "reward", "colorfulness")
    choose(page, "estimator", "rsm_first_order_flow")
    notes = page.locator("#estimator-notes")
    expect(notes).to_contain_text("does not fit Tiny Diffusion or rewards marked “Black box”")


def test_models_that_need_a_gpu_are_not_offered_here_and_say_why(page, server):
    open_page(page, server.url)
    offered = page.locator("#model input").evaluate_all("inputs => inputs.map(i => i.value)")
    assert offered == [spec.name for spec in trainable()]
    notes = page.locator("#model-notes")
    ruled_out = [spec for spec in MODELS if spec.name not in offered]
    expect(notes.locator("summary")).to_contain_text(f"{len(ruled_out)} more base models do not fit")
    notes.locator("summary").click()
    for spec in ruled_out:
        expect(notes).to_contain_text(f"{spec.title} needs a GPU with")


def test_rewards_that_cannot_run_here_are_told_and_refused(page, server):
    open_page(page, server.url)
    expect(page.locator("#reward input[value='server']")).to_have_count(0)
    notes = page.locator("#reward-notes")
    notes.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(notes.locator("li").filter(has_text="Reward server")).to_contain_text("needs an address")
    choose(page, "reward", "custom")
    page.locator("#mixture").locator("input, textarea").fill("colorfulness:1,server:0.5")
    page.locator("#seed input").focus()
    expect(page.locator("#preflight")).to_contain_text("set RSM_REWARD_SERVER")
    page.locator("#start").click()
    expect(page.locator("#problems li")).to_contain_text("set RSM_REWARD_SERVER")
    page.locator("#mixture").locator("input, textarea").fill("/etc/mine.py:fn")
    page.locator("#start").click()
    expect(page.locator("#problems li")).to_contain_text("not a function of your own")


def figure(page, name):
    """The value of one of the figures of what a run will take."""
    return page.locator("#preflight dl div").filter(has_text=name).locator("dd")


def test_what_a_run_will_take_follows_every_choice(page, server):
    open_page(page, server.url)
    assert [value for value in ("60", "90", "120", "300", "900", "custom")] == page.locator(
        "#budget input"
    ).evaluate_all("inputs => inputs.map(i => i.value)")
    told = page.locator("#preflight")
    for part in ("Start and save", "Before/after comparison", "Training", "No run with these choices"):
        expect(told).to_contain_text(part)
    expect(figure(page, "Compared in a group")).to_have_text("16 pictures")
    expect(figure(page, "Device")).to_contain_text("CPU")
    for name in ("Memory", "Free disk"):
        expect(figure(page, name)).to_contain_text("iB")
    few = int(figure(page, "Updates").inner_text().removeprefix("about "))
    choose(page, "budget", "900")
    expect(told).to_contain_text("About 1")
    expect(figure(page, "Updates")).not_to_have_text(f"about {few}")
    assert int(figure(page, "Updates").inner_text().removeprefix("about ")) > 5 * few
    choose(page, "estimator", "grpo")
    expect(figure(page, "Compared in a group")).to_have_text("8 pictures")
    set_advanced(page, {"group_size": 12, "max_updates": 3})
    page.locator("#seed input").focus()
    expect(figure(page, "Compared in a group")).to_have_text("12 pictures")
    # A rollout makes two updates, and none is left half trained.
    expect(figure(page, "Updates")).to_have_text("about 4")
    set_advanced(page, {"group_size": 1})
    page.locator("#seed input").focus()
    expect(told).to_contain_text("It can be told once these are changed")
    expect(told).to_contain_text("'group_size' must be between 2 and 1024")


def test_a_budget_without_room_for_training_is_called_so(page, server):
    open_page(page, server.url)
    choose(page, "budget", "custom")
    page.locator("#custom-seconds input").fill("20")
    page.locator("#seed input").focus()
    expect(page.locator("#preflight")).to_contain_text("leave no time for training")


def test_the_spread_of_a_reward_is_drawn_and_told_in_words(page, server, store):
    open_page(page, server.url)
    choose(page, "reward", "brightness")
    expect(page.locator("#estimator input[value='rsm_first_order_flow']")).to_have_count(1)
    page.locator("#spread").click()
    # On a busy machine the first of the two answers may be seen together with the second.
    expect(page.locator("#spread-result")).to_contain_text(
        re.compile("drawing a few pictures|The reward has signal"), timeout=120_000
    )
    expect(page.locator("#spread-result")).to_contain_text("The reward has signal", timeout=120_000)
    expect(page.locator("#spread-result")).to_contain_text("32 pictures of the untouched model")
    expect(page.locator("#spread")).to_be_enabled()
    choose(page, "reward", "shapes")
    expect(page.locator("#spread-result")).to_be_hidden()
    choose(page, "prompt-source", "Paste")
    page.locator("#pasted textarea").fill("a photograph of my grandmother")
    page.locator("#spread").click()
    expect(page.locator("#spread-result")).to_contain_text("grandmother", timeout=120_000)
    assert store.runs() == []


def test_all_problems_are_reported_together_before_anything_starts(page, server, store):
    open_page(page, server.url)
    choose(page, "reward", "custom")
    page.locator("#mixture").locator("input, textarea").fill("shaps:1")
    choose(page, "prompt-source", "Paste")
    choose(page, "budget", "custom")
    expect(page.locator("#custom-seconds input")).to_be_visible()
    page.locator("#custom-seconds input").fill("1")
    page.locator("#seed input").fill("-3")
    set_advanced(page, {"learning_rate": 7, "branches": "1, x"})
    page.locator("#start").click()
    problems = page.locator("#problems")
    for sentence in (
        "Did you mean 'shapes'?",
        "The pasted text holds no prompts",
        "'budget_seconds' must be between",
        "'seed' must be between",
        "'learning_rate' must be between",
        "'branches' must be whole numbers",
    ):
        expect(problems).to_contain_text(sentence)
    expect(problems).not_to_contain_text("Traceback")
    for place, sentence in {
        "mixture": "Did you mean 'shapes'?",
        "prompts": "The pasted text holds no prompts",
        "budget": "'budget_seconds' must be between",
        "seed": "'seed' must be between",
        "optimiser": "'learning_rate' must be between",
        "rollout": "'branches' must be whole numbers",
    }.items():
        expect(page.locator(f"#told-{place}")).to_have_text(re.compile(re.escape(sentence)))
    assert store.runs() == []


def test_a_problem_stands_at_its_field_until_it_is_mended(page, server, store):
    open_page(page, server.url)
    set_advanced(page, {"lora_rank": 0})
    page.locator("#seed input").fill("-3")
    page.locator("#budget input[value='120']").check()
    for place in ("seed", "optimiser"):
        expect(page.locator(f"#told-{place}")).to_contain_text("must be between")
    expect(page.locator("#told-rollout")).to_be_hidden()
    page.locator("#group-optimiser button").first.click()
    page.locator("#advanced > button").click()
    expect(page.locator("#told-optimiser")).to_be_hidden()
    page.locator("#start").click()
    expect(page.locator("#told-optimiser")).to_be_visible()  # Start opens the section that holds it
    page.locator("#seed input").fill("3")
    set_advanced(page, {"lora_rank": 8})
    page.locator("#seed input").focus()
    for place in ("seed", "optimiser"):
        expect(page.locator(f"#told-{place}")).to_be_hidden()
    assert store.runs() == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x80bad", "is not UTF-8 text"),
        (b"\n# only a comment\n", "holds no prompts"),
        (b"a" * 1500, "a prompt may have 1000"),
    ],
)
def test_a_prompt_file_that_cannot_be_used_gets_a_sentence(page, server, store, tmp_path, content, sentence):
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    open_page(page, server.url)
    choose(page, "prompt-source", "Upload a file")
    page.locator("#upload input[type=file]").set_input_files(path)
    expect(page.locator("#upload")).to_contain_text("mine")
    page.locator("#start").click()
    expect(page.locator("#problems")).to_contain_text(sentence)
    assert store.runs() == []


def test_an_address_of_no_run_says_so(page, server):
    open_page(page, f"{server.url}/?run=20200101-000000-abcdef")
    expect(page.locator("#run-status")).to_contain_text("No such run")
    open_page(page, f"{server.url}/?run=../../etc/passwd<b>x</b>")
    expect(page.locator("#run-status")).to_contain_text("No such run")
    assert page.locator("#run-status b:text('x')").count() == 0


def test_files_of_the_machine_and_of_runs_are_not_served(server, store):
    run = store.root / "secret"
    run.mkdir(exist_ok=True)
    (run / "config.json").write_text("{}")
    try:
        for path in (ROOT / "app.py", ROOT / "README.md", run / "config.json", "/etc/hostname"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{server.url}/gradio_api/file={path}")
            assert refused.value.code in (403, 404)
    finally:
        (run / "config.json").unlink()
        run.rmdir()


def test_nothing_is_a_public_endpoint_but_what_programs_use(server):
    with urllib.request.urlopen(f"{server.url}/gradio_api/info") as answer:
        named = set(json.load(answer)["named_endpoints"])
    assert named == {"/start_run", "/run_status", "/list_runs", "/stop_run", "/sample"}


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_fits_its_window(page, server, width):
    page.set_viewport_size({"width": width, "height": 800})
    open_page(page, server.url)
    expect_fits(page)
    set_advanced(page, {"max_updates": 3})
    expect_fits(page)
    expect(page.locator("#start")).to_be_in_viewport()


def test_dark_and_light_follow_the_system_and_both_are_readable(browser, server):
    shades = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        open_page(page, server.url)
        shades[scheme] = page.evaluate(
            """() => [document.body, document.querySelector('.rsm-header p')].map((e, i) => {
                const c = getComputedStyle(e)[i ? 'color' : 'backgroundColor'].match(/\\d+/g).slice(0, 3);
                return c.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
            })"""
        )
        context.close()
    assert shades["light"][0] > 0.8 and shades["dark"][0] < 0.05
    for back, text in shades.values():
        high, low = max(back, text), min(back, text)
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_every_input_has_a_label(page, server):
    open_page(page, server.url)
    set_advanced(page, {"max_updates": 3})
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('#setup input, #setup textarea, #setup button')]
            .filter(e => e.offsetParent && !e.labels?.length && !e.getAttribute('aria-label')
                && !e.closest('label') && !e.innerText.trim())
            .map(e => e.outerHTML.slice(0, 120))"""
    )
    assert unnamed == []


def test_what_was_chosen_and_pasted_is_back_when_the_page_is_loaded_again(page, server):
    """A reload, another page and back; then a link goes before it, and there is a way to the defaults."""
    text = "a red circle\na blue square"
    open_page(page, server.url)
    page.locator("#reward input[value='colorfulness']").check()
    page.locator("#prompt-source input[value='Paste']").check()
    page.locator("#pasted textarea").fill(text)  # and is not left: the connection may be lost while one types
    page.wait_for_function(
        "text => (sessionStorage.getItem('rsm-studio-form') || '').includes(text)", arg="blue sq"
    )
    for again in (page.reload, lambda: (page.goto(f"{server.url}/about"), page.go_back())):
        again()
        expect(page.locator("#kept")).to_be_visible()
        expect(page.locator("#reward input[value='colorfulness']")).to_be_checked()
        expect(page.locator("#pasted textarea")).to_have_value(text)
    page.goto(f"{server.url}/?run=20200101-000000-000000")
    expect(page.locator("#run-status")).to_contain_text("No such run")
    expect(page.locator("#reward input[value='colorfulness']")).not_to_be_checked()
    page.goto(server.url)
    expect(page.locator("#pasted textarea")).to_have_value(text)
    page.locator("#forget").click()
    expect(page.locator("#reward input[value='colorfulness']")).not_to_be_checked()
    expect(page.locator("#kept")).to_be_hidden()
    page.reload()
    expect(page.locator("#preflight .rsm-facts, #preflight p").first).to_be_visible()
    expect(page.locator("#pasted textarea")).to_be_hidden()
