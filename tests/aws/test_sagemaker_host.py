"""Endpoints at SageMaker: deployed, updated in place, asked, rolled back; whatever fails, the old version serves."""

import json
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))  # importlib mode puts no test folder on the path

from batch_stand_in import BUCKET, REPOSITORY
from lambda_stand_in import Function, event, gateway, outputs_of_change_sets
from sagemaker_stand_in import IMAGE, Endpoints
from tiny_models import (
    FOLLOWS,
    Server,
    export_intent,
    export_recommender,
    intent_golden,
    make_bundle,
    purchase_probability,
    rank_offline,
    recommendation_golden,
)

from bigger_boat import clock
from bigger_boat.assets.endpoints import prediction_api
from bigger_boat.assets.live import prediction_log
from bigger_boat.automation.control_jobs import canary_job, end_canary_job
from bigger_boat.automation.watching import watching_sensor
from bigger_boat.cli.explain import lineage
from bigger_boat.data.prediction_files import LOG_TABLES
from bigger_boat.data.prediction_table import day_table
from bigger_boat.errors import BundleError, CloudError, GateRefused
from bigger_boat.ml.bundle import Bundle
from bigger_boat.profiles import prediction_logs
from bigger_boat.resources.gateway_api import GatewayApi
from bigger_boat.resources.lambda_package import HANDLER, build_package
from bigger_boat.resources.prediction_logs import LocalPredictionLogs
from bigger_boat.resources.s3_storage import S3AddressIOManager, S3Storage
from bigger_boat.resources.sagemaker_endpoint import EndpointShape, EndpointState, SageMakerEndpoint
from bigger_boat.resources.sagemaker_host import SageMakerHost
from bigger_boat.serving import client
from bigger_boat.serving.captured import OURS
from bigger_boat.settings import Settings

pytestmark = pytest.mark.slow  # each version that goes live is a process that imports TensorFlow

NAME, ENDPOINT = "recommendation", "vessel-recommendation"
OTHER = FOLLOWS[::-1].copy()
REQUEST = {"sessions": [["sku-a"]], "k": 2}
PASSED = [{"name": "beats_popularity", "passed": True, "description": "0.3 against 0.1.", "value": 0.2}]
YESTERDAY = datetime.now(UTC).replace(hour=12) - timedelta(days=1)
DAY = YESTERDAY.date().isoformat()


class Platform:
    """A host, its stand-in, and bundles that were published to its storage."""

    def __init__(self, root: Path, ends: Endpoints):
        self.root, self.ends = root, ends
        self.storage = S3Storage(base_dir=str(root), root=f"s3://{BUCKET}/{root.name}")
        self.host = self.with_(instance_type="ml.m5.large", instances=2, most_instances=2)
        self.sagemaker = ends.here.client("sagemaker")

    def with_(self, image: str = IMAGE, timeout_s: float = 200, keep_versions: int = 5, **shape) -> SageMakerHost:
        return SageMakerHost(
            storage=self.storage,
            role="arn:aws:iam::123456789012:role/endpoint",
            image=image,
            prefix="vessel",
            shape=EndpointShape(capture_percent=100, **shape),
            timeout_s=timeout_s,
            poll_s=0.1,
            keep_versions=keep_versions,
        )

    def bundle(self, follows=FOLLOWS, **info) -> Bundle:
        root, golden = self.root / "bundles" / f"{NAME}_champion", recommendation_golden(follows)
        return make_bundle(root, NAME, lambda path: export_recommender(path, follows), golden, **info)

    def endpoints(self) -> list[str]:
        """Those of this prefix: other modules' may be there, whatever the order in which tests come."""
        listed = self.sagemaker.list_endpoints(NameContains="vessel-")["Endpoints"]
        return [each["EndpointName"] for each in listed]

    def ask(self) -> dict:
        return self.host._endpoint(NAME).ask(REQUEST)


@pytest.fixture(scope="module")
def platform(ends, tmp_path_factory) -> Iterator[Platform]:
    """A platform on which a first version serves, yesterday."""
    made = Platform(tmp_path_factory.mktemp("platform"), ends)
    ends.clock_file = made.root / "clock"
    clock.set_to(ends.clock_file, YESTERDAY)
    made.first = made.bundle()
    result = made.host.publish(NAME, made.first.directory)
    assert (result.state, result.version) == ("serving", made.first.version)
    yield made
    ends.clock_file = None


