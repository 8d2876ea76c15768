"""One SageMaker endpoint: its versions, which are models, its configurations, how it stands, and what it answers.

Belongs here: what is asked of SageMaker, each step safe to repeat. What belongs elsewhere: alarms and autoscaling
(``sagemaker_guards.py``), what a configuration says (``sagemaker_config.py``), the order of things
(``sagemaker_moves.py``, ``sagemaker_host.py``).
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bigger_boat.errors import CloudError
from bigger_boat.resources.aws import aws_client, aws_in_words
from bigger_boat.resources.sagemaker_config import (
    CHALLENGER_VARIANT,
    SHARE_DIGITS,
    EndpointShape,
    Rival,
    capture,
    update,
    variants,
    variants_of,
)

TAG = "bigger-boat:"
"""How the names of our tags begin."""

MOVING = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
_VERSION = re.compile(r"[0-9]{8}T[0-9]{9}Z-[0-9a-f]{8}")
_NOT_IN_A_TAG = re.compile(r"[^\w .:/=+@-]")
_LONGEST_TAG = 256


def endpoint_name(prefix: str, name: str) -> str:
    """Return the name that SageMaker knows an endpoint by."""
    return f"{prefix}-{name}"


@dataclass(frozen=True)
class EndpointState:
    """How an endpoint stands, by SageMaker's own words; ``status`` "" means that there is none."""

    status: str = ""
    config: str = ""
    reason: str = ""

    @property
    def is_moving(self) -> bool:
        return self.status in MOVING

    @property
    def serves(self) -> bool:
        """Whether a version answers, that of ``config``; it goes on while another is on its way."""
        return self.status not in ("", "Creating", "Failed", "Deleting", "OutOfService")


