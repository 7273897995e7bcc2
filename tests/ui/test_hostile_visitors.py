"""Hostile pages and visitors against a running app: what they reach, and that its own visitors go on."""

import http.client
import http.server
import itertools
import json
import shutil
import socket
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from rsm_app.jobs.store import RunStore
from rsm_app.ui.proxies import UNNAMED
from tests.faults.many_runs import finished_run
from tests.hub.conftest import environment
from tests.hub.stand_in import StandIn
from tests.jobs.small_runs import end_workers, small_config
from tests.ui.forgeries import ATTACKER, FORGERIES, VICTIM
from tests.ui.server import BROWSER_ARGUMENTS, Server, free_port
from tests.ui.steps import PATIENCE_MS
from tests.ui.visitor import Visitor
from trainers.run_folder import picture_name, write_json, write_lines

APP, EVIL, OUTER = "studio.example", "evil.example", "outer.example"
# What a page that wants to act as its visitor tries, and what it was answered; "kept" is nothing at all.
ATTACK = """async ([app, run]) => {
  const told = {}, json = {"Content-Type": "application/json"}, text = {"Content-Type": "text/plain"};
  const attempt = async (name, path, options) => {
    try {
      const answer = await fetch(app + path, options);
      told[name] = answer.type === "opaque" ? "kept" : `${answer.status} ${await answer.text()}`;
    } catch { told[name] = "kept"; }
  };
  const body = (...data) => JSON.stringify({data, session_hash: "x", fn_index: 0});
  await attempt("document", "/");
  await attempt("config", "/config");
  await attempt("api", "/gradio_api/info");
  await attempt("list", "/gradio_api/call/list_runs", {method: "POST", headers: json, body: body("", 50)});
  const event = /event_id":"(\\w+)/.exec(told.list)?.[1] ?? "x";
  await attempt("listed", `/gradio_api/call/list_runs/${event}`);
  for (const [kind, headers] of [["json", json], ["text", text], ["none", {}]]) {
    for (const mode of ["cors", "no-cors"]) {
      const stop = {method: "POST", mode, headers, body: body(run), credentials: "include"};
      await attempt(`stop ${kind} ${mode}`, "/gradio_api/call/stop_run", stop);
      await attempt(`predict ${kind} ${mode}`, "/gradio_api/run/stop_run", stop);
    }
  }
  const forward = {"X-Forwarded-Host": new URL(location).host, "X-Forwarded-For": "127.0.0.1", ...json};
  const posing = {method: "POST", headers: forward, body: body(run)};
  await attempt("stop posing as a proxy", "/gradio_api/call/stop_run", posing);
  const sent = new FormData();
  sent.append("files", new Blob(["x"]), "x.txt");
  await attempt("upload", "/gradio_api/upload", {method: "POST", body: sent});
  await attempt("upload unseen", "/gradio_api/upload", {method: "POST", mode: "no-cors", body: sent});
  navigator.sendBeacon(`${app}/gradio_api/call/stop_run`, body(run));
  const stream = new EventSource(`${app}/gradio_api/queue/data?session_hash=x`, {withCredentials: true});
  told.stream = await new Promise((done) => {
    stream.onopen = () => done("open");
    stream.onerror = () => done("kept");
  });
  stream.close();
  return told;
}"""
FORM = """([app, run]) => {
  const frame = document.createElement("iframe");
  frame.name = "into";
  const form = document.createElement("form");
  Object.assign(form, {method: "post", action: `${app}/gradio_api/call/stop_run`});
  Object.assign(form, {enctype: "text/plain", target: "into"});
  const field = document.createElement("input");
  Object.assign(field, {name: `{"data": ["${run}"], "x": "`, value: '"}'});
  form.append(field);
  document.body.append(frame, form);
  return new Promise((done) => { frame.onload = () => done(true); form.submit(); });
}"""
DENIED = {
    "throws when touched": "{get() { throw new DOMException('no', 'SecurityError'); }}",
    "is null": "{get: () => null}",
    "is missing": "{get: () => undefined}",
    "throws when read": "{get: () => ({getItem() { throw new Error('no'); }})}",
}
FULL = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); };"
KEPT = """() => {
  const inside = document.body.appendChild(document.createElement("iframe"));
  try { return inside.contentWindow.localStorage !== null; } catch { return false; }
  finally { inside.remove(); }
}"""
_NUMBERS = itertools.count(0, 4)  # of runs that have succeeded
PAGES = {"/": "#start:not([disabled])", "/runs": "#runs-table table", "/?run={}": "#run-status .rsm-run"}


