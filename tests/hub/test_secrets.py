"""A token is planted; after twenty pushes with faults it is in no file, message or command line."""

import json
import logging
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rsm_app.hub.sign_in import Token
from rsm_app.jobs.exporting import export
from rsm_app.jobs.store import RunStore
from tests.e2e.shell import ROOT
from tests.hub.conftest import environment
from trainers.run_folder import write_lines

CANARY = "hf_CANARYqWz81LmVx7Yt"
TWENTY = """
import json, sys
from pathlib import Path
from rsm_app.hub.problems import HubProblem
from rsm_app.hub.push import Push
from rsm_app.hub.push_status import read_push
from rsm_app.hub.sign_in import find_token
from tests.hub.test_secrets import RULES, rules_to
token, run, url = find_token(sys.stdin.readline()), Path(sys.argv[1]), sys.argv[2]
for number, rule in enumerate(RULES):
    rules_to(url, rule)
    try:
        print(Push(run, f"ann/canary-{number}", token, endpoint=url, listener=print).run())
    except HubProblem as problem:
        print(repr(problem), problem, problem.__cause__, read_push(run))
print("PUSHES", len(RULES), repr(token), f"{token}", flush=True)
sys.stdin.readline()
"""
_COMMIT, _BATCH, _OBJECT = "POST /api/models/.*/commit", "objects/batch", "PUT /_objects"
_ECHO = f"The token {CANARY} is wrong"
RULES = [
    None,
    {"match": "whoami", "status": 401, "message": _ECHO, "headers": {"X-Error-Message": _ECHO}},
    {"match": _COMMIT, "status": 401, "message": _ECHO, "headers": {"X-Error-Message": _ECHO}},
    {"match": "repos/create", "status": 403, "message": _ECHO},
    {"match": _COMMIT, "status": 403, "message": _ECHO, "headers": {"X-Error-Message": _ECHO}},
    {"match": "preupload", "status": 404, "code": "RepoNotFound", "message": _ECHO},
    {"match": _COMMIT, "status": 409, "message": _ECHO},
    {"match": _BATCH, "status": 429, "headers": {"Retry-After": "999"}, "message": _ECHO},
    {"match": _BATCH, "status": 500, "times": 2, "message": _ECHO},
    {"match": _COMMIT, "status": 500, "times": 1, "message": _ECHO},
    {"match": _OBJECT, "cut": 300, "times": 1},
    {"match": _COMMIT, "cut": 300, "times": 1},
    {"match": "GET /api/models", "status": 403, "code": "GatedRepo", "message": _ECHO},
    {"match": _BATCH, "status": 403, "message": f"storage limit reached {_ECHO}"},
    {"match": "validate-yaml", "status": 400, "message": _ECHO},
    {"match": "preupload", "status": 418, "message": _ECHO},
    {"match": _COMMIT, "status": 400, "message": _ECHO, "headers": {"X-Error-Message": _ECHO}},
    {"match": _BATCH, "status": 402, "message": _ECHO},
    {"match": _COMMIT, "status": 412, "message": _ECHO},
    None,
]


def rules_to(url, rule):
    import urllib.request

    body = json.dumps({"rules": [rule] if rule else []}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{url}/_faults", body, method="POST")).close()


def holders(root: Path) -> list[str]:
    """Every file below a folder that holds the canary."""
    found = []
    for path in root.rglob("*"):
        if path.is_file() and CANARY.encode() in path.read_bytes():
            found.append(str(path))
    return found


def processes(seen: set, stop: threading.Event) -> None:
    """Note every process, but this one, whose command line or environment holds the canary."""
    while not stop.is_set():
        for place in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    if place.name != str(os.getpid()) and CANARY.encode() in (place / name).read_bytes():
                        seen.add(f"{place}/{name}")
                except OSError:
                    continue
        stop.wait(0.05)


def test_twenty_pushes_with_faults_leave_no_token_anywhere(hub, run, tmp_path):
    pairs = (run / "samples" / "pairs.jsonl").read_text().splitlines()
    write_lines(run / "samples" / "pairs.jsonl", [json.loads(line) for line in pairs[:4]])
    hub.store.users[CANARY] = {"name": "ann", "role": "write", "orgs": []}
    places = {name: tmp_path / name for name in ("home", "tmp", "hub-home")}
    for place in places.values():
        place.mkdir()
    own = {"HOME": str(places["home"]), "TMPDIR": str(places["tmp"]), "RSM_RUNS_DIR": str(run.parent)}
    seen, stop = set(), threading.Event()
    watch = threading.Thread(target=processes, args=(seen, stop), daemon=True)
    watch.start()
    child = subprocess.Popen(
        [sys.executable, "-c", TWENTY, str(run), hub.url],
        cwd=ROOT,
        env=environment(hub, places["hub-home"], HF_HUB_VERBOSITY="debug", **own),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    told, _ = child.communicate(f"{CANARY}\n\n", timeout=240)
    stop.set()
    watch.join(10)
    assert f"PUSHES {len(RULES)}" in told and len(RULES) == 20, told[-2000:]
    assert told.count("Published as") == 12 and told.count("HubProblem(") == 14, told[-3000:]
    assert CANARY not in told and not seen
    RunStore(run.parent).run(run.name).change_job(owner="ann")
    export(RunStore(run.parent).run(run.name), tmp_path / "out")
    assert holders(tmp_path) == []
    assert any(path.is_file() for path in run.rglob("push.json"))


def test_the_search_would_find_one(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log.bin").write_bytes(b"\0" + CANARY.encode())
    assert len(holders(tmp_path)) == 1
    seen, stop = set(), threading.Event()
    child = subprocess.Popen([sys.executable, "-c", "input()", CANARY], stdin=subprocess.PIPE)
    watch = threading.Thread(target=processes, args=(seen, stop), daemon=True)
    watch.start()
    stop.wait(1.0)
    stop.set()
    watch.join(10)
    child.communicate(b"\n")
    assert seen == {f"/proc/{child.pid}/cmdline"}


def test_a_token_is_never_shown_or_stored(caplog):
    token = Token(CANARY)
    logging.getLogger("x").warning("%s %r %s", token, token, {"token": token})
    assert CANARY not in f"{token} {token!r} {[token]}" + caplog.text
    with pytest.raises(TypeError):
        pickle.dumps(token)
    with pytest.raises(TypeError):
        json.dumps({"token": token})
    assert not hasattr(token, "__dict__")
