"""A LoRA from the Hub becomes a run again; what is not sound is refused before anything of it is used."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from rsm_app.hub.bundle import bundle
from rsm_app.hub.fetching import fetch
from rsm_app.hub.problems import HubProblem
from rsm_app.hub.push import Push
from rsm_app.jobs import cleaning
from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import RunStore
from tests.e2e.shell import ROOT, lines, read, settings, trainers
from tests.hub.conftest import REPO, WRITER, environment
from tests.jobs.small_runs import wait_for
from trainers.adapter_file import WEIGHTS
from trainers.coercion import from_mapping
from trainers.errors import FaultError, InputError
from trainers.playground import Playground
from trainers.prompts import prompt_records
from trainers.rewards.remote import ENDPOINTS
from trainers.run_folder import RunFolder, write_json
from trainers.wish import Wish


@pytest.fixture
def published(hub, run, writer):
    Push(run, REPO, writer, endpoint=hub.url).run()
    return hub


def replace(hub, **files):
    """Commit other contents; the keys' double underscores stand for dots."""
    repo = hub.store.repos[REPO]
    now = dict(repo["commits"][-1]["files"])
    for name, content in files.items():
        now[name.replace("__", ".")] = hub.store.keep(content)
    hub.store.commit(repo, now, "by hand")


def test_a_published_run_comes_back_as_a_run(published, run, tmp_path):
    path = fetch(REPO, None, tmp_path / "back" / "one", published.url)
    folder = RunFolder(path)
    assert folder.status().state == "succeeded" and REPO in folder.status().message
    assert (folder.adapter / WEIGHTS).read_bytes() == (run / "adapter" / WEIGHTS).read_bytes()
    assert folder.read_report() == read(run / "report.json")
    assert len(folder.read_metrics()) == 2
    first, mine = folder.read_pairs()[0], lines(run / "samples" / "pairs.jsonl")[0]
    assert (path / first["after"]).read_bytes() == (run / mine["after"]).read_bytes()
    assert len(folder.read_pairs()) == 12
    assert read(path / "imported.json")["commit"] == published.store.repos[REPO]["commits"][-1]["oid"]
    assert (path / "prompts.txt").is_file() and folder.read_config()["prompts"] == str(path / "prompts.txt")
    assert [p.name for p in (tmp_path / "back").iterdir()] == ["one"], "no half-made folder is left"


def test_the_app_sees_it_and_its_playground_draws_its_pictures(published, run, tmp_path, monkeypatch):
    monkeypatch.setenv("RSM_RUNS_DIR", str(tmp_path / "mine"))
    path = fetch(f"{published.url}/{REPO}", None, endpoint=published.url, owner="ann")
    seen = RunStore(tmp_path / "mine").run(path.name)
    assert seen.job().owner == "ann"
    assert seen is not None and seen.status().state == "succeeded"
    pair = seen.folder.read_pairs()[0]
    drawn = Playground().draw(path, Wish(pair["prompt"], pair["seed"], 12, 1.0, 1.0))
    from trainers.pictures import read_pictures

    stored = read_pictures(RunFolder(path), [pair["after"]])[0]
    assert (drawn.after.int() - stored.int()).abs().max() <= 1
    assert not torch.equal(drawn.after, drawn.before)


def test_training_goes_on_from_it(published, run, tmp_path):
    path = fetch(REPO, None, tmp_path / "back", published.url)
    out = tmp_path / "more"
    words = ["train", "--reward", "brightness", "--budget-seconds", "600", "--from-adapter", str(path)]
    quick = settings(max_updates=1, learning_rate=1e-8, eval_prompts=2, kl_weight=0.0)
    done = trainers(*words, *quick, "--out", str(out))
    assert done.returncode == 0, done.stderr
    folder = RunFolder(out)
    assert folder.read_config()["lora_rank"] == 16 and folder.read_config()["start_adapter"] == str(path)
    old, new = (load_file(place / "adapter" / WEIGHTS) for place in (path, out))
    assert old.keys() == new.keys() and all(torch.allclose(old[n], new[n], atol=1e-6) for n in old)
    from trainers.pictures import read_pictures

    mine = {(p["prompt"], p["seed"]): p for p in lines(run / "samples" / "pairs.jsonl")}
    for pair in folder.read_pairs():
        same = mine[pair["prompt"], pair["seed"]]
        first = read_pictures(folder, [pair["after"]])[0].int()
        theirs = read_pictures(RunFolder(run), [same["after"]])[0].int()
        assert (first - theirs).abs().max() <= 1


