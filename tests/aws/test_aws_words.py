"""What boto3 raises becomes a sentence with what to do; what may pass by itself is marked."""

import pytest
from botocore import exceptions

from bigger_boat.errors import CloudError
from bigger_boat.resources.aws import aws_in_words

WHERE = {"endpoint_url": "https://s3.eu-west-1.amazonaws.com"}
OUTAGES = [
    exceptions.EndpointConnectionError(**WHERE),
    exceptions.ConnectTimeoutError(**WHERE),
    exceptions.ReadTimeoutError(**WHERE),
    exceptions.ConnectionClosedError(**WHERE),
]
LOGGED_OUT = [exceptions.NoCredentialsError(), exceptions.UnauthorizedSSOTokenError()]


def told(error: Exception) -> CloudError:
    with pytest.raises(CloudError) as caught, aws_in_words("It cannot be read"):
        raise error
    return caught.value


def answered(code: str, status: int) -> exceptions.ClientError:
    said = {"Error": {"Code": code, "Message": "so"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return exceptions.ClientError(said, "GetObject")


@pytest.mark.parametrize("error", OUTAGES, ids=lambda error: type(error).__name__)
def test_an_outage_may_pass(error):
    assert told(error).may_pass


@pytest.mark.parametrize("error", LOGGED_OUT, ids=lambda error: type(error).__name__)
def test_who_is_not_logged_in_is_told_so(error):
    found = told(error)
    assert (found.may_pass, found.hint.startswith("Log in again")) == (False, True)


@pytest.mark.parametrize(
    ("code", "status", "hint", "may_pass"),
    [
        ("InternalError", 500, "docs/aws.md", True),
        ("ThrottlingException", 400, "docs/aws.md", True),
        ("TooManyRequestsException", 429, "docs/aws.md", True),
        ("ValidationException", 400, "docs/aws.md", False),
        ("AuthorizationError", 403, "lacks the permission", False),
        *((code, 400, "Log in again", False) for code in ("ExpiredToken", "ExpiredTokenException", "RequestExpired")),
        *((code, 403, "Log in again", False) for code in ("InvalidClientTokenId", "UnrecognizedClientException")),
        *((code, 401, "Log in again", False) for code in ("AuthFailure", "InvalidSignatureException")),
    ],
)
def test_an_answer_has_a_hint_of_its_own(code, status, hint, may_pass):
    found = told(answered(code, status))
    assert found.message == f"It cannot be read: AWS answered {code}: so"
    assert (hint in found.hint, found.may_pass) == (True, may_pass)


def test_what_is_none_of_boto3s_goes_on_as_it_is():
    with pytest.raises(FileNotFoundError), aws_in_words("It cannot be read"):
        raise FileNotFoundError("x")
