"""The compare page on finished runs of the real engine: pairs, several runs, the playground."""

import re
import shutil

import pytest
import torch
from playwright.sync_api import expect

from rsm_app.jobs.store import RunStore
from rsm_app.ui import contest, gains, playground
from tests.e2e.shell import settings, trainers
from tests.ui.steps import choose_several, expect_fits, pick, tab
from trainers.playground import BAD_ADAPTER, Drawing
from trainers.run_folder import append_line, write_json
from trainers.wish import Wish

EVAL = {"eval_prompts": 8, "eval_samples_per_prompt": 2, "max_updates": 3}
RUNS = {  # the first two draw the same prompts with the same seeds, the third other seeds
    "20260101-000000-aaaaaa": ("rsm_zeroth_order_flow", "colorfulness", 3),
    "20260102-000000-bbbbbb": ("rsm_first_order_flow", "colorfulness", 3),
    "20260103-000000-cccccc": ("rsm_first_order_flow", "brightness", 4),
}
FIRST, SECOND, THIRD = RUNS
DRAWN_MS = 180_000


@pytest.fixture(scope="module")
def runs(store):
    """Finished runs by name, made in a shell as anybody could."""
    for name, (method, reward, seed) in RUNS.items():
        words = ["train", "--model", "tiny-flow", "--estimator", method, "--reward", reward]
        words += ["--budget-seconds", "600", "--out", str(store.root / name)]
        done = trainers(*words, *settings(**EVAL, seed=seed, learning_rate=0.002))
        assert done.returncode == 0, done.stderr[-2000:]
    return {name: store.run(name) for name in RUNS}


def open_compare(page, server, run_id=""):
    page.goto(f"{server.url}/compare{f'?run={run_id}' if run_id else ''}")
    page.locator("#compare-pairs").scroll_into_view_if_needed()  # its pictures load when they are seen
    expect(page.locator("#compare-pairs img").first).to_be_visible()


def fill_play(page, **values):
    for name, value in values.items():
        kind = "textarea" if name == "prompt" else "input[type=number]"
        page.locator(f"#play-{name} {kind}").first.fill(str(value))


def draw(page):
    page.locator("#draw").click()


def test_an_empty_page_says_so_and_takes_up_a_run_that_finishes(page, server, request):
    page.goto(f"{server.url}/compare")
    expect(page.locator("#compare-told")).to_contain_text("Nothing to compare yet")
    expect(page.locator("#compare-page")).to_be_hidden()
    request.getfixturevalue("runs")
    expect(page.locator("#compare-run")).to_be_visible()
    expect(page.locator("#compare-told")).not_to_contain_text("Nothing to compare")
    expect(page.locator("#compare-result .rsm-verdict")).to_be_visible()
    page.locator("#compare-run input").first.click()
    for name in RUNS:  # the list is whole: one that grows under the click may take another run
        expect(page.get_by_role("option", name=name)).to_be_visible()
    pick(page, "compare-run", FIRST)
    page.wait_for_url(f"**run={FIRST}")


def test_one_run_is_shown_with_its_report_s_numbers_sorted_and_filtered(page, server, runs):
    open_compare(page, server, FIRST)
    run = runs[FIRST]
    report, pairs = run.folder.read_report(), run.folder.read_pairs()
    low, high = gains.interval(report)[1:]
    figures = page.locator("#compare-statistics dl")
    expect(figures).to_contain_text(f"{report['paired']['mean_gain']:+.3f}".replace("-", "−"))
    expect(figures).to_contain_text(f"{low:+.3f} to {high:+.3f}".replace("-", "−"))
    expect(figures).to_contain_text(f"{report['paired']['win_rate']:.0%}")
    bars = page.locator("#histogram .mark-rect path")
    expect(bars.first).to_be_visible()
    ordered = sorted(pairs, key=lambda pair: pair["reward_before"] - pair["reward_after"])
    caption, gallery = page.locator("#compare-caption"), page.locator("#compare-pairs button.thumbnail-item")
    expect(caption).to_contain_text(f"seed {ordered[0]['seed']}")
    expect(gallery).to_have_count(12)
    page.locator("#more-pairs").click()
    expect(gallery).to_have_count(len(pairs))
    expect(page.locator("#more-pairs")).to_be_hidden()
    gallery.nth(13).click()
    expect(caption).to_contain_text(f"seed {ordered[13]['seed']}")
    worse = [pair for pair in reversed(ordered) if pair["reward_after"] < pair["reward_before"]]
    page.locator("#compare-order input").click()
    page.get_by_role("option", name="Largest loss first").click()
    page.locator("#compare-filter input[value='worse']").check()
    if worse:
        expect(caption).to_contain_text(f"seed {worse[0]['seed']}")
        expect(gallery).to_have_count(min(12, len(worse)))
    else:
        expect(page.locator("#no-pairs")).to_contain_text("No pair of this run is like that")
    page.locator("#compare-filter input[value='improved']").check()
    expect(gallery).to_have_count(min(12, sum(gains.kind(pair) == "Improved" for pair in pairs)))


