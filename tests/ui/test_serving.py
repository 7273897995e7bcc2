"""How the app is put into Gradio's server: what is around it, and what Gradio would open beside it."""

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import gradio as gr
import pytest
import uvicorn
from gradio import http_server, utils
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import serving
from rsm_app.ui.cached import ServedFiles
from rsm_app.ui.proxies import ForwardedScheme
from rsm_app.ui.same_origin import SameOrigin
from tests.ui.asking import asker, run_apart


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(http_server, "Server", http_server.Server)
    with gr.Blocks(analytics_enabled=False) as demo:
        gr.HTML("x")
    return demo, serving.prepare(demo, Supervisor(RunStore(tmp_path)))


async def nothing(scope, receive, send):
    """Answer nothing."""


def test_gradio_s_server_reads_no_proxy_s_headers_and_runs_no_reloader(prepared):
    config = uvicorn.Config(nothing)
    reloader = SimpleNamespace(stop_event=threading.Event())
    server = http_server.Server(config=config, reloader=reloader, watchfn=utils.watchfn_spaces)
    config.load()
    assert server.reloader is None and not isinstance(config.loaded_app, ProxyHeadersMiddleware)


def test_our_own_checks_are_around_the_app_before_its_first_request(prepared, monkeypatch):
    """As a Space starts it, where Gradio would open a listener for editing the program."""
    demo, options = prepared
    opened = []
    monkeypatch.setattr("spaces.reloading.start_reload_server", lambda **options: opened.append(options))
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("SPACE_ID", "ann/studio")
    demo.launch(**options, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, ssr_mode=False)
    try:
        serving.require_guard(demo)
        outer = demo.app.middleware_stack
        assert isinstance(outer, SameOrigin) and isinstance(outer._app._app, ServedFiles)
        assert opened == []
    finally:
        demo.close()


def test_what_gradio_leaves_unguarded_is_not_served(prepared):
    demo, _ = prepared
    demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, ssr_mode=False)
    with pytest.raises(RuntimeError, match="leaves out the check of origins"):
        serving.require_guard(demo)
    assert not demo.is_running


@pytest.mark.parametrize(
    ("peer", "said", "scheme"),
    [
        *(("127.0.0.1", "https", "https"), ("127.0.0.1", "HTTPS ", "https"), ("127.0.0.1", "http", "http")),
        *(("127.0.0.1", "gopher", "http"), ("127.0.0.1", "", "http"), ("10.0.0.5", "https", "http")),
    ],
)
def test_behind_a_named_proxy_a_request_has_the_scheme_that_it_was_asked_by(monkeypatch, peer, said, scheme):
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    seen = []

    async def inside(scope, receive, send):
        seen.append(scope["scheme"])

    scope = {**asker(peer, x_forwarded_proto=said).request.scope, "scheme": "http"}
    run_apart(ForwardedScheme(inside)(scope, None, None))
    assert seen == [scheme]


def test_the_app_does_not_start_where_everybody_would_be_a_proxy(tmp_path, repository):
    environment = {**os.environ, "FORWARDED_ALLOW_IPS": "*", "RSM_RUNS_DIR": str(tmp_path / "runs")}
    environment.pop("SPACE_ID", None)
    done = subprocess.run(
        [sys.executable, "app.py", "--host", "0.0.0.0", "--port", "39999"],
        cwd=repository, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("FORWARDED_ALLOW_IPS says '*', so whoever reaches this app at 0.0.0.0")
