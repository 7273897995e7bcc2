"""Several visitors at once: every request is answered, every run is there once, one works at a time."""

import pytest

from tests.faults.clients import GROWTH_MB, visit, whole


def test_a_few_visitors(tmp_path):
    figures = visit(tmp_path, 6, 12.0, {})
    print(figures)
    assert whole(figures), figures
    assert figures["submitted"] >= 6 and figures["polls"] >= 6


@pytest.mark.slow
def test_fifty_visitors_for_five_minutes(tmp_path):
    figures = visit(tmp_path, 50, 300.0, {})
    print(figures)
    assert whole(figures) and figures["growth_mb"] <= GROWTH_MB, figures
    assert figures["stops"] and figures["states"]["stopped"], figures
