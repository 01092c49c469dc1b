"""What a gateway tells of a call that waits: the events of ``GET /v2/requests/{id}/events``. Pure.

A call is made with ``Prefer: respond-async`` (RFC 7240 §4.1), so that its id is known while it
waits. Its events tell where it is, and its response is fetched when it has begun.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx

from invocation_client.origins import Origin

_PREFER = "respond-async"
_OF_CALL = re.compile(
    r"content-.*|if-.*|nvcf-.*|accept|accept-encoding|expect|idempotency-key|last-event-id|prefer|range"
    r"|te|transfer-encoding"
)
"""Headers that are about the call itself. The others, credentials of proxies and cookies among
them, the questions about it have too."""
_TOKEN = b"nvcf-token="
"""The credential in a URL."""
_WAITING = "queued"
_BEGUN = frozenset({"head", "done", "failed", "cancelled"})
"""Events after which the response, or the problem in its place, can be fetched."""
_LONGEST_POLL_S = 3600
MAX_EVENT_CHARACTERS = 65_536
MAX_BREAKS = 10
"""Times in a row that the connection of a call that waits may break off soon."""
_PAUSE_S = 0.2
_LASTING_S = 5.0
"""Events that broke off after so long had a connection that worked."""
_SILENCE_S = 45.0
"""A gateway that sends no events for so long is lost: it sends a comment every 15 s."""
_SOON_SENT_BYTES = 1 << 20
CANCEL_S = 5.0
"""For how long each step of a cancelling may take: its caller has given up."""


@dataclass(frozen=True, slots=True)
class QueueUpdate:
    """Where a call is.

    ``state`` is ``queued``, ``leased``, ``head``, or how it ended: ``done``, ``failed``,
    ``cancelled``. ``position`` is its rank in the queue, 1 for the next one, None if it is not
    known or does not wait. ``eta_s`` is in how many seconds a worker is expected to take it, None
    if that is not known.
    """

    request_id: str
    state: str
    position: int | None = None
    eta_s: int | None = None


OnUpdate = Callable[[QueueUpdate], object]


class EventReader:
    """Reads a stream of events, as HTML describes it. ``last_id`` is the id of the last event."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self._data = ""
        self._name = ""

    def read(self, line: str) -> tuple[QueueUpdate | None, bool]:
        """Take one line; return the update that it completes, and whether the response has begun.

        Raises `httpx.RemoteProtocolError` for data that is no JSON object, and for a long event.
        """
        if not line:
            name, data, self._name, self._data = self._name, self._data, "", ""
            return (None, False) if not data else (_update(name, data), name in _BEGUN)
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data += value
            if len(self._data) > MAX_EVENT_CHARACTERS:
                raise httpx.RemoteProtocolError("the event of a call is too long")
        elif field == "event":
            self._name = value
        elif field == "id":
            self.last_id = value
        return None, False