def test_a_fetched_run_that_gets_more_time_goes_on_from_its_lora(published, tmp_path):
    path = fetch(REPO, None, tmp_path / "back", published.url)
    before = load_file(path / "adapter" / WEIGHTS)
    config = read(path / "config.json") | {"learning_rate": 1e-8, "eval_prompts": 2, "max_updates": 1}
    (path / "config.json").write_text(json.dumps(config))
    done = trainers("resume", str(path), "--budget-seconds", "700")
    assert done.returncode == 0, done.stderr
    after = load_file(path / "adapter" / WEIGHTS)
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def test_a_revision_is_kept(published, tmp_path):
    old = published.store.repos[REPO]["commits"][-1]["oid"]
    replace(published, report__json=b"{}")
    path = fetch(f"{REPO}@{old}", None, tmp_path / "old", published.url)
    assert read(path / "imported.json")["commit"] == old
    with pytest.raises(InputError, match="report"):
        fetch(REPO, None, tmp_path / "new", published.url)


def other_shapes(run):
    tensors = load_file(run / "adapter" / WEIGHTS)
    name = next(name for name in tensors if name.endswith("lora_B.weight"))
    return save({**tensors, name: torch.zeros(tensors[name].shape[0] + 1, tensors[name].shape[1])})


def other_modules(run):
    tensors = load_file(run / "adapter" / WEIGHTS)
    return save(
        {name.replace("transformer_blocks.0", "transformer_blocks.9"): t for name, t in tensors.items()}
    )


def report_with(**changes):
    return lambda run: json.dumps(read(run / "report.json") | changes).encode()


def endless_alpha(run):
    metadata = json.dumps({"transformer.lora_alpha": 10**400})
    tensors = load_file(run / "adapter" / WEIGHTS)
    return save(tensors, {"lora_adapter_metadata": metadata})


DAMAGES = [
    ("config__json", lambda run: b"not json", "damaged"),
    ("config__json", lambda run: b'{"model": "somebody/else"}', "not known here"),
    ("config__json", lambda run: b'{"model": "tiny-flow", "spell": 1}', "version"),
    ("config__json", lambda run: b'{"model": "tiny-diffusion"}', "not the report"),
    ("config__json", lambda run: b"[" * 100_000, "damaged"),
    ("report__json", lambda run: b'{"paired": {"z": NaN}}', "damaged"),
    ("report__json", lambda run: b'{"model": "tiny-flow"}', "not the report"),
    ("config__json", lambda run: b'{"seed": 1%s}' % (b"0" * 400), "damaged"),
    ("report__json", report_with(drift=10**400), "damaged"),
    ("report__json", report_with(updates="abc"), "where numbers belong"),
    ("report__json", report_with(updates=-1), "where numbers belong"),
    ("report__json", report_with(images_sampled=0.5), "where numbers belong"),
    ("report__json", report_with(wall_seconds="long"), "where numbers belong"),
    ("report__json", report_with(train_seconds=None), "where numbers belong"),
    ("report__json", report_with(sampling={"x).images\n```\n": 1}), "where numbers belong"),
    ("report__json", report_with(sampling={"height": [1]}), "where numbers belong"),
    (WEIGHTS.replace(".", "__"), endless_alpha, "another rank or alpha"),
    ("images/pairs__jsonl", lambda run: b"[" * 100_000, "no pair"),
    (WEIGHTS.replace(".", "__"), lambda run: b"\x80\x04pickle", "not a whole safetensors"),
    (WEIGHTS.replace(".", "__"), lambda run: (run / "adapter" / WEIGHTS).read_bytes()[:-9], "not a whole"),
    (WEIGHTS.replace(".", "__"), other_shapes, "do not fit"),
    (WEIGHTS.replace(".", "__"), other_modules, "does not have"),
    ("images/pairs__jsonl", lambda run: b'{"before": "../../etc/passwd", "after": "/etc/passwd"}', "no pair"),
    ("images/01-after__png", lambda run: b"GIF89a", "not a whole PNG"),
]


