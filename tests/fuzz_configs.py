"""Settings drawn at random, sensible and not, given to the command line, the page and the API.

Nothing may end in a traceback, every refusal is a sentence, and what is accepted must load: the worker that
would work on it is run up to its first image. `python tests/fuzz_configs.py --count 2000 --seed 0` is the
long run.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import math
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rsm_app.jobs.limits import Limits  # noqa: E402
from rsm_app.jobs.store import RunStore  # noqa: E402
from rsm_app.jobs.supervisor import Supervisor  # noqa: E402
from rsm_app.ui import fields, form  # noqa: E402
from rsm_app.ui.api import Api  # noqa: E402
from tests.ui.asking import asker  # noqa: E402
from trainers.cli import main as command  # noqa: E402
from trainers.coercion import from_mapping  # noqa: E402
from trainers.config import FIELDS, RunConfig  # noqa: E402
from trainers.errors import StudioError  # noqa: E402
from trainers.methods import METHODS, fitting_methods  # noqa: E402
from trainers.models import MODELS  # noqa: E402
from trainers.opening import start  # noqa: E402
from trainers.presets import preset  # noqa: E402
from trainers.prompts import builtin_sets  # noqa: E402
from trainers.rewards import REWARDS  # noqa: E402
from trainers.run_folder import RunFolder  # noqa: E402
from trainers.session import Session  # noqa: E402

FAMILIES = {name: MODELS.get(name) for name in ("tiny-flow", "tiny-diffusion")}
LOADED = (
    *("shapes", "shapes_exact", "tiny_clip", "jpeg_compressibility", "jpeg_incompressibility"),
    *("brightness", "contrast", "sharpness", "colorfulness"),
)
NONSENSE = (
    # Numbers that are none, or none of ours.
    *("", " ", "nan", "inf", "-inf", "1e999", "-1", "0", "0x10", "1_000", "\u0661\u0662", "\u00bd", "1,5"),
    *(10**30, -(10**30), 1e308, math.nan, math.inf),
    # Words that mean something elsewhere.
    *("none", "None", "true", "null", "[]", "{}", "../..", "~", "/etc/passwd", "'; --", "<script>"),
    *("%s", "{x}", "${HOME}"),
    # Letters that break files, terminals and headers.
    *("a" * 5000, "\0", "\ud800", "\u202e", "\u2028", "\u00e9", "\U0001f3b2"),
    *(True, False, None, [], [1], {}, {"a": 1}, [[1]], b"bytes"),
)
MAIN = ("model", "reward", "estimator", "budget_seconds", "seed", "prompts")
ESTIMATORS = tuple(METHODS.names())


@dataclasses.dataclass
class Tally:
    """What came of the settings."""

    ways: Counter = dataclasses.field(default_factory=Counter)
    wrong: list = dataclasses.field(default_factory=list)

    def note(self, way: str, outcome: str) -> None:
        """Count an outcome of one way in."""
        self.ways[f"{way} {outcome}"] += 1

    def blame(self, way: str, what: object, asked: dict) -> None:
        """Keep what must not happen."""
        self.wrong.append(f"{way}: {what} for {asked!r}"[:1500])


def draw(dice: random.Random) -> dict:
    """Draw the values of a run: mostly of the right kind, now and then at an end of the range or nonsense."""
    asked = {"model": dice.choice(sorted(FAMILIES)), "reward": _reward(dice)}
    gradient = bool(form.differentiable(asked["reward"]))
    fitting = fitting_methods(FAMILIES[asked["model"]].family, gradient)
    asked["estimator"] = dice.choice(fitting if dice.random() < 0.85 and fitting else ESTIMATORS)
    for name in dice.sample(sorted(set(FIELDS) - set(asked)), dice.randint(0, 4)):
        asked[name] = _value(dice, name)
    if dice.random() < 0.1:
        asked[dice.choice(("model", "reward", "estimator"))] = dice.choice(NONSENSE)
    if dice.random() < 0.05:
        asked[dice.choice(("unknown", "lora-rank", "Lora_rank", ""))] = dice.choice(NONSENSE)
    return asked


def _reward(dice: random.Random) -> str:
    if dice.random() < 0.7:
        return dice.choice(LOADED)
    names = dice.sample(sorted(REWARDS.names()), dice.randint(1, 3))
    return ",".join(f"{name}:{dice.choice(('1', '-0.5', '1e-3', '0', 'x', '1e9'))}" for name in names)


def _value(dice: random.Random, name: str) -> object:
    metadata, default = FIELDS[name].metadata, getattr(RunConfig, name)
    low, high, choices = metadata["low"], metadata["high"], metadata["choices"]
    kind = dice.random()
    if kind < 0.12:
        return dice.choice(NONSENSE)
    if choices:
        return dice.choice(choices)
    if name in ("prompts", "heldout_prompts"):
        return dice.choice(builtin_sets())
    if name == "branches":
        return ",".join(str(dice.choice((0, 0, 2, 3, 8, 1, 256))) for _ in range(dice.randint(0, 9)))
    if name == "device":
        return dice.choice(("auto", "cpu", "cuda", "cuda:7", "gpu"))
    if low is None:
        return dice.choice((default, "shapes,brightness", *NONSENSE))
    if kind < 0.3:
        return dice.choice((low, high, low - 1, high + 1, low - 1e-9, high * 2))
    top = min(high, 64 * max(abs(default or 1), 1))
    drawn = math.exp(dice.uniform(math.log(max(low, 1e-3)), math.log(max(top, 2e-3))))
    return round(drawn) if isinstance(default, int) else drawn


# -- the three ways in -------------------------------------------------------------------------------


def by_command(asked: dict, tally: Tally) -> RunConfig | None:
    """Ask the command line for a dry run, and return the settings that it accepts."""
    texts = {name: _text(value) for name, value in asked.items()}
    words = ["train", "--dry-run"]
    for name in ("model", "reward", "estimator"):
        words.append(f"--{name}={texts.pop(name)}")
    for name, text in texts.items():
        words += ["--set", f"{name}={text}"]
    out, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code = command(words)
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        tally.blame("command", repr(error), asked)
        return None
    tally.note("command", f"ends with {code}")
    if code not in (0, 2) or "Traceback" in errors.getvalue() or "unexpected" in errors.getvalue():
        tally.blame("command", f"{code} {errors.getvalue()[-400:]}", asked)
    return from_mapping(json.loads(out.getvalue())) if code == 0 else None


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def filled_form(asked: dict) -> form.Form:
    """Return what a browser sends: every field, those that nobody touched as they come."""
    try:
        base = preset(str(asked["model"]), str(asked["estimator"]), str(asked["reward"]))
    except StudioError:
        base = {}
    shown = {name: fields.shown(name, base.get(name, getattr(RunConfig, name))) for name in fields.ADVANCED}
    shown |= {name: value for name, value in asked.items() if name in shown}
    known = isinstance(asked["reward"], str) and asked["reward"] in REWARDS
    return form.Form(
        asked["model"],
        asked["reward"] if known or not isinstance(asked["reward"], str) else form.CUSTOM,
        None if known or not isinstance(asked["reward"], str) else asked["reward"],
        asked["estimator"],
        form.BUILTIN,
        asked.get("prompts", base.get("prompts", RunConfig.prompts)),
        None,
        None,
        form.CUSTOM,
        asked.get("budget_seconds", 60),
        asked.get("seed", 0),
        tuple(shown[name] for name in fields.ADVANCED),
    )


class App:
    """What page and API do with settings, on a runs directory where what was submitted only waits."""

    def __init__(self, root: Path):
        self.supervisor = Supervisor(RunStore(root), Limits(owner_queued=0))
        self.api = Api(self.supervisor)
        self.supervisor.tick = lambda *_, **__: None  # nobody starts what waits here

    def page(self, asked: dict, tally: Tally) -> RunConfig | None:
        """Check and submit a form as the page's Start does, and return the settings that are accepted."""

        def submit() -> dict:
            config, own = form.check(filled_form(asked))
            return {"run": self.supervisor.submit(config, own, "10.0.0.1").id}

        return self._asked("page", submit, asked, tally)

    def call(self, asked: dict, tally: Tally) -> RunConfig | None:
        """Call ``start_run`` and return the settings that are accepted."""
        main = {
            name: asked[name]
            for name in ("model", "reward", "estimator", "budget_seconds", "seed")
            if name in asked
        }
        main |= {"prompts": asked["prompts"]} if "prompts" in asked else {}
        settings = {name: value for name, value in asked.items() if name not in main}

        def submit() -> dict:
            return self.api.start_run(asker("10.0.0.1"), **main, settings=settings)

        return self._asked("API", submit, asked, tally)

    def _asked(self, way: str, submit: Callable[[], dict], asked: dict, tally: Tally) -> RunConfig | None:
        try:
            answer = submit()
        except StudioError as error:
            tally.note(way, "refuses")
            if not str(error).strip():
                tally.blame(way, "no sentence", asked)
            return None
        except Exception as error:
            tally.blame(way, repr(error), asked)
            return None
        tally.note(way, "accepts")
        run = self.supervisor.store.run(answer["run"])
        try:
            json.dumps(answer, allow_nan=False)
            return from_mapping(run.settings())
        except Exception as error:
            tally.blame(way, f"settings that cannot be sent or read again: {error!r}", asked)
            return None

    def forget(self) -> None:
        """Delete what was submitted; own prompts are read from there until then."""
        for run in self.supervisor.store.runs():
            shutil.rmtree(run.path)


