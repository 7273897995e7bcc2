"""One real run of a few updates, trained once; a stand-in for the Hub for each test; nobody's own token."""

import os
import shutil

import huggingface_hub.constants as hub_constants
import pytest

from rsm_app.hub import push as pushing
from rsm_app.hub.push import Push
from rsm_app.hub.sign_in import Token
from tests.e2e.shell import settings, trainers
from tests.hub.stand_in import StandIn
from tests.models.tiny_pipelines import save

WRITER, READER, OTHER = "hf_annWrites", "hf_annReads", "hf_bobWrites"
REPO = "ann/tiny-flow-brightness-lora"


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a finished run of tiny-flow; only to be read."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    prompts = folder.parent / "own prompts.txt"
    prompts.write_text("a red circle\na blue square\ntwo green circles\na red square\n")
    words = ["train", "--reward", "brightness", "--budget-seconds", "600", "--out", str(folder)]
    words += ["--prompts", str(prompts)]
    changes = {"eval_prompts": 12, "max_updates": 2, "learning_rate": 5e-3, "kl_weight": 0.0}
    done = trainers(*words, *settings(**changes))
    assert done.returncode == 0, done.stderr
    return folder


OWN_REWARDS = """
def redness(images, prompts):
    return images[:, 0].mean((1, 2))


def darkness(images, prompts):
    return 1 - images.mean((1, 2, 3))
"""


@pytest.fixture(scope="session")
def own_parts(tmp_path_factory):
    """The folder of a finished run that is all its owner's own: base folder, functions, JSON lines."""
    place = tmp_path_factory.mktemp("own") / "my things"
    base, rewards, prompts = save("tiny-pixart", place / "my-base"), place / "mine.py", place / "mine.jsonl"
    rewards.write_text(OWN_REWARDS)
    prompts.write_text('{"prompt": "a red circle", "n": 1}\n{"prompt": "a blue square"}\n')
    words = ["train", "--model", str(base), "--estimator", "grpo", "--budget-seconds", "600"]
    words += ["--heldout-prompts", "shapes-heldout"]
    words += ["--reward", f"brightness:0.5,{rewards}:redness:2,{rewards}:darkness", "--prompts", str(prompts)]
    quick = {"group_size": 2, "prompts_per_update": 2, "lora_rank": 2, "micro_batch": 8, "eval_prompts": 4}
    quick |= {
        "max_updates": 1,
        "learning_rate": 0.02,
        "device": "cpu",
        "others": f"{rewards}:darkness,colorfulness",
    }
    shell = {"RSM_ALLOW_OWN_CODE": "1"}
    done = trainers(*words, *settings(**quick), "--out", str(place / "run"), env=shell)
    assert done.returncode == 0, done.stderr
    return place / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run that a test may change."""
    return shutil.copytree(trained, tmp_path / "runs" / "20260101-000000-aaaaaa")


@pytest.fixture
def online(monkeypatch, tmp_path):
    """Let requests out, to this machine only, and hide whatever token the machine has."""
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(online, tmp_path):
    running = StandIn(tmp_path / "hub")
    yield running
    running.close()


@pytest.fixture
def writer():
    return Token(WRITER)


@pytest.fixture
def quick(monkeypatch):
    """Pauses between tries take no time unless the Hub asks for them."""
    monkeypatch.setattr(pushing, "PAUSES", (0.01,) * 5)


@pytest.fixture
def push(hub, run, writer, quick):
    def go(token=writer, repo=REPO, **more):
        return Push(run, repo, token, endpoint=hub.url, **more).run()

    return go


def environment(hub, home, **more) -> dict[str, str]:
    """The environment of a process that knows the stand-in as the Hub."""
    own = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return {**os.environ, **own, **more}
