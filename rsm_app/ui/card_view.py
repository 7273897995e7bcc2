"""The preview of a push: the model card as a page, and its files with what they would change.

The card is rendered here and not in the browser, with raw HTML turned off, so nothing that a prompt or an
imported record says becomes markup. Its pictures are put into the page; nothing of a run is served.
"""

from __future__ import annotations

import base64
import io
import json
from html import escape

from markdown_it import MarkdownIt
from PIL import Image

from rsm_app.hub.bundle import PAIRS_FILE, Bundle
from rsm_app.hub.target import Changes, Target
from rsm_app.ui.history import size
from trainers.image_files import UnreadableImage, load_image

_SMALL_BYTES = 60_000
_GRID_SIDE, _GALLERY_SIDE = 1200, 256
_GALLERY = "<p>&lt;Gallery /&gt;</p>"
_PRE = '<pre tabindex="0">'  # long lines are scrolled, by keys as well
_KINDS = {
    "added": ("new", "rsm-plus"),
    "changed": ("changed", "rsm-changed"),
    "removed": ("removed", "rsm-minus"),
    "unchanged": ("as it is", "rsm-same"),
}


def card_html(bundle: Bundle) -> str:
    """Return the model card as a reader of the Hub would see it, with its metadata folded away."""
    metadata, _, body = bundle.card.removeprefix("---\n").partition("\n---\n")
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(body)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):  # the page has its own first two levels
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        for child in token.children or ():
            if child.type == "image":
                child.attrSet("src", _picture(bundle, str(child.attrGet("src") or ""), _GRID_SIDE))
            elif child.type == "link_open":
                child.attrSet("target", "_blank")
                child.attrSet("rel", "noopener")
    page = reader.renderer.render(tokens, reader.options, {}).replace(_GALLERY, _gallery(bundle), 1)
    page = page.replace("<pre>", _PRE)
    return (
        f'<article class="rsm-card" aria-label="Model card" tabindex="0">{page}<details class="rsm-more">'
        f"<summary>Metadata that the Hub reads</summary>{_PRE}<code>{escape(metadata)}</code></pre></details>"
        "</article>"
    )


def files_html(bundle: Bundle, target: Target | None = None, changes: Changes | None = None) -> str:
    """Return what is sent, with sizes, and what becomes of each file once a repository was looked at."""
    kinds = {path: kind for kind in _KINDS for path in getattr(changes, kind, ())}
    sizes = {file.path: file.size for file in bundle.files}
    gone = {path: target.files[path].size for path in changes.removed} if target and changes else {}
    order = {kind: number for number, kind in enumerate(_KINDS)}
    listed = sorted((sizes | gone).items(), key=lambda item: order.get(kinds.get(item[0], ""), 0))
    rows = "".join(_row(path, count, kinds.get(path)) for path, count in listed)
    head = '<th scope="col">There</th>' if changes else ""
    return (
        f'<p class="rsm-facts">{len(sizes)} files, {size(bundle.size)}. Logs, checkpoints, owners and paths '
        'of this machine stay here.</p><div class="rsm-scroll rsm-filelist" tabindex="0" role="region" '
        'aria-label="Files"><table class="rsm-table"><thead><tr><th scope="col">File</th>'
        f'<th scope="col">Size</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def target_html(target: Target, changes: Changes, private: bool) -> str:
    """Say in words what is there already and what a push would change."""
    name = f"<b>{escape(target.repo)}</b>"
    if not target.may_write:
        why = escape(str(target.refusal())) if target.why_not else "Choose a repository of your own."
        return _line("bad", f"{name} may not be written with this token. {why}")
    if not target.exists:
        kind = "private" if private else "public, for everybody to see"
        return _line(
            "good", f"{name} does not exist yet. It is made, {kind}, with {len(changes.added)} files."
        )
    kept = "private" if target.private else "public"
    there = f"{name} exists and stays {kept} (revision {escape(target.head[:8])})."
    if changes.nothing_new:
        return _line("quiet", f"{there} It holds exactly this already, so nothing would change.")
    counts = [
        f"{len(paths)} {word}" for kind, (word, _) in _KINDS.items() if (paths := getattr(changes, kind))
    ]
    others = len(target.files) - len(changes.changed) - len(changes.unchanged) - len(changes.removed)
    more = f" {others} other files there stay." if others else ""
    return _line("busy", f"{there} A new revision is made: {', '.join(counts)}.{more}")


def _line(tone: str, html: str) -> str:
    return f'<p class="rsm-target rsm-edge-{tone}" role="status">{html}</p>'


def _row(path: str, count: int, kind: str | None) -> str:
    word, look = _KINDS.get(kind or "", ("", ""))
    cell = f'<td class="{look}">{word}</td>' if kind else ""
    return f'<tr><th scope="row">{escape(path)}</th><td>{size(count)}</td>{cell}</tr>'


def _gallery(bundle: Bundle) -> str:
    source = bundle.file(PAIRS_FILE)
    lines = source.open().read().decode().splitlines() if source else []
    items = "".join(
        f'<figure><img src="{_picture(bundle, pair["after"], _GALLERY_SIDE)}" alt="{escape(pair["prompt"])}">'
        f"<figcaption>{escape(pair['prompt'])}</figcaption></figure>"
        for pair in map(json.loads, lines)
    )
    return f'<div class="rsm-card-gallery">{items}</div>'


def _picture(bundle: Bundle, path: str, side: int) -> str:
    """Return a picture of the bundle as a data address, smaller when it is large; empty when it is none."""
    file = bundle.file(path)
    if file is None:
        return ""
    with file.open() as source:
        content = source.read()
    try:
        small = load_image(io.BytesIO(content))
    except UnreadableImage:
        return ""
    if len(content) <= _SMALL_BYTES and max(small.size) <= _GRID_SIDE:
        return f"data:image/png;base64,{base64.b64encode(content).decode()}"
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    drawn = io.BytesIO()
    small.save(drawn, "WEBP", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(drawn.getvalue()).decode()}"