@pytest.fixture
def serving(platform) -> Iterator[Platform]:
    """Whatever a test does, the version that served before it serves after it, and is the only endpoint."""
    before = platform.host.serving_version(NAME)
    yield platform
    platform.ends.alarm, platform.ends.distort = False, None
    assert platform.host.serving_version(NAME) == before
    assert platform.ask()["version"] == before
    assert platform.endpoints() == [ENDPOINT]


def test_what_was_deployed_answers_as_offline(platform):
    answer = platform.ask()
    assert answer["version"] == platform.first.version
    assert answer["predictions"][0]["skus"] == rank_offline(["sku-a"], 2)["skus"]
    assert platform.host.serving_bundle(NAME) == platform.first.directory
    tags = platform.host._endpoint(NAME).tags(platform.first.version)
    assert tags["address"] == platform.storage.address(platform.first.directory)
    assert tags["kind"] == "tiny"


@pytest.fixture
def function(platform, tmp_path) -> Iterator[Function]:
    running = Function(build_package(), HANDLER, {"ENDPOINT_PREFIX": "vessel"}, tmp_path)
    yield running
    running.stop()


ASKED = {
    "shop-1": {"sessions": [["sku-a"], []], "session_ids": ["s-1", "s-2"], "at_ms": [7, 8], "k": 3},
    "shop-2": {"sessions": [["sku-b", {"action": "add", "sku": "sku-b", "timestamp_ms": 5}]], "exclude_seen": True},
}


