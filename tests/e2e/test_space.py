"""The app as a Space starts it: its variables, no home, an application folder that it cannot write."""

import contextlib
import http.client
import http.server
import importlib.util
import json
import os
import shutil
import sys
import threading
import urllib.parse
import urllib.request

import httpx2
import psutil
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from rsm_app.jobs.store import RunStore
from tests.jobs.small_runs import SMALL, end_workers, wait_for
from tests.ui.server import Server

PROGRAM = ("app.py", "assets", "rsm_app", "trainers")
# Root may write everything; without these rights permissions count for it as for everybody else.
UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")
STARTER = "import os, sys\nos.chdir(sys.argv[1])\nos.execvp(sys.argv[2], sys.argv[2:])\n"


def copied_program(repository, app):
    """A copy of the program where nothing can be written."""
    app.mkdir()
    for name in PROGRAM:
        source, ignored = repository / name, shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, app / name, ignore=ignored)
        else:
            shutil.copy(source, app / name)
    for path in (app, *app.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.fixture(scope="module")
def place(repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("space")
    copied_program(repository, folder / "app")
    (folder / "tmp").mkdir()
    (folder / "start.py").write_text(STARTER)
    yield folder
    for path in (folder / "app", *(folder / "app").rglob("*")):
        if path.is_dir():
            path.chmod(0o755)


class Provider(http.server.BaseHTTPRequestHandler):
    """Says, as the Hub does, where one signs in."""

    def do_GET(self):  # noqa: N802 (the library's name)
        here = f"http://{self.headers['Host']}"
        told = {"issuer": here, "authorization_endpoint": f"{here}/oauth/authorize"}
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(told | {"token_endpoint": f"{here}/oauth/token"}).encode())

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture(scope="module")
def provider():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def space(place, provider):
    own = {
        "SYSTEM": "spaces",
        "SPACE_ID": "ann/studio",
        "SPACE_HOST": "127.0.0.1",
        "SPACE_HARDWARE": "cpu-basic",
        "ACCELERATOR": "none",
        "OAUTH_CLIENT_ID": "the-space",
        "OAUTH_CLIENT_SECRET": "secret",
        "OAUTH_SCOPES": "openid profile contribute-repos",
        "OPENID_PROVIDER_URL": provider,
        "HOME": "/dev/null/home",
        "TMPDIR": str(place / "tmp"),
        "RSM_DEVICES": "cpu",
        **dict.fromkeys(("RSM_RUNS_DIR", "HF_HOME", "MPLCONFIGDIR", "GRADIO_TEMP_DIR", "XDG_CACHE_HOME"), ""),
    }
    as_anybody = UNPRIVILEGED if os.geteuid() == 0 else ()
    words = (str(place / "start.py"), str(place / "app"), *as_anybody, sys.executable, "app.py")
    server = Server(place / "unused", program=words, environment=own).start().wait()
    yield server
    server.stop()
    for runs in place.glob("tmp/rsm-studio-*/runs"):
        end_workers(RunStore(runs))


@pytest.fixture(scope="module")
def client(space):
    with contextlib.closing(Client(space.url, verbose=False)) as client:
        yield client


def listening(pid):
    """The ports at which a process and all that it started answer."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return {
        connection.laddr.port
        for process in family
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def test_a_visitor_is_known_by_the_hop_that_the_platform_s_proxy_wrote(space):
    """Two visitors behind the Space's proxy: neither sees the other's run, whatever they write themselves."""

    def runs(*forwarded):
        connection = http.client.HTTPConnection("127.0.0.1", space.port, timeout=30)
        try:
            headers = {"Content-Type": "application/json", "X-Forwarded-For": ", ".join(forwarded)}
            body = json.dumps({"data": ["", 50]})
            connection.request("POST", "/gradio_api/call/list_runs", body, headers)
            event = json.loads(connection.getresponse().read())["event_id"]
            connection.request("GET", f"/gradio_api/call/list_runs/{event}", headers=headers)
            answer = connection.getresponse().read().decode()
            return json.loads(answer.partition("data: ")[2])[0]
        finally:
            connection.close()

    quick = {"model": "tiny-flow", "reward": "colorfulness", "settings": SMALL | {"max_updates": 1}}
    ann = Client(space.url, verbose=False, headers={"X-Forwarded-For": "93.184.216.34"})
    with contextlib.closing(ann):
        run = ann.predict(api_name="/start_run", **quick)["run"]
        ann.predict(run=run, api_name="/stop_run")
    assert [one["run"] for one in runs("93.184.216.34")] == [run]
    assert [one["run"] for one in runs("9.9.9.9", "93.184.216.34")] == [run]
    for forged in (("93.184.216.34", "9.9.9.9"), ("93.184.216.34", "10.1.2.3"), ("93.184.216.34", "unknown")):
        assert runs(*forged) == []


def test_the_page_says_what_a_visitor_may_use_and_offers_a_copy(space):
    page = urllib.request.urlopen(space.url, timeout=20).read().decode()
    assert "at most 1 at work and 3 waiting. Of yours 50 ended runs and 1000 MB are kept" in page
    assert (
        "and you may pin 5; beyond that your oldest unpinned runs are deleted. A run may take 30 minutes."
        in page
    )
    assert "Duplicate this Space" in page and "huggingface.co/spaces/ann/studio?duplicate=true" in page


def test_one_signs_in_where_the_provider_says(space, provider):
    page = urllib.request.urlopen(f"{space.url}/publish", timeout=20).read().decode()
    assert "publish-sign-in" in page
    answer = httpx2.get(f"{space.url}/login/huggingface", follow_redirects=False)
    target = urllib.parse.urlparse(answer.headers["Location"])
    assert answer.status_code == 302 and f"{target.scheme}://{target.netloc}" == provider
    asked = urllib.parse.parse_qs(target.query)
    assert target.path == "/oauth/authorize" and asked["client_id"] == ["the-space"]
    assert asked["scope"] == ["openid profile contribute-repos"]
    assert urllib.parse.urlparse(asked["redirect_uri"][0]).path == "/login/callback"


def test_a_run_started_by_a_program_ends_with_its_results_among_temporary_files(client, place):
    quick = {"reward": "colorfulness", "budget_seconds": 900, "settings": SMALL | {"max_updates": 1}}
    run = client.predict(api_name="/start_run", **quick)["run"]

    def ended():
        told = client.predict(run=run, api_name="/run_status")
        return told if told["state"] not in ("queued", "running") else None

    told = wait_for(ended, what="the run's end")
    assert told["state"] == "succeeded", told
    (folder,) = place.glob(f"tmp/rsm-studio-*/runs/{run}")
    assert (folder / "adapter" / "pytorch_lora_weights.safetensors").is_file()


def test_the_button_opens_no_endpoint(client):
    found = client.view_api(return_format="dict")
    assert len(found["named_endpoints"]) == 5 and not found["unnamed_endpoints"]


def test_a_visitor_meets_the_limits_of_a_space(client):
    with pytest.raises(AppError, match="may take 1800 seconds here"):
        client.predict(budget_seconds=1801, api_name="/start_run")


def test_nothing_was_written_into_the_program(place, repository):
    found = {path.relative_to(place / "app") for path in (place / "app").rglob("*") if path.is_file()}
    assert found and all((repository / path).is_file() for path in found)


def test_nothing_but_the_app_itself_answers(space):
    """A Space with the package ``spaces`` would let anybody edit the running program at port 7887.

    Asked last, for Gradio takes its time to open that.
    """
    assert importlib.util.find_spec("spaces"), "only then is there anything to open"
    assert "SYSTEM" in space.environment and listening(space.process.pid) == {space.port}
