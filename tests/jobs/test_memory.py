"""Memory of workers: refused before they start, limited while they work, and given back when none is left."""

import dataclasses
import json
import subprocess
import sys

import pytest

from rsm_app.jobs import memory
from rsm_app.jobs.limits import Limits, read_limits
from rsm_app.jobs.memory import memory_problems, relieve
from rsm_app.jobs.permission import size_problems
from rsm_app.jobs.records import Worker
from rsm_app.jobs.supervisor import Supervisor
from tests.faults.many_runs import finished_run
from tests.jobs.small_runs import ended, small_config, wait_for
from trainers.errors import InputError
from trainers.methods import METHODS
from trainers.models import MODELS
from trainers.presets import build_config
from trainers.processes import process_identity

CPU, GPU = ("cpu",), ("cuda:0", "cpu")
LARGE = {"micro_batch": 2048, "prompts_per_update": 256, "group_size": 8}
SPACE = read_limits({"SPACE_ID": "ann/studio"})


def grpo(**values):
    return build_config("tiny-flow", "grpo", "colorfulness", values)


def test_a_run_that_would_pass_five_gigabytes_is_refused_with_the_setting_to_lower():
    (sentence,) = memory_problems(grpo(**LARGE), CPU, Limits(run_memory_mb=5000))
    assert "about 5." in sentence and "the 4.9 GiB that a run may take here" in sentence
    assert "lower 'micro_batch', which takes 4.4 GiB of it." in sentence
    assert memory_problems(grpo(**LARGE | {"micro_batch": 512}), CPU, Limits(run_memory_mb=5000)) == []


def test_without_a_limit_the_machine_s_own_memory_counts(monkeypatch):
    assert memory_problems(grpo(), CPU, Limits()) == []
    monkeypatch.setattr(memory, "machine_memory_mb", lambda: 3000.0)
    (sentence,) = memory_problems(grpo(**LARGE), CPU, Limits(run_memory_mb=5000))
    assert "more than the 2.9 GiB that the machine has" in sentence


def test_on_a_gpu_what_grows_with_the_settings_is_held_against_it(monkeypatch):
    monkeypatch.setattr(memory, "gpu_memory_gb", lambda: 24.0)
    config = build_config("sd15", "grpo", "colorfulness", {"prompts_per_update": 4096, "group_size": 64})
    (sentence,) = memory_problems(config, GPU, Limits())
    assert "that the GPU has" in sentence and "lower 'prompts_per_update'" in sentence
    compared = build_config(
        "sdxl", "grpo", "colorfulness", {"eval_prompts": 100000, "eval_samples_per_prompt": 64}
    )
    assert "lower 'eval_prompts'" in memory_problems(compared, GPU, Limits())[0]
    assert memory_problems(build_config("sd15", "grpo", "colorfulness", {}), GPU, Limits()) == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"micro_batch": 513}, "'micro_batch' may be at most 512 here, not 513."),
        ({"eval_batch": 4096}, "'eval_batch' may be at most 512 here, not 4096."),
        ({"lora_rank": 1024}, "'lora_rank' may be at most 128 here, not 1024."),
        ({"prompts_per_update": 4096}, "The images of a rollout may be at most 8192 here"),
        ({"eval_prompts": 4096}, "The images of a comparison may be at most 4096 here"),
    ],
)
def test_visitors_of_a_space_have_ceilings(settings, sentence):
    assert sentence in size_problems(grpo(**settings), CPU, SPACE)[0]
    assert ceilings_of_a_private_machine(settings) == []


def ceilings_of_a_private_machine(settings):
    return [text for text in size_problems(grpo(**settings), CPU, Limits()) if "may be at most" in text]


def test_ceilings_of_what_only_some_methods_have():
    ahead = build_config("tiny-flow", "sqdf", "colorfulness", {"lookahead_steps": 9})
    assert "'lookahead_steps' may be at most 8 here" in size_problems(ahead, CPU, SPACE)[0]
    replay = build_config("tiny-flow", "residual_nabla_db", "colorfulness", {"replay_size": 10**6})
    assert "'replay_size' may be at most 10000 here" in size_problems(replay, CPU, SPACE)[0]
    wide = build_config("sd35-medium", "grpo", "colorfulness", {"resolution": 1440})
    assert "lower 'resolution'" in size_problems(wide, GPU, SPACE)[0]
    assert "at most 5000 prompts here, not 5001" in size_problems(grpo(), CPU, SPACE, "a\n" * 5001)[0]


@pytest.mark.parametrize("model", MODELS.names())
def test_no_preset_is_refused_on_a_space(model):
    for estimator in METHODS.names():
        for reward in ("shapes", "colorfulness", "clip_score"):
            try:
                config = build_config(model, estimator, reward, {})
            except InputError:
                continue
            assert size_problems(config, CPU if MODELS.get(model).embedded else GPU, SPACE) == []


def test_what_is_too_large_is_not_queued_and_not_trained_on(store, monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    supervisor = Supervisor(store, Limits(free_mb=0, batch=64, run_memory_mb=5000))
    monkeypatch.setattr(supervisor, "tick", lambda: None)
    with pytest.raises(InputError, match="'micro_batch' may be at most 64 here, not 65"):
        supervisor.submit(small_config(micro_batch=65), owner="ann")
    assert store.runs() == []
    run = finished_run(store, 0)
    settings = json.loads(run.folder.config.read_text()) | {"lora_rank": 1024, "micro_batch": 64}
    run.folder.config.write_text(json.dumps(settings))
    supervisor.limits = Limits(free_mb=0, run_memory_mb=1000)
    with pytest.raises(InputError, match="lower 'lora_rank'"):
        supervisor.extend(run.id, 60)
    supervisor.close()


GREEDY = """
import torch

def greedy(images, prompts):
    return torch.ones(2**32).sum() + images.mean((1, 2, 3))
"""


def test_a_worker_that_wants_more_than_its_limit_ends_with_a_sentence(store, monkeypatch, tmp_path):
    """The system sets its limit, under which it loads; what an own reward takes no estimate can know."""
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    monkeypatch.setenv("RSM_ALLOW_OWN_CODE", "1")
    (tmp_path / "mine.py").write_text(GREEDY)
    config = dataclasses.replace(small_config(), reward=f"{tmp_path / 'mine.py'}:greedy")
    supervisor = Supervisor(store, Limits(free_mb=1, run_memory_mb=3000))
    run = supervisor.submit(config)
    wait_for(ended(run), what="the worker's end")
    status = run.status()
    assert status.state == "failed" and "not enough memory" in status.error
    supervisor.close()


@pytest.fixture
def holder():
    """A process that holds 60 MB."""
    words = [sys.executable, "-c", "x = bytearray(60 << 20); print(1, flush=True); input()"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def test_when_the_machine_has_no_memory_left_the_largest_worker_goes_and_says_why(store, holder):
    runs = []
    for number, process in enumerate((holder, None)):
        run = finished_run(store, number)
        pid = process.pid if process else 2**22 + 1
        record = {"state": "running", "phase": "train", "pid": pid, "pid_identity": process_identity(pid)}
        run.folder.status_file.write_text(json.dumps(record))
        run.write_worker(Worker(ticket=1, seen="x", pid=pid, pid_identity=process_identity(pid)))
        runs.append(run)
    assert relieve(runs, 0) is None and relieve(runs, 1) is None and holder.poll() is None
    assert relieve(runs, 1e9) is runs[0]
    assert holder.wait(30) < 0
    status = runs[0].status()
    assert status.state == "interrupted" and "MB of memory left" in status.error
    assert "smaller micro_batch" in status.error and "killed" in status.error
