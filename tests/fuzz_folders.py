"""Folders of every family with one thing in their small files changed: what a dry run accepts has to draw.

`python tests/fuzz_folders.py` takes every entry of every index and config away or makes it null, empties and
removes every small file, and prints what is accepted and fails all the same; `--families tiny-sd15` is short.
"""

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.models.tiny_pipelines import save  # noqa: E402
from trainers.errors import InputError  # noqa: E402
from trainers.machine import quiet_libraries  # noqa: E402
from trainers.models import MODELS  # noqa: E402
from trainers.models.access import access_problems  # noqa: E402
from trainers.models.base import load_model  # noqa: E402
from trainers.models.tiny_sizes import TINY  # noqa: E402
from trainers.models.trial_parts import part_trials  # noqa: E402

INDEX = "model_index.json"
CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json")
FLAGS = (
    "safety_checker",
    "feature_extractor",
    "image_encoder",
    "force_zeros_for_empty_prompt",
    "is_distilled",
)
Change = Callable[[Path], object]


def edited(path: str, **changes: object) -> Change:
    """Change entries of a JSON file; one that becomes ``...`` goes."""

    def change(folder: Path) -> None:
        record = json.loads((folder / path).read_text()) | changes
        (folder / path).write_text(json.dumps({n: v for n, v in record.items() if v is not ...}))

    return change


def removed(path: str) -> Change:
    """Remove a file or a folder."""
    return lambda folder: (
        shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()
    )


def written(path: str, text: str) -> Change:
    """Write another text into a file."""
    return lambda folder: (folder / path).write_text(text)


def changes_of(plain: Path) -> Iterator[tuple[str, Change]]:
    """Yield every change of a folder, with what it is."""
    for part in json.loads((plain / INDEX).read_text()):
        if not part.startswith("_"):
            yield f"{INDEX}: {part} null", edited(INDEX, **{part: [None, None]})
            yield f"{INDEX}: no {part}", edited(INDEX, **{part: ...})
            if (plain / part).is_dir():
                yield f"no folder {part}", removed(part)
    for flag in FLAGS:
        for value in (None, [None, None], False, "x"):
            yield f"{INDEX}: {flag} {value}", edited(INDEX, **{flag: value})
    for path in sorted(plain.rglob("*")):
        name = path.relative_to(plain).as_posix()
        if path.is_dir() or path.suffix == ".safetensors" or name == INDEX:
            continue
        yield f"no {name}", removed(name)
        if path.suffix == ".json":
            yield f"{name} empty", written(name, "{}")
            yield f"{name} a list", written(name, "[]")
        for entry in json.loads(path.read_text()) if path.name in CONFIGS else ():
            yield f"{name}: no {entry}", edited(name, **{entry: ...})
            yield f"{name}: {entry} null", edited(name, **{entry: None})


def outcome(name: str, folder: Path) -> tuple[str, str]:
    """Return whether a folder is refused, draws, or fails although it was accepted, and why."""
    try:
        spec = MODELS.get(str(folder))
        if found := access_problems(spec) or part_trials(spec):
            return "refused", found[0]
    except InputError as error:
        return "refused", str(error)
    except Exception as error:
        return "FAILS in the check", repr(error)[:300]
    spec = dataclasses.replace(spec, call={**spec.call, **TINY[name].call})
    try:
        load_model(spec).sample(["a red circle"], [3])
    except Exception as error:
        return "FAILS", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return "draws", ""


def main() -> int:
    """Try every change, and print those that were accepted and failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="*", default=list(TINY), choices=list(TINY))
    quiet_libraries()
    tally: Counter[str] = Counter()
    for name in parser.parse_args().families:
        with tempfile.TemporaryDirectory() as place:
            plain = save(name, Path(place) / "plain")
            for number, (what, change) in enumerate(changes_of(plain)):
                folder = Path(shutil.copytree(plain, Path(place) / f"{number}"))
                change(folder)
                how, why = outcome(name, folder)
                shutil.rmtree(folder)
                tally[how] += 1
                if how.startswith("FAILS"):
                    print(f"{how}: {name}, {what}: {why}", flush=True)
        print(f"{name}: {dict(tally)} so far", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
