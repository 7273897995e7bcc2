"""The frame around the pages: header, theme and how the server is launched."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from rsm_app.jobs.store import ROOT, default_store
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import train
from rsm_app.ui.form import MAX_UPLOAD_BYTES
from rsm_app.ui.theme import build_theme

STYLE = ROOT / "assets" / "style.css"
_HEADER = (
    '<header class="rsm-header"><h1>RSM Studio</h1><p>Fine-tune a text-to-image model towards a reward you '
    "choose, and see what really changed: same prompts, same seeds, before and after.</p></header>"
)
_HEAD = '<meta name="color-scheme" content="light dark">'


def build(supervisor: Supervisor | None = None) -> gr.Blocks:
    """Build every page.

    Args:
        supervisor: The runs and their queue; those of the installation's own directory when None.
    """
    with gr.Blocks(title="RSM Studio", analytics_enabled=False, delete_cache=(3600, 86400)) as demo:
        gr.HTML(_HEADER, elem_id="header", padding=False)
        train.build(demo, supervisor or Supervisor(default_store()))
    return demo


def serve(host: str, port: int) -> None:
    """Build the pages, keep the queue moving and serve until the process ends.

    Raises:
        InputError: An environment variable has a wrong value.
        OSError: The address cannot be served.
    """
    supervisor = Supervisor(default_store())
    demo = build(supervisor)
    supervisor.keep_running()
    launch(demo, host, port)


def launch(demo: gr.Blocks, host: str, port: int, block: bool = True) -> None:
    """Serve the pages; nothing of the machine's files is offered beside what handlers return."""
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
