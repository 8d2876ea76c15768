"""Clients for AWS, and its refusals in words. Credentials, region and endpoints are found as boto3 finds them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bigger_boat.errors import CloudError

ATTEMPTS = 8
"""How often a call is made before its error counts: throttling and short outages are no news."""

_DENIED = "The role of this process lacks the permission that AWS names; add it, and run again."
_LOGIN = "Log in again: the credentials are missing, too old, or not those of this account."
_BUCKET = "Correct the bucket in BIGGER_BOAT_STORAGE and BIGGER_BOAT_BATCH_PREFIX, or make it."
_REGION = "The bucket is in another region: set AWS_DEFAULT_REGION to it."
_HINTS = {
    **dict.fromkeys(("403", "AccessDenied", "AccessDeniedException", "AuthorizationError"), _DENIED),
    "UnauthorizedOperation": _DENIED,
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"), _LOGIN),
    **dict.fromkeys(("InvalidAccessKeyId", "InvalidClientTokenId", "InvalidToken", "AuthFailure"), _LOGIN),
    **dict.fromkeys(("UnrecognizedClientException", "MissingAuthenticationToken"), _LOGIN),
    **dict.fromkeys(("SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature"), _LOGIN),
    "ResourceLimitExceeded": "Ask Service Quotas for more of what AWS names, or choose another kind of machine.",
    "NoSuchBucket": _BUCKET,
    **dict.fromkeys(("301", "PermanentRedirect", "AuthorizationHeaderMalformed"), _REGION),
    "IllegalLocationConstraintException": _REGION,
}
_ANY_HINT = (
    "Check BIGGER_BOAT_BATCH_*, BIGGER_BOAT_STORAGE and BIGGER_BOAT_ENDPOINT_*, the region and the credentials; "
    "docs/aws.md says what is needed."
)


def aws_client(service: str) -> Any:
    """Return boto3's client of a service (``s3``, ``batch``). Raises CloudError without a region or credentials."""
    import boto3
    from botocore.config import Config

    with aws_in_words(f"A client for {service} cannot be made"):
        retries = {"mode": "standard", "max_attempts": ATTEMPTS}
        return boto3.client(service, config=Config(retries=retries, connect_timeout=10, read_timeout=60))


def aws_region() -> str:
    """Return the region of this process. Raises CloudError where there is none."""
    import boto3

    region = boto3.Session().region_name
    if not region:
        raise CloudError("There is no AWS region.", "Set AWS_DEFAULT_REGION, or a region in the profile AWS_PROFILE.")
    return region


@contextmanager
def aws_in_words(what: str) -> Iterator[None]:
    """Turn boto3's errors, and those that s3fs made of them, into a CloudError that begins with ``what``."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectTimeoutError,
        EndpointConnectionError,
        HTTPClientError,
        NoCredentialsError,
        SSOError,
        TokenRetrievalError,
    )

    try:
        yield
    except ClientError as error:
        raise _answered(what, error) from error
    except BotoCoreError as error:
        outages = (EndpointConnectionError, ConnectTimeoutError, HTTPClientError)  # no connection, or none that held
        hint = _LOGIN if isinstance(error, (NoCredentialsError, SSOError, TokenRetrievalError)) else _ANY_HINT
        raise CloudError(f"{what}: {error}", hint, may_pass=isinstance(error, outages)) from error
    except OSError as error:
        if isinstance(error.__cause__, ClientError):
            raise _answered(what, error.__cause__) from error
        raise


def _answered(what: str, error: Any) -> CloudError:
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    may_pass = status >= 500 or status == 429 or "Throttl" in code
    return CloudError(f"{what}: AWS answered {code}: {message}", _HINTS.get(code, _ANY_HINT), may_pass=may_pass)
