"""The handlers of the train page by themselves: who may change a run, and what a retry and a copy do."""

import dataclasses
import json
import os
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.queue import ready
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import train
from rsm_app.ui.access import REFUSED, allowed, owner_of, owners_of
from rsm_app.ui.choices import finished_choices, finished_run, why_not
from rsm_app.ui.history import View, listing
from rsm_app.ui.watch import PARTS
from tests.jobs.small_runs import small_config
from tests.ui.asking import asker
from trainers.errors import InputError
from trainers.processes import process_identity
from trainers.prompts import builtin_sets
from trainers.run_folder import write_json

PAGES = Path(train.__file__).parent


OWNER, STRANGER = asker("10.0.0.1"), asker("10.0.0.2")


@pytest.fixture
def supervisor(tmp_path, monkeypatch):
    """Runs and their queue, where nothing starts because no device fits."""
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    made = Supervisor(RunStore(tmp_path / "runs"), Limits(free_mb=0))
    monkeypatch.setattr(made, "tick", lambda: None)
    yield made
    made.close()


@pytest.fixture
def handlers(supervisor):
    with gr.Blocks() as demo:
        train.build(demo, supervisor)
    found = {}
    for event in demo.fns.values():
        found.setdefault(event.api_name, event)
    return found


def failed(supervisor, owner="10.0.0.1", started=True):
    """A run whose worker said why it ended: after it began, or before."""
    run = supervisor.submit(small_config(), None, owner)
    status = {"state": "failed", "phase": "train", "error": "The reward failed. Choose another."}
    if started:
        run.folder.config.write_text(run.request.read_text())
    write_json(run.folder.status_file, status | {"pid_identity": "gone"})
    run.change_job(ticket=0)
    return run


def now(handler):
    """Return the answer of a handler that never waits; browser tests of this process have a loop running."""
    with pytest.raises(StopIteration) as ended:
        handler.send(None)
    return ended.value.value


def panel_of(handlers, run_id, who) -> dict:
    """Return what a fresh tab's run panel is sent: its head, then every part."""
    changes = now(handlers["poll"].fn(run_id, "", who))
    for name in PARTS:
        changes |= handlers[f"fill_{name}"].fn(run_id, "gain", who)
    return changes


@pytest.mark.parametrize("sent", [None, [], ["x"], {"run": "x"}, 7, True])
def test_what_is_no_text_asks_for_no_run(handlers, sent):
    """What a page sends comes to a tick as it is."""
    assert panel_of(handlers, sent, OWNER) == panel_of(handlers, "", OWNER)


@pytest.mark.parametrize("sent", ["../x", "<script>x", "x" * 100_000])
def test_a_text_that_is_no_id_is_told_and_harmless(handlers, sent):
    html = next(iter(panel_of(handlers, sent, OWNER).values()))
    assert "No such run" in html and "<script" not in html and len(html) < 1000


def test_a_run_is_its_owner_s_and_one_from_a_shell_is_everybody_s(supervisor):
    run = supervisor.submit(small_config(), None, owner_of(OWNER))
    assert allowed(run, OWNER) and not allowed(run, STRANGER)
    run.job_file.unlink()  # what the app made says whose it is, or it is nobody's
    assert not allowed(run, OWNER) and not allowed(run, STRANGER)
    assert allowed(from_a_shell(supervisor), STRANGER)


def test_who_signed_in_is_known_by_name_and_keeps_what_was_started_before(supervisor):
    ada, bob = asker("10.0.0.1", "ada"), asker("10.0.0.1", "bob")
    assert owners_of(ada) == ("ada", "10.0.0.1") and owners_of(OWNER) == ("10.0.0.1",)
    before = supervisor.submit(small_config(), None, *owners_of(OWNER))
    after = supervisor.submit(small_config(), None, *owners_of(ada))
    assert (before.job().owner, after.job().owner) == ("10.0.0.1", "ada")
    elsewhere = asker("10.0.0.9", "ada")
    assert [allowed(before, who) for who in (ada, OWNER, elsewhere)] == [True, True, False]
    assert [allowed(after, who) for who in (ada, elsewhere, OWNER, bob)] == [True, True, False, False]
    assert {row.id for row in listing(supervisor, View(), owners_of(ada)).rows} == {before.id, after.id}
    assert {row.id for row in listing(supervisor, View(), owners_of(bob)).rows} == {before.id}


