"""The own training prompts of a run, as text for a copy of its settings.

What a run's settings call its prompts is a path, and settings may be a stranger's words. So the app reads its
own copy in the run's folder, and a file elsewhere only for a run that was made in a shell: whoever made it
could read that file anyway. Imported runs keep their prompts in their folder too. Tables come out as plain
lines, or as JSON lines where rewards read more than the text.
"""

from __future__ import annotations

from pathlib import Path

from rsm_app.jobs.store import Run
from trainers.errors import InputError
from trainers.prompt_files import PARQUET, as_text
from trainers.prompts import builtin_sets, load_rows

MAX_BYTES = 1_000_000


def own_prompts(run: Run) -> str:
    """Return a run's own training prompts as text; empty when it has none, or none that may be read."""
    try:
        path = _place(run)
        if path is None or path.suffix.lower() == PARQUET or not path.is_file():
            return ""
        return as_text(load_rows(str(path))) if path.stat().st_size <= MAX_BYTES else ""
    except (InputError, OSError, RuntimeError):  # the last one: there is no home for a ~
        return ""


def _place(run: Run) -> Path | None:
    if run.prompts.is_file():
        return None if run.prompts.is_symlink() else run.prompts
    named = run.settings().get("prompts")
    if not run.made_in_a_shell() or not isinstance(named, str) or named in builtin_sets():
        return None
    return Path(named).expanduser()
