"""A loaded bundle: contract requests in, contract predictions out.

Belongs here: padding sessions into the SavedModel's inputs and reading its outputs. Does not belong here: HTTP
(``app.py``), batches over requests (``batching.py``), swapping (``live_endpoint.py``), TensorFlow (``graph.py``).
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigger_boat.data.vocabulary import MISSING_TIMESTAMP_MS
from bigger_boat.errors import BundleError, ServerError
from bigger_boat.ml.bundle import Bundle, read_bundle
from bigger_boat.serving.contract import PredictionRequest, Session
from bigger_boat.serving.graph import Graph

_OUTPUTS = {
    "recommendation": frozenset({"skus", "scores", "fallback", "unknown"}),
    "intent": frozenset({"purchase_probability", "unknown"}),
}
_REQUIRED_INPUTS = frozenset({"actions", "skus", "timestamps_ms"})
_OPTIONAL_INPUTS = frozenset({"at_ms", "k", "exclude_seen"})
_LARGEST_CALL_CELLS = 262_144
"""Padded cells (sessions times longest) of one call of the graph: one long session must not blow up a batch."""
LARGEST_CALL_SESSIONS = 64
"""Sessions of one call: each needs a score per product, and more at once are not answered faster."""


class Predictor:
    """One version of one model, ready to answer. Safe to call from several threads."""

    def __init__(self, bundle: Bundle, graph: Graph):
        self.bundle = bundle
        self._graph = graph
        self._require_signature()

    @classmethod
    def load(cls, directory: Path) -> "Predictor":
        """Verify the bundle in ``directory`` and load its graph. Raises BundleError with the reason."""
        bundle = read_bundle(directory)
        try:
            graph = Graph(bundle.saved_model)
        except Exception as error:
            text = f"The SavedModel of {bundle.name} version {bundle.version} cannot be loaded: {_first_line(error)}"
            raise BundleError(text, "Materialize the model again.") from error
        return cls(bundle, graph)

    def predict(self, request: PredictionRequest) -> list[dict[str, Any]]:
        """Return one prediction per session, in order. Raises ServerError if the graph fails or answers no numbers."""
        predictions: list[dict[str, Any]] = [{}] * len(request.sessions)
        for rows in _calls(request.sessions):
            sessions = [request.sessions[row] for row in rows]
            at_ms = [request.at_ms[row] for row in rows]
            answers = self._call(sessions, at_ms, request.k, request.exclude_seen)
            for row, answer in zip(rows, answers, strict=True):
                predictions[row] = answer
        return predictions

    def _call(self, sessions: list[Session], at_ms: list[int], k: int, exclude_seen: bool) -> list[dict[str, Any]]:
        try:
            outputs = self._graph(_padded(sessions, at_ms, k, exclude_seen))
        except Exception as error:
            raise ServerError(f"The model failed to answer: {_first_line(error)}") from error
        read = _rankings if self.bundle.name == "recommendation" else _probabilities
        return read(sessions, outputs)

    def _require_signature(self) -> None:
        lacking = (_REQUIRED_INPUTS - self._graph.inputs) | (_OUTPUTS[self.bundle.name] - self._graph.outputs)
        odd = sorted(lacking) or sorted(self._graph.inputs - _REQUIRED_INPUTS - _OPTIONAL_INPUTS)
        if odd:
            text = f"The signature of {self.bundle.name} version {self.bundle.version} does not fit: {', '.join(odd)}."
            raise BundleError(text, "Export the model with the inputs and outputs of the endpoint contract.")


def _calls(sessions: Sequence[Session]) -> Iterator[list[int]]:
    """Split rows into calls of bounded size; usually there is one."""
    rows = sorted(range(len(sessions)), key=lambda row: len(sessions[row]))
    chunk: list[int] = []
    for row in rows:
        cells = (len(chunk) + 1) * len(sessions[row])
        if chunk and (cells > _LARGEST_CALL_CELLS or len(chunk) == LARGEST_CALL_SESSIONS):
            yield chunk
            chunk = []
        chunk.append(row)
    if chunk:
        yield chunk


def _padded(sessions: list[Session], at_ms: list[int], k: int, exclude_seen: bool) -> dict[str, np.ndarray]:
    """Right-pad B sessions to the longest, T >= 1: strings (B, T), times (B, T)."""
    width = max(1, *map(len, sessions)) if len(sessions) > 1 else max(1, len(sessions[0]))
    return {
        "actions": np.array([[*s.actions, *[""] * (width - len(s))] for s in sessions], dtype=object),
        "skus": np.array([[*s.skus, *[""] * (width - len(s))] for s in sessions], dtype=object),
        "timestamps_ms": np.array(
            [s.timestamps_ms + [MISSING_TIMESTAMP_MS] * (width - len(s)) for s in sessions], dtype=np.int64
        ),
        "at_ms": np.array(at_ms, dtype=np.int64),
        "k": np.array(k, dtype=np.int32),
        "exclude_seen": np.array(exclude_seen),
    }


def _rankings(sessions: list[Session], outputs: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    columns = (outputs[name].tolist() for name in ("skus", "scores", "fallback", "unknown"))
    answers = []
    for session, skus, scores, fallback, unknown in zip(sessions, *columns, strict=True):
        if b"" in skus:  # places for which there was no product
            scores = [score for sku, score in zip(skus, scores, strict=True) if sku]
            skus = filter(None, skus)
        if not all(map(math.isfinite, scores)):
            raise ServerError("The model answered a score that is no number.")
        answers.append(
            {
                "skus": [sku.decode() for sku in skus],
                "scores": scores,
                "fallback": fallback,
                "unknown_skus": _flagged(session.skus, unknown),
            }
        )
    return answers


def _probabilities(sessions: list[Session], outputs: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    probabilities = outputs["purchase_probability"].reshape(-1)
    if not np.isfinite(probabilities).all():
        raise ServerError("The model answered a probability that is no number.")
    return [
        {
            "purchase_probability": float(probabilities[row]),
            "unknown_actions": _flagged(session.actions, outputs["unknown"][row].tolist()),
        }
        for row, session in enumerate(sessions)
    ]


def _flagged(tokens: list[str], flags: list[bool]) -> list[str]:
    """The flagged tokens once each, in order of appearance; padding is never one."""
    if True not in flags:
        return []
    return list(dict.fromkeys(token for token, flag in zip(tokens, flags, strict=False) if flag and token))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