class SageMakerEndpoint:
    """An endpoint ``name`` in this account and region. Methods raise CloudError with what AWS said, and what to do."""

    def __init__(self, name: str, role: str, image: str, shape: EndpointShape):
        self.name, self.role, self.image, self.shape = name, role, image, shape

    def state(self) -> EndpointState:
        """Return how it stands now."""
        endpoint = self._get("Endpoint", endpoint_name=self.name)
        if endpoint is None:
            return EndpointState()
        return EndpointState(endpoint.endpoint_status, endpoint.endpoint_config_name, _text(endpoint.failure_reason))

    def versions(self) -> list[str]:
        """Return the versions that are there, oldest first."""
        found = []
        with self._named("versions cannot be listed"):
            for page in _client().get_paginator("list_models").paginate(NameContains=self.name):
                found += [each["ModelName"].removeprefix(f"{self.name}-") for each in page["Models"]]
        return sorted(version for version in found if _VERSION.fullmatch(version))

    def add_version(self, version: str, model_data: str, tags: Mapping[str, str]) -> None:
        """Make the model of a version: image, ``model.tar.gz`` and role.

        SageMaker changes no model, and what serves needs its own: a corrected image or role makes another one beside
        it. The version's tags are those of the first.
        """
        from sagemaker.core.resources import Model
        from sagemaker.core.shapes import ContainerDefinition

        models, asked = self._models(version), [self.image, model_data, self.role]
        if asked in map(_makings, models):
            return
        container = ContainerDefinition(image=self.image, model_data_url=model_data)
        with self._named(f"version {version} cannot be added"):
            Model.create(
                model_name=self._model(version) + (f"-{_digest(asked)}" if models else ""),
                primary_container=container,
                execution_role_arn=self.role,
                tags=_tags(tags),
                **_session(),
            )

    def add_config(self, version: str, rival: Rival | None = None) -> str:
        """Make the configuration that runs a version in the present shape, a rival beside it; return its name.

        It runs models of the present image and role, else the newest. Raises CloudError without a model.
        """
        from sagemaker.core.resources import EndpointConfig

        model, rival_model = self._newest(version), self._newest(rival.version) if rival else ""
        beside = [rival_model, rival.share, rival.shadow] if rival else []
        name = f"{self._model(version)}-{_digest([self.shape.model_dump(), model, *beside])}"
        if self._get("EndpointConfig", endpoint_config_name=name) is None:
            with self._named(f"the configuration of version {version} cannot be made"):
                EndpointConfig.create(
                    endpoint_config_name=name,
                    tags=_tags({"version": version, "rival": rival.version if rival else ""}),
                    **variants(self.shape, model, rival, rival_model),
                    **capture(self.shape),
                    **_session(),
                )
        return name

    def rival_of(self, config: str) -> Rival | None:
        """Return what stands in a configuration beside the version that serves, None for nothing of ours."""
        known = self._get("EndpointConfig", endpoint_config_name=config) if config else None
        serving, shadows = variants_of(known) if known else ([], [])
        beside = [each for each in serving if each.variant_name == CHALLENGER_VARIANT] + shadows
        if not beside or not (version := self.version_of(beside[0].model_name)):
            return None
        shadow = beside[0] in shadows
        share = beside[0].initial_variant_weight / sum(each.initial_variant_weight for each in serving)
        return Rival(version, 1.0 if shadow else round(share, SHARE_DIGITS), shadow)

    def go_to(self, config: str, alarms: list[str]) -> None:
        """Create the endpoint with a configuration, or update it in place; returns at once.

        While one of the ``alarms`` is on, SageMaker takes an update back; without any it is not watched, nor slowed.
        """
        from sagemaker.core.resources import Endpoint

        endpoint = self._get("Endpoint", endpoint_name=self.name)
        with self._named("it cannot be brought to another version"):
            if endpoint is None:
                Endpoint.create(endpoint_name=self.name, endpoint_config_name=config, tags=_tags({}), **_session())
                return
            same = self._variant_names(endpoint.endpoint_config_name) == self._variant_names(config)
            endpoint.endpoint_config_name = config
            endpoint.update(**update(self.shape, alarms, same_variants=same))

    def delete(self) -> None:
        """End the endpoint; its versions stay."""
        if endpoint := self._get("Endpoint", endpoint_name=self.name):
            with self._named("it cannot be deleted"):
                endpoint.delete()

    def remove_version(self, version: str) -> None:
        """Delete a version's models and configurations; its files stay."""
        with self._named(f"version {version} cannot be removed"):
            pages = _client().get_paginator("list_endpoint_configs").paginate(NameContains=self._model(version))
            for name in [each["EndpointConfigName"] for page in pages for each in page["EndpointConfigs"]]:
                if name.startswith(f"{self._model(version)}-"):  # another prefix may end like ours
                    _client().delete_endpoint_config(EndpointConfigName=name)
            for model in self._models(version):  # the first, which says that there is a version, is the last to go
                _client().delete_model(ModelName=model.model_name)

    def tags(self, version: str) -> dict[str, str]:
        """Return our tags of a version; none where the version is not."""
        model = self._get("Model", model_name=self._model(version))
        if model is None:
            return {}
        with self._named(f"the tags of version {version} cannot be read"):
            pages = _client().get_paginator("list_tags").paginate(ResourceArn=model.model_arn)
            found = {each["Key"]: each["Value"] for page in pages for each in page["Tags"]}
        return {key.removeprefix(TAG): value for key, value in found.items() if key.startswith(TAG)}

    def tag(self, version: str, key: str, value: str | None) -> None:
        """Set a tag of a version, or remove it (None)."""
        model = self._get("Model", model_name=self._model(version))
        with self._named(f"the tags of version {version} cannot be changed"):
            if model is not None and value is None:
                _client().delete_tags(ResourceArn=model.model_arn, TagKeys=[TAG + key])
            elif model is not None:
                _client().add_tags(ResourceArn=model.model_arn, Tags=[{"Key": TAG + key, "Value": value}])

    def ask(self, request: Mapping[str, Any], inference_id: str = "", variant: str = "") -> dict[str, Any]:
        """Return what the endpoint answers to a request of the contract, through SageMaker's runtime.

        ``inference_id`` (at most 64 characters) is noted with what is captured; ``variant``: who of several answers.
        """
        given = {"InferenceId": inference_id, "TargetVariant": variant}
        told = {name: value for name, value in given.items() if value}
        with self._named("it does not answer"):
            answer = _client("sagemaker-runtime").invoke_endpoint(
                EndpointName=self.name, ContentType="application/json", Body=json.dumps(request).encode(), **told
            )
            return json.loads(answer["Body"].read())

    def version_of(self, config: str) -> str | None:
        """Return the version that a configuration of this endpoint runs, None for one of somebody else."""
        found = _VERSION.match(config.removeprefix(f"{self.name}-"))
        return found.group() if found else None

    def _model(self, version: str) -> str:
        return f"{self.name}-{version}"

    def _newest(self, version: str) -> str:
        """Return the model of a version that is of the present image and role, else the newest."""
        models = self._models(version)
        if not models:
            raise CloudError(f"Endpoint {self.name}: there is no version {version}.", "Publish it again.")
        present = (model for model in models if _makings(model)[::2] == [self.image, self.role])
        return next(present, models[0]).model_name

    def _variant_names(self, config: str) -> set[str]:
        known = self._get("EndpointConfig", endpoint_config_name=config)
        serving, shadows = variants_of(known) if known else ([], [])
        return {each.variant_name for each in [*serving, *shadows]}

    def _models(self, version: str) -> list[Any]:
        """Return the models of a version, the newest first."""
        name = self._model(version)
        with self._named(f"the models of version {version} cannot be listed"):
            pages = _client().get_paginator("list_models").paginate(NameContains=name)
            listed = [(each["CreationTime"], each["ModelName"]) for page in pages for each in page["Models"]]
        ours = [each for _, each in sorted(listed, reverse=True) if f"{each}-".startswith(f"{name}-")]
        models = [self._get("Model", model_name=each) for each in ours]
        return [model for model in models if model is not None]

    def _get(self, kind: str, **name: str) -> Any:
        """Return a resource of sagemaker.core, None where there is none."""
        from botocore.exceptions import ClientError
        from sagemaker.core import resources

        with self._named(f"its {kind} cannot be looked up"):
            try:
                return getattr(resources, kind).get(**name, **_session())
            except ClientError as error:
                said = error.response["Error"]
                if said["Code"] == "ValidationException" and "Could not find" in said.get("Message", ""):
                    return None
                raise

    def _named(self, what: str) -> Any:
        return aws_in_words(f"Endpoint {self.name}: {what}")


