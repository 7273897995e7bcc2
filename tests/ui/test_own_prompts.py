"""Own prompts that the reward or the model cannot use are told before anything is queued."""

import pytest

from rsm_app.jobs.limits import Limits
from rsm_app.jobs.store import RunStore
from rsm_app.jobs.supervisor import Supervisor
from rsm_app.ui import field_problems, fields, form
from rsm_app.ui.api import Api
from tests.ui.asking import asker
from trainers.errors import InputError

CAT = "a photo of a cat"


def filled(**changes) -> form.Form:
    """Return the newcomer's form with pasted prompts, and other changes."""
    config = form.newcomer_config()
    advanced = dict(zip(fields.ADVANCED, fields.values_of(config), strict=True))
    advanced |= {name: changes.pop(name) for name in [*changes] if name in advanced}
    values = {
        "model": config.model, "reward": config.reward, "mixture": "", "estimator": config.estimator,
        "prompt_source": form.PASTE, "prompt_set": config.prompts, "pasted": "a red circle", "upload": None,
        "budget": "90", "custom_seconds": None, "seed": 0,
    }  # fmt: skip
    return form.Form(**values | changes, advanced=tuple(advanced.values()))


def test_what_the_reward_cannot_score_is_told_at_the_prompts():
    with pytest.raises(field_problems.FormError) as told:
        form.check(filled(pasted=f"a red circle\n{CAT}"))
    ((sentence, place),) = told.value.found.items()
    assert place == field_problems.PROMPTS and f"Cannot read '{CAT}'" in sentence
    config, text = form.check(filled(pasted=CAT, reward="brightness"))
    assert config.reward == "brightness" and text == f"{CAT}\n"


def test_what_the_model_would_cut_off_is_told_at_the_prompts():
    with pytest.raises(field_problems.FormError) as told:
        form.check(filled(pasted=f"{CAT} on a mat in the sun", reward="brightness"))
    ((sentence, place),) = told.value.found.items()
    assert place == field_problems.PROMPTS and "would cut off the rest" in sentence


def test_held_out_prompts_are_told_at_their_own_section():
    with pytest.raises(field_problems.FormError) as told:
        form.check(filled(heldout_prompts="general-heldout"))
    assert set(told.value.found.values()) == {fields.group_of("heldout_prompts")}


def test_programs_are_told_and_nothing_is_queued(tmp_path, monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    supervisor = Supervisor(RunStore(tmp_path / "runs"), Limits(free_mb=0))
    try:
        with pytest.raises(InputError, match=f"Cannot read '{CAT}'"):
            Api(supervisor).start_run(asker(), prompts=f"a red circle\n{CAT}")
        with pytest.raises(InputError, match="as a shapes caption"):
            Api(supervisor).start_run(asker(), settings={"heldout_prompts": "general-heldout"})
        assert supervisor.store.runs() == []
    finally:
        supervisor.close()
