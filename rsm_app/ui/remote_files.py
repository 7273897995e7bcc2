"""Files of other machines, which the server fetches for nobody.

Gradio takes an address in place of an uploaded file and downloads it, of any size, before a handler sees it;
and it hands on whatever is asked for behind ``file=``. No page of this app needs either.
"""

from __future__ import annotations

from typing import NoReturn

import gradio as gr
from gradio import processing_utils, route_utils, routes
from starlette.exceptions import HTTPException

_NOT_FETCHED = "A web address cannot take the place of a file here. Download the file, then upload it."
NOT_RELAYED = "Files of other servers are not served here. Open their address itself."
_SCHEMES = ("http:", "https:")


def is_remote(name: str) -> bool:
    """Whether the name of a file is an address of the web, in whatever case."""
    return name.strip().lower().startswith(_SCHEMES)


def fetch_nothing() -> None:
    """Let no component and no route of this process fetch an address."""
    processing_utils.async_ssrf_protected_get = _refuse_later
    processing_utils.async_ssrf_protected_download = _refuse_later
    for name in ("ssrf_protected_download", "save_url_to_cache", "unsafe_download"):
        setattr(processing_utils, name, _refuse)
    for module in (routes, route_utils):
        module.secure_url_stream_response = _relay_nothing


def _refuse(*_, **__) -> NoReturn:
    raise gr.Error(_NOT_FETCHED, print_exception=False)


async def _refuse_later(*_, **__) -> NoReturn:
    _refuse()


async def _relay_nothing(*_) -> NoReturn:
    raise HTTPException(404, NOT_RELAYED)
