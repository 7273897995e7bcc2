"""A reward that works for a while and then returns something that is not a number."""

from trainers.rewards.contract import Reward


class BreaksLater(Reward):
    """Mean brightness, and not a number from the call after ``after`` on."""

    calls, after = 0, 10**9

    def __call__(self, images, prompts, metadata=None):
        type(self).calls += 1
        value = images.mean((1, 2, 3))
        return value * float("nan") if self.calls > self.after else value


def load(device: str = "cpu") -> BreaksLater:
    return BreaksLater()
