"""The plots of the train page: every line of one has a colour of its own, also for rewards of no table."""

import json

from playwright.sync_api import expect

from rsm_app.ui import theme
from rsm_app.ui.result import reward_title
from tests.faults.many_runs import finished_run
from tests.ui.steps import open_page
from trainers.rewards import REWARDS

OWN = "mine.py:redness"


def probed(store, number, names):
    """A finished run that looked three times at held-out prompts and measured some rewards beside its own."""
    run = finished_run(store, number)
    metrics = [{"step": step, "reward_mean": 0.1 * step, "kl": 0.01 * step} for step in range(4)]
    run.folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in metrics))
    others = [{name: [0.1 * step * (i + 1)] for i, name in enumerate(names)} for step in range(3)]
    looks = [{"step": step, "reward": [0.5 + step], "others": others[step]} for step in range(3)]
    run.folder.probes.write_text("".join(json.dumps(line) + "\n" for line in looks))
    return run


def test_as_many_lines_as_there_are_rewards_have_colours_of_their_own():
    names = [*REWARDS.names(), OWN]
    colours = theme.distinct(names)
    assert list(colours) == names and len(set(colours.values())) == len(names)


def test_a_reward_named_in_a_shell_is_drawn_with_the_held_out_curve(page, server, store):
    for number, names in ((900, ["tiny_clip", OWN]), (904, [*REWARDS.names()[:12], OWN])):
        run = probed(store, number, names)
        open_page(page, f"{server.url}/?run={run.id}")
        expect(page.locator("#heldout-plot .mark-line path")).to_be_visible()
        lines = page.locator("#others-plot .mark-line path")
        expect(lines).to_have_count(len(names))
        expect(page.locator("#others-legend li")).to_have_text([reward_title(name) for name in names])
        drawn = {line.get_attribute("stroke") for line in lines.all()}
        assert drawn == set(theme.distinct(names).values())
