"""What a new key may be given: never more than whoever makes it has (`spec/control-plane.md` §6.2).

A key is asked for with policies, one per service that it is for. Those for other services grant
nothing here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.auth.scopes import ACCOUNT_SCOPES
from gateway.domain.model import ResourceScope, resource_scope_of
from gateway.domain.principal import Principal
from gateway.errors import BadRequest, Forbidden

_PREFIX = "apikey:"


class Policy(NamedTuple):
    """What a key is to allow at the services ``audiences``; none named means at ours."""

    audiences: Sequence[str]
    scopes: Sequence[str]
    resources: Sequence[Mapping[str, object]]


class Grant(NamedTuple):
    """What a key allows."""

    scopes: frozenset[str]
    reach: ResourceScope


NOTHING = Grant(frozenset(), ResourceScope())


def granted(principal: Principal, policies: Iterable[Policy], service_id: str) -> Grant:
    """Return what ``principal`` gives with ``policies``.

    Raises `BadRequest` for an unknown scope, a malformed resource or two policies for us, of which
    each would widen the other; `Forbidden` for more than ``principal`` has.
    """
    ours = [one for one in policies if not one.audiences or service_id in one.audiences]
    if not ours:
        return NOTHING
    if len(ours) > 1:
        raise BadRequest(f"More than one policy is for {service_id}: make a key for each")
    scopes = frozenset(scope.removeprefix(_PREFIX) for scope in ours[0].scopes)
    if not scopes <= ACCOUNT_SCOPES:
        raise BadRequest(f"A scope is unknown. Scopes: {', '.join(sorted(ACCOUNT_SCOPES))}")
    for resource in ours[0].resources:
        if resource_scope_of([resource]) == ResourceScope():
            raise BadRequest(
                "A resource is malformed. Give type account-functions or authorized-functions with "
                "id *, or type function with id FUNCTION_ID/* or FUNCTION_ID/VERSION_ID"
            )
    grant = Grant(scopes, resource_scope_of(ours[0].resources))
    if may_give(principal, grant):
        return grant
    if missing := grant.scopes - principal.scopes:
        raise Forbidden(f"The credential cannot give what it lacks: {', '.join(sorted(missing))}")
    raise Forbidden("The credential cannot give functions that it is not good for")


def may_give(principal: Principal, grant: Grant) -> bool:
    """Whether ``principal`` has everything that ``grant`` allows."""
    return grant.scopes <= principal.scopes and covers(principal.reach, grant.reach)


def covers(wide: ResourceScope, narrow: ResourceScope) -> bool:
    """Whether ``wide`` has everything that ``narrow`` has.

    Single functions are covered by all own and all shared ones together: which of the two a
    function belongs to may change.
    """
    if (narrow.own and not wide.own) or (narrow.shared and not wide.shared):
        return False
    if wide.own and wide.shared:
        return True
    return narrow.functions <= wide.functions and all(
        version in wide.versions or version.partition("/")[0] in wide.functions
        for version in narrow.versions
    )