@pytest.mark.parametrize(("name", "content", "sentence"), DAMAGES)
def test_what_is_not_sound_is_refused_and_leaves_nothing(published, run, tmp_path, name, content, sentence):
    replace(published, **{name: content(run)})
    with pytest.raises(InputError, match=sentence):
        fetch(REPO, None, tmp_path / "new" / "run", published.url)
    assert list((tmp_path / "new").iterdir()) == []


def test_lines_of_metrics_that_are_not_sound_are_left_out(published, tmp_path):
    odd = b'{"step": 1%s}\n%s\n{"step": 1, "kl": 1%s}\n' % (b"0" * 400, b"[" * 100_000, b"0" * 400)
    replace(published, metrics__jsonl=odd)
    assert RunFolder(fetch(REPO, None, tmp_path / "a", published.url)).read_metrics() == [{"step": 1}]


def test_a_lora_from_the_hub_that_was_trained_on_tells_how_to_get_it(published, tmp_path):
    """Both ways: a run that was begun from it, and the imported run itself that is given more time."""
    commit = published.store.repos[REPO]["commits"][-1]["oid"]
    path = fetch(REPO, None, tmp_path / "back", published.url)
    again = f"python -m rsm_app.hub fetch {REPO}@{commit} --out runs/start\npython -m trainers train"
    assert again not in bundle(path, "ann/more").card and ", unchanged." in bundle(path, "ann/more").card
    begun = shutil.copytree(path, tmp_path / "begun")
    (begun / "imported.json").unlink()
    write_json(begun / "config.json", read(begun / "config.json") | {"start_adapter": str(path)})
    card = bundle(begun, "ann/more").card
    assert again in card and "--from-adapter runs/start\n```" in card and "start_adapter" not in card
    (path / "checkpoints").mkdir()
    (path / "checkpoints" / "state.safetensors").write_bytes(b"")
    assert again in bundle(path, "ann/more").card and "trained on since" in bundle(path, "ann/more").card
    card = bundle(begun, "ann/more").card
    assert "fetch" not in card and "from another LoRA, which is no part of this repository" in card


