"""Typed settings: the only reader of the environment.

Every setting is ``BIGGER_BOAT_*``, from the environment or a ``.env`` file in the project's folder; the environment
wins.
What belongs elsewhere: what a role becomes per profile (``profiles.py``).
"""

import os
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bigger_boat import clock
from bigger_boat.errors import SettingsError

PROJECT_DIR = Path(__file__).resolve().parent.parent
PREFIX = "BIGGER_BOAT_"
AWS_SETTINGS = (
    "snowflake_account",
    "snowflake_user",
    "snowflake_warehouse",
    "snowflake_database",
    "storage",
    "endpoint_role",
    "serving_image",
)
"""What the aws profile needs besides a private key."""

SNOWFLAKE_KEYS = ("snowflake_private_key_path", "snowflake_private_key", "snowflake_key_secret")
"""Where the private key is, the first that is set."""

BATCH_SETTINGS = (
    "batch_prefix",
    "batch_gpu_queue",
    "batch_gpu_job_definition",
    "batch_cpu_queue",
    "batch_cpu_job_definition",
)
"""What ``remote_steps`` needs in the aws profile."""


class Settings(BaseSettings):
    """What can be set, checked before anything starts."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", env_ignore_empty=True)

    profile: Literal["local", "aws"] = Field("local", description="where the graph runs")
    instance: Literal["local", "team"] = Field("local", description="team: Dagster's instance is deploy/dagster.yaml")
    data_dir: Path = Field(Path("data"), description="everything written locally; relative to the project's folder")
    port: int = Field(8080, ge=1, le=65535, description="port of the local endpoint")
    ui_port: int = Field(3000, ge=1, le=65535, description="port of the web UI")
    start_date: date | None = Field(None, description="first day (UTC); local default: the first that has landed")
    end_date: date | None = Field(None, description="last day (UTC), for a data set that will never grow")
    size: Literal["quick", "full"] = Field("full", description="quick: few epochs and small widths")
    max_workers: int = Field(2, ge=1, le=64, description="steps that run side by side in runs from the web UI")
    memory_limit_mib: int = Field(2048, ge=256, description="memory that the warehouse may use, in MiB")
    warehouse_wait_s: float = Field(300, ge=0, description="how long to wait for another writer of the warehouse, in s")
    tracking: Literal["mlflow", "wandb", "off"] = Field("mlflow", description="where trainings are recorded")
    tracking_uri: str = Field("", description="address of the tracking service; empty: its local default")
    api_key: SecretStr | None = Field(None, description="what a request to the endpoint must carry; empty: nothing")
    allowed_origins: str = Field("", description="origins allowed by CORS, separated by commas; empty: none")
    log_predictions: bool = Field(True, description="whether the local server logs every answer it gives")
    collect_trust_time: bool = Field(False, description="whether collected events keep the time they name; else: ours")
    collect_rotate_s: float = Field(300, ge=1, description="after how long collected events reach the landing zone")
    automation: bool = Field(True, description="whether the web UI's sensors are on until somebody switches them")
    retrain: str = Field("*", description="what is trained without anybody asking, in the words of --select")
    clock_file: Path | None = Field(None, description="file with the seconds by which the clock is apart")
    alert_webhook: SecretStr | None = Field(None, description="Slack-compatible webhook that is told of failed runs")
    alert_sns_topic: str = Field("", description="ARN of an SNS topic that is told the same; empty: none")
    keep_versions: int = Field(5, ge=1, description="versions of an endpoint that are kept beside the one that serves")

    storage: str = Field("", pattern="^(s3://[^/]+.*)?$", description="aws: s3://bucket/path of all that is shared")
    storage_kms_key: str = Field("", description="ARN of the KMS key that encrypts them; empty: the bucket's own key")
    endpoint_role: str = Field("", description="aws: ARN of the role that SageMaker endpoints run with")
    serving_image: str = Field("", description="aws: address of the serving image in ECR")
    endpoint_prefix: str = Field(
        "bigger-boat", pattern="^[a-z0-9][a-z0-9-]{0,10}$", description="aws: how names of endpoints begin"
    )
    endpoint_instance: str = Field("", description="aws: such as ml.m5.large; empty: serverless")
    endpoint_instances: int = Field(1, ge=1, description="aws: instances at first, and at least")
    endpoint_most_instances: int = Field(1, ge=1, description="aws: instances that autoscaling may start")
    endpoint_memory_mb: int = Field(3072, description="aws: memory of a serverless endpoint, 1024 to 6144")
    endpoint_canary_percent: int = Field(10, ge=0, le=50, description="aws: instances that take a new version first")
    endpoint_bake_s: int = Field(
        300, ge=0, le=3600, description="aws: how long alarms are watched before the rest, in s"
    )
    endpoint_capture_percent: int = Field(0, ge=0, le=100, description="aws: requests and answers kept on S3, in %")
    platform_stack: str = Field("bigger-boat-platform", description="aws: name of the stack of deploy/platform.yaml")
    api_stack: str = Field("bigger-boat-api", description="aws: name of the stack of the public API")
    api_asks_for_key: bool = Field(False, description="aws: whether the public API asks for a key, which AWS makes")
    api_requests_per_second: int = Field(50, ge=1, description="aws: requests that are answered in the long run")
    api_url: str = Field("", description="aws: where the public API is, if it has a domain of its own")
    remote_steps: bool = Field(False, description="aws: run what trains as jobs of AWS Batch, not in this process")
    step_worker: bool = Field(False, description="set in those jobs: they need no settings of warehouse and queues")
    batch_prefix: str = Field("", description="s3://bucket/path for the messages between this process and its jobs")
    batch_gpu_queue: str = Field("", description="job queue of the steps that want a GPU")
    batch_gpu_job_definition: str = Field("", description="their job definition")
    batch_cpu_queue: str = Field("", description="job queue of the other steps that run as jobs")
    batch_cpu_job_definition: str = Field("", description="their job definition")

    snowflake_account: str = Field("", description="account identifier: ORGANISATION-ACCOUNT")
    snowflake_user: str = Field("", description="a user of type SERVICE that logs in with a key pair")
    snowflake_private_key_path: Path | None = Field(None, description="file with the user's private key (PKCS#8, PEM)")
    snowflake_private_key: SecretStr | None = Field(None, description="the key itself instead of a file")
    snowflake_key_secret: str = Field("", description="ARN of its secret in Secrets Manager instead of either")
    snowflake_private_key_passphrase: SecretStr | None = Field(None, description="passphrase of an encrypted key")
    snowflake_role: str = Field("", description="role; default: the user's own")
    snowflake_warehouse: str = Field("", description="virtual warehouse that computes")
    snowflake_warehouse_size: str = Field("", pattern="^[A-Za-z0-9-]*$", description="set before a run, such as SMALL")
    snowflake_database: str = Field("", description="database; it holds this graph's tables and nothing else")
    snowflake_schema: str = Field("MARTS", description="schema of dbt's models; the raw tables are in RAW")
    snowflake_statement_timeout_s: int = Field(3600, ge=1, description="longest time for a statement, in s")
    snowflake_query_tag: str = Field("bigger_boat", description="names this graph in Snowflake's query history")
    snowflake_host: str = Field("", description="another host than the account's own: a stand-in, a private link")
    snowflake_port: int = Field(443, ge=1, le=65535, description="its port")
    snowflake_protocol: Literal["https", "http"] = Field("https", description="its protocol")

    @field_validator("data_dir", "clock_file", "snowflake_private_key_path")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return (PROJECT_DIR / value.expanduser()).resolve() if value else None

    @property
    def dbt_target(self) -> Literal["duckdb", "snowflake"]:
        """The warehouse of the profile, as dbt's profiles.yml calls it; a job of a step only draws the graph."""
        return "snowflake" if self.profile == "aws" and not self.step_worker else "duckdb"

    @property
    def landing_dir(self) -> Path:
        return self.data_dir / "landing"

    @property
    def collect_dir(self) -> Path:
        return self.data_dir / "collect"

    @property
    def incoming_dir(self) -> Path:
        return self.data_dir / "incoming"

    @property
    def warehouse_path(self) -> Path:
        return self.data_dir / "warehouse.duckdb"

    @property
    def endpoints_dir(self) -> Path:
        return self.data_dir / "endpoints"

    @property
    def predictions_dir(self) -> Path:
        return self.data_dir / "predictions"

    @property
    def tracking_dir(self) -> Path:
        return self.data_dir / self.tracking

    @property
    def dbt_state_dir(self) -> Path:
        return self.data_dir / "dbt"

    @property
    def deploy_dir(self) -> Path:
        return PROJECT_DIR / "deploy"

    @property
    def dagster_home(self) -> Path:
        """The folder of Dagster's instance: its dagster.yaml."""
        return self.deploy_dir if self.instance == "team" else PROJECT_DIR

    @property
    def dbt_project_dir(self) -> Path:
        return PROJECT_DIR / "dbt_project"


