"""The clients of detached calls: the first one, and those that come for the response later.

Each is a `http1.stream.RequestStream` and a `gateway.requests.recording.Follower`. A client that
waits for a response head costs an entry in the timers, and nothing while it waits.
"""

from collections.abc import Callable
from typing import Protocol

from gateway.errors import GatewayError, problem_for
from gateway.invocation.headers import id_lines, nvcf_status, with_platform_headers
from gateway.requests.asked import EVENT_STREAM, JSON
from gateway.requests.detached import DetachedCall
from gateway.requests.event_ids import EventSearch
from gateway.requests.prefer import Terms
from gateway.requests.recording import Recording, RecordingCursor
from gateway.requests.views import view_body
from gateway.routing.cross_origin import PageAccess
from http1.stream import EncodedHead, Headers, NullRequestStream, ResponseWriter
from wire.headers import (
    ACCESS_CONTROL_EXPOSE_HEADERS,
    CONTENT_TYPE,
    EXPOSED_HEADERS,
    LOCATION,
    NVCF_STATUS,
    PREFERENCE_APPLIED,
)
from wire.http1 import BODILESS_STATUSES, encode_lines, split_lines
from wire.problem import instance_of

REQUESTS_PATH = b"/v2/requests/"
_EXPOSED = (
    ACCESS_CONTROL_EXPOSE_HEADERS,
    b", ".join([*EXPOSED_HEADERS, LOCATION, PREFERENCE_APPLIED]),
)


def _accepted(more: Headers) -> EncodedHead:
    """Return the head of a 202 but for its location and the request id."""
    headers = [*more, (CONTENT_TYPE, JSON), (NVCF_STATUS, nvcf_status(202)), _EXPOSED]
    return EncodedHead(202, headers, encode_lines(headers))


_PENDING = _accepted([(b"retry-after", b"1")])
ACCEPTED = _accepted([(PREFERENCE_APPLIED, b"respond-async")])
"""The head of the 202 for a call that is to be asked for, as `ResponseExchange.send_accepted`."""


class Window(Protocol):
    """A `runtime.timers.TimerOwner` that is called at its time."""

    due_at: float | None
    slot: int

    def timed_out(self) -> None:
        """The time has come."""


class Windows(Protocol):
    """The timers of the clients that wait."""

    def open(self, window: Window, seconds: float) -> None:
        """Call `Window.timed_out` in so many seconds."""

    def close(self, window: Window) -> None:
        """Do not call it."""


