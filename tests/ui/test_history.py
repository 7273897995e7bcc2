"""The list of runs as data and as HTML: what is listed, what a line says, and that it stays text."""

import dataclasses
import json
import time
from html.parser import HTMLParser

import pytest

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.queue import Place
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import history, run_table
from rsm_app.ui.history import View
from tests.faults.many_runs import finished_run, make_finished_runs
from trainers.run_folder import write_json

ME = "192.0.2.7"


@pytest.fixture
def supervisor(tmp_path):
    supervisor = Supervisor(RunStore(tmp_path / "runs"), Limits())
    yield supervisor
    supervisor.close()


def listed(supervisor, **view):
    return history.listing(supervisor, View(**view), (ME,))


def report(gain=0.1, z=3.0, wall=83.0):
    return {"paired": {"n": 8, "mean_gain": gain, "stderr": gain / z, "z": z}, "wall_seconds": wall}


def describe(run, **settings):
    """Change a run's settings on disk."""
    changed = json.dumps(run.settings() | settings)
    run.folder.config.write_text(changed)
    run.change_job(submitted=time.time())  # a file that the index watches


class _Tags(HTMLParser):
    """Collects the tags and the text of some HTML."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def test_pages_cover_all_runs_once_and_a_page_beyond_the_last_is_the_last(supervisor):
    make_finished_runs(supervisor.store, 60)
    seen = []
    for page in range(3):
        found = listed(supervisor, page=page)
        assert (found.offset, found.found) == (25 * page, 60) and len(found.rows) == (25, 25, 10)[page]
        seen += [row.id for row in found.rows]
    assert seen == sorted(supervisor.store.names(), reverse=True)
    assert listed(supervisor, page=99).rows == found.rows and listed(supervisor, page=99).offset == 50


def test_states_pins_and_words_narrow_the_list(supervisor):
    runs = make_finished_runs(supervisor.store, 40)
    describe(runs[4], reward="colorfulness")
    describe(runs[5], reward="colorfulness", model="tiny-diffusion")
    runs[6].change_job(pinned=True, owner=ME)
    runs[7].change_job(owner="203.0.113.9")

    def ids(**view):
        found = listed(supervisor, **view)
        assert found.found == len(found.rows)
        return {row.id for row in found.rows}

    assert len(ids(group="broken")) == 10 and len(ids(group="succeeded")) == 20
    assert ids(group="queued") == ids(group="live") == set()
    assert ids(group="pinned") == {runs[6].id}
    assert ids(text="COLORfulness") == {runs[4].id, runs[5].id}
    assert ids(text="diffusion colorfulness") == {runs[5].id}
    assert ids(text="colorfulness", group="broken") == set()
    assert ids(text=runs[9].id) == {runs[9].id}
    assert ids(text="you") == {runs[6].id}
    assert ids(text="203.0.113") == set(), "addresses of visitors cannot be searched for"
    assert ids(text="failed visitor") == {runs[7].id}
    assert len(listed(supervisor, text="shapes", page=1).rows) == 13
    totals = listed(supervisor)
    assert totals.states == {"succeeded": 20, "stopped": 10, "failed": 10} and totals.bytes > 0


@pytest.mark.parametrize(
    ("owner", "shown"),
    [("", "a shell"), (ME, "you"), ("ann", "ann"), ("203.0.113.9", "another visitor"),
     ("2001:db8::1", "another visitor")],
)  # fmt: skip
def test_owners_are_named_without_their_addresses(owner, shown):
    assert history.owner_name(owner, (ME,)) == shown


def test_a_gain_is_shown_with_its_error_and_coloured_only_when_it_is_clear(tmp_path):
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "report.json"
    for z, tone in ((3.0, "plus"), (-3.0, "minus"), (1.0, ""), (-1.9, "")):
        write_json(path, report(gain=0.12 * (1 if z > 0 else -1), z=z))
        found = history.outcome(path.parent)
        assert found.tone == tone and " ± 0." in found.gain and found.seconds == 83.0
        assert found.gain[0] == ("+" if z > 0 else "−")
    path.unlink()
    assert history.outcome(path.parent) == history.Outcome()


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"paired": 3}', '{"paired": {"mean_gain": "x", "z": []}}']
)
def test_a_damaged_report_leaves_a_dash(supervisor, content):
    run = finished_run(supervisor.store, 0)
    run.folder.report.write_text(content)
    html = run_table.table_html(supervisor, listed(supervisor), View(chosen=run.id), (ME,))
    assert '<td data-label="Gain"><span>–</span></td>' in html
    row = supervisor.index.row(run.id)
    assert run.id in run_table.chosen_html(supervisor, run, row, mine=True)


def test_whatever_a_run_says_stays_text(supervisor):
    run = finished_run(supervisor.store, 3)
    evil = "<img src=x onerror=alert(1)>\"&'"
    describe(run, model=evil, reward=evil, estimator=evil)
    run.change_job(owner=evil)
    status = {"state": "failed", "error": evil * 9, "message": evil, "stop_reason": evil}
    write_json(run.folder.status_file, status)
    row = supervisor.index.rows(scan=True)[0]
    assert row.state == "failed" and evil in row.error and evil in row.owner
    htmls = [
        run_table.table_html(supervisor, listed(supervisor), View(), (ME,)),
        run_table.chosen_html(supervisor, run, row, mine=False),
        run_table.summary_html(listed(supervisor), evil),
    ]
    for html in htmls:
        found = _Tags(html)
        assert not [tag for tag, attrs in found.tags if tag == "img" or "onerror" in attrs]
        assert evil in "".join(found.words)


def test_settings_that_cannot_be_read_are_listed_all_the_same(supervisor):
    run = finished_run(supervisor.store, 0)
    for content in ("", "[1]", '{"model": 5, "reward": null}'):
        run.folder.config.write_text(content)
        run.request.write_text(content)
        run.change_job(submitted=time.time())
        html = run_table.table_html(supervisor, listed(supervisor), View(), (ME,))
        assert run.id in html and listed(supervisor, text="nothing").rows == []


def test_nothing_listed_says_why(supervisor):
    html = run_table.table_html(supervisor, listed(supervisor), View(), (ME,))
    assert "No run yet" in html and run_table.summary_html(listed(supervisor), "") == ""
    finished_run(supervisor.store, 0)
    html = run_table.table_html(supervisor, listed(supervisor, text="zebra"), View(), (ME,))
    assert "There is 1 run here" in html


def test_a_line_changes_rarely_while_its_run_works(supervisor):
    row = supervisor_row(supervisor, eta_seconds=95.0)
    told = {history.detail(dataclasses.replace(row, eta_seconds=95.0 - s), None) for s in range(30)}
    assert told == {"training, about 2 min left"}
    assert history.about(3) == "about 10 s" and history.about(4000) == "about 1 h 10 min"


def supervisor_row(supervisor, **changes):
    row = supervisor.index.row(finished_run(supervisor.store, 0).id)
    return dataclasses.replace(row, state="running", phase="train", **changes)


def test_a_waiting_run_tells_its_place_and_its_start(supervisor):
    row = dataclasses.replace(supervisor_row(supervisor), state="queued")
    assert history.detail(row, Place(2, 3, 130.0)) == "2 of 3 in the queue, starts in about 3 min"
    assert history.detail(row, Place(1, 1, 0.0)) == "1 of 1 in the queue, starts in a moment"
    assert "no device" in history.detail(row, Place(1, 1, None))


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0.0 kB"), (640_000, "640 kB"), (1_234_567, "1.2 MB"), (98_000_000, "98 MB"),
                        (3_400_000_000, "3.4 GB")],
)  # fmt: skip
def test_sizes_are_written_for_people(count, text):
    assert history.size(count) == text
