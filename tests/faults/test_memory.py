"""Memory that runs out in training: half the micro-batch once, the same effective batch, then a sentence."""

import pytest
import torch

from tests.faults.sessions import ADAPTER, session, tiny_config
from trainers.checkpoint import load_latest
from trainers.errors import FaultError
from trainers.run_folder import RunFolder
from trainers.session import Session

ROWS = 4


def cramped(room: int) -> type[Session]:
    """Return sessions whose training network asks for more memory than there is when over ``room`` rows pass.

    The request is a real one, of more bytes than any machine has, and so is the error.
    """

    def use_memory(_network, args, kwargs):
        rows = len(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])
        if rows > room:
            torch.empty(2**60, dtype=torch.uint8)

    class Cramped(Session):
        def _load(self):
            loaded = super()._load()
            loaded[0].policy.network.register_forward_pre_hook(use_memory, with_kwargs=True)
            return loaded

    return Cramped


def config_of(micro_batch):
    return tiny_config(micro_batch=micro_batch, prompts_per_update=ROWS, roots_per_prompt=1)


def test_memory_that_runs_out_halves_the_micro_batch_and_trains_the_same(tmp_path):
    assert session(tmp_path / "small", config_of(ROWS // 2)).run().state == "succeeded"
    run = tmp_path / "run"
    status = session(run, config_of(ROWS), kind=cramped(ROWS // 2)).run()
    assert status.state == "succeeded" and status.updates == 2
    assert load_latest(RunFolder(run)).progress.micro_batch == ROWS // 2
    assert f"micro-batch of {ROWS // 2}" in (run / "log.txt").read_text(encoding="utf-8")
    assert (run / ADAPTER).read_bytes() == (tmp_path / "small" / ADAPTER).read_bytes()


def test_memory_that_runs_out_twice_is_explained_and_the_run_can_go_on_later(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(FaultError, match="not enough memory") as failure:
        session(run, config_of(ROWS), kind=cramped(ROWS // 2 - 1)).run()
    status = RunFolder(run).status()
    assert status.state == "failed" and status.error == str(failure.value)
    assert "micro_batch" in status.error and f"halved to {ROWS // 2} once already" in status.error
    assert session(run).run().state == "succeeded"
    assert load_latest(RunFolder(run)).progress.micro_batch == ROWS // 2, "a resumed run stays careful"
