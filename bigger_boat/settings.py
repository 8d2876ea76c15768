"""Typed settings: the only reader of the environment.

Every setting is ``BIGGER_BOAT_*``, from the environment or a ``.env`` file in the project's folder; the environment
wins.
What belongs elsewhere: what a role becomes per profile (``profiles.py``).
"""

import os
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bigger_boat.errors import SettingsError

PROJECT_DIR = Path(__file__).resolve().parent.parent
PREFIX = "BIGGER_BOAT_"


class Settings(BaseSettings):
    """What can be set, checked before anything starts."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", env_ignore_empty=True)

    profile: Literal["local"] = Field("local", description="where the graph runs (the aws profile comes later)")
    data_dir: Path = Field(Path("data"), description="everything written locally; relative to the project's folder")
    port: int = Field(8080, ge=1, le=65535, description="port of the local endpoint")
    ui_port: int = Field(3000, ge=1, le=65535, description="port of the web UI")
    start_date: date | None = Field(None, description="first day (UTC); default: the first day that has landed")
    end_date: date | None = Field(None, description="last day (UTC), for a data set that will never grow")
    size: Literal["quick", "full"] = Field("full", description="quick: few epochs and small widths")
    max_workers: int = Field(2, ge=1, le=64, description="steps that run side by side in runs from the web UI")
    memory_limit_mib: int = Field(3072, ge=256, description="memory that the warehouse may use, in MiB")
    warehouse_wait_s: float = Field(300, ge=0, description="how long to wait for another writer of the warehouse, in s")
    tracking: Literal["mlflow", "wandb", "off"] = Field("mlflow", description="where trainings are recorded")
    tracking_uri: str = Field("", description="address of the tracking service; empty: its local default")
    api_key: SecretStr | None = Field(None, description="what a request to the endpoint must carry; empty: nothing")
    allowed_origins: str = Field("", description="origins allowed by CORS, separated by commas; empty: none")
    keep_versions: int = Field(5, ge=1, description="versions of an endpoint that are kept beside the one that serves")

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return (PROJECT_DIR / value.expanduser()).resolve()

    @property
    def landing_dir(self) -> Path:
        return self.data_dir / "landing"

    @property
    def warehouse_path(self) -> Path:
        return self.data_dir / "warehouse.duckdb"

    @property
    def endpoints_dir(self) -> Path:
        return self.data_dir / "endpoints"

    @property
    def tracking_dir(self) -> Path:
        return self.data_dir / self.tracking

    @property
    def dbt_state_dir(self) -> Path:
        return self.data_dir / "dbt"

    @property
    def dbt_project_dir(self) -> Path:
        return PROJECT_DIR / "dbt_project"


@lru_cache
def get_settings() -> Settings:
    """Return the settings of this process. Raises SettingsError that lists every unusable or unknown one."""
    return load_settings()


def load_settings(env_file: Path | None = PROJECT_DIR / ".env") -> Settings:
    """Read and check the settings. ``env_file`` may be missing."""
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
        return Settings(_env_file=env_file)
    except ValidationError as error:
        faults = [f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']} (it is {e['input']!r})" for e in error.errors()]
        raise SettingsError(
            f"Settings that cannot be used: {'; '.join(faults)}.", "Correct them and run again."
        ) from None
