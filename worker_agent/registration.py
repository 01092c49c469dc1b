"""Registers the worker at the platform's API and renews its lease, token and broker login.

    POST /v2/nvcf/worker/connect     ids ──▶ region, broker login, a new token, the lease
    POST /v2/nvcf/worker/heartbeat   status ──▶ the lease

Both responses may contain the number of requests that the deployment asks the worker to process at
a time; without it, the number stays. They may also tell the worker to stop. A worker that came with
a registration token registers again, as the instance that it is, when the platform has lost its
record or its own token has ended. A heartbeat is sent three times per lease, and at once when
health, slots or stopping change. Token and login are renewed after half of their life, so the API
may be unreachable for the other half: no request depends on it. A token that is refused after the
first connect does not stop the worker either: the platform stops workers that it does not need.
"""

import asyncio
import json
import logging
import random
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from http1.client.pool import Connect, Pool
from runtime.events import emit
from runtime.tasks import spawn
from wire import worker_api
from wire.worker_api import CONNECT_PATH, HEARTBEAT_PATH, MAX_CONCURRENCY, claims_of

HEARTBEATS_PER_LEASE = 3
LAST_HEARTBEAT_S = 2.0
_RETRY_MIN_S = 0.25
_RETRY_MAX_S = 5.0
_RENEW_MIN_S = 2.0
"""The time between two renewals that the broker's refusals ask for, at least."""
_MAX_RESPONSE_BYTES = 65_536
_IDLE_S = 15.0
"""Longer than the time between two heartbeats, so that they share a connection."""
_REFUSED = 401
_WAIT_MOST_S = 15.0
"""Time between two attempts to register while the version has no place for the worker."""
_DEFINITE = frozenset({400, 401, 403, 410})
"""Statuses after which another attempt with the same token gets the same response."""
_LOST = frozenset({401, 404})
"""The worker's own token has ended, or its instance has no record."""
_NO_PLACE = 409
_UNWANTED = frozenset({403, 409, 410})
"""Statuses of a registration that tell a running worker that it is not wanted any more."""

_log = logging.getLogger("worker.connect")


class ConnectError(Exception):
    """The API cannot be reached or refused the call; ``status`` is 0 without a response."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class InstanceRef(NamedTuple):
    """The instance that the worker belongs to.

    ``facts`` are what the worker tells of itself, ``registration_token`` is what it came with,
    empty if it was started for the instance.
    """

    instance_id: str
    function_id: str
    version_id: str
    facts: Mapping[str, object] | None = None
    registration_token: str = ""

    def __repr__(self) -> str:
        return f"InstanceRef({self.instance_id})"


class Status(NamedTuple):
    """The content of a heartbeat (`wire.worker_api.HeartbeatRequest`)."""

    healthy: bool
    slots: int
    busy: int
    stopping: bool


class ConnectResult(NamedTuple):
    """What a connect gave the worker (`wire.worker_api.ConnectResponse`).

    ``login`` is the login for the queue's broker, `None` when the worker uses its own settings.
    ``other_regions`` are those whose queues it serves while its own is empty.
    """

    region: str
    login: object | None
    token: str
    expires_s: float
    lease_s: float
    concurrency: int | None = None
    stop: str = ""
    other_regions: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"ConnectResult({self.region}, {self.login})"


ReadLogin = Callable[[Mapping[str, object]], object | None]
"""Returns the login in a response to connect, `None` if it has none.

Raises KeyError, TypeError or ValueError for one that cannot be used.
"""


class WorkerApi(Protocol):
    """The platform's API."""

    async def post(self, path: str, token: str, document: object) -> Mapping[str, object]:
        """Return the response to ``document``. Raises `ConnectError`."""


class Worker(Protocol):
    """The worker that is registered."""

    def status(self) -> Status:
        """Return the present status; called for each heartbeat."""

    def concurrency_requested(self, concurrency: int) -> None:
        """Called for every response with the number of requests to process at a time."""

    def stop_requested(self, reason: str) -> None:
        """Called for every response that tells the worker to finish its requests and to exit."""

    async def login_renewed(self) -> None:
        """Called after token and login have been renewed."""


