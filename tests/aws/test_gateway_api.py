"""The public API at AWS: the stack by change sets, and the function as Lambda runs it."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import dagster as dg
import pytest
from batch_stand_in import BUCKET, REPOSITORY
from iam_policies import Template
from lambda_stand_in import Function, event, gateway, outputs_of_change_sets

from bigger_boat.errors import CloudError, ServerError
from bigger_boat.profiles import build_resources
from bigger_boat.resources.alerts import Alert, Alerts
from bigger_boat.resources.endpoint_host import EndpointHost
from bigger_boat.resources.gateway_api import GatewayApi
from bigger_boat.resources.lambda_package import HANDLER, SOURCES, build_package
from bigger_boat.resources.public_api import PublicApi
from bigger_boat.resources.s3_storage import S3Storage
from bigger_boat.resources.storage import Storage
from bigger_boat.serving.contract import format_error
from bigger_boat.serving.lambda_entry import _declined
from bigger_boat.settings import Settings

PLANTED = "planted-4711-secret"
"""As in ``conftest.py``, which puts it into this process's environment."""

TEMPLATE = REPOSITORY / "deploy" / "api.yaml"
PACKAGED = """
import sys
sys.path.insert(0, sys.argv[1])
from bigger_boat.resources.lambda_package import build_package
sys.stdout.buffer.write(build_package())
"""


def test_the_package_is_small_and_the_same_wherever_it_is_made(tmp_path):
    package = build_package()
    assert len(package) < 64 * 1024
    command = [sys.executable, "-c", PACKAGED, str(REPOSITORY)]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout == package
    with zipfile.ZipFile(BytesIO(package)) as archive:
        assert archive.namelist() == [f"bigger_boat/{name}" for name in SOURCES]


@pytest.mark.slow
def test_the_template_passes_the_linter():
    linted = subprocess.run(
        [str(Path(sys.executable).with_name("cfn-lint")), str(TEMPLATE)], capture_output=True, text=True, check=False
    )
    assert linted.returncode == 0, linted.stdout
    assert f"Handler: {HANDLER}" in TEMPLATE.read_text()


def test_what_api_gateway_answers_by_itself_follows_the_contract():
    """Its own bodies are ``{"message": ...}``; a client that reads ours would find no error in them."""
    made = Template(TEMPLATE).resources
    ours = {name: each for name, each in made.items() if each["Type"] == "AWS::ApiGateway::GatewayResponse"}
    assert set(ours) <= set(made["ApiDeployment"]["DependsOn"])  # a snapshot holds what was there before it
    said = {}
    for each in (response["Properties"] for response in ours.values()):
        filled = each["ResponseTemplates"]["application/json"].replace("$context.error.messageString", '"why"')
        body = json.loads(filled)
        assert body == format_error(body["error"]["code"], body["error"]["message"])
        said[each["ResponseType"]] = (each.get("StatusCode"), body["error"]["code"])
    assert {"DEFAULT_4XX", "DEFAULT_5XX"} < set(said)
    assert said["INVALID_API_KEY"] == ("401", "unauthorized")  # as the local server says it
    assert said["MISSING_AUTHENTICATION_TOKEN"] == ("404", "not_found")  # its words for a path that is none
    assert (said["BAD_REQUEST_BODY"][0], said["THROTTLED"][0]) == ("400", "429")


@pytest.fixture
def api(aws, tmp_path) -> Iterator[GatewayApi]:
    storage = S3Storage(base_dir=str(tmp_path), root=f"s3://{BUCKET}/{tmp_path.name}")
    with outputs_of_change_sets():
        yield GatewayApi(storage=storage, stack_name=tmp_path.name.replace("_", "-"), template=str(TEMPLATE))


