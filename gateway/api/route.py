"""What a route is, what it gets and what it gives back.

A `Route` is the one description of an operation: the router, the checks before the handler and the
OpenAPI document are all made of it. A handler gets the `Api` (what the control plane stands on) and
the `Call` (what was asked, checked) and returns an `Answer` or raises a `GatewayError`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel

from gateway.api.quota import Quotas
from gateway.domain.catalog import Catalog
from gateway.domain.clusters import Clusters
from gateway.domain.ports import AccountStore, AccountStores
from gateway.domain.principal import Principal

BodyT = TypeVar("BodyT", bound=BaseModel | None)
QueryT = TypeVar("QueryT", bound=BaseModel | None)

Authenticate = Callable[[bytes | None, float], Principal]
"""From an Authorization value and Unix seconds; raises `gateway.errors.Unauthenticated`."""


class Depths(Protocol):
    """The part of `queueing.interface.FunctionQueue` that the control plane reads."""

    async def depth(self, version_id: str) -> int:
        """Return how many requests wait. Raises `queueing.interface.QueueUnavailable`."""


class InLine(NamedTuple):
    """One request that waits or runs. ``account`` is its caller's; ``position`` 0: it runs."""

    function_id: str
    version_id: str
    account: str
    position: int


class Requests(Protocol):
    """Requests that wait or run, in all gateway processes."""

    async def find(self, request_id: str) -> InLine | None:
        """Return where a request stands, `None` when it is unknown or done.

        Raises `queueing.interface.QueueUnavailable`.
        """


class SecretVault(Protocol):
    """Keeps the values of secrets, encrypted."""

    async def put(
        self, account: str, function_id: str, version_id: str, values: Mapping[str, object]
    ) -> None:
        """Keep ``values`` by name, in place of what was kept for the version."""

    async def delete(self, account: str, function_id: str, version_id: str) -> None:
        """Forget a version's secrets; no error if there are none."""


@dataclass(frozen=True, slots=True)
class Api:
    """What the routes stand on.

    ``deploy_timeout_s`` is how long a deployment may take to come up, ``drain_timeout_s`` how long
    a graceful undeploy waits for what is queued and running. ``clock`` gives Unix seconds,
    ``new_id`` a fresh UUID.
    """

    authenticate: Authenticate
    stores: AccountStores
    catalog: Catalog
    clusters: Clusters
    queue: Depths
    requests: Requests
    secrets: SecretVault
    clock: Callable[[], float]
    new_id: Callable[[], str]
    region: str = "local"
    deploy_timeout_s: float = 600.0
    drain_timeout_s: float = 3600.0
    project_old_sdks: bool = True
    """Whether SDKs of 2024/25 get states in the words they know (`gateway.api.sdk_compat`)."""
    quotas: Quotas = field(default_factory=Quotas)


class Call(Generic[BodyT, QueryT]):
    """One call that has passed authentication, scopes and validation."""

    __slots__ = ("_path", "authorization", "body", "is_old_sdk", "principal", "query")

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
        """``authorization`` is the header as it came, for routes that check it themselves."""
        self.principal = principal
        self.authorization = authorization
        self.query = query
        self.body = body
        self.is_old_sdk = is_old_sdk
        self._path = path

    @property
    def account(self) -> str:
        return self.principal.account

    def part(self, name: str) -> str:
        """Return a variable of the path; ids are canonical."""
        return self._path[name]

    @property
    def function_id(self) -> str:
        return self._path["functionId"]

    @property
    def version_id(self) -> str:
        return self._path["functionVersionId"]

    def own(self, api: Api) -> AccountStore:
        """Return the store as the caller's account sees it."""
        return api.stores.of(self.account)


@dataclass(frozen=True, slots=True)
class Listing:
    """A long list, sent in pieces: a JSON object with one array and, behind it, other members.

    ``pieces`` are some elements at a time; ``tail`` is asked for the other members at the end.
    """

    name: str
    pieces: AsyncIterator[list[BaseModel]]
    tail: Callable[[], Mapping[str, object]]


Answer = BaseModel | Listing | None
"""The body of a successful answer, `None` for 204."""
Handle = Callable[[Api, Call[BodyT, QueryT]], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route(Generic[BodyT, QueryT]):
    """One operation.

    ``scopes``: one of them is needed. None at all means that anybody gets as far as the handler,
    which looks at `Call.authorization` itself. ``is_admin``: for super administrators, by JWT; the
    call acts for the account that the path names as ``ncaId``.
    """

    method: str
    path: str
    handle: Handle[BodyT, QueryT]
    summary: str
    tag: str
    scopes: tuple[str, ...]
    answer: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    status: int = 200
    is_deprecated: bool = False
    is_admin: bool = False

    @property
    def operation_id(self) -> str:
        """The tag and the handler's name: unique, and what generated clients call it."""
        kind = "admin." if self.is_admin else ""
        return f"{kind}{self.tag}.{getattr(self.handle, '__name__', 'operation')}"


AnyRoute = Route[Any, Any]
