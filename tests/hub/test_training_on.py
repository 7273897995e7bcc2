"""A run that came from the Hub is trained on in the app: "Train 2 minutes more" of the page, only shorter."""

import pytest
import torch
from safetensors.torch import load_file

from rsm_app.hub.fetching import fetch
from rsm_app.hub.push import Push
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from tests.e2e.shell import read
from tests.hub.conftest import REPO
from tests.jobs.small_runs import end_workers, ended, wait_for
from trainers.adapter_file import WEIGHTS
from trainers.errors import InputError

MORE = 5.0


@pytest.fixture
def supervisor(tmp_path, monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    made = Supervisor(RunStore(tmp_path / "app" / "runs"), Limits(free_mb=1, run_seconds=300))
    made.keep_running()
    yield made
    made.close()
    end_workers(made.store)


def test_an_imported_run_is_trained_on_and_ends_with_another_adapter(hub, run, writer, supervisor):
    Push(run, REPO, writer, endpoint=hub.url).run()
    brought = supervisor.adopt(lambda path: fetch(REPO, None, path, hub.url, owner="ann"))
    imported, pairs = load_file(brought.folder.adapter / WEIGHTS), brought.folder.read_pairs()
    report = read(run / "report.json")
    with pytest.raises(InputError, match="may take 300 seconds"):
        supervisor.extend(brought.id, 301)
    supervisor.extend(brought.id, MORE)
    assert brought.job().limits == {
        "budget_seconds": pytest.approx(report["wall_seconds"] - report["train_seconds"] + MORE, abs=0.01),
        "max_updates": 0,
    }, "the time that the run took elsewhere is not spent here once more"
    wait_for(ended(brought), what="the end of more training")
    status = brought.status()
    assert status.state == "succeeded", status.error
    assert brought.folder.read_report()["updates"] >= 1
    trained, began = (load_file(place / WEIGHTS) for place in (brought.folder.adapter, brought.folder.start))
    assert all(torch.equal(imported[name], began[name]) for name in imported)
    assert trained.keys() == imported.keys()
    assert any(not torch.equal(imported[name], trained[name]) for name in imported)
    drawn = {(pair["prompt"], pair["seed"]): pair for pair in brought.folder.read_pairs()}
    assert len(drawn) == 24 and len(pairs) == 12
    for pair in pairs:  # "before" is the base model's picture of this very prompt and seed
        again = drawn[pair["prompt"], pair["seed"]]
        assert again["reward_before"] == pytest.approx(pair["reward_before"], abs=2e-3)
    assert any(drawn[p["prompt"], p["seed"]]["reward_after"] != p["reward_after"] for p in pairs)
