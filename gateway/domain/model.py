"""Stored records and their documents: the one module to import records and keys from.

A record is immutable: it is read from a document and replaced as a whole. This module has the
records that routing and authentication need; `gateway.domain.deployment` and
`gateway.domain.account` have the others, `gateway.domain.keys` the keys.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from sys import intern
from typing import NamedTuple, Self

import orjson

from gateway.domain.account import Account, AccountSecrets, Client, Secrets
from gateway.domain.cors import PagePolicy
from gateway.domain.deployment import (
    Deployment,
    GpuSpec,
    HealthInfo,
    Instance,
    Phase,
    VersionDetails,
)
from gateway.domain.documents import EMPTY, SCHEMA, Document, RecordError, read
from gateway.domain.keys import (
    AccountKey,
    AccountSecretsKey,
    ApiKeyKey,
    ClientKey,
    DeploymentKey,
    DetailsKey,
    FunctionKey,
    InstanceKey,
    RecordKey,
    Removed,
    RenewalsKey,
    SecretsKey,
    VersionKey,
)
from gateway.domain.rate_limit import RateLimitPolicy
from gateway.domain.renewals import Renewals
from wire.ids import FunctionId, VersionId, parse_uuid

__all__ = [
    "BUSY",
    "EMPTY",
    "EVERYTHING",
    "INVOCABLE",
    "SERVING",
    "Account",
    "AccountKey",
    "AccountSecrets",
    "AccountSecretsKey",
    "ApiKey",
    "ApiKeyKey",
    "Change",
    "Client",
    "ClientKey",
    "Deployment",
    "DeploymentKey",
    "DetailsKey",
    "Function",
    "FunctionKey",
    "FunctionVersion",
    "GpuSpec",
    "HealthInfo",
    "Instance",
    "InstanceKey",
    "PagePolicy",
    "Phase",
    "Record",
    "RecordError",
    "RecordKey",
    "Removed",
    "Renewals",
    "RenewalsKey",
    "ResourceScope",
    "Secrets",
    "SecretsKey",
    "VersionDetails",
    "VersionKey",
    "VersionState",
    "decode",
    "encode",
    "resource_scope_of",
    "resources_of",
]


class VersionState(Enum):
    """State of a function version (`docs/wire.md` §13.1)."""

    INACTIVE = "INACTIVE"
    DEPLOYING = "DEPLOYING"
    ACTIVE = "ACTIVE"
    DEGRADING = "DEGRADING"
    DEGRADED = "DEGRADED"
    ERROR = "ERROR"


BUSY = frozenset(
    {VersionState.DEPLOYING, VersionState.ACTIVE, VersionState.DEGRADING, VersionState.DEGRADED}
)
"""States of a deployed version except ERROR (`docs/wire.md` §13.1)."""

INVOCABLE = BUSY
"""States in which invocations are accepted (`docs/wire.md` §2.2). Where no instance runs, some are
on their way or are started by the call; the request waits for them in the queue."""

SERVING = frozenset({VersionState.ACTIVE, VersionState.DEGRADING})
"""States of a version that is preferred to others, because it can serve now or as soon as called.
"""


@dataclass(frozen=True, slots=True)
class Function:
    """The record that all versions of one function share.

    ``shared_with`` are the parties (`gateway.domain.parties`) that may use every version; if
    ``is_public``, all accounts may.
    """

    function_id: FunctionId
    account: str
    shared_with: frozenset[str] = EMPTY
    is_public: bool = False

    @property
    def key(self) -> FunctionKey:
        return FunctionKey(self.function_id)

    def document(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "kind": "function",
            "function_id": self.function_id,
            "account": self.account,
            "shared_with": sorted(self.shared_with),
            "is_public": self.is_public,
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        return cls(
            function_id=FunctionId(document.uuid("function_id")),
            account=intern(document.text("account")),
            shared_with=document.texts("shared_with"),
            is_public=document.flag("is_public"),
        )


@dataclass(frozen=True, slots=True)
class FunctionVersion:
    """One immutable build of a function, with its state.

    ``account`` is the owner's NCA id. ``inference_path`` and ``inference_port`` are the address of
    the function in an instance. ``shared_with`` and ``is_public`` add to those of the `Function`.
    ``created_at``, as in `VersionDetails`, orders the versions of an account. ``capacity`` is the
    number of requests that its running instances serve at a time. ``max_body_bytes`` is the maximum
    size of a request body, 0 for none. ``allows_rerun``: a request whose method is not idempotent
    may be run again if its inference server broke off before responding. ``passes_interim``:
    clients get the container's interim responses (1xx). ``page_policy``: which web pages may read
    responses; `None` leaves that to the container. ``rate_limit`` is how often it may be invoked,
    `None` for any number of times.
    """

    function_id: FunctionId
    version_id: VersionId
    account: str
    name: str
    state: VersionState
    inference_path: str = "/"
    inference_port: int = 8000
    shared_with: frozenset[str] = EMPTY
    is_public: bool = False
    created_at: str = ""
    capacity: int = 0
    max_body_bytes: int = 0
    allows_rerun: bool = True
    passes_interim: bool = False
    page_policy: PagePolicy | None = None
    rate_limit: RateLimitPolicy | None = None

    @property
    def key(self) -> VersionKey:
        return VersionKey(self.function_id, self.version_id)

    def document(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "kind": "version",
            "function_id": self.function_id,
            "version_id": self.version_id,
            "account": self.account,
            "name": self.name,
            "state": self.state.value,
            "inference_path": self.inference_path,
            "inference_port": self.inference_port,
            "capacity": self.capacity,
            "max_body_bytes": self.max_body_bytes,
            "allows_rerun": self.allows_rerun,
            "passes_interim": self.passes_interim,
            "rate_limit": None if self.rate_limit is None else self.rate_limit.document(),
            "cors": self.page_policy.document() if self.page_policy is not None else None,
            "shared_with": sorted(self.shared_with),
            "is_public": self.is_public,
            "created_at": self.created_at,
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        state = document.text("state")
        if state not in VersionState.__members__:
            raise RecordError(f"state {state!r} is not known")
        return cls(
            function_id=FunctionId(document.uuid("function_id")),
            version_id=VersionId(document.uuid("version_id")),
            account=intern(document.text("account")),
            name=document.text("name"),
            state=VersionState[state],
            inference_path=intern(document.text("inference_path")),
            inference_port=document.number("inference_port"),
            capacity=document.number_or_none("capacity") or 0,
            max_body_bytes=document.number_or_none("max_body_bytes") or 0,
            allows_rerun=document.flag("allows_rerun") if document.has("allows_rerun") else True,
            passes_interim=document.has("passes_interim") and document.flag("passes_interim"),
            rate_limit=(
                RateLimitPolicy.read(Document(document.mapping("rate_limit")))
                if document.has("rate_limit")
                else None
            ),
            page_policy=(PagePolicy.read(document.part("cors")) if document.has("cors") else None),
            shared_with=document.texts("shared_with"),
            is_public=document.flag("is_public"),
            created_at=document.text("created_at"),
        )


class ResourceScope(NamedTuple):
    """The functions that a credential is valid for (`docs/wire.md` §15.2).

    ``own``: every function of its account; ``shared``: every function shared with that account.
    ``functions`` are ids of functions, with all their versions; ``versions`` are single versions,
    as ``functionId/versionId``, which do not permit calls that name only the function.
    """

    own: bool = False
    shared: bool = False
    functions: frozenset[str] = EMPTY
    versions: frozenset[str] = EMPTY


EVERYTHING = ResourceScope(own=True, shared=True)
"""Every function that the account sees."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The record of an API key. It contains the SHA-256 of the key, never the key itself.

    ``subject`` is the subject of the key's calls, as sent to the worker. ``created_at`` and
    ``expires_at`` are Unix seconds; a key without ``expires_at`` does not expire.
    """

    key_id: str
    digest: bytes
    account: str
    subject: str
    scopes: frozenset[str]
    reach: ResourceScope = EVERYTHING
    created_at: int = 0
    expires_at: int | None = None
    is_revoked: bool = False
    description: str = ""

    @property
    def key(self) -> ApiKeyKey:
        return ApiKeyKey(self.key_id)

    def document(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "kind": "key",
            "key_id": self.key_id,
            "digest": self.digest.hex(),
            "account": self.account,
            "subject": self.subject,
            "scopes": sorted(self.scopes),
            "resources": resources_of(self.reach),
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "is_revoked": self.is_revoked,
            "description": self.description,
        }

    @classmethod
    def read(cls, document: Document) -> Self:
        try:
            digest = bytes.fromhex(document.text("digest"))
        except ValueError as error:
            raise RecordError("digest is not hexadecimal") from error
        if len(digest) != 32:
            raise RecordError("digest is not a SHA-256")
        return cls(
            key_id=document.text("key_id"),
            digest=digest,
            account=intern(document.text("account")),
            subject=document.text("subject"),
            scopes=document.texts("scopes"),
            reach=resource_scope_of(document.objects("resources")),
            created_at=document.number("created_at"),
            expires_at=document.number_or_none("expires_at"),
            is_revoked=document.flag("is_revoked"),
            description=document.text("description"),
        )


Record = (
    Function
    | FunctionVersion
    | ApiKey
    | VersionDetails
    | Deployment
    | Instance
    | Renewals
    | Account
    | Client
    | Secrets
    | AccountSecrets
)


Change = Record | Removed
"""A record that was written, or the key of one that is gone."""


def encode(record: Record) -> bytes:
    """Return the document of ``record``."""
    return orjson.dumps(record.document())


def decode(data: bytes) -> Record:
    """Read a document. Raises `RecordError`, which names the member that is wrong."""
    document = read(data)
    kind = document.text("kind")
    record = _KINDS.get(kind)
    if record is None:
        raise RecordError(f"kind {kind!r} is not known")
    return record.read(document)


_KINDS: Mapping[str, type[Record]] = {
    "function": Function,
    "version": FunctionVersion,
    "key": ApiKey,
    "details": VersionDetails,
    "deployment": Deployment,
    "instance": Instance,
    "renewals": Renewals,
    "account": Account,
    "client": Client,
    "secrets": Secrets,
    "account-secrets": AccountSecrets,
}


def resources_of(reach: ResourceScope) -> list[dict[str, str]]:
    """Return ``reach`` as NVCF writes it, a list of ``{type, id}``."""
    resources = []
    if reach.own:
        resources.append({"type": "account-functions", "id": "*"})
    if reach.shared:
        resources.append({"type": "authorized-functions", "id": "*"})
    resources += [{"type": "function", "id": f"{id_}/*"} for id_ in sorted(reach.functions)]
    resources += [{"type": "function", "id": id_} for id_ in sorted(reach.versions)]
    return resources


def resource_scope_of(resources: Iterable[Mapping[str, object]]) -> ResourceScope:
    """Read NVCF's list; a malformed element grants nothing (`docs/wire.md` §15.2)."""
    own = shared = False
    functions, versions = set(), set()
    for resource in resources:
        kind, id_ = resource.get("type"), str(resource.get("id"))
        if kind == "account-functions":
            own = own or id_ == "*"
        elif kind == "authorized-functions":
            shared = shared or id_ == "*"
        elif kind == "function":
            function, _, version = id_.partition("/")
            function_id, version_id = parse_uuid(function.encode()), parse_uuid(version.encode())
            if function_id is not None and version == "*":
                functions.add(function_id)
            elif function_id is not None and version_id is not None:
                versions.add(f"{function_id}/{version_id}")
    return ResourceScope(own, shared, frozenset(functions), frozenset(versions))
