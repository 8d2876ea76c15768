"""The one table that says which adapter plays which role, per profile."""

from bigger_boat.resources.dbt import DbtInProcess
from bigger_boat.resources.duckdb_warehouse import DuckDBWarehouse
from bigger_boat.resources.endpoint_host import LocalEndpointHost
from bigger_boat.resources.landing_zone import LandingZone
from bigger_boat.resources.public_api import LocalPublicApi
from bigger_boat.resources.storage import AddressIOManager, LocalStorage
from bigger_boat.resources.tracking import Tracking
from bigger_boat.resources.training import Training
from bigger_boat.settings import Settings


def build_resources(settings: Settings) -> dict[str, object]:
    """Return the resource of each role for the settings' profile."""
    return PROFILES[settings.profile](settings)


def endpoint_host(settings: Settings) -> LocalEndpointHost:
    """Return where versions are published, for use outside of Dagster."""
    return LocalEndpointHost(
        endpoints_dir=str(settings.endpoints_dir), port=settings.port, keep_versions=settings.keep_versions
    )


def tracking(settings: Settings) -> Tracking:
    """Return where trainings are recorded: the same for every profile."""
    return Tracking(kind=settings.tracking, uri=settings.tracking_uri, folder=str(settings.tracking_dir))


def _local(settings: Settings) -> dict[str, object]:
    warehouse = DuckDBWarehouse(
        path=str(settings.warehouse_path),
        memory_limit=f"{settings.memory_limit_mib}MiB",
        lock_timeout_s=settings.warehouse_wait_s,
    )
    return {
        "landing_zone": LandingZone(path=str(settings.landing_dir)),
        "warehouse": warehouse,
        "dbt": DbtInProcess(
            project_dir=str(settings.dbt_project_dir),
            state_dir=str(settings.dbt_state_dir),
            environment=warehouse.dbt_environment(),
        ),
        "storage": LocalStorage(base_dir=str(settings.data_dir)),
        "address_io_manager": AddressIOManager(base_dir=str(settings.data_dir / "addresses")),
        "training": Training(size=settings.size),
        "tracking": tracking(settings),
        "endpoint_host": endpoint_host(settings),
        "public_api": LocalPublicApi(endpoints_dir=str(settings.endpoints_dir), port=settings.port),
    }


PROFILES = {"local": _local}