class Waiting:
    """A call that the gateway has accepted and that waits for its response.

    ``now`` is in seconds of a monotonic clock. ``has_begun``: its events have told that there is a
    response, or that it has ended.
    """

    def __init__(self, call: httpx.Request, url: httpx.URL, now: float) -> None:
        self._call = call
        self._url = url
        self._timeouts: Mapping[str, float | None] = call.extensions.get("timeout", {})
        self._read_s = self._timeouts.get("read")
        self._updated_at = now
        self._events_since: float | None = None
        self._breaks = 0
        self.reader = EventReader()
        self.has_begun = False

    def events(self) -> httpx.Request:
        """Return the request for its events, after the last one that was read."""
        self._events_since = None
        headers = {"accept": "text/event-stream"}
        if self.reader.last_id:
            headers["last-event-id"] = self.reader.last_id
        self.reader = EventReader(self.reader.last_id)
        silence_s = _SILENCE_S
        if self._read_s is not None:
            # A little longer than what `broken` looks at, so that this has passed by then.
            silence_s = min(silence_s, self._read_s + _PAUSE_S)
        return self._request("GET", b"/events", headers, {**self._timeouts, "read": silence_s})

    def response(self) -> httpx.Request:
        """Return the request for its response."""
        headers = {"nvcf-poll-seconds": str(_LONGEST_POLL_S)}
        for name in ("accept", "accept-encoding", "te"):
            if name in self._call.headers:
                headers[name] = self._call.headers[name]
        return self._request("GET", b"/response", headers, self._timeouts)

    def cancel(self) -> httpx.Request:
        """Return the request that cancels it."""
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), CANCEL_S)
        return self._request("DELETE", b"", {}, timeouts)

    def begin_events(self, now: float) -> None:
        """Its events are coming."""
        self._events_since = now

    def read(self, line: str, now: float) -> QueueUpdate | None:
        """Take one line of the events; return the update that it completes.

        Raises `httpx.ReadTimeout` if there was none for the read timeout of the call, and
        `httpx.RemoteProtocolError`.
        """
        update, self.has_begun = self.reader.read(line)
        if update is not None:
            self._updated_at = now
            self._breaks = 0
        self._check(now)
        return update

    def broken(self, now: float) -> float | None:
        """Return after how many seconds to ask again what broke off, None for no more.

        Raises `httpx.ReadTimeout` if there was no update for the read timeout of the call.
        """
        self._check(now)
        if self._events_since is not None and now - self._events_since >= _LASTING_S:
            self._breaks = 0
        self._breaks += 1
        return None if self._breaks > MAX_BREAKS else _PAUSE_S * self._breaks

    def _check(self, now: float) -> None:
        if self._read_s is not None and now - self._updated_at >= self._read_s:
            raise httpx.ReadTimeout("the call waited without an update for too long")

    def _request(
        self,
        method: str,
        path: bytes,
        headers: dict[str, str],
        timeouts: Mapping[str, float | None],
    ) -> httpx.Request:
        kept = [
            (name, value)
            for name, value in self._call.headers.multi_items()
            if not _OF_CALL.fullmatch(name)
        ]
        tokens = [part for part in self._call.url.query.split(b"&") if part.startswith(_TOKEN)]
        query = b"?" + b"&".join(tokens) if tokens else b""
        url = self._url.copy_with(raw_path=self._url.raw_path + path + query)
        extensions: dict[str, object] = {"timeout": timeouts}
        if "sni_hostname" in self._call.extensions:
            extensions["sni_hostname"] = self._call.extensions["sni_hostname"]
        return httpx.Request(method, url, headers=[*kept, *headers.items()], extensions=extensions)


def watched(call: httpx.Request) -> httpx.Request:
    """Return ``call`` so that the gateway accepts it before it has a response."""
    headers = call.headers.copy()
    prefer: Sequence[str] = headers.get_list("prefer")
    headers["prefer"] = ", ".join([*prefer, _PREFER])
    return httpx.Request(
        call.method, call.url, headers=headers, stream=call.stream, extensions=call.extensions
    )


def is_soon_sent(call: httpx.Request) -> bool:
    """Whether a caller that gives up can wait until ``call`` is accepted, to cancel it by its id.

    Otherwise its stream is reset, which ends it only if it is not complete by then.
    """
    length = call.headers.get("content-length", "0")
    return (
        isinstance(call.stream, httpx.ByteStream)
        and length.isdecimal()
        and int(length) <= _SOON_SENT_BYTES
    )


def waiting_call(call: httpx.Request, response: httpx.Response, now: float) -> Waiting | None:
    """Return the call that ``response`` accepts, None if it is the response itself.

    A call that is said to wait at another origin is none: that would get the call's credentials.
    """
    applied = response.headers.get("preference-applied", "")
    location = response.headers.get("location", "")
    if response.status_code != httpx.codes.ACCEPTED or _PREFER not in applied or not location:
        return None
    try:
        url = call.url.join(location)
        is_same = Origin.of(url) == Origin.of(call.url)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        return None
    return Waiting(call, url, now) if is_same else None


def is_passing(status: int) -> bool:
    """Whether the status of events says only that they cannot be had now."""
    return status == httpx.codes.TOO_MANY_REQUESTS or status >= 500


def _update(name: str, data: str) -> QueueUpdate:
    try:
        view = json.loads(data)
    except ValueError:
        view = None
    if not isinstance(view, dict):
        raise httpx.RemoteProtocolError("the event of a call is no JSON object")
    waits = name == _WAITING
    return QueueUpdate(
        str(view.get("requestId", "")),
        name,
        _number(view.get("position")) if waits else None,
        _number(view.get("etaSeconds")) if waits else None,
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
