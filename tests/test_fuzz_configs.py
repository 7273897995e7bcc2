"""A short run of the fuzz over settings; the long one is a command, see ``tests/fuzz_configs.py``."""

from tests.fuzz_configs import fuzz


def test_settings_drawn_at_random_are_refused_in_words_or_load(tmp_path, monkeypatch):
    monkeypatch.setenv("RSM_DEVICES", "cpu")
    tally = fuzz(40, seed=20261130, scratch=tmp_path)
    assert tally.wrong == []
    assert tally.ways["worker loads"] >= 6 and tally.ways["command ends with 2"] >= 10
