"""Every model family on a tiny pipeline of its real class: the engine's numbers are the pipeline's own."""

import dataclasses

import diffusers
import pytest
import torch
from peft import PeftModel

from tests.models.tiny_pipelines import save
from tests.trainer_cases import equal, follow
from trainers.adapter import WEIGHTS, save_adapter
from trainers.core.transition import mean
from trainers.loop import Trainer
from trainers.machine import quiet_libraries
from trainers.methods import METHODS
from trainers.models import MODELS
from trainers.models.base import load_model
from trainers.models.families import FAMILIES
from trainers.models.memory import EVERYTHING, Footprint
from trainers.models.readable import cut_off, tokens_of
from trainers.models.spec import load_arguments
from trainers.models.tiny_sizes import TINY
from trainers.policy import Policy
from trainers.presets import build_config
from trainers.rewards import load_reward
from trainers.samplers.kernels import ode

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = ["a red circle", "two blue squares and a green circle"]
SEEDS = [11, 12]
LEAN = Footprint(micro_batch=2, gradient_checkpointing=True, offload=True, slicing=True, one_network=True)


@pytest.fixture(scope="module", params=TINY)
def checkpoint(request, tmp_path_factory):
    """An architecture's name, its folder, and its entry, recognised by the folder's index."""
    quiet_libraries()
    folder = save(request.param, tmp_path_factory.mktemp("models") / request.param)
    size, found = TINY[request.param], MODELS.get(str(folder))
    assert found.pipeline_class == size.pipeline_class
    return request.param, folder, dataclasses.replace(found, call={**found.call, **size.call})


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_model(checkpoint[2])


def plain(checkpoint, **changes):
    """Pictures of plain diffusers, by the documented call and nothing of this project's."""
    _, folder, spec = checkpoint
    pipe = getattr(diffusers, spec.pipeline_class).from_pretrained(folder, **load_arguments(spec))
    pipe.set_progress_bar_config(disable=True)
    return pipe, drawn(pipe, spec, **changes)


def drawn(pipe, spec, **changes):
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    call = {**spec.call, **changes}
    with torch.inference_mode():  # a list of its own: some pipelines write into it
        return pipe(prompt=list(PROMPTS), generator=generators, output_type="pt", **call).images.clamp(0, 1)


def rolled_out(model, guidance=None):
    """Pictures of a deterministic rollout by the engine from the same noise."""
    policy = Policy(model, 2, 2.0, 0, torch.float32, guidance)
    schedule = model.schedule(int(model.call["num_inference_steps"]))
    shape = (1, *model.latent_shape)
    latents = torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in SEEDS])
    rows = model.encode(PROMPTS).select(torch.arange(2))
    policy.refresh()
    for step in range(schedule.steps):
        latents = mean(ode(schedule, step), latents, policy.sample_output(latents, schedule, step, rows))
    return model.decode(latents)


def test_a_rollout_draws_the_pipeline_s_own_picture(checkpoint, model):
    """Prediction type, shift, time, guidance, conditioning and decoding all have to be right for this."""
    _, pictures = plain(checkpoint)
    with torch.no_grad():
        assert torch.allclose(rolled_out(model), pictures, atol=2e-4)
    assert pictures.std() > 0.01


def test_the_test_above_would_see_another_guidance_or_prompt(checkpoint, model):
    pipe, pictures = plain(checkpoint)
    spec = checkpoint[2]
    other = drawn(pipe, spec, guidance_scale=spec.call["guidance_scale"] + 3.0)
    assert (other - pictures).abs().max() > 2e-3
    rows = model.encode(PROMPTS)
    assert (rows.embeds[0] - rows.embeds[1]).abs().max() > 0.01


def test_samples_are_the_pipeline_s_own_with_and_without_encoders_at_hand(checkpoint, model):
    _, pictures = plain(checkpoint)
    exact = (pictures * 255).round() / 255
    assert torch.equal(model.sample(PROMPTS, SEEDS), exact)
    frugal = load_model(checkpoint[2])
    frugal.use_footprint(LEAN)
    assert (frugal.sample(PROMPTS, SEEDS) - exact).abs().max() <= 1.01 / 255
    again = frugal.encode([PROMPTS[1], PROMPTS[0]]).select(torch.tensor([1, 0]))
    width = model.encode(PROMPTS).embeds.shape[1]
    assert torch.allclose(again.embeds[:, :width], model.encode(PROMPTS).embeds, atol=1e-5)


def test_what_is_too_long_is_known_from_the_tokenizer_s_files_and_true(checkpoint, model):
    """A prompt that fills the limit is read to its last letter, and what is beyond the limit is not read."""
    _, _, spec = checkpoint
    full = "a"
    for more in (" a", "a"):  # words, then letters, of which some tokenizers make one token each
        while (tokens := tokens_of(spec, [full + more])).lengths[0] <= tokens.limit:
            full += more
            if more == "a" and tokens_of(spec, [full]).lengths == tokens_of(spec, [full + more]).lengths:
                break
    texts = [full, f"{full[:-1]}b", f"{full} a b c d", "A red CIRCLE"]
    tokens = tokens_of(spec, texts)
    assert (
        cut_off(spec.name, texts, tokens) == model.prompt_problems(texts) and tokens.lengths[2] > tokens.limit
    )
    # Of Stable Diffusion 3 the last rows are those of the encoder that reads furthest.
    whole, other, longer = model.encode(texts[:3]).embeds[:, -tokens.limit :]
    assert (whole - other).abs().max() > 1e-3
    if FAMILIES[spec.pipeline_class].reads[0].around != "chat":  # there the end of the template is lost
        assert torch.allclose(whole, longer, atol=1e-6)
    assert model.network_name == FAMILIES[spec.pipeline_class].network


