"""Are the sessions of a day like a shop's? Checks over one query per table for all days, with SQL for examples.

The SQL is plain enough for both warehouses. What belongs elsewhere: what can be told from the landing index alone, and
the thresholds (``arrival_checks.py``); types and rules of single rows (``schemas.py``).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bigger_boat.data.arrival_checks import (
    DUPLICATES,
    DURATION,
    FEW,
    LENGTH,
    LIMIT,
    MAX_EXAMPLES,
    METADATA,
    NOT_EMPTY,
    SESSION_LIMIT_S,
    USUAL_LENGTH,
    WARN_BEYOND_LIMIT,
    WARN_DUPLICATES,
    WARN_WITHOUT_METADATA,
    DayFinding,
    Finding,
    listed,
)
from bigger_boat.data.check_specs import CheckSpec

Row = Mapping[str, object]
Query = Callable[[str, Sequence[object]], list[Row]]
"""Runs SQL with parameters and returns its rows."""

IS_NEGATIVE = "coalesce(duration_s, -1) < 0"
IS_LONG = f"duration_s > {SESSION_LIMIT_S}"
IS_EMPTY = "coalesce(event_count, 0) < 1"
NO_METADATA = (
    "products.sku is null or (products.category is null and products.price_bucket is null"
    " and products.description_vector is null and products.image_vector is null)"
)
TOUCHED = """
    select event_date as day, sku, count(*) as events from distinct_events
    where event_date between ? and ? and sku <> '' group by 1, 2
"""
SESSION_COUNTS = f"""
select cast(session_date as varchar) as day, count(*) as sessions, sum(coalesce(event_count, 0)) as events,
    sum(case when {IS_NEGATIVE} then 1 else 0 end) as negative,
    sum(case when {IS_LONG} then 1 else 0 end) as beyond_limit,
    sum(case when {IS_EMPTY} then 1 else 0 end) as without_action
from sessions where session_date between ? and ? group by 1
"""
DUPLICATE_COUNTS = """
select cast(event_date as varchar) as day, sum(event_count + duplicate_count) as events,
    sum(duplicate_count) as duplicates
from session_stats where event_date between ? and ? group by 1
"""
PRODUCT_COUNTS = f"""
select cast(touched.day as varchar) as day, count(*) as products,
    sum(case when {NO_METADATA} then 1 else 0 end) as bare
from ({TOUCHED}) as touched left join products on touched.sku = products.sku group by 1
"""


@dataclass(frozen=True)
class Rule:
    """A share (or a mean) of a day that must not leave its bounds, and where to find examples if it does.

    ``examples`` is SQL with ``day``, ``example`` and ``place`` (1 is the first to show) and a range as parameters.
    """

    spec: CheckSpec
    part: str
    whole: str
    most: float
    least: float
    says: str
    examples: str
    is_judged_from: int = FEW


def _of_sessions(condition: str, order: str, shows: str) -> str:
    return (
        f"select cast(session_date as varchar) as day, 'session ' || session_id || ': ' || {shows} as example,"
        f" row_number() over (partition by session_date order by {order}, session_id) as place"
        f" from sessions where session_date between ? and ? and {condition}"
    )


_DURATION = "coalesce(cast(duration_s as varchar), 'no') || ' s'"
_LENGTH = "coalesce(cast(event_count as varchar), 'no') || ' events'"
_REPEATED = """
select cast(event_date as varchar) as day,
    'session ' || session_id || ': ' || action || ' ' || sku || ' at ' || cast(timestamp_ms as varchar) || ', '
        || cast(copies as varchar) || ' times' as example,
    row_number() over (partition by event_date order by copies desc, session_id, timestamp_ms, action, sku) as place
from distinct_events where event_date between ? and ? and copies > 1
"""
_BARE = f"""
select cast(touched.day as varchar) as day,
    'product ' || touched.sku || ': ' || cast(touched.events as varchar) || ' events' as example,
    row_number() over (partition by touched.day order by touched.events desc, touched.sku) as place