def test_signing_out_gives_no_second_share_and_signing_in_one_s_own(supervisor):
    """Two may wait each: Ada's two count for whoever has no name at her address, and not for Bob there."""
    supervisor.limits = Limits(free_mb=0, owner_queued=2)
    ada, bob = asker("10.0.0.1", "ada"), asker("10.0.0.1", "bob")

    def submit(who):
        return supervisor.submit(small_config(), None, *owners_of(who))

    submit(ada)
    submit(ada)
    for who in (ada, OWNER):
        with pytest.raises(InputError, match="2 runs waiting already"):
            submit(who)
    submit(bob)
    ada_s, _, bob_s = supervisor.index.queue()
    unnamed = dataclasses.replace(ada_s, owner="10.0.0.1", address="")
    machine = ("cuda:0", "cuda:1")
    assert list(ready([unnamed], [ada_s], machine, 1)) == list(ready([ada_s], [unnamed], machine, 1)) == []
    assert list(ready([bob_s], [ada_s], machine, 1)) == [(bob_s, "cuda:1")]


@pytest.mark.parametrize("name", ["stop", "resume", "extend", "retry"])
def test_a_stranger_s_request_changes_nothing_and_is_answered_in_words(supervisor, handlers, name):
    run = failed(supervisor)
    supervisor.share(run.id)
    before = (run.status(), run.job())
    answer = handlers[name].fn(run.id, STRANGER)
    assert REFUSED in (answer if isinstance(answer, str) else answer[0])
    assert (run.status(), run.job()) == before and len(supervisor.store.runs()) == 1


def test_a_stranger_sees_a_shared_run_but_neither_its_buttons_nor_its_files(supervisor, handlers):
    run = failed(supervisor)
    supervisor.share(run.id)
    write_json(run.folder.report, {"reward": "colorfulness"})
    shown = {}
    for who in (OWNER, STRANGER):
        changes = panel_of(handlers, run.id, who)
        shown[who.client.host] = {part.elem_id: change for part, change in changes.items() if part.elem_id}
    mine, theirs = shown.values()
    assert mine["retry"]["visible"] and mine["more"]["visible"] and mine["report"]["visible"]
    assert not any(theirs[name]["visible"] for name in ("retry", "more", "adapter", "report"))
    assert theirs["duplicate"]["visible"] and "rsm-failure" in theirs["run-status"]


def test_a_file_to_take_away_is_made_on_asking_in_a_place_of_its_own(supervisor, handlers):
    run = failed(supervisor)
    write_json(run.folder.report, {"reward": "colorfulness"})
    run.folder.adapter.mkdir()
    (run.folder.adapter / "weights.safetensors").write_bytes(b"weights")
    shown = panel_of(handlers, run.id, OWNER)
    (save,) = [change for part, change in shown.items() if part.elem_id == "save"]
    assert save["visible"] is False and save["value"] is None, "nothing is made for somebody who only looks"
    made = []
    for name in ("export_adapter", "export_adapter", "export_report"):
        problems, offered = handlers[name].fn(run.id, OWNER)
        assert problems == "" and offered["visible"]
        made.append(Path(offered["value"]))
    cache = Path(handlers["export_adapter"].outputs[1].GRADIO_CACHE)
    assert all(cache in path.parents for path in made), "Gradio clears away what is old there"
    assert len({path.parent for path in made}) == 3, "no two tabs write the same file"
    assert [path.exists() for path in made] == [False, True, True], "the last one takes the first one's place"
    with zipfile.ZipFile(made[1]) as archive:
        assert archive.read("weights.safetensors") == b"weights"
    assert json.loads(made[2].read_text()) == run.folder.read_report()
    supervisor.files.forget_exports(run.id)
    assert not any(path.exists() for path in made)


def test_a_stranger_takes_no_file_away_and_what_is_not_there_is_told(supervisor, handlers):
    run = failed(supervisor)
    supervisor.share(run.id)
    for name, sentence in (("export_adapter", "no adapter"), ("export_report", "no report")):
        problems, offered = handlers[name].fn(run.id, STRANGER)
        assert REFUSED in problems and offered == gr.skip()
        problems, offered = handlers[name].fn(run.id, OWNER)
        assert sentence in problems and offered == gr.skip()
        assert "no longer exists" in handlers[name].fn("20200101-000000-abcdef", OWNER)[0]


def test_no_look_at_a_changed_form_is_left_out(supervisor):
    """Gradio drops an event that comes while the same one is on its way, unless the last one is to count."""
    with gr.Blocks() as demo:
        train.build(demo, supervisor)
    events = list(demo.fns.values())
    chain = [event for event in events if getattr(event.fn, "__name__", "") == "choose"]
    for event in chain:
        chain += [after for after in events if after.trigger_after == event._id]
    assert [getattr(event.fn, "__name__", "") for event in chain] == ["choose", "", "preview"]
    assert {event.trigger_mode for event in chain} == {"always_last"}