class HttpApi:
    """The API at ``url``, http or https. Close it at the end."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """``timeout_s`` bounds each call. Raises `ConnectError` for a URL that names no server."""
        try:
            parts = urlsplit(url.rstrip("/"))
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConnectError(f"control.url: {error}") from error
        if host is None:
            raise ConnectError("control.url names no host")
        self._prefix = parts.path
        self._authority = parts.netloc.rpartition("@")[2]
        self._timeout_s = timeout_s
        self._pool = Pool(
            _connect_to(host, port, is_tls=parts.scheme == "https"),
            idle_s=_IDLE_S,
            max_idle=1,
            connect_timeout_s=timeout_s,
        )

    async def post(self, path: str, token: str, document: object) -> Mapping[str, object]:
        """Return the response to ``document``. Raises `ConnectError`."""
        content = json.dumps(document).encode()
        if not (token.isascii() and token.isprintable()):
            raise ConnectError("the token cannot be sent in a header", _REFUSED)
        head = (
            f"POST {self._prefix}{path} HTTP/1.1\r\nHost: {self._authority}\r\n"
            f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                status, body = await self._pool.response_to(
                    head.encode(), content, _MAX_RESPONSE_BYTES
                )
        except TimeoutError as error:
            raise ConnectError("no response in time") from error
        except OSError as error:
            raise ConnectError(str(error) or type(error).__name__) from error
        if status != 200:
            raise ConnectError(f"status {status}: {_detail(body)}", status)
        parsed = _parse_document(body)
        if parsed is None:
            raise ConnectError("the response is not a JSON object")
        return parsed

    def close(self) -> None:
        """Close its connections."""
        self._pool.close()


def _connect_to(host: str, port: int | None, *, is_tls: bool) -> Connect:
    loop = asyncio.get_running_loop()
    tls = ssl.create_default_context() if is_tls else None
    number = port or (443 if is_tls else 80)
    return lambda factory: loop.create_connection(factory, host, number, ssl=tls)


async def register_until_done(
    api: WorkerApi,
    token: str,
    request: worker_api.ConnectRequest,
    on_wait: Callable[[str], None],
) -> Mapping[str, object]:
    """Register as an instance and return the response; repeat failed attempts without limit.

    ``on_wait`` is called with the reason of each that failed. Raises `ConnectError` for a response
    that further attempts cannot change.
    """
    delay_s, most_s, reason = _RETRY_MIN_S, _RETRY_MAX_S, ""
    while True:
        try:
            return await api.post(CONNECT_PATH, token, request)
        except ConnectError as error:
            if error.status in _DEFINITE:
                raise
            if str(error) != reason:
                reason = str(error)
                event = "control.no_place" if error.status == _NO_PLACE else "control.away"
                emit(_log, event, logging.WARNING, error=reason)
                on_wait(reason)
            if error.status == _NO_PLACE:
                # Also while the API is away after that: when it is back with the records lost,
                # workers that run register again, and a spare must not be faster than they are.
                most_s = _WAIT_MOST_S
        await asyncio.sleep(spread(delay_s))
        delay_s = min(2 * delay_s, most_s)


class Registration:
    """The registration of one worker: call `connect` once, then `start`, and `stop` at the end."""

    def __init__(
        self,
        api: WorkerApi,
        instance: InstanceRef,
        token: str,
        worker: Worker,
        read_login: ReadLogin,
    ) -> None:
        """``token`` is the instance's first token; later ones come from the API."""
        self._api = api
        self._instance = instance
        self._token = token
        self._worker = worker
        self._read_login = read_login
        self._changed = asyncio.Event()
        self._is_due = asyncio.Event()
        self._response: ConnectResult | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_reachable = True
        self.is_renewal_failing = False
        """Whether the latest attempt to renew token and login failed."""

    @property
    def response(self) -> ConnectResult:
        """The latest response to connect. `connect` must have returned."""
        if self._response is None:
            raise AssertionError("not connected yet")
        return self._response

    async def connect(self) -> ConnectResult:
        """Connect; repeat failed attempts without limit.

        Raises `ConnectError` for a response that further attempts cannot change.
        """
        delay_s = _RETRY_MIN_S
        while True:
            try:
                return await self._connect()
            except ConnectError as error:
                if error.status in _DEFINITE:
                    raise
                emit(_log, "control.away", logging.WARNING, error=str(error))
            await asyncio.sleep(spread(delay_s))
            delay_s = min(2 * delay_s, _RETRY_MAX_S)

    def start(self) -> None:
        """Begin to send heartbeats and to renew token and login."""
        self._tasks = [
            spawn(self._send_heartbeats(), "worker.heartbeats"),
            spawn(self._renew(), "worker.renewal"),
        ]

    def changed(self) -> None:
        """Send a heartbeat at once: health, slots or stopping have changed."""
        self._changed.set()

    def renew_soon(self) -> None:
        """Renew token and login, but not more often than every few seconds."""
        self._is_due.set()

    async def stop(self) -> None:
        """Send a last heartbeat and end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(ConnectError, TimeoutError):
            async with asyncio.timeout(LAST_HEARTBEAT_S):
                await self._send_heartbeat(is_last=True)

    async def _connect(self) -> ConnectResult:
        instance = self._instance
        request: worker_api.ConnectRequest = {
            "instanceId": instance.instance_id,
            "functionId": instance.function_id,
            "functionVersionId": instance.version_id,
        }
        if instance.facts is not None:
            request["worker"] = instance.facts
        try:
            document = await self._api.post(CONNECT_PATH, self._token, request)
        except ConnectError as error:
            if not instance.registration_token or error.status not in _LOST:
                raise
            await self._register(request)
            document = await self._api.post(CONNECT_PATH, self._token, request)
        response = self._response = read_connect_response(document, self._read_login)
        self._token = response.token
        self._report(response.concurrency, response.stop)
        return response

    async def _register(self, request: worker_api.ConnectRequest) -> None:
        """Register again as the instance that this worker is."""
        try:
            document = await self._api.post(
                CONNECT_PATH, self._instance.registration_token, request
            )
        except ConnectError as error:
            # A 401 alone may be that of a proxy, and pass.
            is_over = error.status == _REFUSED and has_expired(self._instance.registration_token)
            if error.status in _UNWANTED or is_over:
                self._worker.stop_requested(str(error))
            raise
        self._token = read_connect_response(document, self._read_login).token
        emit(_log, "control.registered_again", instance_id=self._instance.instance_id)

    async def _send_heartbeats(self) -> None:
        delay_s = _RETRY_MIN_S
        while True:
            self._changed.clear()
            regular_s = self.response.lease_s / HEARTBEATS_PER_LEASE
            try:
                await self._send_heartbeat()
            except ConnectError as error:
                self._log_unreachable(error)
                if self._instance.registration_token and error.status in _LOST:
                    self.renew_soon()
                wait_s = spread(min(delay_s, regular_s))
                delay_s = min(2 * delay_s, _RETRY_MAX_S)
            else:
                self._log_reachable()
                wait_s, delay_s = regular_s, _RETRY_MIN_S
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    async def _send_heartbeat(self, *, is_last: bool = False) -> None:
        status = self._worker.status()
        request: worker_api.HeartbeatRequest = {
            "instanceId": self._instance.instance_id,
            "healthy": status.healthy,
            "slots": status.slots,
            "busy": status.busy,
            "stopping": status.stopping,
        }
        if is_last:
            request["gone"] = True
        document = await self._api.post(HEARTBEAT_PATH, self._token, request)
        self._report(read_concurrency(document), read_stop(document))

    def _report(self, concurrency: int | None, stop: str) -> None:
        if concurrency is not None:
            self._worker.concurrency_requested(concurrency)
        if stop:
            self._worker.stop_requested(stop)

    async def _renew(self) -> None:
        paused_s = 0.0
        while True:
            half_s = self.response.expires_s / 2
            with suppress(TimeoutError):
                async with asyncio.timeout(spread(half_s - paused_s)):
                    await self._is_due.wait()
            delay_s = _RETRY_MIN_S
            while True:
                try:
                    await self._connect()
                    break
                except ConnectError as error:
                    self.is_renewal_failing = True
                    emit(_log, "control.not_renewed", logging.WARNING, error=str(error))
                await asyncio.sleep(spread(delay_s))
                delay_s = min(2 * delay_s, _RETRY_MAX_S)
            self.is_renewal_failing = False
            await self._worker.login_renewed()
            paused_s = min(_RENEW_MIN_S, self.response.expires_s / 4)
            await asyncio.sleep(paused_s)
            self._is_due.clear()

    def _log_unreachable(self, error: ConnectError) -> None:
        """Log the first failed heartbeat in a row, not every one."""
        if self._is_reachable:
            emit(_log, "control.away", logging.WARNING, error=str(error))
        self._is_reachable = False

    def _log_reachable(self) -> None:
        if not self._is_reachable:
            emit(_log, "control.back")
        self._is_reachable = True


def has_expired(token: str) -> bool:
    """Whether a registration token has expired, by its own words and the clock of this machine."""
    ends_at = claims_of(token).get("exp")
    return isinstance(ends_at, int | float) and ends_at < time.time()


def read_connect_response(document: Mapping[str, object], read_login: ReadLogin) -> ConnectResult:
    """Return the response to connect. Raises `ConnectError` for one that cannot be used."""
    try:
        return ConnectResult(
            region=_text(document, "region"),
            login=read_login(document),
            token=_text(document, "token"),
            expires_s=_positive(document, "expiresInSeconds"),
            lease_s=_positive(document, "leaseSeconds"),
            concurrency=read_concurrency(document),
            stop=read_stop(document),
            other_regions=_texts(document.get("otherRegions") or ()),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConnectError(f"the response lacks a usable {error}") from error


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise ValueError("otherRegions")
    return tuple(value)


def read_concurrency(document: Mapping[str, object]) -> int | None:
    """Return the number of requests to process at a time, `None` if missing or not usable."""
    value = document.get("maxRequestConcurrency")
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_CONCURRENCY:
        return None
    return value


def _text(members: Mapping[str, object], name: str) -> str:
    value = members[name]
    if not isinstance(value, str) or not value:
        raise TypeError(name)
    return value


def _positive(members: Mapping[str, object], name: str) -> float:
    value = members[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise TypeError(name)
    return float(value)


def read_stop(document: Mapping[str, object]) -> str:
    """Return why the worker is to stop, empty if it is not."""
    reason = document.get("stop")
    return reason if isinstance(reason, str) else ""


def _parse_document(body: bytes) -> Mapping[str, object] | None:
    try:
        parsed = json.loads(body)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _detail(body: bytes) -> str:
    """Return the detail of a problem document."""
    detail = (_parse_document(body) or {}).get("detail")
    return detail[:200] if isinstance(detail, str) else "no detail"


def spread(delay_s: float) -> float:
    """Return a somewhat shorter delay at random, so that agents do not come back together."""
    return delay_s * random.uniform(0.8, 1.0)  # noqa: S311 - spreads agents, guards nothing
