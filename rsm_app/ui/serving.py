"""What stands around Gradio's app when it is served, and what of Gradio's server is left out.

Left out are uvicorn's reading of a proxy's headers, which trusts other hops than ``proxies`` does, and the
listener that a Space opens for editing a running program: it lets whoever reaches port 7887 write and run
code, on all interfaces and without asking who they are, and neither the pages nor a lent GPU need it.

Added are what one visitor may take of the server: connections that ask, requests, sessions.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import gradio as gr
from gradio import http_server, route_utils
from starlette.middleware import Middleware

from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui.admission import Admission
from rsm_app.ui.cached import ServedFiles
from rsm_app.ui.connections import Connection
from rsm_app.ui.open_files import files_open, raise_limit, room_for
from rsm_app.ui.proxies import ForwardedScheme
from rsm_app.ui.same_origin import SameOrigin
from rsm_app.ui.sessions import Sessions, fresh_session

_Lifespan = Callable[[object], contextlib.AbstractAsyncContextManager]


class _Server(http_server.Server):
    """Gradio's server without a reloader, and without patience for silent connections."""

    def __init__(self, config, reloader=None, watchfn=None):
        config.proxy_headers = False
        config.http = Connection
        room = room_for(raise_limit(), files_open())
        Connection.most, config.backlog = room.connections, room.backlog
        super().__init__(config)


def prepare(demo: gr.Blocks, supervisor: Supervisor) -> dict:
    """Let Gradio serve an app as it should; return options for ``demo.launch``.

    To be followed by ``require_guard`` when it is launched.

    Args:
        demo: The app.
        supervisor: Knows the runs and what visitors may take, and keeps what they upload.
    """
    http_server.Server = _Server
    route_utils.SessionState = fresh_session
    pages = tuple(f"/{path}" for path, *_ in demo.pages)
    admission = Middleware(
        Admission,
        limits=supervisor.limits,
        uploaded=supervisor.files.uploaded,
        documents=(*pages, "/config"),
    )
    return {"app_kwargs": {"lifespan": _guarding(pages, supervisor), "middleware": [admission]}}


def require_guard(demo: gr.Blocks) -> None:
    """Serve nothing that foreign pages could use.

    Raises:
        RuntimeError: This version of Gradio left our middleware out.
    """
    if not isinstance(demo.app.middleware_stack, SameOrigin):
        demo.close()
        raise RuntimeError("This version of Gradio cannot be served: it leaves out the check of origins.")


def _guarding(pages: tuple[str, ...], supervisor: Supervisor) -> _Lifespan:
    """Return what runs before the first request: Gradio's own middleware would else answer before ours."""

    @contextlib.asynccontextmanager
    async def begun(app) -> AsyncIterator[None]:
        inside = ForwardedScheme(ServedFiles(app.middleware_stack, supervisor.store))
        app.middleware_stack = SameOrigin(inside, pages)
        app.state_holder = Sessions(supervisor.limits.owner_sessions)
        app.state_holder.set_blocks(app.get_blocks())
        yield

    return begun
