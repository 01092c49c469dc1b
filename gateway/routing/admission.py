"""Admission of an invocation: authenticate, read the poll window, route.

The order of the checks decides what an unauthorised caller learns (`docs/wire.md` §2.1): credential
(401), poll window and ``Cancel-After`` (400), then those of `gateway.routing.router`.
"""

from collections.abc import Callable
from typing import NamedTuple

from gateway.domain.model import FunctionVersion
from gateway.domain.principal import API_KEY, INVOCATION_TOKEN, Principal
from gateway.domain.readmodel import ReadModel
from gateway.errors import GatewayError, Unauthenticated
from gateway.routing.call_head import CallHead, poll_seconds
from gateway.routing.cancel_after import CallBounds, cancel_after
from gateway.routing.references import FunctionNames
from gateway.routing.router import Router
from wire.deadlines import DEFAULT_POLL_S

Authenticate = Callable[[bytes | None, float], Principal]
"""From an Authorization value and Unix time; raises `gateway.errors.Unauthenticated`."""


class Caller(NamedTuple):
    """Who invokes what, and how many seconds they wait for the response head.

    ``bounds`` are those of its ``Cancel-After``, if it has one.
    ``key_digest`` and ``key_id`` as for `gateway.domain.principal.Principal`. ``is_key``: the
    credential is the API key itself.
    """

    version: FunctionVersion
    account: str
    subject: str
    poll_s: int
    key_digest: bytes = b""
    key_id: str = ""
    is_key: bool = False
    bounds: CallBounds | None = None


class CallPlan:
    """What holds for each call with the same head, until the read model, ``model``, changes.

    ``expires_at`` is the key's, in Unix seconds. ``fields`` are those of the envelope that depend
    on the head alone, empty until the first call is offered to workers; ``trace`` and
    ``caller_request_id`` are as in `gateway.invocation.machine.Invocation`.
    """

    __slots__ = (
        "caller",
        "caller_request_id",
        "changes",
        "expires_at",
        "fields",
        "head",
        "model",
        "trace",
    )

    def __init__(
        self, head: CallHead, caller: Caller, model: ReadModel, expires_at: float | None
    ) -> None:
        self.head = head
        self.caller = caller
        self.model = model
        self.changes = model.changes
        self.expires_at = expires_at
        self.fields = self.trace = self.caller_request_id = b""


class Admission:
    """Admits invocations, by the read model alone."""

    __slots__ = ("_router", "authenticate", "names")

    def __init__(
        self, authenticate: Authenticate, router: Router, names: FunctionNames | None = None
    ) -> None:
        """Without ``names``, functions are named by hosts and headers only."""
        self.authenticate = authenticate
        self.names = names
        self._router = router

    def admit(self, head: CallHead, now: float) -> Caller:
        """Return who invokes what; ``now`` is Unix time in seconds.

        Raises `Unauthenticated`, `Forbidden`, `FunctionNotFound` or `BadRequest`.
        """
        principal = self.authenticate(head.authorization, now)
        if head.is_linked and principal.kind != INVOCATION_TOKEN:
            # URLs are kept in histories and logs: only what soon expires may be in one.
            raise Unauthenticated
        poll = head.poll_seconds
        poll_s = DEFAULT_POLL_S if poll is None else poll_seconds(poll)
        bounds = None if head.cancel_after is None else cancel_after(head.cancel_after)
        version = self._router.pick(head.function_id, head.version_id, principal)
        return Caller(
            version,
            principal.account,
            principal.subject,
            poll_s,
            principal.key_digest,
            principal.key_id,
            principal.kind == API_KEY,
            bounds,
        )

    def plan(self, head: CallHead, caller: Caller) -> "CallPlan | None":
        """Return what of an admitted call holds for the next one with the same head.

        ``None`` if nothing does: only calls with an API key that always get the same version.
        """
        if (
            not caller.is_key
            or head.origin is not None
            or head.is_linked
            or head.sent_target
            or not self._router.is_settled(head.function_id, head.version_id, caller.account)
        ):
            return None
        key = self._router.model.key(caller.key_digest)
        if key is None:
            return None
        return CallPlan(head, caller, self._router.model, key.expires_at)

    def is_valid(self, plan: "CallPlan", now: float) -> bool:
        """Return whether a plan still holds at ``now``, in Unix seconds."""
        model = self._router.model
        if plan.model is not model or plan.changes != model.changes:
            return False
        return plan.expires_at is None or now < plan.expires_at

    def key_id_of(self, authorization: bytes | None, now: float) -> str:
        """Return the id of the API key in the credential of a call that was refused, for the log.

        Empty if there is none, or if the credential is not valid.
        """
        try:
            return self.authenticate(authorization, now).key_id
        except GatewayError:
            return ""
