"""Which base models a machine can train, by the memory that the driver's tool tells."""

import pytest

from rsm_app.jobs import devices, fitting
from trainers.errors import InputError
from trainers.models import EMBEDDED, MODELS


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A machine whose driver tool, a real program, tells GPUs of some sizes in MiB."""

    def install(*sizes):
        tool = tmp_path / "nvidia-smi"
        listing = "".join(f"echo 'GPU {i}: a card'\n" for i in range(len(sizes)))
        memory = "".join(f"echo {size}\n" for size in sizes)
        tool.write_text(f'#!/bin/sh\nif [ "$1" = -L ]; then\n:\n{listing}else\n:\n{memory}fi\n')
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        monkeypatch.delenv("RSM_DEVICES", raising=False)
        monkeypatch.delenv(devices.VISIBLE, raising=False)
        for cached in (devices._gpus, devices._driver):
            cached.cache_clear()

    yield install
    for cached in (devices._gpus, devices._driver):
        cached.cache_clear()


def test_without_a_gpu_only_the_embedded_models_are_offered(driver):
    driver()
    assert tuple(spec.name for spec in fitting.trainable()) == EMBEDDED
    assert fitting.device_problem(MODELS.get("sd15")) == "needs a GPU with 12 GB; this machine has none."
    with pytest.raises(InputError, match="Stable Diffusion 1.5 needs a GPU with 12 GB"):
        fitting.require_model("sd15")
    fitting.require_model("tiny-flow")


def test_a_larger_gpu_offers_more_models(driver):
    offered = []
    for size in (12_288, 24_564, 49_140, 81_559):
        driver(4_096, size)
        offered.append({spec.name for spec in fitting.trainable()})
    assert all(less <= more for less, more in zip(offered, offered[1:], strict=False))
    assert "sd35-medium" in offered[0] and "flux-dev" not in offered[1] and "flux-dev" in offered[2]
    assert offered[-1] == set(MODELS.names())
    driver(24_564)
    told = fitting.device_problem(MODELS.get("flux-dev"))
    assert told == "needs a GPU with 48 GB; the largest here has 26 GB."


@pytest.mark.parametrize("name", ["owner/model", "/etc", "./model", "~", "tiny-flaw", ""])
def test_visitors_name_models_of_the_table_only(name, driver):
    driver(81_559)
    with pytest.raises(InputError, match="Unknown model"):
        fitting.require_model(name)
