"""Lists of functions, versions and deployments, in a stable order and in pages.

Source: `docs/wire.md` §10.2.

A list without ``limit`` is complete, as NVCF's are: it is serialised and streamed in batches,
so that one caller cannot monopolise the event loop or the memory.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping

from pydantic import BaseModel

from gateway.api.access import LIST, find_visible_versions
from gateway.api.paging import decode_cursor, encode_cursor
from gateway.api.route import BATCH, AnyRoute, Api, Call, Listing, Route, batches_of
from gateway.api.schemas.deployments import DeploymentsResponse
from gateway.api.schemas.function_views import FunctionIdsResponse, FunctionsResponse, FunctionView
from gateway.api.schemas.functions import IdsQuery, ListQuery, VersionsQuery
from gateway.api.serializers import deployment_view, function_view
from gateway.domain.catalog import Cursor, Visibility
from gateway.domain.model import FunctionVersion, VersionState
from gateway.domain.principal import Principal
from gateway.domain.readmodel import FunctionEntry

_IDS_BATCH = 2000


async def list_functions(api: Api, call: Call[None, ListQuery]) -> Listing:
    """List versions: public, own, then shared ones, each oldest first."""
    query = call.query
    begin = decode_cursor(query.cursor) if query.cursor else None
    walk = _Walk(api, call, _read_visibilities(query), begin, query.limit)
    return Listing("functions", walk.batches(), walk.tail)


async def list_ids(api: Api, call: Call[None, IdsQuery]) -> FunctionIdsResponse:
    """List the ids of functions without duplicates."""
    found: dict[str, None] = {}
    for visibility in _read_visibilities(call.query):
        after = None
        while versions := api.catalog.versions(call.account, visibility, after, _IDS_BATCH):
            after = _cursor(versions[-1][1])
            for entry, version in versions:
                if _may_list(call.principal, entry, version):
                    found[version.function_id] = None
            await asyncio.sleep(0)
    return FunctionIdsResponse(function_ids=list(found))


async def list_deployments(api: Api, call: Call[None, None]) -> Listing:
    """List the deployments of an account, except those that drain."""
    return Listing("deployments", _deployment_views(api, call.account), dict)


async def list_versions(api: Api, call: Call[None, VersionsQuery]) -> Listing:
    """List the versions of a function, oldest first."""
    versions = find_visible_versions(api, call)
    query = call.query
    if query.cursor:
        _, after = decode_cursor(query.cursor)
        versions = [version for version in versions if _cursor(version) > after]
    page = versions[: query.limit]
    tail = {}
    if query.limit is not None and len(versions) > query.limit:
        tail["cursor"] = encode_cursor(Visibility.PRIVATE, _cursor(page[-1]))
    views = batches_of(page, lambda version: _view(api, call.account, version))
    return Listing("functions", views, lambda: tail)


class _Walk:
    """Iterates over the lists that a caller sees, one batch at a time.

    The catalog may change between batches: versions after the last one are still yielded in order,
    and no version is yielded twice.
    """

    def __init__(
        self,
        api: Api,
        call: Call[None, ListQuery],
        requested: list[Visibility],
        begin: tuple[Visibility, Cursor] | None,
        limit: int | None,
    ) -> None:
        self._api = api
        self._principal = call.principal
        self._requested = requested
        self._begin = begin
        self._left = limit
        self._last: tuple[Visibility, Cursor] | None = None
        self._has_more = False

    async def batches(self) -> AsyncIterator[list[BaseModel]]:
        """Yield the views of versions, up to the limit."""
        order = list(Visibility)
        for visibility in self._requested:
            after = None
            if self._begin is not None:
                if order.index(visibility) < order.index(self._begin[0]):
                    continue
                after = self._begin[1] if visibility is self._begin[0] else None
            async for batch in self._list(visibility, after):
                yield batch
                if self._has_more:
                    return

    def tail(self) -> Mapping[str, object]:
        """Return the cursor, if there are more versions."""
        if not self._has_more or self._last is None:
            return {}
        return {"cursor": encode_cursor(*self._last)}

    async def _list(
        self, visibility: Visibility, after: Cursor | None
    ) -> AsyncIterator[list[BaseModel]]:
        account = self._principal.account
        while found := self._api.catalog.versions(account, visibility, after, BATCH):
            after = _cursor(found[-1][1])
            batch: list[BaseModel] = []
            for version in self._select(visibility, found):
                if self._left == 0:
                    self._has_more = True
                    break
                if self._left is not None:
                    self._left -= 1
                self._last = visibility, _cursor(version)
                batch.append(_view(self._api, account, version))
            yield batch
            if self._has_more:
                return
            await asyncio.sleep(0)

    def _select(
        self, visibility: Visibility, found: Iterable[tuple[FunctionEntry, FunctionVersion]]
    ) -> Iterable[FunctionVersion]:
        """Leave out versions that the credential hides or that an earlier list contained."""
        earlier = self._requested[: self._requested.index(visibility)]
        for entry, version in found:
            if not _may_list(self._principal, entry, version):
                continue
            is_own = version.account == self._principal.account
            is_open = self._api.catalog.is_public(version.version_id)
            if Visibility.PUBLIC in earlier and is_open:
                continue
            if Visibility.PRIVATE in earlier and is_own:
                continue
            yield version


async def _deployment_views(api: Api, account: str) -> AsyncIterator[list[BaseModel]]:
    after = None
    while found := api.catalog.versions(account, Visibility.PRIVATE, after, BATCH):
        after = _cursor(found[-1][1])
        batch: list[BaseModel] = []
        for _, version in found:
            deployment = api.catalog.deployment(version.version_id)
            if deployment is not None and version.state is not VersionState.INACTIVE:
                batch.append(deployment_view(version, deployment, api.region))
        yield batch
        await asyncio.sleep(0)


def _may_list(principal: Principal, entry: FunctionEntry, version: FunctionVersion) -> bool:
    """Whether a version of the account's lists is for this caller; some are for one client only."""
    return principal.sees(entry, version) and principal.reaches(entry, version, is_named=True)


def _read_visibilities(query: IdsQuery) -> list[Visibility]:
    """Return the lists that a query asks for; all if it names none."""
    named = [visibility for visibility in Visibility if visibility.value in query.visibility]
    return named or list(Visibility)


def _cursor(version: FunctionVersion) -> Cursor:
    return Cursor(version.created_at, version.version_id, version.function_id)


def _view(api: Api, account: str, version: FunctionVersion) -> FunctionView:
    details = api.catalog.details(version.function_id, version.version_id)
    return function_view(version, details, is_owner=version.account == account)


_TAG = "functions"

ROUTES: tuple[AnyRoute, ...] = (
    Route(
        "GET",
        "/v2/nvcf/functions",
        list_functions,
        "List versions",
        _TAG,
        LIST,
        FunctionsResponse,
        query=ListQuery,
    ),
    Route(
        "GET",
        "/v2/nvcf/functions/ids",
        list_ids,
        "List function ids",
        _TAG,
        LIST,
        FunctionIdsResponse,
        query=IdsQuery,
    ),
    Route(
        "GET",
        "/v2/nvcf/functions/{functionId}/versions",
        list_versions,
        "List the versions of a function",
        _TAG,
        LIST,
        FunctionsResponse,
        query=VersionsQuery,
    ),
    Route(
        "GET",
        "/v2/nvcf/deployments",
        list_deployments,
        "List the deployments of the account",
        "deployments",
        ("deploy_function",),
        DeploymentsResponse,
    ),
)
