"""Do rollouts and pipeline calls draw the same image? Held against each other once, on one latent.

Rollouts take the deterministic step of ``samplers.kernels.ode`` at the scheduler's noise levels; the
comparison calls the pipeline with its own scheduler. Some schedulers add noise or take steps of higher order,
and a checkpoint may want something that rollouts do not give it. Training then raises the reward of other
images than those that are compared, which is worth knowing and no error.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainers.core.transition import mean as step_mean
from trainers.policy import Policy
from trainers.samplers.kernels import ode

STEPS = 3
"""Enough for a step that adds noise or looks back to show, and few enough for a CPU."""
TOLERANCE, HALF_TOLERANCE = 2 / 255, 0.05
"""Root-mean-square difference, of full range, that rounding to 8 bits alone does not make, and that networks
of 16 bits do not make either."""


def sampler_sentence(policy: Policy, prompt: str, seed: int, guidance_scale: float | None) -> str:
    """Return a sentence when an untrained policy's rollout differs from a pipeline call; else nothing.

    Args:
        policy: The policy before its first update and without a LoRA to begin from.
        prompt: A prompt that the model reads.
        seed: Seed of the one latent.
        guidance_scale: The run's, or None for the model's own.
    """
    model = policy.model
    if model.spec.decoder == "tiny":  # whose images are others anyway
        return ""
    called = model.sample([prompt], [seed], guidance_scale, STEPS)[0]
    # Some pipelines draw their noise in the network's precision, which gives other numbers for the same seed.
    kinds = dict.fromkeys((torch.float32, model.network.dtype))
    rolled = [_rolled(policy, prompt, seed, kind) for kind in kinds]
    difference = min(float((called - image).square().mean().sqrt()) for image in rolled)
    exact = {policy.dtype, model.network.dtype} == {torch.float32}
    if difference <= (TOLERANCE if exact else HALF_TOLERANCE):
        return ""
    name = type(model.pipe.scheduler).__name__
    return (
        f"The pipeline's own sampler ({name}) and the deterministic steps of rollouts draw different images "
        f"from the same noise (in {STEPS} steps by {difference:.1%} of full range, root mean square). "
        "Training follows the latter, the comparison is drawn by the pipeline."
    )


@torch.no_grad()
def _rolled(policy: Policy, prompt: str, seed: int, kind: torch.dtype) -> Tensor:
    """Return (3, H, W) the image of a deterministic rollout from noise drawn in a precision, on the CPU."""
    model, counted, sampled = policy.model, policy.evaluations, policy.sampled
    schedule, rows = model.schedule(STEPS), model.encode([prompt])
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = torch.randn((1, *model.latent_shape), generator=generator, dtype=kind)
    latents = noise.to(model.device, torch.float32)
    try:
        for step in range(schedule.steps):
            output = policy.sample_output(latents, schedule, step, rows)
            latents = step_mean(ode(schedule, step), latents, output)
    finally:
        policy.evaluations, policy.sampled = counted, sampled
    return model.decode(latents)[0].float().cpu()
