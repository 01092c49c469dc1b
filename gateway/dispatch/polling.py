"""NVCF's polling routes: calls by path, and polls for their responses (`docs/wire.md` §24)."""

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from gateway.api.sdk_compat import is_old_sdk
from gateway.dispatch.held_call import HeldCall
from gateway.dispatch.keyed_calls import KeyedCalls, KeyedRequest
from gateway.dispatch.responses import with_ids
from gateway.domain.principal import INVOKE
from gateway.errors import Forbidden, GatewayError, NotFound
from gateway.invocation.context import Ticket
from gateway.invocation.machine import Invocation
from gateway.invocation.once import OnceInvocation
from gateway.invocation.polled import ProgressWriter
from gateway.objects.references import parse_references
from gateway.requests.book import RequestBook
from gateway.requests.endpoint import Access
from gateway.requests.exec_body import ExecRequest
from gateway.requests.exec_call import ExecCall, HeldBytes
from gateway.requests.exec_writer import PolledForm
from gateway.requests.keyed import KeyedCall
from gateway.requests.keyed_polls import KeyedPollExchange
from gateway.requests.nvcf_paths import PolledPath, allowed, check_method, parse_path
from gateway.requests.poll_exchanges import FirstPollExchange, watch
from gateway.requests.polled_call import PolledCall
from gateway.requests.polls import Poll, Polls
from gateway.requests.prefer import Terms
from gateway.routing.admission import Caller
from gateway.routing.call_head import CallHead, calling, plain_head, poll_seconds
from gateway.routing.cross_origin import PageAccess
from gateway.routing.organizations import require_organization
from http1.stream import Request, RequestStream, ResponseWriter, respond
from wire.deadlines import DEFAULT_POLL_S, MAX_POLL_S
from wire.headers import IDEMPOTENCY_KEY, NVCF_INPUT_ASSET_REFERENCES
from wire.ids import RequestId

EVENT_STREAM_POLL_S = 1200
"""The window of a client that accepts event streams alone, if it names none."""
_EVENT_STREAM = b"text/event-stream"
_LONGEST = b"%d" % MAX_POLL_S


FindAssets = Callable[[str, Sequence[str]], Awaitable[bytes]]
"""Returns an account's assets as fields of an envelope. Raises `GatewayError`."""


class BeginPolled(Protocol):
    """Begins the invocation of an admitted call."""

    def __call__(
        self,
        request: Request,
        client: ProgressWriter,
        head: CallHead,
        caller: Caller,
        now_ns: int,
        more_fields: bytes,
    ) -> Invocation:
        """``more_fields`` as for `gateway.invocation.polled.PolledInvocation`."""


class BeginPolledOnce(Protocol):
    """Begins the invocation of a call that has claimed its key."""

    def __call__(
        self,
        request: Request,
        client: ProgressWriter,
        head: CallHead,
        caller: Caller,
        ticket: Ticket,
        more_fields: bytes,
    ) -> OnceInvocation:
        """The arguments are those of `BeginPolled`; ``ticket`` has the call's id."""


class PollingPorts(NamedTuple):
    """What the dispatcher does for the routes.

    ``admit`` admits the call of a head and serves it with its caller, at once or when the rate
    limit has decided. ``serve_keyed`` serves an admitted call with an Idempotency-Key: the last
    argument begins it if it is the first. ``refuse`` responds with an error, ``served`` records a
    response; they get the route too. ``left`` records that a client left before it had made a call.
    """

    admit: Callable[
        [Request, ResponseWriter, CallHead, str, Callable[[Caller], RequestStream]], RequestStream
    ]
    begin: BeginPolled
    serve_keyed: Callable[[KeyedRequest, str, Callable[[KeyedCall], RequestStream]], RequestStream]
    begin_once: BeginPolledOnce
    refuse: Callable[[Request, ResponseWriter, GatewayError, CallHead, str], RequestStream]
    left: Callable[[Request, CallHead], None]
    served: Callable[[Request, int, str], None]


