"""The server's own description, published at ``/openapi.json``; what it says is what is fuzzed.

Belongs here: paths, schemas and answers, with the numbers of ``Limits``. Does not belong here: enforcing them
(``contract.py``, ``guard.py``).
"""

from typing import Any

from bigger_boat.data.vocabulary import ACTIONS
from bigger_boat.serving.contract import DEFAULT_K, LARGEST_TIMESTAMP_MS, Limits
from bigger_boat.serving.guard import ServerOptions
from bigger_boat.serving.openapi_collect import collect_paths, collect_schemas

Document = dict[str, Any]

_WHEN = {"answered_at_ms": {"type": "integer"}, "latency_ms": {"type": "number", "minimum": 0}}
"""What the server of one bundle answers, too: SageMaker captures it."""
_ERROR = {"$ref": "#/components/schemas/Error"}
_DECLINED = {
    "400": "The request does not follow the contract.",
    "401": "The API key is missing or wrong.",
    "408": "The request came too slowly.",
    "413": "The body is too large.",
    "500": "The model failed.",
    "502": "The model's endpoint failed.",
    "503": "No model yet, or too much to do: ask again after Retry-After.",
}


def describe_endpoints_server(options: ServerOptions) -> Document:
    """Return the OpenAPI 3.1 document of the server of all endpoints, with ``/collect`` if it collects."""
    paths: Document = {}
    for name, answer, path in (
        ("recommendation", "Rankings", "/v1/recommendations"),
        ("intent", "Probabilities", "/v1/intent"),
    ):
        for place in (f"/endpoints/{name}/invocations", path):
            paths[place] = {"post": _invocation(answer, f"Ask the {name} endpoint.")}
    paths["/predict"] = {"get": _predict()}
    document = _document(paths, options.limits)
    if options.collect:
        document["paths"] |= collect_paths(_declined())
        document["components"]["schemas"] |= collect_schemas(options.collect.batch_events)
    return document


def describe_bundle_server(limits: Limits) -> Document:
    """Return the OpenAPI 3.1 document of the server of one bundle, as in SageMaker's container."""
    return _document({"/invocations": {"post": _invocation("Answer", "Ask the model.")}}, limits)


def _document(paths: Document, limits: Limits) -> Document:
    return {
        "openapi": "3.1.0",
        "info": {"title": "Bigger Boat", "version": "1", "description": "Which products come next, and will it buy?"},
        "paths": {**paths, **_probes()},
        "components": {
            "schemas": _schemas(limits),
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"}},
        },
        "security": [{}, {"key": []}],
    }


def _invocation(answer: str, summary: str) -> Document:
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": _json({"$ref": "#/components/schemas/Request"})},
        "responses": {"200": _response("Answered.", {"$ref": f"#/components/schemas/{answer}"}), **_declined()},
    }


def _predict() -> Document:
    text = {"type": "string", "maxLength": 2000}
    parameters = [
        _query("x", text, "Tokens separated by commas: action names, or SKUs."),
        _query("session", text, "The same, by its other name; give one of the two."),
        _query("k", {"type": "integer", "minimum": 1, "maximum": 1000}, "How many products."),
        _query("exclude_seen", {"type": "string", "enum": ["true", "false", "1", "0"]}, "Leave out what was seen."),
    ]
    schema = {"type": "object", "required": ["prediction", "model", "version", "time"]}
    return {
        "summary": "The original's form: one session in the query string.",
        "parameters": parameters,
        "responses": {"200": _response("Answered.", schema), **_declined()},
    }


def _probes() -> Document:
    health = {"type": "object", "required": ["status", "pid"]}
    nothing = {"200": {"description": "Ready."}, "503": {"description": "Models are being loaded."}}
    return {
        "/ping": {"get": {"summary": "Readiness, by SageMaker's name.", "responses": nothing}},
        "/ready": {"get": {"summary": "Readiness.", "responses": nothing}},
        "/live": {"get": {"summary": "Liveness.", "responses": {"200": _response("Alive.", {"type": "object"})}}},
        "/health": {"get": {"summary": "What serves.", "responses": {"200": _response("Now.", health), **_declined()}}},
    }


def _schemas(limits: Limits) -> Document:
    token = {"type": "string", "maxLength": limits.token_length}
    time_ms = {"type": ["integer", "null"], "minimum": 0, "maximum": LARGEST_TIMESTAMP_MS}
    event = {
        "type": "object",
        "required": ["action"],
        "properties": {
            "action": {**token, "minLength": 1, "examples": list(ACTIONS)},
            "sku": {**token, "type": ["string", "null"]},
            "timestamp_ms": time_ms,
        },
    }
    session = {
        "type": "array",
        "maxItems": limits.session_events,
        "items": {"anyOf": [{"$ref": "#/components/schemas/Event"}, {**token, "minLength": 1}]},
    }
    request = {
        "type": "object",
        "required": ["sessions"],
        "additionalProperties": False,
        "properties": {
            "sessions": {"type": "array", "maxItems": limits.sessions, "items": session},
            "session_ids": {"type": ["array", "null"], "items": token},
            "at_ms": {"anyOf": [time_ms, {"type": "array", "items": time_ms}]},
            "k": {"type": "integer", "minimum": 1, "maximum": limits.k, "default": DEFAULT_K},
            "exclude_seen": {"type": "boolean", "default": False},
        },
    }
    strings = {"type": "array", "items": {"type": "string"}}
    ranking = _strict(
        skus=strings,
        scores={"type": "array", "items": {"type": "number"}},
        fallback={"type": "boolean"},
        unknown_skus=strings,
    )
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    intent = _strict(purchase_probability=probability, unknown_actions=strings)
    return {
        "Event": event,
        "Request": request,
        "Rankings": _answer(ranking),
        "Probabilities": _answer(intent),
        "Answer": {"anyOf": [_answer(each, **_WHEN) for each in (ranking, intent)]},
        "Error": _strict(error=_strict(code={"type": "string"}, message={"type": "string"})),
    }


def _answer(prediction: Document, **more: Document) -> Document:
    text = {"type": "string"}
    predictions = {"type": "array", "items": prediction}
    return _strict(model=text, version=text, request_id=text, predictions=predictions, **more)


def _strict(**properties: Document) -> Document:
    return {"type": "object", "required": list(properties), "additionalProperties": False, "properties": properties}


def _query(name: str, schema: Document, description: str) -> Document:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _json(schema: Document) -> Document:
    return {"application/json": {"schema": schema}}


def _response(description: str, schema: Document) -> Document:
    return {"description": description, "content": _json(schema)}


def _declined() -> Document:
    return {status: _response(text, _ERROR) for status, text in _DECLINED.items()}
