"""The routes below an organization (`gateway.routing.organizations`), and what NGC tells of it.

Beside NVCF's routes, ``ngcsdk`` asks NGC whose key it was given and, if that is a JWT, for the
organizations and teams of its user. All of it is at the host of ``NGC_CLI_API_URL``.
"""

from collections.abc import Mapping
from functools import partial

from aiohttp import web

from gateway.api.caller_info import caller_info
from gateway.api.route import AnyRoute, Api
from gateway.domain.principal import Principal
from gateway.errors import Forbidden, NotFound
from gateway.routing.organizations import BASE, TEMPLATE, VARIABLE, require_organization

_OK = {"requestStatus": {"statusCode": "SUCCESS"}}
_ARTIFACT = (
    "/v2/org/{organization}{team:(?:/team/[^/]+)?}"
    "/{kind:repos|models|resources|helm-charts}/{artifact:.+}"
)
"""Where NGC's registries are asked for an image, a model, a resource or a chart."""


def organization_path(route: AnyRoute) -> str | None:
    """Return the path of a route below an organization, as a template of aiohttp.

    `None` for routes without: those of super administrators, of other services, and open ones.
    """
    rest = route.path.removeprefix(BASE)
    if route.is_admin or not route.scopes or rest == route.path:
        return None
    return TEMPLATE + rest


def check_organization(variables: Mapping[str, str], principal: Principal) -> None:
    """Raise `Forbidden` if a path names an organization that is not the caller's account."""
    require_organization(variables.get(VARIABLE), principal.account)


def add_ngc_routes(app: web.Application, api: Api) -> None:
    """Add what NGC serves and NVCF does not."""
    app.router.add_post("/v3/keys/get-caller-info", partial(caller_info, api))
    app.router.add_get("/v2/orgs", partial(_organizations, api))
    app.router.add_get(f"/v2/orgs/{{{VARIABLE}}}", partial(_organization, api))
    app.router.add_get(f"/v2/org/{{{VARIABLE}}}/teams", partial(_teams, api))
    app.router.add_get("/v2/users/me", partial(_user, api))
    app.router.add_get(_ARTIFACT, partial(_artifact, api))


async def _organizations(api: Api, request: web.Request) -> web.Response:
    """List the one organization of a credential."""
    found = _view(api, _caller(api, request))
    return web.json_response({**_OK, "organizations": [found], "paginationInfo": _page(1)})


async def _organization(api: Api, request: web.Request) -> web.Response:
    """Describe the organization of a credential. The member has a plural name at NGC, too."""
    found = _view(api, _caller(api, request))
    return web.json_response({**_OK, "organizations": found})


async def _teams(api: Api, request: web.Request) -> web.Response:
    """List no teams: there are none."""
    _caller(api, request)
    return web.json_response({**_OK, "teams": [], "paginationInfo": _page(0)})


async def _user(api: Api, request: web.Request) -> web.Response:
    """Describe whose credential it is."""
    principal = _caller(api, request)
    require_organization(request.query.get("org-name"), principal.account)
    role = {"org": _view(api, principal), "orgRoles": sorted(principal.scopes)}
    user = {"name": principal.subject, "roles": [role]}
    return web.json_response({**_OK, "user": user, "userRoles": [role]})


async def _artifact(api: Api, request: web.Request) -> web.Response:
    """Refuse to look into a registry. After a 403 ``ngcsdk`` warns and goes on, after a 404 not."""
    _caller(api, request)
    raise Forbidden(
        "The gateway does not look into registries: whether an image can run is decided at deploy"
    )


def _caller(api: Api, request: web.Request) -> Principal:
    """Return the caller. Raises `Unauthenticated`, `Forbidden`, and `NotFound` without account."""
    text = request.headers.get("authorization")
    authorization = None if text is None else text.encode("utf-8", "surrogateescape")
    principal = api.authenticate(authorization, api.clock())
    if not principal.account:
        raise NotFound("The credential has no account")
    check_organization(request.match_info, principal)
    return principal


def _view(api: Api, principal: Principal) -> dict[str, str]:
    name = principal.account
    account = api.catalog.model.account(name)
    return {"name": name, "displayName": (account and account.name) or name}


def _page(total: int) -> dict[str, int]:
    return {"index": 0, "size": max(total, 1), "totalPages": 1, "totalResults": total}