class _Exchange(NamedTuple):
    """One request that makes a call; ``assets`` are the ids of its input assets."""

    request: Request
    client: ResponseWriter
    head: CallHead
    route: str
    window_s: int
    access: PageAccess
    form: PolledForm
    assets: tuple[str, ...] = ()


class PollingRoutes:
    """Serves the routes of a process that takes invocations."""

    __slots__ = ("_access", "_book", "_find", "_held", "_keyed", "_polls", "_ports")

    def __init__(
        self,
        book: RequestBook,
        polls: Polls,
        keyed: KeyedCalls,
        access: Access,
        find_assets: FindAssets,
        ports: PollingPorts,
    ) -> None:
        self._book = book
        self._polls = polls
        self._keyed = keyed
        self._access = access
        self._find = find_assets
        self._ports = ports
        self._held = HeldBytes()

    def serve(self, request: Request, client: ResponseWriter) -> RequestStream:
        """Serve one request, which is no preflight. Raises `GatewayError` for an unknown path."""
        return self._serve(request, client, is_forwarded=False)

    def serve_forwarded(self, request: Request, client: ResponseWriter) -> RequestStream:
        """Serve a poll that another process has forwarded, because its call is here."""
        return self._serve(request, client, is_forwarded=True)

    def _serve(
        self, request: Request, client: ResponseWriter, *, is_forwarded: bool
    ) -> RequestStream:
        path = parse_path(request.target.partition(b"?")[0])
        if path is None:
            raise NotFound
        head = plain_head(request)._replace(
            function_id=path.function_id, version_id=path.version_id, route=path.route
        )
        try:
            if request.method == b"OPTIONS":
                return self._serve_options(request, client, path)
            check_method(path, request.method)
            principal = self._access.authenticate(head.authorization, time.time())
            if INVOKE not in principal.scopes:
                raise Forbidden(f"The credential lacks the scope {INVOKE}")
            require_organization(path.organization, principal.account)
            window_s = _window_s(request, head)
            form = PolledForm.PEXEC
            if path.is_exec:
                form = PolledForm.EXEC_TEXT if _reads_text(request) else PolledForm.EXEC
            if path.request_id:
                served = partial(self._served, request, path.route)
                poll = Poll(request, path, window_s, principal, form, served)
                return self._polls.serve(poll, client, is_forwarded=is_forwarded)
            if is_forwarded:
                raise NotFound
            access = self._access.cross_origin.of_endpoint(request)
            head = calling(request, head, path.function_id, path.version_id)
            # The call's own window; the client's is that of its exchange.
            head = head._replace(poll_seconds=_LONGEST, sent_target=request.target, origin=None)
            assets = parse_references(request.values.get(NVCF_INPUT_ASSET_REFERENCES, b""))
            exchange = _Exchange(request, client, head, path.route, window_s, access, form, assets)
            return self._serve_exec(exchange) if path.is_exec else self._call(exchange)
        except GatewayError as error:
            return self._ports.refuse(request, client, error, head, path.route)

    def _serve_options(
        self, request: Request, client: ResponseWriter, path: PolledPath
    ) -> RequestStream:
        """Tell the methods of a path (RFC 9110 §9.3.7)."""
        self._ports.served(request, 204, path.route)
        headers = self._access.cross_origin.of_endpoint(request).of_own_response([allowed(path)])
        return respond(request, client, 204, with_ids(headers), b"")

    def _serve_exec(self, exchange: _Exchange) -> RequestStream:
        """Read the envelope first."""

        def begin(inner: Request, wanted: ExecRequest) -> RequestStream:
            window_s = exchange.window_s if wanted.poll_s is None else wanted.poll_s
            assets = tuple(dict.fromkeys((*wanted.input_assets, *exchange.assets)))
            return self._call(exchange._replace(request=inner, window_s=window_s, assets=assets))

        return ExecCall(
            exchange.request,
            self._held,
            begin,
            partial(self._refuse, exchange),
            partial(self._ports.left, exchange.request, exchange.head),
        )

    def _served(self, request: Request, route: str, status: int) -> None:
        self._ports.served(request, status, route)

    def _refuse(self, exchange: _Exchange, error: GatewayError) -> None:
        request, client, head, route, *_ = exchange
        self._ports.refuse(request, client, error, head, route)

    def _call(self, exchange: _Exchange) -> RequestStream:
        """Make the call, once it is admitted and its assets are found."""

        def serve(caller: Caller) -> RequestStream:
            if not exchange.assets:
                return self._offer(exchange, caller, b"")
            return self._find_assets(exchange, caller)

        request, client, head, route, *_ = exchange
        return self._ports.admit(request, client, head, route, serve)

    def _find_assets(self, exchange: _Exchange, caller: Caller) -> HeldCall:
        fields: list[bytes] = []

        async def find() -> None:
            fields.append(await self._find(caller.account, exchange.assets))

        held = HeldCall(left=lambda: self._ports.left(exchange.request, exchange.head))
        held.wait(
            find(),
            exchange.client,
            serve=lambda: self._offer(exchange, caller, fields[0]),
            withdraw=lambda: None,
            refuse=partial(self._refuse, exchange),
        )
        return held

    def _offer(self, exchange: _Exchange, caller: Caller, more_fields: bytes) -> RequestStream:
        """Begin a call; one with a key only if it is the first.

        Raises `BadRequest`, `TooManyDetachedCalls` and `StorageQuota`.
        """
        request, client, head, route, window_s, access, form, assets = exchange
        if IDEMPOTENCY_KEY not in request.values:
            return self._begin(exchange, caller, more_fields)
        references = ",".join(assets).encode()
        call = KeyedRequest(
            request, client, head, caller, Terms(), window_s, access, references, form
        )
        return self._ports.serve_keyed(
            call, route, lambda keyed: self._begin(exchange, caller, more_fields, keyed)
        )

    def _begin(
        self,
        exchange: _Exchange,
        caller: Caller,
        more_fields: bytes,
        keyed: KeyedCall | None = None,
    ) -> RequestStream:
        """Begin a call. Raises `TooManyDetachedCalls` and `StorageQuota`.

        ``keyed`` is what has claimed its key, if it has one.
        """
        request, client, head, route, window_s, access, form, _ = exchange
        book, now_ns, ports = self._book, time.time_ns(), self._ports
        room = book.room_for(caller.account)
        call = PolledCall(book, room, client, now_ns * 1e-9, book, window_s)
        if keyed is None:
            invocation = ports.begin(request, call, head, caller, now_ns, more_fields)
            call.begins(invocation)
        else:
            ticket = Ticket(RequestId(keyed.request_id), now_ns)
            once = ports.begin_once(request, call, head, caller, ticket, more_fields)
            call.begins(once)
            call.is_kept = True
            self._keyed.begun(keyed, call, once)
        book.add(call)
        watched = watch(call, client, partial(self._served, request, route))
        writer = form.writer(watched, call.request_id)
        first: FirstPollExchange
        if keyed is None:
            first = FirstPollExchange(
                call, writer, book, access, watched, window_s, is_exec=form.is_exec
            )
        else:
            first = KeyedPollExchange(
                call, writer, book, access, watched, window_s, keyed, is_exec=form.is_exec
            )
        first.start()
        return first


def _reads_text(request: Request) -> bool:
    """Return whether an SDK of 2024 or 2025 calls, which reads ``response`` as a string."""
    values = request.values
    return is_old_sdk(
        {
            name: values[name.encode()].decode("latin-1")
            for name in ("x-sideko-sdk-language", "user-agent")
            if name.encode() in values
        }
    )


def _window_s(request: Request, head: CallHead) -> int:
    """Return the window of an exchange, in seconds. Raises `BadRequest`."""
    if head.poll_seconds is not None:
        return poll_seconds(head.poll_seconds)
    if request.values.get(b"accept", b"").strip().lower() == _EVENT_STREAM:
        return EVENT_STREAM_POLL_S
    return DEFAULT_POLL_S
