"""The clients of polled calls: the one that makes the call, and those that poll.

They are clients like the others of `gateway.requests.exchanges`, but for what they get at the end
of their windows, and for what becomes of the call when they leave (`docs/wire.md` §24.2).
"""

from collections.abc import Callable

from gateway.invocation.polled import CallProgress
from gateway.requests.detached import DetachedCall
from gateway.requests.exchanges import FirstExchange, ResponseExchange, Windows
from gateway.requests.nvcf_paths import status_path
from gateway.requests.polled_call import PolledCall
from gateway.requests.prefer import Terms
from gateway.routing.cross_origin import PageAccess
from http1.stream import NO_TRAILERS, EncodedHead, Headers, ResponseWriter, TakeChunk
from wire.headers import CONTENT_TYPE, LOCATION, NVCF_PERCENT_COMPLETE

_JSON = b"application/json"
_EMPTY = b"{}"
"""The body of a 202 without a partial response: SDKs fail on an empty one."""
_ATTACHED = Terms()

CLIENT_GONE_STATUS = 499
"""Counted, never sent: the client left before its response head."""
Ended = Callable[[int], object]
"""Called with the status of an exchange that is over."""


class WatchedWriter:
    """A `http1.stream.ResponseWriter` that passes everything on, and tells of the end."""

    __slots__ = ("_client", "_ended", "_status")

    def __init__(self, client: ResponseWriter, ended: Ended) -> None:
        self._client = client
        self._ended: Ended | None = ended
        self._status = CLIENT_GONE_STATUS

    def end(self) -> None:
        """The exchange is over, whoever ended it."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self._status)

    def cancel(self) -> None:
        """There was no exchange: its request is refused in another way."""
        self._status = 0
        self.end()

    def send_interim(self, status: int, headers: Headers) -> None:
        """Pass it on."""
        self._client.send_interim(status, headers)

    def send_head(self, status: int, headers: Headers, body_bytes: int | None) -> None:
        """Pass it on."""
        self._status = status
        self._client.send_head(status, headers, body_bytes)

    def send_whole(
        self,
        head: EncodedHead,
        more_lines: bytes,
        body_bytes: int | None,
        body: bytes,
        trailers: Headers = NO_TRAILERS,
    ) -> None:
        """Pass it on."""
        self._status = head.status
        self._client.send_whole(head, more_lines, body_bytes, body, trailers)
        self.end()

    def send_data(self, data: bytes) -> None:
        """Pass it on."""
        self._client.send_data(data)

    def send_chunk(self, chunk: bytes, size: int) -> None:
        """Pass it on."""
        self._client.send_chunk(chunk, size)

    def add_trailers(self, trailers: Headers) -> None:
        """Pass them on."""
        self._client.add_trailers(trailers)

    def send_end(self) -> None:
        """Pass it on."""
        self._client.send_end()
        self.end()

    def abort(self) -> None:
        """Pass it on."""
        self._client.abort()
        self.end()

    def open_tunnel(self, headers: Headers) -> None:
        """Pass it on."""
        self._client.open_tunnel(headers)

    def hand_over(self, headers: Headers, successor: object) -> None:
        """Pass it on."""
        self._client.hand_over(headers, successor)

    def pass_chunks(self, take_chunk: TakeChunk) -> None:
        """Pass it on."""
        self._client.pass_chunks(take_chunk)

    def pause_reading(self) -> None:
        """Pass it on."""
        self._client.pause_reading()

    def resume_reading(self) -> None:
        """Pass it on."""
        self._client.resume_reading()

    def is_writing_paused(self) -> bool:
        """Return what the client says."""
        return self._client.is_writing_paused()


def watch(
    call: DetachedCall, client: ResponseWriter, count: Callable[[int], object]
) -> WatchedWriter:
    """Let a client of ``call`` come; return what it writes to, which notices that it goes."""
    if isinstance(call, PolledCall):
        call.came()

    def ended(status: int) -> None:
        if isinstance(call, PolledCall):
            call.went()
        if status:
            count(status)

    return WatchedWriter(client, ended)


def pending_response(call: DetachedCall, *, is_exec: bool) -> tuple[Headers, bytes]:
    """Return headers and body of the 202 for a call that has no response yet."""
    progress = call.progress if isinstance(call, PolledCall) else CallProgress()
    headers: Headers = [
        (CONTENT_TYPE, (progress.content_type if progress.body else b"") or _JSON),
        (LOCATION, status_path(call.request_id, is_exec=is_exec)),
    ]
    if progress.percent is not None:
        headers.append((NVCF_PERCENT_COMPLETE, b"%d" % progress.percent))
    return headers, progress.body or _EMPTY


class PollExchange(ResponseExchange):
    """A client that polls. What it gets is written to ``watched``, perhaps in an envelope."""

    __slots__ = ("_is_exec", "_watched")

    def __init__(
        self,
        call: DetachedCall,
        client: ResponseWriter,
        windows: Windows,
        access: PageAccess | None,
        watched: WatchedWriter,
        *,
        is_exec: bool,
    ) -> None:
        """``client`` writes to ``watched``, which writes to the connection."""
        super().__init__(call, client, windows, access)
        self._watched = watched
        self._is_exec = is_exec

    def timed_out(self) -> None:
        """No head came within the window."""
        self._stop()
        self._send(202, *pending_response(self.call, is_exec=self._is_exec))

    def request_broken(self) -> None:
        """The client left: another one may come."""
        super().request_broken()
        self._watched.end()


class FirstPollExchange(FirstExchange):
    """The client that makes the call. If it leaves without a 202, nobody knows of the call.

    Its window begins when its request is complete.
    """

    __slots__ = ("_is_exec", "_watched", "_window_s")

    def __init__(  # noqa: PLR0913 - one argument per part
        self,
        call: PolledCall,
        client: ResponseWriter,
        windows: Windows,
        access: PageAccess,
        watched: WatchedWriter,
        window_s: float,
        *,
        is_exec: bool,
    ) -> None:
        """The arguments are those of `PollExchange`."""
        super().__init__(call, client, windows, _ATTACHED)
        self._access = access
        self._watched = watched
        self._window_s = window_s
        self._is_exec = is_exec

    def request_end(self) -> None:
        """The request is complete: wait for the response, unless there is one."""
        super().request_end()
        if self.cursor is not None and not self.call.recording.status:
            self._windows.open(self, self._window_s)

    def timed_out(self) -> None:
        """No head came within the window."""
        self.call.is_kept = True
        self._stop()
        self._send(202, *pending_response(self.call, is_exec=self._is_exec))

    def request_broken(self) -> None:
        """The client left."""
        self._stop()
        super().request_broken()
        self.abandon()
        self._watched.end()

    def abandon(self) -> None:
        """Cancel the call, which nobody can poll, or whose response is cut off."""
        self.call.cancel()
