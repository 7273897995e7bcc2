"""The policy that is trained: one network in three guises, with and without the LoRA.

``output`` runs the network with its adapter and keeps the graph, ``reference`` runs it without, and
``sample_output`` runs a copy into which the adapter was merged (float32 weights plus LoRA, rounded once), so
that rollouts pay nothing for the adapter. The LoRA itself stays in float32, and every output is returned in
float32 because kernels and log-ratios are computed there.

Moving averages of the LoRA (``follow``) have a purpose each: ``ROLLOUT`` makes the rollouts in the place of
the trained policy (DiffusionNFT's "old" policy, ``old_output``), ``PULL`` is what W2 holds the policy near
(AWM), and ``SHIPPED`` is evaluated and saved.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from trainers.core.precision import in_full_precision
from trainers.core.schedule import Schedule
from trainers.errors import InputError
from trainers.models.base import Conditions, PipelineModel
from trainers.models.conditions import Chosen
from trainers.parallel import map_chunks
from trainers.phases import phase

ADAPTER = "default"
ROLLOUT, PULL, SHIPPED = "rollout", "pull", "shipped"
Steps = int | Tensor  # one step for all rows, or (B,) the step of each
COMPILED_PER_KIND = 16  # with and without gradient, adapter and guidance, for one and for any number of rows


def _go_on() -> None:
    """Let every batch run."""


class Policy:
    """A model's network with a trainable LoRA.

    Attributes:
        model: The family adapter.
        rank, alpha: Of the LoRA.
        dtype: Precision of the networks.
        network: The denoiser in training precision with the LoRA injected.
        guidance_scale: Classifier-free guidance of every output; 1 means none.
        train_unconditional: Whether the unconditional half of classifier-free guidance carries gradient.
        evaluations: Network evaluations so far, in rows (guidance counts twice).
        sampled: Those of them that the merged copy made.
        ships_average: Whether the average that is evaluated and saved has taken up anything yet; before, the
            trained weights themselves are, so that a short run is not the base model.
        before_batch: Called before every pass through the network; may raise to end the work there.
    """

    before_batch: Callable[[], None] = staticmethod(_go_on)
    train_unconditional = True
    ships_average = False

    def __init__(
        self,
        model: PipelineModel,
        rank: int,
        alpha: float,
        seed: int,
        dtype: torch.dtype = torch.float32,
        guidance_scale: float | None = None,
        micro_batch: int = 128,
        compiled: bool = False,
    ):
        """Copy the model's network into ``dtype`` and inject a LoRA whose initial effect is zero.

        Args:
            model: The family adapter.
            rank: Of the LoRA.
            alpha: The LoRA's scale is alpha / rank.
            seed: Of the LoRA's initial weights.
            dtype: Precision of the networks.
            guidance_scale: Of every output; the model's own when None.
            micro_batch: Rows that pass through the network at once.
            compiled: Whether the network's repeated blocks are compiled when they are first used.

        Raises:
            InputError: The network offers no checkpoints or has no repeated blocks to compile.
        """
        self.model = model
        self.rank, self.alpha, self.dtype = rank, float(alpha), dtype
        self.guidance_scale = model.classifier_free_scale(guidance_scale)
        self.micro_batch = micro_batch
        self.evaluations = self.sampled = 0
        if model.footprint.one_network:  # then the LoRA is never merged, and leaves with ``forget_lora``
            self._merged = self.network = model.network.to(dtype)
        else:
            self._merged = copy.deepcopy(model.network).to(dtype)
            self.network = copy.deepcopy(self._merged)
        self._add_lora(seed)
        if model.footprint.gradient_checkpointing:
            _save_memory(self.network)
        if compiled:
            _compile(self._merged, self.network)
        self._averages: dict[str, list[Tensor]] = {}
        self._sampled = ROLLOUT

    def _add_lora(self, seed: int) -> None:
        """Inject the LoRA into the training network, in full precision."""
        lora_config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=list(self.model.spec.lora_targets),
            init_lora_weights="gaussian",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network.add_adapter(lora_config, ADAPTER)
        for parameter in self.parameters():
            parameter.data = in_full_precision(parameter.data)

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return self.model.device

    def parameters(self) -> list[nn.Parameter]:
        """Return the LoRA's parameters, in a fixed order."""
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def state(self) -> dict[str, Tensor]:
        """Return the LoRA's tensors by name, in float32."""
        tensors = get_peft_model_state_dict(self.network, adapter_name=ADAPTER)
        return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put back the tensors of ``state``."""
        set_peft_model_state_dict(self.network, tensors, adapter_name=ADAPTER)
        self.refresh()

    @torch.no_grad()
    def follow(self, decay: float, purpose: str = ROLLOUT) -> None:
        """Let an average keep ``decay`` of itself and take the rest from the trained policy."""
        current = [parameter.detach() for parameter in self.parameters()]
        if purpose not in self._averages:
            self._averages[purpose] = [tensor.clone() for tensor in current]
        for old, new in zip(self._averages[purpose], current, strict=True):
            old.lerp_(new, 1.0 - decay)

    def restart_averages(self) -> None:
        """Let every average begin again with the trained policy's weights."""
        for purpose in self._averages:
            self.follow(0.0, purpose)

    def trailing_state(self) -> dict[str, Tensor]:
        """Return the averages' tensors by purpose and number; empty when there is none."""
        return {
            f"{purpose}/{number}": tensor.clone()
            for purpose, tensors in self._averages.items()
            for number, tensor in enumerate(tensors)
        }

    def load_trailing(self, tensors: dict[str, Tensor]) -> None:
        """Put back the tensors of ``trailing_state``; those of earlier versions, without a purpose, too."""
        tensors = {name if "/" in name else f"{ROLLOUT}/{name}": part for name, part in tensors.items()}
        counts: dict[str, int] = {}
        for name in tensors:
            purpose = name.partition("/")[0]
            counts[purpose] = counts.get(purpose, 0) + 1
        self._averages = {
            purpose: [tensors[f"{purpose}/{i}"].to(self.device, copy=True) for i in range(count)]
            for purpose, count in counts.items()
        }

    @contextlib.contextmanager
    def _as(self, purpose: str):
        """Run the body with an average's LoRA in the training network, if there is that average."""
        if purpose not in self._averages:
            yield
            return
        parameters = self.parameters()
        kept = [parameter.data for parameter in parameters]
        try:
            for parameter, average in zip(parameters, self._averages[purpose], strict=True):
                parameter.data = average
            yield
        finally:
            for parameter, own in zip(parameters, kept, strict=True):
                parameter.data = own

    @property
    def trails(self) -> bool:
        """Whether the rollout policy differs from the trained one."""
        return ROLLOUT in self._averages

    @torch.no_grad()
    def old_output(
        self,
        latents: Tensor,
        schedule: Schedule,
        step: Steps,
        rows: Conditions,
        purpose: str = ROLLOUT,
    ) -> Tensor:
        """Return an average's output (B, C, H, W) float32, computed like ``output``."""
        with self._as(purpose):
            return self.output(latents, schedule, step, rows)

    @torch.no_grad()
    def refresh(self) -> None:
        """Merge the rollout policy's present weights into the sampling copy."""
        with self._as(ROLLOUT):
            self._merge()

    def shipped_state(self) -> dict[str, Tensor]:
        """Return the tensors that are evaluated and saved, by name: of their average, once that has moved."""
        with self._as(SHIPPED) if self.ships_average else contextlib.nullcontext():
            return self.state()

    @contextlib.contextmanager
    def as_shipped(self):
        """Let ``sample_output`` answer within the body with the weights that are evaluated and saved."""
        if not self._averages:
            yield
            return
        shown = SHIPPED if self.ships_average else ""
        if self._merged is self.network:
            self._sampled = shown
        else:
            with torch.no_grad(), self._as(shown):
                self._merge()
        try:
            yield
        finally:
            self._sampled = ROLLOUT
            self.refresh()

    def _merge(self) -> None:
        if self._merged is self.network:
            return
        base = dict(self.model.network.named_modules())
        merged = dict(self._merged.named_modules())
        for name, layer in self.network.named_modules():
            if isinstance(layer, LoraLayer):
                weight = in_full_precision(base[name].weight) + layer.get_delta_weight(ADAPTER)
                merged[name].weight.copy_(weight)

    def output(self, latents: Tensor, schedule: Schedule, step: Steps, rows: Conditions) -> Tensor:
        """Return o_θ (B, C, H, W) float32, with gradient to the LoRA."""
        self._count(latents)
        return self._guided(self.network, latents, schedule, step, rows)

    @torch.no_grad()
    def reference(self, latents: Tensor, schedule: Schedule, step: Steps, rows: Conditions) -> Tensor:
        """Return o_ref (B, C, H, W) float32 of the base model, adapter off."""
        return self.base_output(latents, schedule, step, rows)

    def base_output(self, latents: Tensor, schedule: Schedule, step: Steps, rows: Conditions) -> Tensor:
        """Return o_ref (B, C, H, W) float32, with gradient to the latents where these want one."""
        self._count(latents)
        with self._adapter_off():
            return self._guided(self.network, latents, schedule, step, rows)

    def sample_output(
        self, latents: Tensor, schedule: Schedule, step: int, rows: Conditions | Chosen
    ) -> Tensor:
        """Return the rollout policy's output (B, C, H, W) float32, in chunks of ``micro_batch`` rows."""

        @torch.no_grad()  # here, because every thread has a grad mode of its own
        def run(chunk: Tensor) -> Tensor:
            return self._guided(self._merged, latents[chunk], schedule, step, rows.select(chunk))

        counted = self.evaluations
        self._count(latents)
        self.sampled += self.evaluations - counted
        chunks = torch.arange(len(latents), device=latents.device).split(self.micro_batch)
        unmerged = self._merged is self.network
        with self._as(self._sampled) if unmerged else contextlib.nullcontext():
            return torch.cat(map_chunks(run, chunks, latents.device))

    def _count(self, latents: Tensor) -> None:
        self.evaluations += len(latents) * (2 if self.guidance_scale > 1.0 else 1)

    def _guided(self, network, latents, schedule, step, rows) -> Tensor:
        self.before_batch()
        timestep = _timestep(schedule, step)
        rows = rows.to(network.dtype)
        scale = self.guidance_scale
        if scale <= 1.0:
            with phase(self._activity(network)):
                return in_full_precision(self.model.predict(network, latents, timestep, rows))
        doubled, rows = torch.cat([latents, latents]), rows.guided()
        training = torch.is_grad_enabled() or network is not self._merged
        if not self.train_unconditional and training and not latents.requires_grad:
            return self._guided_by_constant(network, latents, timestep, rows)
        with phase(self._activity(network)):
            twice = timestep if isinstance(timestep, float) else timestep.repeat(2)
            both = in_full_precision(self.model.predict(network, doubled, twice, rows))
        empty, prompted = both.chunk(2)
        return empty + scale * (prompted - empty)

    def _guided_by_constant(self, network, latents, timestep, rows: Conditions) -> Tensor:
        """Return the guided output whose unconditional part carries no gradient."""
        half = len(latents)
        with torch.no_grad(), phase(self._activity(network)):
            empty = self.model.predict(network, latents, timestep, rows.select(slice(half)))
        with phase(self._activity(network)):
            prompted = self.model.predict(network, latents, timestep, rows.select(slice(half, None)))
        empty, prompted = in_full_precision(empty), in_full_precision(prompted)
        return empty + self.guidance_scale * (prompted - empty)

    def _activity(self, network: nn.Module) -> str:
        shared = self._merged is self.network  # then only training follows gradients through it
        if network is self._merged and not (shared and torch.is_grad_enabled()):
            return "rollout_network"
        return "training_forward" if torch.is_grad_enabled() else "reference_network"

    @contextlib.contextmanager
    def _adapter_off(self):
        self.network.disable_adapters()
        try:
            yield
        finally:
            self.network.enable_adapters()