@lru_cache(maxsize=1)
def _session() -> dict[str, Any]:
    """Return the session that sagemaker.core is given with every call. Raises CloudError without a region."""
    import boto3
    from sagemaker.core.utils import utils

    # sagemaker-core 2.27 sends MemorySizeInMb, which SageMaker refuses; goes when it does not
    utils.SPECIAL_SNAKE_TO_PASCAL_MAPPINGS["memory_size_in_mb"] = "MemorySizeInMB"
    session = boto3.Session()
    if not session.region_name:
        raise CloudError("There is no AWS region.", "Set AWS_DEFAULT_REGION.")
    return {"session": session, "region": session.region_name}


@lru_cache(maxsize=2)
def _client(service: str = "sagemaker") -> Any:
    return aws_client(service)


def _tags(values: Mapping[str, str]) -> list[Any]:
    from sagemaker.core.shapes import Tag

    ours = {"app": "bigger-boat", **{TAG + key: value for key, value in values.items() if value}}
    return [Tag(key=key, value=_NOT_IN_A_TAG.sub("_", value)[:_LONGEST_TAG]) for key, value in ours.items()]


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:6]


def _makings(model: Any) -> list[str]:
    """Return what a model is made of: image, ``model.tar.gz``, role."""
    container = model.primary_container
    return [_text(each) for each in (container.image, container.model_data_url, model.execution_role_arn)]


def _text(value: Any) -> str:
    """Return a text of sagemaker.core, "" for its mark of what was not set."""
    return value if isinstance(value, str) else ""
