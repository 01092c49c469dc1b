"""Admission over a read model with one caller and the function versions of a test."""

from gateway.auth.keys import digest_of, new_key
from gateway.domain.model import (
    EVERYTHING,
    ApiKey,
    Function,
    FunctionVersion,
    ResourceScope,
    VersionState,
)
from gateway.domain.readmodel import ReadModel
from gateway.routing.admission import Admission
from gateway.routing.call_head import CallHead
from gateway.routing.router import Router
from tests.support.api_keys import key_authenticator
from wire.ids import FunctionId, VersionId

F = FunctionId("6f9619ff-8b86-4011-b42d-00c04fc964ff")
SECRET = new_key(bytes(32))


def version(name: str, state: VersionState, account: str = "own", *shared: str) -> FunctionVersion:
    return FunctionVersion(
        F, VersionId(name), account, "name", state, shared_with=frozenset(shared)
    )


def admitting(
    *records: Function | FunctionVersion,
    reach: ResourceScope = EVERYTHING,
    scope: str = "invoke_function",
    random: float = 0.0,
) -> Admission:
    model = ReadModel()
    for record in records:
        model.apply(record)
    model.apply(ApiKey("id", digest_of(SECRET.encode()), "own", "sub", frozenset({scope}), reach))
    return Admission(key_authenticator(model).authenticate, Router(model, lambda: random))


def head(version_id: str | None = None, poll: bytes | None = None) -> CallHead:
    return CallHead(F, version_id, f"Bearer {SECRET}".encode(), poll)
