"""The public API of the aws profile: API Gateway and Lambda, deployed as one CloudFormation stack by change sets.

Belongs here: the stack's parameters, and asking the API. What belongs elsewhere: the stack (``deploy/api.yaml``), the
function (``serving/lambda_entry.py``), change sets (``stacks.py``).
"""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field, PrivateAttr

from bigger_boat.errors import ServerError
from bigger_boat.resources.aws import aws_client, aws_in_words
from bigger_boat.resources.lambda_package import build_package, package_name
from bigger_boat.resources.public_api import PublicApi
from bigger_boat.resources.s3_storage import S3Storage
from bigger_boat.resources.stacks import Stack

CODE, LANDING = "code", "landing"
ROLES = ("FunctionRole", "CollectRole", "StreamRole")
_TIMEOUT_S = 30


class GatewayApi(PublicApi):
    """What a shop's pages ask, at AWS."""

    storage: S3Storage
    stack_name: str = Field("bigger-boat-api", description="name of the CloudFormation stack, and of what it makes")
    endpoint_prefix: str = Field("bigger-boat", description="how the names of the SageMaker endpoints begin")
    template: str = Field(description="path of deploy/api.yaml")
    platform_stack: str = Field("", description="the stack of deploy/platform.yaml, whose roles it then has")
    allowed_origins: str = Field("", description="origins that browsers may call from, separated by commas")
    ask_for_key: bool = Field(False, description="whether requests must carry an API key")
    requests_per_second: int = Field(50, ge=1, description="requests that are answered in the long run; more get 429")
    own_url: str = Field("", description="another address than the stage's: a domain of one's own")

    _outputs: dict[str, str] | None = PrivateAttr(default=None)

    @property
    def url(self) -> str:
        """Where the API is; "" before it was deployed."""
        return self.own_url or self._output("Url")

    def deploy(self, agree: Callable[[list[str]], bool] = lambda changes: True) -> dict[str, Any]:  # noqa: ARG005
        """Bring the stack up to date if ``agree`` does to the changes, which are told first; return those made.

        Raises CloudError with what failed.
        """
        package = build_package()
        code = f"{CODE}/{package_name(package)}"
        bucket, root = self.storage.bucket_and_path
        parameters = {
            "EndpointPrefix": self.endpoint_prefix,
            "CodeBucket": bucket,
            "CodeKey": f"{root}{code}",
            "LandingBucket": bucket,
            "LandingPrefix": f"{root}{LANDING}",
            "AllowedOrigins": self.allowed_origins,
            "AskForKey": str(self.ask_for_key).lower(),
            "RequestsPerSecond": str(self.requests_per_second),
            "Burst": str(2 * self.requests_per_second),
            **self._roles(),
        }

        def leave_code(changes: list[str]) -> bool:
            if not agree(changes):
                return False
            self.storage.store.write_bytes(code, package)
            return True

        changes = self._stack.update(Path(self.template).read_text(), parameters, leave_code)
        self._outputs = None
        return {"stack": self.stack_name, "changes": changes or ["nothing: it is up to date"]}

    def _roles(self) -> dict[str, str]:
        """Return the platform's roles, which may write to its own bucket only; none: the stack makes its own."""
        platform = (
            Stack(self.platform_stack, dg.get_dagster_logger("stack").info).outputs() if self.platform_stack else {}
        )
        if platform.get("Storage") != self.storage.root.rstrip("/"):
            return {}
        return {f"{name}Arn": platform[name] for name in ROLES}

    def get(self, query: str) -> dict[str, Any]:
        """Answer ``GET /predict?QUERY``, over the internet. Raises ServerError with what came instead of an answer."""
        url = self.url
        if not url:
            raise ServerError(f"The stack {self.stack_name} has no API yet.", "Materialize prediction_api.")
        request = urllib.request.Request(f"{url}/predict?{query}")
        if self.ask_for_key:
            request.add_header("X-Api-Key", self._key())
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(1000).decode(errors="replace")
            raise ServerError(
                f"{url} answered {error.code}: {said}",
                f"Look at log /aws/lambda/{self.stack_name}.",
                may_pass=error.code >= 500 or error.code == 429,
            ) from None
        except ValueError as error:
            raise ServerError(f"{url} answered what is no JSON: {error}.", "Look at BIGGER_BOAT_API_URL.") from error
        except OSError as error:
            raise ServerError(f"{url} cannot be asked: {error}.", "Look at the network.", may_pass=True) from error

    def _output(self, name: str) -> str:
        """Return what the stack says of itself, asked for once after a deployment; "" where there is nothing yet."""
        if not self._outputs:
            self._outputs = self._stack.outputs()
        return self._outputs.get(name, "")

    def _key(self) -> str:
        """Return the API key, which API Gateway made and keeps."""
        key = self._output("KeyId")
        with aws_in_words(f"The API key of {self.stack_name} cannot be read"):
            return aws_client("apigateway").get_api_key(apiKey=key, includeValue=True)["value"]

    @property
    def _stack(self) -> Stack:
        return Stack(self.stack_name, dg.get_dagster_logger("stack").info)
