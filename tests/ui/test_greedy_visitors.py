"""Visitors who take what they can get, against a running app: what others have and do goes on meanwhile."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from gradio_client import Client
from playwright.sync_api import expect

from rsm_app.jobs.index import folder_bytes
from rsm_app.jobs.records import Worker
from rsm_app.jobs.store import RunStore
from tests.faults.many_runs import finished_run
from tests.jobs.small_runs import SMALL, end_workers, wait_for
from tests.ui.greedy import Greedy, at_once, statuses
from tests.ui.server import Server
from trainers.processes import process_identity

MB = 2**20
DOCUMENTS = ("/", "/config", "/runs")
ANN, BOB = "127.0.0.2", "127.0.0.66"  # Bob is the greedy one
LIMITS = {
    "RSM_DEVICES": "cpu",
    "RSM_MAX_QUEUED_PER_OWNER": "30",
    "RSM_MAX_RUN_SECONDS": "0",
    "RSM_MIN_FREE_MB": "1",
    "RSM_MAX_KEPT_PER_OWNER": "20",
    "RSM_MAX_PINNED_PER_OWNER": "3",
    "RSM_DISK_PER_OWNER_MB": "6",
    "RSM_DISK_QUOTA_MB": "8",
    "RSM_FILES_PER_OWNER_MB": "4",
    "RSM_FILES_MB": "12",
    "RSM_MAX_EVENTS_PER_OWNER": "20",
    "RSM_MAX_REQUESTS_PER_OWNER": "60",
    "RSM_MAX_REQUESTS_PER_SECOND": "100",
    "RSM_MAX_SESSIONS_PER_OWNER": "40",
    "RSM_MAX_RUN_MEMORY_MB": "3000",
    "RSM_MAX_OWN_PROMPTS": "30000",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    place = tmp_path_factory.mktemp("greedy")
    own = {"GRADIO_TEMP_DIR": str(place / "gradio")}
    running = Server(place / "runs", environment=LIMITS | own).start().wait()
    yield running
    running.stop()
    end_workers(RunStore(running.runs))


@pytest.fixture(scope="module")
def store(server):
    return RunStore(server.runs)


@pytest.fixture(scope="module")
def cache(server):
    return Path(server.runs.parent / "gradio")


@pytest.fixture(scope="module")
def ann(server):
    return Greedy(server.port, ANN).read_page().read_page("runs").read_page("lab")


@pytest.fixture(scope="module")
def bob(server):
    return Greedy(server.port, BOB).read_page().read_page("runs").read_page("lab")


@pytest.fixture(scope="module")
def busy(store):
    """Somebody's run that is at work on the only device, so that others wait."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = process_identity(process.pid)

    def occupy(run):
        run.change_job(owner="127.0.0.9", ticket=1)
        run.write_worker(Worker(1, "cpu", "x", pid=process.pid, pid_identity=identity))
        status = {"state": "running", "phase": "train", "pid": process.pid, "pid_identity": identity}
        run.folder.status_file.write_text(json.dumps(status))

    yield finished_run(store, 1, occupy)
    process.kill()
    process.wait()


def kept_run(store, owner, number, megabytes=1.0, **job):
    """A finished run of an owner with its files."""

    def keep(run):
        run.change_job(owner=owner, shared=False, **job)
        (run.path / "weights").write_bytes(b"x" * int(megabytes * MB))
        status = {"state": "succeeded", "phase": "done", "started": 1.0, "heartbeat": 2.0 + number}
        run.folder.status_file.write_text(json.dumps(status))

    return finished_run(store, number, keep)


def working(visitor):
    """Somebody who goes about their business: looks at their runs, starts one and takes it out again."""
    assert isinstance(visitor.call("list_runs", "", 5), list)
    begun = visitor.start()
    assert begun.get("state") == "queued", begun
    assert visitor.call("run_status", begun["run"])["queue_position"] >= 1
    assert visitor.call("stop_run", begun["run"])["state"] == "stopped"


def taken_mb(folder):
    """What the files below a folder take, of which some may be going."""
    return folder_bytes(folder) / MB


def test_starts_and_stops_of_one_visitor_leave_what_another_one_has(store, busy, ann, bob):
    """Twelve starts with as many prompts as one may bring, each stopped at once."""
    mine = kept_run(store, ANN, 100)
    prompts = "a red circle left of a blue square\n" * 25000
    begun = []
    for _ in range(12):
        begun.append(bob.start(prompts, max_updates=1)["run"])
        assert bob.call("stop_run", begun[-1])["state"] == "stopped"
    wait_for(lambda: not store.run(begun[0]), 60, "the first clean-up")
    wait_for(lambda: taken_mb(store.root) < 9, 60, "room")
    assert mine.exists() and ann.call("run_status", mine.id)["state"] == "succeeded"
    assert store.run(begun[-1]), "the greedy one's newest are left"


