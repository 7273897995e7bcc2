"""The frame around the pages: header, theme and how the server is launched."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from rsm_app.jobs.store import ROOT, RunStore, default_store
from rsm_app.ui import train
from rsm_app.ui.form import MAX_UPLOAD_BYTES
from rsm_app.ui.theme import build_theme

STYLE = ROOT / "assets" / "style.css"
_HEADER = (
    '<header class="rsm-header"><h1>RSM Studio</h1><p>Fine-tune a text-to-image model towards a reward you '
    "choose, and see what really changed: same prompts, same seeds, before and after.</p></header>"
)
_HEAD = '<meta name="color-scheme" content="light dark">'


def build(store: RunStore | None = None) -> gr.Blocks:
    """Build every page.

    Args:
        store: Where runs live; the installation's own directory when None.
    """
    with gr.Blocks(title="RSM Studio", analytics_enabled=False, delete_cache=(3600, 86400)) as demo:
        gr.HTML(_HEADER, elem_id="header", padding=False)
        train.build(demo, store or default_store())
    return demo


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
