"""What a gateway tells of a call that waits: the events of ``GET /v2/requests/{id}/events``. Pure.

A call is made with ``Prefer: respond-async`` (RFC 7240 §4.1), so that its id is known while it
waits. Its events tell where it is, and its response is fetched when it has begun.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

_PREFER = "respond-async"
_KEPT = frozenset({"host", "authorization", "function-id", "function-version-id", "user-agent"})
"""Headers of the call that the questions about it have too."""
_WAITING = "queued"
_BEGUN = frozenset({"head", "done", "failed", "cancelled"})
"""Events after which the response, or the problem in its place, can be fetched."""
_LONGEST_POLL_S = 3600
MAX_EVENT_CHARACTERS = 65_536
MAX_BREAKS = 10
"""Times in a row that the events of a call may break off before one of them has come."""
_PAUSE_S = 0.2


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
    """A call that the gateway has accepted and that waits for its response."""

    def __init__(self, call: httpx.Request, location: str) -> None:
        self._call = call
        self._url = call.url.join(location)
        self.reader = EventReader()

    def events(self) -> httpx.Request:
        """Return the request for its events, after the last one that was read."""
        headers = {"accept": "text/event-stream"}
        if self.reader.last_id:
            headers["last-event-id"] = self.reader.last_id
        self.reader = EventReader(self.reader.last_id)
        return self._request("GET", "/events", headers)

    def response(self) -> httpx.Request:
        """Return the request for its response."""
        accept = self._call.headers.get("accept", "*/*")
        headers = {"accept": accept, "nvcf-poll-seconds": str(_LONGEST_POLL_S)}
        if "accept-encoding" in self._call.headers:
            headers["accept-encoding"] = self._call.headers["accept-encoding"]
        return self._request("GET", "/response", headers)

    def cancel(self) -> httpx.Request:
        """Return the request that cancels it."""
        return self._request("DELETE", "", {})

    def _request(self, method: str, path: str, headers: dict[str, str]) -> httpx.Request:
        kept = {name: value for name, value in self._call.headers.items() if name in _KEPT}
        url = self._url.copy_with(raw_path=self._url.raw_path + path.encode())
        # Events may be silent for as long as the call is.
        extensions = {"timeout": {**self._call.extensions.get("timeout", {}), "read": None}}
        return httpx.Request(method, url, headers={**kept, **headers}, extensions=extensions)


def watched(call: httpx.Request) -> httpx.Request:
    """Return ``call`` so that the gateway accepts it before it has a response."""
    headers = call.headers.copy()
    prefer: Sequence[str] = headers.get_list("prefer")
    headers["prefer"] = ", ".join([*prefer, _PREFER])
    return httpx.Request(
        call.method, call.url, headers=headers, stream=call.stream, extensions=call.extensions
    )


def waiting_call(call: httpx.Request, response: httpx.Response) -> Waiting | None:
    """Return the call that ``response`` accepts, None if it is the response itself."""
    applied = response.headers.get("preference-applied", "")
    location = response.headers.get("location", "")
    if response.status_code != httpx.codes.ACCEPTED or _PREFER not in applied or not location:
        return None
    return Waiting(call, location)


def pause_s(breaks: int) -> float:
    """Return how long to wait before the events are asked for again."""
    return _PAUSE_S * breaks


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
