"""Data sets: what the models learn from, cut out of the warehouse's sessions, checked, and published with the results.

Always local, because they ask this instance whether the days they read passed their checks. What belongs elsewhere: how
rows are made and checked (``data/``).
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from bigger_boat import clock
from bigger_boat.assets.common import ADDRESS_IO, DATA_OWNERS, SUMMARY, plot, readable_failures, specs_of
from bigger_boat.assets.quality import blocking_checks, refuse_unless_days_passed
from bigger_boat.assets.warehouse import day_groups
from bigger_boat.data.arrival_checks import listed, rejected_examples
from bigger_boat.data.check_specs import INTENT_CHECKS, RECOMMENDATION_CHECKS
from bigger_boat.data.dataset_manifest import DatasetManifest, describe_dataset, read_manifest, write_manifest
from bigger_boat.data.fingerprint import loaded_content, source_fingerprint
from bigger_boat.data.landing_index import rejected_files
from bigger_boat.data.read_ahead import read_ahead
from bigger_boat.data.splits import Splits, split_days
from bigger_boat.data.vocabulary import ITEM_ACTIONS
from bigger_boat.errors import DatasetError
from bigger_boat.resources.landing_zone import LandingZone
from bigger_boat.resources.storage import Storage
from bigger_boat.resources.warehouse import WAREHOUSE_POOL, Warehouse

if TYPE_CHECKING:
    import pyarrow as pa

INTENT, RECOMMENDATION = "intent_dataset", "recommendation_dataset"
CART_SESSIONS = dg.AssetKey("cart_sessions")
PRODUCTS_FILE = "products.parquet"
HAS_ITEMS = f"{' + '.join(f'{action}_count' for action in ITEM_ACTIONS)} > 0"
"""Two of three sessions have none, and need not be read to be left out."""


@dg.asset(
    group_name="datasets",
    io_manager_key=ADDRESS_IO,
    owners=DATA_OWNERS,
    kinds={"python", "polars", "parquet"},
    deps=["cart_sessions", "sessions"],
    pool=WAREHOUSE_POOL,
    code_version="1",
)
def intent_dataset(
    context: dg.AssetExecutionContext, landing_zone: LandingZone, warehouse: Warehouse, storage: Storage
) -> dg.Output[str]:
    """Beginnings of sessions with a cart, cut 0 to 10 events after the first add: will a purchase come later?"""
    from bigger_boat.data.dataset_checks import intent_checks
    from bigger_boat.data.dataset_plots import plot_intent_dataset
    from bigger_boat.data.intent_dataset import INTENT_COLUMNS, SESSION_COLUMNS, build_intent_dataset
    from bigger_boat.data.leakage_checks import CART_SESSION_COLUMNS

    with readable_failures(), storage.draft(f"datasets/{INTENT}") as draft:
        splits = _days_to_read(context.instance, landing_zone, warehouse)
        rows = build_intent_dataset(
            ordered_sessions(warehouse, "cart_sessions", SESSION_COLUMNS.names, splits.days), splits, draft.path
        )
        checks = intent_checks(
            draft.path, splits, ordered_sessions(warehouse, "cart_sessions", CART_SESSION_COLUMNS, splits.days)
        )
        manifest = describe_dataset(
            draft.path,
            name=INTENT,
            version=draft.version,
            created_at=clock.utc_now(),
            splits=splits,
            inputs=_data_versions(warehouse, "cart_sessions", splits),
            rows=rows,
            schema=INTENT_COLUMNS,
            checks=checks,
        )
        write_manifest(draft.path, manifest)
        picture = plot_intent_dataset(draft.path)
    return _output(draft.address, manifest, picture, "examples")


@dg.asset(
    group_name="datasets",
    io_manager_key=ADDRESS_IO,
    owners=DATA_OWNERS,
    kinds={"python", "polars", "parquet"},
    deps=["sessions", "products"],
    pool=WAREHOUSE_POOL,
    code_version="1",
)
def recommendation_dataset(
    context: dg.AssetExecutionContext, landing_zone: LandingZone, warehouse: Warehouse, storage: Storage
) -> dg.Output[str]:
    """The products each session looked at, in order, by page or by search click: which come next?"""
    from bigger_boat.data.dataset_checks import recommendation_checks
    from bigger_boat.data.dataset_plots import plot_recommendation_dataset
    from bigger_boat.data.intent_dataset import SESSION_COLUMNS
    from bigger_boat.data.recommendation_dataset import RECOMMENDATION_COLUMNS, build_recommendation_dataset

    with readable_failures(), storage.draft(f"datasets/{RECOMMENDATION}") as draft:
        splits = _days_to_read(context.instance, landing_zone, warehouse, beside=CART_SESSIONS)
        rows = build_recommendation_dataset(
            ordered_sessions(warehouse, "sessions", SESSION_COLUMNS.names, splits.days, HAS_ITEMS), splits, draft.path
        )
        _write_products(warehouse, draft.path)
        manifest = describe_dataset(
            draft.path,
            name=RECOMMENDATION,
            version=draft.version,
            created_at=clock.utc_now(),
            splits=splits,
            inputs=_data_versions(warehouse, "sessions", splits),
            rows=rows,
            schema=RECOMMENDATION_COLUMNS,
            checks=recommendation_checks(draft.path, splits),
        )
        write_manifest(draft.path, manifest)
        picture = plot_recommendation_dataset(draft.path)
    return _output(draft.address, manifest, picture, "sessions")


def _days_to_read(
    instance: dg.DagsterInstance,
    landing_zone: LandingZone,
    warehouse: Warehouse,
    beside: dg.AssetKey | None = None,
) -> Splits:
    """Return the landed days that have sessions in the warehouse, split; refuse if a check failed on one of them.

    ``beside``: a table that the data set is not made from; its checks are not asked, and it need not be there.
    """
    landed = landing_zone.index().days
    if not landed:
        raise DatasetError("Nothing has landed yet.", "Land a shop's files (bigger-boat land DIR), or simulate one.")
    first, last = (date.fromisoformat(day) for day in (min(landed), max(landed)))
    counts = {str(day): rows for day, rows in warehouse.row_counts("sessions", "session_date", first, last).items()}
    days = [day for day in sorted(landed) if counts.get(day)]
    refuse_unless_days_passed(instance, days, [key.asset_key for key in blocking_checks() if key.asset_key != beside])
    _refuse_lost_days(landing_zone, days)
    return split_days([date.fromisoformat(day) for day in days])


def _refuse_lost_days(landing_zone: LandingZone, days: list[str]) -> None:
    """Refuse if a day among or after those that are read has nothing but rejected rows: it is missing, not quiet."""
    lost = [day for day in landing_zone.index().rejected_only_days if days and day >= days[0]]
    if lost:
        examples = listed(rejected_examples(rejected_files(landing_zone.root, lost[0])))
        raise DatasetError(
            f"The data set is not built, because every row of {', '.join(lost[:5])} was rejected when it landed,"
            f" such as:{examples}",
            "Correct the source of these days and land it again: bigger-boat land --replace --from DAY --to DAY.",
        )


def ordered_sessions(
    warehouse: Warehouse, table: str, columns: Iterable[str], days: Sequence[date], condition: str = "true"
) -> Iterator["pa.RecordBatch"]:
    """Yield the sessions of ``days`` in their total order, few days at a time: no sort holds many more than a day's.

    Only those that meet ``condition`` (SQL). They are read ahead of whoever takes them.
    """
    return read_ahead(_ordered_sessions(warehouse, table, columns, days, condition))


def _ordered_sessions(
    warehouse: Warehouse, table: str, columns: Iterable[str], days: Sequence[date], condition: str
) -> Generator["pa.RecordBatch", None, None]:
    counts = warehouse.row_counts(table, "session_date", days[0], days[-1])
    for group in day_groups({str(day): counts[str(day)] for day in days}):
        where = f"session_date in ({', '.join(map(_date, group))}) and {condition}"
        order = "session_date, started_at, session_id"
        with warehouse.read(f"select {', '.join(columns)} from {table} where {where} order by {order}") as reader:
            yield from reader


def _date(day: str) -> str:
    return f"date '{day}'"


def _write_products(warehouse: Warehouse, folder: Path) -> None:
    """Publish what is known of the products beside the sessions: a row per SKU, in the order of SKUs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("sku", pa.string()), ("category", pa.string()), ("price_bucket", pa.int32())])
    with warehouse.read("select sku, category, price_bucket from products order by sku") as reader:
        pq.write_table(reader.read_all().cast(schema), folder / PRODUCTS_FILE, compression="zstd")


