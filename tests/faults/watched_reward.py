"""A reward that does something once it has seen a number of pictures: ask for a stop, raise."""

import contextlib
import threading
from collections.abc import Callable

from trainers.registry import Spec
from trainers.rewards import REWARDS
from trainers.rewards.contract import Reward, RewardSpec


class Watched(Reward):
    """Mean brightness; calls ``act`` when more than ``after`` pictures were seen."""

    pictures, after, lock = 0, 10**9, threading.Lock()
    act: Callable[[], None] = staticmethod(lambda: None)

    def __call__(self, images, prompts, metadata=None):
        with self.lock:
            Watched.pictures += len(images)
        if Watched.pictures > Watched.after:
            Watched.act()
        return images.mean((1, 2, 3))


def load(device: str = "cpu") -> Watched:
    return Watched()


@contextlib.contextmanager
def registered():
    """Have the reward in the table under the name ``watched`` while the body runs."""
    spec = RewardSpec(
        name="watched",
        title="Watched",
        summary="Brightness that is listened to.",
        target="tests.faults.watched_reward:load",
        differentiable=True,
        low=0.0,
        high=1.0,
        unit="-",
        cost="none",
        source="this test",
    )
    assert isinstance(REWARDS.register(spec), Spec)
    try:
        yield Watched
    finally:
        REWARDS._specs.pop("watched")


def watch(after: int, act: Callable[[], None]) -> None:
    """Count from now on and act after so many pictures."""
    Watched.pictures, Watched.after, Watched.act = 0, after, staticmethod(act)


def ignore() -> None:
    """Go back to plain brightness."""
    watch(10**9, lambda: None)
