"""Challengers at SageMaker: a second variant with its share, or a shadow variant; who serves is told apart and kept."""

from collections import Counter
from collections.abc import Iterator

import pytest
from sagemaker_shop import FIRST, NAME, SECOND, THIRD, Shop

from bigger_boat.errors import BundleError, CloudError
from bigger_boat.resources.captured_logs import CapturedPredictionLogs
from bigger_boat.resources.sagemaker_endpoint import SageMakerEndpoint

pytestmark = pytest.mark.slow  # each asks moto some hundred times
REQUEST = {"sessions": [["x"]]}


@pytest.fixture
def first(shop) -> Iterator[Shop]:
    """The first version serves on two instances; all is captured."""
    host = shop.host
    shop.host = lambda **shape: host(**{"instances": 2, "most_instances": 2, "capture_percent": 100, **shape})
    assert shop.publish(FIRST).state == "serving"
    return shop


def challenge(shop: Shop, version: str, share: float = 0.25, **more):
    return shop.host().challenge(NAME, shop.folder(version), share, **more)


def answering(shop: Shop, count: int = 8) -> dict[str, int]:
    """Ask as a shop does; return which versions answered how often."""
    return dict(Counter(shop.host().ask(NAME, REQUEST)["version"] for _ in range(count)))


def standing(shop: Shop) -> tuple[str | None, str]:
    return shop.host().serving_version(NAME), shop.host().challenger(NAME)


def config(shop: Shop) -> dict:
    sagemaker = shop.ends.here.client("sagemaker")
    return sagemaker.describe_endpoint_config(EndpointConfigName=shop.endpoint.state().config)


def captured(shop: Shop) -> list[tuple[str, str, str]]:
    """Return route, version and id of each answer in the log."""
    logs = CapturedPredictionLogs(storage=shop.host().storage.root, prefix=shop.prefix, percent=100)
    frames = [logs.read(part)[0] for day in logs.days() for part in logs.files(day)]
    return [row for frame in frames for row in frame["route", "version", "request_id"].rows()]


def test_a_share_of_the_requests_goes_to_a_second_variant(first):
    result = challenge(first, SECOND)
    assert (result.state, result.version) == ("challenging", SECOND)
    assert f"answers 25% of the requests at SageMaker endpoint {first.endpoint.name}, beside {FIRST}" in result.sentence
    assert standing(first) == (FIRST, SECOND)
    assert answering(first) == {FIRST: 6, SECOND: 2}
    champion, challenger = config(first)["ProductionVariants"]
    assert (champion["VariantName"], champion["InitialVariantWeight"]) == ("AllTraffic", 0.75)
    assert (challenger["VariantName"], challenger["InitialInstanceCount"]) == ("Challenger", 1)
    assert "DeploymentConfig" not in first.ends.updates[-1], "SageMaker guards no update that adds a variant"
    told = Counter((route, version) for route, version, _ in captured(first))
    assert told == {("/invocations", FIRST): 6, ("/invocations", SECOND): 2}
    updates = len(first.ends.updates)
    assert challenge(first, SECOND).state == "challenging"
    assert len(first.ends.updates) == updates, "the same again changes nothing"


def test_a_shadow_is_asked_all_and_answers_nobody(first):
    result = challenge(first, SECOND, shadow=True)
    assert "is asked all requests unseen" in result.sentence
    assert standing(first) == (FIRST, SECOND)
    for number in range(3):
        assert first.endpoint.ask(REQUEST, f"shop-{number}")["version"] == FIRST
    [shadow] = config(first)["ShadowProductionVariants"]
    assert (shadow["InitialInstanceCount"], shadow["InitialVariantWeight"]) == (2, 1.0)
    rows = captured(first)
    assert [row for row in rows if row[1] == FIRST] == [("/invocations", FIRST, f"shop-{n}") for n in range(3)]
    assert [row for row in rows if row[1] == SECOND] == [("shadow", SECOND, f"shadow-shop-{n}") for n in range(3)]


@pytest.mark.parametrize("shadow", [False, True])
def test_what_serves_answers_alone_when_it_ends(first, shadow):
    challenge(first, SECOND, shadow=shadow)
    assert first.host().end_challenge(NAME) == SECOND
    assert standing(first) == (FIRST, "")
    assert answering(first) == {FIRST: 8}
    assert first.host().end_challenge(NAME) == ""


