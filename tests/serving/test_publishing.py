"""Publishing to a real running server: swap, refusal, fallback, rollback, kill."""

import os
import shutil
import signal
import threading

import pytest
from tiny_models import copy_bundle, flip_byte, rank_offline, read_json

from bigger_boat.errors import BundleError, GateRefused
from bigger_boat.ml.gate import check_golden
from bigger_boat.ml.golden import compare_golden
from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.serving import client
from bigger_boat.serving.graph import Graph
from bigger_boat.serving.published import PublishedEndpoint, replace_file

NAME = "recommendation"


class Shop:
    """A data directory, its host and what can be observed."""

    def __init__(self, root):
        self.root = root
        self.host = LocalEndpointHost(endpoints_dir=str(root), confirm_timeout_s=120)
        self.published = PublishedEndpoint(root, NAME)

    def answering_version(self, url):
        return client.post_invocations(url, NAME, {"sessions": [["sku-a"]]})["version"]


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path / "endpoints")


@pytest.fixture(scope="module")
def live(tmp_path_factory, bundles, start_server):
    """A shop whose server runs and serves the first version; each test leaves it so."""
    shop = Shop(tmp_path_factory.mktemp("live") / "endpoints")
    shop.host.publish(NAME, bundles["first"].directory)
    shop.server = start_server("endpoints", shop.root)
    shop.url = shop.server.url
    client.wait_until_up(shop.url)
    return shop


def back_to_first(shop, bundles):
    assert shop.host.publish(NAME, bundles["first"].directory, readmit=True).state == "serving"
    with shop.published.locked():
        for version in shop.published.excluded():
            shop.published.exclude(version, None)


def test_without_a_server_a_version_waits(shop, bundles):
    first = bundles["first"]
    result = shop.host.publish(NAME, first.directory)
    assert result.state == "waiting"
    assert (
        result.sentence
        == f"Version {first.version} of {NAME} is published; no server is up, it will load at its next start."
    )
    assert shop.host.serving_version(NAME) == first.version
    assert shop.host.serving_bundle(NAME) == shop.root / NAME / "versions" / first.version
    before = sorted(path for path in shop.root.rglob("*"))
    assert shop.host.publish(NAME, first.directory) == result
    assert sorted(path for path in shop.root.rglob("*")) == before


def test_a_running_server_takes_a_version_within_seconds(live, bundles):
    second = bundles["second"]
    result = live.host.publish(NAME, second.directory)
    assert (result.state, result.url) == ("serving", live.url)
    assert live.answering_version(live.url) == second.version == live.host.serving_version(NAME)
    record = read_json(live.root / NAME / "serving.json")
    assert (record["version"], record["pid"]) == (second.version, live.server.process.pid)
    assert record["checked"] == "digests and golden answers"
    back_to_first(live, bundles)


def test_swaps_under_requests_lose_and_mix_nothing(live, bundles):
    """Every answer is right for the version it names."""
    expected = {bundles[key].version: bundles[key].golden for key in ("first", "second")}
    wrong, seen, stop = [], set(), threading.Event()

    def ask():
        while not stop.is_set():
            for index in range(2):
                request = bundles["first"].golden[index]["request"]
                answer = client.post_invocations(live.url, NAME, request)
                wanted = expected[answer["version"]][index]["predictions"]
                wrong.extend(compare_golden(wanted, answer["predictions"]))
                seen.add(answer["version"])

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for thread in clients:
        thread.start()
    for key in ("second", "first", "second", "first"):
        assert live.host.publish(NAME, bundles[key].directory).state == "serving"
    stop.set()
    for thread in clients:
        thread.join()
    assert wrong == []
    assert seen == set(expected)


def altered(shop, bundle):
    flip_byte(shop.published.path_of(bundle.version) / "1" / "saved_model.pb")


def file_missing(shop, bundle):
    (shop.published.path_of(bundle.version) / "golden.json").unlink()


def file_added(shop, bundle):
    (shop.published.path_of(bundle.version) / "1" / "more").write_text("more")


def gone(shop, bundle):
    shutil.rmtree(shop.published.path_of(bundle.version))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (altered, "1/saved_model.pb of the bundle"),
        (file_missing, "lacks golden.json"),
        (file_added, "holds 1/more"),
        (gone, "no bundle.json"),
    ],
)
def test_what_is_damaged_on_its_way_is_refused_and_the_old_one_serves_on(live, bundles, fault, reason):
    """The copy is damaged after the publisher looked at it: only the server can notice."""
    first, second = bundles["first"], bundles["second"]
    copy_bundle(second, live.published.path_of(second.version)) if not live.published.path_of(
        second.version
    ).exists() else None
    fault(live, second)
    with live.published.locked():
        live.published.forget_refusal()
        live.published.point_at(second.version)
    result = live.host._await(live.published, second.version)
    assert result.state == "refused"
    assert reason in result.reasons[0]
    assert live.published.current() == first.version == live.answering_version(live.url)
    assert read_json(live.root / NAME / "refused.json")["version"] == second.version
    assert live.published.excluded() == {second.version: "refused"}
    with pytest.raises(GateRefused, match="refused version"):
        result.require()
    assert live.host.publish(NAME, second.directory).state == "serving", "a sound copy replaces the damaged one"
    assert live.published.excluded() == {}
    back_to_first(live, bundles)


def test_a_model_that_answers_otherwise_than_offline_is_refused(live, bundles):
    result = live.host.publish(NAME, bundles["disagrees"].directory)
    assert result.state == "refused"
    assert "differ from the offline ones" in result.reasons[0]
    assert live.answering_version(live.url) == bundles["first"].version == live.published.current()
    back_to_first(live, bundles)


