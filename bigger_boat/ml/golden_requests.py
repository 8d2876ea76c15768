"""Golden requests: what an endpoint is asked before it may serve, with the answers computed offline.

What belongs elsewhere: comparing answers (``golden.py``), replaying them (``gate.py``, ``serving/``).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

Event = dict[str, object]
Answer = Callable[[Sequence[list[Event]], int, bool], list[dict]]
"""(sessions, k, exclude_seen) -> the contract's predictions, computed without the exported graph."""

SESSIONS = 20
"""How many real sessions are asked about."""

UNKNOWN_SKU = "a-product-nobody-has-seen"


def events_of(actions: Iterable[str], skus: Iterable[str], timestamps_ms: Iterable[int]) -> list[Event]:
    """Return aligned lists as the contract's events; an empty SKU is left out."""
    return [
        {"action": action, **({"sku": sku} if sku else {}), "timestamp_ms": time}
        for action, sku, time in zip(actions, skus, timestamps_ms, strict=True)
    ]


def golden_examples(sessions: Sequence[list[Event]], answer: Answer) -> list[dict]:
    """Return ``[{"request", "predictions"}]``: real sessions alone and in a batch, and everything that is unusual.

    Unusual are: nothing at all (the first request), actions without products and times, an unknown product, an unknown
    action, a short list, and no product that was seen.
    """
    real = list(sessions[:SESSIONS])
    bare = [[{"action": event["action"]} for event in session] for session in real[:3]]
    unknown = [[{"action": "detail", "sku": UNKNOWN_SKU}], [{"action": "teleport"}, {"action": "view"}]]
    requests: list[Mapping] = [
        {"sessions": [[]]},
        {"sessions": bare + unknown},
        {"sessions": [*real, []]},
        *({"sessions": [session]} for session in real[:5]),
        {"sessions": [*real[:5], []], "k": 5},
        {"sessions": [*real[:5], []], "k": 10, "exclude_seen": True},
    ]
    return [
        {
            "request": request,
            "predictions": answer(request["sessions"], request.get("k", 20), request.get("exclude_seen", False)),
        }
        for request in requests
    ]