def test_a_challenger_that_is_promoted_goes_live_as_any_version_does(first):
    challenge(first, SECOND)
    assert first.publish(SECOND).state == "serving"
    assert standing(first) == (SECOND, "")
    assert answering(first) == {SECOND: 8}
    alone, watched = first.ends.updates[-2:]
    assert "DeploymentConfig" not in alone
    assert watched["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]
    assert first.host().rollback(NAME).version == FIRST


def test_a_deployment_leaves_the_challenger_where_it_is_as_the_local_host_does(first):
    challenge(first, SECOND)
    updates = len(first.ends.updates)
    assert first.publish(FIRST).state == "serving"
    assert (len(first.ends.updates), standing(first)) == (updates, (FIRST, SECOND))
    assert first.publish(THIRD).state == "serving"
    assert standing(first) == (THIRD, SECOND)
    assert answering(first) == {THIRD: 6, SECOND: 2}
    assert first.ends.updates[-1]["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"], "same variants: watched"
    assert first.host().rollback(NAME).version == FIRST
    assert standing(first) == (FIRST, SECOND)


def test_going_back_to_the_challenger_ends_the_challenge(first):
    first.publish(SECOND)
    challenge(first, FIRST)
    assert first.host().rollback(NAME).version == FIRST
    assert standing(first) == (FIRST, "")


def test_a_bad_deployment_beside_a_challenger_is_taken_back_to_both(first):
    challenge(first, SECOND)
    first.wrong.add(THIRD)
    result = first.publish(THIRD)
    assert (result.state, standing(first)) == ("refused", (FIRST, SECOND))
    assert result.sentence.endswith(f"Version {FIRST} goes on serving.")


def test_a_challenger_that_does_not_start_leaves_what_was_there(first):
    first.broken.add(SECOND)
    says = rf"challenger {SECOND}: .*variant Challenger did not pass.*{FIRST} goes on"
    with pytest.raises(CloudError, match=says) as error:
        challenge(first, SECOND)
    assert "log group" in error.value.hint
    assert (standing(first), answering(first)) == ((FIRST, ""), {FIRST: 8})


def test_a_challenger_that_answers_otherwise_leaves_what_was_there(first):
    challenge(first, SECOND)
    first.wrong.add(THIRD)
    result = challenge(first, THIRD)
    assert (result.state, standing(first)) == ("refused", (FIRST, SECOND))
    assert f"refused challenger {THIRD}" in result.sentence
    assert result.sentence.endswith(f"Version {FIRST} goes on serving.")


class Killed(BaseException):
    """The process is gone: nothing is cleaned up."""


def test_a_kill_before_a_challenger_was_asked_does_not_let_bad_answers_stay(first, monkeypatch):
    def die(*_):
        raise Killed

    first.wrong.add(SECOND)
    with monkeypatch.context() as patched:
        patched.setattr(SageMakerEndpoint, "ask", die)
        with pytest.raises(Killed):
            challenge(first, SECOND)
    assert standing(first) == (FIRST, SECOND)
    assert challenge(first, SECOND).state == "refused"
    assert standing(first) == (FIRST, "")


@pytest.mark.parametrize(
    ("version", "share", "shape", "says"),
    [
        (FIRST, 0.1, {}, "has nothing that .* could challenge"),
        (SECOND, 0.6, {}, r"at most 0\.5 of the requests, not 0\.6"),
        (SECOND, 0.00001, {}, "gets more than 0"),
        (SECOND, 0.1, {"instance_type": ""}, "serverless endpoint, which runs one version"),
    ],
)
def test_what_cannot_challenge_says_why_and_changes_nothing(first, version, share, shape, says):
    host = first.host()
    host = host.model_copy(update={"shape": host.shape.model_copy(update=shape)})
    with pytest.raises(BundleError, match=says):
        host.challenge(NAME, first.folder(version), share)
    assert standing(first) == (FIRST, "")


def test_nothing_can_be_challenged_where_nothing_serves(shop):
    with pytest.raises(BundleError, match="has nothing that"):
        challenge(shop, FIRST)


def test_a_sweep_leaves_an_older_challenger(first):
    for version in (SECOND, THIRD):
        first.publish(version)
    challenge(first, FIRST)
    host = first.host().model_copy(update={"keep_versions": 1})
    assert host.sweep(NAME) == []
    assert standing(first) == (THIRD, FIRST)
    host.end_challenge(NAME)
    assert host.sweep(NAME) == [FIRST]
