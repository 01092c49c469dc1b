"""One NATS connection for the store, kept for as long as the process lives.

`nats-py` carries it. Two of its properties are corrected here: it gives up for good when a server
refuses the login once (a rotated password, an expired token), and it logs a trace for every failed
attempt.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from gateway.errors import Conflict, StoreUnavailable
from gateway.store.options import NatsOptions
from runtime.events import emit
from runtime.tasks import spawn

RECONNECT_WAIT_S = 0.2
"""Pause between attempts. Short: a key that was revoked while NATS was away must stop soon."""
PING_INTERVAL_S = 5
"""Two pings without a response end the connection."""
RESPONSE_WITHIN_S = 3.0
"""Timeout of one call to JetStream."""

_log = logging.getLogger("gateway.store")


class BucketMissing(StoreUnavailable):
    """The bucket does not exist, not yet or no longer."""


class NatsStoreConnection:
    """Opens, keeps and closes the connection, and calls listeners when it is lost."""

    def __init__(self, options: NatsOptions) -> None:
        self._options = options
        self._reopening: asyncio.Task[None] | None = None
        self._client = Client()
        self._up = asyncio.Event()
        self._is_closed = False
        self._last_error = ""
        self._lost_listeners: set[Callable[[], None]] = set()

    async def open(self, timeout_s: float | None = None) -> None:
        """Connect, and keep trying; raise `StoreUnavailable` after ``timeout_s`` seconds.

        Raises it at once for options that cannot work: a malformed URL, a missing file.
        """
        try:
            async with asyncio.timeout(timeout_s):
                with translate_errors():
                    await self._connect()
        except TimeoutError:
            await self.close()
            raise StoreUnavailable(cause=self._last_error or "no response from NATS") from None

    async def close(self) -> None:
        """Close for good. There are no buffered writes to lose."""
        self._is_closed = True
        self._up.clear()
        if self._reopening is not None:
            self._reopening.cancel()
        # The client writes what it still has, also to a server that has gone.
        with suppress(ConnectionError):
            await self._client.close()

    async def client(self) -> Client:
        """Wait without limit until the client is connected; return it."""
        await self._up.wait()
        return self._client

    def connected_client(self) -> Client:
        """Return the client. Raises `StoreUnavailable` if it is not connected now."""
        if not self._up.is_set():
            raise StoreUnavailable(cause=self._last_error or "not connected to NATS")
        return self._client

    def on_lost(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` whenever the connection is lost, until `forget` is called with it."""
        self._lost_listeners.add(listener)

    def forget(self, listener: Callable[[], None]) -> None:
        self._lost_listeners.discard(listener)

    async def _connect(self) -> None:
        options, client = self._options, self._client
        ca_file = options.ca_file
        tls = None if ca_file is None else ssl.create_default_context(cafile=ca_file)
        await client.connect(
            servers=list(options.urls),
            name=options.name,
            user=options.user,
            password=options.password,
            token=options.token,
            user_credentials=str(options.credentials_file) if options.credentials_file else None,
            tls=tls,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # seconds, may be a fraction
            ping_interval=PING_INTERVAL_S,
            connect_timeout=2,
        )
        self._last_error = ""
        self._up.set()

    async def _on_reconnected(self) -> None:
        emit(_log, "store.reconnected")
        self._last_error = ""
        self._up.set()

    async def _on_disconnected(self) -> None:
        if not self._is_closed and self._up.is_set():
            emit(_log, "store.disconnected", logging.WARNING, error=self._last_error)
        self._up.clear()
        for listener in list(self._lost_listeners):
            listener()

    async def _on_closed(self) -> None:
        if not self._is_closed:
            self._up.clear()
            self._reopening = spawn(self._reopen(), "store.reopen")

    async def _reopen(self) -> None:
        """Connect with a new client: nats-py has given up on the old one."""
        await asyncio.sleep(1.0)
        self._client = Client()
        await self._connect()
        emit(_log, "store.reconnected")
        if self._is_closed:  # and nats-py has swallowed the cancellation
            await self.close()

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, ConnectionResetError) and self._last_error:
            # A server that refuses the login closes at once, often before its reason arrives.
            return
        known = error.strerror if isinstance(error, OSError) else None
        text = known or str(error) or type(error).__name__
        if text != self._last_error:
            self._last_error = text
            emit(_log, "store.nats_error", logging.WARNING, error=text)


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise `Conflict`, `BucketMissing` or `StoreUnavailable` in place of `nats-py`'s errors.

    The cause names servers and streams: it is for logs, not for callers.
    """
    try:
        yield
    except nats.js.errors.KeyWrongLastSequenceError as error:
        raise Conflict(cause="the record has been changed in between") from error
    except nats.js.errors.NotFoundError as error:
        raise BucketMissing(cause=error.description or "the bucket is missing") from error
    except nats.js.errors.APIError as error:
        if error.err_code == _WRONG_LAST_SEQUENCE:
            raise Conflict(cause="the record has been changed in between") from error
        raise StoreUnavailable(cause=error.description or "JetStream refused") from error
    except nats.js.errors.NoStreamResponseError as error:
        raise BucketMissing(cause="JetStream is off, or the bucket is missing") from error
    except (nats.errors.TimeoutError, TimeoutError) as error:
        raise StoreUnavailable(
            cause=f"no response from NATS within {RESPONSE_WITHIN_S} s"
        ) from error
    except (nats.errors.Error, OSError) as error:
        raise StoreUnavailable(cause=str(error)) from error


_WRONG_LAST_SEQUENCE = 10071
