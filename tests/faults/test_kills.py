"""Workers and the app killed at random moments: nothing lost, nothing wrong, the same results."""

import pytest

from tests.faults.kills import KINDS, Campaign


def killed(place, kills, seed, **options):
    campaign = Campaign(place, seed, **options)
    try:
        return campaign.run(kills)
    finally:
        campaign.close()


def test_a_few_kills(tmp_path):
    tally = killed(tmp_path, 3, seed=2, updates=3, kinds=KINDS[:1], extended=0.0)
    print(tally)
    assert tally.kills >= 3 and tally.good, str(tally)


@pytest.mark.slow
def test_two_hundred_kills(tmp_path):
    tally = killed(tmp_path, 200, seed=0)
    print(tally)
    assert tally.kills >= 200 and tally.extended and tally.good, str(tally)
