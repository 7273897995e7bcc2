"""A run under ``accelerate launch``: two real processes, gloo between them, one run folder."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import psutil
from safetensors.torch import load_file

from tests.e2e.shell import ROOT, command, environment, settings, trainers
from tests.faults.sessions import ADAPTER, session, tiny_config
from tests.jobs.small_runs import gone
from tests.rewards.servers import in_json, serving
from trainers.launch import launcher
from trainers.opening import reopen
from trainers.run_folder import RunFolder
from trainers.session import Session

LAUNCH = [sys.executable, *launcher(2)]
SMALL = {"eval_prompts": 4, "eval_batch": 4, "prompts_per_update": 4, "learning_rate": 1e-4, "micro_batch": 8}
ENDLESS = {"max_updates": 0, "budget_seconds": 3600}


@contextlib.contextmanager
def two_processes(path, estimator="rsm_zeroth_order_flow", reward="brightness", more=(), **changes):
    """Start a run in two processes; end what is left of it afterwards."""
    words = ["--estimator", estimator, "--reward", reward, "--out", str(path), *more]
    with open(f"{path}.txt", "w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            [*LAUNCH, *command("train", *words, *settings(**SMALL | changes))[2:]],
            cwd=ROOT,
            env=environment(OMP_NUM_THREADS="1"),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        family = psutil.Process(process.pid)
        try:
            yield process, RunFolder(path)
        finally:
            with contextlib.suppress(psutil.Error):
                for member in [*family.children(recursive=True), family]:
                    member.kill()
            process.wait(30)


def said(path):
    return Path(f"{path}.txt").read_text(encoding="utf-8")[-3000:]


def wait_for(condition, process, path, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < end, said(path)
        time.sleep(0.05)


def workers(process):
    """The two processes of a run, in the order of their ranks."""
    children = psutil.Process(process.pid).children(recursive=True)
    ranks = {int(child.environ().get("RANK", -1)): child for child in children}
    return [ranks[0], ranks[1]]


def apart(one, other):
    mine, theirs = load_file(one / ADAPTER), load_file(other / ADAPTER)
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def moved(path):
    return max(float(t.abs().max()) for name, t in load_file(path / ADAPTER).items() if "lora_B" in name)


def test_two_processes_equal_one_and_a_run_goes_on_with_another_number_of_them(tmp_path):
    with two_processes(tmp_path / "two", max_updates=3) as (process, folder):
        code = process.wait(150)
        assert code == 0, said(folder.path)
    session(tmp_path / "one", tiny_config(**SMALL | {"max_updates": 3})).run()
    assert apart(tmp_path / "one", tmp_path / "two") <= 1e-5 < moved(tmp_path / "one")
    assert folder.status().state == "succeeded" and folder.status().updates == 3
    lines = [RunFolder(tmp_path / name).read_metrics() for name in ("one", "two")]
    assert [line["images_sampled"] for line in lines[0]] == [line["images_sampled"] for line in lines[1]]
    assert folder.read_report()["network_evaluations"] > 0
    files = [{path.name for path in (tmp_path / name).iterdir()} - {".lock"} for name in ("one", "two")]
    assert files[0] == files[1], "the second process writes nothing"
    for name in ("one", "two"):
        Session(*reopen(tmp_path / name, {"max_updates": 4}), age=0.0).run()
    assert apart(tmp_path / "one", tmp_path / "two") <= 1e-5


def test_every_process_scores_with_the_settings_of_the_run(tmp_path):
    with serving(in_json) as server:
        asked = {"server_url": server.address, "server_protocol": "json", "max_updates": 1}
        with two_processes(tmp_path / "two", reward="server", **asked) as (process, folder):
            assert process.wait(150) == 0, said(folder.path)
    assert folder.status().state == "succeeded" and folder.status().updates == 1


def test_a_stopped_run_of_two_processes_ends_with_its_results(tmp_path):
    with two_processes(tmp_path / "two", "rsm_first_order_flow", **ENDLESS) as (process, folder):
        wait_for(lambda: len(folder.read_metrics()) >= 3, process, folder.path)
        folder.request_stop()
        assert process.wait(60) == 0
    assert folder.status().state == "stopped" and folder.read_report()["paired"]["n"] > 0
    updates = folder.status().updates
    config = tiny_config("rsm_first_order_flow", **SMALL | {"max_updates": updates})
    session(tmp_path / "one", config).run()
    assert apart(tmp_path / "one", tmp_path / "two") <= 1e-5 < moved(tmp_path / "one")


def test_a_dead_process_ends_the_run_with_a_sentence(tmp_path):
    """Also when the launcher's SIGTERM comes before the first process meets the broken connection."""
    with two_processes(tmp_path / "two", **ENDLESS) as (process, folder):
        wait_for(lambda: len(folder.read_metrics()) >= 2, process, folder.path)
        first, second = workers(process)
        first.suspend()
        second.kill()
        first.terminate()
        first.resume()
        assert process.wait(60) != 0
        assert gone(first)
    status = folder.status()
    assert status.state == "failed" and "Another process of this run ended" in status.error
    updates = len(folder.read_metrics())
    assert updates >= 2 and list(folder.checkpoints.glob("*.safetensors"))
    resumed = Session(*reopen(folder.path, {"max_updates": updates + 1}), age=0.0).run()
    assert resumed.state == "succeeded" and resumed.updates == updates + 1


def test_two_processes_begin_with_the_same_lora(tmp_path):
    """With a large rate the LoRA that is begun from matters, whichever process does not know it."""
    fast = SMALL | {"learning_rate": 0.02}
    session(tmp_path / "first", tiny_config(**fast | {"max_updates": 2})).run()
    source, more = ("--from-adapter", str(tmp_path / "first")), {"max_updates": 1, "learning_rate": 1e-4}
    with two_processes(tmp_path / "two", more=source, **more) as (process, folder):
        code = process.wait(150)
        assert code == 0, said(folder.path)
    words = ["--estimator", "rsm_zeroth_order_flow", "--reward", "brightness", *source]
    done = trainers("train", *words, "--out", str(tmp_path / "one"), *settings(**SMALL | more))
    assert done.returncode == 0, done.stderr
    assert apart(tmp_path / "one", tmp_path / "two") <= 1e-5
    assert apart(tmp_path / "first", tmp_path / "two") > 5e-5, "the update moved it"
