"""What SageMaker's data capture keeps of a request and its answer, as lines of the log of answers.

Belongs here: one line of its files, in its format (``captureData``, ``eventMetadata``, ``eventVersion`` "0"), which
holds the bodies that the container was sent and answered. Does not belong here: where the files lie
(``resources/captured_logs.py``), the log's own lines (``answered.py``).

A request that was given an ``InferenceId`` is known by it, which is noted with the request; another by the id that the
container answered. The container says when it answered and after how long, since capture notes whole seconds.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import orjson

from bigger_boat.data.prediction_files import SHADOW, shadow_id
from bigger_boat.errors import RequestError
from bigger_boat.serving.answered import Answered, lines_of
from bigger_boat.serving.contract import parse_request

OURS = "golden:"
"""How the ``InferenceId`` of a question begins that is no shop's; ids of callers have no colon (``contract.py``)."""

_NO_RECORD, _NO_ANSWER = "is no record of data capture", "holds no request and answer of the endpoint contract"


class ForeignLineError(ValueError):
    """A line that cannot be read: damaged, or of something else. Its text says which, after "it ..."."""


def lines_of_record(line: bytes, endpoint: str, *, shadow: bool = False) -> list[dict[str, Any]]:
    """Return the log's lines of a captured request: one per session that it asked about.

    None for what is no answer to a shop: a refusal, a question of ours (OURS). ``shadow``: nobody got the answer.
    Raises ForeignLineError.
    """
    try:
        record = orjson.loads(line)
        kept, about = record["captureData"], record["eventMetadata"]
        asked, said = (_body(kept[side]) for side in ("endpointInput", "endpointOutput"))
    except (KeyError, TypeError, ValueError) as error:
        raise ForeignLineError(_NO_RECORD) from error
    try:
        request_id = about.get("inferenceId") or said.get("request_id")
        if "error" in said or str(request_id).startswith(OURS):
            return []
        return list(lines_of(_answered(endpoint, request_id, asked, said, shadow)))
    except (AttributeError, KeyError, TypeError, ValueError, RequestError) as error:
        raise ForeignLineError(_NO_ANSWER) from error


def _body(kept: Mapping[str, Any]) -> Any:
    """Return a body: text as it was sent, or Base64 where its content type was not told to be text."""
    data = kept["data"]
    if kept["encoding"] == "BASE64":
        try:
            data = base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise ValueError("no Base64") from error
    return orjson.loads(data)


def _answered(endpoint: str, request_id: Any, asked: Any, said: Mapping[str, Any], shadow: bool) -> Answered:
    return Answered(
        request_id=shadow_id(_text(request_id)) if shadow else _text(request_id),
        route=SHADOW if shadow else "/invocations",
        endpoint=endpoint,
        model=_text(said["model"]),
        version=_text(said["version"]),
        asked=parse_request(asked),
        predictions=[_prediction(each, endpoint) for each in said["predictions"]],
        latency_s=float(said["latency_ms"]) / 1000,
        at_s=(int(said["answered_at_ms"]) + 0.5) / 1000,  # the log cuts: a rounding down would lose one
    )


def _prediction(said: Mapping[str, Any], endpoint: str) -> dict[str, Any]:
    if endpoint == "intent":
        unknown = [*map(_text, said["unknown_actions"])]
        return {"purchase_probability": float(said["purchase_probability"]), "unknown_actions": unknown}
    return {
        "skus": [*map(_text, said["skus"])],
        "scores": [*map(float, said["scores"])],
        "fallback": bool(said["fallback"]),
        "unknown_skus": [*map(_text, said["unknown_skus"])],
    }


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("a text")
    return value
