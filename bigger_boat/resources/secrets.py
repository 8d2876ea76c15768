"""Secrets of AWS Secrets Manager, read where they are used, by dagster-aws's resource.

No Dagster configuration holds what is read here, and no environment: no run, log or page shows it.
"""

from bigger_boat.errors import CloudError
from bigger_boat.resources.aws import ATTEMPTS, aws_in_words


def secret_text(arn: str) -> str:
    """Return the value of a secret. Raises CloudError where it cannot be read or is not text."""
    from dagster_aws.secretsmanager import SecretsManagerResource

    with aws_in_words(f"The secret {arn} cannot be read"):
        client = SecretsManagerResource(max_attempts=ATTEMPTS).get_client()
        value = client.get_secret_value(SecretId=arn).get("SecretString")
    if not value:
        raise CloudError(
            f"The secret {arn} holds no text.",
            f"aws secretsmanager put-secret-value --secret-id {arn} --secret-string file://FILE",
        )
    return value
