"""What somebody typed or chose while the page's last answer was on its way is what the form holds."""

import inspect
import time

import pytest
from playwright.sync_api import expect

from rsm_app.ui import fields, kept_form, train, tuned
from tests.ui.steps import PATIENCE_MS, choose, open_page, set_advanced
from trainers.presets import default_config

ZEROTH, FIRST = "rsm_zeroth_order_flow", "rsm_first_order_flow"
# Settings by which the choices below differ, and one by which they do not.
LOOKED_AT = ("branches", "kl_weight", "kl_scale", "reward_scale", "learning_rate")
# Of the handler of the choices; no other event of the page that waits in the queue has as many.
INPUTS = len(inspect.signature(train._Page.choose).parameters) - 1


class Held:
    """The choices that a page has sent and that its server gets only when they are let go."""

    def __init__(self, page):
        self.page, self.routes, self.holding = page, [], True
        page.route("**/queue/join*", self.hold)

    def hold(self, route):
        if self.holding and len(route.request.post_data_json["data"]) == INPUTS:
            self.routes.append(route)
        else:
            route.continue_()

    def wait(self):
        """Wait until one is held."""
        until = time.monotonic() + PATIENCE_MS / 1000
        while not self.routes:
            assert time.monotonic() < until, "no choice was sent"
            self.page.wait_for_timeout(20)

    def let_go(self):
        """Send them, and hold no more."""
        self.holding = False
        for route in self.routes:
            route.continue_()


@pytest.fixture
def held(page, server):
    open_page(page, server.url)
    typed = settings(ZEROTH)
    set_advanced(page, {name: typed[name] for name in ("branches", "kl_weight", "learning_rate")})
    return Held(page)


def settings(estimator, reward="shapes"):
    """What some of the advanced inputs show for a choice."""
    config = default_config("tiny-flow", estimator, reward)
    shown = dict(zip(fields.ADVANCED, fields.values_of(config), strict=True))
    return {name: f"{shown[name]:g}" if isinstance(shown[name], float) else shown[name] for name in LOOKED_AT}


def expect_settings(page, expected):
    """Check what the page sends and shows; it sends all at once, when the answer has been applied."""
    first = kept_form.COUNT - len(fields.ADVANCED)
    page.wait_for_function(
        f"wanted => {{ const kept = JSON.parse(sessionStorage.getItem('{kept_form.KEY}')).values; "
        "return Object.entries(wanted).every(([place, value]) => String(kept[place]) === value); }",
        arg={str(first + fields.ADVANCED.index(name)): value for name, value in expected.items()},
    )
    for name, value in expected.items():
        expect(page.locator(f"#set-{name}").locator("input, textarea").first).to_have_value(value)


def test_what_is_typed_before_the_answer_to_a_choice_stays(page, held):
    choose(page, "estimator", "grpo")
    held.wait()
    typed = {"branches": "4, 12", "learning_rate": "0.5"}
    set_advanced(page, typed)
    held.let_go()
    assert settings("grpo").items() - settings(ZEROTH).items() > {("branches", "8, 8")}
    expect_settings(page, settings("grpo") | typed)


def test_the_next_choice_sets_anew_what_was_typed_before_it(page, held):
    set_advanced(page, {"branches": "4, 12", "learning_rate": "0.5"})
    choose(page, "estimator", "grpo")
    held.wait()
    held.let_go()
    expect_settings(page, settings("grpo"))


def test_two_choices_before_any_answer_end_as_the_second(page, held):
    choose(page, "reward", "colorfulness")
    held.wait()
    choose(page, "estimator", "grpo")
    set_advanced(page, {"branches": "4, 12"})
    held.let_go()
    expect(page.locator(f"#estimator input[value='{FIRST}']")).to_have_count(1)
    expect(page.locator("#estimator input:checked")).to_have_value("grpo")
    expected = settings("grpo", "colorfulness")
    assert expected["kl_weight"] != settings(ZEROTH, "colorfulness")["kl_weight"]
    expect_settings(page, expected | {"branches": "4, 12"})
    expect(page.locator("#estimator input:checked")).to_have_value("grpo")


def test_a_list_with_estimators_that_no_longer_fit_is_drawn_anew(page, held):
    held.let_go()
    choose(page, "reward", "colorfulness")
    choose(page, "estimator", FIRST)
    expect_settings(page, settings(FIRST, "colorfulness"))
    choose(page, "reward", "shapes")
    expect(page.locator(f"#estimator input[value='{FIRST}']")).to_have_count(0)
    expect(page.locator("#estimator input:checked")).to_have_value(ZEROTH)
    expect(page.locator("#estimator-notes .rsm-switch")).to_contain_text("Switched to")
    expect_settings(page, settings(ZEROTH))


FORM = ["shapes-train", "90", 240, *range(len(fields.ADVANCED))]
TINY = ["shapes-train", 90.0, *range(len(fields.ADVANCED))]
LARGE = ["general-train", 3600.0, *range(len(fields.ADVANCED))]


def applied(page, now, wanted, before, held=FORM):
    """What the inputs hold after an answer."""
    page.evaluate("held => { window.rsmHeld = [...held]; }", held)
    proposed = tuned.proposal(wanted, before)
    answers = page.evaluate(f"([text, now]) => ({tuned.APPLY})(text, ...now, ...now)", [proposed, now])
    return [old if isinstance(new, dict) else new for old, new in zip(now, answers, strict=True)]


def test_the_time_budget_follows_unless_it_is_one_s_own(page):
    assert applied(page, FORM, LARGE, TINY)[:3] == ["general-train", "custom", 3600]
    listed = ["general-train", "custom", 3600, *FORM[3:]]
    assert applied(page, listed, TINY, LARGE, listed)[:3] == ["shapes-train", "90", 3600]
    for own in (("300", 240), ("custom", 77), ("custom", None), (None, None)):
        now = ["shapes-train", *own, *FORM[3:]]
        assert applied(page, now, LARGE, TINY, now)[1:3] == [*own], own


def test_a_field_that_somebody_changed_since_the_choice_is_left_alone(page):
    other = ["shapes-train", 90.0, *(value + 100 for value in TINY[2:])]
    assert applied(page, FORM, other, TINY) == [*FORM[:3], *other[2:]]
    assert applied(page, FORM, TINY, TINY) == FORM
    now = [*FORM[:3], "typed", None, *FORM[5:]]
    assert applied(page, now, other, TINY) == [*now[:5], *other[4:]]
    # What was put into a field is no change: the next answer may replace it.
    third = ["shapes-train", 90.0, *(value + 200 for value in TINY[2:])]
    put = [*FORM[:3], *other[2:]]
    held = page.evaluate("window.rsmHeld")
    assert held[5:] == other[4:] and held[3:5] == FORM[3:5]
    assert applied(page, put, third, other, put) == [*FORM[:3], *third[2:]]
