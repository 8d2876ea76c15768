"""The description of ``/collect``, for ``openapi.py``. What belongs elsewhere: judging (``collected_event.py``)."""

from typing import Any

from bigger_boat.data.event_rules import LONGEST_ID, PRODUCT_ACTIONS, VECTOR_LENGTH
from bigger_boat.serving.collected_event import COLLECTED_TYPES, LONGEST_LIST, LONGEST_URL

Document = dict[str, Any]

_EVENT = {"$ref": "#/components/schemas/CollectedEvent"}
_NO_VALID_EVENT = {"$ref": "#/components/schemas/NoneCollected"}


def collect_paths(declined: Document) -> Document:
    """Return the operations of ``/collect``; ``declined``: the answers that every path may give."""
    too_many = {**declined["503"], "description": "Too many events wait: send them again after Retry-After."}
    declined = {**declined, "429": too_many}
    nothing_kept = {"description": "No event can be kept, and why.", "content": _json(_NO_VALID_EVENT)}
    events = _json({"anyOf": [_EVENT, {"$ref": "#/components/schemas/CollectedEvents"}]})
    kept = {"description": "Kept, on disk.", "content": _json({"$ref": "#/components/schemas/Collected"})}
    pixel = {"description": "Kept, on disk.", "content": {"image/gif": {"schema": {"type": "string"}}}}
    return {
        "/collect": {
            "post": {
                "summary": "Keep events: an object, a list, or an object per line, as any content type.",
                "requestBody": {"required": True, "content": events},
                "responses": {**declined, "200": kept, "400": nothing_kept},
            },
            "get": {
                "summary": "Keep one event, as a picture in a page sends it; lists with commas.",
                "parameters": _parameters(),
                "responses": {**declined, "200": pixel},
            },
        }
    }


def collect_schemas(batch_events: int) -> Document:
    """Return the schemas that the operations name."""
    text, count = {"type": "string"}, {"type": "integer", "minimum": 0}
    fault = _strict(index=count, reason=text, message=text)
    faults = {"type": "array", "items": fault}
    error = {"$ref": "#/components/schemas/Error/properties/error"}
    return {
        "CollectedEvent": {
            "type": "object",
            "required": ["event_id", "session_id", "event_type"],
            "additionalProperties": False,
            "properties": _fields(),
        },
        "CollectedEvents": {"type": "array", "minItems": 1, "maxItems": batch_events, "items": _EVENT},
        "Collected": _strict(accepted=count, duplicates=count, rejected=faults),
        "NoneCollected": {
            "type": "object",
            "required": ["error"],
            "additionalProperties": False,
            "properties": {"error": error, "rejected": faults},
        },
    }


def _fields() -> dict[str, Document]:
    token = {"type": "string", "minLength": 1, "maxLength": LONGEST_ID}
    maybe = {"type": ["string", "null"], "maxLength": LONGEST_ID}
    skus = {"type": ["array", "null"], "maxItems": LONGEST_LIST, "items": token}
    number = {"type": "number"}
    return {
        "event_id": token,
        "session_id": token,
        "event_type": {"type": "string", "enum": list(COLLECTED_TYPES)},
        "product_action": {"type": ["string", "null"], "enum": [*PRODUCT_ACTIONS, None]},
        "product_sku_hash": maybe,
        "hashed_url": {"type": ["string", "null"], "maxLength": LONGEST_URL},
        "query_vector": {
            "type": ["array", "null"],
            "items": number,
            "minItems": VECTOR_LENGTH,
            "maxItems": VECTOR_LENGTH,
        },
        "clicked_skus_hash": skus,
        "product_skus_hash": skus,
        "timestamp_ms": {"type": ["integer", "null"]},
        "request_id": maybe,
    }


def _parameters() -> list[Document]:
    required = ("event_id", "session_id", "event_type")
    return [
        {"name": name, "in": "query", "required": name in required, "schema": {"type": "string"}} for name in _fields()
    ]


def _strict(**properties: Document) -> Document:
    return {"type": "object", "required": list(properties), "additionalProperties": False, "properties": properties}


def _json(schema: Document) -> Document:
    return {"application/json": {"schema": schema}}
