"""The playground draws what the comparison drew, bit for bit, and says what it cannot draw."""

from __future__ import annotations

import json
import shutil
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.e2e.shell import settings, trainers
from trainers import playground as pg
from trainers.errors import FaultError, InputError
from trainers.models import MODELS
from trainers.models.base import load_model
from trainers.pictures import read_pictures
from trainers.playground import Playground
from trainers.run_folder import RunFolder
from trainers.wish import MAX_SEED, Wish, WishError, read_wish

MODELS_AND_METHODS = {
    "tiny-flow": "rsm_first_order_flow",
    "tiny-diffusion": "rsm_first_order_diffusion",
}


@pytest.fixture(scope="module", params=list(MODELS_AND_METHODS))
def run(request, tmp_path_factory) -> RunFolder:
    """A finished run whose comparison takes several batches."""
    path = tmp_path_factory.mktemp("playground") / "run"
    method = MODELS_AND_METHODS[request.param]
    words = ["--model", request.param, "--reward", "brightness", "--estimator", method, "--out", str(path)]
    quick = settings(max_updates=2, budget_seconds=900, eval_batch=5, learning_rate=0.002)
    done = trainers("train", *words, *quick)
    assert done.returncode == 0, done.stderr[-2000:]
    return RunFolder(path)


@pytest.fixture(scope="module")
def playground() -> Playground:
    return Playground()


def own_wish(run: RunFolder, index: int, **changes) -> Wish:
    pair, call = run.read_pairs()[index], run.read_report()["sampling"]
    values = {"steps": call["num_inference_steps"], "guidance": call["guidance_scale"], "strength": 1.0}
    return Wish(**{"prompt": pair["prompt"], "seed": pair["seed"], **values, **changes})


def stored(run: RunFolder, side: str, index: int) -> torch.Tensor:
    return read_pictures(run, [run.read_pairs()[index][side]])[0]


def test_a_picture_of_the_comparison_is_the_stored_one_bit_for_bit(run, playground):
    for index in (0, 3, 6, len(run.read_pairs()) - 1):
        drawn = playground.draw(run.path, own_wish(run, index))
        assert drawn.index == index and drawn.stored is True
        assert torch.equal(drawn.before, stored(run, "before", index))
        assert torch.equal(drawn.after, stored(run, "after", index))
        assert not torch.equal(drawn.before, drawn.after)


def test_strength_zero_is_the_base_model_bit_for_bit_and_strength_matters(run, playground, one_thread):
    wish = Wish("a blue square", 77, 5, 1.0, 0.0)
    none = playground.draw(run.path, wish)
    config = run.read_config()
    base = load_model(MODELS.get(config["model"])).sample([wish.prompt], [wish.seed], 1.0, 5)[0]
    assert torch.equal(none.before, none.after)
    assert torch.equal(none.before, (base * 255).round().to(torch.uint8))
    assert none.index is None and none.stored is None
    change = {}
    for strength in (0.25, 1.0, 1.5):
        after = playground.draw(run.path, replace(wish, strength=strength)).after
        change[strength] = float((after.float() - none.before).abs().mean())
    assert 0 < change[0.25] < change[1.0] != change[1.5]
    again = playground.draw(run.path, own_wish(run, 2, strength=0.0))
    assert torch.equal(again.after, stored(run, "before", 2)), "strength goes back to 0 after others"


def test_other_settings_are_drawn_alone_and_change_the_picture(run, playground):
    usual = playground.draw(run.path, own_wish(run, 1))
    fewer = playground.draw(run.path, own_wish(run, 1, steps=3))
    guided = playground.draw(run.path, own_wish(run, 1, guidance=4.0))
    other = playground.draw(run.path, own_wish(run, 1, seed=5))
    for drawn in (fewer, guided, other):
        assert drawn.index is None and drawn.stored is None
        assert not torch.equal(drawn.before, usual.before)


