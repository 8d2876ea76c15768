"""What moto lacks of an account: IAM's word on what a role may do, by the policies that it has, and quotas."""

import fnmatch
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

QUOTAS = {
    ("ec2", "L-3819A6DF"): ("All G and VT Spot Instance Requests", 8.0),
    ("ec2", "L-1216C47A"): ("Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 16.0),
    ("sagemaker", "L-1"): ("ml.c5.large for endpoint usage", 2.0),
    ("sagemaker", "L-2"): ("ml.m5.large for endpoint usage", 20.0),
}


@dataclass
class Account:
    """``quotas``: name and value by service and code. ``policies``: of roles whose managed ones moto did not attach."""

    quotas: dict[tuple[str, str], tuple[str, float]] = field(default_factory=lambda: dict(QUOTAS))
    policies: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def told(self, service: str, code: str) -> dict[str, Any]:
        name, value = self.quotas[service, code]
        return {"ServiceCode": service, "QuotaCode": code, "QuotaName": name, "Value": value}


@contextmanager
def account() -> Iterator[Account]:
    """Let moto's IAM simulate policies and its Service Quotas know some."""
    from moto.core.responses import ActionResult
    from moto.iam.responses import IamResponse
    from moto.servicequotas.models import ServiceQuotasBackend
    from moto.servicequotas.responses import ServiceQuotasResponse

    here = Account()

    def simulate(self: Any) -> ActionResult:
        arn = self._get_param("PolicySourceArn")
        context = {
            each["ContextKeyName"]: each["ContextKeyValues"][0] for each in self._get_param("ContextEntries") or []
        }
        policies = here.policies.get(arn) or _policies(self.backend, arn)
        results = [
            {
                "EvalActionName": action,
                "EvalResourceName": resource,
                "EvalDecision": "allowed" if _allows(policies, action, resource, context) else "implicitDeny",
            }
            for action in self._get_param("ActionNames")
            for resource in self._get_param("ResourceArns") or ["*"]
        ]
        return ActionResult({"EvaluationResults": results, "IsTruncated": False})

    def quotas(self: Any) -> str:
        service = json.loads(self.body)["ServiceCode"]
        return json.dumps({"Quotas": [here.told(*key) for key in here.quotas if key[0] == service]})

    kept = ServiceQuotasBackend.get_service_quota
    IamResponse.simulate_principal_policy = simulate
    ServiceQuotasResponse.list_service_quotas = quotas
    ServiceQuotasBackend.get_service_quota = lambda _, service_code, quota_code: here.told(service_code, quota_code)
    try:
        yield here
    finally:
        del IamResponse.simulate_principal_policy, ServiceQuotasResponse.list_service_quotas
        ServiceQuotasBackend.get_service_quota = kept


def _policies(backend: Any, arn: str) -> list[dict[str, Any]]:
    """Return the inline policies of a role; an administrator's for whoever is none."""
    role = next((each for each in backend.roles.values() if each.arn == arn), None)
    if role is None:
        return [{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}]
    return [json.loads(each) if isinstance(each, str) else each for each in role.policies.values()]


def _allows(policies: list[dict[str, Any]], action: str, resource: str, context: Mapping[str, str]) -> bool:
    return any(
        statement["Effect"] == "Allow"
        and any(fnmatch.fnmatchcase(action, each) for each in _listed(statement["Action"]))
        and any(fnmatch.fnmatchcase(resource, each) for each in _listed(statement["Resource"]))
        and _holds(statement.get("Condition", {}), context)
        for policy in policies
        for statement in _listed(policy["Statement"])
    )


def _holds(condition: Mapping[str, Any], context: Mapping[str, str]) -> bool:
    assert set(condition) <= {"StringEquals"}, condition
    return all(context.get(key) in _listed(values) for key, values in condition.get("StringEquals", {}).items())


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
