"""Super administrators' twins of routes: the same calls for any account, which the path names.

What an account's own caller does below ``/v2/nvcf/``, a super administrator does below
``/v2/nvcf/accounts/{ncaId}/``, with ``admin:`` before the scope (`spec/control-plane.md` §1.0, §2).
No twin has a handler of its own: the call acts for the account of its path.
"""

from collections.abc import Sequence
from dataclasses import replace

from gateway.api.route import AnyRoute
from gateway.auth.scopes import ADMIN

ACCOUNT_PATH = "/v2/nvcf/accounts/{ncaId}"
_BASE = "/v2/nvcf"
_TWINNED = frozenset(
    {
        "functions",
        "metadata",
        "ratelimit",
        "deployments",
        "queues",
        "authorizations",
        "secrets",
        "supportedGpus",
        "clusterGroups",
    }
)
"""What comes after the base. Nobody is invoked for, nor gets keys or tokens, by a twin."""


def with_twins(routes: Sequence[AnyRoute]) -> tuple[AnyRoute, ...]:
    """Return ``routes`` and, after them, the twins of those that have one."""
    return (*routes, *(_twin(route) for route in routes if _has_twin(route)))


def _has_twin(route: AnyRoute) -> bool:
    base, _, rest = route.path.partition(f"{_BASE}/")
    return not base and rest.partition("/")[0] in _TWINNED


def _twin(route: AnyRoute) -> AnyRoute:
    scopes = dict.fromkeys(f"{ADMIN}{scope.removeprefix(ADMIN)}" for scope in route.scopes)
    path = ACCOUNT_PATH + route.path.removeprefix(_BASE)
    return replace(route, path=path, scopes=tuple(scopes), is_admin=True)
