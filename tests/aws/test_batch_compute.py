"""Where the graph's own steps run, by profile and settings; one runs as a job, by the definitions as they are."""

import json
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_stand_in import BUCKET, DEFINITION, PREFIX, QUEUE

from bigger_boat.errors import SettingsError
from bigger_boat.profiles import build_resources
from bigger_boat.resources.batch_job import StepNeeds
from bigger_boat.resources.batch_launcher import BatchCompute, BatchStepLauncher, HereCompute
from bigger_boat.settings import Settings, load_settings

KEYS = ("gpu_compute", "cpu_compute")
SNOWFLAKE = {f"snowflake_{name}": name for name in ("account", "user", "warehouse", "database", "private_key")}
OF_AWS = {"storage": "s3://b/p", "endpoint_role": "arn:role", "serving_image": "image:1"}
BATCH = {
    "batch_prefix": "s3://boat/steps",
    "batch_gpu_queue": "gpu",
    "batch_gpu_job_definition": "training-gpu",
    "batch_cpu_queue": "cpu",
    "batch_cpu_job_definition": "training-cpu",
}


def made(settings: Settings) -> list[object]:
    """What the two keys are in a step."""
    resources = {key: build_resources(settings)[key] for key in KEYS}
    with dg.build_resources(resources) as found:
        return [getattr(found, key) for key in KEYS]


def test_steps_run_here_unless_the_aws_profile_says_otherwise(tmp_path):
    local = Settings(data_dir=tmp_path, _env_file=None)
    assert made(local) == [None, None]
    assert made(Settings(data_dir=tmp_path, remote_steps=True, **BATCH, _env_file=None)) == [None, None]
    assert made(Settings(data_dir=tmp_path, profile="aws", **SNOWFLAKE, **BATCH, _env_file=None)) == [None, None]


def test_the_switch_sends_steps_to_their_queues_and_tells_jobs_what_may_be_told(tmp_path):
    given = {**SNOWFLAKE, **BATCH, "api_key": "4711", "size": "quick", "start_date": "2026-10-01", "tracking": "off"}
    gpu, cpu = made(Settings(data_dir=tmp_path, profile="aws", remote_steps=True, **given, _env_file=None))
    assert isinstance(gpu, BatchStepLauncher)
    assert (gpu.compute.queue, gpu.compute.job_definition, gpu.compute.needs.gpus) == ("gpu", "training-gpu", 1)
    assert (cpu.compute.queue, cpu.compute.job_definition, cpu.compute.needs.gpus) == ("cpu", "training-cpu", 0)
    assert gpu.compute.prefix == cpu.compute.prefix == "s3://boat/steps"
    assert gpu.compute.needs.environment == {
        "BIGGER_BOAT_PROFILE": "aws",
        "BIGGER_BOAT_ENDPOINT_PREFIX": "bigger-boat",
        "BIGGER_BOAT_SIZE": "quick",
        "BIGGER_BOAT_START_DATE": "2026-10-01",
        "BIGGER_BOAT_TRACKING": "off",
        "BIGGER_BOAT_STEP_WORKER": "true",
    }


def test_the_switch_without_settings_fails_at_once_with_all_that_is_missing(monkeypatch):
    for name, value in {
        "profile": "aws",
        "remote_steps": "true",
        "batch_gpu_queue": "gpu",
        **OF_AWS,
        **SNOWFLAKE,
    }.items():
        monkeypatch.setenv(f"BIGGER_BOAT_{name.upper()}", value)
    with pytest.raises(SettingsError) as error:
        load_settings(env_file=None)
    missing = ("PREFIX", "GPU_JOB_DEFINITION", "CPU_QUEUE", "CPU_JOB_DEFINITION")
    listed = ", ".join(f"BIGGER_BOAT_BATCH_{name}" for name in missing)
    assert error.value.message == f"The aws profile needs settings that are missing: {listed}."
    assert "docs/aws.md" in error.value.hint
    monkeypatch.setenv("BIGGER_BOAT_STEP_WORKER", "true")
    assert load_settings(env_file=None).dbt_target == "duckdb"


@pytest.fixture(scope="module")
def definitions():
    from bigger_boat.resources.dbt_manifest import ensure_manifest

    ensure_manifest()
    from bigger_boat import definitions

    return definitions


