"""Canary and shadow on the real server: who answers whom, what survives a restart, and challengers that fail."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_models import FOLLOWS, Server, export_recommender, make_bundle, recommendation_golden

from bigger_boat.automation.control import replay_golden
from bigger_boat.data.prediction_files import day_files, logged_days, whole_lines
from bigger_boat.errors import BundleError
from bigger_boat.ml.bundle import Bundle
from bigger_boat.resources.endpoint_host import LARGEST_SHARE
from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.serving import client
from bigger_boat.serving.challengers import Challenger, key_of, position
from bigger_boat.serving.contract import parse_request

NAME, SHARE = "recommendation", 0.3
SESSIONS = [f"session-{number}" for number in range(60)]


def test_a_key_has_one_place_and_places_are_spread_evenly():
    places = np.array([position("v", str(number)) for number in range(20_000)])
    assert abs((places < SHARE).mean() - SHARE) < 0.02  # six standard deviations
    assert position("v", "7") == position("v", "7") != position("w", "7")
    assert ((places >= 0) & (places < 1)).all()


def test_sessions_are_chosen_by_their_id_and_requests_without_one_by_their_own():
    assert key_of(parse_request({"sessions": [["a"], ["b"]], "session_ids": ["s", "t"]}), "r") == "s"
    assert key_of(parse_request({"sessions": [["a"]]}), "r") == "r"


@pytest.fixture
def host(tmp_path, bundles) -> LocalEndpointHost:
    host = LocalEndpointHost(endpoints_dir=str(tmp_path / "endpoints"), confirm_timeout_s=60)
    host.publish(NAME, bundles["first"].directory)
    return host


def serve(host: LocalEndpointHost, **told) -> Server:
    server = Server("endpoints", Path(host.endpoints_dir), **told)
    client.wait_until_up(server.url)
    return server


@pytest.fixture(scope="module")
def one_server(tmp_path_factory, bundles) -> Iterator[tuple[LocalEndpointHost, Server]]:
    host = LocalEndpointHost(endpoints_dir=str(tmp_path_factory.mktemp("shop") / "endpoints"), confirm_timeout_s=60)
    host.publish(NAME, bundles["first"].directory)
    server = serve(host)
    yield host, server
    server.stop()


@pytest.fixture
def live(one_server, bundles) -> tuple[LocalEndpointHost, Server]:
    """A server for several tests, each of which finds the first version alone."""
    host, server = one_server
    host.end_challenge(NAME)
    assert host.publish(NAME, bundles["first"].directory).state == "serving"
    wait_for(lambda: "challenger" not in client.health(server.url)["endpoints"][NAME])
    return one_server


def ask(server: Server, session: str, *skus: str) -> dict:
    return client.post_invocations(server.url, NAME, {"sessions": [list(skus)], "session_ids": [session]})


def versions(server: Server) -> dict[str, str]:
    return {session: ask(server, session, "sku-a")["version"] for session in SESSIONS}


def expected(first: Bundle, second: Bundle) -> dict[str, str]:
    return {one: second.version if position(second.version, one) < SHARE else first.version for one in SESSIONS}


@pytest.mark.slow
def test_a_canary_survives_a_restart(host, bundles):
    before = serve(host)
    host.challenge(NAME, bundles["second"].directory, SHARE)
    assert before.stop() == 0
    after = serve(host)
    try:
        assert versions(after) == expected(bundles["first"], bundles["second"])
    finally:
        after.stop()


def test_a_canary_answers_its_share_until_it_is_ended(live, bundles):
    host, server = live
    first, second = bundles["first"], bundles["second"]
    assert host.challenge(NAME, second.directory, SHARE).state == "challenging"
    wanted = expected(first, second)
    assert set(wanted.values()) == {first.version, second.version}
    assert versions(server) == versions(server) == wanted
    told = client.health(server.url)["endpoints"][NAME]
    assert (told["version"], told["challenger"]["version"]) == (first.version, second.version)
    assert replay_golden(NAME, host, None).startswith(f"Version {first.version} of {NAME}: All 2 golden")
    assert host.end_challenge(NAME) == second.version
    wait_for(lambda: "challenger" not in client.health(server.url)["endpoints"][NAME])
    assert set(versions(server).values()) == {first.version}


def test_a_canary_that_is_promoted_serves_alone(live, bundles):
    host, server = live
    host.challenge(NAME, bundles["second"].directory, SHARE)
    assert host.publish(NAME, bundles["second"].directory).state == "serving"
    assert host.challenger(NAME) == ""
    wait_for(lambda: "challenger" not in client.health(server.url)["endpoints"][NAME])
    assert set(versions(server).values()) == {bundles["second"].version}


@pytest.mark.slow
def test_a_shadow_is_asked_everything_and_nobody_sees_it(host, bundles, tmp_path):
    second = bundles["second"]
    server = serve(host, predictions_dir=str(tmp_path / "predictions"))
    try:
        host.challenge(NAME, second.directory, SHARE, shadow=True)
        assert set(versions(server).values()) == {bundles["first"].version}
        wait_for(lambda: f'outcome="other"}} {len(SESSIONS)}.0' in metrics(server))
    finally:
        server.stop()
    root = tmp_path / "predictions"
    files = [file for day in logged_days(root) for file in day_files(root, day)]
    lines = [json.loads(line) for file in files for line in whole_lines(root, file).splitlines()]
    shadows = [line for line in lines if line["version"] == second.version]
    assert {line["route"] for line in shadows} == {"shadow"}
    assert sorted(line["session_id"] for line in shadows) == sorted(SESSIONS)
    seen = {line["request_id"] for line in lines} - {line["request_id"] for line in shadows}
    assert {line["request_id"] for line in shadows} == {f"shadow-{one}" for one in seen}


def test_a_challenger_that_answers_otherwise_than_offline_does_not_begin(live, bundles):
    host, server = live
    result = host.challenge(NAME, bundles["disagrees"].directory, SHARE)
    assert result.state == "refused"
    assert "The served answers differ from the offline ones" in result.sentence
    assert host.challenger(NAME) == ""
    assert set(versions(server).values()) == {bundles["first"].version}


def test_a_challenger_that_fails_drops_out_and_nobody_notices(live, bundles, tmp_path):
    host, server = live
    overflows = FOLLOWS.copy()
    overflows[2] = np.float32(3e38)  # a product that no golden request has, seen twice: more than a float holds
    bad = make_bundle(
        tmp_path / "bad", NAME, lambda path: export_recommender(path, overflows), recommendation_golden(overflows)
    )
    host.challenge(NAME, bad.directory, LARGEST_SHARE)
    its_own = next(one for one in SESSIONS if position(bad.version, one) < LARGEST_SHARE)
    assert ask(server, its_own, "sku-a")["version"] == bad.version
    answer = ask(server, its_own, "sku-c", "sku-c")
    assert answer["version"] == bundles["first"].version
    assert answer["predictions"][0]["skus"]
    assert ask(server, its_own, "sku-a")["version"] == bundles["first"].version
    assert host.challenger(NAME) == ""
    assert f"challenger {bad.version} drops out: It failed to answer" in server.log()


@pytest.mark.parametrize(
    ("share", "which", "says"),
    [
        (0.0, "second", "more than 0"),
        (0.6, "second", "at most 0.5"),
        (0.1, "first", "nothing that"),
        (0.1, "intent", "bundle for intent"),
    ],
)
def test_what_cannot_challenge(host, bundles, share, which, says):
    with pytest.raises(BundleError, match=says):
        host.challenge(NAME, bundles[which].directory, share)
    assert host.challenger(NAME) == ""


def test_a_challenger_is_not_swept(host, bundles, tmp_path):
    few = LocalEndpointHost(endpoints_dir=host.endpoints_dir, keep_versions=1)
    assert few.challenge(NAME, bundles["second"].directory, SHARE).state == "challenger_waits"
    for number in range(3):
        follows = FOLLOWS + np.float32(number)
        made = make_bundle(
            tmp_path / "more",
            NAME,
            lambda path, follows=follows: export_recommender(path, follows),
            recommendation_golden(follows),
        )
        few.publish(NAME, made.directory)
    assert bundles["second"].version in [path.name for path in few.versions(NAME)]


def test_a_shadow_answers_no_key():
    assert not Challenger(None, 1.0, shadow=True).answers("any")


def metrics(server: Server) -> str:
    import urllib.request

    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:
        return answer.read().decode()


def wait_for(what) -> None:
    import time

    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)
