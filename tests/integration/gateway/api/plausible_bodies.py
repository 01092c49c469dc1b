"""Adjusts generated request bodies to the rules that a JSON schema cannot express.

A schema describes the form of each member. It cannot say how members depend on each other
(``minInstances`` is at most ``maxInstances``), which values must differ (the names of models) and
which must exist (a GPU, an account). Nothing else in a generated body is changed, and the result
still matches the schema, which schemathesis checks again. A member that is null counts as absent,
except the rate limit of a version's metadata.
"""

import itertools
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from tests.support.control import SPEC

Body = dict[str, Any]
FRIENDS = ("friend-0", "friend-1", "friend-2")
"""Accounts that must exist, besides the caller's own."""
WORKER = {
    "functionId": "6f9619ff-8b86-4011-b42d-00c04fc964ff",
    "functionVersionId": "11111111-2222-4333-8444-555555555555",
    "instanceId": "instance-1",
}
"""Instance whose worker the caller is, for the worker routes."""
LOGIN = "dXNlcjpwYXNzd29yZA=="
"""``user:password`` of a registry."""
_DAY_S = 86_400
_numbers = itertools.count()
_LLM_URIS = ["llm:1"]


def repaired(model: str, body: Any) -> Any:
    """Return a body of the schema ``model``, adjusted so that the API accepts it."""
    if not isinstance(body, dict):
        return body
    body = _within_64_bits(body)
    if model in _REPAIRS:
        _REPAIRS[model](body)
    return body


def llm_function(model_names: Iterable[str]) -> Body:
    """Return the body that registers an LLM function with these models."""
    names = [*dict.fromkeys(model_names)] or ["one"]
    return {
        "name": "llm",
        "inferenceUrl": "/",
        "containerImage": "llm:1",
        "functionType": "LLM",
        "models": [{"name": name, "llmConfig": {"uris": _LLM_URIS}} for name in names],
    }


def _function(body: Body) -> None:
    _drop(body, "telemetries")  # Those that it names are not there.
    if _has(body, "helmChart"):
        _drop(body, "containerImage", "containerArgs", "containerEnvironment")
        _give(body, "helmChartServiceName", "service")
    else:
        _drop(body, "helmChart", "helmChartServiceName")
        _give(body, "containerImage", "image:1")
    _drop(body, "resources")  # Not supported.
    if _has(body, "containerEnvironment"):
        body["containerEnvironment"] = _unique(body["containerEnvironment"], "key")
    if _has(body, "health") and not any(one in body["health"]["timeout"] for one in "123456789"):
        body["health"]["timeout"] = "PT1S"
    _secrets(body)
    _rate_limit(body.get("rateLimit"))
    _cors(body.get("cors"))
    if body.get("functionType") == "LLM":
        body["models"] = body.get("models") or [{"name": "one"}]
        _llm_priority(body)
        _models(body)
    else:
        _drop(body, "llmInvocationConfig", "models")


def _cors(settings: Body | None) -> None:
    if settings is not None and "*" in settings["origins"]:
        settings["credentials"] = False


def _models(body: Body) -> None:
    if _has(body, "models"):
        body["models"] = _unique(body["models"], "name")
    for model in body.get("models") or ():
        _drop(model, "uri")  # Not supported.
        _give(model, "llmConfig", {})
        model["llmConfig"]["uris"] = model["llmConfig"].get("uris") or _LLM_URIS
        _llm_config(model["llmConfig"])


def _metadata(body: Body) -> None:
    _rate_limit(body.get("rateLimit"))
    _llm_priority(body)
    _cors(body.get("cors"))
    if body.get("modelUpdates"):
        body["modelUpdates"] = _unique(body["modelUpdates"], "modelName")
    for update in body.get("modelUpdates") or ():
        _llm_config(update["llmConfig"])
    others = ("tags", "description", "modelUpdates", "llmInvocationConfig", "cors")
    if "rateLimit" not in body and not _has(body, *others):
        body["tags"] = ["one"]


def _only_rate_limit(body: Body) -> None:
    _rate_limit(body["rateLimit"])


def _rate_limit(limit: Body | None) -> None:
    if limit is None:
        return
    for name in ("rateLimit", "perUserRate"):
        if _has(limit, name):
            limit[name] = _each_unit_once(limit[name])
    of_accounts = limit.get("perNcaIdRate") or {}
    for account, rate in of_accounts.items():
        of_accounts[account] = _each_unit_once(rate)
    exempted = [one for one in limit.get("exemptedNcaIds") or () if one not in of_accounts]
    limit["exemptedNcaIds"] = exempted
    if exempted or not (of_accounts or _has(limit, "perUserRate")):
        _give(limit, "rateLimit", "1-S")


def _llm_config(config: Body) -> None:
    _drop(config, "tokenRateLimit", "routingMethod")  # Not supported.


def _each_unit_once(rate: str) -> str:
    return ",".join({part.strip()[-1]: part.strip() for part in rate.split(",")}.values())


def _llm_priority(body: Body) -> None:
    if _has(body, "llmInvocationConfig"):
        priority = body["llmInvocationConfig"]["priority"]
        if priority.get("perAccountPriority"):
            _give(priority, "defaultPriority", 1)
            # Different priorities are not supported.
            same = priority["defaultPriority"]
            priority["perAccountPriority"] = dict.fromkeys(priority["perAccountPriority"], same)


def _secrets(body: Body) -> None:
    if _has(body, "secrets"):
        body["secrets"] = _unique(body["secrets"], "name")


