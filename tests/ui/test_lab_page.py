"""The laboratory in a real browser: choices change its pictures, and what cannot be drawn is told."""

import re

import pytest
import torch
from playwright.sync_api import expect

from rsm_app.ui import about_text, lab_text
from tests.ui.steps import choose, expect_fits
from trainers.lab import choices
from trainers.lab.estimate import Problem, zeroth_order
from trainers.lab.mixture import reference_mixture, reference_reward, reference_schedule
from trainers.lab.pulls import pulls
from trainers.methods import METHODS

FIELD, ERRORS, SHARES = "#lab-field figure svg", "#lab-errors figure svg", "#lab-pulls tbody tr"
LINES = "#lab-pulls figure svg g[id^=pull-]"


def open_lab(page, server):
    page.goto(f"{server.url}/lab")
    expect(page.locator(FIELD)).to_be_visible()  # the first figure loads torch
    expect(page.locator(ERRORS)).to_be_visible()
    expect(page.locator(SHARES)).to_have_count(5)


def choose_number(page, name, value):
    box = page.locator(f"#lab-{name} input[type=number]")
    box.fill(str(value))
    box.press("Tab")


def caption(page, part="field"):
    return page.locator(f"#lab-{part} figcaption")


def error_of(page):
    return float(re.search(r"guidance by ([\d.]+)", caption(page).inner_text())[1])


def expect_new(page, name, value, part="field"):
    """Choose something and wait until the picture of a part is another one."""
    picture = page.locator(f"#lab-{part} figure svg")
    before = picture.inner_html()
    choose(page, f"lab-{name}", value)
    page.wait_for_function(
        "([selector, old]) => document.querySelector(selector)?.innerHTML !== old",
        arg=[f"#lab-{part} figure svg", before],
    )


def test_everything_comes_from_the_app_itself_and_equations_are_set(page, server):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    open_lab(page, server)
    expect(page.locator(".rsm-explain .katex-display")).to_have_count(5)
    expect(page.locator(".rsm-explain .katex-error")).to_have_count(0)
    expect(page.locator(".rsm-explain").first).not_to_contain_text("$")
    fonts = page.evaluate("document.fonts.ready.then(() => document.fonts.check('12px KaTeX_Main'))")
    assert fonts and all(url.startswith((server.url, "data:", "blob:")) for url in asked), asked


def test_choices_of_a_zeroth_order_estimator_change_arrows_and_errors(page, server):
    open_lab(page, server)
    choose(page, "lab-samples", "4")
    expect(caption(page)).to_contain_text("57 runs of the network per arrow")
    rough = error_of(page)
    expect_new(page, "samples", "1024")
    expect(caption(page)).to_contain_text("14 337 runs")
    assert error_of(page) < 0.5 * rough
    expect_new(page, "advantage", "raw", "errors")
    expect(caption(page, "errors")).to_contain_text("Raw, SDE: error")
    expect(page.locator("#lab-errors tr[aria-current]")).to_contain_text("raw, SDE")
    expect_new(page, "rollout", "localised")
    expect(page.locator("#lab-errors tr[aria-current]")).to_contain_text("raw, one noisy step")
    expect_new(page, "beta", "0.5")


def test_the_gradient_has_its_own_choices(page, server):
    open_lab(page, server)
    expect(page.locator("#lab-lookahead")).to_be_hidden()
    expect_new(page, "order", "first")
    expect(page.locator("#lab-lookahead")).to_be_visible()
    expect(page.locator("#lab-samples")).to_be_hidden()
    expect(caption(page)).to_contain_text("One run of the network per arrow")
    expect(caption(page, "errors")).to_contain_text("A gradient is not random")
    expect_new(page, "lookahead", "8")
    expect(caption(page)).to_contain_text("8 runs of the network per arrow")


