"""A connection that threads share: their calls act on it at once, one thread of its own reads.

Whoever changes something sends it, as far as the socket takes it without waiting; the reader thread
sends the rest, keeps the time and closes the socket. All of it happens under one lock, so no two
threads use the TLS object at a time. The garbage collector closes responses too, in any thread and
between any two lines, so also where the lock is held: closing never waits for it.
"""

import selectors
import socket
import ssl
import threading
from collections import deque
from contextlib import suppress
from time import monotonic

import httpx

from invocation_client.connection import CallStream, ConnectionCore, ConnectionPhase
from invocation_client.failures import CallFailed
from invocation_client.request_head import Fields

_READ_BYTES = 65_536
_READS_PER_TURN = 16
_MAX_UNSENT_BYTES = 262_144
"""A call that sends a body waits while more than this waits for the socket."""
_LONGEST_SLEEP_S = 3600.0
"""Selectors refuse to sleep for months."""
_BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class SyncConnection:
    """``connected`` is a socket after TLS and CONNECT; ``first`` what was read from it already."""

    def __init__(self, connected: socket.socket, core: ConnectionCore, first: bytes = b"") -> None:
        connected.setblocking(False)
        self._socket = connected
        self._core = core
        self._lock = threading.Lock()
        self._started = threading.Condition(self._lock)
        self._calls: dict[CallStream, SyncCall] = {}
        self._given_up: deque[SyncCall] = deque()
        self._unsent = bytearray()
        self._can_send = True
        self._sleeps_until: float | None = None
        self._watches_writes = False
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._is_over = False
        if first:
            core.receive(first, monotonic())
        self._thread = threading.Thread(
            target=self._run, name="invocation_client.reader", daemon=True
        )
        self._thread.start()

    @property
    def can_open(self) -> bool:
        """Whether one more call may begin."""
        with self._lock:
            return self._core.can_open

    @property
    def is_closed(self) -> bool:
        """Whether the connection is of no use any more."""
        return self._core.phase is ConnectionPhase.CLOSED

    def wait_started(self, deadline: float | None) -> None:
        """Wait for the server's SETTINGS.

        Raises `TimeoutError`, and `CallFailed` if the connection failed before.
        """
        with self._lock:
            while self._core.phase is ConnectionPhase.STARTING:
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self._started.wait(left)
            if (refusal := self._core.refusal) is not None:
                raise CallFailed(refusal)

    def open(self, fields: Fields, *, is_whole: bool) -> "SyncCall | None":
        """Begin a call; None if the connection takes no more."""
        with self._lock:
            if not self._core.can_open:
                return None
            stream = self._core.open(fields, monotonic(), is_whole=is_whole)
            call = self._calls[stream] = SyncCall(self, stream, self._lock)
            self._pump()
            return call

    def close(self) -> None:
        """Close the connection, and wait until it is."""
        with self._lock:
            self._core.close()
            self._pump()
        self._thread.join()

    def abandon(self) -> None:
        """Leave the socket to the process from which this one was forked."""
        self._is_over = True
        self._core.lost("the process was forked")
        for one in (self._socket, self._wake_receiver, self._wake_sender):
            one.close()

    # For SyncCall

    def send_part(self, call: "SyncCall", data: memoryview, timeout_s: float | None) -> int:
        """Send a beginning of ``data``, when some of it can be; return how many bytes.

        Raises `httpx.WriteTimeout`.
        """
        deadline = None if timeout_s is None else monotonic() + timeout_s
        with self._lock:
            while not self._is_sendable(call):
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    raise httpx.WriteTimeout("the server does not read the request's body")
                call.changed.wait(left)
            sent = self._core.send(call.stream, data)
            self._pump()
            return sent

    def end_request(self, call: "SyncCall") -> None:
        """The body is complete."""
        with self._lock:
            self._core.end(call.stream, monotonic())
            self._pump()

    def take(self, call: "SyncCall") -> bytes:
        """Return what of the response has come."""
        with self._lock:
            data = self._core.take(call.stream)
            self._pump()
            return data

    def cancel(self, call: "SyncCall") -> None:
        """Reset the stream if it is open, and forget the call: now, or soon in the reader."""
        self._given_up.append(call)
        if self._lock.acquire(blocking=False):
            try:
                self._pump()
            finally:
                self._lock.release()
        else:
            self._wake_reader()

    def _is_sendable(self, call: "SyncCall") -> bool:
        is_room = len(self._unsent) < _MAX_UNSENT_BYTES
        return (is_room and self._core.is_sendable(call.stream)) or call.stream.failure is not None

    # Under the lock

    def _pump(self) -> None:
        """Send what waits, wake who has news, and the reader thread if it slept for too long."""
        given_up = self._take_given_up()
        self._send()
        for stream in self._core.changed:
            if (call := self._calls.get(stream)) is not None:
                call.changed.notify_all()
        self._core.changed.clear()
        for call in given_up:
            self._calls.pop(call.stream, None)
        if self._core.phase is not ConnectionPhase.STARTING:
            self._started.notify_all()
        if threading.current_thread() is not self._thread and self._is_reader_late():
            self._wake_reader()

    def _take_given_up(self) -> list["SyncCall"]:
        """Reset the streams of calls that are given up."""
        taken = []
        while self._given_up:
            call = self._given_up.popleft()
            self._core.cancel(call.stream, monotonic())
            taken.append(call)
        return taken

    def _wake_reader(self) -> None:
        with suppress(OSError):  # it has enough to wake up for, or it has ended
            self._wake_sender.send(b"\0")

    def _is_reader_late(self) -> bool:
        if self._is_over:
            return False
        due = self._core.next_tick_at
        is_earlier = due is not None and (self._sleeps_until is None or due < self._sleeps_until)
        return is_earlier or self.is_closed or (bool(self._unsent) and not self._watches_writes)

    def _send(self) -> None:
        self._unsent += self._core.data_to_send()
        was_full = len(self._unsent) >= _MAX_UNSENT_BYTES
        try:
            while self._unsent and self._can_send:
                sent = self._socket.send(bytes(self._unsent[:_READ_BYTES]))
                del self._unsent[:sent]
        except _BLOCKED:
            pass
        except OSError:
            # What the server sent before is still to be read, and then the end.
            self._can_send = False
        if not self._can_send:
            self._unsent.clear()
        if was_full and len(self._unsent) < _MAX_UNSENT_BYTES:
            self._core.changed.update(self._calls)

    # The reader thread

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake_receiver, selectors.EVENT_READ)
                selector.register(self._socket, selectors.EVENT_READ)
                has_more = False
                while (timeout_s := self._prepare(selector)) is None or timeout_s >= 0:
                    ready = selector.select(0 if has_more else timeout_s)
                    if any(key.fileobj is self._wake_receiver for key, _ in ready):
                        self._wake_receiver.recv(_READ_BYTES)
                    has_more = self._read()
        finally:
            with self._lock:
                self._is_over = True
                self._core.lost("its reader ended")
                self._pump()
                for one in (self._socket, self._wake_receiver, self._wake_sender):
                    one.close()

    def _prepare(self, selector: selectors.BaseSelector) -> float | None:
        """Do what is due; return for how many seconds to sleep: -1 for no more, None for ever."""
        with self._lock:
            now = monotonic()
            self._core.tick(now)
            self._pump()
            if self.is_closed:
                return -1
            self._watches_writes = bool(self._unsent)
            events = selectors.EVENT_READ | (self._watches_writes and selectors.EVENT_WRITE)
            selector.modify(self._socket, events)
            self._sleeps_until = self._core.next_tick_at
            if self._sleeps_until is None:
                return None
            return min(max(0, self._sleeps_until - now), _LONGEST_SLEEP_S)

    def _read(self) -> bool:
        """Read what has come; return whether there may be more."""
        for _ in range(_READS_PER_TURN):
            with self._lock:
                try:
                    data = self._socket.recv(_READ_BYTES)
                except _BLOCKED:
                    return False
                except OSError as error:
                    self._core.lost(str(error))
                    return False
                if data:
                    self._core.receive(data, monotonic())
                else:
                    self._core.lost("the server closed it")
                self._pump()
                if self.is_closed:
                    return False
        return True


