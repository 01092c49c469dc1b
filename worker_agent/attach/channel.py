"""One channel to a gateway process: calls in, responses out (`docs/wire.md` §20).

What the gateway process has not confirmed is kept: if the connection breaks, the worker opens it
again, sends that once more, and names the calls that it still runs. The lease of a request of the
queue ends when its response is confirmed. Pure.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from wire.channel import (
    MAX_RESPONSE_BYTES,
    MAX_TRAILER_BYTES,
    CallFrame,
    FrameError,
    FrameLink,
    Kind,
    Reason,
    decode_count,
    encode_count,
    encode_frame,
    encode_queued_response,
    encode_response,
    encode_running,
)
from worker_agent.job.context import Delivery

MAX_UNCONFIRMED_BYTES = 8 << 20
"""With more than that unconfirmed, responses are delivered by POST attach."""


class Calls(Protocol):
    """Takes the calls of all channels."""

    def offered(self) -> int:
        """Return how many further calls a gateway process may send now."""

    def on_call(self, channel: "AgentChannel", number: int, call: CallFrame) -> None:
        """Run a call, or give it back. Raises `wire.envelope.EnvelopeError`."""

    def on_cancel(self, request_id: str) -> None:
        """Nobody waits for a call any more."""


class AgentChannel:
    """A channel; a `wire.channel.FrameUser`. ``uri`` is the address of the gateway process.

    ``running`` are the request ids of the calls that have no response yet, by number. ``link`` is
    None while the connection is broken; ``is_resuming``: the gateway process has not said yet which
    responses it has. ``used_at`` is set by who uses it.
    """

    __slots__ = (
        "_announced",
        "_calls",
        "_confirmed",
        "_last_number",
        "_looked",
        "_on_lost",
        "_unconfirmed",
        "_unconfirmed_bytes",
        "_untold",
        "is_resuming",
        "key",
        "link",
        "running",
        "uri",
        "used_at",
    )

    def __init__(
        self, uri: bytes, calls: Calls, on_lost: "Callable[[AgentChannel], object]"
    ) -> None:
        """``on_lost`` is called when the connection breaks."""
        self.uri = uri
        self.key = ""
        self.link: FrameLink | None = None
        self.is_resuming = False
        self.running: dict[int, str] = {}
        self.used_at = 0.0
        self._calls = calls
        self._on_lost = on_lost
        self._last_number = self._announced = self._confirmed = 0
        # Each response with its job, if that is to end when it is confirmed.
        self._unconfirmed: deque[tuple[bytes, Delivery | None]] = deque()
        self._unconfirmed_bytes = 0
        # What was given back while there was no connection.
        self._untold: list[bytes] = []
        self._looked = (0, 0.0)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.uri.decode()} running={len(self.running)}>"

    def linked(self, link: FrameLink, key: str, *, is_resumed: bool) -> None:
        """The connection is open."""
        self.link = link
        self.key = key
        self.is_resuming = is_resumed
        self._announced = self._last_number
        if not is_resumed:
            link.send_last()

    # The agent

    def takes(self, job: Delivery) -> bool:
        """Return whether the whole response of a job can be delivered here.

        That of a call of this channel can while its connection is broken, too: it is sent later.
        """
        envelope, link = job.envelope, self.link
        is_full = self._unconfirmed_bytes > MAX_UNCONFIRMED_BYTES
        is_long = len(job.response) > MAX_RESPONSE_BYTES or len(job.trailers) > MAX_TRAILER_BYTES
        if is_full or is_long:
            return False
        if envelope.channel_call:
            return self.key == envelope.response_token
        return (
            link is not None
            and not link.is_writing_paused
            and not self.is_resuming
            and bool(job.response)
        )

    def respond(self, job: Delivery, leased_us: int) -> None:
        """Send the whole response of a job, and end the job: if need be, once it is confirmed."""
        number = job.envelope.channel_call
        if number:
            self.running.pop(number, None)
            frame = encode_response(number, job.fault, leased_us, job.response, job.trailers)
        else:
            request_id = job.request_id.encode()
            frame = encode_queued_response(
                request_id, job.fault, leased_us, job.response, job.trailers
            )
        self._unconfirmed.append((frame, None if number else job))
        self._unconfirmed_bytes += len(frame)
        if self.link is not None and not self.is_resuming:
            self.link.send(frame)
        if number:
            # If it is lost, the gateway process gives the call to another worker.
            job.post_answered(200)

    def give_back(self, number: int, reason: Reason) -> None:
        """Tell that a call has no response, unless it has one."""
        if self.running.pop(number, None) is None:
            return
        frame = encode_frame(Kind.BUSY, number, bytes((reason,)))
        if self.link is not None and not self.is_resuming:
            self.link.send(frame)
        else:
            self._untold.append(frame)

    def forget(self, number: int) -> None:
        """A call is over, and the gateway process knows it."""
        self.running.pop(number, None)

    def leased(self, request_id: str) -> None:
        """Tell that a request was leased from the queue."""
        if self.link is not None:
            self.link.send(encode_frame(Kind.LEASED, 0, request_id.encode()))

    def offer_changed(self, offered: int) -> None:
        """Tell the gateway process how many calls it may send, if that matters to it."""
        announced = self._announced - self._last_number
        if self.link is not None and offered.bit_length() != announced.bit_length():
            self.link.send_last()

    def tell(self, offered: int) -> None:
        """Tell the gateway process how many calls it may send, unless it knows."""
        if self.link is not None and offered != self._announced - self._last_number:
            self.link.send_last()

    def is_in_use(self) -> bool:
        """Return whether a call runs, or a response is not confirmed."""
        return bool(self.running or self._unconfirmed)

    def silent_s(self, now: float) -> float:
        """Return for how long the gateway process has confirmed no response, though it should.

        To be called about once a second, with the time in seconds.
        """
        confirmed, since = self._looked
        if confirmed != self._confirmed or not self._unconfirmed or self.link is None:
            self._looked = (self._confirmed, now)
            return 0.0
        return now - since

    def lose(self) -> tuple[list[str], list[Delivery]]:
        """Forget everything: the gateway process does not let the channel be opened again.

        Return the request ids of the calls that still run, and the jobs of requests of the queue
        whose responses may not have arrived.
        """
        running, self.running = list(self.running.values()), {}
        jobs = [job for _, job in self._unconfirmed if job is not None]
        self._unconfirmed.clear()
        self._untold.clear()
        self._unconfirmed_bytes = 0
        return running, jobs

    # The gateway process

    def on_frame(self, kind: int, number: int, payload: bytes) -> None:
        """Take one frame. Raises `FrameError`."""
        if kind == Kind.CALL:
            if number <= self._last_number:
                raise FrameError("The number of a call is not new")
            call = CallFrame(payload)
            self._last_number = number
            if call.confirmed > self._confirmed:
                self._confirm(call.confirmed)
            self.running[number] = call.request_id
            self._calls.on_call(self, number, call)
        elif kind == Kind.CANCEL:
            request_id = self.running.pop(number, None)
            if request_id is not None:
                self._calls.on_cancel(request_id)
        elif kind == Kind.CONFIRM:
            self._confirm(decode_count(payload))
            if self.is_resuming:
                received = self._last_number
                # What was sent and has not arrived counts as sent.
                self._last_number = max(received, number)
                self._resume(received)
        elif kind == Kind.PING and self.link is not None:
            self.link.send(encode_frame(Kind.PONG, 0))

    def last_frame(self) -> bytes:
        """Return how many calls the gateway process may send in all, if that has changed."""
        limit = self._last_number + self._calls.offered()
        if limit == self._announced or self.is_resuming:
            return b""
        self._announced = limit
        return encode_count(Kind.SLOTS, limit)

    def link_lost(self, link: object) -> None:
        """A connection is over."""
        if link is self.link:
            self.link = None
            self._on_lost(self)

    def _resume(self, received: int) -> None:
        """Send what may not have arrived, and name what still runs."""
        self.is_resuming = False
        if self.link is None:
            return
        for frame, _ in self._unconfirmed:
            self.link.send(frame)
        for frame in self._untold:
            self.link.send(frame)
        self._untold.clear()
        self.link.send(encode_running(received, list(self.running)))

    def _confirm(self, count: int) -> None:
        unconfirmed = self._unconfirmed
        while self._confirmed < count and unconfirmed:
            frame, job = unconfirmed.popleft()
            self._unconfirmed_bytes -= len(frame)
            self._confirmed += 1
            if job is not None:
                job.post_answered(200)


class ChannelLease:
    """A `queueing.interface.Lease` of a call that came over a channel.

    The queue knows nothing of it: what becomes of the call is told over the channel, when its job
    is over.
    """

    __slots__ = ("channel", "envelope", "request_id")

    deliveries = 1

    def __init__(self, channel: AgentChannel, request_id: str) -> None:
        self.channel = channel
        self.request_id = request_id
        self.envelope = b""

    def is_over(self) -> bool:
        """The gateway process tells it."""
        return False

    def followers(self) -> int:
        """Nothing waits behind a call that a free slot got."""
        return 0

    def stored_at_ns(self) -> int:
        """No broker has stored it."""
        return 0

    def is_first_known(self) -> bool:
        """Its gateway process counts the deliveries."""
        return True

    def in_progress(self) -> None:
        """It has no end that could be put off."""

    def ack(self) -> None:
        """The channel is told when the job is over."""

    def nak(self, delay_s: float = 0.0) -> None:
        """The same."""

    def term(self) -> None:
        """The same."""