def test_the_family_brings_its_methods_and_its_exact_noise(page, server):
    open_lab(page, server)
    expect_new(page, "family", "diffusion")
    expect(page.locator("#lab-injected input[type=number]")).to_have_value("1")
    expect(page.locator("#lab-pulls table")).to_contain_text("RSM zeroth order (diffusion)")
    expect(page.locator("#lab-pulls table")).not_to_contain_text("(flow)")


def test_less_noise_is_told_and_drawn(page, server):
    open_lab(page, server)
    exact = error_of(page)
    choose_number(page, "injected", 0.3)
    expect(caption(page)).not_to_contain_text(f"guidance by {exact:.2f} ")
    assert error_of(page) > exact


def test_methods_and_branching_change_the_influence(page, server):
    open_lab(page, server)
    expect(page.locator(LINES)).to_have_count(5)
    row = page.locator(SHARES, has_text="RSM zeroth order (flow)")
    expect(row.locator("td").first).to_have_text("100%")
    drawn = page.locator(f"{LINES} path").first.get_attribute("d")
    choose(page, "lab-branching", "clean")
    expect(row.locator("td").nth(2)).to_have_text("100%")
    expect(page.locator(f"{LINES} path").first).not_to_have_attribute("d", drawn)
    page.locator("#lab-methods input").click()
    page.get_by_role("option", name="DiffusionNFT").click()
    expect(page.locator(SHARES)).to_have_count(6)
    expect(page.locator(LINES)).to_have_count(6)
    page.keyboard.press("Escape")
    choose(page, "lab-branching", "custom")
    page.locator("#lab-written").locator("input, textarea").fill("0, 4, 4, 0")
    expect(row.locator("td").nth(3)).to_have_text("2")


def test_values_that_cannot_be_drawn_get_a_sentence_and_the_picture_stays(page, server):
    open_lab(page, server)
    problems, drawn = page.locator("#lab-problems"), page.locator(FIELD).inner_html()
    for seed, sentence in (("-1", "between 0 and 2147483647"), ("1.5", "whole number"), ("", "not nothing")):
        choose_number(page, "seed", seed)
        expect(problems).to_contain_text(f"The seed must be {'a ' if seed != '-1' else ''}")
        expect(problems).to_contain_text(sentence)
        assert page.locator(FIELD).inner_html() == drawn
    choose_number(page, "seed", "3")
    expect(problems.locator("li")).to_have_count(0)
    page.wait_for_function(
        "([selector, old]) => document.querySelector(selector).innerHTML !== old", arg=[FIELD, drawn]
    )


def test_branches_and_methods_that_cannot_be_used_get_a_sentence(page, server):
    open_lab(page, server)
    problems = page.locator("#lab-pull-problems")
    choose(page, "lab-branching", "custom")
    for text, sentence in (
        ("8, x", "whole numbers separated by commas"),
        ("1", "a group needs at least 2 branches"),
        ("8," * 30, "Only 24 of the 25 steps inject noise"),
        ("<b>8</b>", "whole numbers"),
    ):
        page.locator("#lab-written").locator("input, textarea").fill(text)
        expect(problems).to_contain_text(sentence)
    assert problems.locator("li b").count() == 0
    expect(page.locator(SHARES)).to_have_count(5)
    choose(page, "lab-branching", "every")
    expect(problems.locator("li")).to_have_count(0)
    page.locator("#lab-methods .remove-all").first.click()
    expect(problems).to_contain_text("Choose at least one method.")


def test_choices_can_be_made_with_the_keyboard(page, server):
    open_lab(page, server)
    drawn = page.locator(FIELD).inner_html()
    page.locator("#lab-samples input:checked").focus()
    page.keyboard.press("Tab")  # every option is a stop of the Tab key
    page.keyboard.press("Space")
    expect(page.locator("#lab-samples input[value='256']")).to_be_checked()
    page.wait_for_function(
        "([selector, old]) => document.querySelector(selector).innerHTML !== old", arg=[FIELD, drawn]
    )


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_fits_its_window(page, server, width):
    page.set_viewport_size({"width": width, "height": 800})
    open_lab(page, server)
    expect_fits(page)
    size = page.evaluate(
        "(s) => { const svg = document.querySelector(s); return svg.getBoundingClientRect().width "
        "/ svg.viewBox.baseVal.width * parseFloat(getComputedStyle(svg.querySelector('text')).fontSize) }",
        FIELD,
    )
    assert size >= 9, "type in the figure is readable"