# -- what is accepted loads --------------------------------------------------------------------------


def loads(config: RunConfig, folder: Path) -> str:
    """Do what a worker does up to its first image; return what went wrong, or nothing."""

    def listen(status) -> None:
        if status.phase == "baseline" and status.state == "running":
            RunFolder(folder).request_stop("far enough")

    try:
        run = start(folder, config)
        status = Session(run, config, listen, age=0.0).run()
    except StudioError as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        return f"unexpected {error!r}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return "" if status.state == "stopped" else f"{status.state}: {status.error}"


def fuzz(count: int, seed: int, scratch: Path, say=lambda text: None) -> Tally:
    """Give ``count`` drawn settings to every way in, and load what any of them accepts."""
    dice, tally, app = random.Random(seed), Tally(), App(scratch / "runs")
    seen: set[RunConfig] = set()
    for number in range(count):
        asked = draw(dice)
        accepted = [way(asked, tally) for way in (by_command, app.page, app.call)]
        for way, config in zip(("command", "page", "API"), accepted, strict=True):
            if config is None or config in seen:
                continue
            seen.add(config)
            quick = dataclasses.replace(config, device="cpu", threads=1)
            if trouble := loads(quick, scratch / "load"):
                tally.blame(f"{way} accepted, the worker refuses", trouble, asked)
            tally.note("worker", "loads" if not trouble else "refuses")
        app.forget()
        if number % 50 == 49:
            say(f"{number + 1} of {count}: {dict(sorted(tally.ways.items()))}, {len(tally.wrong)} wrong")
    return tally


def main() -> int:
    """Run the long fuzz and print what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        tally = fuzz(options.count, options.seed, Path(scratch), lambda text: print(text, flush=True))
    for text in tally.wrong:
        print("WRONG", text)
    print(f"{dict(sorted(tally.ways.items()))}; {len(tally.wrong)} wrong; {time.monotonic() - began:.0f} s")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
