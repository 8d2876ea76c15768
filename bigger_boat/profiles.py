"""The one table that says which adapter plays which role, per profile."""

from bigger_boat.resources.alerts import Alerts
from bigger_boat.resources.batch_job import StepNeeds
from bigger_boat.resources.batch_launcher import BatchCompute, HereCompute
from bigger_boat.resources.captured_logs import CapturedPredictionLogs
from bigger_boat.resources.dbt import DbtInProcess
from bigger_boat.resources.duckdb_warehouse import DuckDBWarehouse
from bigger_boat.resources.endpoint_host import EndpointHost
from bigger_boat.resources.gateway_api import GatewayApi
from bigger_boat.resources.landing_zone import LandingZone, S3LandingZone
from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.resources.prediction_logs import LocalPredictionLogs, PredictionLogs
from bigger_boat.resources.public_api import LocalPublicApi, PublicApi
from bigger_boat.resources.s3_storage import S3AddressIOManager, S3Storage
from bigger_boat.resources.sagemaker_config import EndpointShape
from bigger_boat.resources.sagemaker_host import SageMakerHost
from bigger_boat.resources.snowflake_warehouse import SnowflakeWarehouse
from bigger_boat.resources.storage import AddressIOManager, LocalStorage, Storage
from bigger_boat.resources.tracking import Tracking
from bigger_boat.resources.training import Training
from bigger_boat.resources.twin import DuckDBTwin
from bigger_boat.settings import Settings

TOLD = ("profile", "size", "start_date", "end_date", "tracking", "storage", "storage_kms_key", "endpoint_prefix")
"""Settings of this process that its jobs get, too: no secrets, no paths of this machine."""


def build_resources(settings: Settings) -> dict[str, object]:
    """Return the resource of each role for the settings' profile."""
    return PROFILES[settings.profile](settings)


def endpoint_host(settings: Settings) -> EndpointHost:
    """Return where versions are published, for use outside of Dagster."""
    if settings.profile == "aws":
        return _sagemaker(settings)
    return LocalEndpointHost(
        endpoints_dir=str(settings.endpoints_dir), port=settings.port, keep_versions=settings.keep_versions
    )


def public_api(settings: Settings) -> PublicApi:
    """Return what the shop calls."""
    if settings.profile == "local":
        return LocalPublicApi(endpoints_dir=str(settings.endpoints_dir), port=settings.port)
    return GatewayApi(
        storage=_s3(settings),
        stack_name=settings.api_stack,
        platform_stack=settings.platform_stack,
        endpoint_prefix=settings.endpoint_prefix,
        template=str(settings.deploy_dir / "api.yaml"),
        allowed_origins=settings.allowed_origins,
        ask_for_key=settings.api_asks_for_key,
        requests_per_second=settings.api_requests_per_second,
        own_url=settings.api_url,
    )


def prediction_logs(settings: Settings) -> PredictionLogs:
    """Return the log of answers, for use outside of Dagster."""
    if settings.profile == "local":
        return LocalPredictionLogs(path=str(settings.predictions_dir))
    return CapturedPredictionLogs(
        storage=settings.storage,
        kms_key=settings.storage_kms_key,
        prefix=settings.endpoint_prefix,
        percent=settings.endpoint_capture_percent if settings.endpoint_instance else 0,
    )


def landing_zone(settings: Settings) -> LandingZone:
    """Return what has arrived, for use outside of Dagster."""
    if settings.profile == "local":
        return LandingZone(path=str(settings.landing_dir))
    return S3LandingZone(
        path=str(settings.landing_dir),
        storage=settings.storage,
        kms_key=settings.storage_kms_key,
        spool=str(settings.incoming_dir),
        trust_time=settings.collect_trust_time,
    )


def storage(settings: Settings) -> Storage:
    """Return where data sets, embeddings, bundles and reports are, for use outside of Dagster."""
    return _s3(settings) if settings.profile == "aws" else LocalStorage(base_dir=str(settings.data_dir))


def alerts(settings: Settings) -> Alerts:
    """Return who is told when something broke: the same for every profile."""
    return Alerts(sns_topic=settings.alert_sns_topic)


def tracking(settings: Settings) -> Tracking:
    """Return where trainings are recorded: the same for every profile."""
    return Tracking(
        kind=settings.tracking,
        uri=settings.tracking_uri,
        folder=str(settings.tracking_dir),
        in_a_job=settings.step_worker,
    )


