"""The access log: one line per finished invocation, and of the calls that were refused before.

A finished invocation costs one f-string instead of a JSON encoder, because that runs for each.
Refused calls are cheap for those who make them, so of these at most `MAX_REFUSED` lines per second
and reason are written; what was left out is counted (`docs/operations.md`). A line has the path
without its query, and of the headers only the caller's request id and trace.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as _quote
from typing import NamedTuple

from gateway.invocation.machine import Invocation
from runtime.line_budget import LineBudget
from runtime.logs import LineWriter

LOGGER = "gateway.access"
FINISHED = "invocation.finished"
REFUSED = "request.refused"
LEFT_OUT = "request.refused_more"
MAX_REFUSED = 20
"""Lines per second for each reason."""
MAX_PATH_BYTES = 1024
MAX_ID_BYTES = 128
_TIMES = '"queue_ms":%.2f,"ttfb_ms":%.2f,"total_ms":%.2f'
_EMPTY = '""'
_NEVER_MS = -1.0
"""Written for a duration whose end was never reached."""
_MAX_CACHED = 10_000
"""Encoded texts in each cache; a full one is emptied."""
_QUESTION_MARK = ord("?")
_MILLIS = tuple(f"{number:03d}" for number in range(1001))
_NUMBERS = tuple(map(str, range(1000)))
"""Statuses and deliveries as text."""


class _Names(dict[str, str]):
    """Texts as JSON, for those of which there are few."""

    def __missing__(self, text: str) -> str:
        if len(self) >= _MAX_CACHED:
            self.clear()
        quoted = self[text] = _quote(text)
        return quoted


class _Values(dict[bytes, str]):
    """Bytes of a request head as JSON, cut to `MAX_PATH_BYTES`."""

    def __missing__(self, value: bytes) -> str:
        if len(self) >= _MAX_CACHED:
            self.clear()
        quoted = self[value] = _quote(_cut(value, MAX_PATH_BYTES))
        return quoted


class Refusal(NamedTuple):
    """A call that did not become an invocation; what is not known is empty.

    ``reason`` is the word of its problem document, ``target`` may have a query.
    """

    request_id: str
    status: int
    reason: str
    method: bytes = b""
    target: bytes = b""
    client: str = ""
    function_id: str = ""
    key_id: str = ""
    trace: bytes = b""
    caller_request_id: bytes = b""


class AccessLog:
    """Formats the lines and passes them to a buffered writer, which never blocks the loop.

    ``wall`` returns Unix time in seconds.
    """

    __slots__ = (
        "_names",
        "_offset_s",
        "_refused",
        "_second",
        "_second_text",
        "_values",
        "_wall",
        "_write",
    )

    def __init__(self, writer: LineWriter, wall: Callable[[], float]) -> None:
        self._write = writer.write
        self._wall = wall
        self._second = -1
        self._offset_s = 0.0
        self._second_text = ""
        self._names = _Names()
        self._values = _Values()
        self._refused = LineBudget(MAX_REFUSED)

    def write(self, invocation: Invocation, now: float) -> None:
        """Write the line of a finished invocation; ``now`` is loop time."""
        wall_s = now + self._offset_s
        if (second := int(wall_s)) != self._second:
            wall_s = self._wall()
            second = self._begin_second(wall_s, now)
        names, values = self._names, self._values
        caller = invocation.caller
        version = caller.version
        outcome = invocation.outcome
        received_at, head_at = invocation.received_at, invocation.head_at
        path = invocation.target
        if _QUESTION_MARK in path:
            path = path.partition(b"?")[0]
        attached_at, worker_s = invocation.attached_at, invocation.worker_s
        if not attached_at:
            queue_ms = _NEVER_MS
        elif worker_s > 0.0:
            waited_s = attached_at - invocation.offered_at - worker_s
            queue_ms = waited_s * 1e3 if waited_s > 0.0 else 0.0
        else:
            queue_ms = (attached_at - invocation.offered_at) * 1e3
        if invocation.is_direct:
            dispatch = "direct"
        else:
            dispatch = "queued" if invocation.response_token else ""
        detached = f'"detached":"{invocation.detached}",' if invocation.detached else ""
        ttfb_ms = (head_at - received_at) * 1e3 if head_at else _NEVER_MS
        # Twice as fast as in an f-string.
        times = _TIMES % (queue_ms, ttfb_ms, (now - received_at) * 1e3)
        trace_id = invocation.trace[3:35]
        caller_id = invocation.caller_request_id
        caller_id_text = _quote(caller_id[:MAX_ID_BYTES].decode("latin-1")) if caller_id else _EMPTY
        self._write(
            f'{{"ts":"{self._second_text}.{_MILLIS[int((wall_s - second) * 1e3)]}Z",'
            '"level":"info","logger":"gateway.access","event":"invocation.finished",'
            f'"request_id":"{invocation.request_id}",'
            f'"method":{values[invocation.method]},"path":{values[path]},'
            f'"client":"{invocation.source.address}",'
            f'"function_id":"{version.function_id}",'
            f'"function_version_id":"{version.version_id}",'
            f'"nca_id":{names[caller.account]},"key_id":{names[caller.key_id]},'
            f'"instance_id":{values[invocation.instance]},'
            f'"dispatch":"{dispatch}",{detached}"deliveries":{invocation.deliveries},'
            f'"outcome":"{outcome.text if outcome is not None else ""}",'
            f'"status":{_NUMBERS[invocation.status]},'
            f'"request_bytes":{invocation.request_bytes},'
            f'"response_bytes":{invocation.response_bytes},'
            f"{times},"
            f'"trace_id":"{trace_id.decode() if trace_id.isalnum() else ""}",'
            f'"caller_request_id":{caller_id_text}}}\n'
        )

    def write_refusal(self, refusal: Refusal) -> None:
        """Write the line of a refused call. Call it only if `takes_refusal` says so."""
        self._write_event(
            REFUSED,
            {
                "request_id": refusal.request_id,
                "method": _cut(refusal.method, MAX_ID_BYTES),
                "path": _cut(refusal.target.partition(b"?")[0], MAX_PATH_BYTES),
                "client": refusal.client,
                "function_id": refusal.function_id,
                "key_id": refusal.key_id,
                "status": refusal.status,
                "reason": refusal.reason,
                "trace_id": trace_id_of(refusal.trace),
                "caller_request_id": _cut(refusal.caller_request_id, MAX_ID_BYTES),
            },
        )

    def takes_refusal(self, reason: str) -> bool:
        """Whether one more line with this reason is to be written now; count it if not."""
        self.tick()
        return self._refused.takes(reason)

    def tick(self) -> None:
        """Begin a new second if there is one, and say what the last one left out."""
        for reason, count in self._refused.begin(int(self._wall())):
            self._write_event(LEFT_OUT, {"reason": reason, "count": count})

    def _write_event(self, event: str, fields: dict[str, object]) -> None:
        wall_s = self._wall()
        ts = datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
        line = {"ts": ts, "level": "info", "logger": LOGGER, "event": event, **fields}
        self._write(f"{json.dumps(line, separators=(',', ':'))}\n")

    def _begin_second(self, wall_s: float, now: float) -> int:
        """Compare the two clocks, once per second: reading both for each line costs more."""
        self._offset_s = wall_s - now
        second = self._second = int(wall_s)
        self._second_text = datetime.fromtimestamp(second, UTC).isoformat()[:-6]
        return second


def trace_id_of(traceparent: bytes) -> str:
    """Return the trace id in a ``traceparent`` (W3C Trace Context), empty if it has none."""
    trace_id = traceparent[3:35]
    return trace_id.decode() if trace_id.isalnum() else ""


def _cut(value: bytes, max_bytes: int) -> str:
    return value[:max_bytes].decode("latin-1")