def test_pinned_junk_pushes_out_no_new_run(store, busy, ann, bob):
    mine = kept_run(store, ANN, 200, megabytes=0.5)
    junk = [kept_run(store, BOB, 210 + number, megabytes=0.1) for number in range(6)]
    pinned = []
    for run in junk:
        view = {"chosen": run.id}
        answer = bob.ask("pin", [view, None, "Pin"])["output"]
        pinned.append("one may pin 3 here" not in json.dumps(answer))
    assert pinned == [True] * 3 + [False] * 3
    assert [run.job().pinned for run in junk] == pinned
    assert mine.exists() and isinstance(ann.call("list_runs", "", 5), list)


def test_uploads_take_no_more_than_a_share_and_another_one_s_stay(cache, ann, bob):
    (mine,) = ann.upload(b"a red circle\n" * 10, "prompts.txt").json
    sent = at_once(lambda number: bob.upload(os.urandom(900_000), f"{number}.txt"), 60)
    assert statuses(sent) == {200}
    assert taken_mb(cache) < 6 and Path(mine).is_file()
    assert sum(Path(answer.json[0]).is_file() for answer in sent) == 4
    assert bob.upload(os.urandom(5 * MB)).status == 413


def test_each_export_takes_the_place_of_the_last_one(store, cache, bob):
    run = kept_run(store, BOB, 300, megabytes=0.2)
    (run.path / "samples" / "x.png").write_bytes(os.urandom(200_000))
    for _ in range(8):
        bob.ask("export", [{"chosen": run.id}, None])
    assert len(list(cache.rglob(f"{run.id}.zip"))) == 1


def test_a_flood_of_costly_events_is_bounded_and_others_are_next(busy, ann, bob):
    """Figures of the laboratory: two hundred of one visitor, while another one wants one."""
    answers = at_once(lambda _: bob.join("_draw_field"), 200)
    assert statuses(answers) == {200, 429}
    refused = next(answer for answer in answers if answer.status == 429).json
    assert "20 requests waiting here already" in refused["detail"]
    working(ann)
    assert ann.ask("_draw_field")["success"]
    assert ann.get("/gradio_api/queue/status").json["queue_size"] > 5, "it was before most of the flood"
    wait_for(lambda: ann.get("/gradio_api/queue/status").json["queue_size"] == 0, 120, "the flood's end")


def test_looks_at_a_megabyte_of_prompts_keep_nobody_waiting(busy, ann, bob):
    values = list(bob.values["preview"])
    source = values.index("Built-in set")
    values[source] = "Paste"
    values[source + 2] = "a red circle left of a blue square\n" * 25000
    answers = at_once(lambda _: bob.join("preview", values), 20)
    assert 200 in statuses(answers)
    working(ann)
    values[source + 2] = "a red circle\n" * 30001
    assert "at most 30000 prompts here, not 30001" in json.dumps(bob.ask("preview", values))
    wait_for(lambda: ann.get("/gradio_api/queue/status").json["queue_size"] == 0, 120, "the flood's end")


def test_no_costly_event_is_called_past_the_queue(bob):
    for event in ("preview", "_draw_field", "start"):
        body = {"data": bob.values[event], "fn_index": bob.events[event], "session_hash": "x"}
        assert bob.request("POST", "/gradio_api/run/predict", body).status == 404
    poll = {"data": ["", ""], "fn_index": bob.events["poll"], "session_hash": "x"}
    assert bob.request("POST", "/gradio_api/run/predict", poll).status == 200


def test_a_huge_body_is_refused_before_it_takes_memory(server, bob, busy, ann):
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    huge = b'{"data": ["' + b"x" * (64 * MB) + b'"], "fn_index": 0, "session_hash": "x"}'
    answer = bob.request("POST", "/gradio_api/queue/join", huge)
    assert answer.status == 413 and "at most 4 MB" in answer.json["detail"]
    assert process.memory_info().rss - before < 40 * MB
    working(ann)


def test_many_sessions_of_one_visitor_take_little_and_end_none_of_another_one_s(server, ann, bob):
    process = psutil.Process(server.process.pid)
    looked = ann.join("due", ["none"], "the-session-of-ann")
    assert looked.status == 200
    before = process.memory_info().rss
    poll = {"data": ["", ""], "fn_index": bob.events["poll"]}
    answers = at_once(
        lambda number: bob.request(
            "POST", "/gradio_api/run/predict", poll | {"session_hash": f"bob-{number}"}
        ),
        250,
    )
    assert 200 in statuses(answers)
    assert process.memory_info().rss - before < 60 * MB
    stream = ann.get("/gradio_api/queue/data?session_hash=the-session-of-ann").body.decode()
    assert "process_completed" in stream and '"success":true' in stream