def test_retry_goes_on_with_a_run_that_began(supervisor, handlers):
    run = failed(supervisor)
    problems, shown = handlers["retry"].fn(run.id, OWNER)
    assert (problems, shown) == ("", run.id)
    assert run.job().ticket and len(supervisor.store.runs()) == 1


def test_retry_begins_anew_when_the_run_never_began(supervisor, handlers):
    run = failed(supervisor, started=False)
    assert run.status().state == "failed" and not run.resumable()
    problems, shown = handlers["retry"].fn(run.id, OWNER)
    assert problems == "" and shown != run.id
    again = supervisor.store.run(shown)
    assert again.settings() == run.settings() and again.job().owner == "10.0.0.1"


def test_retry_of_a_run_with_own_prompts_takes_them_along(supervisor, handlers):
    run = supervisor.submit(small_config(), "a red circle\ntwo blue squares\n", "10.0.0.1")
    write_json(run.folder.status_file, {"state": "failed", "error": "No.", "pid_identity": "gone"})
    run.change_job(ticket=0)
    _, shown = handlers["retry"].fn(run.id, OWNER)
    assert supervisor.store.run(shown).prompts.read_text() == "a red circle\ntwo blue squares\n"


def test_a_copy_fills_every_input_with_the_run_s_settings(supervisor, handlers, monkeypatch):
    monkeypatch.setattr(gr, "Info", lambda text: None)
    run = supervisor.submit(small_config(seed=7, budget_seconds=77.0, kl_weight=0.25), None, "")
    event = handlers["duplicate"]
    values = dict(zip([part.elem_id for part in event.outputs], event.fn(run.id, STRANGER), strict=True))
    assert values["model"] == "tiny-flow" and values["reward"] == "colorfulness" and values["seed"] == 7
    assert values["budget"] == "custom" and values["custom-seconds"] == 77.0
    assert values["set-kl_weight"] == 0.25 and values["set-branches"] == "2, 2"
    assert values["estimator"]["value"] == "rsm_zeroth_order_flow"


@pytest.fixture
def told(monkeypatch):
    """What the page says beside the form."""
    found = []
    monkeypatch.setattr(gr, "Info", lambda text: None)
    monkeypatch.setattr(gr, "Warning", found.append)
    return found


def copied(handlers, run, who=STRANGER) -> dict:
    event = handlers["duplicate"]
    return dict(zip([part.elem_id for part in event.outputs], event.fn(run.id, who), strict=True))


def from_a_shell(supervisor, **paths):
    """A run as a shell leaves it: its settings, and nothing of the app's."""
    run = supervisor.store.create()
    run.folder.config.write_text(small_config(**{name: str(path) for name, path in paths.items()}).to_json())
    return run


def test_a_copy_of_a_run_from_a_shell_takes_its_own_prompts_along(supervisor, handlers, told, tmp_path):
    own, held = tmp_path / "own.txt", tmp_path / "held.txt"
    own.write_text("# mine\na red circle\n\ntwo blue squares\n")
    held.write_text("a green triangle\n")
    run = from_a_shell(supervisor, prompts=own, heldout_prompts=held)
    values = copied(handlers, run)
    assert values["prompt-source"] == "Paste" and values["pasted"] == "a red circle\ntwo blue squares\n"
    assert values["set-heldout_prompts"] in builtin_sets()
    (sentence,) = told
    assert "held-out prompts" in sentence and values["set-heldout_prompts"] in sentence
    own.unlink()
    values = copied(handlers, run)
    assert values["prompt-source"] == "Built-in set" and values["prompt-set"] in builtin_sets()
    assert "training prompts" in told[1] and values["prompt-set"] in told[1]


