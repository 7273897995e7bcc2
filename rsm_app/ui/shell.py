"""The frame around the pages: header, theme and how the server is launched."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from rsm_app.jobs.launching import before_launching
from rsm_app.jobs.store import ROOT, default_store
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import about, api, compare, lab, playground, publish, runs, space, train
from rsm_app.ui.addresses import call_itself_directly, listening_host
from rsm_app.ui.cached import write_pictures_whole
from rsm_app.ui.form import MAX_UPLOAD_BYTES
from rsm_app.ui.theme import build_theme

STYLE = ROOT / "assets" / "style.css"
_HEADER = (
    '<header class="rsm-header"><h1>RSM Studio</h1><p>Fine-tune a text-to-image model towards a reward you '
    "choose, and see what really changed: same prompts, same seeds, before and after.</p></header>"
)
MAX_WAITING = 2000  # events; on ZeroGPU Gradio would allow one, and turn away the second page that polls
_HEAD = '<meta name="color-scheme" content="light dark">'


def build(supervisor: Supervisor | None = None) -> gr.Blocks:
    """Build every page.

    Args:
        supervisor: The runs and their queue; those of the installation's own directory when None.
    """
    supervisor = supervisor or Supervisor(default_store())
    with gr.Blocks(title="RSM Studio", analytics_enabled=False, delete_cache=(3600, 86400)) as demo:
        _frame()
        space.build_space(supervisor.limits)
        train.build(demo, supervisor)
        api.build(supervisor)
    with demo.route("Compare", "/compare"):
        _frame()
        compare.build(demo, supervisor)
    with demo.route("Runs", "/runs"):
        _frame()
        runs.build(demo, supervisor)
    with demo.route("Publish", "/publish"):
        _frame()
        publish.build(demo, supervisor)
    with demo.route("Lab", "/lab"):
        _frame()
        lab.build(demo)
    with demo.route("About", "/about"):
        _frame()
        about.build()
    _spare_hidden_progress(demo)
    before_launching(playground.make_room)
    _keep_sign_in_to_the_page(demo)
    return demo.queue(max_size=MAX_WAITING)


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


def _frame() -> None:
    """Render what every page begins with."""
    gr.Navbar(main_page_name="Train")
    gr.HTML(_HEADER, elem_id="header", padding=False)


def serve(host: str, port: int) -> None:
    """Build the pages, keep the queue moving and serve until the process ends.

    Raises:
        InputError: An environment variable has a wrong value, or the host is not this machine's.
        OSError: The address cannot be served.
    """
    host = listening_host(host, port)
    supervisor = Supervisor(default_store())
    demo = build(supervisor)
    supervisor.keep_running()
    launch(demo, host, port)


def launch(demo: gr.Blocks, host: str, port: int, block: bool = True) -> None:
    """Serve the pages; nothing of the machine's files is offered beside what handlers return."""
    write_pictures_whole()
    call_itself_directly()
    demo.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=not block,
        theme=build_theme(),
        css_paths=[Path(STYLE)],
        head=_HEAD,
        footer_links=["settings", "gradio"],
        allowed_paths=[],
        max_file_size=MAX_UPLOAD_BYTES,
        enable_monitoring=False,
        run_history=False,
        quiet=not block,
    )
