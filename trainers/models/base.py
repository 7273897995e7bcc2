"""What every model family offers to the engine, around an ordinary diffusers pipeline.

The pipeline itself stays whole and in its evaluation precision: before/after pictures are drawn by calling
it like any user would, so they can be reproduced without this project. The engine's rollouts use the
adapter's four verbs instead: ``encode``, ``predict``, ``decode`` and ``schedule``.
"""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainers.assets import asset_root
from trainers.core.schedule import Schedule
from trainers.errors import FaultError, StudioError
from trainers.failures import known_cause
from trainers.models import ModelSpec


@dataclass(frozen=True)
class Conditions:
    """Encoded prompts; row i belongs to prompt i.

    Attributes:
        embeds: (P, L, D) token embeddings.
        pooled: (P, D') pooled embeddings, or None for families without them.
        negative_embeds: (1, L, D) embeddings of the empty prompt.
        negative_pooled: (1, D') or None.
    """

    embeds: Tensor
    pooled: Tensor | None
    negative_embeds: Tensor
    negative_pooled: Tensor | None

    def select(self, index: Tensor) -> Conditions:
        """Return the conditions of the rows named by ``index`` (B,)."""
        pooled = None if self.pooled is None else self.pooled[index]
        return Conditions(self.embeds[index], pooled, self.negative_embeds, self.negative_pooled)

    def to(self, dtype: torch.dtype) -> Conditions:
        """Return the conditions in another precision."""
        parts = (self.embeds, self.pooled, self.negative_embeds, self.negative_pooled)
        return Conditions(*(None if part is None else part.to(dtype) for part in parts))

    def guided(self) -> Conditions:
        """Return the 2B rows of classifier-free guidance: first the empty prompt, then the prompts."""
        rows = len(self.embeds)
        embeds = torch.cat([self.negative_embeds.expand(rows, -1, -1), self.embeds])
        if self.pooled is None:
            return Conditions(embeds, None, self.negative_embeds, None)
        pooled = torch.cat([self.negative_pooled.expand(rows, -1), self.pooled])
        return Conditions(embeds, pooled, self.negative_embeds, self.negative_pooled)


