"""The forms in which people bring their own rewards, and that none of them can touch another's numbers."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trainers.cli import main
from trainers.config import RunConfig
from trainers.errors import FaultError, InputError
from trainers.rewards import load_reward, parse_mixture
from trainers.rewards.own_function import read_values

HEAD = "import numpy as np, torch\n"
MEAN = "images.mean((1, 2, 3))"
CALL = f"    def __call__(self, images, prompts):\n        return {MEAN}\n"
FORMS = {
    "one argument": f"def f(images):\n    return {MEAN}",
    "three arguments": f"def f(images, prompts, metadata):\n    return {MEAN}, {{}}",
    "optional metadata": f"def f(images, prompts, metadata=None):\n    assert metadata\n    return {MEAN}",
    "an own default third": f"def f(images, prompts, gain=1.0):\n    return {MEAN} * gain",
    "a maker": f"def f():\n    def g(images, prompts, metadata):\n        return {MEAN}, {{}}\n    return g",
    "a maker for a device": (
        f"def f(device):\n    assert device == 'cpu'\n    return lambda images, prompts, meta: ({MEAN}, {{}})"
    ),
    "a lambda": f"f = lambda images, prompts: {MEAN}",
    "partial": (
        f"from functools import partial\ndef g(images, prompts, *, k):\n    return {MEAN} * k\n"
        "f = partial(g, k=1)"
    ),
    "an object": f"class Scorer:\n{CALL}f = Scorer()",
    "a class": f"class f:\n{CALL}",
    "a module": f"class f(torch.nn.Module):\n    def forward(self, images, prompts):\n        return {MEAN}",
    "within try": (
        "try:\n    import no_such_thing\nexcept ImportError:\n"
        f"    def f(images, prompts):\n        return {MEAN}"
    ),
    "a numpy array": "def f(images, prompts):\n    return images.numpy()[::-1].mean((1, 2, 3))[::-1]",
    "a list of tensors": "def f(images, prompts):\n    return [image.mean() for image in images]",
    "a column": f"def f(images, prompts):\n    return {MEAN}[:, None]",
    "Flow-GRPO's mapping": f"def f(images, prompts, metadata):\n    return {{'avg': {MEAN}, 'x': 1}}, {{}}",
    "a slot that is overwritten": (
        f"slot = torch.zeros(3)\ndef f(images, prompts):\n    slot[:] = {MEAN}\n    return slot"
    ),
}
REFUSED_BY_SOURCE = {
    "def f(images, prompts, metadata, step):\n    return 0": "needs 4 arguments",
    "def f(images, prompts, *, scale):\n    return 0": "by keyword scale",
    "async def f(images, prompts):\n    return 0": "async",
    "class f:\n    pass": "without __call__",
    "class f:\n    def __call__(self, a, b, c, d):\n        return 0": "needs 4 arguments",
    "g = 1": "no function 'f'",
}


def images(count=3):
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def written(tmp_path, code, name="mine.py"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + code + "\n")
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_its_numbers(form, tmp_path):
    reward = load_reward(f"{written(tmp_path, FORMS[form])}:f", "cpu", RunConfig())
    first = reward(images(), ["a", "b", "c"])
    torch.testing.assert_close(first, images().mean((1, 2, 3)))
    reward(torch.zeros(3, 3, 8, 8), ["a", "b", "c"])
    torch.testing.assert_close(first, images().mean((1, 2, 3)))  # what was returned stays as it was


@pytest.mark.parametrize("code", REFUSED_BY_SOURCE)
def test_what_cannot_be_called_is_refused_before_anything_runs(code, tmp_path, capsys):
    path = written(tmp_path, f"raise SystemExit('it was run')\n{code}")
    with pytest.raises(InputError, match=REFUSED_BY_SOURCE[code]):
        parse_mixture(f"{path}:f")
    arguments = ["train", "--model", "tiny-flow", "--reward", f"{path}:f", "--estimator", "grpo", "--dry-run"]
    assert main(arguments) == 2 and "it was run" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing \\(None\\)"),
        ({"mean": [1.0, 2.0]}, "mapping with mean"),
        (["a", "b"], "no plain numbers"),
        ("ab", "no plain numbers"),
        ([{}, {}], "no plain numbers"),
        (torch.zeros(2, dtype=torch.complex64), "no plain numbers"),
        ([[1.0, 2.0], [3.0, 4.0]], r"shape \(2, 2\)"),
        (1.0, r"shape \(\)"),
        ((0.5, 0.5, 0.5), r"shape \(3,\)"),
    ],
)
def test_what_is_not_one_number_an_image_is_told(value, words):
    with pytest.raises(ValueError, match=words):
        read_values(value, 2)


def test_two_numbers_in_a_tuple_are_two_rewards():
    assert read_values((0.25, 0.5), 2).tolist() == [0.25, 0.5]
    assert read_values((torch.tensor(0.25), torch.tensor(0.5)), 2).tolist() == [0.25, 0.5]
    assert read_values((np.array([0.25, 0.5]), {"facts": 1}), 2).tolist() == [0.25, 0.5]


@pytest.mark.parametrize(
    "work",
    [
        "images *= 255",
        "images.numpy()[:] = 0",
        "images.data.zero_()",
        "prompts[:] = ['gone'] * len(prompts)",
        "metadata[0]['prompt'] = 'gone'; metadata[0]['n'].append(1)",
        "torch.set_default_dtype(torch.float64)",
    ],
)
def test_nothing_that_one_part_does_reaches_another(work, tmp_path):
    records = tmp_path / "records.jsonl"
    records.write_text('{"prompt": "a", "n": []}\n{"prompt": "b", "n": [0]}\n')
    config = RunConfig(prompts=str(records), heldout_prompts=str(records))
    bad = written(tmp_path, f"def f(images, prompts, metadata):\n    {work}\n    return [0.0] * len(images)")
    good = written(
        tmp_path,
        "def f(images, prompts, metadata):\n    assert prompts == ['a', 'b']\n"
        "    assert metadata[0] == {'prompt': 'a', 'n': []}\n"
        f"    return {MEAN}.to(torch.get_default_dtype())",
        "good.py",
    )
    shown, prompts = images(2), ["a", "b"]
    scores = load_reward(f"{bad}:f,{good}:f,brightness", "cpu", config).components(shown, prompts)
    assert torch.equal(shown, images(2)) and prompts == ["a", "b"]
    torch.testing.assert_close(scores[f"{good}:f"], images(2).mean((1, 2, 3)))
    torch.testing.assert_close(scores["brightness"], load_reward("brightness")(images(2), prompts))
    assert torch.get_default_dtype() == torch.float32


def test_the_records_of_the_prompt_files_are_handed_over(tmp_path):
    records = tmp_path / "records.jsonl"
    records.write_text('{"prompt": "two dogs", "count": 2}\n{"prompt": "a cat", "count": 1}\n')
    code = "def f(images, prompts, metadata):\n    return [m.get('count', -1) for m in metadata], {}"
    config = RunConfig(prompts=str(records), heldout_prompts=str(records))
    reward = load_reward(f"{written(tmp_path, code)}:f", "cpu", config)
    assert reward(images(), ["a cat", "two dogs", "unknown"]).tolist() == [1.0, 2.0, -1.0]


def test_two_files_may_each_have_a_helper_of_the_same_name(tmp_path):
    code = (
        "from helper import GAIN\ndef f(images, prompts):\n    from late import ADD\n"
        "    return [GAIN + ADD] * len(images)"
    )
    for folder, gain in (("one", 1.0), ("two", 2.0)):
        written(tmp_path, f"GAIN = {gain}", f"{folder}/helper.py")
        written(tmp_path, "ADD = 0.5", f"{folder}/late.py")
        written(tmp_path, code, f"{folder}/mine.py")
    values = [
        load_reward(f"{tmp_path}/{folder}/mine.py:f")(images(), ["", "", ""]) for folder in ("one", "two")
    ]
    assert [value[0].item() for value in values] == [1.5, 2.5]


def test_an_edited_helper_counts_when_the_reward_is_loaded_again(tmp_path):
    path = written(
        tmp_path, "from helper2 import GAIN\ndef f(images, prompts):\n    return [GAIN] * len(images)"
    )
    for gain in (1.0, 22.0):  # of another length, so that no stale bytecode can pass for it
        written(tmp_path, f"GAIN = {gain}", "helper2.py")
        assert load_reward(f"{path}:f")(images(), ["", "", ""])[0].item() == gain


def test_dataclasses_and_coding_lines_are_ordinary_python(tmp_path):
    path = tmp_path / "mine.py"
    text = (
        "# -*- coding: latin-1 -*-\nfrom __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Options:\n    name: str = 'é'\n"
        "def f(images, prompts):\n    return [float(len(Options().name))] * len(images)\n"
    )
    path.write_bytes(text.encode("latin-1"))
    assert load_reward(f"{path}:f")(images(), ["", "", ""]).tolist() == [1.0, 1.0, 1.0]


def test_a_file_that_leaves_python_while_it_is_imported_is_told(tmp_path):
    path = written(
        tmp_path, "import sys\nsys.exit('usage: mine.py FILE')\ndef f(images, prompts):\n    return 0"
    )
    with pytest.raises(InputError, match="Importing .* SystemExit: usage"):
        load_reward(f"{path}:f")


def test_a_name_that_is_no_function_after_all_is_told(tmp_path):
    path = written(tmp_path, "f = 3.0")
    with pytest.raises(InputError, match="of type float, which cannot be called"):
        load_reward(f"{path}:f")


def test_a_comma_in_a_path_is_named_as_the_cause(tmp_path, monkeypatch):
    path = written(tmp_path, FORMS["one argument"], "a,b/mine.py")
    for text in (f"{path}:f", f"shapes:1,{path}:f:2"):
        with pytest.raises(InputError, match="has a comma, which separates rewards") as told:
            parse_mixture(text if text.startswith("/") else text.partition(",")[2])
        assert "Unknown" not in str(told.value)
    monkeypatch.chdir(path.parent)
    with pytest.raises(InputError, match="has a comma"):
        parse_mixture("mine.py:f")


def test_a_gradient_reaches_the_images_through_the_copy(tmp_path):
    path = written(
        tmp_path,
        f"def f(images, prompts):\n    images *= 2\n    return {MEAN}\nf.differentiable = True",
    )
    leaf = images().requires_grad_()
    load_reward(f"{path}:f")(leaf, ["", "", ""]).sum().backward()
    torch.testing.assert_close(leaf.grad, torch.full_like(leaf, 2 / (3 * 8 * 8)))


def test_wrong_values_are_the_reward_s_fault_in_its_name(tmp_path):
    path = written(tmp_path, "def f(images, prompts):\n    images.mean()")
    with pytest.raises(FaultError, match="mine.py:f' failed. .*it returned nothing"):
        load_reward(f"{path}:f")(images(), ["", "", ""])


def test_what_the_process_had_before_stays_and_a_neighbor_is_run_once(tmp_path):
    """A script beside the reward files, the package around them, and a helper that holds a large model."""
    written(tmp_path, "import sys\nsys.loads = getattr(sys, 'loads', 0) + 1", "heavy.py")
    for name in ("mine_a", "mine_b"):
        written(
            tmp_path, "import heavy\ndef f(images, prompts):\n    return [1.0] * len(images)", f"{name}.py"
        )
    written(tmp_path, "x = 1", "own.py")
    script = f"""
import pickle, sys
from pathlib import Path
import own
from trainers.rewards import load_reward
class Mine: pass
loaded = [load_reward({str(tmp_path)!r} + f"/{{name}}.py:f") for name in ("mine_a", "mine_b")]
assert sys.loads == 1 and sys.modules["own"] is own, sys.loads
assert pickle.loads(pickle.dumps(Mine())).__class__ is Mine
import trainers.rewards
from trainers.rewards.own_function import load_function
kept = {{name for name in sys.modules if name.startswith("trainers.")}}
for name in ("brightness", "contrast"):
    load_function(Path(trainers.rewards.__file__).parent / f"{{name}}.py", name)
assert kept <= set(sys.modules)
"""
    file = tmp_path / "script.py"
    file.write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "RSM_ALLOW_OWN_CODE": "1"}
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_a_gradient_that_cannot_be_taken_is_the_reward_s_fault_in_its_name(tmp_path):
    code = "import torch\ndef f(images, prompts):\n    return torch.ones(len(images), requires_grad=True)\n"
    path = written(tmp_path, code + "f.differentiable = True\n")
    with pytest.raises(FaultError, match="The reward '.*mine.py:f' failed"):
        load_reward(f"{path}:f").try_out(images(), ["", "", ""], gradient=True)
