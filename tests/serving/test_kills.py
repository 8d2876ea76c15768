"""kill -9 of a server that collects, at random: nothing acknowledged is lost, nothing is in the warehouse twice."""

import pytest
from kill_server import kill_often

pytestmark = pytest.mark.slow


def test_killed_again_and_again_it_loses_and_doubles_nothing(tmp_path):
    found = kill_often(tmp_path, kills=7, seed=7)
    assert (found["lost"], found["doubled"]) == ([], [])
    assert found["landed"] == found["acknowledged"] > 500
    assert found["sent_again"] > 0
    assert sorted(found["answers"].values()) == [8, 8]  # one version of each endpoint, after every start
