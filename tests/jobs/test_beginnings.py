"""A run of the app begins from a run of the same directory that its owner may see, and from nothing else."""

import contextlib
import dataclasses
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from rsm_app.jobs.beginnings import resolved_start
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.records import Worker
from rsm_app.jobs.supervisor import Supervisor
from tests.faults.many_runs import finished_run
from tests.jobs.small_runs import small_config
from trainers.adapter_file import WEIGHTS
from trainers.coercion import from_mapping
from trainers.errors import InputError
from trainers.opening import start
from trainers.processes import process_identity
from trainers.run_folder import read_json


@pytest.fixture
def begun(store):
    """A finished run with an adapter of rank 16 and alpha 32 for one layer of tiny-flow."""
    run = finished_run(store, 0)
    run.folder.adapter.mkdir(exist_ok=True)
    name = "transformer.transformer_blocks.0.attn.to_q"
    tensors = {f"{name}.lora_A.weight": torch.zeros(16, 192), f"{name}.lora_B.weight": torch.zeros(192, 16)}
    metadata = {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 32.0})}
    save_file(tensors, run.folder.adapter / WEIGHTS, metadata)
    run.change_job(owner="ann", shared=False)
    return run


def from_(place):
    return dataclasses.replace(small_config(), start_adapter=str(place))


def test_an_owner_begins_from_an_own_run_by_id_or_folder(store, begun):
    for place in (begun.id, begun.path):
        assert resolved_start(store, from_(place), "ann").start_adapter == str(begun.path)


def test_nothing_asked_nothing_changed(store):
    config = small_config()
    assert resolved_start(store, config, "ann") is config


def test_a_run_of_somebody_else_is_not_there_until_it_is_shared(store, begun):
    with pytest.raises(InputError, match="run of yours"):
        resolved_start(store, from_(begun.id), "bob")
    begun.change_job(shared=True)
    assert resolved_start(store, from_(begun.id), "bob").start_adapter


def test_no_other_path_of_the_machine_is_read(store, begun, tmp_path):
    elsewhere = shutil.copytree(begun.path, tmp_path / "elsewhere" / begun.id)
    for place in (elsewhere, "/etc", "..", f"{begun.path}/../{begun.id}", "nothing"):
        with pytest.raises(InputError):
            resolved_start(store, from_(place), "ann")


def test_a_waiting_run_begins_from_what_it_asked_for_even_if_that_is_deleted_meanwhile(
    store, begun, monkeypatch
):
    monkeypatch.setenv("RSM_DEVICES", "cpu,cuda:0")
    weights = (begun.folder.adapter / WEIGHTS).read_bytes()
    supervisor = Supervisor(store, Limits(free_mb=0))
    with hold_device(store):
        run = supervisor.submit(dataclasses.replace(from_(begun.id), device="cuda:0"), owner="ann")
        assert run.status().state == "queued"
        supervisor.delete(begun.id)
    assert not begun.path.exists()
    folder = start(run.path, from_mapping(read_json(run.request)))
    assert (folder.start / WEIGHTS).read_bytes() == weights
    supervisor.close()


@contextlib.contextmanager
def hold_device(store):
    """Let this process be a run's worker on the GPU."""
    run, pid = finished_run(store, 1), os.getpid()
    worker = Worker(ticket=1, device="cuda:0", pid=pid, pid_identity=process_identity(pid))
    run.write_worker(worker)
    yield
    run.write_worker(dataclasses.replace(worker, exit_code=0))


def test_another_rank_is_refused_before_anything_starts(store, begun):
    config = dataclasses.replace(from_(begun.id), lora_rank=8)
    with pytest.raises(InputError, match="rank 16"):
        resolved_start(store, config, "ann")
