"""What published rewards need: tiny checkpoints in the place of theirs, and servers that answer."""

import pytest

from tests.rewards.checkpoints import write_all
from tests.rewards.servers import judging, pickled, serving


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """The folder with every checkpoint."""
    return write_all(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module", autouse=True)
def surroundings(published, tmp_path_factory):
    """Let every reward of the table find what it needs."""
    with pytest.MonkeyPatch.context() as patch, serving(pickled) as server, serving(judging) as judge:
        patch.setenv("RSM_WEIGHTS", str(published))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("RSM_REWARD_SERVER", server.address)
        patch.setenv("RSM_JUDGE_URL", judge.address)
        patch.setenv("RSM_JUDGE_MODEL", "tiny-judge")
        patch.setenv("RSM_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("RSM_JUDGE_KEY_VARIABLE", raising=False)
        patch.delenv("SYSTEM", raising=False)
        patch.setenv("RSM_ALLOW_OWN_CODE", "1")
        yield