def test_figures_are_readable_in_light_and_dark(browser, server):
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        open_lab(page, server)
        contrasts = page.evaluate(
            """() => {
                const light = c => c.match(/\\d+/g).slice(0, 3).map(v => v / 255)
                    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
                const figure = document.querySelector('#lab-field figure');
                const back = light(getComputedStyle(figure).backgroundColor);
                return ['text', '#exact-arrows path', '#estimated-arrows path'].map(name => {
                    const own = light(getComputedStyle(figure.querySelector(`svg ${name}`)).fill);
                    return (Math.max(own, back) + 0.05) / (Math.min(own, back) + 0.05);
                });
            }"""
        )
        context.close()
        assert contrasts[0] >= 4.5 and min(contrasts[1:]) >= 3, (scheme, contrasts)


def test_figures_and_inputs_have_names(page, server):
    open_lab(page, server)
    expect(page.get_by_role("img", name=re.compile("misses the exact guidance"))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("made of bias"))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Influence over the schedule. RSM"))).to_be_visible()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('#lab input, #lab-pulls-part input, #lab textarea')]
            .filter(e => e.offsetParent && !e.labels?.length && !e.getAttribute('aria-label')
                && !e.closest('label'))
            .map(e => e.outerHTML.slice(0, 120))"""
    )
    assert unnamed == []


@pytest.mark.parametrize("family", ["flow", "diffusion"])
def test_what_is_said_of_the_pulls_is_what_the_figure_shows(family):
    noise, branches = choices.EXACT_INJECTED[family], choices.branches_of("noisy", "")
    found = {pull.method: pull for pull in pulls(family, choices.methods_of(family), branches, noise)}

    def hold_back_at_noise(name: str) -> bool:
        noisy, _, clean = found[name].thirds()
        return noisy < clean

    first = [hold_back_at_noise(name) for name in found if METHODS.get(name).order == "first"]
    assert len(first) >= 4 and all(first) == (family == "flow") and any(first)
    for name, pull in found.items():
        if METHODS.get(name).branching == "per_step":
            assert pull.thirds()[2] == 0
    assert hold_back_at_noise("grpo")
    assert "on flows all" in lab_text.PULLS and "on diffusion models not all" in lab_text.PULLS


def test_the_advantages_are_divided_by_beta_as_it_is_said():
    """Twice β halves what comes of all but the exponential one, which has it inside."""
    parts = (reference_mixture(), reference_reward(), reference_schedule("flow", choices.STEPS))
    rewards, noise = torch.tensor([[0.0, 1.0, 3.0]]), torch.eye(3, 2).unsqueeze(0)
    guidance = {
        (kind, beta): zeroth_order(Problem(*parts, beta), 12, noise, rewards, kind, 1.0)
        for kind in choices.ADVANTAGES
        for beta in (1.0, 2.0)
    }
    halved = {
        kind
        for kind in choices.ADVANTAGES
        if torch.allclose(guidance[kind, 2.0] * 2, guidance[kind, 1.0], rtol=1e-4)
    }
    assert halved == {"raw", "mean", "group"}
    assert "The exponential one contains β, the others are divided by it" in lab_text.ADVANTAGE_INFO


def test_the_laboratory_and_the_about_page_write_the_loss_with_the_same_letters():
    for letter in ("W_1", r"\gamma", "G"):
        assert letter in about_text.LOSS and letter in lab_text.PULLS
    assert "C_1" not in lab_text.PULLS
