"""How often the figures before a run ask the Hub about a model that is not here."""

import http.server
import threading

import pytest

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.resources import Resources
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import preflight
from trainers.presets import build_config


class Gate(http.server.BaseHTTPRequestHandler):
    """Refuses every repository as gated, and counts how often it was asked."""

    def do_GET(self):  # noqa: N802 (the library's name)
        self.server.asked.append(self.path)
        self.send_response(403)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Keep quiet."""


@pytest.fixture
def hub(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    server.asked = []
    server.asked_about = lambda name: sum(name in path for path in server.asked)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    preflight._asked_lately.cache_clear()
    yield server
    preflight._asked_lately.cache_clear()
    server.shutdown()
    server.server_close()


def test_every_change_of_the_form_is_answered_but_the_hub_is_asked_once_a_minute(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    monkeypatch.setattr(preflight, "resources", lambda asked: Resources("cuda:0", 8, 8192.0, None, 80.0))
    supervisor = Supervisor(RunStore(tmp_path / "runs"), Limits(free_mb=0))

    def told(model, seed):
        config = build_config(model, "rsm_zeroth_order_flow", "colorfulness", {"seed": seed})
        return preflight.preflight_html(supervisor, config)

    monkeypatch.setattr(preflight, "ASKED_SECONDS", 1e12)  # so that no minute ends within the test
    assert all("is gated" in told("sana", seed) for seed in range(4))
    assert hub.asked_about("Sana_1600M") == 1
    assert "is gated" in told("sd35-medium", 0) and hub.asked_about("3.5-medium") == 1
    monkeypatch.setattr(preflight, "ASKED_SECONDS", 1e-3)  # long over
    assert "is gated" in told("sana", 0) and hub.asked_about("Sana_1600M") == 2
    supervisor.close()
