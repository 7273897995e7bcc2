"""What a person sees (``ui``) and what keeps their runs alive (``jobs``). No mathematics, no torch.

Whoever may use the app must not be able to run code or send requests of their own on its machine, so unless
the environment says otherwise this process and its workers refuse both; ``trainers.rewards.own`` asks.
"""

import os

from trainers.rewards.own import PERMISSION

os.environ.setdefault(PERMISSION, "0")