def test_open_requests_of_one_visitor_are_counted(busy, ann, bob):
    beat = b"GET /gradio_api/heartbeat/%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % b"x"
    with bob.holding(beat, 60) as sockets:
        for one in sockets:
            assert b"200" in one.recv(64)
        answer = bob.get("/config")
        assert answer.status == 429 and "more requests open" in answer.json["detail"]
        working(ann)
    wait_for(lambda: bob.get("/config").status == 200, 60, "the end of what was open")


def test_who_asks_too_often_waits_and_nobody_else(busy, ann, bob):
    answers = []
    while 429 not in statuses(answers) and len(answers) < 9000:  # 400 at once and 100 a second are allowed
        answers += at_once(lambda _: bob.get("/gradio_api/queue/status"), 1500)
    assert statuses(answers) == {200, 429}
    refused = next(answer for answer in answers if answer.status == 429)
    assert "more often than one may" in refused.json["detail"]
    working(ann)
    wait_for(lambda: bob.get("/gradio_api/queue/status").status == 200, 60, "the bucket's next drop")


def test_a_run_that_would_take_more_memory_than_one_may_is_refused_by_name(bob):
    huge = bob.start(micro_batch=65536, prompts_per_update=4096, branches="2,2", rollout_steps=4)
    assert "lower 'micro_batch', which takes" in huge["error"]
    wide = bob.start(lora_rank=1024, branches="2,2", micro_batch=1024, prompts_per_update=512)
    assert "of memory, more than the 2.9 GiB that a run may take here" in wide["error"]


def test_what_no_page_needs_is_closed(cache, bob):
    for path in (
        "/gradio_api/deep_link?session_hash=x",
        "/gradio_api/vibe-code/",
        "/gradio_api/stream/x/close",
    ):
        assert bob.get(path).status == 404
    assert bob.request("POST", "/gradio_api/process_recording", b"x").status == 404
    assert not list(cache.rglob("state.json"))


def test_a_program_that_asks_in_a_loop_is_served(server, busy):
    client = Client(server.url, verbose=False)
    begun = client.predict(
        reward="colorfulness", budget_seconds=900, settings=SMALL | {"max_updates": 1}, api_name="/start_run"
    )
    for _ in range(40):
        told = client.predict(run=begun["run"], api_name="/run_status")
    assert told["state"] == "queued"
    client.predict(run=begun["run"], api_name="/stop_run")


def uploading(visitor):
    """The events that are sent an uploaded file, and where among their values it is."""
    config = visitor.get("/config?page=").json
    (file,) = (part["id"] for part in config["components"] if part["type"] == "file")
    found = {number: name for name, number in visitor.events.items()}
    events = [one for one in config["dependencies"] if file in one["inputs"] and one["id"] in found]
    return {found[one["id"]]: one["inputs"].index(file) for one in events}


def with_upload(visitor, event, position, path):
    """Send an event with a file in its place; return the answer as text."""
    values = [*visitor.values[event]]
    values[values.index("Built-in set")] = "Upload a file"
    values[position] = {"path": path, "meta": {"_type": "gradio.FileData"}}
    return json.dumps(visitor.ask(event, values))


def test_no_event_makes_the_server_fetch_an_address(cache, ann, bob):
    """Of the web or of this machine; a file that was uploaded is read."""
    addresses = ("https://example.org/a.txt", f"http://127.0.0.1:{ann.port}/config")
    found, folders = uploading(bob), set(cache.glob("*"))
    assert {"preview", "start"} <= set(found)
    for event, position in found.items():
        for address in addresses:
            answer = with_upload(bob, event, position, address)
            assert "Download the file, then upload it" in answer, (event, address)
        assert '"success": false' in with_upload(bob, event, position, "HTTPS://example.org/a.txt")
    assert set(cache.glob("*")) == folders
    (mine,) = ann.upload(b"a red circle\na blue square\n", "mine.txt").json
    answer = with_upload(ann, "preview", found["preview"], mine)
    assert '"success": true' in answer and "did not arrive" not in answer


