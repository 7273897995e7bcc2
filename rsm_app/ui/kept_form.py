"""What was chosen and pasted on the train page stays in its tab while the page is loaded anew.

Gradio loads the page again whenever a lost connection comes back, and each page is a document of its own. So
every change of the form is kept in the tab's storage, by the browser alone, and comes back with the page. A
link to a run goes before it. Where a browser keeps nothing, nothing comes back.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

from rsm_app.jobs.fitting import trainable
from rsm_app.ui import fields, form, tuned
from trainers.bounded_json import parse_json
from trainers.config import FIELDS
from trainers.prompts import builtin_sets

KEY = "rsm-studio-form"
# A form of another version of this app has other inputs.
VERSION = f"{zlib.crc32(','.join(fields.ADVANCED).encode()):08x}"
UPLOAD = 7  # place of the uploaded file among the values: a reloaded page cannot show it again
COUNT = 11 + len(fields.ADVANCED)
MAX_BYTES = 4 * form.MAX_UPLOAD_BYTES  # of text in which every letter may be escaped
_LONGEST = 2000  # characters of an input other than the pasted prompts
# Gradio calls them with the inputs, and then the outputs.
KEEP = (
    f"(...all) => {{ const values = all.slice(0, {COUNT}), kept = [...values]; kept[{UPLOAD}] = null; try {{ "
    f"sessionStorage.setItem('{KEY}', JSON.stringify({{version: '{VERSION}', values: kept, "
    "run: new URL(location).searchParams.get('run') || ''})); } catch {} return values; }"
)
# While somebody types or pastes: the connection may be lost before the box is left.
KEEP_TYPED = f"(...all) => {{ if (document.activeElement?.closest('#pasted')) ({KEEP})(...all); return []; }}"
READ = (
    "(run) => { let kept = ''; try { "
    f"kept = JSON.stringify({{...JSON.parse(sessionStorage.getItem('{KEY}') || '{{}}'), "
    "linked: performance.getEntriesByType('navigation')[0]?.type === 'navigate'}); } catch {} "
    "return [run, kept]; }"
)
FORGET = f"() => {{ try {{ sessionStorage.removeItem('{KEY}'); }} catch {{}} return []; }}"


@dataclass(frozen=True)
class Kept:
    """A form as a tab kept it.

    Attributes:
        form: What it held.
        run: The run that its page's address named then; empty for none.
        linked: Whether the page was reached by a link or an address, not by loading it anew or going back.
    """

    form: form.Form
    run: str
    linked: bool

    def goes_before(self, asked: str) -> bool:
        """Whether it is shown on a page whose address names this run: a link to a run shows that run's."""
        return not asked or (asked == self.run and not self.linked)


def read(text: object) -> Kept | None:
    """Return what a tab kept, as far as the form can show it; None for nothing that could be used.

    Args:
        text: What the browser sent; anybody may send anything.
    """
    try:
        data = text.encode() if isinstance(text, str) else b""
        record = parse_json(data) if len(data) <= MAX_BYTES else None
    except ValueError:
        return None
    values = record.get("values") if isinstance(record, dict) and record.get("version") == VERSION else None
    if not isinstance(values, list) or len(values) != COUNT:
        return None
    held = form.Form(*values[:11], advanced=tuple(values[11:]))
    if held.model not in [spec.name for spec in trainable()] or not _fits(held):
        return None
    run, linked = record.get("run"), record.get("linked")
    return Kept(held, run if isinstance(run, str) else "", linked is True)


def _fits(held: form.Form) -> bool:
    """Whether every value is one that its input can show and send again."""
    listed = (
        (held.reward, [value for _, value in form.reward_options()]),
        (held.prompt_source, form.PROMPT_SOURCES),
        (held.prompt_set, builtin_sets()),
        (held.budget, [value for _, value in tuned.budget_options()]),
    )
    texts = (held.mixture, held.estimator)
    return (
        all(isinstance(value, str) and value in values for value, values in listed)
        and all(value is None or _short(value) for value in texts)
        and (held.pasted is None or isinstance(held.pasted, str))
        and all(value is None or _number(value) for value in (held.custom_seconds, held.seed))
        and all(map(_fits_field, fields.ADVANCED, held.advanced))
    )


def _fits_field(name: str, value: object) -> bool:
    choices = FIELDS[name].metadata["choices"]
    if name == "heldout_prompts":
        choices = builtin_sets()
    return value in list(choices) if choices else value is None or _short(value) or _number(value)


def _short(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