def test_what_sagemaker_captures_is_the_log_that_the_local_server_writes(platform, function, tmp_path, monkeypatch):
    """Asked as a shop does, by the function; what a deployment asked is in no log."""
    for request_id, request in ASKED.items():
        answer = function(event("POST", "/v1/recommendations", json.dumps(request), {"x-request-id": request_id}))
        assert answer["headers"]["X-Request-Id"] == json.loads(answer["body"])["request_id"] == request_id
        assert set(json.loads(answer["body"])) == {"model", "version", "request_id", "predictions"}
    shown = json.loads(function(event("GET", "/predict?session=sku-a,nobody"))["body"])
    asked = {**ASKED, shown["request_id"]: {"sessions": [["sku-a", "nobody"]]}}
    assert json.loads(function(event("GET", "/predict?session=sku-a&k=0"))["body"])["error"]
    monkeypatch.setattr(clock, "utc_now", lambda: YESTERDAY + timedelta(days=1))
    settings = _settings(platform)
    assert lineage(settings, "shop-1")["answers"][0]["session_id"] == "s-1", "before there is a table"
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"prediction_logs": prediction_logs(settings)})
        [wanted] = watching_sensor(context).run_requests
        resources = {"prediction_logs": prediction_logs(settings), "storage": platform.storage}
        run = dg.materialize([prediction_log], tags=wanted.tags, resources=resources, instance=instance)
    [made] = run.asset_materializations_for_node("prediction_log")
    assert (made.partition, made.metadata["not_logged"].value) == (DAY, 0)
    assert made.metadata["log_holds"].value.startswith("100 % of the answers")
    rows = pl.read_parquet(day_table(platform.storage.folder(LOG_TABLES), DAY))
    assert set(rows["answered_at_ms"] // 86_400_000) == {int(YESTERDAY.timestamp() // 86_400)}
    assert rows["latency_ms"].min() > 0
    ours = rows.filter(pl.col("request_id").is_in([*asked]))
    by_nature = ["answered_at_ms", "latency_ms", "file"]
    assert ours.drop(by_nature).equals(_logged_locally(platform.first, asked, tmp_path).drop(by_nature))
    captured = platform.ends.here.objects(f"{platform.root.name}/captured/{ENDPOINT}/AllTraffic/").values()
    assert any(OURS.encode() in content for content in captured)
    assert platform.first.golden[1]["request"]["k"] not in rows["k"], "golden requests are no shop's"
    told = lineage(settings, shown["request_id"])
    assert told["answers"][0]["recommended"] == rank_offline(["sku-a"])["skus"]
    assert told["bundle"]["version"] == platform.first.version


def _settings(platform: Platform) -> Settings:
    given = {"storage": platform.storage.root, "endpoint_prefix": "vessel", "data_dir": platform.root}
    capture = {"endpoint_capture_percent": 100, "endpoint_instance": "ml.m5.large"}
    return Settings(_env_file=None, profile="aws", **given, **capture)


def _logged_locally(bundle: Bundle, asked: dict[str, dict], folder: Path) -> pl.DataFrame:
    """Ask the same of the local server, under the same ids; return what its log says."""
    server = Server("bundle", bundle.directory, predictions_dir=str(folder / "log"))
    try:
        client.wait_until_up(server.url)
        for request_id, request in asked.items():
            headers = {"X-Request-Id": request_id, "Content-Type": "application/json"}
            post = urllib.request.Request(f"{server.url}/invocations", json.dumps(request).encode(), headers)
            urllib.request.urlopen(post, timeout=30).close()
    finally:
        server.stop()
    logs = LocalPredictionLogs(path=str(folder / "log"))
    return pl.concat([logs.read(file)[0] for day in logs.days() for file in logs.files(day)])


def test_the_asset_deploys_the_api_and_asks_it_as_a_shop_would(platform, function):
    """Over HTTP to the function as Lambda runs it, by unmodified boto3 to the endpoints, to their containers."""
    intent = make_bundle(platform.root / "bundles" / "intent_champion", "intent", export_intent, intent_golden())
    assert platform.host.publish("intent", intent.directory).state == "serving"
    addresses = S3AddressIOManager(base_dir=platform.storage.root)
    handed = {"intent_endpoint": intent, "recommendation_endpoint": platform.first}
    for name, bundle in handed.items():
        address = {"address": platform.storage.address(bundle.directory)}
        platform.storage.store.write_text(f"addresses/{name}.json", json.dumps(address))
    with gateway(function) as url, outputs_of_change_sets():
        template = str(REPOSITORY / "deploy" / "api.yaml")
        api = GatewayApi(storage=platform.storage, stack_name="vessel-api", template=template, own_url=url)
        result = dg.materialize(
            [prediction_api, *(dg.AssetSpec(name).with_io_manager_key("address_io_manager") for name in handed)],
            resources={"storage": platform.storage, "address_io_manager": addresses, "public_api": api},
            selection=[prediction_api],
        )
        posted = function(event("POST", "/v1/recommendations", json.dumps({"sessions": [["sku-a"], []], "k": 3})))
    assert result.success
    [made] = result.asset_materializations_for_node("prediction_api")
    assert made.metadata["url"].value == url
    purchase, products = made.metadata["answers"].value
    assert purchase["prediction"] == pytest.approx(purchase_probability(1), abs=1e-4)
    assert (purchase["version"], products["version"]) == (intent.version, platform.first.version)
    popular = platform.first.golden[0]["predictions"][0]["skus"][:2]
    assert products["prediction"] == rank_offline(popular)["skus"]
    answer = json.loads(posted["body"])
    assert [each["skus"] for each in answer["predictions"]] == [rank_offline(s, 3)["skus"] for s in (["sku-a"], [])]
    platform.host._endpoint("intent").delete()


def test_deploying_twice_leaves_one_endpoint_and_changes_nothing(serving):
    updates = len(serving.ends.updates)
    result = serving.host.publish(NAME, serving.first.directory)
    assert (result.state, len(serving.ends.updates)) == ("serving", updates)
    assert len(serving.sagemaker.list_endpoint_configs(NameContains=ENDPOINT)["EndpointConfigs"]) == 1


def test_a_version_goes_live_in_place_and_back(serving):
    second = serving.bundle(OTHER)
    result = serving.host.publish(NAME, second.directory)
    assert (result.state, serving.ask()["version"]) == ("serving", second.version)
    deployment = serving.ends.updates[-1]["DeploymentConfig"]
    routing = deployment["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert (routing["Type"], routing["CanarySize"]) == ("CANARY", {"Type": "CAPACITY_PERCENT", "Value": 10})
    alarms = {each["AlarmName"] for each in deployment["AutoRollbackConfiguration"]["Alarms"]}
    known = serving.ends.here.client("cloudwatch").describe_alarms(AlarmNamePrefix=ENDPOINT)["MetricAlarms"]
    assert (
        alarms
        == {each["AlarmName"] for each in known}
        == {f"{ENDPOINT}-Invocation5XXErrors", f"{ENDPOINT}-ModelLatency"}
    )
    back = serving.host.rollback(NAME)
    assert (back.state, back.version) == ("serving", serving.first.version)
    with pytest.raises(GateRefused, match="was rolled back from"):
        serving.host.publish(NAME, second.directory)
    with pytest.raises(BundleError, match="was rolled back"):
        serving.host.rollback(NAME, second.version)
    with pytest.raises(BundleError, match="There is no earlier version"):
        serving.host.rollback(NAME)


def test_a_challenger_by_the_jobs_is_told_apart_in_answers_and_in_the_log(serving, function):
    rival = serving.bundle(OTHER, gate=PASSED, refit={"first": "2026-10-01", "last": "2026-10-28", "count": 28})

    def run(job: dg.JobDefinition, **config) -> dg.ExecuteInProcessResult:
        [op] = [node.name for node in job.nodes]
        resources = {"endpoint_host": serving.host, "storage": serving.storage}
        config = {"ops": {op: {"config": {"endpoint": NAME, **config}}}}
        return job.execute_in_process(run_config=config, resources=resources, instance=dg.DagsterInstance.ephemeral())

    assert run(canary_job, version=rival.version, share=0.5).success
    assert serving.host.challenger(NAME) == rival.version
    asked = [event("GET", "/predict?session=sku-a", headers={"X-Request-Id": f"canary-{n}"}) for n in range(4)]
    answers = [json.loads(function(each)["body"]) for each in asked]
    ranked = {serving.first.version: rank_offline(["sku-a"]), rival.version: rank_offline(["sku-a"], follows=OTHER)}
    assert {each["version"] for each in answers} == set(ranked)
    assert all(each["prediction"] == ranked[each["version"]]["skus"] for each in answers)
    logs = prediction_logs(_settings(serving))
    told = [logs.find(each["request_id"], DAY)[0] for each in answers]
    assert [each["version"] for each in told] == [each["version"] for each in answers]
    assert run(end_canary_job).success
    assert serving.host.challenger(NAME) == ""


def test_answers_that_differ_are_taken_back(serving):
    new = serving.bundle(OTHER)

    def worse(answer: dict) -> dict:
        if answer["version"] == new.version:
            answer["predictions"][0]["skus"].reverse()
        return answer

    serving.ends.distort = worse
    result = serving.host.publish(NAME, new.directory)
    assert (result.state, result.version) == ("refused", new.version)
    assert f"Version {serving.first.version} goes on serving" in result.sentence
    assert "prediction 0" in result.sentence


def test_a_kill_after_going_live_does_not_let_bad_answers_stay(serving):
    new, endpoint = serving.bundle(OTHER), serving.host._endpoint(NAME)
    endpoint.go_to(endpoint.add_config(_added(serving, new).version), [])
    serving.ends.distort = lambda answer: {**answer, "predictions": []} if answer["version"] == new.version else answer
    result = serving.host.publish(NAME, new.directory)
    assert result.state == "refused"
    assert f"Version {serving.first.version} goes on serving" in result.sentence


def test_a_container_that_does_not_start_leaves_the_old_one(serving):
    broken = serving.bundle(OTHER)
    (broken.directory / "golden.json").write_text("[]")
    with tarfile.open(broken.archive, "w:gz") as archive:
        archive.add(broken.directory, ".")
    with pytest.raises(
        CloudError, match=f"did not pass the ping health check.*{serving.first.version} goes on"
    ) as error:
        serving.host._switch(serving.host._endpoint(NAME), NAME, _added(serving, broken), [])
    assert "log group" in error.value.hint
    assert "golden.json" in serving.ends.logs[-1]


def _added(platform: Platform, bundle: Bundle) -> Bundle:
    """Add a version that publish would not take, as something behind it could break."""
    address = platform.storage.publish(bundle.directory)
    root = f"{platform.storage.root}/{address.rsplit('/', 1)[0]}/model.tar.gz"
    platform.host._endpoint(NAME).add_version(bundle.version, root, {})
    return bundle


def test_a_missing_image_leaves_the_old_one(serving):
    host = serving.with_(image="nobody/nothing:1", instance_type="ml.m5.large")
    with pytest.raises(CloudError, match=r"The image 'nobody/nothing:1' does not exist.*goes on serving") as error:
        host.publish(NAME, serving.bundle(OTHER).directory)
    assert "BIGGER_BOAT_SERVING_IMAGE" in error.value.hint


def test_an_alarm_leaves_the_old_one(serving):
    serving.ends.alarm = True
    with pytest.raises(CloudError, match=r"alarms went off.*goes on serving") as error:
        serving.host.publish(NAME, serving.bundle(OTHER).directory)
    assert "CloudWatch" in error.value.hint


def test_a_quota_leaves_the_old_one(serving):
    with (
        serving.ends.here.refusing("sagemaker", "UpdateEndpoint", "ResourceLimitExceeded", 400),
        pytest.raises(CloudError, match=r"AWS answered ResourceLimitExceeded.*goes on serving") as error,
    ):
        serving.host.publish(NAME, serving.bundle(OTHER).directory)
    assert "Service Quotas" in error.value.hint


def test_who_waits_too_long_may_come_back(serving):
    new, impatient = serving.bundle(OTHER), serving.with_(instance_type="ml.m5.large", timeout_s=0.2)
    serving.ends.hold.set()
    with pytest.raises(CloudError, match="is still Updating after") as error:
        impatient.publish(NAME, new.directory)
    assert "again to follow it" in error.value.hint
    assert serving.ask()["version"] == serving.first.version
    serving.ends.hold.clear()
    assert serving.host.publish(NAME, new.directory).state == "serving"
    assert serving.host.rollback(NAME, serving.first.version).state == "serving"


def test_old_versions_are_swept_and_what_serves_or_was_rolled_back_from_stays(ends, tmp_path):
    platform = Platform(tmp_path, ends)
    versions = [f"2026010{day}T000000000Z-aaaaaaaa" for day in range(1, 8)]
    host = SageMakerHost(
        **{**_fields(platform.with_(instance_type="ml.m5.large")), "prefix": "swept", "keep_versions": 2}
    )
    endpoint = host._endpoint(NAME)
    for version in versions:
        endpoint.add_version(version, "s3://boat/model.tar.gz", {})
        endpoint.add_config(version)
    for version in versions[:5]:
        endpoint.tag(version, "served", "then")
    endpoint.tag(versions[0], "excluded", "rolled back")
    endpoint.tag(versions[5], "excluded", "refused")
    with pytest.MonkeyPatch.context() as patch:
        state = EndpointState("InService", f"swept-recommendation-{versions[6]}-aaaaaa")
        patch.setattr(SageMakerEndpoint, "state", lambda self: state)
        assert host.sweep(NAME) == [versions[1], versions[2], versions[5]]
        assert host.sweep(NAME) == []
    assert endpoint.versions() == [versions[index] for index in (0, 3, 4, 6)]
    listed = platform.sagemaker.list_endpoint_configs(NameContains="swept")["EndpointConfigs"]
    kept = [endpoint.version_of(each["EndpointConfigName"]) for each in listed]
    assert sorted(kept) == endpoint.versions()


def test_instances_follow_the_requests_if_told(serving):
    from bigger_boat.resources.sagemaker_guards import put_scaling

    assert not put_scaling(ENDPOINT, EndpointShape(instance_type="ml.m5.large"))
    assert put_scaling(ENDPOINT, EndpointShape(instance_type="ml.m5.large", instances=1, most_instances=4))
    scaling = serving.ends.here.client("application-autoscaling")
    ours = [f"endpoint/{ENDPOINT}/variant/AllTraffic"]
    [target] = scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=ours)["ScalableTargets"]
    assert target["MaxCapacity"] == 4


def test_a_first_deployment_that_fails_leaves_no_endpoint(ends, tmp_path):
    platform = Platform(tmp_path, ends)
    host = SageMakerHost(**{**_fields(platform.with_(image="nobody/nothing:1")), "prefix": "first"})
    with pytest.raises(CloudError, match=r"does not exist.*Nothing serves"):
        host.publish(NAME, platform.bundle().directory)
    assert host.serving_version(NAME) is None
    assert host.serving_bundle(NAME) is None
    assert "first-recommendation" not in platform.endpoints()


def _fields(host: SageMakerHost) -> dict:
    return {name: getattr(host, name) for name in ("storage", "role", "image", "shape", "timeout_s", "poll_s")}


def test_serverless_is_asked_for_in_sagemakers_spelling(ends, tmp_path):
    platform = Platform(tmp_path, ends)
    host = platform.with_(memory_mb=2048, concurrency=7)
    endpoint, bundle = host._endpoint(NAME), platform.bundle()
    endpoint.add_version(bundle.version, "s3://boat/model.tar.gz", {})
    config = platform.sagemaker.describe_endpoint_config(EndpointConfigName=endpoint.add_config(bundle.version))
    assert config["ProductionVariants"][0]["ServerlessConfig"] == {"MemorySizeInMB": 2048, "MaxConcurrency": 7}
    assert not config.get("DataCaptureConfig")
    endpoint.remove_version(bundle.version)
