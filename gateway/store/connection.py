"""One NATS connection, kept for as long as the process lives.

`nats-py` carries it, with two of its habits put right: it gives up for good when a server refuses
the login once (a rotated password, an expired token), and it logs a trace for every failed attempt.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from gateway.store.errors import BucketMissingError, ConflictError, StoreUnavailableError
from runtime.tasks import spawn

RECONNECT_WAIT_S = 0.2
"""Between attempts; a key that was revoked meanwhile should stop soon after NATS is back."""
PING_INTERVAL_S = 5
"""Twice unanswered, and the connection is taken for dead."""
ANSWER_WITHIN_S = 3.0

_log = logging.getLogger("gateway.store")


@dataclass(frozen=True, slots=True)
class NatsOptions:
    """Where NATS is and how to log in; every kind of login is optional.

    ``credentials_file`` is a ``.creds`` file (JWT and seed). TLS is used with a ``tls://`` URL or
    a ``ca_file``, which is for a private authority.
    """

    urls: tuple[str, ...]
    name: str = "gateway"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    credentials_file: Path | None = None
    ca_file: Path | None = None


class Connection:
    """Opens, keeps and closes the connection; tells when it is lost."""

    def __init__(self, options: NatsOptions) -> None:
        self._options = options
        self._reopening: asyncio.Task[None] | None = None
        self._client = Client()
        self._up = asyncio.Event()
        self._is_closed = False
        self._last_error = ""
        self._lost_listeners: set[Callable[[], None]] = set()

    async def open(self, timeout_s: float | None = None) -> None:
        """Connect, and keep trying; raises `StoreUnavailableError` after ``timeout_s`` seconds.

        Also raises it at once for options that cannot work: a malformed URL, a missing file.
        """
        try:
            async with asyncio.timeout(timeout_s):
                with translated():
                    await self._connect()
        except TimeoutError:
            await self.close()
            raise StoreUnavailableError(self._last_error or "no answer from NATS") from None

    async def close(self) -> None:
        """Close for good. Nothing is buffered that would be lost."""
        self._is_closed = True
        self._up.clear()
        if self._reopening is not None:
            self._reopening.cancel()
        await self._client.close()

    async def client(self) -> Client:
        """Return the client once it is connected, however long that takes."""
        await self._up.wait()
        return self._client

    def connected_client(self) -> Client:
        """Return the client; raises `StoreUnavailableError` when it is not connected now."""
        if not self._up.is_set():
            raise StoreUnavailableError(self._last_error or "not connected to NATS")
        return self._client

    def on_lost(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` whenever the connection breaks, until `forget` is called with it."""
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
            reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # it sleeps so long
            ping_interval=PING_INTERVAL_S,
            connect_timeout=2,
        )
        self._last_error = ""
        self._up.set()

    async def _on_reconnected(self) -> None:
        _log.info("store.reconnected")
        self._last_error = ""
        self._up.set()

    async def _on_disconnected(self) -> None:
        if not self._is_closed and self._up.is_set():
            _log.warning("store.disconnected", extra={"fields": {"error": self._last_error}})
        self._up.clear()
        for listener in list(self._lost_listeners):
            listener()

    async def _on_closed(self) -> None:
        if not self._is_closed:
            self._up.clear()
            self._reopening = spawn(self._reopen(), "store.reopen")

    async def _reopen(self) -> None:
        """Start again with a new client: nats-py has given up on the old one."""
        await asyncio.sleep(1.0)
        self._client = Client()
        await self._connect()
        _log.info("store.reconnected")
        if self._is_closed:  # and nats-py has swallowed the cancellation
            await self.close()

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, ConnectionResetError) and self._last_error:
            # A server that refuses us closes at once, and its reason does not always arrive.
            return
        text = str(error) or type(error).__name__
        if text != self._last_error:
            self._last_error = text
            _log.warning("store.nats_error", extra={"fields": {"error": text}})


@contextmanager
def translated() -> Iterator[None]:
    """Turn what `nats-py` raises into `StoreError`; nothing outside knows its exceptions."""
    try:
        yield
    except nats.js.errors.KeyWrongLastSequenceError as error:
        raise ConflictError("the record has been changed in between") from error
    except nats.js.errors.NotFoundError as error:
        raise BucketMissingError(error.description or "the bucket is missing") from error
    except nats.js.errors.APIError as error:
        if error.err_code == _WRONG_LAST_SEQUENCE:
            raise ConflictError("the record has been changed in between") from error
        raise StoreUnavailableError(error.description or "JetStream refused") from error
    except nats.js.errors.NoStreamResponseError as error:
        raise BucketMissingError("JetStream is off, or the bucket is missing") from error
    except (nats.errors.TimeoutError, TimeoutError) as error:
        raise StoreUnavailableError(f"no answer from NATS within {ANSWER_WITHIN_S} s") from error
    except (nats.errors.Error, OSError) as error:
        raise StoreUnavailableError(str(error)) from error


_WRONG_LAST_SEQUENCE = 10071