from ({TOUCHED}) as touched left join products on touched.sku = products.sku where {NO_METADATA}
"""

SESSION_RULES = (
    Rule(
        DURATION,
        part="negative",
        whole="sessions",
        most=0,
        least=0,
        says="{part:,} of {whole:,} sessions end before they start, or never",
        examples=_of_sessions(IS_NEGATIVE, "duration_s", _DURATION),
        is_judged_from=1,
    ),
    Rule(
        NOT_EMPTY,
        part="without_action",
        whole="sessions",
        most=0,
        least=0,
        says="{part:,} of {whole:,} sessions have no action",
        examples=_of_sessions(IS_EMPTY, "event_count", _LENGTH),
        is_judged_from=1,
    ),
    Rule(
        LIMIT,
        part="beyond_limit",
        whole="sessions",
        most=WARN_BEYOND_LIMIT,
        least=0,
        says="{part:,} of {whole:,} sessions ({value:.1%}) last over 30 minutes",
        examples=_of_sessions(IS_LONG, "duration_s desc", _DURATION),
    ),
    Rule(
        LENGTH,
        part="events",
        whole="sessions",
        most=USUAL_LENGTH[1],
        least=USUAL_LENGTH[0],
        says="{whole:,} sessions have {value:.1f} events in the mean, and 4 to 10 are usual",
        # the day's longest sessions come first: what makes a mean long; a short one shows that even these are short
        examples=_of_sessions("event_count > 0", "event_count desc", _LENGTH),
    ),
)
DUPLICATE_RULES = (
    Rule(
        DUPLICATES,
        part="duplicates",
        whole="events",
        most=WARN_DUPLICATES,
        least=0,
        says="{part:,} of {whole:,} rows ({value:.1%}) repeat another one exactly",
        examples=_REPEATED,
    ),
)
METADATA_RULES = (
    Rule(
        METADATA,
        part="bare",
        whole="products",
        most=WARN_WITHOUT_METADATA,
        least=0,
        says="of {part:,} of {whole:,} products ({value:.1%}) the catalogue knows nothing",
        examples=_BARE,
    ),
)


def judge(rules: Iterable[Rule], counts_sql: str, days: Sequence[str], query: Query) -> list[Finding]:
    """Hold each day of a range against rules: one query for all days, and one more per rule that is broken."""
    counts = {str(row["day"]): row for row in query(counts_sql, [days[0], days[-1]])}
    return [_judge(rule, counts, days, query) for rule in rules]


def _judge(rule: Rule, counts: Mapping[str, Row], days: Sequence[str], query: Query) -> Finding:
    found: dict[str, DayFinding] = {}
    for day in days:
        part, whole = (int(counts[day][name] or 0) if day in counts else 0 for name in (rule.part, rule.whole))
        value = part / whole if whole else None
        is_broken = value is not None and whole >= rule.is_judged_from and not rule.least <= value <= rule.most
        says = rule.says.format(part=part, whole=whole, value=value) if is_broken else ""
        found[day] = DayFinding(value, whole, says)
    broken = [day for day in days if found[day].reason]
    if broken:
        examples = _examples(rule.examples, broken, query)
        for day in broken:
            finding = found[day]
            reason = f"{finding.reason}, such as:{listed(examples.get(day, []))}"
            found[day] = DayFinding(finding.value, finding.rows, reason)
    return Finding(rule.spec, found, _number(rule, found))


def _number(rule: Rule, found: Mapping[str, DayFinding]) -> float | None:
    """Return the day's value; of several days the worst share, or the value furthest below or above its bounds."""
    values = [day.value for day in found.values() if day.value is not None]
    middle = (rule.least + rule.most) / 2 if rule.least else 0.0
    return max(values, key=lambda value: abs(value - middle), default=None)


def _examples(sql: str, days: Sequence[str], query: Query) -> dict[str, list[str]]:
    """Return at most five examples of each of the days."""
    shown: dict[str, list[str]] = {}
    ranked = f"select day, example from ({sql}) as ranked where place <= {MAX_EXAMPLES} order by day, place"
    for row in query(ranked, [days[0], days[-1]]):
        if row["day"] in days:
            shown.setdefault(str(row["day"]), []).append(str(row["example"]))
    return shown
