"""Lists of functions, versions and deployments: stable order, pages (§1.3).

A list without ``limit`` is whole, as upstream's are: it is put into words and sent in pieces, so
that neither the loop nor memory belongs to one caller.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping

from pydantic import BaseModel

from gateway.api.access import LIST, visible_versions
from gateway.api.admin_routes import ACCOUNT_PATH
from gateway.api.paging import cursor_of, read_cursor
from gateway.api.route import AnyRoute, Api, Call, Listing, Route
from gateway.api.schemas.deployments import DeploymentsAnswer
from gateway.api.schemas.function_views import FunctionIdsAnswer, FunctionsAnswer, FunctionView
from gateway.api.schemas.functions import IdsQuery, ListQuery, VersionsQuery
from gateway.api.serializers import deployment_view, function_view
from gateway.auth.scopes import ADMIN
from gateway.domain.catalog import Place, Visibility
from gateway.domain.model import FunctionVersion, State
from gateway.domain.readmodel import FunctionEntry

_PIECE = 100
"""Versions that are put into words before others get their turn on the loop."""
_IDS_PIECE = 2000


async def list_functions(api: Api, call: Call[None, ListQuery]) -> Listing:
    """List versions: public, own, then shared ones, oldest first."""
    query = call.query
    begin = read_cursor(query.cursor) if query.cursor else None
    wanted = [one for one in Visibility if one.value in query.visibility] or list(Visibility)
    walk = _Walk(api, call, wanted, begin, query.limit)
    return Listing("functions", walk.pieces(), walk.tail)


async def list_ids(api: Api, call: Call[None, IdsQuery]) -> FunctionIdsAnswer:
    """List the ids of functions, each once."""
    wanted = [one for one in Visibility if one.value in call.query.visibility] or list(Visibility)
    found: dict[str, None] = {}
    for visibility in wanted:
        after = None
        while versions := api.catalog.versions(call.account, visibility, after, _IDS_PIECE):
            after = _place(versions[-1][1])
            for entry, version in versions:
                if call.principal.reaches(entry, version, is_named=True):
                    found[version.function_id] = None
            await asyncio.sleep(0)
    return FunctionIdsAnswer(function_ids=list(found))


async def list_deployments(api: Api, call: Call[None, None]) -> Listing:
    """List what an account has deployed; what is on its way out is not among it."""
    return Listing("deployments", _deployed(api, call.account), dict)


async def list_versions(api: Api, call: Call[None, VersionsQuery]) -> FunctionsAnswer:
    """List the versions of a function, oldest first."""
    _, versions = visible_versions(api, call)
    query = call.query
    if query.cursor:
        _, after = read_cursor(query.cursor)
        versions = [version for version in versions if _place(version) > after]
    page = versions[: query.limit]
    more = query.limit is not None and len(versions) > query.limit
    return FunctionsAnswer(
        functions=[_view(api, call.account, version) for version in page],
        cursor=cursor_of(Visibility.PRIVATE, _place(page[-1])) if more else None,
    )


class _Walk:
    """One way through the lists that a caller sees, a piece at a time.

    Between pieces the catalog may change; what stands behind the place already reached is still
    told in order, and nothing twice.
    """

    def __init__(
        self,
        api: Api,
        call: Call[None, ListQuery],
        wanted: list[Visibility],
        begin: tuple[Visibility, Place] | None,
        limit: int | None,
    ) -> None:
        self._api = api
        self._principal = call.principal
        self._wanted = wanted
        self._begin = begin
        self._left = limit
        self._last: tuple[Visibility, Place] | None = None
        self._has_more = False

    async def pieces(self) -> AsyncIterator[list[BaseModel]]:
        """Yield what is told, up to the limit."""
        order = list(Visibility)
        for visibility in self._wanted:
            after = None
            if self._begin is not None:
                if order.index(visibility) < order.index(self._begin[0]):
                    continue
                after = self._begin[1] if visibility is self._begin[0] else None
            async for piece in self._class(visibility, after):
                yield piece
                if self._has_more:
                    return

    def tail(self) -> Mapping[str, object]:
        """Return the cursor, if there is more."""
        if not self._has_more or self._last is None:
            return {}
        return {"cursor": cursor_of(*self._last)}

    async def _class(
        self, visibility: Visibility, after: Place | None
    ) -> AsyncIterator[list[BaseModel]]:
        account = self._principal.account
        while found := self._api.catalog.versions(account, visibility, after, _PIECE):
            after = _place(found[-1][1])
            piece: list[BaseModel] = []
            for version in self._told(visibility, found):
                if self._left == 0:
                    self._has_more = True
                    break
                if self._left is not None:
                    self._left -= 1
                self._last = visibility, _place(version)
                piece.append(_view(self._api, account, version))
            yield piece
            if self._has_more:
                return
            await asyncio.sleep(0)

    def _told(
        self, visibility: Visibility, found: Iterable[tuple[FunctionEntry, FunctionVersion]]
    ) -> Iterable[FunctionVersion]:
        """Leave out what the credential hides, and what an earlier list has told already."""
        earlier = self._wanted[: self._wanted.index(visibility)]
        for entry, version in found:
            if not self._principal.reaches(entry, version, is_named=True):
                continue
            is_own = version.account == self._principal.account
            is_open = self._api.catalog.is_public(version.version_id)
            if Visibility.PUBLIC in earlier and is_open:
                continue
            if Visibility.PRIVATE in earlier and is_own:
                continue
            yield version


async def _deployed(api: Api, account: str) -> AsyncIterator[list[BaseModel]]:
    after = None
    while found := api.catalog.versions(account, Visibility.PRIVATE, after, _PIECE):
        after = _place(found[-1][1])
        piece: list[BaseModel] = []
        for _, version in found:
            deployment = api.catalog.deployment(version.version_id)
            if deployment is not None and version.state is not State.INACTIVE:
                piece.append(deployment_view(version, deployment, api.region))
        yield piece
        await asyncio.sleep(0)


def _place(version: FunctionVersion) -> Place:
    return Place(version.created_at, version.version_id, version.function_id)


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
        FunctionsAnswer,
        query=ListQuery,
    ),
    Route(
        "GET",
        "/v2/nvcf/functions/ids",
        list_ids,
        "List the ids of functions",
        _TAG,
        LIST,
        FunctionIdsAnswer,
        query=IdsQuery,
    ),
    Route(
        "GET",
        "/v2/nvcf/functions/{functionId}/versions",
        list_versions,
        "List a function's versions",
        _TAG,
        LIST,
        FunctionsAnswer,
        query=VersionsQuery,
    ),
    Route(
        "GET",
        f"{ACCOUNT_PATH}/deployments",
        list_deployments,
        "List an account's deployments",
        "deployments",
        (f"{ADMIN}deploy_function",),
        DeploymentsAnswer,
        is_admin=True,
    ),
)
