"""What the Hub and Docker read of the repository keeps its promises."""

import fnmatch
import http.server
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser
from huggingface_hub import RepoCard
from huggingface_hub.utils import filter_repo_objects

from tests.test_readme import README, shell_lines
from trainers.models import MODELS

# Keys and values of huggingface.co/docs/hub/spaces-config-reference and spaces-oauth.
KEYS = {
    *("title", "emoji", "colorFrom", "colorTo", "sdk", "python_version", "sdk_version", "suggested_hardware"),
    *("suggested_storage", "app_file", "app_build_command", "app_port", "base_path", "fullWidth", "header"),
    *("short_description", "models", "datasets", "tags", "thumbnail", "pinned", "license", "hf_oauth"),
    *("hf_oauth_scopes", "hf_oauth_expiration_minutes", "hf_oauth_authorized_org", "disable_embedding"),
    *("startup_duration_timeout", "custom_headers", "preload_from_hub"),
}
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
SCOPES = {"email", "read-repos", "gated-repos", "contribute-repos", "write-repos", "manage-repos", "jobs"}
LONGEST_DESCRIPTION = 60
UPLOADED = (
    "README.md",
    "assets/tiny-flow/vae/diffusion_pytorch_model.safetensors",
    ".git/config",
    ".venv/bin/python",
    "runs/first/config.json",
    "trainers/__pycache__/loop.cpython-312.pyc",
)


@pytest.fixture(scope="module")
def space(repository):
    return RepoCard.load(repository / "README.md").data.to_dict()


@pytest.fixture(scope="module")
def steps(repository):
    path = str(repository / "Dockerfile")
    found = DockerfileParser(path, cache_content=True).structure
    return [(step["instruction"], step["value"]) for step in found if step["instruction"] != "COMMENT"]


@pytest.fixture(scope="module")
def final(steps):
    """The instructions of the image that is kept."""
    return steps[max(number for number, (kind, _) in enumerate(steps) if kind == "FROM") :]


def values(steps, kind):
    return [value for name, value in steps if name == kind]