def test_a_bundle_under_another_version_is_refused(live, bundles):
    other = "20990101T000000000Z-00000000"
    shutil.copytree(bundles["second"].directory, live.published.path_of(other))
    with live.published.locked():
        live.published.point_at(other)
    assert live.host._await(live.published, other).state == "refused"
    shutil.rmtree(live.published.path_of(other))
    back_to_first(live, bundles)


def test_rollback_and_what_was_rolled_back_from(live, bundles):
    first, second = bundles["first"], bundles["second"]
    assert live.host.publish(NAME, second.directory).state == "serving"
    result = live.host.rollback(NAME)
    assert (result.state, result.version) == ("serving", first.version)
    assert live.answering_version(live.url) == first.version
    with pytest.raises(GateRefused, match="does not return by itself"):
        live.host.publish(NAME, second.directory)
    with pytest.raises(BundleError, match="was rolled back"):
        live.host.rollback(NAME, second.version)
    assert live.answering_version(live.url) == first.version
    assert live.host.publish(NAME, second.directory, readmit=True).state == "serving"
    assert live.host.rollback(NAME, first.version).state == "serving"
    with pytest.raises(BundleError, match="no earlier version"):
        live.host.rollback(NAME)
    with pytest.raises(BundleError, match=r"no bundle\.json"):
        live.host.rollback(NAME, "20200101T000000000Z-00000000")
    back_to_first(live, bundles)


def test_a_full_disk_while_recording_does_not_end_the_watch(live, bundles):
    """``serving.json`` cannot be replaced (a directory lies there): the version serves, and so do later ones."""
    record = live.root / NAME / "serving.json"
    record.unlink()
    record.mkdir()
    impatient = LocalEndpointHost(endpoints_dir=str(live.root), confirm_timeout_s=4)
    assert impatient.publish(NAME, bundles["second"].directory).state == "unconfirmed"
    assert live.answering_version(live.url) == bundles["second"].version
    record.rmdir()
    assert live.host._await(live.published, bundles["second"].version).state == "serving"
    back_to_first(live, bundles)


def test_the_publisher_refuses_before_anything_changes(shop, bundles, tmp_path):
    with pytest.raises(BundleError, match="cannot be published as intent"):
        shop.host.publish("intent", bundles["first"].directory)
    damaged = copy_bundle(bundles["first"], tmp_path / "damaged")
    flip_byte(damaged / "golden.json")
    with pytest.raises(BundleError, match="was altered"):
        shop.host.publish(NAME, damaged)
    assert not shop.root.exists()


@pytest.mark.parametrize(("keep", "left"), [(1, ["first", "second"]), (0, ["second"])])
def test_old_versions_are_swept_but_never_the_current_one(tmp_path, bundles, keep, left):
    host = LocalEndpointHost(endpoints_dir=str(tmp_path), keep_versions=keep)
    for name in ("first", "second"):
        host.publish(NAME, bundles[name].directory)
    published = PublishedEndpoint(tmp_path, NAME)
    assert published.list_versions() == sorted(bundles[name].version for name in left)
    assert published.current() == bundles["second"].version


def test_answers_come_from_a_private_server_before_publishing(shop, bundles):
    bundle = bundles["first"]
    answers = shop.host.answers(bundle.directory, [entry["request"] for entry in bundle.golden])
    assert check_golden(bundle.golden, answers).passed
    assert not shop.root.exists()
    disagreeing = bundles["disagrees"]
    answers = shop.host.answers(disagreeing.directory, [entry["request"] for entry in disagreeing.golden])
    assert not check_golden(disagreeing.golden, answers).passed


def test_answers_of_a_damaged_bundle(shop, bundles, tmp_path, monkeypatch):
    damaged = copy_bundle(bundles["first"], tmp_path / "damaged")
    flip_byte(damaged / "1" / "saved_model.pb")
    monkeypatch.setattr(Graph, "__init__", lambda *_told: pytest.fail("what was altered is not loaded"))
    with pytest.raises(BundleError, match="was altered"):
        shop.host.answers(damaged, [])


def test_readers_see_the_old_or_the_new_content(tmp_path):
    path = tmp_path / "current"
    contents = [bytes([letter]) * 5_000 for letter in b"ab"]
    replace_file(path, contents[0])
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for content in contents:
                replace_file(path, content)

    writer = threading.Thread(target=write)
    writer.start()
    assert all(path.read_bytes() in contents for _ in range(2_000))
    stop.set()
    writer.join()
    assert list(tmp_path.iterdir()) == [path]


def test_whose_lived_on_reads_as_rank_offline_says(bundles):
    """The two versions do answer differently, or the tests above would prove nothing."""
    golden = bundles["second"].golden
    assert compare_golden([rank_offline(["sku-a", "sku-d"], 3)], golden[0]["predictions"][:1]) != []


def test_after_a_kill_a_start_falls_back_to_the_version_that_served_last(live, bundles, start_server):
    """The last test of ``live``: kill -9 while the first serves; the second is published and damaged meanwhile."""
    first, second = bundles["first"], bundles["second"]
    os.kill(live.server.process.pid, signal.SIGKILL)
    live.server.wait()
    assert not live.host.is_up()
    assert live.host.publish(NAME, second.directory).state == "waiting"
    altered(live, second)
    server = start_server("endpoints", live.root)
    state = client.wait_until_up(server.url)
    assert state["endpoints"][NAME]["version"] == first.version == live.published.current()
    assert live.published.refused()["version"] == second.version
    assert state["endpoints"]["intent"]["state"] == "no model"
