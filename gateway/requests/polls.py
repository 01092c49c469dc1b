"""Polls of NVCF's polling routes: for a call of this process, of another one, or a stored one."""

from collections.abc import Callable
from typing import NamedTuple

from gateway.domain.principal import Principal
from gateway.errors import GatewayError
from gateway.requests.asked import Asked
from gateway.requests.book import RequestBook
from gateway.requests.detached import DetachedCall
from gateway.requests.endpoint import Access
from gateway.requests.errors import RequestNotFound
from gateway.requests.exec_writer import PolledForm
from gateway.requests.forwarding import Forwarder
from gateway.requests.nvcf_paths import PolledPath
from gateway.requests.poll_exchanges import PollExchange, watch
from gateway.requests.stored_exchange import (
    Absent,
    HasLived,
    StoredExchange,
    holder_silent,
    lost_if,
    unknown_here,
)
from http1.stream import Request, RequestStream, ResponseWriter
from wire.ids import process_of

RESPONSE = b"response"
"""What a poll asks for: `gateway.requests.asked.Asked`, ``part``."""


class Poll(NamedTuple):
    """One poll, by whom it is.

    ``served`` is called with the status of the response.
    """

    request: Request
    path: PolledPath
    window_s: int
    principal: Principal
    form: PolledForm
    served: Callable[[int], None]


class Polls:
    """Serves polls."""

    __slots__ = ("_access", "_book", "_forwarder", "_has_lived")

    def __init__(
        self, book: RequestBook, access: Access, forwarder: Forwarder, has_lived: HasLived
    ) -> None:
        self._book = book
        self._access = access
        self._forwarder = forwarder
        self._has_lived = has_lived

    def serve(
        self, poll: Poll, client: ResponseWriter, *, is_forwarded: bool = False
    ) -> RequestStream:
        """Serve one poll. Raises `GatewayError`.

        ``is_forwarded``: another process has sent it here, where its call is, or was.
        """
        request_id = poll.path.request_id
        call = self._book.find(request_id)
        if call is not None:
            return self._serve_here(call, poll, client)
        process = process_of(request_id)
        if is_forwarded or process == self._forwarder.process:
            return self._serve_stored(poll, client, unknown_here)
        return self._forwarder.serve(
            poll.request,
            client,
            process,
            poll.window_s,
            lambda: self._serve_stored(poll, client, lost_if(self._has_lived)),
            lambda: self._serve_stored(poll, client, holder_silent),
        )

    def _serve_here(self, call: DetachedCall, poll: Poll, client: ResponseWriter) -> RequestStream:
        may_see = self._access.may_see
        if not may_see(poll.principal, call.account, call.owner, call.function_id, call.version_id):
            raise RequestNotFound
        watched = watch(call, client, poll.served)
        exchange = PollExchange(
            call,
            poll.form.writer(watched, call.request_id),
            self._book,
            self._access.cross_origin.of_endpoint(poll.request),
            watched,
            is_exec=poll.form.is_exec,
        )
        try:
            exchange.begin(poll.window_s)
        except GatewayError:
            watched.cancel()
            raise
        return exchange

    def _serve_stored(self, poll: Poll, client: ResponseWriter, absent: Absent) -> RequestStream:
        asked = Asked(
            poll.request,
            poll.path.request_id,
            RESPONSE,
            self._access.cross_origin.of_endpoint(poll.request),
            poll.window_s,
            b"",
            lambda *of_call: self._access.may_see(poll.principal, *of_call),
            lambda _, status: poll.served(status),
        )
        return StoredExchange(
            asked,
            poll.form.writer(client, poll.path.request_id),
            self._book.responses,
            absent,
            self._book.with_webhook,
            refused=client,
        )
