"""A reward that does something once it has seen a number of pictures: ask for a stop, raise."""

import contextlib
import threading
from collections.abc import Callable, Iterator

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
def registered(name: str, target: str) -> Iterator[None]:
    """Have a reward in the table while the body runs."""
    spec = RewardSpec(
        name=name,
        title=name.title(),
        summary="For one test.",
        target=target,
        differentiable=True,
        low=0.0,
        high=1.0,
        unit="-",
        cost="none",
        source="this test",
    )
    assert isinstance(REWARDS.register(spec), Spec)
    try:
        yield
    finally:
        REWARDS._specs.pop(name)


@contextlib.contextmanager
def watched() -> Iterator[type[Watched]]:
    """Have the reward ``watched`` in the table while the body runs."""
    with registered("watched", "tests.faults.watched_reward:load"):
        yield Watched


def watch(after: int, act: Callable[[], None]) -> None:
    """Count from now on and act after so many pictures."""
    Watched.pictures, Watched.after, Watched.act = 0, after, staticmethod(act)


def ignore() -> None:
    """Go back to plain brightness."""
    watch(10**9, lambda: None)
