"""What every model family offers to the engine, around an ordinary diffusers pipeline.

The pipeline itself stays whole and in its evaluation precision: before/after pictures are drawn by calling
it like any user would, so they can be reproduced without this project. The engine's rollouts use the
adapter's four verbs instead: ``encode``, ``predict``, ``decode`` and ``schedule``.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainers.core.schedule import Schedule
from trainers.errors import InputError
from trainers.models import ModelSpec
from trainers.models.conditions import Conditions
from trainers.models.encoding import PromptStore, encoder_names
from trainers.models.families import FAMILIES, Reads
from trainers.models.loading import open_pipeline, open_tiny_decoder
from trainers.models.memory import EVERYTHING, Footprint, footprint_on
from trainers.models.readable import count_tokens, cut_off, reads_of


class PipelineModel(ABC):
    """A loaded diffusers pipeline of one family; subclasses name the class and the network.

    Attributes:
        spec: The entry of the model table.
        pipe: The pipeline, in evaluation precision, on the device.
        call: Keyword arguments of a normal call (steps, guidance, …).
        footprint: What of it stays on the device, and how many rows pass at once.
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
        self.footprint: Footprint = EVERYTHING
        self.pipe.set_progress_bar_config(disable=True)
        for part in self.pipe.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        self._device = next(self.network.parameters()).device
        self._decoder: nn.Module = self.pipe.vae
        self._store: PromptStore | None = None

    @classmethod
    def load(cls, spec: ModelSpec, device: str = "cpu") -> PipelineModel:
        """Load the pipeline of a table entry.

        Raises:
            InputError: The checkpoint cannot be trained; the sentence says why.
            FaultError: The folder is missing, damaged or of another class; the sentence names it.
        """
        footprint = footprint_on(spec, device)
        pipe, call = open_pipeline(spec, cls.pipeline_class, device, footprint)
        model = cls(spec, pipe, call)
        model.use_footprint(footprint)
        model._check_schedule()
        if spec.decoder == "tiny":
            model._decoder = open_tiny_decoder(spec, device, pipe.vae.dtype)
        return model

    def _check_schedule(self) -> None:
        """Refuse a scheduler whose noise levels cannot be trained at, before anything is drawn."""
        try:
            self.schedule(int(self.call.get("num_inference_steps", 10)))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            name = type(self.pipe.scheduler).__name__
            raise InputError(
                f"The base model '{self.spec.name}' cannot be trained with its scheduler {name}: {error} "
                "Choose another scheduler for it."
            ) from error

    def use_footprint(self, footprint: Footprint) -> None:
        """Keep to a memory preset: where encoders are, pictures one by one; ``Policy`` sees to the rest."""
        self.footprint = footprint
        if footprint.offload:
            self._store = PromptStore(self.pipe, self.device, self._encode, footprint.encoding)
        if footprint.slicing and hasattr(self.pipe.vae, "enable_slicing"):
            self.pipe.vae.enable_slicing()

    @property
    def network(self) -> nn.Module:
        """The denoiser in evaluation precision, without adapter."""
        return getattr(self.pipe, self.network_name)

    @property
    def device(self) -> torch.device:
        """Where the denoiser lives, but for a while in which prompts may need its room."""
        return self._device

    # -- guidance ------------------------------------------------------------------------------------

    @property
    def guidance_scale(self) -> float:
        """Guidance of a normal call: classifier-free (1 means none), or the distilled scale."""
        return float(self.call.get("guidance_scale", 1.0))

    def classifier_free_scale(self, asked: float | None = None) -> float:
        """Return the scale at which the empty prompt is evaluated too; 1 means it is not.

        Args:
            asked: The run's own scale, or None for that of a normal call.
        """
        if self.spec.guidance == "distilled":
            return 1.0
        return self.guidance_scale if asked is None else asked

    def guidance_arguments(self, scale: float) -> dict[str, Any]:
        """Return the call's arguments for a guidance scale."""
        return {"guidance_scale": scale}

    # -- sizes ---------------------------------------------------------------------------------------

    @property
    def latent_channels(self) -> int:
        """Channels C of the latents."""
        return self.network.config.in_channels

    def default_size(self) -> tuple[int, int]:
        """Return height and width in pixels of what a call without a size draws."""
        size, factor = self.network.config.sample_size, self.pipe.vae_scale_factor
        if size is None:
            raise InputError(f"'{self.spec.name}' does not say how large its pictures are: set 'resolution'.")
        height, width = (size, size) if isinstance(size, int) else size
        return height * factor, width * factor

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of a picture, in pixels."""
        if "height" in self.call and "width" in self.call:
            return self.call["height"], self.call["width"]
        height, width = self.default_size()
        return self.call.get("height", height), self.call.get("width", width)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one picture's latents."""
        height, width = self.picture_size
        factor = self.pipe.vae_scale_factor
        return (self.latent_channels, height // factor, width // factor)

    # -- prompts -------------------------------------------------------------------------------------

    def prompt_problems(self, prompts: Sequence[str]) -> list[str]:
        """Return a sentence for each prompt that the tokenizer would cut off."""
        reads = self._reads()
        if reads is None:
            return []
        found = count_tokens(getattr(self.pipe, reads.tokenizer), reads, self.call, prompts)
        return cut_off(self.spec.name, prompts, found)

    def _reads(self) -> Reads | None:
        return reads_of(self.pipeline_class, lambda part: getattr(self.pipe, part, None) is not None)

    @property
    def tokens_read(self) -> int:
        """The call's own number of tokens of a prompt, where the pipeline has such an argument."""
        return int(self.call.get("max_sequence_length", FAMILIES[self.pipeline_class].reads[0].tokens))

    def encode(self, prompts: Sequence[str]) -> Conditions:
        """Encode prompts; row i of the result belongs to prompt i.

        Where encoders are kept off the device every prompt is encoded once, and rows wait in main memory.
        """
        return self._encode(prompts) if self._store is None else self._store.get(prompts)

    def remember(self, prompts: Sequence[str]) -> None:
        """Encode prompts that will be drawn later all at once, because the encoders come and go for it."""
        if self._store is not None:
            self._store.add(prompts)

    @abstractmethod
    def _encode(self, prompts: Sequence[str]) -> Conditions:
        """Encode prompts with the pipeline's own encoders."""

    @abstractmethod
    def call_arguments(self, rows: Conditions) -> dict[str, Any]:
        """Return the arguments that stand for the prompts ``rows`` in a pipeline call."""

    # -- the network ---------------------------------------------------------------------------------

    @abstractmethod
    def predict(
        self, network: nn.Module, latents: Tensor, timestep: float | Tensor, rows: Conditions
    ) -> Tensor:
        """Return the network's output (B, C, H, W), without classifier-free guidance.

        Args:
            network: The network, with or without a LoRA.
            latents: (B, C, H, W) noisy states.
            timestep: What the network is given as the time, for all rows or (B,) for each.
            rows: The rows' encoded prompts.
        """

    @abstractmethod
    def schedule(self, steps: int) -> Schedule:
        """Return the noise levels that a pipeline call with ``steps`` steps visits."""

    # -- pictures ------------------------------------------------------------------------------------

    def use_decoder_precision(self, dtype: torch.dtype) -> None:
        """Decode training pictures in ``dtype``; the pipeline's own decoder is left as it is.

        Decoders that overflow in float16 (SDXL's) say so in their config and get float32.
        """
        if dtype == torch.float16 and self._decoder.config.get("force_upcast"):
            dtype = torch.float32
        decoder = copy.deepcopy(self._decoder).to(self.device, dtype)
        self._decoder = decoder.to(memory_format=torch.channels_last)

    def decode(self, latents: Tensor) -> Tensor:
        """Return (B, 3, H, W) float32 pictures in [0, 1]; gradients flow to the latents."""
        self._check()
        config = self._decoder.config
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is None or std is None:
            scaled = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
        else:
            shape = (1, -1, 1, 1)
            scaled = latents * latents.new_tensor(std).view(shape) / config.scaling_factor
            scaled = scaled + latents.new_tensor(mean).view(shape)
        pictures = self._decoder.decode(scaled.to(self._decoder.dtype), return_dict=False)[0]
        return (pictures.float() / 2.0 + 0.5).clamp(0.0, 1.0)

    def sampling_record(self, guidance_scale: float | None = None) -> dict[str, Any]:
        """Return the call arguments that reproduce an evaluation picture with plain diffusers."""
        changed = {} if guidance_scale is None else self.guidance_arguments(guidance_scale)
        return self.call | changed

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
        arguments |= self._step_hook()
        pipe = self._own_pipeline()
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        with torch.inference_mode():
            words = self._words(prompts)
            result = pipe(**words, generator=generators, output_type="pt", **arguments)
        return (result.images.float().cpu().clamp(0, 1) * 255).round() / 255

    def _words(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Return what a call is given: the prompts, or their embeddings where no encoder is at hand."""
        if self._store is None and encoder_names(self.pipe):
            return {"prompt": list(prompts)}
        rows = self.encode(prompts).select(slice(None))
        return {"prompt": None, **self.call_arguments(rows.to(self.network.dtype))}

    def _step_hook(self) -> dict[str, Any]:
        """Return the call's arguments by which it asks between two steps whether it goes on."""
        if "callback_on_step_end" in inspect.signature(type(self.pipe).__call__).parameters:
            return {"callback_on_step_end": self._after_step}
        return {"callback": lambda *_: self._check(), "callback_steps": 1}

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
        side must not share them. Encoders that are not on the device are left out, or the pipeline would
        take their device for its own.
        """
        pipe = copy.copy(self.pipe)
        for name, part in self.pipe.components.items():
            if part is not None and name.startswith(("scheduler", "tokenizer")):
                setattr(pipe, name, copy.deepcopy(part))
        if self._store is not None:
            for name in encoder_names(self.pipe):
                setattr(pipe, name, None)
        return pipe

    # -- the adapter ---------------------------------------------------------------------------------

    def save_lora(self, folder: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Write a LoRA as diffusers reads it.

        Args:
            folder: An existing folder.
            tensors: The LoRA by name.
            metadata: Its PEFT config; without it diffusers would assume alpha = rank.
        """
        name = self.network_name
        arguments = {f"{name}_lora_layers": tensors, f"{name}_lora_adapter_metadata": metadata}
        type(self.pipe).save_lora_weights(folder, safe_serialization=True, **arguments)

    def load_lora(self, folder: Path) -> None:
        """Load a saved LoRA into the pipeline with plain diffusers."""
        self.pipe.load_lora_weights(folder)

    def forget_lora(self) -> None:
        """Take every LoRA out of the network, so that a saved one can be loaded."""
        if self.lora_names():
            self.network.unload_lora()

    def lora_names(self) -> list[str]:
        """Return the names of the LoRAs in the network."""
        return list(getattr(self.network, "peft_config", None) or {})

    def set_strength(self, strength: float) -> None:
        """Let the loaded LoRA count ``strength`` times; 0 switches it off."""
        if strength == 0:
            self.network.disable_lora()
            return
        names = self.lora_names()
        self.network.enable_lora()
        self.network.set_adapters(names, [strength] * len(names))


def load_model(spec: ModelSpec, device: str = "cpu") -> PipelineModel:
    """Load a model through the adapter its table entry names."""
    return spec.load().load(spec, device)
