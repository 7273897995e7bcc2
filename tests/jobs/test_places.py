"""Where caches and runs go when the home or the application's folder cannot be written."""

import subprocess
import sys
from pathlib import Path

import pytest

from rsm_app.jobs import places
from rsm_app.jobs.limits import Limits, read_limits
from trainers.errors import InputError

NOWHERE = "/dev/null/home"  # a home that nobody can make, whoever asks


def test_a_writable_home_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    environment = {"GRADIO_TEMP_DIR": "/elsewhere"}
    places.settle(environment)
    assert environment == {"GRADIO_TEMP_DIR": "/elsewhere"}
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"


def test_without_a_home_every_cache_has_a_place_that_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", NOWHERE)
    monkeypatch.setattr(places.tempfile, "gettempdir", lambda: str(tmp_path))
    environment = {"HF_HOME": "/chosen"}
    places.settle(environment)
    assert environment.pop("HF_HOME") == "/chosen"
    assert set(environment) == {"MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR"}
    assert all(places.can_write(place) and place.startswith(str(tmp_path)) for place in environment.values())


@pytest.mark.parametrize("place", [NOWHERE, "/proc/runs", "", "runs", "~/.cache"])
def test_a_place_nobody_can_write_is_found_out(place):
    assert not places.can_write(place)


def test_the_libraries_use_the_places(tmp_path, repository):
    """A fresh interpreter without a home: what gradio, matplotlib and the hub then use can all be written."""
    words = (
        "from rsm_app.jobs import places; places.settle()\n"
        "import gradio, matplotlib, huggingface_hub.constants as hub\n"
        "from gradio.utils import get_upload_folder\n"
        "print(hub.HF_HOME, matplotlib.get_configdir(), get_upload_folder(), sep='\\n')"
    )
    environment = {"HOME": NOWHERE, "PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", words], env=environment, cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout.splitlines()
    assert len(found) == 3 and all(Path(place).is_relative_to(tmp_path) for place in found), found


def test_runs_live_where_they_are_told_or_beside_the_app_or_among_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(places.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert places.runs_directory({"RSM_RUNS_DIR": "/chosen"}, tmp_path) == Path("/chosen")
    assert places.runs_directory({}, tmp_path) == tmp_path / "runs"
    fallback = places.runs_directory({}, Path("/proc/app"))
    assert fallback.is_relative_to(tmp_path / "temporary") and places.can_write(fallback)


HOMELY = {"RSM_RUNS_DIR": "~/runs", "HF_HOME": "~", "GRADIO_TEMP_DIR": " ~/g ", "TORCH_HOME": "torch"}


def test_folders_in_variables_are_named_from_the_root(tmp_path, monkeypatch):
    """As services and files of settings write them, where no shell replaces a ``~``."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    environment = dict(HOMELY)
    places.settle(environment)
    assert {name: environment[name] for name in HOMELY} == {
        "RSM_RUNS_DIR": str(tmp_path / "runs"),
        "HF_HOME": str(tmp_path),
        "GRADIO_TEMP_DIR": str(tmp_path / "g"),
        "TORCH_HOME": str(tmp_path / "torch"),
    }
    assert places.runs_directory({"RSM_RUNS_DIR": "~/mine"}) == tmp_path / "mine"
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"


@pytest.mark.parametrize("variable", places.FOLDERS)
def test_a_folder_that_cannot_be_named_is_told_with_its_variable(variable):
    for text in ("~nobody-of-this-name/x", "./" + "x" * 300):
        with pytest.raises(InputError, match=f"The variable {variable} cannot be used: "):
            places.settle({variable: text})


def test_a_folder_for_uploads_that_nobody_can_write_is_told_at_the_start(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="which GRADIO_TEMP_DIR names for uploads"):
        places.settle({"GRADIO_TEMP_DIR": "/dev/null/uploads"})
    monkeypatch.setattr(places.tempfile, "gettempdir", nowhere)
    with pytest.raises(InputError, match="name it in TMPDIR"):
        places.settle({})


def nowhere():
    raise FileNotFoundError("No usable temporary directory found")


def test_a_user_without_a_name_has_a_place_for_what_is_compiled(monkeypatch, tmp_path):
    """A container's user may be a number: torch would ask for its name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(places.getpass, "getuser", lambda: {}[12345])
    environment = {}
    places.settle(environment)
    assert "rsm-studio" in environment["TORCHINDUCTOR_CACHE_DIR"]


def test_a_space_is_stricter_unless_its_variables_say_otherwise():
    assert read_limits({}) == Limits()
    shared = read_limits({"SPACE_ID": "ann/studio", "RSM_MAX_RUN_SECONDS": "0"})
    assert (shared.owner_queued, shared.owner_running, shared.disk_mb) == (3, 1, 5000)
    assert shared.import_mb == 512
    assert shared.run_seconds == 0 and shared.free_mb == Limits().free_mb
