"""The events of the SSE scenario: each contains its sending time, so that a client sees the delay.

An event is ``data: {"t":"<19 digits of CLOCK_MONOTONIC ns>","n":<number>,"text":"…"}`` and a blank
line, about the size of one token's chunk in OpenAI's format. Sender and receiver must run on one
machine, because they share its clock.
"""

import time

_PREFIX = b'data: {"t":"'
_STAMP_DIGITS = 19
_AFTER_STAMP = len(_PREFIX) + _STAMP_DIGITS
_NUMBER_AT = _AFTER_STAMP + len(b'","n":')
_TEXT = b"x" * 150
_END = b"\n\n"


class StreamError(Exception):
    """The stream differs from what was sent: an event is missing, repeated or cut."""


def encode_event(number: int) -> bytes:
    stamp_ns = time.monotonic_ns()
    return b'%b%019d","n":%d,"text":"%b"}%b' % (_PREFIX, stamp_ns, number, _TEXT, _END)


class EventReader:
    """Reads the body of an SSE response in pieces of any size and checks each event.

    ``delays_ns`` are the times from sending to receipt of each event; ``first_sent_ns`` is the
    sending time of the first event.
    """

    __slots__ = ("_rest", "delays_ns", "first_sent_ns")

    def __init__(self) -> None:
        self._rest = b""
        self.delays_ns: list[int] = []
        self.first_sent_ns = 0

    def feed(self, data: bytes, now_ns: int) -> None:
        """Read body bytes that arrived at ``now_ns``. Raises StreamError."""
        if self._rest:
            data = self._rest + data
        *events, self._rest = data.split(_END)
        delays_ns = self.delays_ns
        for event in events:
            number = len(delays_ns)
            head, _, _ = event[_NUMBER_AT:].partition(b",")
            if not event.startswith(_PREFIX) or head != b"%d" % number:
                raise StreamError(f"expected event {number}, got {event[:80]!r}")
            sent_ns = int(event[len(_PREFIX) : _AFTER_STAMP])
            if number == 0:
                self.first_sent_ns = sent_ns
            delays_ns.append(now_ns - sent_ns)

    def finish(self, events: int) -> None:
        """Raise StreamError unless exactly ``events`` events arrived."""
        if self._rest:
            raise StreamError(f"the stream ends inside an event: {self._rest[:80]!r}")
        if len(self.delays_ns) != events:
            raise StreamError(f"{len(self.delays_ns)} of {events} events arrived")
