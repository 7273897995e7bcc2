"""What a run of the app may name: asked of a new run, and again of one that is to go on."""

import dataclasses
import json

import pytest

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import ORIGIN
from rsm_app.jobs.supervisor import Supervisor
from tests.faults.many_runs import finished_run
from tests.jobs.small_runs import small_config
from trainers.errors import InputError
from trainers.opening import reopen

CRAFTED = [
    {"reward": "judge", "judge_url": "https://evil.example/v1", "judge_key_variable": "HF_TOKEN"},
    {"reward": "judge", "judge_model": "the-dearest"},
    {"reward": "server", "server_url": "http://10.0.0.1/"},
    {"reward": "/tmp/evil.py:score"},
    {"others": "/tmp/evil.py:score"},
]
UNFIT = [  # what a worker would refuse once it has loaded the model
    {"kernel": "ddim"},
    {"kernel": "pcpo_low"},
    {"model": "tiny-diffusion", "estimator": "grpo", "kernel": "flow_sde"},
    {"estimator": "pcpo"},
    {"resolution": 128},
]
FILES = [
    {"prompts": "/etc/passwd"},
    {"heldout_prompts": "/etc/passwd"},
    {"heldout_prompts": "../outside.txt"},
    {"model": "/somewhere/a/pipeline"},
]


@pytest.fixture
def idle(store, monkeypatch):
    """A supervisor that starts nothing, on a machine where own code and endpoints are refused."""
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    monkeypatch.setenv("RSM_ALLOW_OWN_CODE", "0")
    supervisor = Supervisor(store, Limits(free_mb=0))
    monkeypatch.setattr(supervisor, "tick", lambda: None)
    yield supervisor
    supervisor.close()


def settled(store, changes, state):
    """A run of the app that has ended and whose settings are not what the app would have taken."""
    run = finished_run(store, 0)
    settings = json.loads(run.folder.config.read_text()) | changes
    run.folder.config.write_text(json.dumps(settings))
    status = json.loads(run.folder.status_file.read_text()) | {"state": state}
    run.folder.status_file.write_text(json.dumps(status))
    return run


@pytest.mark.parametrize("crafted", CRAFTED + FILES + UNFIT)
def test_a_new_run_is_refused(idle, store, crafted):
    with pytest.raises(InputError):
        idle.submit(dataclasses.replace(small_config(), **crafted))
    assert store.runs() == []


@pytest.mark.parametrize("crafted", CRAFTED + FILES + UNFIT)
def test_a_run_that_is_there_gets_no_worker_for_it_either(idle, store, crafted):
    run = settled(store, crafted, "stopped")
    for again in (lambda: idle.extend(run.id, 120), lambda: idle.resume(run.id)):
        with pytest.raises(InputError):
            again()
    assert run.job().ticket == 0 and run.status().state == "stopped"


@pytest.mark.parametrize("crafted", CRAFTED[:3])
def test_the_engine_itself_refuses_an_endpoint_where_the_app_does(idle, store, crafted):
    run = settled(store, crafted, "stopped")
    with pytest.raises(InputError, match="not an endpoint of your own"):
        reopen(run.path)


def test_prompts_that_came_with_the_run_are_its_own(idle, store):
    run = settled(store, {}, "stopped")
    run.prompts.write_text("a red circle\n")
    settings = json.loads(run.folder.config.read_text())
    run.folder.config.write_text(json.dumps(settings | {"prompts": str(run.prompts)}))
    idle.resume(run.id)
    assert run.status().state == "queued"


def test_a_run_of_a_shell_may_name_files_and_one_of_a_repository_may_not(idle, store, tmp_path):
    prompts = tmp_path / "mine.txt"
    prompts.write_text("a red circle\n")
    run = settled(store, {"prompts": str(prompts)}, "stopped")
    run.request.unlink()
    run.job_file.unlink()
    (run.path / ORIGIN).write_text("{}")
    with pytest.raises(InputError, match="'prompts' must be a built-in set"):
        idle.resume(run.id)
    (run.path / ORIGIN).unlink()
    idle.resume(run.id)
    assert run.status().state == "queued"