class SyncCall:
    """One call on a connection. All waits are for the thread that made it."""

    def __init__(
        self, connection: SyncConnection, stream: CallStream, lock: threading.Lock
    ) -> None:
        self.stream = stream
        self.changed = threading.Condition(lock)
        self._connection = connection

    def send(self, data: bytes, timeout_s: float | None) -> bool:
        """Send a part of the body; return whether the server takes more.

        Raises `httpx.WriteTimeout` if it takes nothing for ``timeout_s`` seconds, and `CallFailed`.
        """
        rest = memoryview(data)
        while rest:
            rest = rest[self._connection.send_part(self, rest, timeout_s) :]
            if self.stream.failure is not None:
                raise CallFailed(self.stream.failure, is_sending=True)
        return not self.stream.is_ended

    def end(self) -> None:
        """The body is complete."""
        self._connection.end_request(self)

    def wait_head(self, timeout_s: float | None) -> None:
        """Wait for the response head.

        Raises `httpx.ReadTimeout` after ``timeout_s`` seconds of silence, and `CallFailed`.
        """
        with self.changed:
            began = monotonic()
            while not self.stream.status:
                if self.stream.failure is not None:
                    raise CallFailed(self.stream.failure)
                self._wait(began, timeout_s)

    def read(self, timeout_s: float | None) -> bytes:
        """Return the next bytes of the response's body, b"" at its end.

        Raises `httpx.ReadTimeout` after ``timeout_s`` seconds of silence, and `CallFailed`.
        """
        while True:
            with self.changed:
                began = monotonic()
                while not self.stream.is_readable:
                    self._wait(began, timeout_s)
            if data := self._connection.take(self):
                return data
            if self.stream.is_ended:
                return b""
            if self.stream.failure is not None:
                raise CallFailed(self.stream.failure)

    def cancel(self) -> None:
        """End the call: the stream is reset unless it has ended."""
        self._connection.cancel(self)

    def _wait(self, began: float, timeout_s: float | None) -> None:
        left = None
        if timeout_s is not None:
            left = max(began, self.stream.heard_at) + timeout_s - monotonic()
            if left <= 0:
                raise httpx.ReadTimeout("the server sent nothing on this stream in time")
        self.changed.wait(left)