def test_a_run_of_another_picture_size_is_drawn_at_its_own(run, playground, tmp_path):
    """Both wishes are alike but for the size, which the tiny models' tables do not offer to a run."""
    other = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    other.config.write_text(json.dumps(other.read_config() | {"resolution": 32}))
    wish = Wish("a red circle", 99, 2, 1.0, 1.0)
    for folder, side in ((run, 64), (other, 32), (run, 64)):
        drawn = playground.draw(folder.path, wish)
        assert drawn.before.shape == drawn.after.shape == (3, side, side)


def test_a_changed_stored_picture_is_noticed(run, playground, tmp_path):
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    shutil.copy(copy.path / copy.read_pairs()[1]["after"], copy.path / copy.read_pairs()[0]["after"])
    assert playground.draw(copy.path, own_wish(copy, 0)).stored is False
    (copy.path / copy.read_pairs()[0]["after"]).write_bytes(b"")
    assert playground.draw(copy.path, own_wish(copy, 0)).stored is None


def test_progress_is_told_and_reaches_the_end(run, playground):
    told: list[float] = []
    playground.draw(
        run.path, Wish("a red circle", 4321, 4, 1.0, 1.0), lambda share, _text: told.append(share)
    )
    assert told[0] == 0.0 and max(told) == 1.0 and len(told) >= 8


def test_few_pipelines_are_kept_and_one_wish_is_drawn_at_a_time(run, tmp_path, monkeypatch):
    small, loads, working = Playground(kept=2), [], []
    real_load, real_sample = pg.reload_adapter, pg._sample
    monkeypatch.setattr(pg, "reload_adapter", lambda *words: loads.append(words[1]) or real_load(*words))

    def sample(model, batch, wish):
        working.append(wish.seed)
        assert len(set(working)) == 1, "two wishes are drawn at once"
        picture = real_sample(model, batch, wish)
        working.remove(wish.seed)
        return picture

    monkeypatch.setattr(pg, "_sample", sample)
    other = RunFolder(shutil.copytree(run.path, tmp_path / "other"))
    failed: list[BaseException] = []

    def ask(folder: RunFolder, seed: int) -> None:
        try:
            small.draw(folder.path, Wish("a red circle", seed, 3, 1.0, 1.0))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask, args=(run, seed)) for seed in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and loads == [run.adapter], "three at once load the adapter once"
    ask(other, 4)
    assert small.loaded == 2 and loads == [run.adapter, other.adapter]
    ask(run, 5)
    assert not failed and small.loaded == 2 and len(loads) == 3, "the first run's pipeline had left"


@pytest.fixture
def all_are_large(monkeypatch):
    """Treats the shipped models like those that take a run's memory."""
    monkeypatch.setattr(pg, "EMBEDDED", ())


def test_a_large_model_is_loaded_once_and_draws_both_pictures_with_any_adapter(run, tmp_path, all_are_large):
    large, wish = Playground(), own_wish(run, 0)
    other = RunFolder(shutil.copytree(run.path, tmp_path / "other"))
    whole = (other.adapter / pg.WEIGHTS).read_bytes()
    for folder in (run, other, run):
        drawn = large.draw(folder.path, wish)
        assert drawn.stored is True and large.loaded == 1
    (other.adapter / pg.WEIGHTS).write_bytes(_foreign(whole))
    with pytest.raises(FaultError, match="cannot be loaded"):
        large.draw(other.path, wish)
    assert large.draw(run.path, wish).stored is True
    fresh = large.draw(run.path, replace(wish, seed=wish.seed + 1, strength=0.0))
    assert torch.equal(fresh.before, fresh.after)


def test_a_large_model_goes_when_a_run_starts_or_nobody_draws_and_a_small_one_stays(run, monkeypatch):
    wish, small, held = own_wish(run, 0), Playground(), []
    small.draw(run.path, wish)
    small.release()
    assert small.loaded == 2
    monkeypatch.setattr(pg, "EMBEDDED", ())
    large, real_sample = Playground(idle_seconds=900), pg._sample
    large.draw(run.path, wish)
    large.release()
    assert large.loaded == 0

    def sample(model, *rest):
        held.append(weakref.ref(model))
        large.release()  # a run starts meanwhile
        return real_sample(model, *rest)

    monkeypatch.setattr(pg, "_sample", sample)
    assert large.draw(run.path, wish).stored is True
    assert large.loaded == 0 and held and not any(model() for model in held)
    monkeypatch.setattr(pg, "_sample", real_sample)
    idle = Playground(idle_seconds=0)
    idle.draw(run.path, wish)
    idle._idle.join()
    assert idle.loaded == 0