class PipelineModel(ABC):
    """A loaded diffusers pipeline of one family; subclasses name the class and the network.

    Attributes:
        spec: The entry of the model table.
        pipe: The pipeline, in evaluation precision, on the device.
        call: Keyword arguments of a normal call (steps, guidance, …) from ``call.json``.
        before_batch: Called before every decoding and every sampling step; may raise to end the work there.
    """

    before_batch: Callable[[], None] | None = None

    pipeline_class = ""
    network_name = ""

    def __init__(self, spec: ModelSpec, pipe: Any, call: dict[str, Any]):
        """Wrap a pipeline; use ``load`` to get one from a folder or the Hub."""
        self.spec = spec
        self.pipe = pipe
        self.call = call
        self.pipe.set_progress_bar_config(disable=True)
        for part in self.pipe.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        self._decoder: nn.Module = self.pipe.vae

    @classmethod
    def load(cls, spec: ModelSpec, device: str = "cpu") -> PipelineModel:
        """Load the pipeline of a table entry.

        Raises:
            FaultError: The folder is missing, damaged or of another class; the sentence names it.
        """
        import diffusers

        folder = locate(spec.location)
        try:
            settings = json.loads((folder / "call.json").read_text(encoding="utf-8"))
            pipe = getattr(diffusers, cls.pipeline_class).from_pretrained(folder, **settings["load"])
            return cls(spec, pipe.to(device), dict(settings["call"]))
        except StudioError:
            raise
        except Exception as error:
            if cause := known_cause(error):
                raise FaultError(f"The base model '{spec.name}' could not be loaded. {cause}") from error
            raise FaultError(
                f"The base model '{spec.name}' in {folder} could not be loaded: it is incomplete or damaged "
                f"({type(error).__name__}: {error}). Restore the folder, for example from a fresh checkout."
            ) from error

    @property
    def network(self) -> nn.Module:
        """The denoiser in evaluation precision, without adapter."""
        return getattr(self.pipe, self.network_name)

    @property
    def device(self) -> torch.device:
        """Where the pipeline lives."""
        return next(self.network.parameters()).device

    @property
    def guidance_scale(self) -> float:
        """Classifier-free guidance of a normal call; 1 means none."""
        return float(self.call.get("guidance_scale", 1.0))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one picture's latents."""
        size = self.network.config.sample_size
        height = self.call.get("height", size * self.pipe.vae_scale_factor) // self.pipe.vae_scale_factor
        width = self.call.get("width", size * self.pipe.vae_scale_factor) // self.pipe.vae_scale_factor
        return (self.network.config.in_channels, height, width)

    def prompt_problems(self, prompts: Sequence[str]) -> list[str]:
        """Return a sentence for each prompt that the tokenizer would cut off."""
        tokenizer = self.pipe.tokenizer
        limit = tokenizer.model_max_length
        lengths = [len(ids) for ids in tokenizer(list(prompts), truncation=False)["input_ids"]]
        return [
            f"The prompt '{prompt[:80]}' has {length} tokens; '{self.spec.name}' reads {limit} and would cut "
            "off the rest."
            for prompt, length in zip(prompts, lengths, strict=True)
            if length > limit
        ]

    def sampling_record(self, guidance_scale: float | None = None) -> dict[str, Any]:
        """Return the call arguments that reproduce an evaluation picture with plain diffusers."""
        changed = {} if guidance_scale is None else {"guidance_scale": guidance_scale}
        return self.call | changed

    def use_decoder_precision(self, dtype: torch.dtype) -> None:
        """Decode training pictures in ``dtype``; the pipeline's own decoder is left as it is."""
        decoder = copy.deepcopy(self.pipe.vae).to(self.device, dtype)
        self._decoder = decoder.to(memory_format=torch.channels_last)

    def decode(self, latents: Tensor) -> Tensor:
        """Return (B, 3, H, W) float32 pictures in [0, 1]; gradients flow to the latents."""
        self._check()
        config = self.pipe.vae.config
        scaled = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
        pictures = self._decoder.decode(scaled.to(self._decoder.dtype), return_dict=False)[0]
        return (pictures.float() / 2.0 + 0.5).clamp(0.0, 1.0)

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Conditions:
        """Encode prompts; row i of the result belongs to prompt i."""

    @abstractmethod
    def predict(self, network: nn.Module, latents: Tensor, timestep: float, rows: Conditions) -> Tensor:
        """Return the network's output (B, C, H, W) at one timestep, without guidance."""

    @abstractmethod
    def schedule(self, steps: int) -> Schedule:
        """Return the noise levels that a pipeline call with ``steps`` steps visits."""

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        guidance_scale: float | None = None,
        steps: int | None = None,
    ) -> Tensor:
        """Draw pictures by calling the pipeline itself, one CPU generator a picture.

        Args:
            prompts: B prompts.
            seeds: B seeds; picture i starts from ``torch.Generator("cpu").manual_seed(seeds[i])``.
            guidance_scale: Overrides the model's normal guidance.
            steps: Overrides the model's normal number of steps.

        Returns:
            (B, 3, H, W) float32 pictures on the CPU, rounded to the 8 bits of a PNG file.
        """
        arguments = self.sampling_record(guidance_scale)
        if steps is not None:
            arguments["num_inference_steps"] = steps
        pipe = self._own_pipeline()
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        with torch.inference_mode():
            result = pipe(
                prompt=list(prompts),
                generator=generators,
                output_type="pt",
                callback_on_step_end=self._after_step,
                **arguments,
            )
        return (result.images.float().cpu().clamp(0, 1) * 255).round() / 255

    def _check(self) -> None:
        if self.before_batch is not None:
            self.before_batch()

    def _after_step(self, _pipe, _step: int, _timestep, _tensors: dict) -> dict:
        """Ask between two steps of a pipeline call whether it goes on; changes nothing in it."""
        self._check()
        return {}

    def _own_pipeline(self):
        """Return the pipeline for one caller: shared networks, own scheduler and tokenizers.

        A call leaves its steps in the scheduler and its padding in the tokenizer, so calls that run side by
        side must not share them.
        """
        pipe = copy.copy(self.pipe)
        for name, part in self.pipe.components.items():
            if part is not None and name.startswith(("scheduler", "tokenizer")):
                setattr(pipe, name, copy.deepcopy(part))
        return pipe


def locate(location: str) -> Path:
    """Return the folder of an embedded asset.

    Raises:
        FaultError: There is no such folder.
    """
    folder = asset_root() / location
    if not folder.is_dir():
        raise FaultError(
            f"The model folder {folder} is missing. Restore it, for example from a fresh checkout."
        )
    return folder


def load_model(spec: ModelSpec, device: str = "cpu") -> PipelineModel:
    """Load a model through the adapter its table entry names."""
    return spec.load().load(spec, device)