def test_a_run_s_own_prompts_in_json_lines_are_read_again(hub, run, writer, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a red circle", "n": 1}\n')
    write_json(run / "config.json", read(run / "config.json") | {"prompts": "~/mine.jsonl"})
    RunFolder(run).inputs_record.unlink()  # as of a run that kept no copy of its prompts
    Push(run, REPO, writer, endpoint=hub.url).run()
    path = fetch(REPO, None, tmp_path / "back", hub.url)
    config = from_mapping(read(path / "config.json"))
    assert config.prompts == str(path / "prompts.jsonl")
    assert prompt_records(config)["a red circle"]["n"] == 1


def test_pickles_and_strangers_repositories_are_not_fetched(published, tmp_path):
    repo = published.store.repos[REPO]
    weights = published.store.keep(b"\x80\x04cos\nsystem\n")
    published.store.commit(repo, {"pytorch_lora_weights.bin": weights}, "pickle")
    with pytest.raises(InputError, match="pickle"):
        fetch(REPO, None, tmp_path / "a", published.url)
    published.store.commit(repo, {"README.md": weights}, "nothing")
    with pytest.raises(InputError, match="no LoRA made with RSM Studio"):
        fetch(REPO, None, tmp_path / "a", published.url)
    assert not [line for line in published.lines() if "resolve" in line]


def test_too_large_files_are_not_fetched_whole(published, tmp_path):
    replace(published, report__json=b" " * (2**20 + 1))
    with pytest.raises(InputError, match="larger than 1 MB"):
        fetch(REPO, None, tmp_path / "a", published.url)


def test_more_than_may_be_brought_is_refused_before_a_file_is_asked_for(published, tmp_path, monkeypatch):
    total = sum(len(content) for name, content in published.files(REPO).items() if name != "README.md")
    small = Limits(import_mb=total / 2**20 / 2, free_mb=0)
    with pytest.raises(InputError, match="more than the .* MB that may be brought here"):
        fetch(REPO, None, tmp_path / "new" / "a", published.url, limits=small)
    with monkeypatch.context() as changed, pytest.raises(InputError, match="RSM_MAX_IMPORT_MB"):
        changed.setenv("RSM_MAX_IMPORT_MB", "0.1")
        fetch(REPO, None, tmp_path / "new" / "a", published.url)
    crowded = Limits(free_mb=1e12)
    with pytest.raises(FaultError, match="MB left, this needs"):
        fetch(REPO, None, tmp_path / "new" / "a", published.url, limits=crowded)
    assert not [line for line in published.lines() if "resolve" in line]
    assert list((tmp_path / "new").iterdir()) == []
    assert fetch(REPO, None, tmp_path / "b", published.url, limits=Limits(import_mb=0, free_mb=0)).is_dir()


def test_a_file_larger_than_it_is_listed_is_refused(published, tmp_path):
    """A Hub that told small sizes could otherwise fill the disk."""
    entry = published.store.repos[REPO]["commits"][-1]["files"][WEIGHTS]
    entry["size"] = 1000
    with pytest.raises(InputError, match="larger than it is listed"):
        fetch(REPO, None, tmp_path / "new" / "a", published.url)
    assert list((tmp_path / "new").iterdir()) == []


def test_what_a_killed_import_left_is_swept_and_what_is_at_work_stays(published, tmp_path):
    place = tmp_path / "app"
    published.fail({"match": "GET .*/resolve/", "delay": 30})
    bringer = subprocess.Popen(
        [sys.executable, "-m", "rsm_app.hub", "fetch", REPO, "--out", str(place / "one")],
        cwd=ROOT,
        env=environment(published, tmp_path / "home"),
        stderr=subprocess.DEVNULL,
    )
    try:
        (files,) = wait_for(lambda: list(place.glob(".fetch-*/files")), 60, "a file that is being fetched")
        left = files.parent
        long_ago(left)
        cleaning.empty_trash(RunStore(place))
        assert left.is_dir(), "its bringer lives"
    finally:
        bringer.kill()
        bringer.wait()
    assert left.is_dir()
    newer = place / ".fetch-newer"
    newer.mkdir()
    cleaning.empty_trash(RunStore(place))
    assert [path.name for path in place.glob(".fetch-*")] == [newer.name]
    long_ago(newer)
    with pytest.raises(InputError):
        fetch(REPO, None, place / "two", published.url, limits=Limits(import_mb=0.001))
    assert list(place.iterdir()) == [], "the next import sweeps as well"


def long_ago(path):
    os.utime(path, (0, 0))


def test_no_file_of_this_machine_is_read_for_a_stranger(published, run, tmp_path):
    stolen = read(run / "config.json") | {"prompts": "/etc/passwd", "heldout_prompts": "/etc/hosts"}
    stolen |= {"start_adapter": "/etc", "device": "cuda:7", "threads": 64}
    replace(published, config__json=json.dumps(stolen).encode())
    config = RunFolder(fetch(REPO, None, tmp_path / "a", published.url)).read_config()
    assert (config["prompts"], config["heldout_prompts"]) == ("shapes-train", "shapes-heldout")
    assert (config["start_adapter"], config["device"], config["threads"]) == ("", "auto", 0)


def test_no_endpoint_of_a_stranger_is_ever_asked(published, run, tmp_path):
    crafted = {"reward": "judge", "judge_url": "https://evil.example/v1", "judge_model": "m"}
    crafted |= {"judge_key_variable": "HF_TOKEN", "server_url": "http://10.0.0.1/", "others": "server,shapes"}
    replace(
        published,
        config__json=json.dumps(read(run / "config.json") | crafted).encode(),
        report__json=json.dumps(read(run / "report.json") | {"reward": "judge"}).encode(),
    )
    config = RunFolder(fetch(REPO, None, tmp_path / "a", published.url)).read_config()
    assert config["reward"] == "judge" and config["others"] == "server,shapes"
    assert {config[name] for name in ENDPOINTS} == {""}


@pytest.mark.parametrize(
    "crafted",
    [{"reward": "{}:score"}, {"others": "shapes:1,{}:score"}, {"reward": "nonsense"}, {"estimator": "spell"}],
)
def test_no_code_of_this_machine_runs_for_a_stranger_wherever_own_code_is_allowed(
    published, run, tmp_path, monkeypatch, crafted
):
    monkeypatch.setenv("RSM_ALLOW_OWN_CODE", "1")
    file = tmp_path / "somebody.py"
    file.write_text("def score(images, prompts): return [0.0] * len(prompts)\n")
    config = read(run / "config.json") | {key: text.format(file) for key, text in crafted.items()}
    report = read(run / "report.json") | {key: config[key] for key in ("reward", "estimator")}
    replace(published, config__json=json.dumps(config).encode(), report__json=json.dumps(report).encode())
    with pytest.raises(InputError, match="is not known here"):
        fetch(REPO, None, tmp_path / "a", published.url)


def test_private_gated_missing_and_cut(published, run, tmp_path, writer):
    with pytest.raises(HubProblem) as caught:
        fetch("ann/nothing", None, tmp_path / "a", published.url)
    assert caught.value.kind == "missing"
    published.store.repos[REPO]["gated"] = True
    with pytest.raises(HubProblem) as caught:
        fetch(REPO, None, tmp_path / "a", published.url)
    assert caught.value.kind == "gated" and "accept the conditions" in str(caught.value)
    published.store.repos[REPO] |= {"gated": False, "private": True}
    with pytest.raises(HubProblem) as caught:
        fetch(REPO, None, tmp_path / "a", published.url)
    assert caught.value.kind == "missing"
    published.fail({"match": "GET .*/resolve/.*metrics", "cut": 0})
    with pytest.raises(HubProblem) as caught:
        fetch(REPO, writer, tmp_path / "a", published.url)
    assert caught.value.kind == "cut" and not (tmp_path / "a").exists()
    published.fail()
    assert fetch(REPO, writer, tmp_path / "a", published.url).is_dir()
    with pytest.raises(InputError, match="exists already"):
        fetch(REPO, writer, tmp_path / "a", published.url)


def test_the_command_line_fetches(published, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "rsm_app.hub", "fetch", REPO, "--out", str(tmp_path / "new")],
        cwd=ROOT,
        env=environment(published, tmp_path / "home", HF_TOKEN=WRITER),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and "--from-adapter" in done.stdout, done.stderr
    assert (tmp_path / "new" / "report.json").is_file()


def test_save_file_of_the_library_is_read(tmp_path):
    """The header reader agrees with the library on what the library writes."""
    from trainers.adapter_file import read_header

    tensors = {
        "a.lora_A.weight": torch.zeros(4, 3),
        "a.lora_B.weight": torch.zeros(5, 4, dtype=torch.bfloat16),
    }
    save_file(tensors, tmp_path / "x.safetensors", {"lora_adapter_metadata": '{"t.lora_alpha": 8.0}'})
    header = read_header(tmp_path / "x.safetensors")
    assert header.shapes == {name: tuple(t.shape) for name, t in tensors.items()}
    assert (header.rank, header.alpha) == (4, 8.0)