def test_an_adapter_that_is_missing_half_written_or_foreign_gets_a_sentence(run, playground, tmp_path):
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    wish, weights = Wish("a red circle", 1, 2, 1.0, 1.0), copy.adapter / pg.WEIGHTS
    whole = weights.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"{}", _foreign(whole)):
        weights.write_bytes(content)
        with pytest.raises(FaultError) as told:
            playground.draw(copy.path, wish)
        assert str(told.value) == pg.BAD_ADAPTER
    weights.write_bytes(whole)
    assert playground.draw(copy.path, wish).seconds > 0, "the file was replaced, so it is read again"
    weights.unlink()
    with pytest.raises(FaultError, match="no adapter yet"):
        playground.draw(copy.path, wish)


def _foreign(whole: bytes) -> bytes:
    """The same tensors under names of another network."""
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    renamed = {name.replace("transformer.", "x.").replace("unet.", "x."): v for name, v in header.items()}
    renamed.pop("__metadata__", None)
    text = json.dumps(renamed).encode()
    return len(text).to_bytes(8, "little") + text + whole[8 + size :]


def test_settings_that_cannot_be_read_and_long_prompts_get_a_sentence(run, playground, tmp_path):
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    with pytest.raises(WishError) as told:
        playground.draw(copy.path, Wish("a red circle and " * 20, 1, 2, 1.0, 1.0))
    assert "would cut off" in told.value.fields["prompt"]
    for content in ("", "{}", '{"model": "gone"}', '{"learning_rate": "x"}'):
        copy.config.write_text(content)
        with pytest.raises(InputError) as refused:
            playground.draw(copy.path, Wish("a red circle", 1, 2, 1.0, 1.0))
        assert str(refused.value) == pg.BAD_SETTINGS
    with pytest.raises((FaultError, InputError)):
        playground.draw(Path(tmp_path / "nowhere"), Wish("a red circle", 1, 2, 1.0, 1.0))


GOOD = {"prompt": "a red circle", "seed": 3, "steps": 12, "guidance": 1, "strength": 1.5}


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("prompt", "  \n", "Write what the picture should show"),
        ("prompt", None, "Write what the picture should show"),
        ("prompt", "x" * 1001, "1001 characters"),
        ("seed", -1, "whole number from 0 to 2147483647"),
        ("seed", 1.5, "whole number"),
        ("seed", MAX_SEED + 1, "whole number"),
        ("seed", None, "whole number"),
        ("seed", True, "whole number"),
        pytest.param("seed", 10**400, "whole number", id="seed-huge"),
        ("steps", 0, "whole number from 1 to 100"),
        ("steps", 101, "whole number"),
        ("steps", float("nan"), "whole number"),
        ("steps", float("inf"), "whole number"),
        ("guidance", -0.1, "a number from 0 to 50"),
        ("guidance", "7", "a number"),
        ("strength", 1.51, "a number from 0 to 1.5"),
        ("strength", -1, "a number from 0 to 1.5"),
    ],
)
def test_a_wrong_field_is_told_at_its_name(field, value, sentence):
    with pytest.raises(WishError) as told:
        read_wish(**{**GOOD, field: value})
    assert list(told.value.fields) == [field] and sentence in told.value.fields[field]


def test_all_wrong_fields_are_told_together_and_right_ones_become_a_wish():
    with pytest.raises(WishError) as told:
        read_wish("", None, None, None, None)
    assert list(told.value.fields) == list(GOOD)
    assert read_wish(**GOOD) == Wish("a red circle", 3, 12, 1.0, 1.5)
    assert read_wish(**{**GOOD, "prompt": " a red circle\n", "seed": 3.0}).seed == 3