@lru_cache
def get_settings() -> Settings:
    """Return the settings of this process. Raises SettingsError that lists every unusable or unknown one."""
    settings = load_settings()
    clock.follow(settings.clock_file)
    try:
        clock.timestamp()
    except (OSError, ValueError) as error:
        text = f"{_variable('clock_file')}: {settings.clock_file} holds no number of seconds."
        raise SettingsError(text, "Write one into it, such as -86400 for yesterday, or leave it out.") from error
    return settings


def load_settings(env_file: Path | None = PROJECT_DIR / ".env", *, complete: bool = True) -> Settings:
    """Read and check the settings. ``env_file`` may be missing; ``complete``: nothing may that the profile needs."""
    unknown = sorted(
        name
        for name in os.environ
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() not in Settings.model_fields
    )
    if unknown:
        raise SettingsError(
            f"Unknown setting{'s' if len(unknown) > 1 else ''}: {', '.join(unknown)}.",
            f"Known are: {', '.join(sorted(PREFIX + name.upper() for name in Settings.model_fields))}.",
        )
    try:
        settings = Settings(_env_file=env_file)
    except ValidationError as error:
        faults = [f"{_variable(e['loc'][0])}: {e['msg']}{_shown(e)}" for e in error.errors()]
        raise SettingsError(
            f"Settings that cannot be used: {'; '.join(faults)}.", "Correct them and run again."
        ) from None
    if complete and (missing := missing_settings(settings)):
        raise SettingsError(
            f"The aws profile needs settings that are missing: {', '.join(missing)}.",
            "docs/snowflake.md and docs/aws.md say what they are and how to set up what they name.",
        )
    return settings


def missing_settings(settings: Settings) -> list[str]:
    """Return the variables that the profile needs and that are not set."""
    if settings.profile == "local" or settings.step_worker:
        return []
    # the graph is drawn before what has landed on other machines is known: its first day cannot be read from that
    needed: tuple[str, ...] = ("start_date", *AWS_SETTINGS)
    if settings.remote_steps:
        needed += BATCH_SETTINGS
    missing = [_variable(name) for name in needed if not getattr(settings, name)]
    if not any(getattr(settings, name) for name in SNOWFLAKE_KEYS):
        path, *others = map(_variable, SNOWFLAKE_KEYS)
        missing.append(f"{path} (or {' or '.join(others)})")
    return missing


def _variable(name: object) -> str:
    return PREFIX + str(name).upper()


def _shown(fault: Mapping[str, Any]) -> str:
    """Return the value at fault in words; never a secret's."""
    is_secret = "SecretStr" in str(Settings.model_fields[str(fault["loc"][0])].annotation)
    return "" if is_secret else f" (it is {fault['input']!r})"
