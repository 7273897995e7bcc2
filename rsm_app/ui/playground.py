"""The playground: own prompt, seed and settings, drawn before and after by ``trainers.playground``.

The engine is imported by the first drawing, so that pages open without it.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
from dataclasses import dataclass
from functools import lru_cache
from html import escape

import gradio as gr

from rsm_app.jobs.store import Run
from rsm_app.ui import costly, pictures
from rsm_app.ui.cached import of_runs
from rsm_app.ui.result import is_finite
from trainers.errors import FaultError, StudioError
from trainers.importing import uncollected
from trainers.wish import MAX_GUIDANCE, MAX_SEED, MAX_STEPS, MAX_STRENGTH, WishError, read_wish

ONE_AT_A_TIME = costly.kind("playground")  # of all events that draw
FIELDS = ("prompt", "seed", "steps", "guidance", "strength")
_EMPTY = (
    '<p class="rsm-facts">Both pictures start from the same noise. Before is the untouched model, after has '
    "the trained adapter.</p>"
)
_BEFORE, _AFTER = "Before", "After"
_CHOOSE = "Choose a finished run above first."
_making, _warming = threading.Lock(), threading.Lock()
_UNEXPECTED = "The picture could not be drawn. The server's output tells more."


@dataclass
class Panel:
    """The components of the part; ``told`` maps each field to the line below it."""

    inputs: dict[str, gr.components.Component]
    told: dict[str, gr.HTML]
    draw: gr.Button
    before: gr.Image
    after: gr.Image
    facts: gr.HTML

    def fields(self) -> list:
        """Return the inputs in the order of ``FIELDS``."""
        return [self.inputs[name] for name in FIELDS]

    def outputs(self) -> list:
        """Return everything that drawing changes."""
        return [self.before, self.after, self.facts, *self.told.values()]


def build_panel() -> Panel:
    """Render the part without a run."""
    inputs: dict = {}
    told: dict = {}
    with gr.Row(elem_classes="rsm-wide"):
        with gr.Column(scale=2, min_width=300):
            for name, component in _inputs():
                inputs[name] = component()
                told[name] = gr.HTML(
                    visible=False, elem_id=f"told-{name}", padding=False, elem_classes="rsm-plain"
                )
            draw = gr.Button("Draw", variant="primary", elem_id="draw")
        with gr.Column(scale=3, min_width=300):
            with gr.Row(elem_id="drawn"):
                before = _picture(_BEFORE, "drawn-before")
                after = _picture(_AFTER, "drawn-after")
            facts = gr.HTML(_EMPTY, elem_id="draw-facts", padding=False, elem_classes="rsm-plain")
    return Panel(inputs, told, draw, before, after, facts)


def _inputs() -> list[tuple]:
    """Return how each field is rendered; ranges are checked by the engine, which tells them in words."""

    def prompt():
        return gr.Textbox(
            label="Prompt", info="The tiny models know coloured shapes.", lines=2, max_lines=4,
            placeholder="a red circle left of a blue square", elem_id="play-prompt",
        )  # fmt: skip

    def seed():
        info = f"The same seed repeats the picture. 0 to {MAX_SEED}."
        return gr.Number(label="Seed", info=info, value=0, elem_id="play-seed")

    def steps():
        return gr.Number(label="Steps", info=f"1 to {MAX_STEPS}.", value=12, elem_id="play-steps")

    def guidance():
        info = f"Pull towards the prompt (classifier-free guidance). 1 means none; up to {MAX_GUIDANCE:g}."
        return gr.Number(label="Guidance", info=info, value=1, elem_id="play-guidance")

    def strength():
        info = "Of the trained change (LoRA): 0 is the base model, 1 the trained one."
        slider = gr.Slider(
            0,
            MAX_STRENGTH,
            value=1.0,
            step=0.05,
            label="Adapter strength",
            info=info,
            elem_id="play-strength",
        )
        slider.preprocess = lambda payload: payload  # the engine checks it, and tells at the field
        return slider

    return [*zip(FIELDS, (prompt, seed, steps, guidance, strength), strict=True)]


def _picture(label: str, elem_id: str) -> gr.Image:
    return gr.Image(
        label=label, elem_id=elem_id, format="png", interactive=False, buttons=["download", "fullscreen"],
        elem_classes="rsm-pixels", min_width=140, alt_text=f"The picture {label.lower()} training",
    )  # fmt: skip


def usual(panel: Panel, run: Run | None, pair: dict | None = None) -> dict:
    """Return a run's own steps and guidance, an empty result, and the prompt and seed of a pair."""
    sampling = ((run.folder.read_report() or {}).get("sampling") or {}) if run else {}
    steps, guidance = sampling.get("num_inference_steps"), sampling.get("guidance_scale", 1.0)
    changes = {panel.before: None, panel.after: gr.update(value=None, label=_AFTER), panel.facts: _EMPTY}
    changes |= _told(panel, {})
    changes[panel.inputs["steps"]] = steps if is_finite(steps) else gr.skip()
    changes[panel.inputs["guidance"]] = guidance if is_finite(guidance) else gr.skip()
    if pair:
        changes[panel.inputs["prompt"]] = str(pair.get("prompt", ""))
        changes[panel.inputs["seed"]] = pair.get("seed")
        changes[panel.inputs["strength"]] = 1.0
    return changes


