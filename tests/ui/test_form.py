"""The form, the empty page and what is served: nothing here starts a worker."""

import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from playwright.sync_api import expect

from tests.ui.server import ROOT
from tests.ui.steps import choose, expect_fits, open_page, set_advanced


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
    assert store.runs() == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xfe\x00bad", "is not UTF-8 text"),
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


def test_nothing_is_a_public_endpoint(server):
    with urllib.request.urlopen(f"{server.url}/gradio_api/info") as answer:
        assert b'"named_endpoints":{}' in answer.read().replace(b" ", b"")


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
