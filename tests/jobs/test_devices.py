"""Which devices a machine has for runs, one GPU or several each, and what a worker is started with."""

import json

import pytest

from rsm_app.jobs import devices as devices_module
from rsm_app.jobs import launching, workers
from rsm_app.jobs.devices import VISIBLE, devices, processes, usable, visibility
from rsm_app.jobs.launching import launch
from tests.jobs.small_runs import small_config
from trainers.errors import InputError


@pytest.fixture
def four_gpus(monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cuda:0,cuda:1,cuda:2,cuda:3,cpu")
    monkeypatch.delenv(VISIBLE, raising=False)
    return monkeypatch


def test_a_run_has_every_gpu_unless_visitors_share_them(four_gpus):
    four_gpus.delenv("RSM_GPUS_PER_RUN", raising=False)
    four_gpus.delenv("SPACE_ID", raising=False)
    assert devices() == ("cuda:0+1+2+3", "cpu")
    four_gpus.setenv("SPACE_ID", "somebody/studio")
    assert devices() == ("cuda:0", "cuda:1", "cuda:2", "cuda:3", "cpu")
    four_gpus.setenv("RSM_GPUS_PER_RUN", "4")
    assert devices() == ("cuda:0+1+2+3", "cpu")


def test_a_run_has_as_many_gpus_as_are_asked_for(four_gpus):
    four_gpus.setenv("RSM_GPUS_PER_RUN", "1")
    assert devices() == ("cuda:0", "cuda:1", "cuda:2", "cuda:3", "cpu")
    four_gpus.setenv("RSM_GPUS_PER_RUN", "2")
    assert devices() == ("cuda:0+1", "cuda:2+3", "cpu")
    four_gpus.setenv("RSM_GPUS_PER_RUN", "3")
    assert devices() == ("cuda:0+1+2", "cuda:3", "cpu")
    four_gpus.setenv("RSM_DEVICES", "cpu")
    assert devices() == ("cpu",)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_gpus_is_refused(four_gpus, text):
    four_gpus.setenv("RSM_GPUS_PER_RUN", text)
    with pytest.raises(InputError, match="RSM_GPUS_PER_RUN must be auto or a whole number"):
        devices()


def test_a_worker_sees_the_gpus_of_its_device(four_gpus):
    assert visibility("auto", "cuda:2+3") == {VISIBLE: "2,3"}
    four_gpus.setenv(VISIBLE, "4,5,6,7")
    assert visibility("cuda", "cuda:2+3") == {VISIBLE: "6,7"}
    assert visibility("auto", "cpu") == visibility("cuda:1", "cuda:0+1") == {}


def test_a_run_that_names_a_gpu_gets_the_device_that_has_it():
    present = ("cuda:0+1", "cuda:12", "cpu")
    assert usable("auto", present) == usable("cuda", present) == ("cuda:0+1", "cuda:12")
    assert usable("cuda:1", present) == ("cuda:0+1",)
    assert usable("cuda:2", present) == ()
    assert usable("cpu", present) == ("cpu",)


@pytest.mark.parametrize("settings", [{}, {"prompts_per_update": "many"}, {"prompts_per_update": None}])
def test_settings_that_cannot_be_right_are_left_to_the_worker_to_refuse(settings, store, monkeypatch):
    run = store.create()
    run.request.write_text(json.dumps(settings))
    started = []
    monkeypatch.setattr(workers, "_start", lambda run, words, environment: started.append(words) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        launch(run, 1, "cuda:0+1")
    assert started[0][1:3] == ["trainers", "train"]


@pytest.mark.parametrize(
    ("asked", "device", "prompts", "count"),
    [
        ("auto", "cuda:0+1+2+3", 24, 4),
        ("auto", "cuda:0+1+2+3", 6, 3),
        ("auto", "cuda:0+1+2+3", 7, 1),
        ("cuda:1", "cuda:0+1", 24, 1),
        ("auto", "cuda:3", 24, 1),
        ("auto", "cpu", 24, 1),
    ],
)
def test_as_many_processes_as_can_share_a_rollout_evenly(asked, device, prompts, count):
    assert processes(asked, device, prompts, "sd35-medium") == count
    assert processes(asked, device, prompts, "tiny-flow") == 1


def test_a_worker_with_several_gpus_is_started_by_accelerate(store, supervise, four_gpus):
    """Everything but the processes themselves, which tests/e2e/test_two_processes.py starts for real."""
    four_gpus.setenv("RSM_GPUS_PER_RUN", "2")
    started = []

    def start(run, words, environment):
        started.append((words, environment[VISIBLE]))
        raise InputError("No process is needed.")

    four_gpus.setattr(workers, "_start", start)
    four_gpus.setattr(devices_module, "EMBEDDED", ())  # as if it were a large model
    supervisor = supervise()
    supervisor.submit(small_config())
    (words, visible), *_ = started
    assert visible == "0,1"
    launched, ours = words[: words.index("trainers")], words[words.index("trainers") :]
    assert launched[:2] == ["-m", "accelerate.commands.launch"] and launched[-1] == "-m"
    assert launched[launched.index("--num_processes") + 1] == "2"
    assert ours[1:3] == ["train", "--config"]


def test_this_process_makes_room_before_it_starts_a_worker(store, monkeypatch):
    run, done = store.create(), []
    run.request.write_text(small_config().to_json())
    monkeypatch.setattr(launching, "_make_room", [])
    monkeypatch.setattr(workers, "launch", lambda *_: done.append("worker"))

    def make_room():
        done.append("room")

    for _ in range(2):  # an app that is built twice asks twice
        launching.before_launching(make_room)
    launching.launch(run, 1, "cpu")
    assert done == ["room", "worker"]
