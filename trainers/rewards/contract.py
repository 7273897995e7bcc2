"""What a reward is: its row in the table and what it does when called.

A reward scores finished pictures; it never sees latents, time steps or the policy. Rewards are
maximised. A differentiable one passes gradients to the pictures, a black-box one returns detached
values; which of the two is a field of its row. Imports no torch, so that the table can be listed cheaply.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainers.registry import Spec, resolve

if TYPE_CHECKING:
    from torch import Tensor

    from trainers.config import RunConfig
    from trainers.rewards.weights import Weights


@dataclass(frozen=True, kw_only=True)
class RewardSpec(Spec):
    """One row of the reward table; `target` names a factory `load(device: str) -> Reward`.

    Args:
        differentiable: gradients flow from the values to the pictures; otherwise a black box.
        low: smallest possible value, in `unit`; may be -inf.
        high: largest possible value, in `unit`; may be inf.
        unit: what one unit of the value means.
        cost: how expensive one picture is, in words.
        source: the paper or standard the definition comes from.
        better: which direction is better; rewards are maximised, so always "higher".
        weights: published files that it needs.
        examples: captions it can score, for rewards that cannot score any caption.
        prompts: built-in prompt sets made for it, NAME-train and NAME-heldout; empty where any will do.
        configured: its factory is `load(device, config)` and reads settings of the run.
        check: "module:attribute" of a function (config, ask) → sentences that say what else is missing.
        compositional: whether it checks what a caption asks for, like GenEval; some methods have settings
            for it.
        reads: "module:attribute" of a torch-free function (prompts, config) → sentences about prompts that it
            cannot score; empty where it scores any.
    """

    differentiable: bool
    low: float
    high: float
    unit: str
    cost: str
    source: str
    better: str = "higher"
    weights: tuple[Weights, ...] = ()
    examples: tuple[str, ...] = ()
    prompts: str = ""
    configured: bool = False
    compositional: bool = False
    check: str = ""
    reads: str = ""

    def obstacles(self, config: RunConfig, ask: bool = True) -> list[str]:
        """Return a sentence for everything that keeps the reward from working on this machine.

        Args:
            config: the settings of the run.
            ask: whether the network may be asked; without, only what is certain is told.
        """
        found = [sentence for part in self.weights if (sentence := part.obstacle(ask)) is not None]
        if self.check:
            found += resolve(self.check)(config, ask)
        return found

    def unscorable(self, prompts: Sequence[str], config: RunConfig) -> list[str]:
        """Return a sentence for the first of some prompts that the reward cannot score; loads nothing.

        Args:
            prompts: the prompts.
            config: the settings of the run, whose prompt files may say more about a prompt than its text.
        """
        return resolve(self.reads)(prompts, config) if self.reads else []


class Reward(ABC):
    """A picture score, to be maximised.

    Shapes: B pictures of height H and width W.
    """

    @abstractmethod
    def __call__(
        self, images: Tensor, prompts: Sequence[str], metadata: Mapping[str, Any] | None = None
    ) -> Tensor:
        """Score pictures.

        Args:
            images: (B, 3, H, W), floating point, in [0, 1].
            prompts: the B captions the pictures were drawn for.
            metadata: further facts about the prompts, for rewards that need them.

        Returns:
            (B,) float32, on the device of `images`.
        """

    def interrupt_with(self, check: Callable[[float], None]) -> None:
        """Let what ``check`` raises end a wait for a server; most rewards wait for none.

        Args:
            check: called with the seconds waited, several times a second.
        """
        return None
