"""Every row of the table improves its reward on a tiny model within a minute of two cores.

Behind ``slow``: one run takes 58 s by its budget. Print the figures with ``-s``.
"""

import pytest

from tests.e2e.shell import read, trainers
from trainers.custom import CUSTOM
from trainers.methods import METHODS
from trainers.models import EMBEDDED, MODELS

SECONDS = 58
# The easiest reward that every row can read.
REWARD = "colorfulness"
CASES = [
    (method.name, model.name)
    for method in METHODS
    for model in map(MODELS.get, EMBEDDED)
    if method.name != CUSTOM and model.family in method.families
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "model"), CASES)
def test_the_row_improves_its_reward(method, model, tmp_path):
    words = ["--model", model, "--estimator", method, "--reward", REWARD]
    words += ["--budget-seconds", str(SECONDS), "--out", str(tmp_path / "run")]
    result = trainers("train", *words, "--set=eval_samples_per_prompt=2")
    assert result.returncode == 0, result.stderr
    report = read(tmp_path / "run" / "report.json")
    gain, z = report["paired"]["mean_gain"], report["paired"]["z"]
    print(
        f"| {model} | {method} | {report['reward']} | {report['wall_seconds']:.0f} | {report['updates']} "
        f"| {gain:+.4f} | {z:.1f} |"
    )
    assert z >= 2.0