def test_another_run_is_chosen_by_name_and_the_address_follows(page, server, runs):
    open_compare(page, server)
    assert f"run={THIRD}" in page.url, "the newest run is shown first"
    pick(page, "compare-run", SECOND)
    expect(page.locator("#compare-result")).to_contain_text("Colourfulness optimised")
    page.wait_for_url(f"**run={SECOND}")
    page.reload()
    expect(page.locator("#compare-run input")).to_have_value(re.compile(SECOND))


def test_runs_are_compared_by_table_curves_and_pictures_of_the_same_seeds(page, server, runs):
    open_compare(page, server)
    tab(page, "Several runs")
    expect(page.locator("#several-wait")).to_contain_text("Choose 2 to 6")
    choose_several(page, FIRST)
    expect(page.locator("#several-wait")).to_contain_text("Choose one more run")
    choose_several(page, SECOND)
    table = page.locator("#several-table table")
    for name in (FIRST, SECOND):
        gain = runs[name].folder.read_report()["paired"]["mean_gain"]
        row = table.locator("tr", has_text=name)
        expect(row.locator("b").first).to_contain_text("−" if gain < 0 else "+")
    for plot in ("several-reward_mean", "several-kl", "several-heldout"):
        expect(page.locator(f"#{plot} .mark-line path")).to_have_count(2)
    expect(page.locator("#several-sentence")).to_contain_text("16 pictures of the same prompts with the same")
    expect(page.locator("#several-pictures")).to_contain_text("before, A, B")
    expect(page.locator("#several-pictures img")).to_have_count(12)
    page.locator("#several-axis input[value='seconds']").check()
    expect(page.locator("#several-reward_mean svg")).to_contain_text("Seconds")
    choose_several(page, THIRD)
    expect(page.locator("#several-sentence")).to_contain_text("No seed is shared")
    expect(page.locator("#several-table")).to_contain_text("trained on different rewards")
    expect(page.locator("#several-reward_mean .mark-line path")).to_have_count(3)
    for _ in range(2):
        page.locator("#several-runs .token-remove").first.click()
    expect(page.locator("#several-wait")).to_contain_text("Choose one more run")
    expect(page.locator("#several-body")).to_be_hidden()


def test_a_pair_goes_to_the_playground_and_is_drawn_bit_for_bit(page, server, runs):
    open_compare(page, server, SECOND)
    pair = max(
        runs[SECOND].folder.read_pairs(), key=lambda pair: pair["reward_after"] - pair["reward_before"]
    )
    page.locator("#try-pair").click()
    expect(page.locator("#play-prompt textarea")).to_have_value(pair["prompt"])
    expect(page.locator("#play-seed input")).to_have_value(str(pair["seed"]))
    expect(page.locator("#play-steps input")).to_have_value("12")
    draw(page)
    facts = page.locator("#draw-facts")
    expect(facts).to_contain_text("equals the stored one bit for bit", timeout=DRAWN_MS)
    expect(page.locator("#drawn-before img")).to_be_visible()
    expect(page.locator("#drawn-after img")).to_be_visible()
    fill_play(page, strength=0, prompt="three green triangles", seed=12)
    draw(page)
    expect(facts).to_contain_text("seed 12", timeout=DRAWN_MS)
    expect(facts).to_contain_text("Both pictures are equal")
    fill_play(page, strength=1.5, seed=13)
    draw(page)
    expect(facts).to_contain_text("seed 13", timeout=DRAWN_MS)
    expect(facts).not_to_contain_text("Both pictures are equal")
    expect(page.locator("#drawn-after")).to_contain_text("strength 1.5")


