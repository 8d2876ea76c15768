"""golden.json: which requests it holds with their offline answers, and what "the same answers" means.

Belongs here: choosing the requests, and the comparison with the answers of whoever serves the bundle. Does not belong
here: who asks (``serving/``), what follows from a difference (``gate.py``).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

GOLDEN_TOLERANCE = 1e-4

_ALONE = 3
_UNKNOWN_EVENTS = [{"action": "hover", "sku": "no-such-product"}, {"action": "detail", "sku": "no-such-product"}]

Event = dict[str, Any]
Answer = Callable[[list[list[Event]], int, bool], list[dict[str, Any]]]
"""Sessions, k and exclude_seen in, the contract's predictions out, computed without the exported graph."""


def events_of(actions: Sequence[str], skus: Sequence[str], timestamps_ms: Sequence[int]) -> list[Event]:
    """Return a session of the data set as events of the contract, leaving out what is missing."""
    events = []
    for action, sku, timestamp_ms in zip(actions, skus, timestamps_ms, strict=True):
        event: Event = {"action": action}
        if sku:
            event["sku"] = sku
        if timestamp_ms is not None and timestamp_ms >= 0:
            event["timestamp_ms"] = timestamp_ms
        events.append(event)
    return events


def golden_examples(sessions: Sequence[list[Event]], answer: Answer) -> list[dict[str, Any]]:
    """Return golden requests over real sessions with their offline answers.

    The first prediction of the first request answers the empty session. The others vary what a request may vary: the
    batch, k, ``exclude_seen``, products and actions that nobody knows, and events without times and products.
    """
    asked = [list(session) for session in sessions]
    strange = [[*session, *_UNKNOWN_EVENTS] for session in asked[:_ALONE]]
    bare = [[{"action": event["action"]} for event in session] for session in asked[:_ALONE]]
    untimed = [[{k: v for k, v in e.items() if k != "timestamp_ms"} for e in session] for session in asked[:_ALONE]]
    requests = [
        ([[], *asked], 20, False),
        ([*asked, []], 5, True),
        ([*strange, _UNKNOWN_EVENTS], 20, False),
        (bare, 20, False),
        (untimed, 100, True),
        *(([session], 1, False) for session in asked[:_ALONE]),
    ]
    return [
        {
            "request": {"sessions": batch, "k": k, "exclude_seen": exclude_seen},
            "predictions": answer(batch, k, exclude_seen),
        }
        for batch, k, exclude_seen in requests
        if batch
    ]


def compare_golden(
    expected: Sequence[Mapping[str, Any]], answered: Sequence[Mapping[str, Any]], tolerance: float = GOLDEN_TOLERANCE
) -> list[str]:
    """Return the differences between two lists of predictions as sentences; an empty list means equal.

    Equal means: scores within ``tolerance``, and the same order where the expected scores differ by more. At the
    cut-off a product may be replaced by one whose score ties with the last.
    """
    if len(expected) != len(answered):
        return [f"{len(expected)} predictions were expected, {len(answered)} came"]
    differences = []
    for row, (wanted, given) in enumerate(zip(expected, answered, strict=True)):
        compare = _compare_ranking if "skus" in wanted else _compare_probability
        differences += [f"prediction {row}: {text}" for text in compare(wanted, given, tolerance)]
    return differences


def _compare_probability(wanted: Mapping[str, Any], given: Mapping[str, Any], tolerance: float) -> list[str]:
    differences = _compare_fields(wanted, given, ("unknown_actions",))
    probability, answer = wanted.get("purchase_probability"), given.get("purchase_probability")
    if not _close(probability, answer, tolerance):
        differences.append(f"purchase_probability {probability} was expected, {answer} came")
    return differences


def _compare_ranking(wanted: Mapping[str, Any], given: Mapping[str, Any], tolerance: float) -> list[str]:
    differences = _compare_fields(wanted, given, ("fallback", "unknown_skus"))
    skus, scores = list(given.get("skus") or ()), list(given.get("scores") or ())
    if len(skus) != len(wanted["skus"]) or len(scores) != len(skus):
        differences.append(f"{len(wanted['skus'])} products were expected, {len(skus)} came with {len(scores)} scores")
        return differences
    if len(set(skus)) != len(skus):
        return [*differences, "a product came twice"]
    by_sku = dict(zip(wanted["skus"], wanted["scores"], strict=True))
    lowest = running = math.inf
    last = wanted["scores"][-1] if skus else 0.0
    for rank, (sku, score) in enumerate(zip(skus, scores, strict=True), start=1):
        offline = by_sku.get(sku, last)
        if not _close(offline, score, tolerance):
            what = f"score {offline}" if sku in by_sku else "no such product"
            differences.append(f"rank {rank}, product {sku}: {what} was expected, {score} came")
        elif offline > lowest + tolerance or score > running + tolerance:
            differences.append(f"rank {rank}, product {sku}: it stands below a product with a lower score")
        if _is_number(score):
            lowest, running = min(lowest, offline), score
    lost = [sku for sku in by_sku if sku not in set(skus) and not _close(by_sku[sku], last, tolerance)]
    return differences + [f"product {sku} (score {by_sku[sku]}) is missing" for sku in lost]


def _compare_fields(wanted: Mapping[str, Any], given: Mapping[str, Any], fields: Sequence[str]) -> list[str]:
    return [
        f"{field} {wanted[field]!r} was expected, {given.get(field)!r} came"
        for field in fields
        if field in wanted and _unordered(wanted[field]) != _unordered(given.get(field))
    ]


def _unordered(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list | tuple) else value


def _close(expected: Any, answer: Any, tolerance: float) -> bool:
    return _is_number(expected) and _is_number(answer) and abs(expected - answer) <= tolerance


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