def _timestep(schedule: Schedule, step: Steps) -> float | Tensor:
    """Return what the network is given at a step, or (B,) at the step of each row."""
    return schedule.timesteps[step] if isinstance(step, Tensor) else float(schedule.timesteps[step])


def _save_memory(network: nn.Module) -> None:
    """Let the backward pass recompute the network's blocks from their inputs."""
    if not getattr(network, "_supports_gradient_checkpointing", False):
        raise InputError(
            f"{type(network).__name__} cannot recompute activations: set 'gradient_checkpointing' to off."
        )
    network.enable_gradient_checkpointing()


def _compile(*networks: nn.Module, backend: str = "inductor") -> None:
    """Compile each network's repeated blocks, once for all blocks of a kind, when they are first used."""
    kinds = set()
    for network in networks:
        # Not every class of diffusers names its repeated blocks; those that no device may split are the same.
        names = (
            getattr(network, "_repeated_blocks", None) or getattr(network, "_no_split_modules", None) or ()
        )
        blocks = [module for module in network.modules() if type(module).__name__ in names]
        if not blocks:
            raise InputError(
                f"'compile' is regional, but {type(network).__name__} names no repeated blocks; use off."
            )
        for block in blocks:
            kinds.add((type(block), tuple(tuple(part.shape) for part in block.parameters())))
            block.compile(backend=backend)
    _allow_compilations(len(kinds))


def _allow_compilations(kinds: int) -> None:
    """Let the compiler make every kind of block: beyond its limit it silently leaves blocks as they are."""
    from torch._dynamo import config

    wanted = kinds * COMPILED_PER_KIND
    config.recompile_limit = max(config.recompile_limit, wanted)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, wanted)
