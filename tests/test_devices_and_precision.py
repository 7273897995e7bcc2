"""Where several processes work and in which precision, told without a GPU at hand."""

import pytest
import torch
from torch import distributed

from trainers.config import RunConfig
from trainers.errors import InputError
from trainers.machine import choose_device, choose_dtype, peak_memory_mb
from trainers.models.loading import precision
from trainers.ranks import Ranks


def test_emulated_bfloat16_is_not_taken_for_the_real_one(monkeypatch):
    """A GPU of 2018, as torch describes it."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert choose_dtype(RunConfig(), "cuda:0") == precision("cuda:0") == torch.float16


def test_one_gpu_for_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(InputError, match="names one GPU, cuda:1, but the run has 2 processes"):
        choose_device(RunConfig(device="cuda:1"))
    assert choose_device(RunConfig(device="cpu")) == "cpu"


def test_gradients_travel_over_what_can_carry_them(monkeypatch):
    """The launcher's own group is of the GPUs wherever there are some; the run may be told to use the CPU."""
    groups = []
    monkeypatch.setattr(distributed, "all_reduce", lambda values, group: groups.append(group))
    ranks = Ranks(0, 2, group="for main memory")
    for device in ("cpu", "meta"):
        parameter = torch.nn.Parameter(torch.ones(2, device=device))
        parameter.grad = torch.ones(2, device=device)
        ranks.sum_gradients([parameter])
    assert groups == ["for main memory", None]


def test_memory_is_that_of_the_device_in_use(monkeypatch):
    used = {"cuda:0": 1.0, "cuda:1": 5.0}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: used[str(device)] * 2**20)
    assert peak_memory_mb(torch.device("cuda:1")) == 5.0
    assert peak_memory_mb(torch.device("cpu")) > 50.0