def test_a_copy_reads_no_file_that_another_s_settings_name(supervisor, handlers, told, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the password\n")
    shell = from_a_shell(supervisor, prompts=secret)
    asked, kept, linked = (supervisor.submit(small_config(), None, "10.0.0.1") for _ in range(3))
    for run in (asked, kept, linked):
        supervisor.share(run.id)
    asked.request.write_text(small_config(prompts=str(secret)).to_json())
    kept.request.unlink()  # as if it was brought here
    kept.folder.config.write_text(small_config(prompts=str(secret)).to_json())
    linked.prompts.symlink_to(secret)
    linked.request.write_text(small_config(prompts=str(linked.prompts)).to_json())
    for run in (asked, kept, linked):
        values = copied(handlers, run)
        assert values["prompt-source"] == "Built-in set" and "password" not in str(values)
    assert len(told) == 3
    shell.change_job(owner="10.0.0.1")
    assert "password" not in str(handlers["duplicate"].fn(shell.id, STRANGER))


def test_a_copy_of_damaged_settings_leaves_the_form_alone(supervisor, handlers, monkeypatch):
    told = []
    monkeypatch.setattr(gr, "Warning", told.append)
    run = supervisor.submit(small_config(), None, "")
    run.request.write_text(json.dumps({"model": "unknown"}))
    answer = handlers["duplicate"].fn(run.id, STRANGER)
    assert len(answer) == len(handlers["duplicate"].outputs) and "cannot be read" in told[0]
    assert all(change == gr.skip() for change in answer)


def test_a_stranger_sees_nothing_of_a_run_that_is_not_shared(supervisor, handlers, monkeypatch):
    told = []
    monkeypatch.setattr(gr, "Warning", told.append)
    run = failed(supervisor)
    changes = panel_of(handlers, run.id, STRANGER)
    (html,) = [change for part, change in changes.items() if part.elem_id == "run-status"]
    assert "No such run" in html and "The reward failed" not in html
    assert all(change == gr.skip() for change in handlers["duplicate"].fn(run.id, STRANGER)) and told
    assert handlers["select_pair"].fn(run.id, "gain", SimpleNamespace(index=0), STRANGER) == gr.skip()


def test_lists_hold_what_one_may_see(supervisor):
    mine, shared, shell = failed(supervisor), failed(supervisor), failed(supervisor, owner="")
    supervisor.share(shared.id)
    for who, expected in ((OWNER, {mine.id, shared.id, shell.id}), (STRANGER, {shared.id, shell.id})):
        me = owners_of(who)
        page = listing(supervisor, View(), me)
        assert {row.id for row in page.rows} == expected
        assert page.found == sum(page.states.values()) == len(expected)
        assert {row.id for row in listing(supervisor, View(text="colorfulness"), me).rows} == expected


def at_work(supervisor, owner):
    """A run whose worker is this process."""
    run = supervisor.submit(small_config(), None, owner)
    run.folder.config.write_text(run.request.read_text())
    pid = os.getpid()
    status = {"state": "running", "pid": pid, "pid_identity": process_identity(pid), "heartbeat": time.time()}
    write_json(run.folder.status_file, status)
    run.change_job(ticket=0)
    return run


def test_a_fresh_browser_finds_its_own_live_run_before_those_of_others(supervisor, handlers):
    def shown(who):
        return handlers["attach"].fn("", "", who)[0]

    assert shown(OWNER) == ""
    waiting = supervisor.submit(small_config(), None, "10.0.0.1")
    theirs = at_work(supervisor, "10.0.0.2")
    assert (shown(OWNER), shown(STRANGER)) == (waiting.id, theirs.id)
    own = at_work(supervisor, "10.0.0.1")
    newer = at_work(supervisor, "10.0.0.2")
    supervisor.share(newer.id)
    assert (shown(OWNER), shown(STRANGER), shown(asker("10.0.0.3"))) == (own.id, newer.id, newer.id)


def test_a_finished_run_is_compared_by_those_who_may_see_it(supervisor):
    run = supervisor.submit(small_config(), None, "10.0.0.1")
    run.folder.samples.mkdir()
    run.folder.pairs.write_text("")
    write_json(run.folder.report, {"paired": {"mean_gain": 0.25}, "reward": "colorfulness"})
    write_json(run.folder.status_file, {"state": "succeeded", "pid_identity": "gone"})
    run.change_job(ticket=0)
    supervisor.index.note(run)
    assert [name for _, name in finished_choices(supervisor, OWNER)] == [run.id]
    assert finished_run(supervisor, run.id, OWNER).id == run.id
    assert finished_choices(supervisor, STRANGER) == []
    assert finished_run(supervisor, run.id, STRANGER) is None
    assert "may see" in why_not(supervisor, run.id, STRANGER)


def test_pages_find_runs_only_where_the_asker_is_known():
    places = {path.name for path in PAGES.glob("*.py") if "store.run(" in path.read_text(encoding="utf-8")}
    # The cache only asks whether a run is there whose file somebody has the address of.
    assert places == {"access.py", "cached.py"}, "use access.visible_run"
