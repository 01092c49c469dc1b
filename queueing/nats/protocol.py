"""The NATS client protocol without I/O (docs.nats.io, "Client Protocol"; ADR-4 for headers).

`Parser` takes bytes in buffers of any size and calls one handler per message, found by subscription
id; all other protocol lines go to a `Control`. Each encoder returns one complete frame.
"""

import re
from collections.abc import Callable
from typing import Protocol

MAX_LINE_BYTES = 1 << 20
"""One protocol line. INFO is the only long one: it lists every server of a cluster."""

MAX_MESSAGE_BYTES = 64 << 20
"""The largest ``max_payload`` that nats-server accepts."""

STATUS_HEARTBEAT = 100
STATUS_BAD_REQUEST = 400
STATUS_NOT_FOUND = 404
STATUS_TIMEOUT = 408
STATUS_CONFLICT = 409
STATUS_NO_RESPONDERS = 503

PING = b"PING\r\n"
PONG = b"PONG\r\n"

_M, _H = b"MH"

_VIOLATION = re.compile(
    r'permissions violation for (?:publish|subscription) to "([^"]+)"', re.IGNORECASE
)

MessageHandler = Callable[[bytes, bytes, bytes, bytes], None]
"""Called with subject, reply subject, headers and payload; a missing part is empty."""


class ProtocolError(Exception):
    """The server sent something that is not the NATS protocol. The connection must end."""


class Control(Protocol):
    """What is called for protocol lines that are not messages."""

    def on_info(self, document: bytes) -> None:
        """INFO with its JSON: the first line, and again whenever the cluster changes."""

    def on_ping(self) -> None:
        """PING: the server expects a PONG."""

    def on_pong(self) -> None:
        """PONG: the server has processed everything before our oldest open PING."""

    def on_error(self, text: str) -> None:
        """-ERR: an error; the server closes the connection after most of them."""

    def on_handler_failed(self, error: Exception) -> None:
        """A handler raised."""


class Parser:
    """Parses the bytes of one server and calls handlers.

    ``handlers`` is shared with the owner, which adds and removes subscriptions; messages for
    unknown subscriptions are dropped. A handler must not call `feed`. After `ProtocolError` the
    parser is unusable.
    """

    __slots__ = ("_control", "_handlers", "_have", "_need", "_parts", "messages")

    def __init__(self, control: Control, handlers: dict[bytes, MessageHandler]) -> None:
        self._control = control
        self._handlers = handlers
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0
        self.messages = 0

    def feed(self, data: bytes) -> None:
        """Parse received bytes. Raises `ProtocolError`."""
        if self._have:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._parts)
            self._parts.clear()
            self._have = 0
        start = 0
        size = len(data)
        while start < size:
            end = data.find(b"\r\n", start)
            if end < 0:
                if size - start > MAX_LINE_BYTES:
                    raise ProtocolError("endless line")
                self._keep(data, start, 1 + size - start)
                return
            kind = data[start]
            if kind == _M or kind == _H:
                fields = data[start:end].split()
                body = end + 2
                stop = body + _length(fields[-1])
                if stop + 2 > size:
                    self._keep(data, start, stop + 2 - start)
                    return
                self.messages += 1
                if kind == _M:
                    self._message(fields, data[body:stop])
                else:
                    self._message_with_headers(fields, data, body, stop)
                start = stop + 2
            else:
                self._line(data[start:end])
                start = end + 2

    def _keep(self, data: bytes, start: int, need: int) -> None:
        self._parts.append(data[start:])
        self._have = len(data) - start
        self._need = need

    def _message(self, fields: list[bytes], payload: bytes) -> None:
        count = len(fields)
        if fields[0] != b"MSG" or not 4 <= count <= 5:
            raise ProtocolError(f"bad line {fields!r:.80}")
        handler = self._handlers.get(fields[2])
        if handler is None:
            return
        try:
            handler(fields[1], fields[3] if count == 5 else b"", b"", payload)
        except Exception as error:  # noqa: BLE001 - a handler's bug must not cost the messages behind it
            self._control.on_handler_failed(error)

    def _message_with_headers(self, fields: list[bytes], data: bytes, body: int, stop: int) -> None:
        count = len(fields)
        if fields[0] != b"HMSG" or not 5 <= count <= 6:
            raise ProtocolError(f"bad line {fields!r:.80}")
        split = body + _length(fields[-2])
        if split > stop:
            raise ProtocolError("headers longer than their message")
        handler = self._handlers.get(fields[2])
        if handler is None:
            return
        try:
            handler(fields[1], fields[3] if count == 6 else b"", data[body:split], data[split:stop])
        except Exception as error:  # noqa: BLE001 - as above
            self._control.on_handler_failed(error)

    def _line(self, line: bytes) -> None:
        kind, _, rest = line.partition(b" ")
        kind = kind.upper()
        if kind == b"PING":
            self._control.on_ping()
        elif kind == b"PONG":
            self._control.on_pong()
        elif kind == b"INFO":
            self._control.on_info(rest.strip())
        elif kind == b"-ERR":
            self._control.on_error(rest.decode("utf-8", "replace").strip().strip("'"))
        elif kind != b"+OK":
            raise ProtocolError(f"unknown line {line[:80]!r}")


