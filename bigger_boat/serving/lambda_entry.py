"""What Lambda runs behind API Gateway: the shared handler, with SageMaker endpoints behind it.

Belongs here: API Gateway's events, SageMaker's runtime, this function's own variables. Does not belong here: what is
answered (``handler.py``). Standard library, and boto3 from Lambda's runtime.

An answer's id, by which ``bigger-boat explain`` finds it in what SageMaker captures, is the caller's ``X-Request-Id``,
or else API Gateway's own.

``ENDPOINT_PREFIX``: how the names of endpoints begin. ``ALLOWED_ORIGINS``: origins for browsers, separated by commas.
"""

import base64
import json
import os
from functools import lru_cache, partial
from typing import Any

from bigger_boat.errors import RequestError
from bigger_boat.serving.contract import format_answer, request_id_of
from bigger_boat.serving.handler import handle, parse_origins

_BUSY = ("ThrottlingException", "ServiceUnavailable", "ModelNotReadyException")


def handler(event: dict[str, Any], _context: Any = None) -> dict[str, Any]:
    """Answer one event of API Gateway's Lambda proxy integration; never raises."""
    try:
        body = event.get("body") or ""
        content = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    except ValueError:
        content = b"\x00"  # no valid body: the handler says so
    request_id = _request_id(event)
    response = handle(
        event.get("httpMethod") or "GET",
        event.get("path") or "/",
        event.get("queryStringParameters"),
        event.get("headers"),
        content,
        partial(invoke, request_id=request_id),
        allowed_origins=parse_origins(os.environ.get("ALLOWED_ORIGINS", "")),
    )
    headers = {**response.headers, **({"X-Request-Id": request_id} if request_id else {})}
    return {"statusCode": response.status, "headers": headers, "body": response.body.decode()}


def invoke(name: str, request: dict[str, Any], request_id: str = "") -> dict[str, Any]:
    """Ask a SageMaker endpoint, which captures the id. Raises RequestError for an answer that is no success."""
    from botocore.exceptions import ClientError

    try:
        answer = _runtime().invoke_endpoint(
            EndpointName=f"{os.environ['ENDPOINT_PREFIX']}-{name}",
            ContentType="application/json",
            Body=json.dumps(request).encode(),
            **({"InferenceId": request_id} if request_id else {}),
        )
    except ClientError as error:
        raise _declined(error.response, name) from error
    said = json.loads(answer["Body"].read())
    return format_answer(said["model"], said["version"], request_id or said["request_id"], said["predictions"])


def _request_id(event: dict[str, Any]) -> str:
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    given = headers.get("x-request-id"), (event.get("requestContext") or {}).get("requestId")
    return next(filter(None, map(request_id_of, given)), "")


@lru_cache(maxsize=1)
def _runtime() -> Any:
    """Return the client, which keeps its connections from one event to the next."""
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard", "max_attempts": 3}
    return boto3.client("sagemaker-runtime", config=Config(connect_timeout=2, read_timeout=10, retries=retries))


def _declined(response: dict[str, Any], name: str) -> Exception:
    """Return what a refusal means to the caller; what it does not tell is the handler's 502."""
    code, status = response["Error"]["Code"], response.get("OriginalStatusCode", 0)
    if code in _BUSY:
        return RequestError(f"The {name} endpoint is busy or starting: ask again in a few seconds.", "busy", 503)
    if code == "ValidationError" and "not found" in response["Error"].get("Message", ""):
        return RequestError(f"The {name} endpoint has no model yet.", "no_model", 503)
    if 400 <= status < 500 or status == 503:
        try:
            said = json.loads(response["OriginalMessage"])["error"]
            return RequestError(said["message"], said["code"], status)
        except (KeyError, ValueError, TypeError):
            pass
    return RuntimeError(f"SageMaker answered {code}")
