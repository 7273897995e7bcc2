"""A run of the app begins from a run of the same directory that its owner may see, and from nothing else."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from rsm_app.jobs.beginnings import resolved_start
from tests.faults.many_runs import finished_run
from tests.jobs.small_runs import small_config
from trainers.adapter_file import WEIGHTS
from trainers.errors import InputError


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


def test_another_rank_is_refused_before_anything_starts(store, begun):
    config = dataclasses.replace(from_(begun.id), lora_rank=8)
    with pytest.raises(InputError, match="rank 16"):
        resolved_start(store, config, "ann")