def _length(digits: bytes) -> int:
    # int() takes too long for a number with many more digits than MAX_MESSAGE_BYTES has.
    length = int(digits) if digits.isdigit() and len(digits) < 10 else -1
    if not 0 <= length <= MAX_MESSAGE_BYTES:
        raise ProtocolError(f"message of {digits[:20]!r} bytes")
    return length


def encode_publish(subject: bytes, reply: bytes, payload: bytes) -> bytes:
    """Return a PUB frame; ``reply`` may be empty."""
    if reply:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)
    return b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload)


def encode_publish_with_headers(
    subject: bytes, reply: bytes, headers: bytes, payload: bytes
) -> bytes:
    """Return an HPUB frame; ``reply`` is not empty, ``headers`` a whole block (ADR-4)."""
    size = len(headers)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
        subject,
        reply,
        size,
        size + len(payload),
        headers,
        payload,
    )


def encode_subscribe(subject: bytes, sid: bytes, group: bytes = b"") -> bytes:
    """Return a SUB frame; each message goes to one member of a ``group``."""
    if group:
        return b"SUB %b %b %b\r\n" % (subject, group, sid)
    return b"SUB %b %b\r\n" % (subject, sid)


def encode_unsubscribe(sid: bytes) -> bytes:
    """Return an UNSUB frame."""
    return b"UNSUB %b\r\n" % sid


def encode_connect(document: bytes) -> bytes:
    """Return a CONNECT frame."""
    return b"CONNECT %b\r\n" % document


def status_of(headers: bytes) -> int:
    """Return the status in the first line of a header block, 0 if there is none."""
    code = headers[9:12]
    if headers[:9] == b"NATS/1.0 " and code.isdigit() and len(code) == 3:
        return int(code)
    return 0


def description_of(headers: bytes) -> str:
    """Return the text after the status: of ``NATS/1.0 409 Consumer Deleted`` the last two words."""
    return headers[12 : max(headers.find(b"\r\n"), 12)].decode("utf-8", "replace").strip()


def header_value(headers: bytes, name: bytes) -> bytes | None:
    """Return the first value of ``name``, which is case-sensitive (ADR-4)."""
    start = headers.find(b"\r\n%b:" % name)
    if start < 0:
        return None
    start += len(name) + 3
    end = headers.find(b"\r\n", start)
    return headers[start : end if end >= 0 else len(headers)].strip()


def denied_subject(error: str) -> bytes:
    """Return the subject of a permissions violation, empty for any other ``-ERR``."""
    found = _VIOLATION.search(error)
    return b"" if found is None else found[1].encode()


def is_login_refused(error: str) -> bool:
    """Whether an ``-ERR`` in response to CONNECT says that the login is not accepted."""
    return error.casefold().startswith("authorization violation")


def is_slow_consumer(error: str) -> bool:
    """Whether an ``-ERR`` says that we do not read fast enough.

    The protocol has this error, but nats-server 2 does not send it: it closes the connection.
    """
    return error.casefold().startswith("slow consumer")
