"""The public API: the interface, and that of the local profile.

There it is the server's if one is up, else the same handler over the same bundles.
"""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import dagster as dg

from bigger_boat.errors import RequestError, ServerError
from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.serving.handler import handle
from bigger_boat.settings import get_settings


class PublicApi(dg.ConfigurableResource, ABC):
    """What a shop's page asks."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the API is, or will be."""

    def deploy(self) -> dict[str, Any]:
        """Bring the API up to date where it is deployed; return what there is to say about that, by its name."""
        return {}

    @abstractmethod
    def get(self, query: str) -> dict[str, Any]:
        """Answer ``GET /predict?QUERY``. Raises ServerError with what came instead of an answer."""


class LocalPublicApi(PublicApi):
    """Asks what a shop's page asks. ``endpoints_dir`` and ``port`` are those of the endpoint host."""

    endpoints_dir: str
    port: int = 8080

    @property
    def url(self) -> str:
        """Where the API is, or will be when a server starts."""
        return self._host.url

    @property
    def _host(self) -> LocalEndpointHost:
        return LocalEndpointHost(endpoints_dir=self.endpoints_dir, port=self.port)

    def get(self, query: str) -> dict[str, Any]:
        """Answer ``GET /predict?QUERY``. Raises ServerError with what came instead of an answer."""
        from bigger_boat.resources import local_server
        from bigger_boat.serving import client

        if self._host.is_up():  # the key is no field of this resource: those are shown in the web UI
            return client.ask(self.url, f"/predict?{query}", api_key=local_server.api_key(get_settings()))
        response = handle("GET", "/predict", query, {}, b"", self._invoke)
        answer = json.loads(response.body)
        if response.status != 200:
            raise ServerError(f"The API answered {response.status}: {answer['error']['message']}")
        return answer

    def _invoke(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        from bigger_boat.serving.contract import format_answer, parse_request
        from bigger_boat.serving.predictor import Predictor

        directory = self._host.serving_bundle(name)
        if directory is None:
            raise RequestError(f"Nothing has been published for {name} yet.", "no_model", 503)
        predictor = Predictor.load(Path(directory))
        answers = predictor.predict(parse_request(request))
        return format_answer(predictor.bundle.kind, predictor.bundle.version, "", answers)
