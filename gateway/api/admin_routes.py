"""Admin routes: the routes of an account, repeated for super administrators.

An account's own caller uses a route below ``/v2/nvcf/``; a super administrator uses the same route
below ``/v2/nvcf/accounts/{ncaId}/``, with ``admin:`` before the scope (`docs/wire.md`
§9.4). Both have the same handler; in an admin route, the call acts for the account in the path.
"""

from collections.abc import Sequence
from dataclasses import replace

from gateway.api.route import AnyRoute
from gateway.auth.scopes import ADMIN

ACCOUNT_PATH = "/v2/nvcf/accounts/{ncaId}"
_BASE = "/v2/nvcf"
_REPEATED = frozenset(
    {
        "functions",
        "metadata",
        "ratelimit",
        "deployments",
        "registrationTokens",
        "queues",
        "authorizations",
        "secrets",
        "supportedGpus",
        "clusterGroups",
        "assets",
        "telemetries",
        "registry-credentials",
        "recognized-registries",
    }
)
"""First path segments that have an admin route. Routes of keys, invocation tokens and workers have
none."""


def with_admin_routes(routes: Sequence[AnyRoute]) -> tuple[AnyRoute, ...]:
    """Return ``routes``, followed by the admin routes that belong to them."""
    return (*routes, *(_admin_route(route) for route in routes if _is_repeated(route)))


def _is_repeated(route: AnyRoute) -> bool:
    base, _, rest = route.path.partition(f"{_BASE}/")
    return not base and rest.partition("/")[0] in _REPEATED


def _admin_route(route: AnyRoute) -> AnyRoute:
    scopes = dict.fromkeys(f"{ADMIN}{scope.removeprefix(ADMIN)}" for scope in route.scopes)
    path = ACCOUNT_PATH + route.path.removeprefix(_BASE)
    return replace(route, path=path, scopes=tuple(scopes), is_admin=True)
