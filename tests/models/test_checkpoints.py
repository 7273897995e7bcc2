"""Folders and Hub ids typed by a person: recognised by their index, refused with one sentence each."""

import http.server
import json
import shutil
import threading
import zlib
from urllib.parse import unquote

import pytest

from tests.e2e.shell import trainers
from tests.models.tiny_pipelines import save
from trainers.errors import InputError
from trainers.models import MODELS
from trainers.models.access import access_problems
from trainers.models.base import load_model
from trainers.models.families import FAMILIES
from trainers.models.folders import folder_problems, pickle_allowed
from trainers.models.variants import variant_of

ASK = ("--reward", "brightness", "--estimator", "grpo", "--dry-run")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return save("tiny-sd15", tmp_path_factory.mktemp("checkpoints") / "whole")


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def refused(folder):
    """The one sentence with which a checkpoint is refused, by the table or before a run."""
    try:
        (problem,) = access_problems(MODELS.get(str(folder)))
    except InputError as error:
        (problem,) = error.problems
    return problem


def test_a_folder_is_recognised_by_its_index(folder, monkeypatch):
    spec = MODELS.get(str(folder))
    assert (spec.pipeline_class, spec.family) == ("StableDiffusionPipeline", "diffusion")
    assert spec.title == "model" and not spec.embedded and access_problems(spec) == []
    assert spec.defaults == FAMILIES["StableDiffusionPipeline"].defaults
    monkeypatch.chdir(folder.parent)
    assert MODELS.get("./model").location == spec.location
    assert str(folder) not in MODELS and len(MODELS.names()) == len(set(MODELS.names()))


def weights(folder):
    return folder / "unet" / "diffusion_pytorch_model.safetensors"