def test_deploying_tells_the_changes_makes_them_and_does_nothing_the_second_time(api, aws, caplog):
    assert api.url == ""
    with pytest.raises(ServerError, match="has no API yet"):
        api.get("x=view")
    deployed = api.deploy()
    assert "add Function, AWS::Lambda::Function" in deployed["changes"]
    code = aws.client("lambda").get_function(FunctionName=api.stack_name)["Configuration"]
    assert code["CodeSize"] == len(build_package())
    assert code["Environment"]["Variables"] == {"ENDPOINT_PREFIX": "bigger-boat", "ALLOWED_ORIGINS": ""}
    gateway = aws.client("apigateway")
    [found] = [each for each in gateway.get_rest_apis()["items"] if each["name"] == api.stack_name]
    resources = gateway.get_resources(restApiId=found["id"])["items"]
    methods = {each["path"]: set(each.get("resourceMethods", {})) for each in resources}
    assert methods["/v1/intent"] == methods["/v1/recommendations"] == {"POST", "OPTIONS"}
    assert (methods["/predict"], methods["/collect"]) == ({"GET", "OPTIONS"}, {"POST"})
    url = f"https://{found['id']}.execute-api.eu-west-1.amazonaws.com/live"
    assert api.url == url
    with aws.refusing("cloudformation", "POST", "AccessDenied", 403):
        assert api.url == url  # it is asked for once
    assert api.deploy()["changes"] == ["nothing: it is up to date"]


def test_another_setting_changes_the_function_and_deploys_the_api_again(api, aws):
    api.deploy()
    changed = GatewayApi(**{**_fields(api), "allowed_origins": "https://shop.example"}).deploy()["changes"]
    assert any(change.startswith("add ApiDeployment") for change in changed)
    variables = aws.client("lambda").get_function(FunctionName=api.stack_name)["Configuration"]["Environment"]
    assert variables["Variables"]["ALLOWED_ORIGINS"] == "https://shop.example"


def _fields(api: GatewayApi) -> dict:
    return {name: getattr(api, name) for name in ("storage", "stack_name", "template")}


def test_what_cloudformation_refuses_is_told(api, aws):
    refused = aws.refusing("cloudformation", "POST", "AccessDenied", 403)
    with refused, pytest.raises(CloudError, match=f"Stack {api.stack_name}: .*AWS answered AccessDenied") as error:
        api.deploy()
    assert "lacks the permission" in error.value.hint


@pytest.mark.slow
def test_no_secret_leaves_this_process(api, aws, tmp_path, caplog, monkeypatch):
    """Planted in every secret setting and in AWS's own variable; everything that a deployment leaves is searched.

    The fields of all resources are searched, too: the web UI shows them.
    """
    secrets = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]
    assert "alert_webhook" in secrets
    batch = {f"batch_{kind}_{what}": "x" for kind in ("gpu", "cpu") for what in ("queue", "job_definition")}
    given = {"profile": "aws", "storage": api.storage.root, "remote_steps": True, "batch_prefix": "s3://x/y", **batch}
    settings = Settings(data_dir=tmp_path, **given, **dict.fromkeys(secrets, PLANTED), _env_file=None)
    resources = {**build_resources(settings), "public_api": api}
    monkeypatch.setattr("bigger_boat.resources.alerts.get_settings", lambda: settings)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == PLANTED

    @dg.asset
    def deployed(public_api: PublicApi, endpoint_host: EndpointHost, storage: Storage, alerts: Alerts) -> None:
        public_api.deploy()
        assert "webhook was not told" in alerts.send(Alert("A run failed."))  # what was planted is no address
        endpoint_host.serving_version("intent")
        with storage.draft("reports/some") as draft:
            (draft.path / "report.json").write_text("{}")

    used = {name: resources[name] for name in ("public_api", "endpoint_host", "storage", "alerts")}
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([deployed], resources=used, instance=instance)
        events = [repr(record) for record in instance.all_logs(result.run_id)]
    function = aws.client("lambda").get_function(FunctionName=api.stack_name)["Configuration"]
    [stack] = aws.client("cloudformation").describe_stacks(StackName=api.stack_name)["Stacks"]
    jobs = [resources[f"{kind}_compute"].needs.environment for kind in ("gpu", "cpu")]
    told = [*events, result.dagster_run.run_config, caplog.text, *resources.items(), settings]
    assert len(events) > 5
    assert not [found for found in [*told, function, stack, jobs] if PLANTED in repr(found)]
    assert not [key for key, content in aws.objects().items() if PLANTED.encode() in content]