def locked(repository):
    lines = (repository / "requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


# -- the Space ---------------------------------------------------------------------------------------


def test_the_front_matter_has_only_documented_keys_of_documented_kinds(space):
    assert set(space) <= KEYS
    assert space["sdk"] == "gradio" and space["emoji"] and not space["emoji"].isascii()
    assert {space["colorFrom"], space["colorTo"]} <= COLOURS
    assert 0 < len(space["short_description"]) <= LONGEST_DESCRIPTION
    assert re.fullmatch(r"\d+[mh]", space["startup_duration_timeout"])
    assert space["suggested_hardware"] == "cpu-basic", "the embedded models need no more"
    assert all(re.fullmatch(r"[a-z0-9-]+", tag) for tag in space["tags"])


def test_the_space_runs_what_the_lock_was_tested_with(space, repository):
    assert space["sdk_version"] == locked(repository)["gradio"]
    assert isinstance(space["python_version"], str), "unquoted, 3.10 would be read as 3.1"
    assert tuple(map(int, space["python_version"].split("."))) >= (3, 11)
    assert (repository / space["app_file"]).is_file()
    assert space["license"] == "apache-2.0" and "Apache License" in (repository / "LICENSE").read_text()


def test_sign_in_asks_for_no_more_than_pushing_needs(space, repository):
    assert space["hf_oauth"] is True
    assert space["hf_oauth_scopes"] == ["contribute-repos"] and set(space["hf_oauth_scopes"]) <= SCOPES
    assert "gradio[oauth]" in (repository / "requirements.txt").read_text()
    assert {"Authlib", "itsdangerous"} <= set(locked(repository)), "what gradio's sign-in imports"


def test_a_space_may_choose_a_torch_of_its_hardware(repository):
    """ZeroGPU takes releases up to 2.11; an exact pin would keep the Space from building there."""
    lines = (repository / "requirements.txt").read_text().splitlines()
    (torch,) = [line for line in lines if line.startswith("torch")]
    low, high = (
        tuple(map(int, re.search(mark + r"(\d+)\.(\d+)", torch).groups())) for mark in (">=", "(?<!=)<")
    )
    assert low <= (2, 11) < high


def test_the_models_of_a_space_with_a_gpu_are_those_of_the_table_that_nobody_has_to_ask_for(space):
    large = [spec.location for spec in MODELS if not spec.embedded and not spec.gated]
    assert space["models"] == large


def test_the_preloading_of_a_large_model_works_when_it_is_uncommented():
    front = README.split("---\n")[1]
    assert "preload_from_hub" not in yaml.safe_load(front), "the models for the CPU are in the repository"
    lines = [re.sub("^# (?!A Space)", "", line) for line in front.splitlines()]
    (entry,) = yaml.safe_load("\n".join(lines))["preload_from_hub"]
    repo, files = entry.split(" ")
    assert repo == MODELS.get("sd15").location
    names = [name for name in files.split(",") if name == "model_index.json" or name.count("/") == 1]
    assert names == files.split(",") and "unet/diffusion_pytorch_model.safetensors" in names


def test_the_readme_s_upload_goes_to_a_space_and_takes_the_repository_s_own_files():
    (line,) = [line for line in shell_lines() if line.startswith("hf ")]
    words = shlex.split(line)
    assert words[:4] == ["hf", "upload", "your-name/your-space", "."] and "space" in words
    excluded = [words[number + 1] for number, word in enumerate(words) if word == "--exclude"]
    kept = set(filter_repo_objects(UPLOADED, ignore_patterns=excluded))
    assert kept == {"README.md", "assets/tiny-flow/vae/diffusion_pytorch_model.safetensors"}
    help_of = [str(Path(sys.executable).parent / "hf"), "upload", "--help"]
    told = subprocess.run(help_of, capture_output=True, text=True).stdout
    assert all(option in told for option in words if option.startswith("--"))


# -- Docker ------------------------------------------------------------------------------------------


def test_the_linter_finds_nothing_in_the_dockerfile(repository):
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    done = subprocess.run(
        [linter, "--no-color", "Dockerfile"], cwd=repository, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_runs_without_root_and_can_write_where_it_must(final):
    assert values(final, "USER") == ["1000"]
    (made,) = values(final, "RUN")
    assert "useradd" in made and "--uid 1000" in made and "-o user" in made and "/runs" in made
    assert values(final, "VOLUME") == ["/runs"]
    environment = environment_of(final)
    assert environment["RSM_RUNS_DIR"] == "/runs"
    assert environment["GRADIO_SERVER_NAME"] == "0.0.0.0"
    assert environment["HF_HOME"].startswith("/home/user/")


def environment_of(steps):
    words = [word for value in values(steps, "ENV") for word in shlex.split(value)]
    return dict(word.split("=", 1) for word in words)


def test_the_port_is_the_same_everywhere(final, space):
    port = environment_of(final)["GRADIO_SERVER_PORT"]
    assert values(final, "EXPOSE") == [port] == ["7860"]
    assert space.get("app_port", 7860) == int(port)
    assert "GRADIO_SERVER_PORT" in values(final, "HEALTHCHECK")[0]


def test_the_health_check_is_a_program_that_fails_while_nothing_answers(final):
    words = json.loads(values(final, "HEALTHCHECK")[0].partition("CMD")[2])
    assert words[0] == "python"
    asked = [sys.executable, *words[1:]]
    done = subprocess.run(asked, env={"GRADIO_SERVER_PORT": "1"}, capture_output=True, text=True)
    assert done.returncode != 0 and "refused" in done.stderr


def test_the_health_check_asks_where_the_app_listens(final):
    """PORT goes before GRADIO_SERVER_PORT in app.py."""
    words = json.loads(values(final, "HEALTHCHECK")[0].partition("CMD")[2])

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802 (the library's name)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            """Keep quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = str(server.server_address[1])
        for ports in ({"PORT": port, "GRADIO_SERVER_PORT": "1"}, {"PORT": "", "GRADIO_SERVER_PORT": port}):
            done = subprocess.run([sys.executable, *words[1:]], env=ports, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        server.shutdown()


def test_the_image_has_what_the_lock_pins_and_nothing_else(steps, final, repository):
    installed = " ".join(values(steps, "RUN"))
    assert "-r requirements.txt -c requirements.lock" in installed and "requirements-dev" not in installed
    copied = [word for value in values(final, "COPY") if "--from" not in value for word in value.split()[:-1]]
    assert set(copied) == {"app.py", "LICENSE", "assets", "rsm_app", "trainers"}
    assert json.loads(values(final, "CMD")[0]) == ["python", "app.py"]
    assert values(final, "STOPSIGNAL") == ["SIGINT"], "Python ignores SIGTERM as the first process"
    tags = {value.split()[0] for value in values(steps, "FROM")}
    assert tags == {"python:3.12-slim"}


def test_the_build_sees_only_what_it_copies(steps, repository):
    lines = (repository / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = [word for value in values(steps, "COPY") if "--from" not in value for word in value.split()[:-1]]
    assert allowed == set(copied) and all((repository / name).exists() for name in allowed)
    again = [rule for rule in rules[1:] if not rule.startswith("!")]
    for junk in ("trainers/__pycache__", "rsm_app/ui/__pycache__", "trainers/core/loss.cpython-312.pyc"):
        assert any(fnmatch.fnmatch(f"x/{junk}", rule.replace("**", "*")) for rule in again), junk


# -- what the README says of both --------------------------------------------------------------------


def test_the_readme_s_docker_commands_fit_the_dockerfile(steps, final):
    lines = [shlex.split(line) for line in shell_lines() if line.startswith("docker ")]
    builds = [words for words in lines if words[1] == "build"]
    runs = [words for words in lines if words[1] == "run"]
    assert len(builds) == len(runs) == 2
    arguments = {value.partition("=")[0] for value in values(steps, "ARG")}
    given = [words[words.index("--build-arg") + 1] for words in builds if "--build-arg" in words]
    assert given and {text.partition("=")[0] for text in given} <= arguments
    tags = {words[words.index("-t") + 1] for words in builds}
    for words in runs:
        assert words[-1] in tags
        assert words[words.index("-p") + 1].endswith(f":{values(final, 'EXPOSE')[0]}")
        assert words[words.index("-v") + 1].partition(":")[2] == values(final, "VOLUME")[0]
