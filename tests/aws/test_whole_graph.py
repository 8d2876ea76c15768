"""The whole graph on AWS, as a user makes it by the command line, held against the same graph on a laptop.

One test, because it takes minutes: the chapters of its story are functions.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))  # importlib mode puts no test folder on the path

from played_shop import Department
from whole_aws import PREFIX, Cloud, new_key, whole_aws
from whole_shop import free_port, start_cli

from bigger_boat.data.dataset_manifest import read_manifest
from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.ml.bundle import read_bundle
from bigger_boat.ml.golden import compare_golden
from bigger_boat.serving import client
from bigger_boat.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Tried to parse")]

DAYS, SESSIONS_A_DAY = 7, 200
PLANTED = "planted-4711-secret"
"""As in ``conftest.py``, which has it as AWS's secret key."""
TRAINED = {"intent_model", "lstm_recommender", "prodb_recommender", "intent_champion", "recommendation_champion"}
DATA_SETS = ("intent_dataset", "recommendation_dataset")
ACTIONS = "/predict?x=start,view,detail,add,view,end"
TOLERANCE = 1e-3


def test_the_whole_graph(aws, ends, tmp_path: Path):
    shop = Department(tmp_path / "shop", 1, DAYS, seed=1, sessions_a_day=SESSIONS_A_DAY)
    key = new_key(passphrase=PLANTED)
    with whole_aws(aws, ends, tmp_path, planted(key)) as cloud, laptop(tmp_path, shop) as home:
        cloud.cli("land", str(tmp_path / "shop" / "source"))
        said = cloud.cli("run")
        everything_was_made_where_it_belongs(cloud, said)
        data_and_answers_are_those_of_the_laptop(cloud, home, shop)
        a_second_run_does_nothing(cloud)
        the_roles_cover_every_call(cloud)
        no_secret_left_the_laptop(cloud, key)


def planted(key: str) -> dict[str, str]:
    """Return every secret that can be set."""
    secrets = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    values = dict.fromkeys(secrets, PLANTED) | {"snowflake_private_key": key, "alert_webhook": f"http://{PLANTED}/"}
    return {f"BIGGER_BOAT_{name.upper()}": value for name, value in values.items()}


@dataclass
class Home:
    """A laptop on which the local profile makes the same graph, and then serves."""

    root: Path
    port: int
    process: subprocess.Popen

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self) -> None:
        """Wait for the graph, and start the server."""
        said = self.root.with_suffix(".txt")
        assert self.process.wait() == 0, said.read_text()
        with said.open("a") as log:
            self.process = start_cli(self.root, "serve", "--port", str(self.port), out=log)
        client.wait_until_up(self.url)

    def version(self, asset: str) -> Path:
        address = json.loads((self.root / "addresses" / f"{asset}.json").read_text())["address"]
        return self.root / address

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@contextmanager
def laptop(folder: Path, shop: Department) -> Iterator[Home]:
    """Begin to make the whole graph of the same landed data with the local profile."""
    root = folder / "home"
    shutil.copytree(shop.landed, root / "landing")
    with (folder / "home.txt").open("w") as said:
        home = Home(root, free_port(), start_cli(root, "run", out=said, BIGGER_BOAT_SIZE="quick"))
    try:
        yield home
    finally:
        home.stop()


def everything_was_made_where_it_belongs(cloud: Cloud, said: str) -> None:
    """Tables on Snowflake, versions on S3, trained as jobs, endpoints at SageMaker, the API by a change set."""
    for made in ("sessions", "intent_dataset", "hybrid_recommender", "intent_endpoint", "prediction_api"):
        assert f"✓ {made} " in said
    assert cloud.url in said
    assert "Warning" not in "".join(cloud.said)
    assert not (cloud.root / "warehouse.duckdb").exists()
    assert any(each.lower().startswith("copy into") for each in cloud.snowflake.entries("statement"))
    jobs = {each["jobName"].split("-")[0]: each["jobQueue"].rsplit("-")[-1] for each in cloud.jobs()}
    assert jobs == {"product_embeddings": "cpu", **dict.fromkeys(TRAINED, "gpu")}
    objects = cloud.objects()
    for kind, name in (
        ("datasets", "intent_dataset"),
        ("embeddings", "product_embeddings"),
        ("bundles", "intent_champion"),
    ):
        assert [key for key in objects if key.startswith(f"data/{kind}/{name}/") and key.endswith("/_files.json")]
    assert [key for key in objects if key.startswith("data/landing/_commits/")]
    endpoints = cloud.aws.client("sagemaker").list_endpoints(NameContains=PREFIX)["Endpoints"]
    assert {each["EndpointName"]: each["EndpointStatus"] for each in endpoints} == {
        f"{PREFIX}-{name}": "InService" for name in ENDPOINTS
    }
    stack = cloud.aws.client("cloudformation").describe_stacks(StackName=f"{PREFIX}-api")["Stacks"]
    assert [each["StackStatus"] for each in stack] == ["CREATE_COMPLETE"]


