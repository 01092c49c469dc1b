"""The audit lines: who changed what through the REST API, and what became of it.

One line per call that changes something and has a valid credential; calls that were refused or
failed too, of which a bounded number is written per second. A line has ids and words of this
program only: no body, no header, no key, no token, no secret. It is written at every log level.
"""

import logging
import re
import time
from collections.abc import Mapping

from pydantic import BaseModel

from gateway.api.route import AnyRoute
from gateway.domain.principal import Principal
from runtime.events import emit
from runtime.line_budget import LineBudget

EVENT = "api.change"
LEFT_OUT = "api.change_more"
MAX_REFUSED = 20
"""Lines of refused calls per second and reason."""
_FIRST_ERROR = 400
_FIRST_FAULT = 500
_IDS = {
    "functionId": "function_id",
    "functionVersionId": "function_version_id",
    "deploymentId": "deployment_id",
    "gpuSpecificationId": "gpu_specification_id",
    "keyId": "key_id",
    "tokenId": "token_id",
    "ncaId": "nca_id",
    "clientId": "client_id",
    "telemetryId": "telemetry_id",
    "registryCredentialId": "registry_credential_id",
}
"""Fields by the names of ids in paths and documents."""
_OBJECTS = {
    "function": {"id": "functionId", "versionId": "functionVersionId"},
    "deployment": {},
    "account": {},
    "gpuSpecification": {"gpuSpecificationId": "gpuSpecificationId"},
    "telemetry": {},
    "registryCredential": {},
}
"""Members of a response with an object whose ids are told; and which other names these have."""
_is_id = re.compile(r"(?!nvapi-|nvboot-|eyJ)[A-Za-z0-9._:@-]{1,128}").fullmatch
"""Ids, but nothing that begins as a credential does."""

_log = logging.getLogger("gateway.audit")
_log.setLevel(logging.INFO)


class Change:
    """A call that changes something; ``principal`` makes it. Call `end` once."""

    __slots__ = ("_account", "_objects", "_principal", "_route")

    def __init__(self, route: AnyRoute, principal: Principal) -> None:
        self._route = route
        self._principal = principal
        self._account = principal.account
        self._objects: dict[str, str] = {}

    def concerns(self, path: Mapping[str, str], body: BaseModel | None, account: str) -> None:
        """Take the ids in ``path`` and ``body``; ``account`` is whose objects it changes."""
        self._account = account
        self._add(path)
        self._add({"clientId": getattr(body, "client_id", "")})

    def made(self, result: BaseModel | None) -> None:
        """Take the ids in the response of a call that has succeeded."""
        if result is None:
            return
        document = result.model_dump(mode="json", by_alias=True)
        for name, names in _OBJECTS.items():
            found = document.get(name)
            if isinstance(found, dict):
                self._add(found)
                self._add({names[key]: found[key] for key in names if key in found})
        self._add({"tokenId": document.get("tokenId")})
        if "id" in document and "nca_id" in document:
            self._add({"keyId": document["id"]})

    def end(self, status: int, reason: str, request_id: str, budget: LineBudget) -> None:
        """Write the line; ``reason`` is the word of an error."""
        for key, count in budget.begin(int(time.time())):
            emit(_log, LEFT_OUT, reason=key, count=count)
        if _FIRST_ERROR <= status < _FIRST_FAULT and not budget.takes(reason):
            return
        principal = self._principal
        emit(
            _log,
            EVENT,
            operation=self._route.operation_id,
            outcome=_outcome(status),
            status=status,
            reason=reason,
            account=self._account,
            by_account=principal.account,
            by=principal.subject,
            by_kind=principal.kind,
            by_key_id=principal.key_id,
            request_id=request_id,
            **self._objects,
        )

    def _add(self, ids: Mapping[str, object]) -> None:
        for name, field in _IDS.items():
            value = ids.get(name)
            if isinstance(value, str) and value:
                self._objects[field] = value if _is_id(value) else "invalid"


def _outcome(status: int) -> str:
    if status < _FIRST_ERROR:
        return "done"
    return "refused" if status < _FIRST_FAULT else "failed"
