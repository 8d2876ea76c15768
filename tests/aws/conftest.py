"""One stand-in for AWS per test process; what is planted as a secret in its environment must never leave it."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no test folder on the path

from account_stand_in import account
from batch_stand_in import CREDENTIALS, StandIn, stand_in
from sagemaker_shop import FIRST, SECOND, Shop, open_shop
from sagemaker_stand_in import Endpoints, sagemaker

PLANTED = "planted-4711-secret"


@pytest.fixture(scope="session")
def aws(tmp_path_factory) -> Iterator[StandIn]:
    """The stand-in, found by every client of this process; the image holds the small graph."""
    image = tmp_path_factory.mktemp("image")
    shutil.copy(Path(__file__).with_name("batch_graph.py"), image)
    with stand_in(image) as running, account() as running.account, pytest.MonkeyPatch.context() as patch:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": running.url, "AWS_SECRET_ACCESS_KEY": PLANTED}.items():
            patch.setenv(name, value)
        patch.setenv("SNOWFLAKE_PRIVATE_KEY_OF_THIS_MACHINE", PLANTED)
        yield running


@pytest.fixture(scope="session")
def ends(aws) -> Iterator[Endpoints]:
    """The stand-in's SageMaker endpoints."""
    with sagemaker(aws) as running:
        yield running


@pytest.fixture
def shop(ends, tmp_path) -> Iterator[Shop]:
    with open_shop(ends, tmp_path) as made:
        yield made


@pytest.fixture
def two(shop) -> Shop:
    """The second version serves; the first did."""
    for version in (FIRST, SECOND):
        assert shop.publish(version).state == "serving"
    return shop
