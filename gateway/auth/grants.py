"""What a new API key allows: never more than its maker has (`docs/wire.md` §15.2).

A request for a key holds policies, one per service that the key is for. Policies for other
services grant nothing here.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from gateway.auth.scopes import ACCOUNT_SCOPES
from gateway.domain.model import ResourceScope, resource_scope_of
from gateway.domain.principal import Principal
from gateway.errors import BadRequest, Forbidden

_PREFIX = "apikey:"


class RequestedPolicy(NamedTuple):
    """What a key shall allow at the services ``audiences``. If empty: at this service."""

    audiences: Sequence[str]
    scopes: Sequence[str]
    resources: Sequence[Mapping[str, object]]


class Grant(NamedTuple):
    """What a key allows."""

    scopes: frozenset[str]
    reach: ResourceScope


NOTHING = Grant(frozenset(), ResourceScope())


def resolve_grant(
    principal: Principal, policies: Iterable[RequestedPolicy], service_ids: Collection[str]
) -> Grant:
    """Return what a key with ``policies`` allows at this service when ``principal`` makes it.

    ``service_ids`` are the names of this service.

    Raises `BadRequest` for an unknown scope, a malformed resource, or two policies for this
    service (each would widen the other); `Forbidden` for more than ``principal`` has.
    """
    own = [
        policy
        for policy in policies
        if not policy.audiences or not set(service_ids).isdisjoint(policy.audiences)
    ]
    if not own:
        return NOTHING
    if len(own) > 1:
        raise BadRequest("More than one policy is for this service: make a key for each")
    scopes = frozenset(scope.removeprefix(_PREFIX) for scope in own[0].scopes)
    if not scopes <= ACCOUNT_SCOPES:
        raise BadRequest(f"A scope is unknown. Scopes: {', '.join(sorted(ACCOUNT_SCOPES))}")
    for resource in own[0].resources:
        if resource_scope_of([resource]) == ResourceScope():
            raise BadRequest(
                "A resource is malformed. Give type account-functions or authorized-functions with "
                "id *, or type function with id FUNCTION_ID/* or FUNCTION_ID/VERSION_ID"
            )
    grant = Grant(scopes, resource_scope_of(own[0].resources))
    if may_give(principal, grant):
        return grant
    if missing := grant.scopes - principal.scopes:
        raise Forbidden(f"The credential cannot give what it lacks: {', '.join(sorted(missing))}")
    raise Forbidden("The credential cannot give functions that it is not good for")


def may_give(principal: Principal, grant: Grant) -> bool:
    """Return whether ``principal`` has everything that ``grant`` allows."""
    return grant.scopes <= principal.scopes and covers(principal.reach, grant.reach)


def covers(wide: ResourceScope, narrow: ResourceScope) -> bool:
    """Return whether ``wide`` includes everything that ``narrow`` includes.

    A single function is covered only by all own *and* all shared functions together: it may move
    from one of these sets to the other.
    """
    if (narrow.own and not wide.own) or (narrow.shared and not wide.shared):
        return False
    if wide.own and wide.shared:
        return True
    return narrow.functions <= wide.functions and all(
        version in wide.versions or version.partition("/")[0] in wide.functions
        for version in narrow.versions
    )