def data_and_answers_are_those_of_the_laptop(cloud: Cloud, home: Home, shop: Department) -> None:
    """The same data versions; the same scores to 1e-3, asked as a shop's page asks, on both."""
    home.serve()
    for name in DATA_SETS:
        there, here = (read_manifest(laptop.version(name)) for laptop in (cloud, home))
        assert (there.data_version, there.rows) == (here.data_version, here.rows)
    sessions = list(shop.begun_sessions(DAYS).values())
    for path, name in (("/v1/intent", "intent"), ("/v1/recommendations", "recommendation")):
        body = json.dumps({"sessions": sessions, "k": 20}).encode()
        here, there = client.ask(home.url, path, body), client.ask(cloud.url, path, body)
        assert compare_golden(here["predictions"], there["predictions"], TOLERANCE) == []
        assert not any(each.get("fallback") for each in there["predictions"])
        assert there["version"] == read_bundle(cloud.version(f"{name}_champion")).version != here["version"]
        assert there["model"] == here["model"]
    here, there = client.ask(home.url, ACTIONS), client.ask(cloud.url, ACTIONS)
    assert there["prediction"] == pytest.approx(here["prediction"], abs=TOLERANCE)
    assert 0 < there["prediction"] < 1


def a_second_run_does_nothing(cloud: Cloud) -> None:
    before = len(cloud.jobs()), set(cloud.objects())
    assert "Everything selected is up to date" in cloud.cli("run")
    assert (len(cloud.jobs()), set(cloud.objects())) == before


def the_roles_cover_every_call(cloud: Cloud) -> None:
    """What was done with which role, by the command line, the jobs, the function and the endpoints."""
    needs = cloud.needs()
    for role, needed in needs.items():
        assert cloud.platform.missing(role, needed) == [], role
    done = {role: {each.action for each in needed} for role, needed in needs.items()}
    assert {"batch:SubmitJob", "sagemaker:CreateEndpoint", "cloudformation:ExecuteChangeSet"} <= done[
        "OrchestratorRole"
    ]
    assert {"s3:PutObject", "sagemaker:DescribeEndpoint"} <= done["JobRole"]
    assert (done["FunctionRole"], done["EndpointRole"]) == ({"sagemaker:InvokeEndpoint"}, {"s3:GetObject"})
    assert cloud.platform.missing("JobRole", needs["OrchestratorRole"])  # a job may not do all of that


def no_secret_left_the_laptop(cloud: Cloud, key: str) -> None:
    """Nothing of what was planted is in what it wrote (logs, run config, event log), or told to anybody."""
    secrets = [PLANTED.encode(), key.splitlines()[1].encode()]
    told: dict[str, Any] = {str(path): path.read_bytes() for path in cloud.root.rglob("*") if path.is_file()}
    assert any(b"Submitted as AWS Batch job" in each for each in told.values()), "Dagster's event log is among it"
    sagemaker, stacks = cloud.aws.client("sagemaker"), cloud.aws.client("cloudformation").describe_stacks()["Stacks"]
    told |= cloud.objects() | {
        "said": cloud.said,
        "jobs": cloud.jobs(),
        "logs of jobs": cloud.aws.output,
        "logs of endpoints": [each.log.read_text() for each in cloud.ends.running.values()],
        "stacks": stacks,
        "function": cloud.aws.client("lambda").get_function(FunctionName=f"{PREFIX}-api")["Configuration"],
        "models": [sagemaker.describe_model(ModelName=name) for name in cloud.models()],
        "Snowflake": cloud.snowflake.record.read_bytes(),
    }
    everything = {name: each if isinstance(each, bytes) else repr(each).encode() for name, each in told.items()}
    assert not [name for name, content in everything.items() if any(secret in content for secret in secrets)]
