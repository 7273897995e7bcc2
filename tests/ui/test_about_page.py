"""The about page in a real browser: its tables are the engine's, its documents the project's own."""

import pytest
from playwright.sync_api import expect

from rsm_app.ui import about
from tests.ui.steps import expect_fits
from trainers.methods import METHODS
from trainers.models import MODELS
from trainers.rewards import REWARDS


def open_about(page, server):
    page.goto(f"{server.url}/about")
    expect(page.locator("#about-more")).to_contain_text("Read on")


def test_every_method_reward_and_model_is_listed(page, server):
    open_about(page, server)
    for part, table in (("methods", METHODS), ("rewards", REWARDS), ("models", MODELS)):
        rows = page.locator(f"#about-{part} tbody tr")
        assert [text.strip() for text in rows.locator("th > code").all_inner_texts()] == list(table.names())
        for index, spec in enumerate(table):
            expect(rows.nth(index)).to_contain_text(spec.summary)


def test_a_method_unfolds_its_settings_with_the_keyboard(page, server):
    open_about(page, server)
    row = page.locator("#about-methods tbody tr").filter(has_text="pcpo_flow")
    expect(row.locator("dl")).to_be_hidden()
    row.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(row.locator("dl")).to_contain_text("ζ")
    expect(row.locator("details")).to_contain_text(METHODS.get("pcpo_flow").idea)


def test_the_documents_open_in_the_page(page, server):
    open_about(page, server)
    page.locator("#about-metrics-box button").first.click()
    metrics = page.locator("#about-metrics-text")
    expect(metrics.locator("h2").first).to_be_visible()
    expect(metrics).to_contain_text("clip_fraction")
    page.locator("#about-methods-box button").first.click()
    methods = page.locator("#about-methods-text")
    for method in METHODS:
        expect(methods).to_contain_text(method.idea[:60])
    assert methods.locator("img").count() == 0


def test_a_missing_document_is_told(monkeypatch):
    def missing():
        raise FileNotFoundError

    assert "not part of this installation" in about._readable(missing)


def test_the_diagram_has_words_and_the_equation_is_set(page, server):
    open_about(page, server)
    diagram = page.get_by_role("img", name="The one loss of reward score matching")
    expect(diagram).to_be_visible()
    expect(diagram).to_have_accessible_description(page.locator("#loss-words").text_content())
    expect(page.locator("#about-loss .katex-display")).to_have_count(1)
    expect(page.locator("#about-loss .katex-error")).to_have_count(0)


def test_links_lead_to_the_papers_and_the_lab(page, server):
    open_about(page, server)
    links = page.locator("#about-methods a").evaluate_all("all => all.map(a => a.href)")
    assert links and all(link.startswith("https://arxiv.org/abs/") for link in links)
    expect(page.locator("#about-more a").first).to_have_attribute("href", "https://arxiv.org/abs/2604.17415")
    page.locator("#about-what a").click()
    page.wait_for_url("**/lab")
    expect(page.locator("#lab")).to_be_visible()


def test_text_of_tables_is_escaped():
    shown = about._linked("<b>A</b> & B, arXiv 2604.17415")
    assert "&lt;b&gt;" in shown and 'href="https://arxiv.org/abs/2604.17415"' in shown


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_and_its_diagram_can_be_read(browser, server, width, scheme):
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    page = context.new_page()
    open_about(page, server)
    expect_fits(page)
    size, contrast = page.evaluate(
        """() => {
            const light = c => c.match(/\\d+/g).slice(0, 3).map(v => v / 255)
                .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
            const svg = document.querySelector('.rsm-diagram'), text = svg.querySelector('.quiet');
            const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
            const box = svg.querySelector('rect');
            const [a, b] = [text, box].map(e => light(getComputedStyle(e).fill));
            return [scale * parseFloat(getComputedStyle(text).fontSize),
                    (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
        }"""
    )
    context.close()
    assert size >= 9.5 and contrast >= 4.5
