"""The order of things at SageMaker: what serves after each fault is what is said, whatever rings or is killed."""

import pytest
from sagemaker_shop import FIRST, NAME, OTHER_IMAGE, SECOND, Shop
from sagemaker_stand_in import IMAGE

from bigger_boat.errors import CloudError, GateRefused
from bigger_boat.resources.sagemaker_endpoint import EndpointShape, SageMakerEndpoint
from bigger_boat.resources.sagemaker_guards import put_scaling
from bigger_boat.resources.sagemaker_host import EXCLUDED, SageMakerHost
from bigger_boat.serving.published import ROLLED_BACK


def test_a_new_version_is_watched_and_a_way_back_is_not(two):
    assert two.ends.updates[-1]["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]
    two.ends.alarm = True  # which is why somebody goes back
    result = two.host().rollback(NAME)
    assert (result.state, result.version, two.running.version) == ("serving", FIRST, FIRST)
    deployment = two.ends.updates[-1]["DeploymentConfig"]
    assert "AutoRollbackConfiguration" not in deployment
    assert deployment["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["WaitIntervalInSeconds"] == 1


def test_bad_answers_that_ring_an_alarm_are_taken_back_all_the_same(shop):
    shop.publish(FIRST)
    shop.wrong.add(SECOND)
    shop.on_wrong.append(lambda: setattr(shop.ends, "alarm", True))
    result = shop.publish(SECOND)
    assert (result.state, shop.running.version) == ("refused", FIRST)
    assert result.sentence.endswith(f"Version {FIRST} goes on serving.")


def test_what_could_not_be_taken_back_is_said_to_serve(shop):
    shop.publish(FIRST)
    shop.wrong.add(SECOND)
    shop.on_wrong.append(lambda: shop.broken.add(FIRST))  # no container of it starts any more
    with pytest.raises(CloudError, match=rf"could not be taken back: .*Version {SECOND} goes on serving") as error:
        shop.publish(SECOND)
    assert shop.host().serving_version(NAME) == shop.running.version == SECOND
    assert "rollback" in error.value.hint


def test_a_first_version_that_answers_otherwise_leaves_nothing_and_says_so(shop):
    shop.wrong.add(FIRST)
    result = shop.publish(FIRST)
    assert (result.state, shop.running, shop.host().serving_version(NAME)) == ("refused", None, None)
    assert result.sentence.endswith("Nothing serves.")


def test_no_free_machine_leaves_the_old_version_and_says_what_to_do(shop):
    shop.publish(FIRST)
    shop.full = True
    with pytest.raises(CloudError, match=rf"InsufficientInstanceCapacity.*Version {FIRST} goes on serving") as error:
        shop.publish(SECOND)
    assert shop.running.version == FIRST
    assert error.value.hint == "Try again later, or choose another BIGGER_BOAT_ENDPOINT_INSTANCE."


def test_an_endpoint_that_cannot_be_made_is_not_said_to_serve(shop):
    refused = shop.ends.here.refusing("sagemaker", "CreateEndpoint", "ResourceLimitExceeded", 400)
    with refused, pytest.raises(CloudError, match=r"ResourceLimitExceeded.*Nothing serves\."):
        shop.publish(FIRST)


class Killed(BaseException):
    """The process is gone: nothing is cleaned up."""


def killed(shop: Shop, monkeypatch, *, after: bool) -> None:
    """Go back, and be gone right before or right after the endpoint is told."""
    go_to = SageMakerEndpoint.go_to

    def die(self, config: str, alarms: list[str]) -> None:
        if after:
            go_to(self, config, alarms)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(SageMakerEndpoint, "go_to", die)
        patched.setattr(SageMakerHost, "_readmit_what_serves", lambda *_: None)
        with pytest.raises(Killed):
            shop.host().rollback(NAME)


def test_a_kill_before_the_endpoint_moves_leaves_a_version_that_serves_and_may(two, monkeypatch):
    killed(two, monkeypatch, after=False)
    assert two.host().serving_version(NAME) == SECOND
    assert two.publish(SECOND).state == "serving"
    assert EXCLUDED not in two.endpoint.tags(SECOND)


def test_a_kill_after_the_endpoint_moves_does_not_let_the_version_return(two, monkeypatch):
    killed(two, monkeypatch, after=True)
    two.host()._moves(two.endpoint).settled()
    assert two.running.version == FIRST
    with pytest.raises(GateRefused, match="was rolled back from"):
        two.publish(SECOND)


def test_the_same_again_after_a_kill_goes_back(two, monkeypatch):
    killed(two, monkeypatch, after=False)
    assert two.host().rollback(NAME).version == two.running.version == FIRST
    assert two.endpoint.tags(SECOND)[EXCLUDED] == ROLLED_BACK


def test_a_way_back_that_fails_excludes_nothing(two):
    two.broken.add(FIRST)
    with pytest.raises(CloudError, match=rf"health check.*Version {SECOND} goes on serving"):
        two.host().rollback(NAME)
    assert EXCLUDED not in two.endpoint.tags(SECOND)


def models(shop: Shop) -> list[str]:
    return [each["ModelName"] for each in shop.ends.here.client("sagemaker").list_models()["Models"]]


def test_a_corrected_image_is_used_and_what_serves_keeps_its_own(shop):
    with pytest.raises(CloudError, match="does not exist"):
        shop.publish(FIRST, shop.host(image="nobody/nothing:1"))
    assert shop.publish(FIRST).state == "serving"
    assert shop.running.image == IMAGE
    shop.wrong.add(FIRST)
    shop.on_wrong.append(shop.wrong.clear)  # the version is wrong in the other image alone
    result = shop.publish(FIRST, shop.host(image=OTHER_IMAGE))
    assert (result.state, shop.running.image) == ("refused", IMAGE)
    shop.publish(FIRST, shop.host(image=OTHER_IMAGE))
    assert shop.running.image == OTHER_IMAGE
    updates = len(shop.ends.updates)
    shop.publish(FIRST, shop.host(image=OTHER_IMAGE))
    assert len(shop.ends.updates) == updates
    assert shop.endpoint.versions() == [FIRST]
    assert len([name for name in models(shop) if FIRST in name and shop.prefix in name]) == 3
    shop.endpoint.remove_version(FIRST)
    assert not [name for name in models(shop) if shop.prefix in name]


def targets(shop: Shop) -> list[dict]:
    found = shop.ends.here.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
    return [each for each in found["ScalableTargets"] if shop.prefix in each["ResourceId"]]


def test_scaling_ends_when_the_shape_says_so_and_when_the_endpoint_goes(shop):
    assert shop.publish(FIRST, shop.host(most_instances=4)).state == "serving"
    assert [each["MaxCapacity"] for each in targets(shop)] == [4]
    shop.publish(FIRST)
    assert targets(shop) == []
    shop.endpoint.delete()
    put_scaling(shop.endpoint.name, EndpointShape(instance_type="ml.m5.large", most_instances=4))
    shop.wrong.add(SECOND)
    shop.endpoint.tag(FIRST, "served", None)
    assert shop.publish(SECOND).state == "refused"
    assert (shop.running, targets(shop)) == (None, [])
