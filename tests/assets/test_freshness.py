"""Which assets may be how old."""

from datetime import timedelta

from bigger_boat.assets.freshness import POLICIES


def test_what_people_rely_on_says_how_old_it_may_be():
    from bigger_boat.definitions import defs

    graph = defs.resolve_asset_graph()
    fresh = {key.to_user_string(): graph.get(key).freshness_policy for key in graph.get_all_asset_keys()}
    assert {name: policy for name, policy in fresh.items() if policy} == POLICIES
    assert {"sessions", "intent_dataset", "recommendation_endpoint"} <= POLICIES.keys()


def test_it_warns_before_it_fails_and_later_than_the_sensors_act():
    from bigger_boat.automation.retraining import Policy

    policy = Policy()
    for name, allowed in POLICIES.items():
        assert allowed.warn_window.to_timedelta() < allowed.fail_window.to_timedelta(), name
    assert POLICIES["intent_dataset"].warn_window.to_timedelta() > timedelta(days=policy.changed_days)
    assert POLICIES["intent_endpoint"].warn_window.to_timedelta() > timedelta(days=policy.age_days)