def dbt(settings: Settings) -> DbtInProcess:
    """Return dbt on the profile's warehouse, for use outside of Dagster."""
    warehouse = WAREHOUSES[settings.profile](settings)
    return DbtInProcess(
        project_dir=str(settings.dbt_project_dir),
        state_dir=str(settings.dbt_state_dir),
        target=settings.dbt_target,
        environment=warehouse.dbt_environment(),
        query_tag=settings.snowflake_query_tag,
    )


def _local(settings: Settings) -> dict[str, object]:
    """Return the roles that both profiles have, each by the profile's own adapter."""
    return {
        "landing_zone": landing_zone(settings),
        "warehouse": WAREHOUSES[settings.profile](settings),
        "dbt": dbt(settings),
        "storage": storage(settings),
        "address_io_manager": AddressIOManager(base_dir=str(settings.data_dir / "addresses")),
        "training": Training(size=settings.size),
        "gpu_compute": HereCompute(),
        "cpu_compute": HereCompute(),
        "tracking": tracking(settings),
        "endpoint_host": endpoint_host(settings),
        "alerts": alerts(settings),
        "prediction_logs": prediction_logs(settings),
        "public_api": public_api(settings),
    }


def _aws(settings: Settings) -> dict[str, object]:
    """Snowflake, which a twin on DuckDB is held against, S3, AWS Batch, SageMaker and API Gateway."""
    twin = DuckDBTwin(project_dir=str(settings.dbt_project_dir), memory_limit=f"{settings.memory_limit_mib}MiB")
    addresses = S3AddressIOManager(base_dir=settings.storage, kms_key=settings.storage_kms_key)
    batch = _batch(settings) if settings.remote_steps else {}
    return {**_local(settings), **batch, "address_io_manager": addresses, "twin": twin}


def _batch(settings: Settings) -> dict[str, object]:
    """Return the queues that steps go to. A job is told the settings in TOLD; the rest stands in its definition."""
    told = {f"BIGGER_BOAT_{name.upper()}": getattr(settings, name) for name in TOLD if getattr(settings, name)}
    environment = {**{name: str(value) for name, value in told.items()}, "BIGGER_BOAT_STEP_WORKER": "true"}
    return {
        f"{kind}_compute": BatchCompute(
            queue=getattr(settings, f"batch_{kind}_queue"),
            job_definition=getattr(settings, f"batch_{kind}_job_definition"),
            prefix=settings.batch_prefix,
            needs=StepNeeds(gpus=gpus, environment=environment),
        )
        for kind, gpus in (("gpu", 1), ("cpu", 0))
    }


def _sagemaker(settings: Settings) -> SageMakerHost:
    return SageMakerHost(
        storage=_s3(settings),
        role=settings.endpoint_role,
        image=settings.serving_image,
        prefix=settings.endpoint_prefix,
        keep_versions=settings.keep_versions,
        shape=EndpointShape(
            instance_type=settings.endpoint_instance,
            instances=settings.endpoint_instances,
            most_instances=settings.endpoint_most_instances,
            memory_mb=settings.endpoint_memory_mb,
            canary_percent=settings.endpoint_canary_percent,
            bake_s=settings.endpoint_bake_s,
            capture_percent=settings.endpoint_capture_percent,
        ),
    )


def _s3(settings: Settings) -> S3Storage:
    return S3Storage(base_dir=str(settings.data_dir), root=settings.storage, kms_key=settings.storage_kms_key)


def _duckdb(settings: Settings) -> DuckDBWarehouse:
    return DuckDBWarehouse(
        path=str(settings.warehouse_path),
        memory_limit=f"{settings.memory_limit_mib}MiB",
        lock_timeout_s=settings.warehouse_wait_s,
    )


def _snowflake(settings: Settings) -> SnowflakeWarehouse:
    return SnowflakeWarehouse(
        account=settings.snowflake_account,
        user=settings.snowflake_user,
        role=settings.snowflake_role,
        compute=settings.snowflake_warehouse,
        compute_size=settings.snowflake_warehouse_size,
        database=settings.snowflake_database,
        marts_schema=settings.snowflake_schema,
        statement_timeout_s=settings.snowflake_statement_timeout_s,
        tag=settings.snowflake_query_tag,
        host=settings.snowflake_host,
        port=settings.snowflake_port,
        protocol=settings.snowflake_protocol,
    )


PROFILES = {"local": _local, "aws": _aws}
WAREHOUSES = {"local": _duckdb, "aws": _snowflake}
