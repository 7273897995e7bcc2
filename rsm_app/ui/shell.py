"""The frame around the pages: header, theme and how the server is launched."""

from __future__ import annotations

from html import escape
from pathlib import Path

import gradio as gr

from rsm_app.hub import wire
from rsm_app.jobs.launching import before_launching
from rsm_app.jobs.store import ROOT, default_store
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import about, api, compare, costly, lab, playground, publish, runs, serving, space, train
from rsm_app.ui.addresses import call_itself_directly, link_to, listening_host
from rsm_app.ui.cached import write_pictures_whole
from rsm_app.ui.fair_queue import FairQueue
from rsm_app.ui.form import MAX_UPLOAD_BYTES
from rsm_app.ui.head import HEAD
from rsm_app.ui.plain_log import write_plainly
from rsm_app.ui.proxies import check_proxies, shared_by_all
from rsm_app.ui.remote_files import fetch_nothing
from rsm_app.ui.theme import build_theme
from trainers.terminal import say

STYLE = ROOT / "assets" / "style.css"
_HEADER = (
    '<header class="rsm-header"><h1>RSM Studio</h1><p>Fine-tune a text-to-image model towards a reward you '
    "choose, and see what really changed: same prompts, same seeds, before and after.</p></header>"
)
# Seconds from one look at the cache of pictures to the next, and those after which an unused one goes.
_CLEARED, _CLEARED_SHARED = (3600, 86400), (600, 7200)
MAX_WAITING = 2000  # events; on ZeroGPU Gradio would allow one, and turn away the second page that polls


def build(supervisor: Supervisor | None = None) -> gr.Blocks:
    """Build every page.

    Args:
        supervisor: The runs and their queue; those of the installation's own directory when None.
    """
    supervisor = supervisor or Supervisor(default_store())
    cleared = _CLEARED_SHARED if supervisor.limits.files_mb else _CLEARED
    with gr.Blocks(title="RSM Studio", analytics_enabled=False, delete_cache=cleared) as demo:
        _frame(demo)
        space.build_space(supervisor.limits)
        train.build(demo, supervisor)
        api.build(supervisor)
    with demo.route("Compare", "/compare"):
        _frame(demo)
        compare.build(demo, supervisor)
    with demo.route("Runs", "/runs"):
        _frame(demo)
        runs.build(demo, supervisor)
    with demo.route("Publish", "/publish"):
        _frame(demo)
        publish.build(demo, supervisor)
    with demo.route("Lab", "/lab"):
        _frame(demo)
        lab.build(demo)
    with demo.route("About", "/about"):
        _frame(demo)
        about.build()
    _spare_hidden_progress(demo)
    before_launching(playground.make_room)
    _keep_sign_in_to_the_page(demo)
    # Where one owner's events are counted, none is called past the queue.
    demo.queue(max_size=MAX_WAITING, api_open=False if supervisor.limits.owner_events else None)
    demo._queue = FairQueue(supervisor.limits, demo._queue)
    return demo


def _spare_hidden_progress(demo: gr.Blocks) -> None:
    """Let events without a visible progress keep none.

    Gradio's page tells every output that was ever touched of each change of any event's state, which took
    most of its time after a click.
    """
    for event in demo.fns.values():
        if event.show_progress == "hidden" and event.show_progress_on is None:
            event.show_progress_on = []


def _keep_sign_in_to_the_page(demo: gr.Blocks) -> None:
    """Let the events of the sign-in button be no endpoints; Gradio's button has no setting for it."""
    for event in demo.fns.values():
        if str(event.api_name).startswith("_check_login_status"):
            event.api_visibility = "private"


def _frame(demo: gr.Blocks) -> None:
    """Render what every page begins with."""
    gr.Navbar(main_page_name="Train")
    gr.HTML(_HEADER, elem_id="header", padding=False)
    notice = gr.HTML(elem_id="proxy-notice", padding=False, visible=False)
    demo.load(_proxy_notice, None, notice, queue=False, api_visibility="private", show_progress="hidden")


def _proxy_notice(request: gr.Request) -> dict:
    """Say when everybody behind a proxy is one visitor."""
    sentence = shared_by_all(request.request.scope)
    html = f'<p class="rsm-trouble" role="status">{escape(sentence)}</p>'
    return gr.update(value=html, visible=True) if sentence else gr.skip()


def serve(host: str, port: int) -> None:
    """Build the pages, keep the queue moving and serve until the process ends.

    Raises:
        InputError: An environment variable has a wrong value, or the host is not this machine's.
        OSError: The address cannot be served.
    """
    wire.install()
    host = listening_host(host, port)
    check_proxies(host)
    supervisor = Supervisor(default_store())
    demo = build(supervisor)
    supervisor.keep_running()
    launch(demo, supervisor, host, port)


def launch(demo: gr.Blocks, supervisor: Supervisor, host: str, port: int, block: bool = True) -> None:
    """Serve the pages to this app's own visitors.

    Nothing of the machine's files is offered beside what handlers return.
    """
    write_pictures_whole()
    fetch_nothing()
    call_itself_directly()
    write_plainly()
    demo.launch(
        **serving.prepare(demo, supervisor),
        max_threads=costly.PLACES,
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        theme=build_theme(),
        css_paths=[Path(STYLE)],
        head=HEAD,
        footer_links=["settings", "gradio"],
        allowed_paths=[],
        max_file_size=MAX_UPLOAD_BYTES,
        enable_monitoring=False,
        run_history=False,
        ssr_mode=False,  # its server would stand between visitors and this one
        quiet=True,  # it would print the address listened at, which may be no link
    )
    serving.require_guard(demo)
    if block:
        say(f"* Running on local URL:  {link_to(host, port)}")
        demo.block_thread()