def draw(panel: Panel, run: Run | None, values: tuple, progress: gr.Progress) -> dict:
    """Draw what the fields ask for, or say at each wrong field what is wrong with it."""
    if run is None:
        return {panel.facts: _problem(_CHOOSE), **_told(panel, {})}
    try:
        wish = read_wish(*values)
        progress(0.0, desc="Starting the engine")
        drawing = _playground().draw(run.path, wish, _teller(progress))
    except WishError as error:
        return _told(panel, error.fields)
    except StudioError as error:
        return {panel.facts: _problem(str(error)), **_told(panel, {})}
    except Exception as error:
        logging.getLogger(__name__).exception("The playground could not draw.")
        return {panel.facts: _problem(_explain(error)), **_told(panel, {})}
    label = f"{_AFTER}, strength {wish.strength:g}"
    return {
        panel.before: of_runs(_image(drawing.before), [run]),
        panel.after: gr.update(value=of_runs(_image(drawing.after), [run]), label=label),
        panel.facts: f'<p class="rsm-facts" role="status">{escape(_facts(drawing, wish))}</p>',
        **_told(panel, {}),
    }


def draw_wish(run: Run, values: tuple):
    """Draw for a program what the fields' values ask for.

    Raises:
        StudioError: With a sentence for what is wrong.
    """
    wish = read_wish(*values)
    try:
        return _playground().draw(run.path, wish)
    except StudioError:
        raise
    except Exception as error:
        logging.getLogger(__name__).exception("The playground could not draw.")
        raise FaultError(_explain(error)) from error


def warm_up(run: Run | None) -> None:
    """Import the engine and load what a run's first drawing needs, in the background.

    A person still looks at the result or writes a prompt. What goes wrong is told by the drawing.
    """
    if run is not None and _warming.acquire(blocking=False):
        threading.Thread(target=_prepare, args=(run,), daemon=True, name="playground").start()


def make_room() -> None:
    """Let go of what the playground keeps of a run's memory; nothing is loaded for that."""
    if _make_playground.cache_info().currsize:
        _make_playground().release()


def _prepare(run: Run) -> None:
    try:
        with contextlib.suppress(Exception):
            _playground().prepare(run.path)
    finally:
        _warming.release()


def _playground():
    """Return the one playground of this process."""
    with _making:
        return _make_playground()


@lru_cache(maxsize=1)
def _make_playground():
    with uncollected():
        from trainers.playground import Playground

    return Playground()


def _teller(progress: gr.Progress):
    """Return what passes progress on from any thread: the page's event is known by the handler's context."""
    context = contextvars.copy_context()

    def tell(share: float, text: str) -> None:
        context.copy().run(progress, share, desc=text)

    return tell


def _explain(error: Exception) -> str:
    """Say what a failure that nobody foresaw most likely is, without the library's own words."""
    from trainers.failures import known_cause

    return known_cause(error) or _UNEXPECTED


def _image(picture):
    """Return (3, H, W) uint8 as a picture at the size of the slider."""
    from PIL import Image

    return pictures.enlarge(Image.fromarray(picture.permute(1, 2, 0).numpy()), pictures.LARGE)


def _facts(drawing, wish) -> str:
    told = [f"Drawn with seed {wish.seed} in {drawing.seconds:.1f} s."]
    if drawing.before.equal(drawing.after):
        told.append("Both pictures are equal, pixel for pixel.")
    whole = wish.strength == 1.0  # the comparison drew no other, so only the picture before is compared
    if drawing.index is not None and drawing.stored:
        same = "what was drawn" if whole else "its picture before"
        told.append(f"This is a picture of the run's comparison; {same} equals the stored one bit for bit.")
    if drawing.stored is False:
        differs, cause = ("it", ", or by an earlier adapter") if whole else ("its picture before", "")
        told.append(
            f"This is a picture of the run's comparison, but {differs} differs from the stored one: that was "
            f"drawn on another machine, or with other versions{cause}."
        )
    return " ".join(told)


def _told(panel: Panel, fields: dict[str, str]) -> dict:
    """Return the lines below the fields: a sentence where something is wrong, nothing elsewhere."""
    return {
        line: gr.update(value=_problem(fields[name]) if name in fields else "", visible=name in fields)
        for name, line in panel.told.items()
    }


def _problem(text: str) -> str:
    return f'<p class="rsm-wrong" role="alert">{escape(text)}</p>'
