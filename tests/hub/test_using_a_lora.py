"""A pushed LoRA is loaded by its strangers: plain libraries in a fresh process draw the "after" picture."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image

from rsm_app.hub.push import Push
from tests.e2e.shell import ROOT, lines
from tests.hub.conftest import REPO, environment

PLAIN_DIFFUSERS = """
import json, sys
import torch
from diffusers import DiffusionPipeline
base, repo, out = sys.argv[1:4]
pair = json.loads(sys.argv[4])
settings = json.load(open(base + "/call.json"))
pipe = DiffusionPipeline.from_pretrained(base, **settings["load"])
pipe.load_lora_weights(repo)
generator = torch.Generator("cpu").manual_seed(pair["seed"])
pipe(pair["prompt"], generator=generator, **settings["call"]).images[0].save(out)
assert not {"trainers", "rsm_app"} & set(sys.modules)
"""


def test_plain_diffusers_in_a_fresh_process_draws_the_after_picture(hub, run, push, tmp_path):
    push()
    pair = lines(run / "samples" / "pairs.jsonl")[0]
    words = [str(ROOT / "assets" / "tiny-flow"), REPO, str(tmp_path / "after.png"), json.dumps(pair)]
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_DIFFUSERS, *words],
        cwd=tmp_path,
        env=environment(hub, tmp_path / "home", HF_HUB_DISABLE_XET="1"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    mine, plain, before = (
        np.asarray(Image.open(path), dtype=int)
        for path in (run / pair["after"], tmp_path / "after.png", run / pair["before"])
    )
    assert np.abs(mine - plain).max() <= 1
    assert np.abs(mine - before).max() > 1, "the adapter has no effect, so this would show nothing"


def test_the_snippet_of_a_card_draws_the_after_picture_where_diffusers_loads_no_lora(
    hub, own_parts, writer, tmp_path
):
    """PixArt-Σ: the card's own lines, with nothing of this project, beside the base model's folder."""
    run = shutil.copytree(own_parts, tmp_path / "run")
    Push(run, REPO, writer, endpoint=hub.url).run()
    card = hub.files(REPO)["README.md"].decode()
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=own_parts.parent,
        env=environment(hub, tmp_path / "home", HF_HUB_DISABLE_XET="1"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    pair = lines(run / "samples" / "pairs.jsonl")[0]
    mine, plain, before = (
        np.asarray(Image.open(path), dtype=int)
        for path in (run / pair["after"], own_parts.parent / "after.png", run / pair["before"])
    )
    assert np.abs(mine - plain).max() <= 1
    assert np.abs(mine - before).max() > 1, "the adapter has no effect, so this would show nothing"
