"""What stands around Gradio's app when it is served, and what of Gradio's server is left out.

Left out are uvicorn's reading of a proxy's headers, which trusts other hops than ``proxies`` does, and the
listener that a Space opens for editing a running program: it lets whoever reaches port 7887 write and run
code, on all interfaces and without asking who they are, and neither the pages nor a lent GPU need it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import gradio as gr
from gradio import http_server

from rsm_app.jobs.store import RunStore
from rsm_app.ui.cached import ServedFiles
from rsm_app.ui.proxies import ForwardedScheme
from rsm_app.ui.same_origin import SameOrigin

_Lifespan = Callable[[object], contextlib.AbstractAsyncContextManager]


class _Server(http_server.Server):
    """Gradio's server without a reloader."""

    def __init__(self, config, reloader=None, watchfn=None):
        config.proxy_headers = False
        super().__init__(config)


def prepare(demo: gr.Blocks, store: RunStore) -> dict:
    """Let Gradio serve an app as it should; return options for ``demo.launch``.

    To be followed by ``require_guard`` when it is launched.
    """
    http_server.Server = _Server
    return {"app_kwargs": {"lifespan": _guarding(tuple(f"/{path}" for path, *_ in demo.pages), store)}}


def require_guard(demo: gr.Blocks) -> None:
    """Serve nothing that foreign pages could use.

    Raises:
        RuntimeError: This version of Gradio left our middleware out.
    """
    if not isinstance(demo.app.middleware_stack, SameOrigin):
        demo.close()
        raise RuntimeError("This version of Gradio cannot be served: it leaves out the check of origins.")


def _guarding(pages: tuple[str, ...], store: RunStore) -> _Lifespan:
    """Return what runs before the first request: Gradio's own middleware would else answer before ours."""

    @contextlib.asynccontextmanager
    async def begun(app) -> AsyncIterator[None]:
        inside = ForwardedScheme(ServedFiles(app.middleware_stack, store))
        app.middleware_stack = SameOrigin(inside, pages)
        yield

    return begun
