"""What a route is, what its handler gets, and what it returns.

A `Route` is the only description of an operation: the router, the checks before the handler and the
OpenAPI document are made from it. A handler gets the `Api` (everything that routes depend on) and
the `Call` (the validated request). It returns a `Result` or raises a `gateway.errors.GatewayError`.
A new `Route` is registered in the ``ROUTES`` of its module in `gateway.api.routes`, a new module's
``ROUTES`` in those of `gateway.api.app`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from gateway.api.identity import Identity
from gateway.api.limits import HeldBodies
from gateway.api.quota import Quotas
from gateway.api.secrets.sealed_list import RegistryCredentials, TelemetryEndpoints
from gateway.auth.registration import Registrations
from gateway.domain.catalog import Catalog
from gateway.domain.clusters import Clusters
from gateway.domain.ports import AccountStore, AccountStores
from gateway.domain.principal import Principal
from gateway.domain.queued_request import QueuedRequest
from gateway.objects.assets import Assets
from gateway.webhooks.secrets import WebhookSecrets

BodyT = TypeVar("BodyT", bound=BaseModel | None)
QueryT = TypeVar("QueryT", bound=BaseModel | None)

Authenticate = Callable[[bytes | None, float], Principal]
"""Takes an Authorization value and Unix seconds; raises `gateway.errors.Unauthenticated`."""


class QueueDepths(Protocol):
    """The part of `queueing.interface.FunctionQueue` that the routes need."""

    async def depth(self, version_id: str) -> int:
        """Return the number of waiting requests. Raises `queueing.interface.QueueUnavailable`."""


class RequestLocator(Protocol):
    """Finds requests that wait or are in progress, in all gateway processes."""

    async def find(self, request_id: str) -> QueuedRequest | None:
        """Return a request, `None` if it is unknown or finished.

        Raises `queueing.interface.QueueUnavailable`.
        """


class SecretStore(Protocol):
    """The secrets of function versions, stored encrypted."""

    async def put(
        self, account: str, function_id: str, version_id: str, values: Mapping[str, object]
    ) -> None:
        """Store ``values`` by name, in place of all secrets of the version."""

    async def update(
        self, account: str, function_id: str, version_id: str, values: Mapping[str, object]
    ) -> None:
        """Store ``values`` by name; secrets with other names stay."""

    async def delete(self, account: str, function_id: str, version_id: str) -> None:
        """Delete the secrets of a version, if it has any."""


@dataclass(frozen=True, slots=True)
class Api:
    """What the routes depend on.

    ``deploy_timeout_s`` is how long a deployment may take to become complete, ``drain_timeout_s``
    how long a graceful undeploy waits for queued and running requests. ``clock`` returns Unix
    seconds, ``new_id`` a new UUID.
    """

    authenticate: Authenticate
    identity: Identity
    stores: AccountStores
    catalog: Catalog
    clusters: Clusters
    queue: QueueDepths
    requests: RequestLocator
    secrets: SecretStore
    assets: Assets
    telemetry_endpoints: TelemetryEndpoints
    registry_credentials: RegistryCredentials
    webhook_secrets: WebhookSecrets
    registrations: Registrations
    clock: Callable[[], float]
    new_id: Callable[[], str]
    region: str = "local"
    other_regions: tuple[str, ...] = ()
    deploy_timeout_s: float = 600.0
    drain_timeout_s: float = 3600.0
    project_old_sdks: bool = True
    """Whether SDKs of 2024/25 get states that they know (`gateway.api.sdk_compat`)."""
    objects_url: str = ""
    """Where clients reach signed URLs of the gateway; empty: as they call the API."""
    quotas: Quotas = field(default_factory=Quotas)
    bodies: HeldBodies = field(default_factory=HeldBodies)


class Call(Generic[BodyT, QueryT]):
    """One call that has passed authentication, scopes and validation."""

    __slots__ = (
        "_path",
        "authorization",
        "base_url",
        "body",
        "is_old_sdk",
        "key_issuer",
        "principal",
        "query",
    )

    def __init__(
        self,
        principal: Principal,
        path: Mapping[str, str],
        query: QueryT,
        body: BodyT,
        *,
        authorization: bytes | None = None,
        is_old_sdk: bool = False,
    ) -> None:
        """``authorization`` is the header as received, for routes that check it themselves."""
        self.principal = principal
        self.authorization = authorization
        self.query = query
        self.body = body
        self.is_old_sdk = is_old_sdk
        self.key_issuer = ""
        """The header ``Key-Issuer-Id``, for the routes of keys."""
        self.base_url = ""
        """Scheme and authority at which the caller reaches the gateway."""
        self._path = path

    @property
    def account(self) -> str:
        return self.principal.account

    def variable(self, name: str) -> str:
        """Return a variable of the path; UUIDs are in canonical form."""
        return self._path[name]

    @property
    def function_id(self) -> str:
        return self._path["functionId"]

    @property
    def version_id(self) -> str:
        return self._path["functionVersionId"]

    def store(self, api: Api) -> AccountStore:
        """Return the store as the caller's account sees it."""
        return api.stores.of(self.account)


@dataclass(frozen=True, slots=True)
class Listing:
    """A long list that is streamed: a JSON object with one array, then other members.

    ``batches`` yields some elements at a time; ``tail`` is called at the end for the other members.
    """

    name: str
    batches: AsyncIterator[list[BaseModel]]
    tail: Callable[[], Mapping[str, object]]


Element = TypeVar("Element")
BATCH = 100
"""Elements of a list that are serialised before other tasks may run."""


async def batches_of(
    elements: Sequence[Element], view: Callable[[Element], BaseModel], size: int = BATCH
) -> AsyncIterator[list[BaseModel]]:
    """Yield the views of ``elements``, ``size`` at a time, for a `Listing`."""
    for begin in range(0, len(elements), size):
        yield [view(element) for element in elements[begin : begin + size]]
        await asyncio.sleep(0)


Result = BaseModel | Listing | None
"""The body of a successful response, `None` for 204."""
Handle = Callable[[Api, Call[BodyT, QueryT]], Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class Route(Generic[BodyT, QueryT]):
    """One operation.

    The credential needs one of ``scopes``. A route without scopes is open to everyone up to its
    handler, which checks `Call.authorization` itself. ``is_admin``: for super administrators, with
    a JWT; the call acts for the account that the path names as ``ncaId``. ``is_body_optional``: a
    call without a body has the defaults of ``body``. ``changes``: it changes something, or makes a
    credential, and is written to the audit log. ``without_credential``: what a caller who sends no
    credential is told.
    """

    method: str
    path: str
    handle: Handle[BodyT, QueryT]
    summary: str
    tag: str
    scopes: tuple[str, ...]
    response: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    status: int = 200
    is_deprecated: bool = False
    is_admin: bool = False
    is_body_optional: bool = False
    changes: bool = True
    without_credential: str = ""

    @property
    def is_change(self) -> bool:
        return self.changes and self.method != "GET"

    @property
    def operation_id(self) -> str:
        """Tag and name of the handler: unique, and the method name in generated clients."""
        kind = "admin." if self.is_admin else ""
        return f"{kind}{self.tag}.{getattr(self.handle, '__name__', 'operation')}"


AnyRoute = Route[Any, Any]
