"""How old what people rely on may be; the web UI shows what is older.

Days come daily. Models follow when the retraining sensor sees reason to: after seven new days, after thirty at the
latest (``automation/retraining.py``). A data set that will never grow (``END_DATE``) does not age.
"""

from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from bigger_boat.partitions import daily_partitions


def _older_than(warn: timedelta, fail: timedelta) -> dg.FreshnessPolicy:
    return dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=warn)


DAILY = _older_than(warn=timedelta(hours=30), fail=timedelta(hours=54))
"""A day is made after it has ended; one that is missing is noticed the next morning."""
WEEKLY = _older_than(warn=timedelta(days=10), fail=timedelta(days=21))
MONTHLY = _older_than(warn=timedelta(days=32), fail=timedelta(days=45))

POLICIES = {
    "sessions": DAILY,
    "cart_sessions": DAILY,
    "intent_dataset": WEEKLY,
    "recommendation_dataset": WEEKLY,
    "intent_champion": MONTHLY,
    "recommendation_champion": MONTHLY,
    "intent_endpoint": MONTHLY,
    "recommendation_endpoint": MONTHLY,
}


def with_freshness(assets: Sequence[dg.AssetsDefinition]) -> Sequence[dg.AssetsDefinition]:
    """Return the assets, those that people rely on with how old they may be; unless the days have an end."""
    if daily_partitions.end is not None:
        return assets
    return dg.map_asset_specs(_fresh, assets)


def _fresh(spec: dg.AssetSpec) -> dg.AssetSpec:
    policy = POLICIES.get(spec.key.to_user_string())
    return dg.apply_freshness_policy(spec, policy) if policy else spec