def _deploy(body: Body) -> None:
    for spec in body["deploymentSpecifications"]:
        _bounds(spec)
        _drop(spec, "configuration", "helmValidationPolicy")  # The function is no Helm chart.
        _drop(spec, "autoscalingConfiguration", "availabilityZones", "attributes", "regions")
        _drop(spec, "preferredOrder")  # Not supported, as those.
        spec["gpu"] = SPEC["gpu"]
        if spec.get("instanceType"):
            spec["instanceType"] = "large"
        if spec.get("backend"):
            spec["backend"] = SPEC["backend"]
            _drop(spec, "clusters")
        elif spec.get("clusters"):
            spec["clusters"] = [SPEC["backend"]]


def _update_deployment(body: Body) -> None:
    # What is deployed has one specification, and only its numbers can change.
    body["deploymentSpecifications"] = body["deploymentSpecifications"][:1]
    for spec in body["deploymentSpecifications"]:
        _bounds(spec)
        _drop(spec, "gpuSpecificationId", "gpu", "backend", "clusters", "instanceType")


def _patch_spec(body: Body) -> None:
    _drop(body, "autoscalingConfiguration")  # Not supported.
    if body.get("autoscalingConfigurationPolicy") != "PLATFORM_CONFIGURATION" and not _has(
        body, "minInstances", "maxInstances"
    ):
        body["maxInstances"] = 3
    if _has(body, "minInstances", "maxInstances"):
        _give(body, "minInstances", SPEC["minInstances"])
        _give(body, "maxInstances", SPEC["maxInstances"])
        _bounds(body)


def _bounds(spec: Body) -> None:
    low, high = sorted((spec["minInstances"], spec["maxInstances"]))
    spec["minInstances"], spec["maxInstances"] = low, high


def _authorize(body: Body) -> None:
    named = zip(body["authorizedParties"], FRIENDS, strict=False)
    body["authorizedParties"] = [{"ncaId": account} for _, account in named]


def _authorize_one(body: Body) -> None:
    body["authorizedParty"] = {"ncaId": FRIENDS[0]}


def _create_key(body: Body) -> None:
    if _has(body, "expires_at"):
        body["expires_at"] = datetime.fromtimestamp(time.time() + _DAY_S, UTC).isoformat()
    _authorizations(body["authorizations"])


def _authorizations(body: Body) -> None:
    # One policy for this service, of scopes that there are and that the caller has.
    body["policies"] = body["policies"][:1]
    for policy in body["policies"]:
        if policy.get("scopes"):
            policy["scopes"] = ["invoke_function"]
        if policy.get("resources"):
            policy["resources"] = [{"type": "account-functions", "id": "*"}]


def _account(body: Body) -> None:
    # Calls after this one may register functions there.
    if _has(body, "maxFunctionsAllowed"):
        body["maxFunctionsAllowed"] = max(body["maxFunctionsAllowed"], 1000)


def _telemetry(body: Body) -> None:
    body["provider"] = "OTEL_COLLECTOR"
    body["endpoint"] = "otel.example:4317" if body["protocol"] == "GRPC" else "http://otel.example"
    _telemetry_secret(body)
    # Unique in the account.
    body["secret"]["name"] = f"telemetry-{next(_numbers)}"


def _telemetry_secret(body: Body) -> None:
    body["secret"]["value"] = "token"


def _registry_credential(body: Body) -> None:
    body["artifactTypes"] = ["CONTAINER"]
    body["secret"]["value"] = LOGIN


def _update_registry_credential(body: Body) -> None:
    if _has(body, "artifactTypeEnums"):
        body["artifactTypeEnums"] = ["CONTAINER"]
    else:
        _give(body, "secret", {"name": "one"})
    if _has(body, "secret"):
        body["secret"]["value"] = LOGIN


def _connect(body: Body) -> None:
    body.update(WORKER)


def _heartbeat(body: Body) -> None:
    body["instanceId"] = WORKER["instanceId"]


def _within_64_bits(value: Any) -> Any:
    """Return a copy whose integers fit into 64 bits, which any JSON parser reads (RFC 8259 §6)."""
    match value:
        case dict():
            return {name: _within_64_bits(one) for name, one in value.items()}
        case list():
            return [_within_64_bits(one) for one in value]
        case int() if not -(2**63) <= value < 2**64:
            return value % 2**63
        case _:
            return value


def _has(body: Body, *names: str) -> bool:
    return any(body.get(name) is not None for name in names)


def _give(body: Body, name: str, value: object) -> None:
    if body.get(name) is None:
        body[name] = value


def _drop(body: Body, *names: str) -> None:
    for name in names:
        body.pop(name, None)


def _unique(items: list[Body], name: str) -> list[Body]:
    return list({item[name]: item for item in items}.values())


_REPAIRS: dict[str, Callable[[Body], None]] = {
    "CreateFunction": _function,
    "UpdateMetadata": _metadata,
    "UpdateRateLimit": _only_rate_limit,
    "UpdateSecrets": _secrets,
    "Deploy": _deploy,
    "UpdateDeployment": _update_deployment,
    "PatchSpec": _patch_spec,
    "Authorize": _authorize,
    "AuthorizeOne": _authorize_one,
    "CreateKey": _create_key,
    "ReplaceAuthorizations": _authorizations,
    "CreateAccount": _account,
    "UpdateAccount": _account,
    "CreateTelemetry": _telemetry,
    "UpdateTelemetrySecret": _telemetry_secret,
    "AddRegistryCredential": _registry_credential,
    "UpdateRegistryCredential": _update_registry_credential,
    "ConnectBody": _connect,
    "HeartbeatBody": _heartbeat,
}
