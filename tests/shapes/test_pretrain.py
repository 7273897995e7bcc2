"""Pre-training end to end on a few steps: every command runs, resumes and saves what diffusers loads."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from transformers import CLIPModel, CLIPProcessor

from trainers.shapes import pretrain_clip, pretrain_diffusion, pretrain_flow
from trainers.shapes.__main__ import main
from trainers.shapes.evaluate import load
from trainers.shapes.grammar import parse, render_caption
from trainers.shapes.pool import CAPTIONS, load_pool, tokenize
from trainers.shapes.pretrain_vae import build_vae
from trainers.shapes.training import Settings, draw_at

SMALL = ["--steps", "2", "--batch", "4", "--threads", "1", "--check", "6", "--pool", "40"]


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    build_vae().half().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def keep_threads(monkeypatch):
    # The commands set the number of threads of the whole process, which other tests would feel.
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("what", ["vae", "clip", "flow", "diffusion"])
def test_every_command_runs_and_resumes(what, vae, tmp_path, monkeypatch, repository):
    monkeypatch.chdir(repository)
    out = tmp_path / what
    main(["pretrain", what, "--out", str(out), "--vae", str(vae), *SMALL])
    first = torch.load(out / "checkpoint.pt", weights_only=True)
    main(["pretrain", what, "--out", str(out), "--vae", str(vae), *SMALL, "--steps", "4"])
    assert (first["step"], torch.load(out / "checkpoint.pt", weights_only=True)["step"]) == (2, 4)
    assert [line["step"] for line in log_of(out) if line.get("done")] == [2, 4]
    assert any((out / "model").rglob("*.safetensors"))


def test_resuming_continues_the_same_run(vae, tmp_path, monkeypatch, repository):
    """Three steps, then three more, give the weights of six: data and noise depend on (seed, step) only."""
    monkeypatch.chdir(repository)

    def run(name, *steps):
        for step in steps:
            settings = Settings(
                out=tmp_path / name, steps=step, batch=4, pool=40, vae=vae, check=1, bfloat16=False, lr=0.0
            )
            pretrain_diffusion.pretrain(settings)
        return torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)

    split, whole = run("split", 3, 6), run("whole", 6)
    # At a rate of zero only the optimizer's averages of gradients move; they see data, noise and order.
    for key, state in whole["optimizer"]["state"].items():
        torch.testing.assert_close(split["optimizer"]["state"][key]["exp_avg"], state["exp_avg"])
    assert split["elapsed"] > 0


def test_an_endless_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--seconds"):
        Settings(out=tmp_path)


def test_seconds_end_a_run(tmp_path):
    main(["pretrain", "vae", "--out", str(tmp_path), "--seconds", "0.01", "--batch", "2"])
    assert log_of(tmp_path)[-1]["done"]


def test_flow_trains_on_what_the_pipeline_feeds(vae, tmp_path):
    torch.manual_seed(1)
    model = pretrain_flow.FlowModel().eval()
    pipeline = pretrain_flow.build_pipeline(model, AutoencoderKL.from_pretrained(vae))
    prompts = ["a red circle left of a blue square", ""]
    with torch.no_grad():
        embeds, pooled = model.encode(torch.from_numpy(tokenize(prompts)).long())
        own = pipeline.encode_prompt(
            prompts,
            None,
            None,
            do_classifier_free_guidance=False,
            max_sequence_length=pretrain_flow.CALL["call"]["max_sequence_length"],
        )
    torch.testing.assert_close(own[0], embeds)
    torch.testing.assert_close(own[2], pooled)


def test_diffusion_trains_on_what_the_pipeline_feeds(vae):
    torch.manual_seed(1)
    model = pretrain_diffusion.DiffusionModel().eval()
    pipeline = pretrain_diffusion.build_pipeline(model, AutoencoderKL.from_pretrained(vae))
    prompts = ["a red circle left of a blue square", ""]
    with torch.no_grad():
        own, _ = pipeline.encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)
        tokens = torch.from_numpy(tokenize(prompts)).long()
        torch.testing.assert_close(own, model.text_encoder(tokens)[0])


def test_pool_is_cached_and_drops_a_tenth_of_the_captions(vae, tmp_path):
    pool = load_pool(tmp_path, vae, 60, 0, "cpu")
    again = load_pool(tmp_path, tmp_path / "no vae needed", 60, 0, "cpu")
    assert pool.latents.shape == (60, 4, 8, 8) and pool.tokens.shape == (60, CAPTIONS, 12)
    np.testing.assert_array_equal(pool.latents, again.latents)
    _, tokens = pool.batch(draw_at(0, 0), 4000, "cpu")
    empty = (tokens == torch.from_numpy(pool.empty)).all(1).float().mean()
    assert 0.08 < empty < 0.12


def test_near_captions_are_captions_and_differ():
    scenes, specs = pretrain_clip.draw_batch(np.random.default_rng(0), 100)
    for index, near in enumerate(specs[100:]):
        assert parse(render_caption(near)) == near != specs[index // pretrain_clip.HARD]
    truths = map(pretrain_clip.truth, scenes, specs[:100])
    assert set(truths) == {1.0}


def test_saved_half_weights_load_as_float32(vae, tmp_path, monkeypatch, repository):
    monkeypatch.chdir(repository)
    for what in ("flow", "diffusion"):
        main(["pretrain", what, "--out", str(tmp_path / what), "--vae", str(vae), *SMALL])
        pipeline, _ = load(tmp_path / what / "model")
        modules = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
        assert {part.dtype for part in modules} == {torch.float32}


def test_clip_folder_loads_with_its_processor(tmp_path):
    pretrain_clip.snapshot(pretrain_clip.build_clip(), tmp_path / "clip")
    model = CLIPModel.from_pretrained(tmp_path / "clip")
    processor = CLIPProcessor.from_pretrained(tmp_path / "clip")
    picture = np.full((80, 80, 3), 200, np.uint8)
    inputs = processor(text=["a red circle"], images=[picture], return_tensors="pt", padding=True)
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    assert model.dtype == torch.float32
    assert torch.isfinite(model(**inputs).logits_per_image).all()


@pytest.mark.parametrize("what", ["flow", "diffusion"])
def test_a_finished_model_can_be_trained_on(what, vae, tmp_path, monkeypatch, repository):
    """No steps from a finished model give that model back, in every part that is trained."""
    monkeypatch.chdir(repository)
    finished = repository / "assets" / f"tiny-{what}"
    arguments = ["--vae", str(vae), *SMALL, "--steps", "0", "--start", str(finished)]
    main(["pretrain", what, "--out", str(tmp_path / what), *arguments])
    before, after = load(finished)[0].components, load(tmp_path / what / "model")[0].components
    trained = [name for name in before if name.startswith(("transformer", "unet", "text_encoder"))]
    for name in trained:
        if before[name] is not None:
            new = after[name].state_dict()
            for key, tensor in before[name].state_dict().items():
                torch.testing.assert_close(new[key], tensor, msg=f"{name}: {key}")


def test_pictures_are_shifted_a_little_to_where_their_captions_fit_worse(repository):
    """Each within its own radius, and by more than an equally long random shift."""
    model = CLIPModel.from_pretrained(repository / "assets" / "tiny-clip")
    scenes, specs = pretrain_clip.draw_batch(np.random.default_rng(3), 24)
    pictures, captions = pretrain_clip._pictures(scenes, "cpu"), pretrain_clip._embed_captions(model, specs)
    masked = torch.zeros((24, len(specs)), dtype=torch.bool)
    arguments = model, pictures, captions.detach(), masked
    shifted = pretrain_clip._shifted(*arguments, torch.Generator().manual_seed(0))
    lengths = (shifted - pictures).flatten(1).norm(dim=1)
    assert 0.5 < float(lengths.max()) <= pretrain_clip.RADIUS
    assert float(lengths.min()) < 0.5 * pretrain_clip.RADIUS
    assert float(shifted.min()) >= 0.0 and float(shifted.max()) <= 1.0
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
    random = pictures + noise * (lengths / noise.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)

    def loss(images):
        with torch.no_grad():
            return float(
                pretrain_clip._contrast(model, pretrain_clip._embed_pictures(model, images), captions, masked)
            )

    assert loss(shifted) > loss(random) + 0.1
    assert loss(random) > loss(pictures) - 0.1


def test_clip_goes_on_from_a_finished_model(tmp_path, repository):
    words = [
        "pretrain",
        "clip",
        "--out",
        str(tmp_path),
        "--start",
        str(repository / "assets" / "tiny-clip"),
        "--steps",
        "1",
    ]
    main([*words, "--batch", "4", "--threads", "1"])
    before = CLIPModel.from_pretrained(repository / "assets" / "tiny-clip").state_dict()
    after = CLIPModel.from_pretrained(tmp_path / "model").state_dict()
    weight = "vision_model.encoder.layers.0.mlp.fc1.weight"
    name = weight if weight in before else next(key for key in before if key.endswith("fc1.weight"))
    change = float((after[name] - before[name]).norm() / before[name].norm())
    assert 0.0 < change < 0.05