@pytest.fixture(scope="module")
def function(ends, tmp_path_factory):
    variables = {"ENDPOINT_PREFIX": "nobody", "ALLOWED_ORIGINS": "https://other.example, https://shop.example ,"}
    running = Function(build_package(), HANDLER, variables, tmp_path_factory.mktemp("function"))
    yield running
    running.stop()


def test_the_function_answers_what_needs_no_model(function):
    health = function(event("GET", "/health"))
    assert (health["statusCode"], json.loads(health["body"])) == (200, {"status": "ok"})
    headers = {"origin": "https://shop.example"}
    asked = function(event("OPTIONS", "/v1/intent", headers=headers))
    assert (asked["statusCode"], asked["headers"]["Access-Control-Allow-Origin"]) == (204, "https://shop.example")
    assert function(event("GET", "/nowhere"))["statusCode"] == 404


def test_a_request_has_the_id_of_its_caller_or_of_api_gateway(function):
    answer = function(event("GET", "/health", headers={"X-Request-ID": "shop-42"}))
    assert answer["headers"]["X-Request-Id"] == "shop-42"
    asked = event("GET", "/health", headers={"X-Request-Id": "a b;c"})
    assert function(asked)["headers"]["X-Request-Id"] == asked["requestContext"]["requestId"]
    assert "X-Request-Id" not in function({"httpMethod": "GET", "path": "/health"})["headers"]


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        (event("GET", "/predict?x=view&session=a"), 400, "invalid_request"),
        (event("POST", "/v1/intent", "{"), 400, "invalid_json"),
        ({**event("POST", "/v1/intent", "%%%"), "isBase64Encoded": True}, 400, "invalid_json"),
        (event("GET", "/v1/intent"), 405, "method_not_allowed"),
        (event("GET", "/predict"), 503, "no_model"),
    ],
)
def test_what_cannot_be_answered_says_why(function, given, status, code):
    answer = function(given)
    assert (answer["statusCode"], json.loads(answer["body"])["error"]["code"]) == (status, code)


def test_the_api_is_asked_over_http(function, api):
    with gateway(function) as url:
        asked = GatewayApi(**_fields(api), own_url=url)
        assert asked.url == url
        with pytest.raises(ServerError, match=r"answered 503: .*no_model") as busy:
            asked.get("x=start,view")
        with pytest.raises(ServerError, match=r"answered 400: .*invalid_request") as wrong:
            asked.get("x=view&session=a")
    with pytest.raises(ServerError, match="cannot be asked") as gone:
        asked.get("x=start,view")
    assert [error.value.may_pass for error in (busy, wrong, gone)] == [True, False, True]


def test_what_a_container_refuses_is_passed_on_and_what_fails_is_not_told():
    said = {"OriginalStatusCode": 400, "OriginalMessage": '{"error": {"code": "k_out_of_range", "message": "k."}}'}
    declined = _declined({"Error": {"Code": "ModelError"}, **said}, "intent")
    assert (declined.status, declined.code, declined.message) == (400, "k_out_of_range", "k.")
    busy = _declined({"Error": {"Code": "ThrottlingException"}}, "intent")
    assert (busy.status, busy.code) == (503, "busy")
    for unknown in ({"OriginalStatusCode": 500, "OriginalMessage": "Traceback"}, {"OriginalStatusCode": 400}):
        assert type(_declined({"Error": {"Code": "ModelError"}, **unknown}, "intent")) is RuntimeError