class ResponseExchange(NullRequestStream):
    """A client that gets the response of a call: what is there, and then what comes.

    ``cursor`` is its place, ``None`` before it follows.
    """

    __slots__ = (
        "_access",
        "_client",
        "_is_head",
        "_windows",
        "call",
        "cursor",
        "due_at",
        "on_status",
        "slot",
    )

    own_lines = b""
    """Header lines that this client gets beside those of the recording."""

    def __init__(
        self,
        call: DetachedCall,
        client: ResponseWriter,
        windows: Windows,
        access: PageAccess | None,
        *,
        is_head: bool = False,
    ) -> None:
        """``access`` is what the response gets for web pages: ``None`` for the first client.

        ``is_head``: the client asks with HEAD.
        """
        self.call = call
        self._client = client
        self._windows = windows
        self._access = access
        self._is_head = is_head
        self.cursor: RecordingCursor | None = None
        self.on_status: Callable[[int], None] | None = None
        self.due_at: float | None = None
        self.slot = -1

    def begin(self, window_s: float = 0.0, at: int = 0, *, is_awaited: bool = False) -> None:
        """Follow the response; if its head is not there within the window, respond 202.

        A window of 0 does not end. ``is_awaited``: as for `DetachedCall.follow`. Raises
        `gateway.requests.errors.TooManyFollowers`.
        """
        ending = self.call.ending
        if ending is not None and ending.problem is not None:
            self.send_problem(ending.problem)
            return
        cursor = self.cursor = self.call.follow(self, at, is_awaited=is_awaited)
        if window_s and not self.call.recording.status:
            self._windows.open(self, window_s)
        if self._client.is_writing_paused():
            cursor.pause()
        cursor.pump()

    def begin_after(self, event_id: bytes, window_s: float) -> None:
        """Follow from behind the event with this id, if the response is a stream of events.

        From its beginning if no event has the id. Raises as `begin`.
        """
        recording = self.call.recording
        if not event_id or not recording.status or not is_event_stream(recording.headers):
            self.begin(window_s)
            return
        found = _EventFollower(event_id, recording.size, lambda at: self._go_on(at, window_s))
        found.cursor = self.cursor = self.call.follow(found)
        found.cursor.pump()

    def _go_on(self, at: int, window_s: float) -> None:
        is_paused = self.cursor is not None and self.cursor.is_paused
        self._stop()
        self.begin(window_s, at)
        if is_paused:
            self.pause_writing()

    # The client

    def request_broken(self) -> None:
        """The client left: the call goes on."""
        self._stop()

    def pause_writing(self) -> None:
        """The client reads slower than the response comes."""
        if self.cursor is not None:
            self.call.pause(self.cursor)

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self.cursor is not None:
            self.call.resume(self.cursor)

    # The recording

    def recorded_head(self, recording: Recording) -> None:
        """Send the head; at once the whole response, if it is there and short."""
        self._windows.close(self)
        if self.on_status is not None:
            self.on_status(recording.status)
        client = self._client
        body = recording.whole()
        if body is None or (self.cursor is not None and self.cursor.at):
            client.send_head(recording.status, self._headers(recording), self._length(recording))
            if self._is_head:
                self._stop()
                client.send_end()
            return
        self._stop()
        if recording.encoded is not None and self._is_as_recorded(recording.status):
            client.send_whole(
                recording.encoded,
                recording.more_lines + self.own_lines,
                recording.body_bytes,
                body,
                recording.trailers,
            )
            return
        client.send_head(recording.status, self._headers(recording), self._length(recording))
        if body and not self._is_head:
            client.send_data(body)
        if recording.trailers:
            client.add_trailers(recording.trailers)
        client.send_end()

    def recorded_data(self, data: bytes) -> None:
        """Send the next bytes."""
        self._client.send_data(data)

    def recorded_end(self) -> None:
        """Complete the response."""
        self.cursor = None
        if self.call.recording.trailers:
            self._client.add_trailers(self.call.recording.trailers)
        self._client.send_end()

    def recorded_broken(self) -> None:
        """Break off like the response, or send the problem in its place."""
        self._windows.close(self)
        self.cursor = None
        ending = self.call.ending
        if self.call.recording.status or ending is None or ending.problem is None:
            self._client.abort()
        else:
            self.send_problem(ending.problem)

    def _is_as_recorded(self, status: int) -> bool:
        """Return whether this client gets the response with the head that the first one gets."""
        access = self._access
        return access is None or (
            not access.is_seen
            and not self._is_head
            and status not in BODILESS_STATUSES
            and self.call.method != b"HEAD"
        )

    def _headers(self, recording: Recording) -> Headers:
        if self._access is None:
            return recording.headers
        return self._access.of_forwarded(recording.status, recording.headers)

    def _length(self, recording: Recording) -> int | None:
        """Return the length to announce: of what this client gets."""
        if self._access is None:
            return recording.body_bytes
        if recording.status in BODILESS_STATUSES:
            return None
        at = 0 if self.cursor is None else self.cursor.at
        if self.call.method == b"HEAD":
            return 0
        if recording.is_over and not recording.trailers:
            return recording.size - at
        return None if recording.body_bytes is None else recording.body_bytes - at

    # Its own responses

    def timed_out(self) -> None:
        """No head came within the window: respond 202."""
        self._stop()
        self.send_accepted(_PENDING)

    def send_accepted(self, head: EncodedHead) -> None:
        """Respond 202: the call goes on, and its response is to be asked for."""
        call = self.call
        body = view_body(call)
        access = self._access or self._page_access()
        if self.on_status is not None:
            self.on_status(202)
        lines = b"location: %b%b\r\n%b%b" % (
            REQUESTS_PATH,
            call.request_id.encode(),
            id_lines(head, call.request_id),
            self.own_lines,
        )
        if access is not None and access.is_seen:
            headers = access.of_own_response([*head.headers, *split_lines(lines)])
            head, lines = EncodedHead(202, headers, encode_lines(headers)), b""
        self._client.send_whole(head, lines, len(body), body)

    def send_problem(self, error: GatewayError) -> None:
        """Respond with the problem that is the call's end."""
        status, headers, body = problem_for(
            error, instance_of(self.call.target), self.call.request_id, id_header=False
        )
        self._send(status, headers, body)

    def _send(self, status: int, headers: Headers, body: bytes) -> None:
        headers = with_platform_headers(headers, status, self.call.request_id)
        if self.on_status is not None:
            self.on_status(status)
        access = self._access or self._page_access()
        if access is not None:
            headers = access.of_own_response(headers)
        client = self._client
        client.send_head(status, headers, len(body))
        if not self._is_head:
            client.send_data(body)
        client.send_end()

    def _page_access(self) -> PageAccess | None:
        invocation = self.call.invocation
        return None if invocation is None else invocation.page_access

    def _stop(self) -> None:
        self._windows.close(self)
        cursor, self.cursor = self.cursor, None
        if cursor is not None:
            self.call.leave(cursor)