def test_what_trains_asks_for_a_machine_and_nothing_else_does(definitions):
    asked = {key: set() for key in KEYS}
    for each in definitions.defs.resolve_asset_graph().assets_defs:
        for key in set(KEYS) & set(each.required_resource_keys):
            asked[key] |= {asset.to_user_string() for asset in each.keys}
    trained = {"intent_model", "lstm_recommender", "prodb_recommender", "intent_champion", "recommendation_champion"}
    assert asked == {"gpu_compute": trained, "cpu_compute": {"product_embeddings"}}


SESSIONS_A_DAY = 20


def publish_items(storage) -> str:
    """Publish a recommendation data set of four days, in which product n is followed by n + 1; return its address."""
    from bigger_boat.data.dataset_manifest import CheckOutcome, describe_dataset, write_manifest
    from bigger_boat.data.intent_dataset import SESSION_COLUMNS
    from bigger_boat.data.recommendation_dataset import RECOMMENDATION_COLUMNS, build_recommendation_dataset
    from bigger_boat.data.splits import split_days

    days = [date(2026, 10, 1) + timedelta(days=number) for number in range(4)]
    rows = []
    for day in days:
        for number in range(SESSIONS_A_DAY):
            start = datetime(day.year, day.month, day.day, number, tzinfo=UTC)
            skus = [f"p{(number + place) % 12}" for place in range(4)]
            times = [int(start.timestamp() * 1000) + place for place in range(4)]
            rows.append([f"s{number}", day, start.replace(tzinfo=None), ["detail"] * 4, skus, times])
    table = pa.Table.from_pylist([dict(zip(SESSION_COLUMNS.names, row, strict=True)) for row in rows], SESSION_COLUMNS)
    with storage.draft("datasets/recommendation_dataset") as draft:
        splits = split_days(days)
        counts = build_recommendation_dataset(table.to_batches(), splits, draft.path)
        products = pa.table({"sku": ["p1"], "category": ["a/b"], "price_bucket": [1]})
        pq.write_table(products, draft.path / "products.parquet")
        manifest = describe_dataset(
            draft.path,
            name="recommendation_dataset",
            version=draft.version,
            created_at=datetime.now(UTC),
            splits=splits,
            inputs={},
            rows=counts,
            schema=RECOMMENDATION_COLUMNS,
            checks=[CheckOutcome("looked_at", True, True, "somebody looked")],
        )
        write_manifest(draft.path, manifest)
    return draft.address


@pytest.mark.slow
def test_embeddings_of_the_graph_are_trained_in_a_job(aws, definitions, tmp_path, monkeypatch):
    """The job has the aws profile's definitions; the bucket is all that both sides reach."""
    monkeypatch.setattr(aws, "fresh", True)
    root = f"s3://{BUCKET}/{tmp_path.name}"
    of_both = {"profile": "aws", "size": "quick", "tracking": "off", "start_date": date(2026, 10, 1), "storage": root}
    settings = Settings(data_dir=tmp_path / "home", **of_both, _env_file=None)
    told = {
        "STEP_WORKER": "true",
        "DATA_DIR": str(tmp_path / "there"),
        **{k.upper(): str(v) for k, v in of_both.items()},
    }
    environment = {f"BIGGER_BOAT_{name}": value for name, value in told.items()} | {"PYTHONHASHSEED": "0"}
    compute = BatchCompute(
        queue=QUEUE,
        job_definition=DEFINITION,
        prefix=PREFIX,
        needs=StepNeeds(environment=environment),
        poll_s=0.5,
    )
    resources = build_resources(settings)
    address = publish_items(resources["storage"])
    store = resources["storage"].store
    store.write_text("addresses/recommendation_dataset.json", json.dumps({"address": address}))
    versions = {}
    for name, where in (("here", HereCompute()), ("there", compute)):
        defs = definitions.build_definitions(settings, cpu_compute=where)
        job = defs.resolve_implicit_global_asset_job_def()
        with dg.DagsterInstance.ephemeral() as instance:
            result = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("product_embeddings")])
            assert result.success
            [made] = result.asset_materializations_for_node("product_embeddings")
            assert made.metadata["dagster/row_count"].value == 12
        written = json.loads(store.read_text("addresses/product_embeddings.json"))
        assert written["run_id"] == result.run_id
        versions[name] = resources["storage"].fetch(written["address"])
    assert versions["here"] != versions["there"]
    here, there = ({path.name: path.read_bytes() for path in versions[name].iterdir()} for name in ("here", "there"))
    assert here == there, "the same data and seed, in another process"
