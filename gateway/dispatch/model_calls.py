"""A call whose function is named by the ``model`` of its body.

The body is held until that member has arrived (`gateway.routing.model_member`). Then the call
begins, gets what was held, and everything that follows. What is held is bounded, per call and per
process; a body that flows on is held no longer.
"""

import json
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import NamedTuple

from gateway.errors import BadRequest, GatewayError, TooManyBodies
from gateway.routing.call_head import CallHead
from gateway.routing.model_member import Member, ModelMember
from http1.held_request import HeldRequest, in_steps
from http1.stream import Headers, Request, RequestStream, ResponseWriter
from wire.headers import CONTENT_LENGTH

MAX_HELD_BYTES = 67_108_864
"""Bytes that all calls of a process hold while their functions are not known."""
_OF_OLD_BODY = frozenset({b"content-digest", b"digest", b"content-md5"})
"""Headers that a body has no more once its model is written anew."""


class Resolved(NamedTuple):
    """Whom to call, and the text to put in place of the body's model; `None` leaves it."""

    head: CallHead
    model: str | None


Invoke = Callable[[Request, ResponseWriter, CallHead], RequestStream]
"""Admits a call and begins it. Raises `GatewayError`."""
Resolve = Callable[[str | None], Resolved]
"""Finds the function of a body's model, `None` if it has none. Raises `GatewayError`."""
Refuse = Callable[[Request, ResponseWriter, GatewayError, CallHead], RequestStream]
"""Responds with an error to a call of what the head names, as far as that is known."""

Left = Callable[[Request, CallHead], None]
"""Records that the client of a call left before it began."""


class ModelCallPorts:
    """What all calls of a process share; ``held_bytes`` is what they hold at this time."""

    __slots__ = ("held_bytes", "invoke", "left", "refuse")

    def __init__(self, invoke: Invoke, refuse: Refuse, left: Left) -> None:
        self.invoke = invoke
        self.refuse = refuse
        self.left = left
        self.held_bytes = 0


class ModelCall(HeldRequest):
    """A `http1.stream.RequestStream`: first the search for the model, then the call's own."""

    __slots__ = ("_client", "_head", "_is_optional", "_ports", "_request", "_resolve", "_search")

    def __init__(
        self,
        request: Request,
        client: ResponseWriter,
        ports: ModelCallPorts,
        head: CallHead,
        resolve: Resolve,
        *,
        is_optional: bool,
    ) -> None:
        """``head`` names no function yet.

        ``is_optional``: the call has a function also if no model can be found.
        """
        super().__init__(partial(ports.left, request, head))
        self._request = request
        self._client = client
        self._ports = ports
        self._head = head
        self._resolve = resolve
        self._is_optional = is_optional
        self._search = ModelMember()

    def _hold(self, data: bytes) -> None:
        """Look for the model."""
        self._ports.held_bytes += len(data)
        try:
            is_found = self._search.add(data)
        except BadRequest as error:
            self._miss(error)
            return
        if is_found:
            self._begin(self._search.found)
        elif self._ports.held_bytes > MAX_HELD_BYTES:
            self._fail(TooManyBodies())

    def _completed(self) -> None:
        """The body is complete: it names a function, or no function is called."""
        try:
            self._search.end()
        except BadRequest as error:
            self._miss(error)

    def _miss(self, error: BadRequest) -> None:
        """There is no model: call the one function that it can be, if there is one."""
        if self._is_optional:
            self._begin(None)
        else:
            self._fail(error)

    def _begin(self, member: Member | None) -> None:
        """Begin the call, and give it what was held."""
        try:
            resolved = self._resolve(None if member is None else member.text)
        except GatewayError as error:
            self._fail(error)
            return
        self._head = resolved.head
        request, body = self._request, self._drop()
        if member is not None and resolved.model is not None:
            # In ASCII: a text may have a lone surrogate, which UTF-8 cannot express.
            written = json.dumps(resolved.model).encode()
            request = _with_length(request, len(written) - (member.end - member.start))
            body[member.start : member.end] = written
        try:
            stream = self._ports.invoke(request, self._client, resolved.head)
        except GatewayError as error:
            self._fail(error)
            return
        self._pass_on(stream, in_steps(body))

    def _fail(self, error: GatewayError) -> None:
        self._give_up()
        self._ports.refuse(self._request, self._client, error, self._head)

    def _drop(self) -> bytearray:
        held, self._search = self._search.held, ModelMember()
        self._ports.held_bytes -= len(held)
        return held


def _with_length(request: Request, more_bytes: int) -> Request:
    """Return ``request`` for a body that is longer by ``more_bytes``."""
    if request.body_bytes is None:
        body_bytes = None
    else:
        body_bytes = request.body_bytes + more_bytes
    headers: Headers = []
    for name, value in request.headers:
        if name == CONTENT_LENGTH:
            headers.append((name, b"%d" % (body_bytes or 0)))
        elif name not in _OF_OLD_BODY:
            headers.append((name, value))
    longer = copy(request)
    longer.headers, longer.body_bytes = headers, body_bytes
    return longer