class Page(http.server.BaseHTTPRequestHandler):
    """A page of somebody else, with a frame of whatever its address names."""

    def do_GET(self):  # noqa: N802 (the library's name)
        inner = urllib.parse.unquote(self.path.partition("?")[2])
        frame = f'<iframe id="inner" width="1150" height="700" src="{inner}"></iframe>' if inner else ""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(f"<!doctype html><title>Another page</title><body>{frame}</body>".encode())

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    running = StandIn(tmp_path_factory.mktemp("hub"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, hub):
    """The app of Ann, who has signed in on her machine with ``hf auth login``."""
    place = tmp_path_factory.mktemp("app")
    known = environment(hub, place / "home", HF_TOKEN="hf_annWrites", GRADIO_TEMP_DIR=str(place / "gradio"))
    running = Server(place / "runs", environment=known | {"RSM_DEVICES": "cpu"}).start().wait()
    yield running
    running.stop()
    end_workers(RunStore(running.runs))


@pytest.fixture(scope="module")
def others():
    """The port of somebody else's pages."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Page) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_address[1]
        running.shutdown()


@pytest.fixture(scope="module")
def world(browser, chromium):
    """A browser for which every name of the examples leads to this machine."""
    arguments = [*BROWSER_ARGUMENTS, "--host-resolver-rules=MAP *.example 127.0.0.1"]
    running = browser.browser_type.launch(executable_path=chromium, args=arguments)
    yield running
    running.close()


@pytest.fixture
def tab(world):
    context = world.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


def waiting(store, owner):
    """A run that waits for a device which is not there, so that only somebody's word changes it."""

    def queue(run):
        run.folder.status_file.unlink()
        run.folder.config.unlink()
        run.request.write_text(small_config(device="cuda:99").to_json())
        run.change_job(owner=owner, shared=False, ticket=10**6)

    run = finished_run(store, next(_NUMBERS), queue)
    assert run.status().state == "queued"
    return run


def attacked(tab, page, app, run):
    """What a page of somebody else reaches when the app's visitor opens it."""
    tab.goto(page)
    told = tab.evaluate(ATTACK, [app, run.id])
    assert tab.evaluate(FORM, [app, run.id])
    return told


def test_a_page_of_another_address_acts_for_its_visitor_in_nothing_and_reads_nothing(
    tab, server, store, others
):
    app = f"http://{APP}:{server.port}"
    run = waiting(store, f"127.0.0.1 via {APP}")
    for page in (f"http://{EVIL}:{others}/", f"http://{APP}:{others}/", f"http://x.{APP}:{others}/"):
        assert set(attacked(tab, page, app, run).values()) == {"kept"}, page
        assert run.status().state == "queued"
    tab.goto(f"{app}/about")
    told = tab.evaluate(ATTACK, [app, run.id])
    assert run.id in told["listed"] and told["config"].startswith("200") and told["stream"] == "open"
    assert run.status().state == "stopped", "the app's own page stops it"


def test_at_home_neither_another_local_page_nor_one_of_the_internet_acts(tab, server, store, others):
    for host in ("127.0.0.1", "localhost"):
        run = waiting(store, "127.0.0.1")
        app = f"http://{host}:{server.port}"
        for page in (
            f"http://{EVIL}:{others}/",
            f"http://localhost:{others}/",
            f"http://127.0.0.1:{others}/",
        ):
            assert set(attacked(tab, page, app, run).values()) == {"kept"}, (app, page)
            assert run.status().state == "queued"
        tab.goto(f"{app}/about")
        told = tab.evaluate(ATTACK, [app, run.id])
        assert run.id in told["listed"] and run.status().state == "stopped"


def test_a_name_that_was_made_to_lead_here_has_neither_the_runs_nor_the_account(tab, server, store):
    """DNS rebinding: to a browser the page of a stranger and the app are one address, to the app two."""
    run, here = waiting(store, "127.0.0.1"), f"http://{EVIL}:{server.port}"
    tab.goto(f"{here}/about")
    told = tab.evaluate(ATTACK, [here, run.id])
    assert told["listed"].startswith("200") and run.id not in told["listed"]
    assert run.status().state == "queued"
    tab.goto(f"{here}/publish")
    expect(tab.locator("#publish-who")).to_contain_text("Paste a token of your own")
    assert "ann" not in tab.locator("#publish-account").inner_text()
    tab.goto(f"http://127.0.0.1:{server.port}/publish")
    expect(tab.locator("#publish-who")).to_contain_text("signed in to the Hub as ann")


@pytest.mark.parametrize("path", PAGES)
def test_the_pages_work_in_a_frame_of_another_site_that_may_keep_nothing(tab, server, store, others, path):
    run = finished_run(store, next(_NUMBERS))
    address = urllib.parse.quote(f"http://127.0.0.1:{server.port}{path.format(run.id)}", safe="")
    for _ in range(2):
        tab.goto(f"http://{OUTER}:{others}/?{address}")
        inner = tab.frame_locator("#inner")
        expect(inner.locator(PAGES[path]).first).to_be_visible()
        frame = tab.frames[1]
        assert not frame.evaluate(KEPT), "the browser keeps things for this frame"
        assert (
            frame.evaluate("() => { localStorage.setItem('a', 1); return localStorage.getItem('a'); }") == "1"
        )
        if path == "/":
            inner.locator("#reward input[value='colorfulness']").check()
            expect(inner.locator("#preflight .rsm-preflight")).to_be_visible()


@pytest.mark.parametrize("kind", [*DENIED, "is full"])
def test_the_pages_work_where_the_browser_s_storage_does_not(world, server, store, kind):
    run = finished_run(store, next(_NUMBERS))
    context = world.new_context(viewport={"width": 1200, "height": 800})
    names = "['localStorage', 'sessionStorage']"
    deny = f"for (const name of {names}) Object.defineProperty(window, name, {DENIED.get(kind)});"
    context.add_init_script(FULL if kind == "is full" else deny)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    for path, selector in PAGES.items():
        page.goto(f"{server.url}{path.format(run.id)}")
        expect(page.locator(selector).first).to_be_visible()
    assert not wrong
    context.close()


def test_a_browser_that_keeps_things_goes_on_keeping_them(tab, server, store):
    run = finished_run(store, next(_NUMBERS))
    tab.goto(f"{server.url}/?run={run.id}")
    expect(tab.locator("#run-status .rsm-run")).to_be_visible()
    assert tab.evaluate("() => localStorage instanceof Storage && sessionStorage instanceof Storage")
    assert tab.evaluate("() => localStorage.getItem('rsm-studio-run')")


def ask(server, peer, lines, call="list_runs", data=("", 500)):
    """Call an endpoint from an address of this machine, with header lines as they are written."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30, source_address=(peer, 0))
    try:
        body = json.dumps({"data": list(data)}).encode()
        connection.putrequest("POST", f"/gradio_api/call/{call}")
        for name, value in (*lines, ("Content-Type", "application/json"), ("Content-Length", str(len(body)))):
            connection.putheader(name, value.encode("latin-1"))
        connection.endheaders(body)
        event = json.loads(connection.getresponse().read())["event_id"]
        connection.putrequest("GET", f"/gradio_api/call/{call}/{event}")
        for name, value in lines:
            connection.putheader(name, value.encode("latin-1"))
        connection.endheaders()
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_no_headers_show_or_stop_another_visitor_s_run(server, store):
    """From the address of a proxy that is named by default, and from one that is not."""
    run = waiting(store, VICTIM)
    assert run.id in ask(server, "127.0.0.1", [("X-Forwarded-For", VICTIM)]), "to its owner it is shown"
    shown = 0
    for lines in FORGERIES.values():
        for peer, added in (("127.0.0.5", []), ("127.0.0.1", [("X-Forwarded-For", ATTACKER)])):
            shown += run.id in ask(server, peer, [*lines, *added])
            ask(server, peer, [*lines, *added], "stop_run", [run.id])
    assert shown == 0 and run.status().state == "queued"


def proxy_notice(server, session):
    """An event of the train page that changes nothing, as a browser sends it."""
    number = Visitor(server.url, "").events["_proxy_notice"]["id"]
    return json.dumps({"data": [], "fn_index": number, "session_hash": session})


def test_behind_a_proxy_that_is_not_named_the_page_says_that_all_are_one(world, server):
    connection = http.client.HTTPConnection(
        "127.0.0.1", server.port, timeout=30, source_address=("127.0.0.6", 0)
    )
    body = proxy_notice(server, "x")
    headers = {"Content-Type": "application/json", "X-Forwarded-For": VICTIM}
    connection.request("POST", "/gradio_api/run/predict", body, headers)
    told = json.load(connection.getresponse())["data"][0]
    connection.close()
    assert told["visible"] and "one visitor" in told["value"] and "FORWARDED_ALLOW_IPS" in told["value"]
    log = server.runs.parent / f"server-{server.port}.txt"
    assert f"The proxy at 127.0.0.6: {UNNAMED}" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_streams_of_one_session_that_end_together_leave_no_traceback(server):
    """The first one forgets the session, and so did the app's own limits before the second one ends."""
    body = proxy_notice(server, "one-of-many-streams").encode()
    asked = urllib.request.Request(
        f"{server.url}/gradio_api/queue/join", body, {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(asked).close()
    address = ("127.0.0.1", server.port)
    streams = [socket.create_connection(address, timeout=30) for _ in range(4)]
    for stream in streams:
        stream.sendall(
            b"GET /gradio_api/queue/data?session_hash=one-of-many-streams HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        )
        assert stream.recv(4096).startswith(b"HTTP/1.1 200")
    for stream in streams:
        stream.close()
    log = server.runs.parent / f"server-{server.port}.txt"
    for _ in range(20):
        time.sleep(0.1)
        assert status_of(server, "/") == 200 and "Traceback" not in log.read_text()


def status_of(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def drawn(run):
    """Give a run the pictures of one pair."""
    line = {"index": 0, "prompt": "a red circle", "seed": 1, "reward_before": 0.1, "reward_after": 0.3}
    for side, color in (("before", "red"), ("after", "blue")):
        (run.folder.samples / side).mkdir()
        Image.new("RGB", (16, 16), color).save(run.path / picture_name(side, 0))
        line[side] = picture_name(side, 0)
    write_lines(run.folder.pairs, [line])
    write_json(run.folder.report, {"paired": {"mean_gain": 0.2, "n": 1}, "reward": "colorfulness"})
    run.change_job(owner="127.0.0.1")


@pytest.mark.parametrize("deleted", ["in the app", "in a shell"])
def test_pictures_and_exports_of_a_deleted_run_are_served_no_more(tab, server, store, deleted):
    run, other = (finished_run(store, next(_NUMBERS), drawn) for _ in range(2))
    files = {}
    for one in (run, other):
        with tab.expect_response(lambda answer: "/gradio_api/file=" in answer.url):
            tab.goto(f"{server.url}/?run={one.id}")
        pictures = tab.locator("#pairs img, #slider img")
        expect(pictures).to_have_count(3)
        files[one.id] = pictures.evaluate_all("all => all.map(one => new URL(one.src).pathname)")
        exported = Visitor(server.url).send("export", {"chosen": one.id})["runs-save"]["value"]
        files[one.id].append(f"/gradio_api/file={exported['path']}")
    assert all(status_of(server, path) == 200 for paths in files.values() for path in paths)
    if deleted == "in the app":
        asked, visitor = {"chosen": run.id}, Visitor(server.url)
        visitor.send("ask", asked)
        assert "was deleted" in visitor.notice("delete", asked, None)
        assert not [path for path in files[run.id] if Path(path.partition("=")[2]).exists()]
    else:
        shutil.rmtree(run.path)
    forms = list(files[run.id])
    for path in files[run.id]:
        name = path.partition("=")[2]
        forms += [
            f"/gradio_api/file/{name.lstrip('/')}",
            f"/gradio_api/file={name.replace('/of-runs/', '/x/../of-runs/')}",
            f"/gradio_api/file={name.replace('/', '//')}",
            f"/gradio_api/file={name.replace('of-runs', '%6f%66-runs')}",
        ]
    answers = {path: status_of(server, path) for path in forms}
    assert not {path: status for path, status in answers.items() if status < 400}
    assert all(status_of(server, path) == 200 for path in files[other.id]), "of the other run they are"