def _data_versions(warehouse: Warehouse, table: str, splits: Splits) -> dict[str, str]:
    """Return, by day, the fingerprint of the content that the table's day was made from."""
    content = loaded_content(warehouse.loaded_fingerprints())
    return {f"{table}/{day}": source_fingerprint(content, table, day.isoformat()) for day in splits.days}


def _output(address: str, manifest: DatasetManifest, picture: bytes, what: str) -> dg.Output[str]:
    total, days = sum(manifest.rows.values()), manifest.days
    failed = [check.name for check in manifest.checks if not check.passed]
    return dg.Output(
        address,
        data_version=dg.DataVersion(manifest.data_version),
        metadata={
            SUMMARY: f"{total:,} {what} of {days['count']} days",
            "dagster/row_count": total,
            **{f"rows_{split}": rows for split, rows in manifest.rows.items()},
            **{f"days_{split}": f"{span['first']} to {span['last']}" for split, span in days["splits"].items()},
            **{check.name: check.value for check in manifest.checks if check.value is not None},
            "checks_failed": ", ".join(failed) or "none",
            "address": address,
            "plot": plot(picture),
        },
    )


def _recorded_results(asset: str, folder: Path) -> Iterator[dg.AssetCheckResult]:
    """Yield the results in ``dataset.json`` as they stand there, after holding the files against their digests."""
    for outcome in read_manifest(folder).checks:
        yield dg.AssetCheckResult(
            asset_key=asset,
            check_name=outcome.name,
            passed=outcome.passed,
            severity=dg.AssetCheckSeverity.ERROR if outcome.blocking else dg.AssetCheckSeverity.WARN,
            description=outcome.description,
            metadata={} if outcome.value is None else {"value": outcome.value},
        )


@dg.multi_asset_check(specs=specs_of(INTENT, INTENT_CHECKS), ins={INTENT: dg.AssetIn(INTENT)})
def intent_dataset_checks(intent_dataset: str, storage: Storage) -> Iterator[dg.AssetCheckResult]:
    """The checks recorded in ``dataset.json``."""
    with readable_failures():
        yield from _recorded_results(INTENT, storage.fetch(intent_dataset))


@dg.multi_asset_check(
    specs=specs_of(RECOMMENDATION, RECOMMENDATION_CHECKS), ins={RECOMMENDATION: dg.AssetIn(RECOMMENDATION)}
)
def recommendation_dataset_checks(recommendation_dataset: str, storage: Storage) -> Iterator[dg.AssetCheckResult]:
    """The checks recorded in ``dataset.json``."""
    with readable_failures():
        yield from _recorded_results(RECOMMENDATION, storage.fetch(recommendation_dataset))