def test_no_address_is_relayed_and_own_files_are_served(ann, bob):
    for form in ("file=https://example.org/a", "file=http:%2f%2fexample.org/a", "file/http://example.org/a"):
        assert bob.get(f"/gradio_api/{form}").status == 404, form
    for form in ("file=HtTpS://example.org/a", "file=%68ttp://example.org/a", "file=http%253A//x"):
        assert bob.get(f"/gradio_api/{form}").status == 404, form
    assert bob.request("HEAD", "/gradio_api/file=https://example.org/a").status == 404
    (mine,) = ann.upload(b"a red circle\n", "http.txt").json
    assert ann.get(f"/gradio_api/file={mine}").body == b"a red circle\n"


def pasted(visitor, text):
    """What the page sends to look at a form with pasted prompts."""
    values = [*visitor.values["preview"]]
    source = values.index("Built-in set")
    values[source], values[source + 2] = "Paste", text
    return values


def test_bodies_of_very_many_parts_take_neither_time_nor_memory(server, busy, ann, bob):
    """A megabyte of prompts in which there are as many brackets is read."""
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    parts = b",".join([b"[]"] * (MB + MB // 10))
    body = b'{"data": [%s], "fn_index": %d, "session_hash": "x"}' % (parts, bob.events["preview"])
    answers = at_once(lambda _: bob.request("POST", "/gradio_api/queue/join", body), 10, 4)
    assert statuses(answers) <= {413, 429} and any("values" in answer.json["detail"] for answer in answers)
    assert process.memory_info().rss - before < 100 * MB
    text = 'a red circle, [a] {blue} "square"\n' * 28000
    assert ann.ask("preview", pasted(ann, text))["success"]
    assert "at most 30000 prompts here" in json.dumps(ann.ask("preview", pasted(ann, "[],{}\n" * 30001)))
    working(ann)


def test_answers_that_one_visitor_never_fetches_are_dropped_and_another_one_s_kept(ann, bob):
    for number in range(15):
        assert ann.join("poll", session=f"ann-{number}").status == 200
    for number in range(150):
        wait_for(
            lambda number=number: bob.join("poll", session=f"bob-{number % 2}").status == 200, 30, "room"
        )
    wait_for(lambda: ann.get("/gradio_api/queue/status").json["queue_size"] == 0, 30, "all answers")
    streams = [bob.get(f"/gradio_api/queue/data?session_hash=bob-{number}").body for number in range(2)]
    assert sum(stream.count(b"process_completed") for stream in streams) <= 20
    for number in range(15):
        stream = ann.get(f"/gradio_api/queue/data?session_hash=ann-{number}").body
        assert stream.count(b"process_completed") == 1, number


def test_a_visitor_with_many_networks_has_a_few_shares_of_the_queue(server, busy, ann, bob):
    """Twelve networks of one subscriber; somebody of another one is served beside them."""
    for number in range(12):
        other = Greedy(server.port, "127.0.0.1", f"2001:db8:66:{number}::1", bob.events, bob.values)
        answers = at_once(lambda _, other=other: other.join("_draw_field"), 20, 4)
    assert 429 in statuses(answers), "the last network finds no room"
    assert ann.get("/gradio_api/queue/status").json["queue_size"] <= 4 * 20
    eve = Greedy(server.port, "127.0.0.1", "2001:db8:77::1", bob.events, bob.values)
    for visitor in (ann, eve):
        working(visitor)
        assert visitor.ask("_draw_field")["success"]
    wait_for(lambda: ann.get("/gradio_api/queue/status").json["queue_size"] == 0, 120, "the flood's end")


def test_pages_of_one_visitor_take_turns_and_another_one_is_served_meanwhile(busy, ann, bob):
    found = []
    flood = threading.Thread(
        target=lambda: found.extend(at_once(lambda n: bob.get(DOCUMENTS[n % 3]), 60, 50))
    )
    flood.start()
    working(ann)
    assert flood.is_alive(), "ten at once, then five a second"
    assert ann.get("/").status == 200
    flood.join()
    assert statuses(found) == {200}


def test_five_tabs_that_are_opened_and_reloaded_at_once_all_come(server, browser):
    """Each in a browser of its own, as one keeps only six connections to a server without HTTP/2."""
    contexts, refused = [browser.new_context() for _ in range(5)], []
    tabs = [context.new_page() for context in contexts]
    for tab in tabs:
        tab.on("response", lambda answer: refused.append(answer.url) if answer.status >= 400 else None)
    for change in ("location.href = address", "location.reload()"):
        for tab in tabs:
            tab.evaluate(f"address => {{ {change} }}", server.url)
        for tab in tabs:
            expect(tab.locator("#start")).to_be_visible()
            expect(tab.locator("#preflight .rsm-preflight")).to_be_visible()
    for context in contexts:
        context.close()
    assert not refused
