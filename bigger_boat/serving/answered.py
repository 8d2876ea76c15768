"""An answer as the log keeps it, and the lines that it becomes.

What belongs elsewhere: when and where they are written (``prediction_log.py``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bigger_boat.data.prediction_files import MOST_EVENTS, MOST_PRODUCTS
from bigger_boat.data.vocabulary import MISSING_TIMESTAMP_MS
from bigger_boat.serving.contract import PredictionRequest


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that was answered, as it was answered. Nothing of it is copied or rendered before the thread does."""

    request_id: str
    route: str
    endpoint: str
    model: str
    version: str
    asked: PredictionRequest
    predictions: Sequence[Mapping[str, Any]]
    latency_s: float
    at_s: float

    def cells(self) -> int:
        products = sum(len(prediction.get("skus", ())) for prediction in self.predictions)
        return 1 + products + sum(map(len, self.asked.sessions))


def lines_of(answer: Answered) -> Iterator[dict[str, Any]]:
    """Yield a line per session of a request, its answer beside what was asked, both bounded."""
    asked = answer.asked
    for position, (session, prediction) in enumerate(zip(asked.sessions, answer.predictions, strict=True)):
        yield {
            "endpoint": answer.endpoint,
            "request_id": answer.request_id,
            "position": position,
            "answered_at_ms": int(answer.at_s * 1000),
            "latency_ms": round(answer.latency_s * 1000, 3),
            "route": answer.route,
            "model": answer.model,
            "version": answer.version,
            "session_id": asked.session_ids[position] if asked.session_ids else None,
            "at_ms": None if asked.at_ms[position] == MISSING_TIMESTAMP_MS else asked.at_ms[position],
            "k": asked.k,
            "exclude_seen": asked.exclude_seen,
            "events": len(session),
            "actions": session.actions[-MOST_EVENTS:],
            "skus": session.skus[-MOST_EVENTS:],
            "timestamps_ms": session.timestamps_ms[-MOST_EVENTS:],
            "products": len({sku for sku in session.skus if sku}),
            **_outcome(prediction),
        }


def _outcome(prediction: Mapping[str, Any]) -> dict[str, Any]:
    if "purchase_probability" in prediction:
        return {
            "unknown": len(prediction["unknown_actions"]),
            "purchase_probability": prediction["purchase_probability"],
        }
    return {
        "unknown": len(prediction["unknown_skus"]),
        "recommended": prediction["skus"][:MOST_PRODUCTS],
        "scores": prediction["scores"][:MOST_PRODUCTS],
        "fallback": prediction["fallback"],
    }