class _EventFollower:
    """Looks for an event in what is recorded of a stream, and then calls back with its end."""

    def __init__(self, event_id: bytes, until: int, found: Callable[[int], None]) -> None:
        self._search = EventSearch(event_id)
        self._left = until
        self._found = found
        self.cursor: RecordingCursor | None = None

    def recorded_head(self, recording: Recording) -> None:  # noqa: ARG002
        """Begin to look, unless there is nothing yet."""
        if not self._left:
            self._found(0)

    def recorded_data(self, data: bytes) -> None:
        """Look at the next bytes."""
        self._search.add(data)
        self._left -= len(data)
        if self._left <= 0 and self.cursor is not None:
            self.cursor.leave()
            self._found(self._search.found_at or 0)

    def recorded_end(self) -> None:
        """Comes only after all bytes."""

    def recorded_broken(self) -> None:
        """The recording is lost: the exchange finds out when it follows."""
        self._found(0)


class FirstExchange(ResponseExchange):
    """The client that makes a call: its request goes to the invocation as it comes."""

    __slots__ = ("_terms",)

    def __init__(
        self, call: DetachedCall, client: ResponseWriter, windows: Windows, terms: Terms
    ) -> None:
        super().__init__(call, client, windows, None, is_head=False)
        self._terms = terms

    def start(self) -> None:
        """The invocation has begun: follow it at once, unless the client is to get 202."""
        if not self._terms.is_async or self.call.is_over:
            self.call.take_interim = self._client.send_interim
            self.begin(is_awaited=True)
        else:
            self.call.watch(self._failed_early)

    def request_data(self, data: bytes) -> None:
        """The next bytes of the request body."""
        if self.call.invocation is not None:
            self.call.invocation.request_data(data)

    def first_part_end(self) -> None:
        """All that came with the head is delivered."""
        if self.call.invocation is not None:
            self.call.invocation.first_part_end()

    def request_end(self) -> None:
        """The request is complete: from now on the call does not need this client."""
        call = self.call
        if call.invocation is not None:
            call.invocation.request_end()
        if not call.is_uploading:
            return
        call.uploaded()
        if not self._terms.is_async:
            return
        call.unwatch(self._failed_early)
        if self._terms.wait_s:
            self.begin(self._terms.wait_s)
        else:
            self._accept()

    def request_broken(self) -> None:
        """The client left: the call goes on if its request is complete."""
        if self.call.is_uploading:
            self._windows.close(self)
            self.call.upload_broken()
        else:
            super().request_broken()

    def timed_out(self) -> None:
        """The client has waited for as long as it wanted to."""
        self._stop()
        self._accept()

    def _accept(self) -> None:
        self.send_accepted(ACCEPTED)

    def _failed_early(self) -> None:
        """The call is over before its request is complete: there is nothing to accept."""
        call = self.call
        if call.is_over:
            call.unwatch(self._failed_early)
            self.begin()


def is_event_stream(headers: Headers) -> bool:
    """Return whether a response is a stream of server-sent events."""
    return any(
        name == CONTENT_TYPE and value.lower().startswith(EVENT_STREAM) for name, value in headers
    )
