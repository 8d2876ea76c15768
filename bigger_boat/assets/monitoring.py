"""Watching what is live: how far the data have moved since the days that the serving models were fitted on."""

from collections.abc import Mapping
from datetime import date, timedelta
from itertools import pairwise

import dagster as dg

from bigger_boat.assets.common import DATA_OWNERS, SUMMARY, WINDOW, plot, readable_failures, table
from bigger_boat.assets.serving_events import serving_event
from bigger_boat.data.drift import Drift, drift, grouped
from bigger_boat.data.vocabulary import ACTIONS, ENDPOINTS
from bigger_boat.resources.warehouse import WAREHOUSE_POOL, Warehouse

LARGEST_PSI, MEASURED_TO, MEASURED_AGAINST = "largest_psi", "measured_to", "measured_against"
PSI_BY_WINDOW = "psi_by_window"
"""Metadata key that the retraining sensor reads: the largest PSI against each serving window, by its last day."""
SOME, GREAT = 0.1, 0.25

LENGTHS = (1, 2, 4, 8, 16, 32)
GAPS_S = (1, 5, 15, 60, 300, 1800)
TOP_PRODUCTS = 50

_Counts = dict[str, dict[str, int]]


@dg.asset(
    group_name="monitoring",
    owners=DATA_OWNERS,
    kinds={"python"},
    deps=["sessions"],
    pool=WAREHOUSE_POOL,
    code_version="1",
)
def drift_report(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
    """Actions, lengths, gaps and products of the days since the serving models' windows, held against these.

    Endpoints that were fitted on other days (one was refused, or rolled back) have windows of their own: the table and
    the picture are of the oldest.
    """
    with readable_failures():
        windows = serving_windows(context.instance)
        last = _last_day(warehouse)
        behind = [window for window in windows if last and last > window["last"]]
        if not behind:
            reason = "No day has come since the serving models' window" if windows else "No model serves yet"
            metadata = {SUMMARY: f"{reason}: nothing to compare.", LARGEST_PSI: 0.0, MEASURED_TO: last or ""}
            return dg.MaterializeResult(metadata={**metadata, MEASURED_AGAINST: windows[0]["last"] if windows else ""})
        sides = {window["last"]: _sides(warehouse, window, last) for window in behind}
    by_window = {until: [drift(name, then[name], now[name]) for name in then] for until, (then, now) in sides.items()}
    window, drifts = behind[0], by_window[behind[0]["last"]]
    then, now = sides[window["last"]]
    largest = max(drifts, key=lambda one: one.psi)
    summary = f"{_word(largest.psi)}: PSI of {largest.name} {largest.psi:.3f}, {window['last']} to {last}"
    metadata = {
        SUMMARY: summary,
        LARGEST_PSI: largest.psi,
        MEASURED_TO: last,
        MEASURED_AGAINST: window["last"],
        PSI_BY_WINDOW: dg.MetadataValue.json(
            {until: max(one.psi for one in all_) for until, all_ in by_window.items()}
        ),
        "drift": table([_row(one) for one in drifts]),
        "shares": plot(_picture(then, now)),
    }
    return dg.MaterializeResult(metadata=metadata)


def serving_windows(instance: dg.DagsterInstance) -> list[Mapping[str, str]]:
    """Return the days (first, last) that serving versions were fitted on, by their last day; the oldest first."""
    told = [serving_event(instance, endpoint) for endpoint in ENDPOINTS]
    windows = [one.metadata[WINDOW].value for one in told if one and WINDOW in one.metadata]
    by_last_day = {window["last"]: window for window in windows}
    return [by_last_day[last] for last in sorted(by_last_day)]


def _sides(warehouse: Warehouse, window: Mapping[str, str], last: str) -> tuple[_Counts, _Counts]:
    """Return the counts of a window, and of the days after it; of products the window's most frequent, and others."""
    then = _counts(warehouse, window["first"], window["last"])
    now = _counts(warehouse, _after(window["last"]), last)
    top = set(sorted(then["products"], key=lambda sku: (-then["products"][sku], sku))[:TOP_PRODUCTS])
    for counts in (then, now):
        counts["products"] = grouped(counts["products"], top)
    return then, now


def _last_day(warehouse: Warehouse) -> str | None:
    with warehouse.read("select max(session_date) as last_day from sessions") as reader:
        last = reader.read_all()["last_day"][0].as_py()
    return last.isoformat() if last else None


def _counts(warehouse: Warehouse, first: str, last: str) -> _Counts:
    """Return per variable the counts by category in these days."""
    days = f"between date '{first}' and date '{last}'"
    gap = "duration_s / (event_count - 1)"
    queries = {
        "lengths": f"select {_bucket(LENGTHS, 'event_count')} as category, count(*) as n from sessions"
        f" where session_date {days} group by 1",
        "gaps": f"select {_bucket(GAPS_S, gap)} as category, count(*) as n from sessions"
        f" where session_date {days} and event_count > 1 group by 1",
        "products": f"select sku as category, count(*) as n from distinct_events where event_date {days}"
        " and sku <> '' group by 1",
    }
    sums = ", ".join(f"sum({action}_count) as {action}" for action in ACTIONS)
    with warehouse.read(f"select {sums} from sessions where session_date {days}") as reader:
        actions = {name.lower(): int(count or 0) for name, count in reader.read_all().to_pylist()[0].items()}
    counts = {"actions": actions}
    for name, sql in queries.items():
        with warehouse.read(sql) as reader:
            counts[name] = {row["category"]: int(row["n"]) for row in reader.read_all().to_pylist()}
    return counts


def _after(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()


def _word(psi: float) -> str:
    return "a great change" if psi > GREAT else "some change" if psi > SOME else "no change"


def _row(one: Drift) -> dict[str, object]:
    return {
        "variable": one.name,
        "psi": round(one.psi, 4),
        "says": _word(one.psi),
        "moved_most": one.largest,
        "share_then": round(one.then, 4),
        "share_now": round(one.now, 4),
    }


def _picture(then: Mapping[str, Mapping[str, int]], now: Mapping[str, Mapping[str, int]]) -> bytes:
    from bigger_boat.data.dataset_plots import plot_shares

    order = {"lengths": _names(LENGTHS), "gaps": _names(GAPS_S), "actions": list(ACTIONS)}
    titles = {"lengths": "events of a session", "gaps": "mean gap in a session (s)", "actions": "actions"}
    return plot_shares({titles[name]: (names, then[name], now[name]) for name, names in order.items()})


def _bucket(edges: tuple[int, ...], value: str) -> str:
    """Return SQL, in both dialects, that names the bucket a number falls into (its name is in ``_names``)."""
    cases = [f"when {value} <= {edge} then '{name}'" for edge, name in zip(edges, _names(edges), strict=False)]
    return f"case {' '.join(cases)} else '{_names(edges)[-1]}' end"


def _names(edges: tuple[int, ...]) -> list[str]:
    names = [f"{low} to {high}" for low, high in pairwise(edges)]
    return [f"up to {edges[0]}", *names, f"over {edges[-1]}"]