def test_wrong_values_are_told_at_their_fields_and_right_ones_clear_them(page, server, runs):
    open_compare(page, server, FIRST)
    tab(page, "Playground")
    fill_play(page, prompt=" ", seed=-1, steps=101, guidance="")
    draw(page)
    for name, sentence in {
        "prompt": "Write what the picture should show",
        "seed": "whole number from 0 to 2147483647",
        "steps": "whole number from 1 to 100",
        "guidance": "a number from 0 to 50",
    }.items():
        expect(page.locator(f"#told-{name}")).to_contain_text(sentence)
    fill_play(page, prompt="a red circle and " * 20, seed=1, steps=2, guidance=1)
    draw(page)
    expect(page.locator("#told-prompt")).to_contain_text("would cut off", timeout=DRAWN_MS)
    expect(page.locator("#told-seed")).to_be_hidden()
    fill_play(page, prompt="a red circle")
    draw(page)
    expect(page.locator("#draw-facts")).to_contain_text("seed 1 ", timeout=DRAWN_MS)
    expect(page.locator("#told-prompt")).to_be_hidden()


def test_a_run_with_a_broken_adapter_is_told_and_shows_its_pairs(page, server, store, runs):
    broken = store.root / "20260104-000000-dddddd"
    shutil.copytree(runs[FIRST].path, broken)
    weights = next((broken / "adapter").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    try:
        open_compare(page, server, broken.name)
        tab(page, "Playground")
        fill_play(page, prompt="a red circle")
        draw(page)
        expect(page.locator("#draw-facts")).to_contain_text(BAD_ADAPTER, timeout=DRAWN_MS)
        weights.unlink()
        draw(page)
        expect(page.locator("#draw-facts")).to_contain_text("no adapter yet", timeout=DRAWN_MS)
        expect(page.locator("body")).not_to_contain_text("Traceback")
    finally:
        shutil.rmtree(broken)


def test_addresses_that_cannot_be_shown_say_why(page, server, store, runs):
    unfinished = store.root / "20260105-000000-eeeeee"
    unfinished.mkdir()
    shutil.copy(runs[FIRST].folder.config, unfinished / "config.json")
    try:
        for asked, sentence in {
            "20200101-000000-abcdef": "There is no run called 20200101-000000-abcdef that you may see",
            "../../etc/passwd<b>x</b>": "There is no run called ../../etc/passwd<b>x</b> that you may see",
            unfinished.name: f"Run {unfinished.name} ended without a comparison",
        }.items():
            open_compare(page, server, asked)
            expect(page.locator("#compare-told")).to_contain_text(sentence)
            expect(page.locator("#compare-told b")).to_have_count(0)
    finally:
        shutil.rmtree(unfinished)


@pytest.mark.parametrize("width", [360, 768])
def test_every_tab_fits_its_window_and_is_reached_by_keyboard(page, server, runs, width):
    page.set_viewport_size({"width": width, "height": 800})
    open_compare(page, server, FIRST)
    expect_fits(page)
    page.get_by_role("tab", name="One run").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", name="Several runs")).to_have_attribute("aria-selected", "true")
    choose_several(page, FIRST, SECOND)
    page.locator("#several-pictures").scroll_into_view_if_needed()
    expect(page.locator("#several-pictures img").first).to_be_visible()
    expect_fits(page)
    tab(page, "Playground")
    expect(page.locator("#draw")).to_be_visible()
    expect_fits(page)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('#compare-page :is(input, textarea, button)')]
            .filter(e => e.offsetParent && !e.labels?.length && !e.getAttribute('aria-label')
                && !e.closest('label') && !e.innerText.trim())
            .map(e => e.outerHTML.slice(0, 160))"""
    )
    assert unnamed == []


def test_nothing_of_the_page_is_a_public_endpoint_and_no_run_s_file_is_served(page, server, runs):
    info = page.request.get(f"{server.url}/gradio_api/info")
    named = {"/start_run", "/run_status", "/list_runs", "/stop_run", "/sample"}
    assert set(info.json()["named_endpoints"]) == named, "what programs use, see api.py"
    for path in (runs[FIRST].folder.report, runs[FIRST].folder.adapter / "pytorch_lora_weights.safetensors"):
        assert page.request.get(f"{server.url}/gradio_api/file={path}").status in (403, 404)


def pair(before, after, prompt="p", seed=0):
    return {"prompt": prompt, "seed": seed, "reward_before": before, "reward_after": after}


def test_the_histogram_holds_every_pair_once_and_keeps_better_and_worse_apart():
    pairs = [pair(0, value / 37) for value in range(-37, 38)] + [pair(0, 0.5), pair(0, -0.5), pair(1, 1)]
    plot, width = gains.histogram(pairs)
    assert sum(count for _, count, _ in plot["data"]) == len(pairs)
    for middle, count, name in plot["data"]:
        inside = [
            gain
            for gain in (p["reward_after"] - p["reward_before"] for p in pairs)
            if abs(gain - middle) <= width / 2 + 1e-9 and gains.kind(pair(0, gain)) == name
        ]
        assert count <= len(inside) and (middle < 0) == (name == "Worse")
    assert gains.histogram([])[0]["data"] == [] and gains.histogram([pair(1, 1)])[0]["data"][0][1:] == [
        1,
        "Unchanged",
    ]


def test_the_interval_is_the_report_s_mean_with_1_96_of_its_clustered_errors():
    report = {"paired": {"mean_gain": 0.5, "stderr": 0.1}}
    assert gains.interval(report) == pytest.approx((0.5, 0.304, 0.696))
    assert gains.interval({}) is None and gains.interval({"paired": {"mean_gain": None, "stderr": 1}}) is None


class Drawn:
    """What ``contest.shared_pairs`` reads of a run."""

    def __init__(self, *pairs):
        self.run = self.folder = self
        self._pairs = list(pairs)

    def read_pairs(self):
        return self._pairs


def test_pictures_are_matched_by_prompt_and_seed_else_by_prompt_else_not_at_all():
    one = Drawn(pair(0, 1, "a", 1), pair(0, 1, "a", 2), pair(0, 1, "b", 3))
    two = Drawn(pair(0, 2, "b", 3), pair(0, 2, "a", 2), pair(0, 2, "c", 1))
    rows = contest.shared_pairs([one, two]).rows
    assert [(r[0]["prompt"], r[0]["seed"], r[1]["reward_after"]) for r in rows] == [("a", 2, 2), ("b", 3, 2)]
    other = Drawn(pair(0, 3, "a", 7), pair(0, 3, "a", 8), pair(0, 3, "a", 9))
    shared = contest.shared_pairs([one, other])
    assert [(r[0]["seed"], r[1]["seed"]) for r in shared.rows] == [(1, 7), (2, 8)]
    assert "No seed is shared" in shared.sentence
    nothing = contest.shared_pairs([one, Drawn(pair(0, 1, "z", 1)), two])
    assert nothing.rows == [] and "no held-out prompt in common" in nothing.sentence


def test_held_out_curves_are_the_looks_during_training_else_the_two_ends(tmp_path):
    looked, plain = RunStore(tmp_path).create(), RunStore(tmp_path).create()
    report = {"before": {"reward": {"mean": 0.5}}, "after": {"reward": {"mean": 0.75}}}
    for run in (looked, plain):
        for step in (1, 2, 3):
            append_line(run.folder.metrics, {"step": step, "seconds": 10 * step, "images_sampled": 8 * step})
        write_json(run.folder.report, report)
    for step, rewards in ((0, [0.25, 0.75]), (2, [1.0, 0.5]), (3, None)):
        append_line(looked.path / "probes.jsonl", {"step": step, "seconds": 9.5 * step, "reward": rewards})
    chosen = contest.entries([looked, plain])
    assert contest.probed(chosen) == ["A"]
    curves = {axis: contest.heldout_curves(chosen, axis)["data"] for axis in contest.AXES}
    assert curves["step"] == [[0, 0.5, "A"], [2, 0.75, "A"], [0, 0.5, "B"], [3, 0.75, "B"]]
    assert curves["images_sampled"] == [[0, 0.5, "A"], [16, 0.75, "A"], [0, 0.5, "B"], [24, 0.75, "B"]]
    assert [row[0] for row in curves["seconds"]] == [0.0, 19.0, 0, 30]


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("stored", [True, False])
def test_the_playground_claims_no_more_than_was_compared(strength, stored):
    drawing = Drawing(torch.zeros(3, 2, 2), torch.ones(3, 2, 2), 4, stored, 0.1)
    told = playground._facts(drawing, Wish("a red circle", 1, 12, 1.0, strength))
    assert ("its picture before" in told) == (strength != 1.0)
    assert ("earlier adapter" in told) == (strength == 1.0 and not stored)
    assert ("equals the stored one bit for bit" in told) == stored