def trainer(checkpoint, model, order, footprint=EVERYTHING, dtype=torch.float32):
    spec = checkpoint[2]
    method = f"rsm_{order}_order_{spec.family}"
    settings = {
        "rollout_steps": 4,
        "branches": "3,3",
        "prompts_per_update": 2,
        "roots_per_prompt": 1,
        "lora_rank": 2,
        "lora_alpha": 4,
        "learning_rate": 0.02,
        "train_fraction": 1.0,
        "updates_per_rollout": 1,
        "ema_decay": 0.0,  # an average of eight updates would still be the base model
        "micro_batch": 4,
        "dtype": "float32",
    }
    config = build_config(str(checkpoint[1]), method, "brightness", settings)
    assert config.lora_alpha == 4 and METHODS.get(method).order == order
    model.use_footprint(footprint)
    return Trainer(config, model, load_reward("brightness"), PROMPTS, dtype)


@pytest.mark.parametrize("order", ["zeroth", "first"])
def test_training_starts_at_ratio_one_resumes_and_saves_what_diffusers_loads(
    checkpoint, model, order, tmp_path
):
    whole = trainer(checkpoint, model, order)
    records = follow(whole, 2)
    assert len(records) == 2 and records[0].ratio_mean == 1.0 and records[0].clip_fraction == 0.0
    assert all(record.grad_norm > 0 for record in records)
    first, second = (trainer(checkpoint, model, order) for _ in range(2))
    follow(first, 1)
    second.restore(first.checkpoint())
    follow(second, 1)
    assert equal(second.policy.state(), whole.policy.state())

    save_adapter(whole.policy, tmp_path / "adapter")
    pipe, before = plain(checkpoint)
    if hasattr(pipe, "load_lora_weights"):
        pipe.load_lora_weights(tmp_path / "adapter")
    else:  # PixArt: PEFT's own folder
        pipe.transformer = PeftModel.from_pretrained(pipe.transformer, tmp_path / "adapter").base_model.model
    after = drawn(pipe, checkpoint[2])
    assert (after - before).abs().max() > 1e-3
    reloaded = load_model(checkpoint[2])
    reloaded.load_lora(tmp_path / "adapter")
    assert reloaded.lora_names()
    assert torch.allclose(reloaded.sample(PROMPTS, SEEDS), (after * 255).round() / 255, atol=1.01 / 255)
    reloaded.set_strength(0)
    assert torch.allclose(reloaded.sample(PROMPTS, SEEDS), (before * 255).round() / 255, atol=1.01 / 255)


# The rollout's copy rounds weights plus LoRA once, the training's network adds two rounded products.
@pytest.mark.parametrize(
    ("footprint", "dtype", "apart"),
    [
        (EVERYTHING, torch.float32, 1e-5),
        (LEAN, torch.float32, 1e-6),
        (EVERYTHING, torch.bfloat16, 0.15),
    ],
    ids=["merged", "shared", "merged-bfloat16"],
)
def test_after_an_update_rollouts_come_from_the_policy_that_is_trained(checkpoint, footprint, dtype, apart):
    """The ratio of an update's first pass is one by construction, so it would not tell."""
    own = load_model(checkpoint[2])
    trained = trainer(checkpoint, own, "zeroth", footprint, dtype)
    follow(trained, 1)
    policy, schedule = trained.policy, trained.schedule
    latents = torch.randn((2, *own.latent_shape), generator=torch.Generator().manual_seed(3))
    rows = trained.conditions.select(torch.tensor([0, 1]))
    with torch.no_grad():
        old = policy.sample_output(latents, schedule, 1, rows)
        new, base = (verb(latents, schedule, 1, rows) for verb in (policy.output, policy.reference))
    moved = (new - base).norm()
    assert (old - new).norm() <= apart * new.norm()
    assert moved > 5e-3 * base.norm() and (old - new).norm() < moved


def test_rows_of_different_steps_may_share_a_call(checkpoint, model):
    """A network that is told each row's time answers every row as if it were asked about that step alone."""
    policy, schedule = Policy(model, 2, 2.0, 0, torch.float32), model.schedule(4)
    latents = torch.randn((2, *model.latent_shape), generator=torch.Generator().manual_seed(4))
    rows = model.encode(PROMPTS).select(torch.arange(2))
    for verb in (policy.output, policy.reference):
        with torch.no_grad():
            mixed = verb(latents, schedule, torch.tensor([2, 0]), rows)
            alone = [verb(latents, schedule, step, rows)[row] for row, step in enumerate((2, 0))]
        torch.testing.assert_close(mixed, torch.stack(alone), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(mixed[0], verb(latents, schedule, 0, rows)[0], atol=1e-3)


def test_a_tight_preset_trains_the_same_adapter(checkpoint, model, tmp_path):
    """One shared network, recomputed activations, fewer rows at once: the same update up to rounding."""
    usual = trainer(checkpoint, model, "zeroth")
    follow(usual, 1)
    frugal = load_model(checkpoint[2])
    tight = trainer(checkpoint, frugal, "zeroth", LEAN)
    assert tight.micro_batch == 2 and tight.policy.network is frugal.network
    follow(tight, 1)
    one, other = usual.policy.state(), tight.policy.state()
    moved = [torch.linalg.vector_norm(one[name] - other[name]) for name in one]
    size = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(value) for value in one.values()]))
    assert torch.linalg.vector_norm(torch.stack(moved)) < 2e-2 * size
    save_adapter(tight.policy, tmp_path / "adapter")
    frugal.forget_lora()
    assert not frugal.lora_names()
    _, before = plain(checkpoint)
    assert (frugal.sample(PROMPTS, SEEDS) - (before * 255).round() / 255).abs().max() <= 1.01 / 255
    assert (tmp_path / "adapter" / WEIGHTS).is_file()