def cut(folder):
    content = weights(folder).read_bytes()
    weights(folder).write_bytes(content[: len(content) // 2])


def pickled(folder):
    weights(folder).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def sharded(folder):
    index = {"weight_map": {"a": "diffusion_pytorch_model.safetensors", "b": "second.safetensors"}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def of_class(folder, name):
    index = json.loads((folder / "model_index.json").read_text()) | {"_class_name": name}
    (folder / "model_index.json").write_text(json.dumps(index))


DAMAGE = {
    "no index": (lambda f: (f / "model_index.json").unlink(), "has no model_index.json"),
    "index that is no JSON": (lambda f: (f / "model_index.json").write_text("{"), "cannot be read"),
    "index that is a list": (lambda f: (f / "model_index.json").write_text("[]"), "cannot be read"),
    "another class": (
        lambda f: of_class(f, "WanPipeline"),
        "is a WanPipeline, which cannot be trained. Supported: StableDiffusionPip",
    ),
    "a class that is a list": (lambda f: of_class(f, ["WanPipeline"]), "is a nameless class"),
    "index that is no text": (lambda f: (f / "model_index.json").write_bytes(b"\xff\xfe"), "cannot be read"),
    "index too deep": (lambda f: (f / "model_index.json").write_text("[" * 10**5), "cannot be read"),
    "a part is missing": (lambda f: shutil.rmtree(f / "vae"), "vae is missing. Fetch the rest"),
    "a config is missing": (lambda f: (f / "unet" / "config.json").unlink(), "config.json is missing"),
    "weights are missing": (lambda f: weights(f).unlink(), "unet has no weights"),
    "weights are cut off": (cut, "diffusion_pytorch_model.safetensors is cut off"),
    "a shard is missing": (sharded, "second.safetensors is missing"),
    "weights are pickled": (pickled, "are pickled, and loading them could run any code"),
    "weights of another variant": (
        lambda f: weights(f).rename(f / "unet" / "diffusion_pytorch_model.ema.safetensors"),
        "has no plain weights, nor all of its parts as bf16 or all as fp16",
    ),
    "gone": (shutil.rmtree, "There is no folder"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_wrong_or_half_fetched_folder_is_refused_with_one_sentence(damage, folder):
    harm, sentence = DAMAGE[damage]
    harm(folder)
    told = refused(folder)
    assert sentence in told and told.endswith(".") and "\n" not in told


def test_weights_that_are_there_in_half_precision_only_are_loaded(folder):
    whole = load_model(MODELS.get(str(folder))).network.state_dict()
    weights(folder).rename(folder / "unet" / HALF)
    assert folder_problems(folder, "model") == []
    half = load_model(MODELS.get(str(folder))).network.state_dict()
    assert whole.keys() == half.keys() and all(whole[name].equal(half[name]) for name in whole)


@pytest.mark.parametrize(
    ("parts", "variant"),
    [
        ({"unet": ["a.safetensors", "a.fp16.safetensors"], "vae": ["b.safetensors"]}, ""),
        ({"unet": ["a.fp16.safetensors"], "vae": ["b.safetensors"], "tokenizer": ["vocab.json"]}, "fp16"),
        ({"unet": ["a.fp16-00001-of-00002.safetensors"], "vae": ["b.fp16.safetensors"]}, "fp16"),
        ({"unet": ["a-00001-of-00002.bf16.safetensors"], "vae": ["b.bf16.safetensors"]}, "bf16"),
        ({"unet": ["a-00001-of-00002.safetensors"], "vae": ["b.fp16.safetensors", "b.safetensors"]}, ""),
        ({"unet": ["a.fp16.safetensors"], "vae": ["b.bf16.safetensors"]}, None),
    ],
    ids=str,
)
def test_the_variant_is_the_one_that_every_part_has(parts, variant):
    assert variant_of(parts) == variant


def test_pickles_are_an_opt_in_that_a_space_ignores(folder, monkeypatch):
    pickled(folder)
    monkeypatch.setenv("RSM_ALLOW_PICKLE", "1")
    assert pickle_allowed() and folder_problems(folder, "model") == []
    monkeypatch.setenv("SYSTEM", "spaces")
    assert not pickle_allowed() and "are pickled" in refused(folder)
    with pytest.raises(InputError, match="are pickled"):
        load_model(MODELS.get(str(folder)))


def test_a_schedule_that_cannot_be_trained_is_refused(folder):
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rescale_betas_zero_snr": True}))
    with pytest.raises(InputError, match="starts from zero signal"):
        load_model(MODELS.get(str(folder)))


def test_the_shell_refuses_before_anything_is_loaded(folder, tmp_path):
    cut(folder)
    done = trainers("train", "--model", str(folder), *ASK[:4], "--out", str(tmp_path / "run"))
    assert done.returncode == 2 and "is cut off" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_typed_checkpoint_is_trained_by_the_shell(whole, tmp_path):
    """Through load, comparison, training, saving, reloading and report, in a process of its own."""
    quick = {"branches": "2,2", "rollout_steps": 3, "prompts_per_update": 2, "eval_prompts": 2}
    quick |= {"max_updates": 2, "threads": 1, "learning_rate": 0.02, "probe_every": 1, "memory": 16}
    quick |= {
        "prompts": "shapes-train",
        "heldout_prompts": "shapes-heldout",
    }  # those this small model can read
    words = [f"--set={name}={value}" for name, value in quick.items()]
    method = ("--reward", "brightness", "--estimator", "rsm_zeroth_order_diffusion")
    done = trainers("train", "--model", str(whole), *method, *words, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["updates"] == 2 and report["drift"] > 0


# -- the Hub -----------------------------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves one repository's names and index, or refuses everything as the Hub does."""

    def do_GET(self):  # noqa: N802 (the library's name)
        status, code, files, index = self.server.answer
        body = b""
        if status == 200 and self.path.endswith("/model_index.json"):
            body = index if isinstance(index, bytes) else json.dumps(index).encode()
        elif status == 200 and (small := next(filter(unquote(self.path).endswith, CONFIGS), None)):
            body = json.dumps(CONFIGS[small]).encode()
        elif status == 200 and "auth-check" not in self.path:
            siblings = [{"rfilename": name, "size": size} for name, size in files.items()]
            body = json.dumps({"id": "owner/model", "siblings": siblings}).encode()
        self.send_response(status)
        etag = f'"{zlib.crc32(self.path.encode())}"'  # else all files would be one to the client's cache
        for name, value in (("X-Error-Code", code), ("X-Repo-Commit", "0" * 40), ("ETag", etag)):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_):
        """Keep quiet."""


INDEX = {
    "_class_name": "SanaPipeline",
    "transformer": ["diffusers", "SanaTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderDC"],
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "text_encoder": ["transformers", "Gemma2Model"],
    "tokenizer": ["transformers", "GemmaTokenizerFast"],
}
HALF = "diffusion_pytorch_model.fp16.safetensors"
CONFIGS = {
    "scheduler/scheduler_config.json": {"use_flow_sigmas": True},
    "transformer/config.json": {"in_channels": 65},
    "vae/config.json": {"latent_channels": 32},
}
SMALL = ("scheduler/scheduler_config.json", "tokenizer/tokenizer.json")
REST = {
    "model_index.json": 9,
    **dict.fromkeys(SMALL, 9),
    "vae/diffusion_pytorch_model.safetensors": 9,
    "text_encoder/model.safetensors": 9,
}
SAFE = REST | {"transformer/diffusion_pytorch_model.safetensors": 1000}


def without(files, part):
    return {name: size for name, size in files.items() if not name.startswith(f"{part}/")}


ANSWERS = {
    "all is well": ((200, "", SAFE, INDEX), "owner/model", 0, '"model": "owner/model"'),
    "gated": ((403, "GatedRepo", {}, {}), "owner/model", 2, "is gated: accept its licence at http://127"),
    "gated, with a licence": (
        (401, "GatedRepo", {}, {}),
        "sd35-medium",
        2,
        "accept its licence (Stability AI Community) at",
    ),
    "missing": (
        (404, "RepoNotFound", {}, {}),
        "owner/model",
        2,
        "was not found on the Hub, or it is private",
    ),
    "pickles only": (
        (200, "", REST | {"transformer/model.bin": 9}, INDEX),
        "sana",
        2,
        "are pickled, and loading",
    ),
    "another part has pickles only": (
        (200, "", without(SAFE, "vae") | {"vae/model.bin": 9}, INDEX),
        "sana",
        2,
        "are pickled, and loading",
    ),
    "another part is missing": (
        (200, "", without(SAFE, "vae"), INDEX),
        "sana",
        2,
        "is incomplete on the Hub: its vae has no weights",
    ),
    "half precision only": (
        (200, "", REST | {f"transformer/{HALF}": 1000}, INDEX),
        "sana",
        0,
        '"model": "sana"',
    ),
    "an unknown variant only": (
        (200, "", REST | {"transformer/diffusion_pytorch_model.ema.safetensors": 1000}, INDEX),
        "sana",
        2,
        "has no plain weights, nor all of its parts as bf16 or all as fp16",
    ),
    "an inpainting network": (
        (200, "", SAFE | {"transformer/config.json": 9, "vae/config.json": 9}, INDEX),
        "sana",
        2,
        "takes 65 channels and its autoencoder has 32: it is an inpainting model",
    ),
    "no vocabulary": (
        (200, "", without(SAFE, "tokenizer"), INDEX),
        "sana",
        2,
        "/tokenizer has no vocabulary",
    ),
    "no index": ((200, "", {"README.md": 9}, INDEX), "sana", 2, "has no model_index.json"),
    "larger than the disk": (
        (200, "", SAFE | {"transformer/more.safetensors": 10**17}, INDEX),
        "sana",
        2,
        "GB are free in",
    ),
    "another class": (
        (200, "", SAFE, {"_class_name": "WanPipeline"}),
        "owner/model",
        2,
        "is a WanPipeline, which cannot be trained",
    ),
    "an index that is no JSON": (
        (200, "", SAFE, b"<html>"),
        "owner/model",
        2,
        "model_index.json of owner/model cannot be read",
    ),
    "an index that is no object": (
        (200, "", SAFE, b"[]"),
        "owner/model",
        2,
        "model_index.json of owner/model cannot be read",
    ),
    "nobody answers": (None, "owner/model", 2, "the Hub cannot be reached (ConnectError)"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_what_the_hub_says_is_known_before_a_run(case, tmp_path):
    answer, model, code, sentence = ANSWERS[case]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.answer = answer
    address = f"http://127.0.0.1:{server.server_address[1]}"
    if answer is None:
        server.server_close()
    else:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    estimator = "rsm_zeroth_order_flow"
    words = ("--reward", "brightness", "--estimator", estimator, "--dry-run")
    environment = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    environment["NO_PROXY"] = "127.0.0.1"
    done = trainers("train", "--model", model, *words, env=environment, timeout=60)
    if answer is not None:
        server.shutdown()  # else its thread goes on asking a socket that is closed
    server.server_close()
    assert done.returncode == code, done.stderr
    told = done.stdout if code == 0 else done.stderr
    assert sentence in told and (code == 0 or told.count("\n") == 1)


def test_offline_and_not_in_the_cache_is_said(tmp_path):
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = trainers("train", "--model", "sana", *ASK, env=environment)
    assert done.returncode == 2 and "(HF_HUB_OFFLINE is set)" in done.stderr


def test_a_cached_checkpoint_needs_no_network(whole, tmp_path):
    place = tmp_path / "hub" / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    shutil.copytree(whole, place / "snapshots" / ("0" * 40))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = trainers("train", "--model", "sd15", *ASK, env=environment)
    assert done.returncode == 0, done.stderr
