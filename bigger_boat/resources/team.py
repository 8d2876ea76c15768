"""A team's Dagster on ECS: the stack of ``deploy/team.yaml``, and the settings that its tasks read.

What belongs elsewhere: its instance (``deploy/dagster.yaml``), the platform that it stands on (``platform.py``).
"""

from collections.abc import Callable, Iterator, Mapping

from pydantic import SecretStr

from bigger_boat.errors import CloudError, SettingsError
from bigger_boat.resources.aws import aws_client, aws_in_words
from bigger_boat.resources.platform import IMAGE_TAG
from bigger_boat.resources.stacks import Stack
from bigger_boat.settings import PREFIX, Settings

TEMPLATE = "team.yaml"
SETTINGS_KEY = "config/team.env"
"""Where the tasks' settings are in the platform's bucket; ECS reads them before a container starts."""

_FROM_PLATFORM = {
    "Bucket": "Bucket",
    "Cluster": "Cluster",
    "DatabasePassword": "DatabasePassword",
    "Log": "OrchestratorLog",
    "SecurityGroup": "TaskSecurityGroup",
    "Subnets": "TaskSubnets",
}
_ROLES = ("OrchestratorRole", "StartRole")
_OF_A_MACHINE = {"data_dir", "instance", "clock_file", "snowflake_private_key_path", "port", "ui_port", "step_worker"}
"""Settings that a task has no use for: those of the machine that deploys."""


def team_stack(settings: Settings, tell: Callable[[str], None]) -> Stack:
    """Return the stack, which is named after the platform's."""
    return Stack(f"{settings.platform_stack}-team", tell)


def update_team(
    settings: Settings,
    stack: Stack,
    platform: Mapping[str, str],
    given: Mapping[str, str],
    agree: Callable[[list[str]], bool],
) -> list[str]:
    """Bring the stack up to date if ``agree`` does to the changes; return those that were made.

    ``platform``: its outputs. The settings are left in the bucket before. Raises SettingsError for what is missing,
    CloudError with what failed.
    """
    lines = "\n".join(settings_file(settings)) + "\n"
    template = (settings.deploy_dir / TEMPLATE).read_text()
    parameters = {**stack.parameters_for(template), **_told(platform), **given}
    if not parameters.get("DatabaseHost"):
        raise SettingsError("The host of the PostgreSQL is not known.", "--set DatabaseHost=HOST names it.")

    def leave_settings(changes: list[str]) -> bool:
        if not agree(changes):
            return False
        _leave(platform["Bucket"], lines)
        return True

    return stack.update(template, parameters, leave_settings)


def settings_file(settings: Settings) -> Iterator[str]:
    """Yield lines ``BIGGER_BOAT_NAME=value``: what is set here, but for secrets and what concerns this machine only.

    Raises SettingsError for what the tasks cannot do without.
    """
    if settings.profile != "aws" or not settings.start_date or not settings.snowflake_key_secret:
        needed = ", ".join(f"{PREFIX}{name}" for name in ("PROFILE=aws", "START_DATE", "SNOWFLAKE_KEY_SECRET"))
        raise SettingsError(f"A team's Dagster needs {needed}.", "docs/aws.md says what they are.")
    for name in sorted(settings.model_fields_set - _OF_A_MACHINE):
        value = getattr(settings, name)
        if value not in ("", None) and not isinstance(value, SecretStr):
            yield f"{PREFIX}{name.upper()}={str(value).lower() if isinstance(value, bool) else value}"


def _told(platform: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that are outputs of the platform."""
    if platform[IMAGE_TAG] == "none":
        raise CloudError("There is no image for the tasks yet.", "bigger-boat deploy image, then platform --image TAG.")
    told = {name: platform[output] for name, output in _FROM_PLATFORM.items()}
    roles = {name: platform[name].rpartition("/")[2] for name in _ROLES}
    return {**told, **roles, "Image": f"{platform['TrainingRepository']}:{platform[IMAGE_TAG]}"}


def _leave(bucket: str, text: str) -> None:
    with aws_in_words(f"s3://{bucket}/{SETTINGS_KEY} cannot be written"):
        aws_client("s3").put_object(Bucket=bucket, Key=SETTINGS_KEY, Body=text.encode())
