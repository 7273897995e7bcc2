"""A reward that works for a while and then returns something that is not a number."""

import threading

from trainers.rewards.contract import Reward


class BreaksLater(Reward):
    """Mean brightness, and not a number once more than ``after`` pictures were seen."""

    pictures, after, lock = 0, 10**9, threading.Lock()

    def __call__(self, images, prompts, metadata=None):
        with self.lock:
            type(self).pictures += len(images)
        value = images.mean((1, 2, 3))
        return value * float("nan") if self.pictures > self.after else value


def load(device: str = "cpu") -> BreaksLater:
    return BreaksLater()
